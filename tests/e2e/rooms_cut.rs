// SPDX-License-Identifier: MPL-2.0

//! Somebody's network is cut off from a room and comes back, over namespaces: `livekit-client` as it comes from npm, in Chromium.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use sfu_tests::server::{self, Server};
use sfu_tests::{access, browser, ndi, netns};

use crate::small_mtu::network;

/// Two meet, one of them behind a router that lets nothing through for so many milliseconds.
fn cut(name: &str, single: bool, ms: u32) -> Option<Value> {
    let environment = server::environment().unwrap();
    if !netns::isolated(&format!("rooms_cut::{name}"), &environment) {
        return None;
    }
    let (router, far) = network(1_500, 1_500);
    let ([ann, ben], keys) = access::room_tokens("cut", ["ann", "ben"]).unwrap();
    let keys = keys.trim_start_matches("API_KEYS=");
    let server = Server::launch_at("0.0.0.0", name, &format!("api-keys={keys}")).unwrap();
    let near = server.url("").replace("http://", "ws://");
    let url = near.replace("127.0.0.1", "10.99.1.1");
    // A browser is started by its file's name alone.
    let program = ndi::repository().join("target/e2e-logs/chromium-far.sh");
    let starts = format!(
        "#!/bin/sh\nexec {} /usr/bin/chromium \"$@\"\n",
        far.prefix()
    );
    std::fs::write(&program, starts).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let picture = browser::screenshot(name).unwrap();
    let (router, ms) = (router.prefix(), ms.to_string());
    let arguments = [
        "--near",
        &near,
        "--url",
        &url,
        "--ann",
        &ann,
        "--ben",
        &ben,
        "--single",
        if single { "1" } else { "0" },
        "--router",
        &router,
        "--cut",
        &ms,
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let mut node = Command::new("node");
    node.env("CHROMIUM_FAR", program);
    let seen = browser::run_in(node, "network_cut.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(seen["isCut"], true, "nothing came meanwhile");
    // Clients try again each 7 s at last, and the machine may be busy.
    assert!(seen["took"].as_u64().unwrap() < 30_000, "{seen}");
    // Each sees and hears the other one again, who is one and not two.
    assert_eq!(seen["back"], serde_json::json!({"ann": true, "ben": true}));
    for (who, other) in [("ann", "ben"), ("ben", "ann")] {
        assert_eq!(seen[who]["others"], serde_json::json!([other]), "{who}");
        assert_eq!(seen[who]["most"], 1, "{who}");
        assert_eq!(seen[who]["state"], "connected", "{who}");
    }
    Some(seen)
}

fn has(seen: &Value, who: &str, event: &str) -> bool {
    let mut events = seen[who]["events"].as_array().unwrap().iter();
    events.any(|e| e.as_str().is_some_and(|e| e.starts_with(event)))
}

/// So short a time is nothing that others notice by more than a picture that stands.
fn three_seconds(name: &str, single: bool) {
    if let Some(seen) = cut(name, single, 3_000) {
        assert!(!has(&seen, "ann", "ParticipantDisconnected"), "{seen}");
        assert!(!has(&seen, "ben", "Disconnected"), "{seen}");
    }
}

/// The client notices by its pings, and goes on as who it was: others don't see it go.
fn twenty_seconds(name: &str, single: bool) {
    if let Some(seen) = cut(name, single, 20_000) {
        assert!(!has(&seen, "ann", "ParticipantDisconnected"), "{seen}");
        assert!(has(&seen, "ben", "Reconnected"), "{seen}");
        assert!(!has(&seen, "ben", "Disconnected"), "{seen}");
    }
}

/// Longer than the server waits for somebody to come back: the others see it go and come, and its page does all of that by itself.
fn forty_seconds(name: &str, single: bool) {
    if let Some(seen) = cut(name, single, 40_000) {
        assert!(has(&seen, "ann", "ParticipantDisconnected ben"), "{seen}");
        assert!(has(&seen, "ben", "Reconnected"), "{seen}");
        assert!(!has(&seen, "ben", "Disconnected"), "{seen}");
    }
}

#[test]
fn a_network_that_is_cut_for_three_seconds_goes_on() {
    three_seconds("a_network_that_is_cut_for_three_seconds_goes_on", false);
}

#[test]
fn a_network_that_is_cut_for_three_seconds_goes_on_over_one_connection() {
    three_seconds(
        "a_network_that_is_cut_for_three_seconds_goes_on_over_one_connection",
        true,
    );
}

#[test]
fn who_was_cut_off_for_twenty_seconds_resumes() {
    twenty_seconds("who_was_cut_off_for_twenty_seconds_resumes", false);
}

#[test]
fn who_was_cut_off_for_twenty_seconds_resumes_over_one_connection() {
    twenty_seconds(
        "who_was_cut_off_for_twenty_seconds_resumes_over_one_connection",
        true,
    );
}

#[test]
fn who_was_cut_off_for_forty_seconds_is_there_again_once() {
    forty_seconds(
        "who_was_cut_off_for_forty_seconds_is_there_again_once",
        false,
    );
}

#[test]
fn who_was_cut_off_for_forty_seconds_is_there_again_once_over_one_connection() {
    forty_seconds(
        "who_was_cut_off_for_forty_seconds_is_there_again_once_over_one_connection",
        true,
    );
}
