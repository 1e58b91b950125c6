// SPDX-License-Identifier: MPL-2.0

//! Chromium opens the player page of a test picture and plays it, sound included.

use sfu_tests::browser;
use sfu_tests::server::Server;

#[test]
fn chromium_plays_the_test_picture_and_changes_layers() {
    let keys = [
        "STREAM=demo",
        "LAYERS=360:700k,180:200k",
        "WIDTH=640",
        "HEIGHT=360",
    ];
    let server = Server::pipeline("browser_plays", "test-to-webrtc", &keys).unwrap();
    server.wait_for_stream("demo").unwrap();
    assert!(server.get("/").unwrap().contains("Live streams"));
    let picture = browser::screenshot("browser_plays").unwrap();
    let url = server.url("/demo");
    let arguments = [
        "--url",
        &url,
        "--seconds",
        "10",
        "--layer",
        "1",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("play.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(seen["state"], "Live");
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let frames = number(&seen["after"]["framesDecoded"]) - number(&seen["before"]["framesDecoded"]);
    assert!(frames > 200.0, "frames decoded in 10 s: {frames}");
    assert!(
        number(&seen["longestGapMs"]) < 500.0,
        "a freeze of {}",
        seen["longestGapMs"]
    );
    let energy = number(&seen["after"]["audioEnergy"]) - number(&seen["before"]["audioEnergy"]);
    assert!(energy > 0.0, "no sound");
    // The menu's choice arrives: the lower layer is shown, and the server says so.
    let sizes = seen["sizes"].as_array().unwrap();
    assert_eq!(sizes[0]["size"], "640x360");
    assert_eq!(sizes[1]["size"], "320x180");
    assert!(number(&sizes[1]["afterChoiceMs"]) < 1_500.0, "{}", sizes[1]);
    assert_eq!(seen["session"]["layer"]["current"], "1");
    // A viewer without loss has nothing to ask for but its first picture and the new layer.
    assert!(
        number(&seen["after"]["pliCount"]) <= 2.0,
        "{}",
        seen["after"]["pliCount"]
    );
}
