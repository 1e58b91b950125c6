// SPDX-License-Identifier: MPL-2.0

//! From an NDI sender that is not ours through the whole chain into Chromium: the time code that the sender drew is
//! read off the screen, which gives the true latency from glass to glass. The page says the same.

use serde_json::Value;
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
    let Some((server, seen)) = watch(test, &[]) else {
        return;
    };
    let code = &seen["timecode"];
    assert!(number(&code["p50Ms"]) < LIMIT_MS, "{code}");
    assert!(
        number(&seen["longestGapMs"]) < 500.0,
        "a freeze of {}",
        seen["longestGapMs"]
    );
    assert!(
        number(&seen["after"]["audioEnergy"]) > number(&seen["before"]["audioEnergy"]),
        "no sound"
    );
    the_page_says_the_same(&server, &seen);
}

/// What a picture has behind it when NDI gets it, only its timecode tells.
#[test]
fn the_page_knows_how_old_a_picture_was_before_it_was_sent() {
    let test = "ndi_to_browser_latency::the_page_knows_how_old_a_picture_was_before_it_was_sent";
    if let Some((server, seen)) = watch(test, &["--age", "600", "--no-audio"]) {
        assert!(number(&seen["timecode"]["p50Ms"]) > 600.0);
        the_page_says_the_same(&server, &seen);
    }
}

/// Plays an NDI source in Chromium. `None`: a process of its own does.
fn watch(test: &str, sender: &[&str]) -> Option<(Server, Value)> {
    if !netns::isolated(test, &ndi::environment()) {
        return None;
    }
    let (_, name) = test.split_once("::").unwrap_or_default();
    let picture = ["--name", "cam", "--width", "640", "--height", "360"];
    let _sender = Sender::start(&[&picture, sender].concat()).unwrap();
    let keys = ["NDI=127.0.0.1:5961", "STREAM=cam", "LAYERS=360:1500k"];
    let server = Server::pipeline(name, "ndi-to-webrtc", &keys).unwrap();
    server.wait_for_stream("cam").unwrap();
    let screenshot = browser::screenshot(name).unwrap();
    let url = server.url("/cam");
    let arguments = [
        "--url",
        &url,
        "--seconds",
        "10",
        "--settle",
        "4",
        "--screenshot",
        screenshot.to_str().unwrap(),
    ];
    let seen = browser::run("play.mjs", &arguments).unwrap();
    println!("{seen}");
    let code = &seen["timecode"];
    println!(
        "NDI to Chromium: {} ms p50, {} ms p95, {} frames read",
        code["p50Ms"], code["p95Ms"], code["read"]
    );
    assert!(
        number(&code["read"]) > 100.0,
        "too few readable frames: {code}"
    );
    Some((server, seen))
}

fn the_page_says_the_same(server: &Server, seen: &Value) {
    let code = &seen["timecode"];
    let shown = number(&seen["after"]["latencyMs"]);
    println!("the page says {shown} ms: {}", seen["latency"]);
    let off = shown - number(&code["lastP50Ms"]);
    assert!(off.abs() < OFF_MS, "the page is off by {off} ms: {code}");
    let reports = "sfu_viewer_latency_seconds_count{stream=\"cam\"}";
    assert!(server.metric(reports).unwrap() > 0, "no report was counted");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}
