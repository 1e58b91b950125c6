// SPDX-License-Identifier: MPL-2.0

//! Sound that its client wants without redundancy (RED, RFC 2198) is answered without it: browsers send what comes first in an answer,
//! which is RED where it is offered. What is encrypted end to end has to come so, for nobody but those at its ends could tell its
//! blocks apart. Called by [`Media`](crate::media::Media) with each offer.

use std::borrow::Cow;

use sfu_rooms::Expected;

use crate::mlines;

/// The offer without RED on the m-lines of these tracks.
pub(crate) fn without_red<'a>(offer: &'a str, expected: &[Expected]) -> Cow<'a, str> {
    if expected.iter().all(|e| !e.without_red) {
        return Cow::Borrowed(offer);
    }
    mlines::changed(offer, |line, rest| {
        let is_plain = line.starts_with("m=audio ") && is_plain(rest, expected);
        is_plain.then(|| plain(line, rest)).flatten()
    })
}

/// Whether a section's track is one of those; of two with its id the newer one counts.
fn is_plain(rest: &[&str], expected: &[Expected]) -> bool {
    let has = |cid: &str, e: &Expected| e.cids.iter().any(|known| known == cid);
    let cid = mlines::cid(rest);
    let found = cid.and_then(|cid| expected.iter().rev().find(|e| has(cid, e)));
    found.is_some_and(|e| e.without_red)
}

/// The m-line without the payload types of RED. Nothing: it has no other ones.
fn plain(line: &str, rest: &[&str]) -> Option<String> {
    let red = mlines::payload_types(rest, "red");
    mlines::with_types(line, |types| {
        let kept = types.iter().filter(|pt| !red.contains(*pt));
        kept.copied().collect()
    })
}

#[cfg(test)]
mod tests {
    use sfu_rooms::Sid;
    use sfu_rooms::proto::TrackType;

    use super::*;

    fn announced(cid: &str, without_red: bool) -> Expected {
        Expected {
            track: Sid::participant(),
            kind: TrackType::Audio,
            cids: vec![cid.to_owned()],
            codecs: Vec::new(),
            is_screen: false,
            sizes: Vec::new(),
            without_red,
        }
    }

    const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9\r\na=msid:- mic\r\na=rtpmap:111 opus/48000/2\r\n\
        a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111 64\r\na=msid:- more\r\n\
        a=rtpmap:63 RED/48000/2\r\na=rtpmap:64 red/48000\r\na=rtpmap:111 opus/48000/2\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 116\r\na=msid:- cam\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:116 red/90000\r\n";

    #[test]
    fn only_who_wants_none_is_answered_without_redundancy() {
        let lines = ["111 63 9", "63 111 64", "96 116"];
        let [first, second, third] = lines;
        for (expected, now) in [
            (vec![("mic", true)], ["111 9", second, third]),
            (vec![("mic", false)], lines),
            (vec![("mic", true), ("more", true)], ["111 9", "111", third]),
            (vec![("mic", false), ("more", true)], [first, "111", third]),
            (vec![("cam", true), ("nobody", true)], lines),
            // Of an id that was announced twice the newer one.
            (vec![("mic", true), ("mic", false)], lines),
            (
                vec![("mic", false), ("mic", true)],
                ["111 9", second, third],
            ),
            (vec![], lines),
        ] {
            let expected = expected.into_iter();
            let expected: Vec<_> = expected.map(|(cid, red)| announced(cid, red)).collect();
            let mut is = OFFER.to_owned();
            for (before, after) in lines.iter().zip(now) {
                is = is.replacen(&format!("SAVPF {before}\r"), &format!("SAVPF {after}\r"), 1);
            }
            assert_eq!(without_red(OFFER, &expected), is, "{now:?}");
        }
    }

    #[test]
    fn what_is_no_sdp_or_has_nothing_else_passes() {
        let all = [announced("mic", true)];
        for text in [
            "",
            "m=",
            "m=audio ",
            "m=audio 9\na=msid:- mic\na=rtpmap:",
            "\n\nm=audio 9 x 1\na=msid:- mic\na=rtpmap:1 red/1\n",
        ] {
            assert_eq!(without_red(text, &all), text);
        }
    }
}
