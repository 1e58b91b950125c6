// SPDX-License-Identifier: MPL-2.0

//! Sessions are bounded in all and by address, and the address is the client's own behind a trusted proxy.

use std::panic::{catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::*;

/// Peers that don't come are given up 20 s after their offer.
const GIVEN_UP: Duration = Duration::from_secs(20);

#[test]
fn sessions_are_bounded_in_all_and_by_address() {
    let _turn = alone();
    // The peers here never come. Where the machine is so busy that they are given up meanwhile, what should be full is not,
    // and the stream is gone: that says nothing, and the test begins anew.
    for attempt in 1.. {
        let since = Instant::now();
        let outcome = catch_unwind(|| bounded_in_all_and_by_address(attempt));
        match outcome {
            Ok(()) => return,
            Err(_) if since.elapsed() > GIVEN_UP && attempt < 5 => {
                println!("the machine is slow: it took {:?}", since.elapsed());
            }
            Err(failure) => resume_unwind(failure),
        }
    }
}

fn bounded_in_all_and_by_address(attempt: u32) {
    // Who comes through a proxy is not this machine.
    let rules = std::env::temp_dir().join(format!("sfu-bounds-{}", std::process::id()));
    std::fs::write(&rules, "anyone play publish metrics\n").unwrap();
    let (element, address) = started(&[
        ("access", rules.to_str().unwrap()),
        ("router", &format!("sessions-{attempt}")),
        ("max-sessions", "7"),
        ("max-sessions-per-address", "3"),
        ("trusted-proxies", "127.0.0.1"),
    ]);
    let element = Ended(element);
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
    assert_eq!(statistic(&element.0, "offers-refused-address"), 1);
    assert_eq!(statistic(&element.0, "offers-refused-sessions"), 2);
    assert_eq!(statistic(&element.0, "offers-refused"), 3);
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
}

/// An element that goes to NULL however its test ends.
struct Ended(gst::Element);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}
