// SPDX-License-Identifier: MPL-2.0

//! Sessions are bounded in all and by address, and the address is the client's own behind a trusted proxy.

use std::time::Instant;

use gst::prelude::*;

use crate::*;

#[test]
fn sessions_are_bounded_in_all_and_by_address() {
    let _turn = alone();
    let (element, address) = started(&[
        ("router", "sessions"),
        ("max-sessions", "7"),
        ("max-sessions-per-address", "3"),
        ("trusted-proxies", "127.0.0.1"),
    ]);
    publish(address, "live");
    let viewer = |from: &str| {
        let fields = format!("\r\nX-Forwarded-For: 192.0.2.99, {from}");
        post(address, "/whep/live", &fields, &offer("recvonly"))
    };
    let refused = |(status, answer): (u16, String), says: &str| {
        assert_eq!(status, 503, "{answer}");
        assert!(
            answer.contains("retry-after: ") && answer.contains(says),
            "{answer}"
        );
    };
    for _ in 0..3 {
        assert_eq!(viewer("198.51.100.1").0, 201);
    }
    refused(viewer("198.51.100.1"), "max-sessions-per-address");
    assert_eq!(viewer("2001:db8::1").0, 201);
    assert_eq!(viewer("[2001:db8::2]:4711").0, 201);
    let last = viewer("2001:db8::3");
    assert_eq!(last.0, 201);
    refused(viewer("2001:db8:0:1::1"), "(max-sessions)");
    let (status, answer) = post(address, "/whip/other", "", &offer("sendonly"));
    refused((status, answer), "(max-sessions)");
    assert_eq!(statistic(&element, "offers-refused-address"), 1);
    assert_eq!(statistic(&element, "offers-refused-sessions"), 2);
    assert_eq!(statistic(&element, "offers-refused"), 3);
    let (_, metrics) = ask(address, "GET /metrics", "");
    assert!(
        metrics.contains("sfu_offers_refused_sessions_total 2\n"),
        "{metrics}"
    );
    // Who goes makes room, for its address, too.
    let (status, answer) = ask(address, &format!("DELETE {}", session(&last.1)), "");
    assert_eq!(status, 200, "{answer}");
    let end = Instant::now() + PROMPT;
    while viewer("2001:db8::4").0 != 201 {
        assert!(Instant::now() < end);
    }
    element.set_state(gst::State::Null).unwrap();
}
