// SPDX-License-Identifier: MPL-2.0

//! Chromium publishes with temporal layers, or `sfusink` encodes them, and a viewer that wants fewer frames gets the same
//! picture at a lower rate. The second stream has two audio tracks, of which a viewer chooses.

use serde_json::{Value, json};
use sfu_tests::browser;
use sfu_tests::server::Server;

fn number(seen: &Value, what: &str) -> f64 {
    let value = &seen[what];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{what} is {value} in {seen}"))
}

/// What a viewer saw who took fewer frames for a while.
fn assert_fewer_and_all_again(seen: &Value) {
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
    seen.iter().for_each(assert_fewer_and_all_again);
}

#[test]
fn what_is_encoded_here_has_temporal_layers_too() {
    let line = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 \
        ! sfusink name=out stream=test layers=360:700k codec=vp8 temporal-layers=2 \
        audiotestsrc is-live=true wave=silence ! taginject tags=language-code=de ! out.audio_0 \
        audiotestsrc is-live=true ! taginject tags=language-code=en-GB ! out.audio_1";
    let server = Server::launch("temporal_sfusink", line).unwrap();
    server.wait_for_stream("test").unwrap();
    let base = server.url("");
    let arguments = ["--base", &base, "--codecs", "VP8", "--stream", "test"];
    let seen = browser::run("temporal.mjs", &arguments).unwrap();
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), 1);
    assert_fewer_and_all_again(&seen[0]);
    // It has two languages, and the page a menu of them.
    assert_eq!(seen[0]["sounds"], json!(["German", "British English"]));
    let heard = seen[0]["heard"].as_array().unwrap();
    let loud: Vec<_> = heard
        .iter()
        .map(|level| level.as_f64().unwrap() > 0.1)
        .collect();
    assert_eq!(loud, [true, false, true], "{heard:?}");
}
