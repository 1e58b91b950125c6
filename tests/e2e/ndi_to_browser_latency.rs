// SPDX-License-Identifier: MPL-2.0

//! From an NDI sender that is not ours through the whole chain into Chromium: the time code that the sender drew is
//! read off the screen, which gives the true latency from glass to glass. The page says the same.

use std::time::Duration;

use sfu_tests::ndi::{self, Sender};
use sfu_tests::server::Server;
use sfu_tests::{browser, netns};

/// Far above what an idle machine shows (see the printed figure): two shared cores also encode, decode and draw.
const LIMIT_MS: f64 = 500.0;
/// The page's figure is that of the last second, and it knows the moment of capture from the NDI timecode alone.
const OFF_MS: f64 = 150.0;

#[test]
fn ndi_reaches_the_browser_in_time() {
    let test = "ndi_to_browser_latency::ndi_reaches_the_browser_in_time";
    if !netns::isolated(test, &ndi::environment(), Duration::from_secs(180)) {
        return;
    }
    let _sender = Sender::start(&["--name", "cam", "--width", "640", "--height", "360"]).unwrap();
    let keys = ["NDI=127.0.0.1:5961", "STREAM=cam", "LAYERS=360:1500k"];
    let server = Server::pipeline("ndi_to_browser_latency", "ndi-to-webrtc", &keys).unwrap();
    server.wait_for_stream("cam").unwrap();
    let picture = browser::screenshot("ndi_to_browser_latency").unwrap();
    let url = server.url("/cam");
    let arguments = [
        "--url",
        &url,
        "--seconds",
        "10",
        "--settle",
        "4",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("play.mjs", &arguments).unwrap();
    println!("{seen}");
    let code = &seen["timecode"];
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    println!(
        "NDI to Chromium: {} ms p50, {} ms p95, {} frames read",
        code["p50Ms"], code["p95Ms"], code["read"]
    );
    assert!(
        number(&code["read"]) > 100.0,
        "too few readable frames: {code}"
    );
    assert!(number(&code["p50Ms"]) < LIMIT_MS, "{code}");
    let shown = number(&seen["after"]["latencyMs"]);
    println!("the page says {shown} ms: {}", seen["latency"]);
    let off = shown - number(&code["lastP50Ms"]);
    assert!(off.abs() < OFF_MS, "the page is off by {off} ms: {code}");
    let reports = "sfu_viewer_latency_seconds_count{stream=\"cam\"}";
    assert!(server.metric(reports).unwrap() > 0, "no report was counted");
    assert!(
        number(&seen["longestGapMs"]) < 500.0,
        "a freeze of {}",
        seen["longestGapMs"]
    );
    assert!(
        number(&seen["after"]["audioEnergy"]) > number(&seen["before"]["audioEnergy"]),
        "no sound"
    );
}
