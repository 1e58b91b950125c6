// SPDX-License-Identifier: MPL-2.0

//! The page of a room, by an invitation of `./sfu token --room`, as people use it.

use serde_json::{Value, json};
use sfu_tests::access::Rules;
use sfu_tests::browser;
use sfu_tests::server::Server;

fn meet(log: &str, browsers: &str) -> Value {
    let rules = Rules::new(log, "loopback\ntokens tokens.secret\n").unwrap();
    let line = format!("access={} api-keys=test:secret", rules.file().display());
    let server = Server::launch(log, &line).unwrap();
    let invitation = rules.token(&["--room=meeting"], "1h").unwrap();
    let play = rules.token(&["--play=meeting"], "1h").unwrap();
    let picture = browser::screenshot(log).unwrap();
    let base = server.url("");
    let arguments = [
        "--base",
        &base,
        "--invitation",
        &invitation,
        "--play",
        &play,
        "--keys",
        "test:secret",
        "--browsers",
        browsers,
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("room_page.mjs", &arguments).unwrap();
    println!("{seen}");
    seen
}

#[test]
fn people_meet_on_the_page() {
    let seen = meet("room_page", "chromium:chromium");
    for (who, other) in [("ann", "Ben"), ("ben", "Ann <b>")] {
        assert_eq!(seen[who]["count"], "2 people");
        let captions = seen[who]["captions"].to_string();
        assert!(captions.contains(other), "{who} sees {captions}");
    }
    assert_eq!(seen["early"][0], 404);
    assert!(seen["early"][1].as_str().unwrap().contains("nobody is in"));
    assert_eq!(seen["unread"], "Chat (1) C");
    let large = seen["large"].as_str().unwrap();
    assert!(large.contains("screen"), "{large}");
    let sideways: Vec<u64> = serde_json::from_value(seen["sideways"].clone()).unwrap();
    assert!(sideways[0] > 280 && sideways[1] < 60, "{sideways:?}");
    let (taken, given) = (&seen["taken"], &seen["given"]);
    let state = "You may not send your camera, microphone, screen any more";
    assert_eq!(taken["state"], state);
    assert_eq!(taken["disabled"], json!(["mute", "video", "screen"]));
    let state = "Live: you may send your camera, microphone, screen now";
    assert_eq!(given["state"], state);
    assert_eq!(given["disabled"], json!([]));
    assert_eq!(seen["guest"]["state"], "Looking on");
    let disabled = json!(["mute", "video", "screen", "hand", "words"]);
    assert_eq!(seen["guest"]["disabled"], disabled);
    assert_eq!(seen["states"], json!(["away", "joined"]));
    let unsent = seen["unsent"].as_str().unwrap();
    assert!(unsent.ends_with("Into the voidNot sent"), "{unsent}");
    assert_eq!(seen["left"], "You have left.");
    assert_eq!(seen["screenAlone"], json!([]));
    assert_eq!(seen["unnamed"].as_array().unwrap().len(), 1);
    // Nothing is wider than the window.
    assert_eq!((&seen["wide"], &seen["narrow"]), (&json!(0), &json!(0)));
}
