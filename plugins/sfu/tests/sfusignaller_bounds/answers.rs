// SPDX-License-Identifier: MPL-2.0

//! What strangers are told, and what the log keeps of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gst::prelude::*;

use crate::*;

#[test]
fn answers_are_sentences_without_addresses_of_memory() {
    let _turn = alone();
    let (element, address) = started(&[("router", "sentences")]);
    let published = publish(address, "live");
    let (_, viewer) = post(address, "/whep/live", "", &offer("recvonly"));
    let viewer = session(&viewer);
    let whole = offer("recvonly");
    let mut offers = vec![
        "hello".to_owned(),
        "v=0".into(),
        "v=0\r\n".into(),
        "\u{1}\u{2}".into(),
    ];
    // Each line left out, cut short, or made nonsense of.
    let lines: Vec<_> = whole.lines().collect();
    for index in 0..lines.len() {
        for change in [
            "",
            "x",
            "m=video",
            "a=mid:",
            "a=fingerprint:sha-256 zz",
            "a=rtpmap:96",
            "a=candidate:1 1 udp",
            "=",
            "ä=1",
        ] {
            let mut changed = lines.clone();
            changed[index] = change;
            offers.push(changed.join("\r\n"));
        }
        offers.push(lines[..index].join("\r\n"));
        offers
            .push(lines[..=index].join("\r\n") + "\r\n" + &lines[index][..lines[index].len() / 2]);
    }
    let mut refused = 0;
    for offer in &offers {
        for (path, offer) in [
            ("/whep/live", offer.clone()),
            ("/whip/other", offer.replace("recvonly", "sendonly")),
        ] {
            let (status, answer) = post(address, path, "", &offer);
            assert!(
                status == 201 || (400..500).contains(&status),
                "{status} {answer}\n{offer}"
            );
            if status == 201 {
                ask(address, &format!("DELETE {}", session(&answer)), "");
                continue;
            }
            refused += 1;
            is_a_sentence(&answer, &offer);
        }
    }
    assert!(refused > 100, "{refused}");
    let fragments = [
        "a=ice-ufrag:wxyz\r\n",
        "a=ice-ufrag:wxyz\r\na=ice-pwd:short\r\n",
        "a=ice-ufrag:\r\na=ice-pwd:\r\n",
        "a=candidate:x\r\n",
        "a=ice-ufrag:w x\r\na=ice-pwd:0123456789abcdef01234567\r\n",
        "\u{0}",
        "m=",
        "a=ice-ufrag:ä\r\na=ice-pwd:0123456789abcdef0123456ä\r\n",
    ];
    for path in [&viewer, &published] {
        for fragment in fragments {
            let head = format!(
                "PATCH {path} HTTP/1.1\r\nIf-Match: *\r\nContent-Type: application/trickle-ice-sdpfrag\r\nX: "
            );
            let (status, answer) = ask(address, &head, fragment);
            assert!((200..500).contains(&status), "{answer}");
            if status >= 400 {
                is_a_sentence(&answer, fragment);
            }
        }
    }
    for body in [
        "",
        "{",
        "[]",
        "{\"encodingId\": 7}",
        "{\"maxHeight\": 1e99}",
        "{\"ms\": \"x\"}",
        "{\"ms\": null}",
        "\u{0}",
        "{\"encodingId\": \"zz\"}",
    ] {
        for path in ["layer", "latency"] {
            for kind in ["application/json", "text/plain"] {
                let head = format!("POST {viewer}/{path} HTTP/1.1\r\nContent-Type: {kind}\r\nX: ");
                let (status, answer) = ask(address, &head, body);
                assert!((200..500).contains(&status), "{answer}");
                if status >= 400 {
                    is_a_sentence(&answer, body);
                }
            }
        }
    }
    element.set_state(gst::State::Null).unwrap();
}

/// One line, and no number in it that looks like an address and was not in what was sent.
fn is_a_sentence(answer: &str, sent: &str) {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert!(!body.trim().is_empty(), "{answer}");
    assert_eq!(body.trim_end().lines().count(), 1, "{body}");
    assert!(
        body.len() < 2_000 && !body.contains("PointerOffset"),
        "{body}"
    );
    for word in body.split(|c: char| !c.is_ascii_alphanumeric()) {
        let number = word.strip_prefix("0x").unwrap_or(word);
        let is_number = number.len() >= 8
            && number.bytes().all(|b| b.is_ascii_hexdigit())
            && number.bytes().any(|b| b.is_ascii_digit());
        assert!(!is_number || sent.contains(word), "{word} in {body}");
    }
}

#[test]
fn the_log_holds_no_whole_session_at_any_level() {
    let _turn = alone();
    running::init();
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let logger = gst::log::add_log_function(|category, _, _, function, _, object, message| {
        let object = object.map(|o| format!("{o:?}"));
        let line = format!(
            "{} {function} {object:?} {:?}",
            category.name(),
            message.get()
        );
        LINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    });
    gst::log::remove_default_log_function();
    gst::log::set_default_threshold(gst::DebugLevel::Memdump);
    for category in gst::DebugCategory::all_categories() {
        category.set_threshold(gst::DebugLevel::Memdump);
    }
    let (element, address) = started(&[("router", "log")]);
    let published = publish(address, "live");
    let (_, viewer) = post(address, "/whep/live", "", &offer("recvonly"));
    let viewer = session(&viewer);
    for path in [&viewer, &published] {
        let id = path.rsplit('/').next().unwrap();
        let encoded: String = id.bytes().map(|b| format!("%{b:02x}")).collect();
        let json = "HTTP/1.1\r\nContent-Type: application/json\r\nX: ";
        for (head, body) in [
            (format!("GET {path}"), ""),
            (format!("HEAD {path}"), ""),
            (format!("OPTIONS {path}"), ""),
            (format!("BREW {path}"), ""),
            (format!("GET {path}?again={id}"), ""),
            (format!("GET /session/{encoded}"), ""),
            (format!("GET /%73ession/{id}"), ""),
            (format!("GET //session/{id}"), ""),
            (format!("GET http://x{path}"), ""),
            (format!("GET {path}/clock"), ""),
            (format!("POST {path}/sse"), "[]"),
            (format!("POST {path}/layer {json}"), "{\"maxHeight\": 100}"),
            (
                format!("POST {path}/layer {json}"),
                "{\"encodingId\": \"7\"}",
            ),
            (format!("POST {path}/latency {json}"), "{\"ms\": 5}"),
            (
                format!(
                    "PATCH {path} HTTP/1.1\r\nIf-Match: *\r\nContent-Type: application/trickle-ice-sdpfrag\r\nX: "
                ),
                "a=ice-ufrag:wxyz\r\na=ice-pwd:0123456789abcdef01234567\r\n",
            ),
        ] {
            let (status, answer) = ask(address, &head, body);
            assert!(status > 0 && status < 500, "{head}: {answer}");
        }
        let events = sending(
            address,
            format!("GET {path}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
        );
        std::thread::sleep(Duration::from_millis(300));
        let _ = element.property::<gst::Structure>("stats");
        ask(address, &format!("DELETE {path}"), "");
        ask(address, &format!("DELETE {path}"), "");
        drop(events);
    }
    element.set_state(gst::State::Null).unwrap();
    gst::log::set_default_threshold(gst::DebugLevel::Error);
    for category in gst::DebugCategory::all_categories() {
        category.set_threshold(gst::DebugLevel::Error);
    }
    gst::log::remove_log_function(logger);
    let lines = std::mem::take(&mut *LINES.lock().unwrap_or_else(PoisonError::into_inner));
    for path in [&viewer, &published] {
        let id = path.rsplit('/').next().unwrap();
        let encoded: String = id.bytes().map(|b| format!("%{b:02x}")).collect();
        assert!(
            lines.iter().any(|l| l.contains(&id[..8])),
            "the log follows a session"
        );
        for line in &lines {
            let lower = line.to_lowercase();
            assert!(
                !lower.contains(&id[..16]) && !lower.contains(&id[16..]),
                "{line}"
            );
            assert!(!lower.contains(&encoded[..48]), "{line}");
        }
    }
    println!("{} lines", lines.len());
}
