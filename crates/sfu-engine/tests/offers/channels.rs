// SPDX-License-Identifier: MPL-2.0

//! M-lines of data channels (RFC 8841), in offers of peers and in ours: taken where the session wants them, on the transport of all
//! others, and given up else.

use std::sync::Arc;
use std::time::Instant;

use sfu_engine::TrackKind;
use sfu_engine::data::{ChannelConfig, ChannelId, DataEnd, DataObserver, Message};
use sfu_engine::transport::negotiate::{
    self, AnswerTaken, Answered, Negotiation, OfferError, Offers,
};

use crate::{IDENTITY, answer};

#[derive(Debug)]
pub(crate) struct Nobody;

impl DataObserver for Nobody {
    fn opened(&self, _: ChannelId, _: &ChannelConfig) {}
    fn message(&self, _: ChannelId, _: &Message) -> bool {
        true
    }
    fn closed(&self, _: ChannelId) {}
    fn ended(&self, _: DataEnd) {}
}

const MODERN: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=sctp-port:5000\n\
    a=max-message-size:262144\n";
const SOUND: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 0.0.0.0\na=rtpmap:111 opus/48000/2\na=sendonly\na=rtcp-mux\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\n";

/// An offer of these m-lines, whose names are their places; all are in one group, but those that have credentials.
fn offer(lines: &[&str]) -> String {
    let mids = (0..lines.len()).filter(|n| !lines[*n].contains("ice-ufrag"));
    let mids: Vec<_> = mids.map(|n| n.to_string()).collect();
    let mut out = format!(
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE {}\na=ice-ufrag:abcd\na=ice-pwd:{}\n\
         a=fingerprint:sha-256 {}\na=setup:actpass\n",
        mids.join(" "),
        "0123456789abcdef0123456789",
        ["AB"; 32].join(":")
    );
    for (n, line) in lines.iter().enumerate() {
        out += &format!("{line}a=mid:{n}\n");
    }
    out.replace('\n', "\r\n")
}

type Begun = Result<(Negotiation, Answered), OfferError>;

fn begin(lines: &[&str], data: bool) -> Begun {
    let data = data.then(|| Arc::new(Nobody) as Arc<dyn DataObserver>);
    let local = ["192.0.2.1:8189".parse().unwrap()];
    let accepted = negotiate::accept_tracks(&IDENTITY, &offer(lines), &local, data, Instant::now());
    accepted.map(|(_, negotiation, answered)| (negotiation, answered))
}

/// Of each m-line its first line, and what it says of SCTP.
fn told(sdp: &str) -> Vec<(String, Vec<String>)> {
    let sections = sdp.split("\r\nm=").skip(1);
    let told = sections.map(|section| {
        let mut lines = section.lines().map(str::to_owned);
        let first = lines.next().unwrap();
        let of_sctp = |l: &String| l.starts_with("a=sctp") || l.starts_with("a=max-message");
        (first, lines.filter(of_sctp).collect())
    });
    told.collect()
}

const TAKEN: &str = "application 9 UDP/DTLS/SCTP webrtc-datachannel";

fn assert_taken(sdp: &str, at: usize) {
    let all = told(sdp);
    let (first, sctp) = &all[at];
    assert_eq!(first, TAKEN);
    assert_eq!(sctp, &["a=sctp-port:5000", "a=max-message-size:262144"]);
    // It has all that a transport needs.
    let section = sdp.split("\r\nm=").nth(at + 1).unwrap();
    for line in [
        "a=ice-ufrag:",
        "a=ice-pwd:",
        "a=fingerprint:",
        "a=setup:",
        "a=mid:",
    ] {
        assert!(section.contains(line), "{line}\n{sdp}");
    }
    let group = sdp
        .lines()
        .find_map(|l| l.strip_prefix("a=group:BUNDLE "))
        .unwrap();
    assert!(group.split(' ').any(|mid| mid == at.to_string()), "{sdp}");
    let candidates = sdp.matches("a=candidate:").count();
    assert_eq!(candidates, 1, "of the first in the group alone\n{sdp}");
}

#[test]
fn channels_are_taken_alone_and_beside_tracks() {
    for (lines, at, tracks) in [
        (&[MODERN][..], 0, 0),
        (&[MODERN, SOUND], 0, 1),
        (&[SOUND, MODERN], 1, 1),
        (&[SOUND, MODERN, SOUND], 1, 2),
    ] {
        let (_, answered) = begin(lines, true).unwrap();
        assert_taken(&answered.sdp, at);
        assert_eq!(answered.tracks.len(), tracks);
        // Who wants none gives the m-line up, and has nothing where there is no other.
        match begin(lines, false) {
            Ok((_, answered)) => {
                assert!(told(&answered.sdp)[at].0.starts_with("application 0 "));
                assert_eq!(answered.tracks.len(), tracks);
            }
            Err(error) => {
                assert_eq!(tracks, 0, "{error}");
                answer::check_sentence(&error.to_string());
            }
        }
    }
}

#[test]
fn each_way_to_write_them_comes_to_what_it_must() {
    let with = |from: &str, to: &str| MODERN.replace(from, to);
    let own = format!(
        "{MODERN}a=ice-ufrag:efgh\na=ice-pwd:{}\n",
        "9876543210fedcba9876543210"
    );
    for (what, line, is_taken) in [
        ("by TCP", with("UDP/DTLS/SCTP", "TCP/DTLS/SCTP"), true),
        ("without a port", with("a=sctp-port:5000\n", ""), true),
        ("port 0", with(":5000", ":0"), true),
        ("another port", with(":5000", ":5001"), true),
        ("no port at all", with(":5000", ":x"), true),
        ("any size", with(":262144", ":0"), true),
        (
            "a size beyond all",
            with(":262144", ":99999999999999999999999"),
            true,
        ),
        ("a small size", with(":262144", ":1"), true),
        ("inactive", format!("{MODERN}a=inactive\n"), true),
        ("given up", with("application 9", "application 0"), false),
        (
            "bundle-only",
            with("application 9", "application 0") + "a=bundle-only\n",
            true,
        ),
        (
            "for something else",
            with("webrtc-datachannel", "bfcp"),
            false,
        ),
        ("without DTLS", with("UDP/DTLS/SCTP", "SCTP"), false),
        (
            "as before RFC 8841",
            "m=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 1024\n".into(),
            false,
        ),
        ("on another transport", own, false),
    ] {
        let (_, answered) = begin(&[SOUND, &line], true).expect(what);
        let (first, _) = &told(&answered.sdp)[1];
        assert_eq!(
            first.starts_with("application 9 "),
            is_taken,
            "{what}: {first}"
        );
        assert_eq!(answered.tracks.len(), 1, "{what}");
        // Only one is taken.
        let (_, answered) = begin(&[MODERN, &line, SOUND], true).expect(what);
        assert_taken(&answered.sdp, 0);
        assert!(
            told(&answered.sdp)[1].0.starts_with("application 0 "),
            "{what}"
        );
    }
}

#[test]
fn channels_come_later_and_stay_while_tracks_come_and_go() {
    let (mut negotiation, _) = begin(&[SOUND], true).unwrap();
    let silent = SOUND.replace("sendonly", "inactive");
    for lines in [
        &[SOUND, MODERN][..],
        &[&silent, MODERN],
        &[&silent, MODERN, SOUND],
        &[SOUND, MODERN, &silent],
    ] {
        let (_, answered) = negotiation.answer(&offer(lines)).unwrap();
        assert_taken(&answered.sdp, 1);
    }
    let (mut negotiation, first) = begin(&[MODERN], true).unwrap();
    for lines in [
        &[MODERN, SOUND][..],
        &[MODERN, &silent],
        &[MODERN, SOUND, SOUND],
    ] {
        let (changed, answered) = negotiation.answer(&offer(lines)).unwrap();
        assert!(changed.restart.is_none());
        assert_taken(&answered.sdp, 0);
        let ufrag = |sdp: &str| {
            sdp.lines()
                .find(|l| l.starts_with("a=ice-ufrag"))
                .map(str::to_owned)
        };
        assert_eq!(ufrag(&answered.sdp), ufrag(&first.sdp));
    }
    // Its place stays its own.
    let why = negotiation.answer(&offer(&[SOUND, MODERN, SOUND]));
    answer::check_sentence(&why.unwrap_err().to_string());
}

#[test]
fn ours_have_them_first() {
    let local = ["192.0.2.1:8189".parse().unwrap()];
    let mut offers = Offers::new(&IDENTITY, &local, None, Some(Arc::new(Nobody))).unwrap();
    let first = offers.offer().unwrap();
    assert_taken(&first, 0);
    assert_eq!(told(&first).len(), 1);
    // Given up they are nothing.
    let refused = offers.answered(&offer(&[&MODERN.replace(" 9 ", " 0 ")]), Instant::now());
    answer::check_sentence(&refused.map(|_| ()).unwrap_err().to_string());
    let answer = offer(&[MODERN]).replace("actpass", "active");
    let taken = offers.answered(&answer, Instant::now()).unwrap();
    assert!(matches!(taken, AnswerTaken::Begun(_)));
    for n in 1..4 {
        assert_eq!(offers.add(TrackKind::Audio, &format!("a b{n}")).unwrap(), n);
        let next = offers.offer().unwrap();
        assert_taken(&next, 0);
        assert_eq!(told(&next).len(), n + 1);
        let sound = SOUND.replace("sendonly", "recvonly");
        let mut lines = vec![MODERN];
        lines.resize(n + 1, &sound);
        let answer = offer(&lines).replace("actpass", "active");
        let taken = offers.answered(&answer, Instant::now()).unwrap();
        assert!(matches!(taken, AnswerTaken::Changed { .. }));
        assert_eq!((offers.place(0), offers.place(n)), (None, Some(n - 1)));
    }
}
