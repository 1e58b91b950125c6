// SPDX-License-Identifier: MPL-2.0

//! What a session holds whose peer never connects, and that all of it is given back: whatever its offer was.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]

mod counting;

use std::fmt::Write as _;
use std::time::Instant;

use sfu_engine::Codec;
use sfu_engine::transport::negotiate::{self, Identity, StreamCodecs};

use counting::held;

/// At most of a session.
const MOST: isize = 16 * 1024;

const CHROMIUM: &str = include_str!("offers/clients/chromium.whep.sdp");
const PUBLISHER: &str = include_str!("offers/clients/chromium-simulcast.whip.sdp");

/// An offer with as much of everything as there may be.
fn largest(offer: &str) -> String {
    let mut more = String::new();
    for n in 0..60 {
        let _ = writeln!(more, "a=ssrc:{n} cname:{}", "c".repeat(200));
        let _ = writeln!(more, "a=ssrc-group:FID {n} {}", n + 1);
    }
    for n in 0..30 {
        let _ = writeln!(
            more,
            "a=candidate:{n} 1 udp 2113937151 192.0.2.{n} 50000 typ host"
        );
    }
    for n in 0..8 {
        let _ = writeln!(more, "a=rid:{n}{} send max-width=1280", "r".repeat(250));
    }
    let offer = offer.replace("a=rtcp-mux\n", &format!("a=rtcp-mux\n{more}"));
    let room = 65_000 - offer.len();
    format!("{offer}{}", "a=x:y\n".repeat(room / 6))
}

fn session(identity: &Identity, offer: &str, publishes: bool) -> Box<dyn std::any::Any> {
    let local = ["192.0.2.1:8189".parse().unwrap()];
    let now = Instant::now();
    let codecs = StreamCodecs {
        video: Some(Codec::H264),
        audio: Some(Codec::Opus),
    };
    match publishes {
        true => Box::new(
            negotiate::accept_publisher(identity, offer, &local, now)
                .unwrap()
                .0,
        ),
        false => {
            let answered = negotiate::accept(identity, codecs, offer, &local, None, now);
            Box::new(answered.unwrap().0)
        }
    }
}

#[test]
fn an_offer_that_never_connects_holds_little_and_gives_it_back() {
    let identity = Identity::generate().unwrap();
    for (name, offer, publishes) in [
        ("a viewer's", CHROMIUM.to_owned(), false),
        ("the largest of a viewer", largest(CHROMIUM), false),
        ("a publisher's", PUBLISHER.to_owned(), true),
        ("the largest of a publisher", largest(PUBLISHER), true),
    ] {
        // What is made once.
        drop(session(&identity, &offer, publishes));
        let before = held();
        let sessions: Vec<_> = (0..50)
            .map(|_| session(&identity, &offer, publishes))
            .collect();
        let each = (held() - before) / 50;
        drop(sessions);
        let left = held() - before;
        println!("{name}: {each} bytes, {left} left of 50");
        assert!(each <= MOST, "{name}: {each}");
        assert!(left.abs() < 2_048, "{name}: {left}");
    }
}
