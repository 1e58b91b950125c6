// SPDX-License-Identifier: MPL-2.0

//! Offers of peers that publish and are sent tracks over one connection, as LiveKit's clients make them (v1): where tracks are put,
//! and that those that stay are not touched.

use std::sync::Arc;
use std::time::Instant;

use sfu_engine::TrackKind::{self, Audio, Video};
use sfu_engine::transport::negotiate::{self, Carried, Conversed, DuplexNegotiation};

use crate::IDENTITY;
use crate::channels::Nobody;

/// Of a client: its first offer, which has three m-lines to receive on of each kind and data channels, and a later one, which adds a
/// camera and a microphone.
const CLIENTS: [(&str, &str, &str); 3] = [
    (
        "chrome",
        include_str!("duplex/chrome-1.sdp"),
        include_str!("duplex/chrome-3.sdp"),
    ),
    (
        "python",
        include_str!("duplex/python-1.sdp"),
        include_str!("duplex/python-3.sdp"),
    ),
    (
        "rtcnode",
        include_str!("duplex/rtcnode-1.sdp"),
        include_str!("duplex/rtcnode-3.sdp"),
    ),
];

fn track(kind: TrackKind, name: &str) -> Carried {
    Carried {
        kind,
        msid: format!("PA_ann|{name} {name}"),
    }
}

fn begin(offer: &str, wanted: &[Carried]) -> (DuplexNegotiation, Conversed) {
    let local = ["192.0.2.1:8189".parse().unwrap()];
    let data = Some(Arc::new(Nobody) as _);
    let now = Instant::now();
    let accepted = negotiate::accept_both(&IDENTITY, offer, wanted, &local, None, data, now);
    let (_, negotiation, conversed) = accepted.unwrap();
    (negotiation, conversed)
}

/// Of an m-line of an answer: its kind, direction, and the track on it with its SSRC.
type Line = (String, String, Option<(String, String)>);

fn lines(answer: &str) -> Vec<Line> {
    let sections = answer.split("\r\nm=").skip(1);
    let lines = sections.map(|section| {
        let value = |start: &str| section.lines().find_map(|l| l.strip_prefix(start));
        let kind = section.split(' ').next().unwrap().to_owned();
        let all = ["sendonly", "recvonly", "sendrecv", "inactive"];
        let direction = all
            .into_iter()
            .find(|d| value(&format!("a={d}")) == Some(""));
        let track = value("a=msid:").map(|msid| {
            let ssrc = value("a=ssrc:").unwrap().split(' ').next().unwrap();
            (msid.split(' ').nth(1).unwrap().to_owned(), ssrc.to_owned())
        });
        (kind, direction.unwrap_or_default().to_owned(), track)
    });
    lines.collect()
}

fn on(conversed: &Conversed) -> Vec<Option<&str>> {
    let all = conversed.carried.iter();
    all.map(|on| Some(on.as_ref()?.mid.as_str())).collect()
}

/// Chromium offers on new m-lines what was answered on others of their kind.
#[test]
fn what_a_client_needs_to_publish_is_answered_where_it_only_receives() {
    let (_, begun) = begin(CLIENTS[0].1, &[]);
    for (kind, uri) in [
        ("video", "sdes:rtp-stream-id"),
        ("video", "sdes:repaired-rtp-stream-id"),
        ("audio", "ssrc-audio-level"),
    ] {
        let sections = begun.sdp.split("\r\nm=").skip(1);
        let of_kind: Vec<_> = sections.filter(|s| s.starts_with(kind)).collect();
        assert!(!of_kind.is_empty());
        assert!(of_kind.iter().all(|s| s.contains(uri)), "{kind}: {uri}");
    }
}

#[test]
fn tracks_are_put_on_what_clients_receive_on() {
    for (client, first, later) in CLIENTS {
        let (camera, voice) = (track(Video, "v1"), track(Audio, "a1"));
        let wanted = [camera.clone(), voice.clone()];
        let (mut negotiation, begun) = begin(first, &wanted);
        assert_eq!(on(&begun), [Some("3"), Some("0")], "{client}");
        assert_eq!((begun.tracks.len(), begun.free), (0, [2, 2]), "{client}");
        let before = lines(&begun.sdp);
        let directions: Vec<_> = before.iter().map(|(_, d, _)| d.as_str()).collect();
        let expected = [["sendonly"; 6].as_slice(), &[""]].concat();
        assert_eq!(directions, expected, "{client}: {}", begun.sdp);
        assert_eq!(before[6].0, "application", "{client}");
        let named = before.iter().filter(|(.., track)| track.is_some());
        assert_eq!(named.count(), 2, "{client}");
        assert!(
            begun.sdp.contains("a=group:BUNDLE 0 1 2 3 4 5 6\r\n"),
            "{client}"
        );

        // It publishes, and is to be sent three more cameras: one too many.
        let more = ["v2", "v3", "v4"].map(|name| track(Video, name));
        let wanted = [&wanted[..], &more].concat();
        let (changed, conversed) = negotiation.answer(later, &wanted).unwrap();
        assert!(changed.restart.is_none(), "{client}");
        let carried = [Some("3"), Some("0"), Some("4"), Some("5"), None];
        assert_eq!(on(&conversed), carried, "{client}");
        assert_eq!(conversed.free, [2, 0], "{client}");
        let layers: Vec<_> = conversed
            .tracks
            .iter()
            .map(|t| (&*t.mid, t.rids.len()))
            .collect();
        assert_eq!(layers, [("7", 3), ("8", 1)], "{client}");
        let after = lines(&conversed.sdp);
        assert_eq!(
            (&after[0], &after[3]),
            (&before[0], &before[3]),
            "{client}: they stay"
        );
        for own in [7, 8] {
            assert_eq!(
                (&*after[own].1, &after[own].2),
                ("recvonly", &None),
                "{client}"
            );
        }

        // A sound goes: its m-line is inactive.
        let mut without = negotiation.clone();
        let (_, conversed) = without.answer(later, &wanted[..1]).unwrap();
        let directions: Vec<_> = lines(&conversed.sdp);
        assert_eq!(
            (&*directions[0].1, &directions[0].2),
            ("inactive", &None),
            "{client}"
        );

        // The first camera goes: its m-line carries nothing once, and then the fifth one takes it under another SSRC.
        let (_, conversed) = negotiation.answer(later, &wanted[1..]).unwrap();
        let carried = [Some("0"), Some("4"), Some("5"), None];
        assert_eq!(on(&conversed), carried, "{client}");
        assert_eq!(conversed.free, [2, 1], "{client}");
        let between = lines(&conversed.sdp);
        assert_eq!(
            (&*between[3].1, &between[3].2),
            ("inactive", &None),
            "{client}"
        );
        let (_, conversed) = negotiation.answer(later, &wanted[1..]).unwrap();
        let carried = [Some("0"), Some("4"), Some("5"), Some("3")];
        assert_eq!(on(&conversed), carried, "{client}");
        let now = lines(&conversed.sdp);
        assert_eq!((&now[0], &now[4]), (&after[0], &after[4]), "{client}");
        let (name, ssrc) = now[3].2.clone().unwrap();
        assert_eq!(name, "v4", "{client}");
        assert_ne!(
            Some(ssrc),
            before[3].2.clone().map(|(_, ssrc)| ssrc),
            "{client}"
        );
    }
}

#[test]
fn an_offer_that_is_refused_changes_nothing() {
    let (client, first, later) = CLIENTS[0];
    let wanted = [track(Video, "v1")];
    let (mut negotiation, begun) = begin(first, &wanted);
    // Fewer m-lines than there were; another certificate; no names for what is sent.
    let fewer = first.split("m=video").next().unwrap();
    let another = later.replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:");
    negotiation.answer(fewer, &wanted).unwrap_err();
    negotiation.answer(&another, &wanted).unwrap_err();
    let nameless = Carried {
        kind: Audio,
        msid: "one".into(),
    };
    negotiation.answer(later, &[nameless]).unwrap_err();
    let (_, conversed) = negotiation.answer(later, &wanted).unwrap();
    assert_eq!(lines(&conversed.sdp)[3], lines(&begun.sdp)[3], "{client}");
}

/// What an m-line that receives turns into when its peer begins to send on it.
#[test]
fn an_m_line_on_which_the_peer_sends_carries_nothing_to_it() {
    let (_, first, _) = CLIENTS[0];
    let wanted = [track(Audio, "a1")];
    let (mut negotiation, begun) = begin(first, &wanted);
    assert_eq!(on(&begun), [Some("0")]);
    for direction in ["sendrecv", "sendonly"] {
        let sends = first.replacen("a=recvonly", &format!("a={direction}"), 1);
        let (_, conversed) = negotiation.answer(&sends, &wanted).unwrap();
        assert_eq!(on(&conversed), [Some("1")], "{direction}");
        assert_eq!(lines(&conversed.sdp)[0].1, "recvonly", "{direction}");
        assert_eq!(conversed.tracks.len(), 1, "{direction}");
    }
    let (_, conversed) = negotiation.answer(first, &wanted).unwrap();
    assert_eq!(on(&conversed), [Some("1")], "it stays");
}

/// Whatever is wanted, ends and comes again: between two tracks of an m-line there is an answer without any, as clients need it;
/// what waits gets its m-line with the next answer; and those that stay are not touched.
#[test]
fn no_track_takes_the_m_line_of_another_one_directly() {
    let (_, first, later) = CLIENTS[0];
    let mut waiting = 0;
    for seed in 0..60_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = move |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        let (mut negotiation, begun) = begin(first, &[]);
        let mut before = lines(&begun.sdp);
        let mut wanted: Vec<Carried> = Vec::new();
        for round in 0..30 {
            for _ in 0..roll(3) {
                if roll(2) == 0 && !wanted.is_empty() {
                    let at = roll(wanted.len() as u64) as usize;
                    wanted.remove(at);
                }
                if wanted.len() < 3 {
                    wanted.push(track(Video, &format!("v{round}.{}", roll(1 << 32))));
                }
            }
            let (_, conversed) = negotiation.answer(later, &wanted).unwrap();
            let now = lines(&conversed.sdp);
            for (old, new) in before.iter().zip(&now) {
                let direct = old.2 != new.2 && old.2.is_some() && new.2.is_some();
                assert!(!direct, "seed {seed}: {old:?} became {new:?}");
            }
            let placed = now.iter().filter(|(.., track)| track.is_some()).count();
            let missing = on(&conversed).iter().filter(|on| on.is_none()).count();
            assert_eq!(placed + missing, wanted.len(), "seed {seed}");
            // There are three, so that all have one as soon as those that have lost theirs are free.
            assert!(missing <= conversed.free[1], "seed {seed}");
            let (_, again) = negotiation.clone().answer(later, &wanted).unwrap();
            assert!(on(&again).iter().all(Option::is_some), "seed {seed}");
            waiting += missing;
            before = now;
        }
    }
    assert!(waiting > 100, "{waiting} had to wait");
}
