// SPDX-License-Identifier: MPL-2.0

//! Offers of peers that publish any tracks, and their later ones on the same connection (RFC 3264, section 8; RFC 9429,
//! section 5.2.2): what must come of each, and that one that is refused changes nothing.

use std::time::Instant;

use sfu_engine::transport::negotiate::{self, Answered, Negotiation, OfferError};

use crate::{IDENTITY, answer};

/// An m-line of an offer.
#[derive(Debug, Clone)]
struct Line {
    kind: &'static str,
    mid: String,
    port: u16,
    direction: &'static str,
    layers: usize,
}

fn line(kind: &'static str, mid: &str) -> Line {
    Line {
        kind,
        mid: mid.into(),
        port: 9,
        direction: "sendonly",
        layers: 0,
    }
}

/// So many m-lines, sounds and cameras of three layers in turn.
fn some(count: usize) -> Vec<Line> {
    let one = |n: usize| match n % 2 {
        0 => line("audio", &n.to_string()),
        _ => Line {
            layers: 3,
            ..line("video", &n.to_string())
        },
    };
    (0..count).map(one).collect()
}

#[derive(Debug, Clone)]
struct Peer {
    ufrag: &'static str,
    certificate: &'static str,
    lines: Vec<Line>,
}

impl Peer {
    fn new(lines: Vec<Line>) -> Self {
        Self {
            ufrag: "abcd",
            certificate: "AB",
            lines,
        }
    }

    fn offer(&self) -> String {
        let mids = self.lines.iter().filter(|l| l.port > 0);
        let mids: Vec<_> = mids.map(|l| l.mid.as_str()).collect();
        let fingerprint = vec![self.certificate; 32].join(":");
        let mut out = format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=ice-ufrag:{}\r\n\
             a=ice-pwd:0123456789abcdef0123456789\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n",
            mids.join(" "),
            self.ufrag
        );
        for line in &self.lines {
            let (pts, maps) = match line.kind {
                "audio" => ("111", "a=rtpmap:111 opus/48000/2\r\n"),
                "video" => (
                    "96 97",
                    "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
                ),
                _ => ("webrtc-datachannel", "a=sctp-port:5000\r\n"),
            };
            let protocol = match line.kind {
                "application" => "UDP/DTLS/SCTP",
                _ => "UDP/TLS/RTP/SAVPF",
            };
            out += &format!(
                "m={} {} {protocol} {pts}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na={}\r\na=rtcp-mux\r\n{maps}\
                 a=msid:stream track-{}\r\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
                 a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n",
                line.kind, line.port, line.mid, line.direction, line.mid
            );
            let rids: Vec<_> = (0..line.layers).map(|n| format!("r{n}")).collect();
            for rid in &rids {
                out += &format!("a=rid:{rid} send\r\n");
            }
            if !rids.is_empty() {
                out += &format!("a=simulcast:send {}\r\n", rids.join(";"));
            }
        }
        out
    }

    fn begin(&self) -> Result<(Negotiation, Answered), OfferError> {
        let local = ["192.0.2.1:8189".parse().unwrap()];
        let accepted =
            negotiate::accept_tracks(&IDENTITY, &self.offer(), &local, None, Instant::now());
        accepted.map(|(_, negotiation, answered)| (negotiation, answered))
    }
}

/// What an answer has of each m-line: its name, whether it is rejected, and its direction.
fn lines_of(answer: &str) -> Vec<(String, bool, String)> {
    let sections = answer.split("\r\nm=").skip(1);
    let one = |section: &str| {
        let value = |key: &str| {
            let mut lines = section.lines();
            lines.find_map(|l| Some(l.strip_prefix(key)?.to_owned()))
        };
        let directions = ["recvonly", "sendonly", "inactive", "sendrecv"];
        let is_one = |l: &&str| directions.iter().any(|d| l.strip_prefix("a=") == Some(d));
        let direction = section.lines().find(is_one).unwrap_or_default();
        let port = section.split(' ').nth(1);
        (
            value("a=mid:").unwrap(),
            port == Some("0"),
            direction[2..].to_owned(),
        )
    };
    sections.map(one).collect()
}

fn value<'a>(answer: &'a str, key: &str) -> Vec<&'a str> {
    answer.lines().filter_map(|l| l.strip_prefix(key)).collect()
}

fn tracks_of(answered: &Answered) -> Vec<(u16, &str, usize)> {
    let tracks = answered.tracks.iter();
    let tracks = tracks.map(|t| (t.track.0, &*t.mid, t.rids.len()));
    tracks.collect()
}

#[test]
fn each_m_line_that_sends_is_a_track() {
    let mut peer = Peer::new(some(4));
    peer.lines.insert(0, line("application", "data"));
    peer.lines[4].direction = "recvonly";
    let (_, answered) = peer.begin().unwrap();
    let tracks = tracks_of(&answered);
    assert_eq!(tracks, [(1, "0", 1), (2, "1", 3), (3, "2", 1)]);
    let msids = answered.tracks.iter().map(|t| t.msid.as_deref().unwrap());
    assert!(msids.eq(["stream track-0", "stream track-1", "stream track-2"]));
    let lines = lines_of(&answered.sdp);
    let all: Vec<_> = lines.iter().map(|(m, r, d)| (&**m, *r, &**d)).collect();
    let expected = [
        ("data", true, "inactive"),
        ("0", false, "recvonly"),
        ("1", false, "recvonly"),
        ("2", false, "recvonly"),
        ("3", false, "inactive"),
    ];
    assert_eq!(all, expected);
}

#[test]
fn tracks_and_layers_are_bounded() {
    let cameras = |count, layers| {
        let one = |n: usize| Line {
            layers,
            ..line("video", &n.to_string())
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    for (lines, limit) in [
        (cameras(16, 2), None),
        (cameras(17, 0), Some("16 tracks")),
        (cameras(4, 8), None),
        (cameras(11, 3), Some("32 layers")),
        (cameras(1, 9), Some("8")),
        (some(257), Some("256 m-lines")),
    ] {
        let count = lines.len();
        let begun = Peer::new(lines).begin();
        let why = begun.map(|_| ()).map_err(|e| e.to_string());
        match limit {
            None => assert_eq!(why, Ok(()), "{count}"),
            Some(limit) => assert!(why.clone().is_err_and(|w| w.contains(limit)), "{why:?}"),
        }
    }
}

#[test]
fn later_offers_change_tracks_and_leave_the_connection_as_it_is() {
    let first = Peer::new(some(4));
    let (mut negotiation, begun) = first.begin().unwrap();
    type Change = fn(&mut Peer);
    type Tracks = &'static [(u16, &'static str, usize)];
    let steps: &[(&str, Change, Tracks)] = &[
        (
            "nothing",
            |_| (),
            &[(0, "0", 1), (1, "1", 3), (2, "2", 1), (3, "3", 3)],
        ),
        (
            "one stops",
            |p| p.lines[1].direction = "inactive",
            &[(0, "0", 1), (2, "2", 1), (3, "3", 3)],
        ),
        (
            "another one is given up",
            |p| p.lines[2].port = 0,
            &[(0, "0", 1), (3, "3", 3)],
        ),
        (
            "the first is used again, the second for something else",
            |p| {
                p.lines[1].direction = "sendonly";
                p.lines[2] = line("video", "screen");
            },
            &[(0, "0", 1), (1, "1", 3), (2, "screen", 1), (3, "3", 3)],
        ),
        (
            "more are added",
            |p| p.lines.extend(some(6).into_iter().skip(4)),
            &[
                (0, "0", 1),
                (1, "1", 3),
                (2, "screen", 1),
                (3, "3", 3),
                (4, "4", 1),
                (5, "5", 3),
            ],
        ),
        (
            "all stop",
            |p| p.lines.iter_mut().for_each(|l| l.direction = "inactive"),
            &[],
        ),
        (
            "all are given up",
            |p| p.lines.iter_mut().for_each(|l| l.port = 0),
            &[],
        ),
        (
            "one comes again",
            |p| {
                p.lines[0] = line("audio", "new");
            },
            &[(0, "new", 1)],
        ),
    ];
    let mut peer = first;
    for (version, (what, change, expected)) in (2..).zip(steps) {
        change(&mut peer);
        let (changed, answered) = negotiation.answer(&peer.offer()).expect(what);
        assert_eq!(tracks_of(&answered), *expected, "{what}");
        assert!(changed.restart.is_none(), "{what}");
        let names: Vec<_> = lines_of(&answered.sdp);
        let same = names
            .iter()
            .zip(&peer.lines)
            .all(|((mid, rejected, _), line)| *mid == line.mid && *rejected == (line.port == 0));
        assert!(same && names.len() == peer.lines.len(), "{what}: {names:?}");
        for key in [
            "a=ice-ufrag:",
            "a=ice-pwd:",
            "a=fingerprint:",
            "a=setup:",
            "a=candidate:",
        ] {
            let (before, now) = (value(&begun.sdp, key), value(&answered.sdp, key));
            assert!(
                now.iter().all(|v| before.contains(v)),
                "{what}: {key} {now:?}"
            );
        }
        let origin = value(&begun.sdp, "o=")[0].replace(" 1 IN", &format!(" {version} IN"));
        assert_eq!(value(&answered.sdp, "o="), [origin], "{what}");
    }
}

#[test]
fn what_moves_names_or_brings_another_certificate_is_refused_and_changes_nothing() {
    let first = Peer::new(some(4));
    let (mut negotiation, _) = first.begin().unwrap();
    type Change = fn(&mut Peer);
    let wrong: &[(&str, Change)] = &[
        ("3 m-lines where there were 4", |p| p.lines.truncate(3)),
        ("keep their places", |p| p.lines.swap(0, 2)),
        ("keep their places", |p| p.lines[3].mid = "x".into()),
        ("keep their places", |p| p.lines[0] = line("video", "0")),
        ("certificate", |p| p.certificate = "CD"),
        ("two of its m-lines have the name", |p| {
            p.lines.push(line("audio", "0"));
        }),
        ("16 tracks", |p| {
            p.lines.extend(some(24).into_iter().skip(4));
        }),
        ("256 m-lines", |p| {
            p.lines.extend(some(300).into_iter().skip(4));
        }),
    ];
    for (sentence, change) in wrong {
        let mut peer = first.clone();
        change(&mut peer);
        let refused = negotiation.answer(&peer.offer()).map(|_| ());
        let why = refused.unwrap_err().to_string();
        answer::check_sentence(&why);
        assert!(why.contains(sentence), "{sentence}: {why}");
    }
    let (_, answered) = negotiation.answer(&first.offer()).unwrap();
    assert!(
        value(&answered.sdp, "o=")[0].contains(" 2 IN "),
        "none counts"
    );
}

#[test]
fn ice_begins_anew_with_new_credentials_on_both_sides() {
    let mut peer = Peer::new(some(2));
    let (mut negotiation, begun) = peer.begin().unwrap();
    let ufrag = |answered: &Answered| value(&answered.sdp, "a=ice-ufrag:")[0].to_owned();
    let mut known = vec![ufrag(&begun)];
    for other in ["efgh", "ijkl"] {
        peer.ufrag = other;
        let (changed, answered) = negotiation.answer(&peer.offer()).unwrap();
        assert!(changed.restart.is_some());
        assert!(!known.contains(&ufrag(&answered)));
        known.push(ufrag(&answered));
        let (changed, again) = negotiation.answer(&peer.offer()).unwrap();
        assert!(changed.restart.is_none());
        assert_eq!(ufrag(&again), ufrag(&answered));
    }
}

/// A stream has one video track, and sound in several languages.
#[test]
fn the_publisher_of_a_stream_has_one_picture_and_any_sound() {
    let local = ["192.0.2.1:8189".parse().unwrap()];
    let publish = |lines: &[&'static str]| {
        let lines = lines.iter().enumerate();
        let lines = lines.map(|(n, kind)| line(kind, &n.to_string()));
        let offer = Peer::new(lines.collect()).offer();
        let offer = offer.replace("a=mid:1\r\n", "a=mid:1\r\na=lang:pt-BR\r\n");
        negotiate::accept_publisher(&IDENTITY, &offer, &local, Instant::now())
    };
    let (_, answer, tracks) = publish(&["audio", "audio", "video"]).unwrap();
    let language = |t: &negotiate::PublisherTrack| t.language.as_ref().map(ToString::to_string);
    let told: Vec<_> = tracks
        .iter()
        .map(|t| (t.mid.as_str(), language(t)))
        .collect();
    assert_eq!(
        told,
        [("0", None), ("1", Some("pt-BR".to_owned())), ("2", None)]
    );
    for (mid, is_rejected, direction) in lines_of(&answer) {
        assert_eq!((is_rejected, &*direction), (false, "recvonly"), "{mid}");
    }
    assert!(publish(&["audio"; 8]).is_ok());
    assert!(publish(&["audio"; 9]).is_err(), "there is an end to it");
    let refused = publish(&["audio", "video", "video"]).map(drop).unwrap_err();
    assert!(
        refused.to_string().contains("two tracks of video"),
        "{refused}"
    );
}
