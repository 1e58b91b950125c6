// SPDX-License-Identifier: MPL-2.0

//! Offers, usual and unusual, whole and broken, and what must come of them (WHIP, WHEP).
//!
//! Of each answer: as many m-lines as offered, in the same order, with the same names; what was given up stays so; nothing
//! in it that was not offered. Of each refusal: one sentence without addresses of memory. The same for the same seed:
//! `SFU_SEED=…` tries another, `SFU_FUZZ_ITERATIONS=…` longer.

mod answer;
mod channels;
mod clients;
mod duplex;
mod limits;
mod mutations;
mod ours;
mod rows;
mod tracks;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Instant;

use sfu_engine::Codec;
use sfu_engine::transport::negotiate::{self, Identity, OfferError, StreamCodecs};

use crate::rows::{Change, PLAIN, ROWS};

/// What comes of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Every m-line is taken that can be.
    Accept,
    /// Taken whole, or refused.
    Whole,
    Refuse,
    Either,
}

/// Who makes an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Whip,
    Whep,
}

pub(crate) static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Identity::generate().expect("a certificate"));

/// What there is to watch.
pub(crate) const STREAM: StreamCodecs = StreamCodecs {
    video: Some(Codec::H264),
    audio: Some(Codec::Opus),
};

pub(crate) const KINDS: &[Kind] = &[Kind::Whip, Kind::Whep];

pub(crate) fn answered(kind: Kind, offer: &str) -> Result<String, OfferError> {
    let local: [SocketAddr; 1] = ["192.0.2.1:8189".parse().expect("an address")];
    let now = Instant::now();
    match kind {
        Kind::Whip => negotiate::accept_publisher(&IDENTITY, offer, &local, now).map(|(_, a, _)| a),
        Kind::Whep => {
            negotiate::accept(&IDENTITY, STREAM, offer, &local, None, now).map(|(_, a)| a)
        }
    }
}

/// Answers an offer, and checks what must hold of any.
pub(crate) fn answer(kind: Kind, offer: &str) -> Result<String, OfferError> {
    let answered = answered(kind, offer);
    match &answered {
        Ok(answer) => answer::check(kind, offer, answer),
        Err(error) => answer::check_sentence(&error.to_string()),
    }
    answered
}

/// An offer as it comes over the network, as a publisher or a viewer makes it.
fn offer(kind: Kind, changes: &[Change]) -> String {
    let direction = match kind {
        Kind::Whip => "sendonly",
        Kind::Whep => "recvonly",
    };
    let plain = PLAIN.replace("sendonly", direction);
    let changed = changes
        .iter()
        .fold(plain, |offer, change| change.apply(&offer));
    let changed = match kind {
        Kind::Whip => changed,
        Kind::Whep => changed.replace("a=sendonly", "a=recvonly"),
    };
    changed
        .replace("DIRECTION", direction)
        .replace('\n', "\r\n")
}

fn expect(kind: Kind, name: &str, offer: &str, expected: Expect) {
    let answered = answer(kind, offer);
    let taken = answered
        .as_deref()
        .map(|a| answer::takes_all(kind, offer, a));
    let fits = match expected {
        Expect::Accept => taken == Ok(true),
        Expect::Whole => taken.as_ref().is_err() || taken == Ok(true),
        Expect::Refuse => taken.is_err(),
        Expect::Either => true,
    };
    assert!(
        fits,
        "{kind:?} {name}: {expected:?}, but {answered:?}\n{offer}"
    );
}

#[test]
fn each_row_comes_to_what_it_must() {
    for (name, whip, whep, changes) in ROWS {
        for &kind in KINDS {
            let expected = match kind {
                Kind::Whip => whip,
                Kind::Whep => whep,
            };
            let offer = offer(kind, changes);
            let unchanged = PLAIN.replace('\n', "\r\n");
            let is_plain = offer.replace("recvonly", "sendonly") == unchanged;
            assert!(is_plain == (*name == "plain"), "{name} changes nothing");
            expect(kind, name, &offer, *expected);
        }
    }
}

#[test]
fn lines_may_end_in_any_way() {
    for &kind in KINDS {
        for end in ["\n", "\r", "\r\n", "\r\r\n", "\n\r\n", " \r\n"] {
            let offer = offer(kind, &[]).replace("\r\n", end);
            expect(kind, &format!("{end:?}"), &offer, Expect::Accept);
        }
    }
}

#[test]
fn what_is_no_sdp_is_refused_with_a_sentence() {
    for &kind in KINDS {
        for text in [
            "hello",
            "{}",
            "v=0",
            "\u{feff}",
            "m=",
            "m=video",
            "a=mid:0",
            "<html>\nm=video 9 x y</html>",
        ] {
            assert!(answer(kind, text).is_err(), "{text}");
        }
    }
}

/// Each line of a plain offer left out, and each told twice: no panic, and what comes is whole.
#[test]
fn any_line_may_be_missing_or_come_twice() {
    for &kind in KINDS {
        let offer = offer(kind, &[]);
        let lines: Vec<_> = offer.split_inclusive("\r\n").collect();
        for n in 0..lines.len() {
            let mut without = lines.clone();
            without.remove(n);
            let _ = answer(kind, &without.concat());
            let mut twice = lines.clone();
            twice.insert(n, lines[n]);
            let _ = answer(kind, &twice.concat());
            let _ = answer(kind, &lines[..n].concat());
        }
    }
}

/// It tells AV1's layers apart. Chromium that may send it with VP8 leaves temporal layers out of that one's own descriptor.
#[test]
fn the_dependency_descriptor_is_agreed_on_for_av1_alone() {
    let uri =
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
    for (first, second, is_taken) in [("AV1", "VP8", true), ("VP8", "AV1", false)] {
        let formats = format!("a=rtpmap:96 {first}/90000\na=rtpmap:97 {second}/90000\n");
        let (before, rest) = PLAIN.split_once("a=rtpmap:96").expect("the formats");
        let (_, after) = rest.split_once(rows::VIDEO_END).expect("their end");
        let text = format!("{before}{formats}a=extmap:9 {uri}\n{after}").replace('\n', "\r\n");
        let answer = answered(Kind::Whip, &text).expect("an answer");
        assert_eq!(answer.contains(uri), is_taken, "{first} first: {answer}");
    }
}

/// Keyframes have a long one, which takes headers of two octets; AV1 may come after another codec.
#[test]
fn a_viewer_is_told_descriptors_where_headers_may_be_mixed() {
    let uri =
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
    let mixed = "a=extmap-allow-mixed\n";
    for (codec, session, media, id, is_taken) in [
        ("AV1", mixed, "", 9, true),
        ("AV1", "", mixed, 9, true),
        ("AV1", mixed, "", 16, true),
        ("AV1", "", "", 9, false),
        ("VP9", mixed, "", 9, false),
    ] {
        let formats = format!(
            "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\n\
             a=rtpmap:97 {codec}/90000\n{media}"
        );
        let (before, rest) = PLAIN.split_once("a=rtpmap:96").expect("the formats");
        let (_, after) = rest.split_once(rows::VIDEO_END).expect("their end");
        let text = format!("{before}{formats}a=extmap:{id} {uri}\n{after}");
        let text = text.replace("a=group", &format!("{session}a=group"));
        let text = text.replace("a=sendonly", "a=recvonly");
        let answer = answered(Kind::Whep, &text.replace('\n', "\r\n")).expect("an answer");
        let mapped = format!("a=extmap:{id} {uri}\r\n");
        assert_eq!(answer.contains(&mapped), is_taken, "{codec} {id}: {answer}");
        let is_mixed = answer.contains("a=extmap-allow-mixed\r\n");
        assert_eq!(
            is_mixed,
            !(session.is_empty() && media.is_empty()),
            "{answer}"
        );
    }
}
