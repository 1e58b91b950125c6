// SPDX-License-Identifier: MPL-2.0

//! The codec in which a client has announced a track comes first on its m-line: answers have codecs in the order of the offer, and the
//! first is sent. Browsers' offers have all codecs in an order of their own, whatever their page wants (LiveKit's server orders its
//! answers so, too). Called by [`Media`](crate::media::Media) with each offer.

use std::borrow::Cow;

use sfu_rooms::Expected;

use crate::mlines;

/// The offer with its m-lines' payload types in that order.
pub(crate) fn prefer<'a>(offer: &'a str, expected: &[Expected]) -> Cow<'a, str> {
    if expected.iter().all(|e| e.codecs.is_empty()) {
        return Cow::Borrowed(offer);
    }
    mlines::changed(offer, |line, rest| {
        let video = line.starts_with("m=video ");
        let codec = video.then(|| codec(rest, expected)).flatten()?;
        ordered(line, rest, codec)
    })
}

/// The codec that was announced with the id of a section's track; of two that have it the newer one.
fn codec<'a>(rest: &[&str], expected: &'a [Expected]) -> Option<&'a str> {
    let cid = mlines::cid(rest)?;
    let mut all = expected.iter().rev().flat_map(|e| &e.codecs);
    all.find(|(id, _)| id == cid)
        .map(|(_, codec)| codec.as_str())
}

/// The m-line with the payload types of this codec before all others. Nothing: it has none.
fn ordered(line: &str, rest: &[&str], codec: &str) -> Option<String> {
    let preferred = mlines::payload_types(rest, codec);
    mlines::with_types(line, |types| {
        let (before, after): (Vec<_>, Vec<_>) =
            types.iter().copied().partition(|pt| preferred.contains(pt));
        match before.is_empty() {
            true => before,
            false => [before, after].concat(),
        }
    })
}

#[cfg(test)]
mod tests {
    use sfu_rooms::Sid;
    use sfu_rooms::proto::TrackType;

    use super::*;

    fn announced(codecs: &[(&str, &str)]) -> Expected {
        let owned = |(cid, codec): &(&str, &str)| ((*cid).to_owned(), (*codec).to_owned());
        Expected {
            track: Sid::participant(),
            kind: TrackType::Video,
            cids: codecs.iter().map(|(cid, _)| (*cid).to_owned()).collect(),
            codecs: codecs.iter().map(owned).collect(),
            is_screen: false,
            sizes: Vec::new(),
            without_red: false,
        }
    }

    const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 9 98 99 100\r\na=msid:- cam\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:97 rtx/90000\r\na=rtpmap:9 H264/90000\r\na=rtpmap:98 VP9/90000\r\n\
        a=rtpmap:99 rtx/90000\r\na=rtpmap:100 VP9/90000\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 98 96\r\na=msid:- more\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:98 VP9/90000\r\n";

    #[test]
    fn what_was_announced_comes_first_on_its_m_line_and_nothing_else_changes() {
        let types = ["96 97 9 98 99 100", "98 96"];
        for (codecs, now) in [
            (
                &[("cam", "vp9"), ("more", "vp8")][..],
                ["98 100 96 97 9 99", "96 98"],
            ),
            (&[("cam", "h264")], ["9 96 97 98 99 100", types[1]]),
            (&[("cam", "VP8"), ("another", "vp9")], types),
            (&[("cam", "av1"), ("more", "")], types),
            (&[], types),
        ] {
            let mut is = OFFER.to_owned();
            for (before, after) in types.iter().zip(now) {
                is = is.replacen(&format!("SAVPF {before}\r"), &format!("SAVPF {after}\r"), 1);
            }
            assert_eq!(prefer(OFFER, &[announced(codecs)]), is, "{codecs:?}");
        }
        // Of an id that was announced twice the newer one.
        let both = [announced(&[("cam", "h264")]), announced(&[("cam", "vp9")])];
        assert!(prefer(OFFER, &both).contains("SAVPF 98 100 96"));
    }

    #[test]
    fn what_is_no_sdp_passes() {
        let all = [announced(&[("cam", "vp9")])];
        for text in [
            "",
            "m=",
            "m=video ",
            "m=video 9\na=msid:- cam\na=rtpmap:",
            "\n\nm=video 9 x 1\na=msid:- cam\n",
        ] {
            assert_eq!(prefer(text, &all), text);
        }
    }
}
