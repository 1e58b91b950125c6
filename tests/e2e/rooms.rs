// SPDX-License-Identifier: MPL-2.0

//! People meet in a room: `livekit-client` as it comes from npm, in Chromium and Firefox.

use serde_json::Value;
use sfu_tests::server::Server;
use sfu_tests::{access, browser};

/// Two join, publish, see and hear each other, mute, send data, and leave.
fn meet(name: &str, browsers: &str) -> Value {
    let ([ann, ben], keys) = access::room_tokens("meeting", ["ann", "ben"]).unwrap();
    let server = Server::pipeline(name, "rooms", &[&keys]).unwrap();
    let picture = browser::screenshot(name).unwrap();
    let url = server.url("").replace("http://", "ws://");
    let arguments = [
        "--url",
        &url,
        "--ann",
        &ann,
        "--ben",
        &ben,
        "--browsers",
        browsers,
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    browser::run("rooms.mjs", &arguments).unwrap()
}

fn check(seen: &Value) {
    println!("{seen}");
    let number = |value: &Value| {
        value
            .as_f64()
            .unwrap_or_else(|| panic!("no number: {value}"))
    };
    assert_eq!(seen["joined"]["ann"]["name"], "meeting");
    assert_eq!(seen["joined"]["ben"]["others"][0], "ann");
    for who in ["ann", "ben"] {
        let played = &seen["played"][who];
        assert!(number(&played["video"]) > 10.0, "{who}: no pictures");
        assert!(number(&played["audio"]) > 0.0, "{who}: no sound");
        assert_eq!(played["state"], "connected", "{who}");
        let events = seen[who]["events"].as_array().unwrap();
        let bad = |e: &&Value| {
            let e = e.as_str().unwrap();
            e.starts_with("Reconnecting") || e.starts_with("TrackSubscriptionFailed")
        };
        assert_eq!(events.iter().find(bad), None, "{who}");
    }
    assert!(number(&seen["lowest"]) < number(&seen["highest"]));
    let data = seen["ben"]["data"].as_array().unwrap();
    let of = |text: &str| {
        data.iter()
            .find(|d| d[0] == text)
            .unwrap_or_else(|| panic!("{text}"))
    };
    // DataPacket's kind: reliable is 0.
    assert_eq!((&of("sure")[1], &of("sure")[2]), (&"ann".into(), &0.into()));
    assert_eq!(
        (&of("maybe")[1], &of("maybe")[2]),
        (&"ann".into(), &1.into())
    );
}

#[test]
fn two_meet_in_chromium() {
    check(&meet("rooms_chromium", "chromium:chromium"));
}
