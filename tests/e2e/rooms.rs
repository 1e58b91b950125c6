// SPDX-License-Identifier: MPL-2.0

//! People meet in a room: `livekit-client` as it comes from npm, in Chromium and Firefox.

use serde_json::Value;
use sfu_tests::server::Server;
use sfu_tests::{access, browser};

/// Not a room's own: as an NDI camera would be.
const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 \
    ! sfusink name=out stream=cam1 layers=180:150k audiotestsrc is-live=true ! out.audio_0";

/// A server with rooms, its address for clients, and the tokens of two for this room.
fn host(name: &str, room: &str, more: &str) -> (Server, String, [String; 2]) {
    host_for(name, room, more, ["ann", "ben"])
}

/// The same, and the tokens of these.
fn host_for<const N: usize>(
    name: &str,
    room: &str,
    more: &str,
    who: [&str; N],
) -> (Server, String, [String; N]) {
    let (tokens, keys) = access::room_tokens(room, who).unwrap();
    let keys = keys.trim_start_matches("API_KEYS=");
    let server = Server::launch(name, &format!("api-keys={keys} {more}")).unwrap();
    let url = server.url("").replace("http://", "ws://");
    (server, url, tokens)
}

/// Two join, see a stream of the server, publish, see and hear each other, mute, send data, and leave.
fn meet(name: &str, browsers: &str, single: bool) -> Value {
    let more = format!("room-streams=meeting=cam1 {CAMERA}");
    let (_server, url, [ann, ben]) = host(name, "meeting", &more);
    let picture = browser::screenshot(name).unwrap();
    let arguments = [
        "--url",
        &url,
        "--ann",
        &ann,
        "--ben",
        &ben,
        "--stream",
        "cam1",
        "--browsers",
        browsers,
        "--single",
        if single { "1" } else { "0" },
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
    let others = seen["joined"]["ben"]["others"].as_array().unwrap();
    assert!(others.contains(&"ann".into()), "{others:?}");
    // ParticipantInfo's kind: INGRESS is 1.
    let stream = serde_json::json!({"kind": 1, "sources": ["camera", "microphone"]});
    assert_eq!(seen["stream"], stream);
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
    check(&meet("rooms_chromium", "chromium:chromium", false));
}

/// What `livekit-client` does by itself (`/rtc/v1`).
#[test]
fn two_meet_in_chromium_over_one_connection_each() {
    check(&meet("rooms_single", "chromium:chromium", true));
}

#[test]
fn two_meet_in_chromium_and_firefox_over_one_connection_each() {
    check(&meet("rooms_both", "chromium:firefox", true));
}

/// By turns over one connection and over two.
#[test]
fn six_meet_in_chromium_and_firefox() {
    let name = "rooms_six";
    let who = ["ann", "ben", "cyd", "dan", "eve", "fay"];
    let (_server, url, tokens) = host_for(name, "six", "", who);
    let picture = browser::screenshot(name).unwrap();
    let arguments = [
        "--url",
        &url,
        "--tokens",
        &tokens.join(","),
        "--browsers",
        "chromium:chromium:firefox:firefox:chromium:chromium",
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("six.mjs", &arguments).unwrap();
    println!("{seen}");
    for (n, one) in who.iter().enumerate() {
        let others: Vec<_> = who.iter().filter(|other| *other != one).collect();
        for what in ["present", "data"] {
            assert_eq!(
                seen[what][one],
                serde_json::json!(others),
                "{what} to {one}"
            );
        }
        let next = who[(n + 1) % who.len()];
        assert_eq!(seen["called"][one], format!("{next} to {one}"));
    }
    assert_eq!(seen["faults"], serde_json::json!([]));
}

/// Both publish data tracks, and go on after a resume and full reconnects.
fn exchange_data_tracks(name: &str, single: bool) {
    let (_server, url, [ann, ben]) = host(name, "data", "");
    let picture = browser::screenshot(name).unwrap();
    let arguments = [
        "--url",
        &url,
        "--ann",
        &ann,
        "--ben",
        &ben,
        "--single",
        if single { "1" } else { "0" },
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("data_tracks.mjs", &arguments).unwrap();
    println!("{seen}");
    let faults = serde_json::json!({"again": "DuplicateName", "unnamed": "InvalidName"});
    assert_eq!(seen["faults"], faults);
    // A resume brings no other track, and to come anew one.
    assert_eq!(seen["before"], 1);
    let published = seen["ben"]["published"].as_array().unwrap();
    assert_eq!(
        published[0],
        serde_json::json!(["ann", "arm", seen["sids"]["arm"]])
    );
    assert_eq!(
        (&published[1][0], &published[1][1]),
        (&"ann".into(), &"arm".into())
    );
    assert_ne!(published[1][2], seen["sids"]["arm"]);
    let first = &seen["ann"]["published"][0];
    assert_eq!(
        *first,
        serde_json::json!(["ben", "leg", seen["sids"]["leg"]])
    );
}

#[test]
fn data_tracks_in_chromium() {
    exchange_data_tracks("rooms_data_tracks", false);
}

#[test]
fn data_tracks_in_chromium_over_one_connection_each() {
    exchange_data_tracks("rooms_data_tracks_single", true);
}

/// VP9, and VP8 for who can't show that: published when there is somebody, and no longer.
fn publish_a_backup(name: &str, single: bool) {
    let who = ["ann", "ben", "carl"];
    let (_server, url, [ann, ben, carl]) = host_for(name, "codecs", "", who);
    let picture = browser::screenshot(name).unwrap();
    let arguments = [
        "--url",
        &url,
        "--ann",
        &ann,
        "--ben",
        &ben,
        "--carl",
        &carl,
        "--single",
        if single { "1" } else { "0" },
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("backup_codec.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(seen["carl"]["codec"], "video/VP9");
    assert_eq!(seen["ben"]["codec"], "video/VP8");
    assert_eq!(seen["before"], serde_json::json!({"vp9": true}));
    let both = serde_json::json!({"vp9": true, "vp8": true});
    assert_eq!(seen["both"], both);
    for more in seen["more"].as_array().unwrap() {
        // Of 30; two cores encode and decode all of it.
        assert!(more.as_f64().unwrap() > 5.0, "both go on: {seen}");
    }
    assert_eq!(seen["after"], serde_json::json!({"vp9": true}));
}

#[test]
fn who_can_not_show_vp9_is_sent_the_backup_codec() {
    publish_a_backup("rooms_backup_codec", false);
}

#[test]
fn who_can_not_show_vp9_is_sent_the_backup_codec_over_one_connection() {
    publish_a_backup("rooms_backup_codec_single", true);
}

/// LiveKit's own page for meetings, as it comes from npm.
#[test]
fn two_meet_in_livekits_own_page() {
    let name = "rooms_conference";
    let (_server, url, [ann, ben]) = host(name, "conference", "");
    let picture = browser::screenshot(name).unwrap();
    let picture = picture.to_str().unwrap();
    let arguments = [
        "--url",
        &url,
        "--ann",
        &ann,
        "--ben",
        &ben,
        "--screenshot",
        picture,
    ];
    let seen = browser::run("conference.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(
        (&seen["name"], &seen["chat"]),
        (&"ann".into(), &"hello".into())
    );
    assert_eq!(seen["reconnected"].as_array().unwrap().len(), 6);
    assert_eq!(seen["faults"], serde_json::json!([]));
}

/// LiveKit's server SDK, as it comes from npm.
#[test]
fn an_application_administers_rooms_and_is_told_of_them() {
    const KEYS: (&str, &str) = ("key", "a-secret-of-the-test-that-is-long-enough");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let (key, secret) = KEYS;
    let line = format!("api-keys={key}:{secret} room-webhooks=http://127.0.0.1:{port}/hooks");
    let server = Server::launch("rooms_server", &line).unwrap();
    let url = server.url("");
    let arguments = [
        "--url", &url, "--key", key, "--secret", secret, "--port", &port,
    ];
    let seen = browser::run("rooms_server.mjs", &arguments).unwrap();
    println!("{seen}");
    let expected = serde_json::json!({
        "made": ["made", 60, 10, "m0"],
        "same": true,
        "listed": ["made"],
        "none": 0,
        "changed": "m1",
        "nobody": 0,
        "faults": {
            "participant": [404, "not_found"],
            "removed": [404, "not_found"],
            "room": [404, "not_found"],
            "data": [503, "unavailable"],
            "secret": [401, null],
        },
        "protobuf": [200, "application/protobuf", true],
        "told": [["room_started", "made"], ["room_finished", "made"]],
    });
    for (what, expected) in expected.as_object().unwrap() {
        assert_eq!(seen[what], *expected, "{what}");
    }
}
