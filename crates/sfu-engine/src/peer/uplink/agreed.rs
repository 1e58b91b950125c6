// SPDX-License-Identifier: MPL-2.0

//! What a publisher's offer and our answer agree on, as far as a receiver needs it (RFC 8829, RFC 3264).
//!
//! The seam between SDP and the receive path: [`Agreed`] is all that the [`uplink`](super) knows of an offer. For now it is
//! read from the texts that `str0m` negotiated.

use std::net::SocketAddr;

use crate::codec::{Codec, TrackKind, VIDEO_CODECS};
use crate::ids::NameError;
use crate::transport::lean::{self, agreed::value};
use crate::transport::negotiate::{OfferError, PublisherTracks};

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    /// How the peers find and know each other: candidates, ICE credentials, fingerprint, DTLS role. It has no formats.
    pub(crate) connection: lean::Agreed,
    /// What is received, in the offer's order.
    pub(crate) medias: Vec<Media>,
}

/// An m-line that is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    /// Its name, of any length.
    pub(crate) mid: String,
    pub(crate) kind: TrackKind,
    /// In the order of the answer.
    pub(crate) formats: Vec<Format>,
    /// What the offer says of SSRCs (RFC 5576). May be empty, and wrong.
    pub(crate) sources: Vec<Source>,
    /// Simulcast layers that were agreed on (RFC 8851, RFC 8853), as the offer lists them. Empty where there are none.
    pub(crate) rids: Vec<String>,
    pub(crate) extensions: Extensions,
}

/// A codec that may come, and under which payload types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codec: Codec,
    pub(crate) pt: u8,
    /// Its retransmissions (RFC 4588).
    pub(crate) rtx: Option<u8>,
    /// The same with redundancy (RED, RFC 2198).
    pub(crate) red: Option<u8>,
    pub(crate) feedback: Feedback,
}

/// The feedback that both sides named for a format (RFC 4585, section 4.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Feedback {
    pub(crate) nack: bool,
    pub(crate) pli: bool,
    pub(crate) fir: bool,
    /// `transport-cc`.
    pub(crate) twcc: bool,
    /// `goog-remb`.
    pub(crate) remb: bool,
}

/// A stream that the offer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    /// Its retransmissions' (`a=ssrc-group:FID`).
    pub(crate) rtx: Option<u32>,
    pub(crate) cname: Option<String>,
}

/// The header extensions of an m-line, by their number: 1 to 14, or to 255 with headers of two octets (RFC 8285).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    /// The m-line's name (RFC 9143).
    pub(crate) mid: Option<u8>,
    /// The layer's name (RFC 8852), and that of the layer that is repaired.
    pub(crate) rid: Option<u8>,
    pub(crate) repaired_rid: Option<u8>,
    /// The transport-wide number by which arrivals are reported.
    pub(crate) twcc: Option<u8>,
    pub(crate) abs_send_time: Option<u8>,
    /// How loud it is (RFC 6464).
    pub(crate) audio_level: Option<u8>,
}

impl Agreed {
    /// Reads what an offer and its answer have in common, m-line by m-line.
    pub(crate) fn read(
        offer: &str,
        answer: &str,
        local: &[SocketAddr],
    ) -> Result<Self, OfferError> {
        let connection = lean::Agreed::read(offer, answer, &[], local)?;
        let both = sections(offer).zip(sections(answer));
        let medias = both.filter_map(|(offered, answered)| Media::read(offered, answered));
        Ok(Self {
            connection,
            medias: medias.collect(),
        })
    }

    /// What the stream is going to have: of the first m-line of each kind the codec and the layers.
    pub(crate) fn tracks(&self) -> Result<PublisherTracks, OfferError> {
        let first = |kind| {
            self.medias
                .iter()
                .find(|m| m.kind == kind && !m.formats.is_empty())
        };
        let codec = |media: &Media| media.formats.first().map(|f| f.codec);
        let layers = |media: &Media| {
            if media.rids.is_empty() {
                return Ok(vec![None]);
            }
            let named = media.rids.iter().map(|rid| rid.parse().map(Some));
            named.collect::<Result<Vec<_>, NameError>>()
        };
        let video = first(TrackKind::Video);
        let layers = video.map(layers).transpose();
        let layers = layers.map_err(|e| OfferError::Invalid(e.to_string()))?;
        Ok(PublisherTracks {
            video: video.and_then(codec).zip(layers),
            audio: first(TrackKind::Audio).and_then(codec),
        })
    }

    /// Whether arrivals are reported (TWCC).
    pub(crate) fn reports_arrivals(&self) -> bool {
        let is_told =
            |m: &Media| m.extensions.twcc.is_some() && m.formats.iter().any(|f| f.feedback.twcc);
        self.medias.iter().any(is_told)
    }
}

impl Media {
    fn read(offered: &str, answered: &str) -> Option<Self> {
        let mut m_line = answered.lines().next()?.split_whitespace();
        let kind = match m_line.next()? {
            "m=audio" => TrackKind::Audio,
            "m=video" => TrackKind::Video,
            _ => return None,
        };
        let is_rejected = m_line.next()? == "0";
        let receives = answered
            .lines()
            .any(|l| matches!(l.trim(), "a=recvonly" | "a=sendrecv"));
        if is_rejected || !receives {
            return None;
        }
        let pts = m_line.skip(1).filter_map(|pt| pt.parse().ok());
        let formats = pts.filter_map(|pt| Format::read(offered, answered, pt));
        Some(Self {
            mid: value(answered, "a=mid:").unwrap_or_default().to_owned(),
            kind,
            formats: formats.filter(|f| f.codec.kind() == kind).collect(),
            sources: Source::read(offered),
            rids: rids(answered),
            extensions: Extensions::read(answered),
        })
    }
}

impl Format {
    fn read(offered: &str, answered: &str, pt: u8) -> Option<Self> {
        let maps = |line: &'_ str| -> Option<(u8, String)> {
            let (pt, map) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
            let name = map.trim().split('/').next()?;
            Some((pt.parse().ok()?, name.to_ascii_uppercase()))
        };
        let name = |wanted: u8| {
            let mut all = answered.lines().filter_map(maps);
            all.find(|(pt, _)| *pt == wanted).map(|(_, name)| name)
        };
        let parameters = |line: &str| -> Option<(u8, String)> {
            let (pt, parameters) = line.strip_prefix("a=fmtp:")?.split_once(' ')?;
            Some((pt.parse().ok()?, parameters.trim().to_owned()))
        };
        // What repeats it: `apt=` of its payload type, and RED whose first block has it.
        let companion = |encoding: &str, is_of: &dyn Fn(&str) -> bool| {
            let mut all = answered.lines().filter_map(parameters);
            all.find(|(pt, text)| is_of(text) && name(*pt).as_deref() == Some(encoding))
                .map(|(pt, _)| pt)
        };
        let own = name(pt)?;
        let mut known = VIDEO_CODECS.into_iter().chain([Codec::Opus]);
        let codec = known.find(|c| c.name().eq_ignore_ascii_case(&own))?;
        let is_apt = |text: &str| {
            let mut all = text.split(';').map(str::trim);
            all.any(|p| p.strip_prefix("apt=").and_then(|apt| apt.parse().ok()) == Some(pt))
        };
        let is_red = |text: &str| text.split('/').next().and_then(|p| p.parse().ok()) == Some(pt);
        Some(Self {
            codec,
            pt,
            rtx: companion("RTX", &is_apt),
            red: companion("RED", &is_red),
            feedback: Feedback::read(offered, pt).and(Feedback::read(answered, pt)),
        })
    }
}

impl Feedback {
    fn read(section: &str, wanted: u8) -> Self {
        let mut found = Self::default();
        for line in section.lines() {
            let Some((pt, kind)) = line
                .strip_prefix("a=rtcp-fb:")
                .and_then(|line| line.trim().split_once(' '))
            else {
                continue;
            };
            if pt != "*" && pt.parse() != Ok(wanted) {
                continue;
            }
            match kind.trim() {
                "nack" => found.nack = true,
                "nack pli" => found.pli = true,
                "ccm fir" => found.fir = true,
                "transport-cc" => found.twcc = true,
                "goog-remb" => found.remb = true,
                _ => {}
            }
        }
        found
    }

    fn and(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            twcc: self.twcc && other.twcc,
            remb: self.remb && other.remb,
        }
    }
}

impl Source {
    /// No more than this of an m-line: the layers of any real publisher, and as many that it had before.
    const MOST: usize = 64;

    fn read(offered: &str) -> Vec<Self> {
        let mut sources: Vec<Self> = Vec::new();
        for line in offered.lines() {
            let Some((ssrc, attribute)) = line
                .strip_prefix("a=ssrc:")
                .and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let Ok(ssrc) = ssrc.parse() else {
                continue;
            };
            let cname = attribute.trim().strip_prefix("cname:").map(str::to_owned);
            let is_full = sources.len() >= Self::MOST;
            match sources.iter_mut().find(|s| s.ssrc == ssrc) {
                Some(known) => known.cname = known.cname.take().or(cname),
                None if !is_full => sources.push(Self {
                    ssrc,
                    rtx: None,
                    cname,
                }),
                None => {}
            }
        }
        for group in offered
            .lines()
            .filter_map(|l| l.strip_prefix("a=ssrc-group:FID "))
        {
            let mut pair = group.split_whitespace().map(str::parse::<u32>);
            let (Some(Ok(ssrc)), Some(Ok(rtx))) = (pair.next(), pair.next()) else {
                continue;
            };
            if let Some(source) = sources.iter_mut().find(|s| s.ssrc == ssrc) {
                source.rtx = Some(rtx);
                sources.retain(|s| s.ssrc != rtx);
            }
        }
        sources
    }
}

impl Extensions {
    fn read(answered: &str) -> Self {
        let mut found = Self::default();
        for line in answered.lines() {
            let Some((id, rest)) = line
                .strip_prefix("a=extmap:")
                .and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let id = id.split('/').next().and_then(|id| id.parse().ok());
            let place = match rest.split_whitespace().next() {
                Some("urn:ietf:params:rtp-hdrext:sdes:mid") => &mut found.mid,
                Some("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id") => &mut found.rid,
                Some("urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id") => {
                    &mut found.repaired_rid
                }
                Some(
                    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
                ) => &mut found.twcc,
                Some("http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time") => {
                    &mut found.abs_send_time
                }
                Some("urn:ietf:params:rtp-hdrext:ssrc-audio-level") => &mut found.audio_level,
                _ => continue,
            };
            *place = id.filter(|id| *id != 0);
        }
        found
    }
}

/// The layers that the answer takes: those of its `a=simulcast` line, of alternatives the first, paused or not.
fn rids(answered: &str) -> Vec<String> {
    let Some(simulcast) = value(answered, "a=simulcast:") else {
        return Vec::new();
    };
    let mut words = simulcast.split_whitespace();
    let Some(layers) = words.find(|w| *w == "recv").and_then(|_| words.next()) else {
        return Vec::new();
    };
    let first = layers.split(';').filter_map(|l| l.split(',').next());
    first
        .map(|rid| rid.trim_start_matches('~').to_owned())
        .collect()
}

/// The m-lines, each with all that belongs to it.
fn sections(sdp: &str) -> impl Iterator<Item = &str> {
    let starts = sdp.match_indices("\nm=").map(|(at, _)| at + 1);
    let ends = sdp
        .match_indices("\nm=")
        .map(|(at, _)| at + 1)
        .skip(1)
        .chain([sdp.len()]);
    starts.zip(ends).map(|(start, end)| &sdp[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    const HEAD: &str = "v=0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 0A\r\n";

    fn sdp(sections: &[&str]) -> String {
        let sections = sections.concat().replace('\n', "\r\n");
        format!("{HEAD}{sections}")
    }

    #[test]
    fn what_both_sides_say_is_read_line_by_line() {
        let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\na=mid:0\na=rtpmap:111 opus/48000/2\n\
            a=rtpmap:63 red/48000/2\na=fmtp:63 111/111\na=rtcp-fb:111 transport-cc\n\
            a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\na=ssrc:5 cname:me\n";
        let unknown = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:data\n";
        let video = format!(
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98\na=mid:a-name-longer-than-sixteen\n\
             a=rtpmap:96 H264/90000\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\na=rtpmap:98 VP8/90000\n\
             a=rtcp-fb:96 nack\na=rtcp-fb:* nack pli\na=rtcp-fb:96 ccm fir\na=rtcp-fb:96 transport-cc\n\
             a=rtcp-fb:96 goog-remb\na=extmap:3 {TWCC}\na=extmap:4/sendonly urn:ietf:params:rtp-hdrext:sdes:mid\n\
             a=extmap:200 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\n"
        );
        let offered = format!(
            "{video}a=ssrc-group:FID 7 8\na=ssrc:7 cname:me\na=ssrc:7 msid:a b\na=ssrc:8 cname:me\n\
             a=simulcast:send hi,~h2;lo\n"
        );
        let answered = video.replace("a=rtcp-fb:96 goog-remb\n", "");
        let answered = format!("{answered}a=recvonly\na=simulcast:recv hi,h2;~lo\n");
        let rejected = unknown.replace(" 9 ", " 0 ");
        let answered_audio = format!("{audio}a=recvonly\n");
        let offer = sdp(&[audio, unknown, &offered]);
        let answer = sdp(&[&answered_audio, &rejected, &answered]);
        let agreed = Agreed::read(&offer, &answer, &[]).unwrap();
        assert!(agreed.reports_arrivals());
        let [sound, pictures] = &agreed.medias[..] else {
            panic!("two m-lines: {agreed:?}");
        };
        let [opus] = sound.formats[..] else {
            panic!("{sound:?}");
        };
        assert_eq!((opus.pt, opus.red, opus.rtx), (111, Some(63), None));
        assert_eq!(sound.extensions.audio_level, Some(1));
        assert_eq!(pictures.mid, "a-name-longer-than-sixteen");
        assert_eq!(pictures.rids, ["hi", "lo"]);
        let [h264, vp8] = pictures.formats[..] else {
            panic!("{pictures:?}");
        };
        assert_eq!((h264.codec, h264.rtx), (Codec::H264, Some(97)));
        assert_eq!((vp8.codec, vp8.rtx), (Codec::Vp8, None));
        let all = Feedback {
            nack: true,
            pli: true,
            fir: true,
            twcc: true,
            remb: false,
        };
        assert_eq!(h264.feedback, all);
        let pli = Feedback {
            pli: true,
            ..Feedback::default()
        };
        assert_eq!(vp8.feedback, pli);
        let source = Source {
            ssrc: 7,
            rtx: Some(8),
            cname: Some("me".into()),
        };
        assert_eq!(pictures.sources, [source]);
        let extensions = Extensions {
            mid: Some(4),
            rid: Some(200),
            twcc: Some(3),
            ..Extensions::default()
        };
        assert_eq!(pictures.extensions, extensions);
    }

    #[test]
    fn m_lines_that_are_not_received_are_left_out() {
        let line = |port: u16, direction: &str| {
            format!(
                "m=audio {port} UDP/TLS/RTP/SAVPF 111\na=mid:0\na=rtpmap:111 opus/48000/2\n{direction}\n"
            )
        };
        for (port, direction, received) in [
            (9, "a=recvonly", 1),
            (9, "a=sendrecv", 1),
            (9, "a=sendonly", 0),
            (9, "a=inactive", 0),
            (0, "a=recvonly", 0),
        ] {
            let offer = sdp(&[&line(9, "a=sendrecv")]);
            let answer = sdp(&[&line(port, direction)]);
            let agreed = Agreed::read(&offer, &answer, &[]).unwrap();
            assert_eq!(agreed.medias.len(), received, "{port} {direction}");
        }
    }
}
