// SPDX-License-Identifier: MPL-2.0

//! Clients of others, as they come from npm: of WHIP, WHEP and GStreamer's own signalling. They publish and play, from pages of another site.

use sfu_tests::browser;
use sfu_tests::ndi::repository;
use sfu_tests::server::Server;

#[test]
fn clients_from_npm_publish_and_play() {
    let folder = repository().join("target/e2e-logs/clients");
    std::fs::create_dir_all(&folder).unwrap();
    // A page of another site is nobody's own machine.
    std::fs::write(folder.join("access"), "anyone play publish\n").unwrap();
    let pipeline = format!("allowed-origins=* access={}/access", folder.display());
    let server = Server::launch("clients", &pipeline).unwrap();
    let picture = browser::screenshot("clients").unwrap();
    let arguments = [
        "--url",
        &server.url(""),
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("clients.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(seen.as_object().unwrap().len(), 7, "{seen}");
    // All have said goodbye.
    let ended = || Ok((server.metric("sfu_sessions")? == 0).then_some(()));
    server.wait_for("the sessions to end", ended).unwrap();
}
