// SPDX-License-Identifier: MPL-2.0

//! Browsers whose network lets no UDP through, by nftables in a namespace: they publish and play by TCP.

use serde_json::Value;
use sfu_tests::server::{self, Server};
use sfu_tests::{browser, netns};

use crate::small_mtu::shell;

/// From here on no UDP leaves, or comes.
fn block_udp() {
    shell("nft add table inet blocked");
    shell("nft add chain inet blocked out { type filter hook output priority 0 ; }");
    shell("nft add rule inet blocked out meta l4proto udp counter drop");
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

fn isolated(test: &str) -> bool {
    let environment = server::environment().unwrap();
    let inside = netns::isolated(test, &environment);
    if inside {
        netns::add_interface();
        block_udp();
    }
    inside
}

/// Publishes and plays with 80 ms of round trip, and says how old pictures are.
#[test]
fn chromium_publishes_and_plays_by_tcp_from_far_away() {
    if !isolated("udp_blocked::chromium_publishes_and_plays_by_tcp_from_far_away") {
        return;
    }
    let server = Server::launch("udp_blocked", "shards=1").unwrap();
    let picture = browser::screenshot("udp_blocked").unwrap();
    let (url, udp) = (server.url(""), server.udp_port().to_string());
    let arguments = [
        "--url",
        &url,
        "--udp",
        &udp,
        "--tcp",
        "40",
        "--seconds",
        "15",
        "--settle",
        "5",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("far.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(seen["by"], "tcp");
    assert!(number(&seen["frames"]) > 200.0, "{seen}");
    // 160 ms are the way there and back; a busy machine needs the rest.
    assert!(number(&seen["p95Ms"]) < 500.0, "{seen}");
    assert!(server.metric("sfu_tcp_connections_total").unwrap() >= 2);
    assert_eq!(server.metric("sfu_tcp_datagrams_dropped_total").unwrap(), 0);
}

/// Firefox by itself, and beside Chromium.
#[test]
fn firefox_and_chromium_publish_to_each_other_by_tcp() {
    if !isolated("udp_blocked::firefox_and_chromium_publish_to_each_other_by_tcp") {
        return;
    }
    let server = Server::pipeline("udp_blocked_firefox", "sfu", &[]).unwrap();
    let picture = browser::screenshot("udp_blocked_firefox").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--runs",
        "firefox:chromium:VP8,chromium:firefox:VP8",
        "--seconds",
        "8",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("publish.mjs", &arguments).unwrap();
    for seen in seen.as_array().unwrap() {
        println!("{seen}");
        assert_eq!(seen["state"], "Live");
        let more = |key: &str| number(&seen["played"][key]) - number(&seen["begun"][key]);
        assert!(more("framesDecoded") > 30.0, "{seen}");
        assert!(more("audioEnergy") > 0.0, "no sound: {seen}");
    }
    assert!(server.metric("sfu_tcp_connections_total").unwrap() >= 4);
}
