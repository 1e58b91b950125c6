// SPDX-License-Identifier: MPL-2.0

//! A publisher is killed, as by a crash or a pulled plug, and another one comes within 5 s: its viewers see it at once,
//! in the sessions that they have.

use serde_json::Value;
use sfu_tests::server::{self, Server};
use sfu_tests::{browser, netns};

/// Two seconds on a machine that does nothing else; here two cores, which may be shared, also start the publisher, encode and decode.
const LIMIT_MS: f64 = 8_000.0;
const VIEWERS: usize = 2;

#[test]
fn viewers_see_a_publisher_that_comes_back() {
    let test = "publisher_returns::viewers_see_a_publisher_that_comes_back";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    let server = Server::launch("publisher_returns", "").unwrap();
    let publisher = format!(
        "gst-launch-1.0 -q videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
         ! whipclientsink name=out stun-server=\"\" video-caps=video/x-h264 signaller::whip-endpoint={} \
         audiotestsrc is-live=true wave=ticks ! out.",
        server.url("/whip/camera")
    );
    let picture = browser::screenshot("publisher_returns").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--stream",
        "camera",
        "--publisher",
        &publisher,
        "--viewers",
        &VIEWERS.to_string(),
        "--away",
        "2",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("returns.mjs", &arguments).unwrap();
    println!("{seen}");
    let viewers = seen["viewers"].as_array().unwrap();
    assert_eq!(viewers.len(), VIEWERS);
    for viewer in viewers {
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{viewer}"));
        println!(
            "new pictures {} ms after the new publisher's POST (received after {} ms), after {} ms without any",
            viewer["afterMs"], viewer["receivedMs"], viewer["gapMs"]
        );
        assert!(number(&viewer["afterMs"]) < LIMIT_MS, "{viewer}");
        assert!(number(&viewer["gapMs"]) > 1_500.0, "it was away: {viewer}");
        assert!(number(&viewer["frames"]) > 5.0, "{viewer}");
        assert!(number(&viewer["audioEnergy"]) > 0.0, "no sound: {viewer}");
        assert_eq!(viewer["state"], "Live", "{viewer}");
        assert_eq!(viewer["sameSession"], true, "{viewer}");
        assert_eq!(viewer["posts"], 1, "{viewer}");
    }
}
