// SPDX-License-Identifier: MPL-2.0

//! Viewers that relays alone let through: coturn takes the credentials that their sessions are told, and no others.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use sfu_tests::server::Server;
use sfu_tests::{browser, ndi, netns};

use crate::small_mtu::{Namespace, network, shell};

const LIMIT: Duration = Duration::from_secs(120);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// As docs/access.md shows it: relays lead to the server alone.
fn coturn(router: &Namespace) -> Child {
    let mut coturn = router.command("turnserver");
    coturn.args([
        "-n",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--log-file=stdout",
        "--pidfile=/dev/null",
    ]);
    coturn.args([
        "--listening-ip=10.99.2.2",
        "--relay-ip=10.99.1.2",
        "--realm=sfu.example.org",
    ]);
    coturn.args([
        "--use-auth-secret",
        &format!("--static-auth-secret={SECRET}"),
    ]);
    coturn.args([
        "--denied-peer-ip=0.0.0.0-255.255.255.255",
        "--allowed-peer-ip=10.99.1.1",
    ]);
    coturn.stdout(Stdio::null()).spawn().expect("coturn")
}

#[test]
fn a_viewer_of_relays_alone_plays() {
    let test = "turn::a_viewer_of_relays_alone_plays";
    if !netns::isolated(test, &[], LIMIT) {
        return;
    }
    let (router, viewer) = network(1_500, 1_500);
    let folder = ndi::repository().join("target/e2e-logs");
    fs::create_dir_all(&folder).unwrap();
    let secret = folder.join("turn.secret");
    fs::write(&secret, SECRET).unwrap();
    let mut relays = coturn(&router);
    let line = format!(
        "turn-servers=turn:10.99.2.2:3478 turn-secret={} shards=1 videotestsrc is-live=true \
         ! video/x-raw,width=640,height=360,framerate=30/1 ! x264enc tune=zerolatency speed-preset=ultrafast \
         bitrate=1000 key-int-max=30 ! rtph264pay config-interval=-1 ! sfusink name=sink stream=camera",
        secret.display()
    );
    let server = Server::launch_at("0.0.0.0", "turn", &line).expect("the server starts");
    server.wait_for_stream("camera").expect("it is live");
    let url = server.url("/camera").replace("127.0.0.1", "10.99.1.1");
    let picture = browser::screenshot("turn").unwrap();
    let arguments = ["--url", &url, "--screenshot", picture.to_str().unwrap()];
    let seen = browser::run_in(viewer.command("node"), "relayed.mjs", &arguments);
    let seen = seen.unwrap_or_else(|error| panic!("{error:#}: {}", server.log_tail()));
    println!("{seen}");
    assert_eq!(seen["type"], "relay");
    assert!(!server.log().contains("credential"), "none is in the log");
    drop(server);
    let _ = relays.kill();
    let _ = relays.wait();
    shell("ip link del near");
}
