// SPDX-License-Identifier: MPL-2.0

//! Viewers that relays alone let through: coturn takes the credentials that their sessions are told, and no others.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;
use sfu_tests::server::{self, Server};
use sfu_tests::{access, browser, ndi, netns};

use crate::small_mtu::{Namespace, network, shell};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Where everything is, by one family of addresses.
struct Place {
    /// The relay, towards the viewer and towards the server.
    relay: [&'static str; 2],
    server: &'static str,
    /// All that relays must not lead to.
    denied: &'static str,
}

const IPV4: Place = Place {
    relay: ["10.99.2.2", "10.99.1.2"],
    server: "10.99.1.1",
    denied: "0.0.0.0-255.255.255.255",
};
const IPV6: Place = Place {
    relay: ["fd99:2::2", "fd99:1::2"],
    server: "fd99:1::1",
    denied: "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

/// As docs/access.md shows it: relays lead to the server alone, and are of the family by which they are asked for. Browsers
/// don't ask for one, and by default coturn gives them IPv4 (RFC 6156, section 4.2).
fn coturn(router: &Namespace, place: &Place) -> Child {
    let [near, far] = place.relay;
    let mut coturn = router.command("turnserver");
    coturn.args([
        "-n",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--log-file=stdout",
        "--pidfile=/dev/null",
        "--use-auth-secret",
        "--realm=sfu.example.org",
        "--allocation-default-address-family=keep",
    ]);
    coturn.args([
        format!("--listening-ip={near}"),
        format!("--relay-ip={far}"),
        format!("--static-auth-secret={SECRET}"),
        format!("--denied-peer-ip={}", place.denied),
        format!("--allowed-peer-ip={}", place.server),
    ]);
    coturn.stdout(Stdio::null()).spawn().expect("coturn")
}

/// In a URL.
fn host(address: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    }
}

#[test]
fn a_viewer_of_relays_alone_plays() {
    plays("turn::a_viewer_of_relays_alone_plays", &IPV4, "0.0.0.0");
}

#[test]
fn a_viewer_of_relays_alone_plays_by_ipv6() {
    plays(
        "turn::a_viewer_of_relays_alone_plays_by_ipv6",
        &IPV6,
        "[::]",
    );
}

/// By `livekit-client`, both ways, and with the connections of both of its protocols.
#[test]
fn a_participant_of_relays_alone_meets() {
    let test = "turn::a_participant_of_relays_alone_meets";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    let (tokens, keys) = access::room_tokens("relayed", ["ann", "ben"]).unwrap();
    let keys = keys.trim_start_matches("API_KEYS=");
    let more = format!("api-keys={keys} room-streams=relayed=camera");
    behind_relays(test, &IPV4, "0.0.0.0", &more, |server, viewer, picture| {
        let url = server.url("").replace("http://127.0.0.1", "ws://10.99.1.1");
        for (token, single) in tokens.iter().zip(["0", "1"]) {
            let arguments = [
                "--url",
                &url,
                "--token",
                token,
                "--single",
                single,
                "--screenshot",
                picture,
            ];
            let seen = browser::run_in(viewer.command("node"), "relayed_room.mjs", &arguments);
            let seen = seen.unwrap_or_else(|error| panic!("{error:#}: {}", server.log_tail()));
            println!("{seen}");
            check(&seen["comes"], &IPV4);
            check(&seen["leaves"], &IPV4);
        }
    });
}

fn plays(test: &str, place: &Place, listen: &str) {
    if !netns::isolated(test, &[]) {
        return;
    }
    behind_relays(test, place, listen, "", |server, viewer, picture| {
        let url = server
            .url("/camera")
            .replace("127.0.0.1", &host(place.server));
        let arguments = ["--url", &url, "--screenshot", picture];
        let seen = browser::run_in(viewer.command("node"), "relayed.mjs", &arguments);
        let seen = seen.unwrap_or_else(|error| panic!("{error:#}: {}", server.log_tail()));
        println!("{seen}");
        check(&seen, place);
    });
}

/// What a browser tells of its own candidate.
fn check(seen: &Value, place: &Place) {
    assert_eq!(seen["type"], "relay");
    let relay = seen["url"].as_str().unwrap_or_default();
    assert!(relay.contains(place.relay[0]), "{relay}");
}

/// A server with a stream `camera`, a relay, and a viewer for whose browsers there is a router between.
fn behind_relays(
    test: &str,
    place: &Place,
    listen: &str,
    more: &str,
    visit: impl FnOnce(&Server, &Namespace, &str),
) {
    let (router, viewer) = network(1_500, 1_500);
    let folder = ndi::repository().join("target/e2e-logs");
    fs::create_dir_all(&folder).unwrap();
    let secret = folder.join("turn.secret");
    fs::write(&secret, SECRET).unwrap();
    let mut relays = coturn(&router, place);
    let name = test.replace("::", "_");
    let line = format!(
        "udp-address={} turn-servers=turn:{}:3478 turn-secret={} shards=1 {more} videotestsrc is-live=true \
         ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 ! x264enc tune=zerolatency speed-preset=ultrafast \
         bitrate=1000 key-int-max=30 ! rtph264pay config-interval=-1 ! sfusink name=sink stream=camera",
        listen.trim_matches(['[', ']']),
        host(place.relay[0]),
        secret.display()
    );
    let server = Server::launch_at(listen, &name, &line).expect("the server starts");
    server.wait_for_stream("camera").expect("it is live");
    let picture = browser::screenshot(&name).unwrap();
    visit(&server, &viewer, picture.to_str().unwrap());
    assert!(!server.log().contains("credential"), "none is in the log");
    drop(server);
    let _ = relays.kill();
    let _ = relays.wait();
    shell("ip link del near");
}
