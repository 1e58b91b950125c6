// SPDX-License-Identifier: MPL-2.0

//! A browser's stream is encoded anew: a hundred viewers who join cost its publisher no keyframe.

use serde_json::Value;
use sfu_tests::server::Server;
use sfu_tests::{browser, load};

#[test]
fn a_hundred_viewers_cost_the_publisher_no_keyframe() {
    let keys = ["FROM=camera", "STREAM=demo", "LAYERS=270:500k,180:200k"];
    let server = Server::pipeline("re_encode", "re-encode", &keys).unwrap();
    let tool = load::tool().unwrap();
    let load = format!(
        "{} --whep {} --viewers 100 --duration 10s --json",
        tool.display(),
        server.url("/whep/demo")
    );
    let picture = browser::screenshot("re_encode").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--load",
        &load,
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("reencode.mjs", &arguments).unwrap();
    println!("{seen}");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{seen}"));
    let (before, after) = (&seen["before"], &seen["after"]);
    assert_eq!(seen["load"]["viewers_with_picture"], 100);
    assert_eq!(before["requests"], after["requests"]);
    let more = |key: &str| number(&after[key]) - number(&before[key]);
    assert!(more("framesDecoded") > 60.0);
    assert!(more("audioEnergy") > 0.0, "no sound");
    // What was spared: the viewers' own requests.
    let asked = server
        .metric("sfu_stream_keyframe_requests_received_total{stream=\"demo\"}")
        .unwrap();
    println!("viewers asked the new encoder {asked} times");
}
