// SPDX-License-Identifier: MPL-2.0

//! What offer and answer agree on, as far as a sender needs it: read from the texts that `str0m` negotiated (RFC 8829).
//!
//! `str0m` does SDP; the session that it makes beside is thrown away, and this is what remains of it.

use std::net::SocketAddr;

use is::{Candidate, IceCreds};

use super::super::negotiate::{Negotiated, OfferError};
use crate::codec::{Codec, TrackKind};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const TWCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
const CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";

/// The header extensions of an m-line, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    /// The m-line's name (RFC 8843).
    pub(crate) mid: Option<u8>,
    /// The transport-wide number by which arrivals are reported.
    pub(crate) twcc: Option<u8>,
    /// How long the peer may keep pictures back.
    pub(crate) playout_delay: Option<u8>,
    /// When the media was captured.
    pub(crate) capture_time: Option<u8>,
}

/// A codec that may be sent, and under which numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codec: Codec,
    pub(crate) pt: u8,
    /// The same with redundancy (RED).
    pub(crate) red: Option<u8>,
    /// Its retransmissions (RFC 4588).
    pub(crate) rtx: Option<u8>,
    pub(crate) mid: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) cname: String,
    pub(crate) extensions: Extensions,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) local: IceCreds,
    pub(crate) remote: IceCreds,
    /// Our addresses.
    pub(crate) candidates: Vec<Candidate>,
    /// The name of the first m-line.
    pub(crate) mid: String,
    /// SHA-256 of the peer's certificate.
    pub(crate) fingerprint: Vec<u8>,
    /// We begin the DTLS handshake.
    pub(crate) is_client: bool,
    pub(crate) formats: Vec<Format>,
    /// The peer sends PLI or FIR for its video when it can't decode.
    pub(crate) asks_for_keyframes: bool,
}

impl Agreed {
    pub(crate) fn read(
        offer: &str,
        answer: &str,
        negotiated: &[Negotiated],
        local: &[SocketAddr],
    ) -> Result<Self, OfferError> {
        let lacks = |what: &str| OfferError::Invalid(format!("it has no usable {what} line"));
        let credentials = |sdp: &str| {
            Some(IceCreds {
                ufrag: value(sdp, "a=ice-ufrag:")?.to_owned(),
                pass: value(sdp, "a=ice-pwd:")?.to_owned(),
            })
        };
        let candidates = local
            .iter()
            .filter_map(|addr| Candidate::host(*addr, "udp").ok());
        let fingerprint = value(offer, "a=fingerprint:sha-256 ")
            .or_else(|| value(offer, "a=fingerprint:SHA-256 "))
            .and_then(octets);
        let formats = negotiated.iter().filter_map(|n| Format::read(answer, n));
        let mut video = negotiated
            .iter()
            .filter(|n| n.codec.kind() == TrackKind::Video);
        Ok(Self {
            local: credentials(answer).ok_or_else(|| lacks("a=ice-ufrag"))?,
            remote: credentials(offer).ok_or_else(|| lacks("a=ice-ufrag or a=ice-pwd"))?,
            candidates: candidates.collect(),
            mid: value(answer, "a=mid:").unwrap_or_default().to_owned(),
            fingerprint: fingerprint.ok_or_else(|| lacks("a=fingerprint:sha-256"))?,
            is_client: value(answer, "a=setup:") == Some("active"),
            formats: formats.collect(),
            asks_for_keyframes: video.any(|n| asks_for_keyframes(offer, n)),
        })
    }
}

impl Format {
    fn read(answer: &str, negotiated: &Negotiated) -> Option<Self> {
        let mid = negotiated.mid.to_string();
        let section = section(answer, mid.trim())?;
        let pt = *negotiated.pt;
        let rtx = section.lines().find_map(|line| {
            let (rtx, parameters) = line.strip_prefix("a=fmtp:")?.split_once(' ')?;
            let apt = parameters.trim().strip_prefix("apt=")?.parse::<u8>();
            (apt == Ok(pt)).then(|| rtx.parse().ok())?
        });
        let first = value(section, "a=ssrc:")?;
        let (ssrc, cname) = first.split_once(" cname:")?;
        let group = value(section, "a=ssrc-group:FID ");
        let rtx_ssrc = group.and_then(|group| group.split_whitespace().nth(1)?.parse().ok());
        let extension = |uri: &str| {
            section.lines().find_map(|line| {
                let (id, name) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
                let id = id.split('/').next()?.parse().ok()?;
                // More than 14 would need headers of two octets each (RFC 8285).
                (name.trim() == uri && (1..=14).contains(&id)).then_some(id)
            })
        };
        Some(Self {
            codec: negotiated.codec,
            pt,
            red: negotiated.red.map(|pt| *pt),
            rtx: rtx.filter(|_| rtx_ssrc.is_some()),
            ssrc: ssrc.parse().ok()?,
            rtx_ssrc,
            cname: cname.trim().to_owned(),
            extensions: Extensions {
                mid: extension(MID).filter(|_| mid.trim().len() <= 16),
                twcc: extension(TWCC),
                playout_delay: extension(PLAYOUT_DELAY),
                capture_time: extension(CAPTURE_TIME),
            },
            mid: mid.trim().to_owned(),
        })
    }
}

/// Whether the peer has offered to ask for keyframes of a format (RFC 4585, section 4.2; RFC 5104, section 7.1).
fn asks_for_keyframes(offer: &str, negotiated: &Negotiated) -> bool {
    let mid = negotiated.mid.to_string();
    let Some(section) = section(offer, mid.trim()) else {
        return false;
    };
    section.lines().any(|line| {
        let feedback = line
            .strip_prefix("a=rtcp-fb:")
            .and_then(|f| f.trim().split_once(' '));
        feedback.is_some_and(|(pt, kind)| {
            let is_ours = pt == "*" || pt.parse() == Ok(*negotiated.pt);
            is_ours && matches!(kind.trim(), "nack pli" | "ccm fir")
        })
    })
}

/// The rest of the first line that begins like this.
pub(crate) fn value<'a>(sdp: &'a str, key: &str) -> Option<&'a str> {
    sdp.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

/// The m-line of this name with all that belongs to it.
fn section<'a>(sdp: &'a str, mid: &str) -> Option<&'a str> {
    let mut starts = sdp.match_indices("\nm=").map(|(at, _)| at + 1).peekable();
    while let Some(start) = starts.next() {
        let end = starts.peek().copied().unwrap_or(sdp.len());
        let section = &sdp[start..end];
        if value(section, "a=mid:") == Some(mid) {
            return Some(section);
        }
    }
    None
}

/// `0A:FF` and so on.
fn octets(text: &str) -> Option<Vec<u8>> {
    text.split(':')
        .map(|octet| u8::from_str_radix(octet, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 98\r\na=ice-ufrag:us\r\n\
        a=ice-pwd:secret\r\na=setup:passive\r\na=mid:v\r\n\
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
        a=extmap:6/sendonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n\
        a=extmap:12 http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time\r\n\
        a=fmtp:97 level-asymmetry-allowed=1\r\na=fmtp:98 apt=97\r\na=ssrc:7 cname:me\r\na=ssrc:8 cname:me\r\n\
        a=ssrc-group:FID 7 8\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=ssrc:9 cname:me\r\n";
    const OFFER: &str =
        "v=0\r\na=ice-ufrag:them\r\na=ice-pwd:hidden\r\na=fingerprint:sha-256 0A:fF\r\n";

    fn negotiated(codec: Codec, mid: &str, pt: u8) -> Negotiated {
        Negotiated {
            codec,
            mid: mid.into(),
            pt: pt.into(),
            red: None,
        }
    }

    #[test]
    fn numbers_are_read_from_the_m_line_that_they_belong_to() {
        let both = [
            negotiated(Codec::H264, "v", 97),
            negotiated(Codec::Opus, "a", 111),
        ];
        let local = ["192.0.2.1:8189".parse().unwrap()];
        let agreed = Agreed::read(OFFER, ANSWER, &both, &local).unwrap();
        assert_eq!(
            (agreed.local.ufrag.as_str(), agreed.is_client),
            ("us", false)
        );
        assert_eq!(agreed.remote.pass, "hidden");
        assert_eq!(agreed.fingerprint, [0x0a, 0xff]);
        let [video, audio] = &agreed.formats[..] else {
            panic!("two formats: {agreed:?}");
        };
        assert_eq!(
            (video.ssrc, video.rtx_ssrc, video.rtx),
            (7, Some(8), Some(98))
        );
        assert_eq!(
            (video.extensions.mid, video.extensions.twcc),
            (Some(4), Some(3))
        );
        assert_eq!(
            (
                video.extensions.playout_delay,
                video.extensions.capture_time
            ),
            (Some(6), Some(12))
        );
        assert_eq!(
            (audio.ssrc, audio.rtx, audio.extensions),
            (9, None, Extensions::default())
        );
        assert_eq!(video.cname, "me");
    }

    #[test]
    fn who_asks_for_keyframes_is_read_from_the_offer() {
        let video = negotiated(Codec::H264, "v", 97);
        for (lines, asks) in [
            ("a=rtcp-fb:97 nack pli\r\n", true),
            ("a=rtcp-fb:97 ccm fir\r\n", true),
            ("a=rtcp-fb:* nack pli\r\n", true),
            ("a=rtcp-fb:97 nack\r\n", false),
            ("a=rtcp-fb:98 nack pli\r\n", false),
            ("", false),
        ] {
            let offer = format!(
                "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 97\r\na=mid:a\r\na=rtcp-fb:97 nack pli\r\n\
                 m=video 9 UDP/TLS/RTP/SAVPF 97 98\r\na=mid:v\r\n{lines}"
            );
            assert_eq!(asks_for_keyframes(&offer, &video), asks, "{lines}");
        }
    }

    #[test]
    fn an_offer_without_a_fingerprint_is_refused() {
        let offer = "v=0\r\na=ice-ufrag:them\r\na=ice-pwd:hidden\r\na=fingerprint:sha-1 0A\r\n";
        let error = Agreed::read(offer, ANSWER, &[], &[]).unwrap_err();
        assert!(error.to_string().contains("fingerprint"), "{error}");
    }
}
