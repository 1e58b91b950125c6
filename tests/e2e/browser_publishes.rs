// SPDX-License-Identifier: MPL-2.0

//! Chromium and Firefox publish their (fake) cameras over WHIP in three layers, and play each other's over WHEP.

use serde_json::Value;
use sfu_tests::server::{self, Server};
use sfu_tests::{browser, netns};

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// In each run one browser publishes, another or the same plays: what comes, and that the menu's lowest layer is shown.
/// A run is `publisher:viewer:codec`.
fn publishes(name: &str, runs: &[&str]) {
    let server = Server::pipeline(name, "sfu", &[]).unwrap();
    let picture = browser::screenshot(name).unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--runs",
        &runs.join(","),
        "--seconds",
        "8",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("publish.mjs", &arguments).unwrap();
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), runs.len());
    for (run, seen) in runs.iter().zip(seen) {
        check(run, seen);
    }
}

fn check(run: &str, seen: &Value) {
    println!("{run}: {seen}");
    assert_eq!(seen["state"], "Live", "{run}");
    let codec = run.rsplit(':').next().unwrap();
    assert_eq!(seen["played"]["codec"], format!("video/{codec}"), "{run}");
    let (begun, played, lowest) = (&seen["begun"], &seen["played"], &seen["lowest"]);
    let more = |key: &str, from: &Value, to: &Value| number(&to[key]) - number(&from[key]);
    let frames = more("framesDecoded", begun, played);
    assert!(frames > 20.0, "{run}: {frames} pictures of 75 in 5 s");
    assert!(more("framesDecoded", played, lowest) > 8.0, "{run}");
    assert!(more("audioEnergy", begun, played) > 0.0, "{run}: no sound");
    assert!(more("audioEnergy", played, lowest) > 0.0, "{run}");
    assert!((-100.0..0.0).contains(&number(&seen["level"])), "{run}");
    let layers = seen["info"]["video"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3, "{run}");
    let heights: Vec<_> = layers.iter().map(|l| number(&l["height"])).collect();
    assert!(
        heights.is_sorted_by(|a, b| a > b),
        "{run}: highest first: {heights:?}"
    );
    // The menu's lowest layer is decoded at its height.
    assert_eq!(lowest["height"], layers[2]["height"], "{run}");
}

#[test]
fn chromium_publishes_simulcast_to_chromium() {
    let runs = ["chromium:chromium:VP8", "chromium:chromium:H264"];
    publishes("browser_publishes", &runs);
}

#[test]
fn firefox_and_chromium_publish_simulcast_to_each_other() {
    let test = "browser_publishes::firefox_and_chromium_publish_simulcast_to_each_other";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    let runs = ["firefox:chromium:VP8", "chromium:firefox:VP8"];
    publishes("firefox_publishes", &runs);
}
