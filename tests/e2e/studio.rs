// SPDX-License-Identifier: MPL-2.0

//! The studio in Chromium, with its fake camera and microphone: scenes, texts and sound reach a viewer, and a session
//! that the server ends is followed by another.

use serde_json::{Value, json};
use sfu_tests::browser;
use sfu_tests::server::Server;

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn the_studio_composes_and_comes_back() {
    let server = Server::pipeline("studio", "sfu", &[]).unwrap();
    let picture = browser::screenshot("studio").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--stream",
        "show",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("studio.mjs", &arguments).unwrap();
    println!("{seen}");
    assert!(number(&seen["sound"]) > 1e-4, "no sound");
    assert!(
        number(&seen["muted"]) < number(&seen["sound"]) / 100.0,
        "muted"
    );
    assert!(number(&seen["again"]) > 1e-4, "no sound after it came back");
    // Digits and letters in a text are no keys.
    assert_eq!(seen["typed"], "break");
    // The logo is red.
    let logo: Vec<_> = (0..3).map(|n| number(&seen["logo"][n])).collect();
    assert!(
        logo[0] > 180.0 && logo[1] < 80.0 && logo[2] < 80.0,
        "{logo:?}"
    );
    assert_eq!(seen["scene"], "pip", "the scene stays");
    assert!(number(&seen["backAfterMs"]) < 10_000.0);
    let refused = seen["refused"].as_str().unwrap();
    assert!(refused.contains("Take over"), "{refused}");
    assert_eq!(seen["stillOurs"], "live");
    let layers = seen["stats"]["layers"].as_array().unwrap();
    let pictures = layers.iter().filter(|l| l["kind"] == "video").count();
    assert_eq!(pictures, 3);
    // Nothing is wider than the window.
    assert_eq!(seen["wide"], json!([1280, 0]));
    assert_eq!(seen["narrow"], json!([390, 0]));
    let links = json!(["/show", "/publish/show", "/studio/show"]);
    assert_eq!(seen["links"], links);
    assert_eq!(seen["ended"], true);
}

#[test]
fn guests_come_to_the_studio_and_go_on_air() {
    let server = Server::launch("studio_guests", "api-keys=test:secret").unwrap();
    let picture = browser::screenshot("studio_guests").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("guests.mjs", &arguments).unwrap();
    println!("{seen}");
    assert!(seen["guest"].as_str().unwrap().starts_with("Gina"));
    assert_eq!(seen["tallyBefore"], false);
    // One picture fills the middle, between two there is the background.
    let green = |value: &Value| number(&value[1]);
    assert!(green(&seen["alone"]) > 80.0, "{}", seen["alone"]);
    assert!(green(&seen["together"]) < 40.0, "{}", seen["together"]);
    for again in seen["again"].as_array().unwrap() {
        assert!(green(again) < 40.0, "{again}");
    }
    let level = |name: &str| number(&seen[name]);
    assert!(level("heard") > 0.01, "the guest hears the studio");
    assert!(level("muted") < level("heard") / 20.0, "muted");
    assert!(level("spokenTo") > 0.01, "talkback");
    let state = seen["state"].as_str().unwrap();
    assert!(state.contains("send the link"), "{state}");
    assert_eq!((&seen["wide"], &seen["narrow"]), (&json!(0), &json!(0)));
}
