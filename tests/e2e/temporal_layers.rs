// SPDX-License-Identifier: MPL-2.0

//! Chromium publishes with temporal layers, and a viewer that wants fewer frames gets the same picture at a lower rate.

use serde_json::Value;
use sfu_tests::browser;
use sfu_tests::server::Server;

fn number(seen: &Value, what: &str) -> f64 {
    let value = &seen[what];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{what} is {value} in {seen}"))
}

#[test]
fn a_viewer_in_chromium_sees_fewer_frames_and_all_again() {
    let server = Server::pipeline("temporal_layers", "sfu", &[]).unwrap();
    let picture = browser::screenshot("temporal_layers").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--codecs",
        "VP8,H264,AV1",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("temporal.mjs", &arguments).unwrap();
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), 3);
    for seen in seen {
        println!("{seen}");
        let (full, fewer, back) = (&seen["full"], &seen["fewer"], &seen["back"]);
        let codec = seen["codec"].as_str().unwrap();
        assert_eq!(full["codec"], format!("video/{codec}"));
        let share = number(fewer, "fps") / number(full, "fps");
        assert!(
            (0.3..0.7).contains(&share),
            "{codec}: half of the frames, not {share}"
        );
        let again = number(back, "fps") / number(full, "fps");
        assert!(again > 0.8, "{codec}: all of them again, not {again}");
        let layer = |seen: &Value| seen["layer"]["current"].clone();
        assert_eq!(layer(fewer), layer(full), "{codec}");
        assert_eq!(fewer["layer"]["why"], "capped", "{codec}");
        let why = fewer["why"].as_str().unwrap();
        assert!(why.contains("fewer frames"), "{codec}: {why}");
        assert_eq!(
            fewer["pliCount"], full["pliCount"],
            "{codec}: nothing is missing without the others"
        );
        assert_eq!(back["pliCount"], full["pliCount"], "{codec}");
    }
}
