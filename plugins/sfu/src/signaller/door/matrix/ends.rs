// SPDX-License-Identifier: MPL-2.0

//! Sessions end with what let them in.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use sfu_access::Action;
use sfu_access_rows::{KEY, SECRET, grants, token};

use super::{NAME, STRANGER, Served};

fn offer() -> String {
    let print = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789abcdef01234567\r\na=setup:actpass\r\na=mid:0\r\na=rtcp-mux\r\n\
         a=rtpmap:96 VP8/90000\r\na=fingerprint:sha-256 {print}\r\na=sendonly\r\n"
    )
}

/// Of a session that its token, its key or its rule let in; and what let it in is in no log.
#[test]
fn a_session_ends_with_what_let_it_in() {
    let rules = "tokens secret\nkey key publish\nfrom 203.0.113.0/24 publish=open\n";
    let proxy = [("trusted-proxies", "127.0.0.1"), ("server-names", NAME)];
    let served = Served::new("ends", Some(rules), &proxy);
    let shown = token(SECRET, &grants(&[Action::Publish], "brief"), 3);
    let lasting = token(SECRET, &grants(&[Action::Publish], "lasting"), 600);
    let secrets = [shown.clone(), lasting.clone(), KEY.to_owned()];
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = told.clone();
    gst::log::remove_default_log_function();
    gst::log::set_default_threshold(gst::DebugLevel::Log);
    let listening = gst::log::add_log_function(move |_, _, _, _, _, _, message| {
        let message = message.get().unwrap_or_default();
        if secrets
            .iter()
            .any(|secret| message.contains(secret.as_str()))
        {
            hears.lock().unwrap().push(message.to_string());
        }
    });
    let publish = |path: &str, fields: &[(&str, &str)]| {
        let mut all = vec![STRANGER, ("Content-Type", "application/sdp")];
        all.extend(fields);
        let (status, answer) = served.send("POST", path, NAME, &all, &offer());
        assert_eq!(status, 201, "{path}: {answer}");
        assert!(answer.contains("referrer-policy: no-referrer"), "{answer}");
        let location = answer.lines().find_map(|l| l.strip_prefix("location: "));
        location.unwrap().trim().to_owned()
    };
    let key = format!("Bearer {KEY}");
    let sessions = [
        publish(&format!("/whip/brief?token={shown}"), &[]),
        publish(
            "/whip/lasting",
            &[("Authorization", &format!("Bearer {lasting}"))],
        ),
        publish("/whip/by-key", &[("Authorization", &key)]),
        publish("/whip/open", &[]),
    ];
    let there = || {
        let of = |session: &String| served.ask("GET", session, NAME, &[STRANGER]).0 == 200;
        sessions.iter().map(of).collect::<Vec<_>>()
    };
    let until = |expected: [bool; 4]| {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while there() != expected {
            assert!(
                std::time::Instant::now() < end,
                "{:?}, not {expected:?}",
                there()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(there(), [true; 4]);
    until([false, true, true, true]);
    let rewrite = |rules: &str| {
        fs::write(served.folder.join("new"), rules).unwrap();
        fs::rename(served.folder.join("new"), served.folder.join("access")).unwrap();
    };
    rewrite("tokens secret\nfrom 203.0.113.0/24 publish=open\n");
    until([false, true, false, true]);
    rewrite("tokens secret\n");
    until([false, true, false, false]);
    rewrite("key key publish\n");
    until([false; 4]);
    gst::log::remove_log_function(listening);
    gst::log::set_default_threshold(gst::DebugLevel::Error);
    let told = told.lock().unwrap();
    assert!(told.is_empty(), "{told:?}");
}
