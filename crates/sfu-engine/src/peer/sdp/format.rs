// SPDX-License-Identifier: MPL-2.0

//! The payload types of an m-line: encoding, parameters and feedback (RFC 8866, section 6.6 and 6.15; RFC 4585).

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use super::super::uplink::agreed::Feedback;
use super::error::shown;
use super::lines::word;
use crate::codec::profile::H264Profile;
use crate::codec::{Codec, VIDEO_CODECS};

/// Payload types that can't be told from RTCP on one port (RFC 5761, section 4).
const RTCP: std::ops::RangeInclusive<u8> = 64..=95;

/// What needs no `a=rtpmap` (RFC 3551, section 6).
const STATIC: [(u8, &str); 14] = [
    (0, "PCMU"),
    (3, "GSM"),
    (4, "G723"),
    (5, "DVI4"),
    (7, "LPC"),
    (8, "PCMA"),
    (9, "G722"),
    (10, "L16"),
    (14, "MPA"),
    (15, "G728"),
    (18, "G729"),
    (26, "JPEG"),
    (31, "H261"),
    (34, "H263"),
];
/// What is no codec by itself.
const HELPERS: [&str; 6] = [
    "rtx",
    "red",
    "ulpfec",
    "flexfec-03",
    "CN",
    "telephone-event",
];

/// Parameter sets of an offer, and characters of one, that are kept: encoders tell two or three, of 10 to 60 octets.
const MOST_SETS: usize = 4;
const LONGEST_SET: usize = 268;

/// What comes under a payload type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One that we forward, with parameters that fit.
    Known(Codec),
    /// Retransmissions (RFC 4588).
    Rtx,
    /// Redundancy (RFC 2198).
    Red,
    #[default]
    Other,
}

/// One payload type.
#[derive(Debug, Clone, Default)]
pub(super) struct Format<'a> {
    /// Below 128.
    pub(super) pt: u8,
    /// As it stands in `a=rtpmap`, such as `H264/90000`.
    pub(super) map: &'a str,
    parameters: Vec<&'a str>,
    pub(super) feedback: Feedback,
    pub(super) encoding: Encoding,
    /// The payload type that it repeats, of retransmissions and redundancy.
    repeats: Option<u8>,
}

/// All of an m-line, in its order.
#[derive(Debug, Clone, Default)]
pub(super) struct Formats<'a> {
    list: Vec<Format<'a>>,
    /// Of all payload types (`*`).
    feedback: Feedback,
}

impl<'a> Formats<'a> {
    /// Of the m-line's payload types; what is none is passed over.
    pub(super) fn new(words: &'a str) -> Self {
        let mut seen = [false; 128];
        let mut list = Vec::new();
        for pt in words.split_ascii_whitespace() {
            let Some(pt) = pt.parse::<u8>().ok().filter(|pt| *pt < 128) else {
                continue;
            };
            if !std::mem::replace(&mut seen[usize::from(pt)], true) {
                list.push(Format {
                    pt,
                    ..Format::default()
                });
            }
        }
        Self {
            list,
            feedback: Feedback::default(),
        }
    }

    /// Takes an attribute in. `false`: it is no such one.
    pub(super) fn read(&mut self, name: &str, value: &'a str) -> bool {
        if !matches!(name, "rtpmap" | "fmtp" | "rtcp-fb") {
            return false;
        }
        let (pt, rest) = word(value);
        if name == "rtcp-fb" && pt == "*" {
            add_feedback(&mut self.feedback, rest);
            return true;
        }
        let format = pt.parse().ok().and_then(|pt| self.get_mut(pt));
        if let Some(format) = format {
            match name {
                "rtpmap" if format.map.is_empty() => format.map = rest,
                "fmtp" => format.parameters.push(rest),
                "rtcp-fb" => add_feedback(&mut format.feedback, rest),
                _ => {}
            }
        }
        true
    }

    /// At most [`FORMATS`](super::FORMATS) are looked at.
    fn get_mut(&mut self, pt: u8) -> Option<&mut Format<'a>> {
        self.list.iter_mut().find(|f| f.pt == pt)
    }

    /// All have been read: what was said of all payload types is said of each, and each is what its parameters make it.
    pub(super) fn finish(&mut self) {
        let all = self.feedback;
        for format in &mut self.list {
            let own = &mut format.feedback;
            *own = Feedback {
                nack: own.nack || all.nack,
                pli: own.pli || all.pli,
                fir: own.fir || all.fir,
                twcc: own.twcc || all.twcc,
                remb: own.remb || all.remb,
            };
            format.encoding = format.read_encoding();
            format.repeats = format.read_repeated();
        }
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Format<'a>> {
        self.list.iter()
    }

    /// The retransmissions of a payload type, or the same with redundancy.
    pub(super) fn repeating(&self, pt: u8, encoding: Encoding) -> Option<&Format<'a>> {
        let mut all = self.list.iter();
        all.find(|f| f.encoding == encoding && f.repeats == Some(pt))
    }
}

impl Format<'_> {
    /// What it is, for a sentence that says why it is not taken.
    pub(super) fn named(&self) -> Option<String> {
        let name = self.map.split('/').next().unwrap_or_default().trim();
        if name.is_empty() {
            let known = STATIC.iter().find(|(pt, _)| *pt == self.pt);
            return known.map(|(_, name)| (*name).to_owned());
        }
        if HELPERS.iter().any(|h| h.eq_ignore_ascii_case(name)) {
            return None;
        }
        let is_plain = |text: &str| text.len() <= 20 && text.bytes().all(|b| b.is_ascii_graphic());
        let plain = |text: &str| match is_plain(text) {
            true => text.to_owned(),
            false => shown(text),
        };
        // One that is not taken for its clock rate or channels has them said.
        let is_ours = |codec: &&Codec| codec.name().eq_ignore_ascii_case(name);
        let ours = VIDEO_CODECS.iter().chain(&[Codec::Opus]).find(is_ours);
        let usual = ours.map(|codec| match codec {
            Codec::Opus => "opus/48000/2".to_owned(),
            codec => format!("{}/{}", codec.name(), codec.clock_rate()),
        });
        let said = match usual.is_some_and(|usual| !usual.eq_ignore_ascii_case(self.map.trim())) {
            true => plain(self.map),
            false => plain(name),
        };
        Some(match self.parameter("profile-level-id") {
            Some(id) => format!("{said} {}", plain(id)),
            None => said,
        })
    }

    /// The value of a parameter; names are told apart without case.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.parameters.iter().flat_map(|p| p.split(';'));
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(n, _)| n.trim().eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.parameter(name)?.parse().ok()
    }

    fn read_encoding(&self) -> Encoding {
        let mut parts = self.map.split('/').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let rate = parts.next().and_then(|rate| rate.parse::<u32>().ok());
        let channels = parts.next();
        if RTCP.contains(&self.pt) {
            return Encoding::Other;
        }
        if name.eq_ignore_ascii_case("rtx") {
            return Encoding::Rtx;
        }
        if name.eq_ignore_ascii_case("red") {
            return Encoding::Red;
        }
        let mut all = VIDEO_CODECS.into_iter().chain([Codec::Opus]);
        let codec = all.find(|c| c.name().eq_ignore_ascii_case(name));
        let codec = codec.filter(|c| rate == Some(c.clock_rate()));
        match codec.filter(|c| self.fits(*c, channels)) {
            Some(codec) => Encoding::Known(codec),
            None => Encoding::Other,
        }
    }

    fn read_repeated(&self) -> Option<u8> {
        match self.encoding {
            Encoding::Rtx => self.parameter("apt")?.parse().ok(),
            Encoding::Red => {
                // All of its blocks have one payload type.
                let mut blocks = self.parameters.first()?.split('/');
                let pt = blocks.next()?.trim().parse().ok()?;
                blocks.all(|b| b.trim().parse() == Ok(pt)).then_some(pt)
            }
            Encoding::Known(_) | Encoding::Other => None,
        }
    }

    /// Whether the parameters are of what is forwarded: 8 and 10 bits, 4:2:0, whole pictures in order, two channels.
    fn fits(&self, codec: Codec, channels: Option<&str>) -> bool {
        let profile =
            |name, most| self.parameter(name).is_none() || self.number(name) <= Some(most);
        match codec {
            // RFC 7587 says two, whatever is sent; `webrtcbin` says nothing.
            Codec::Opus => channels.is_none_or(|c| matches!(c, "1" | "2")),
            Codec::H264 => {
                // Interleaved pictures (2) would have to be put in order first.
                let mode = self.parameter("packetization-mode");
                self.profile().is_some() && mode.is_none_or(|m| matches!(m, "0" | "1"))
            }
            Codec::H265 => {
                let is_single = |mode: &str| mode.eq_ignore_ascii_case("SRST");
                let is_known = self
                    .parameter("profile-id")
                    .is_none_or(|p| matches!(p, "1" | "2"));
                is_known && self.parameter("tx-mode").is_none_or(is_single)
            }
            Codec::Vp9 => profile("profile-id", 3),
            Codec::Av1 => profile("profile", 2),
            Codec::Vp8 => true,
        }
    }

    /// The H.264 profile (RFC 6184, section 8.1); without a word it is baseline.
    pub(super) fn profile(&self) -> Option<H264Profile> {
        match self.parameter("profile-level-id") {
            Some(id) => H264Profile::parse(id),
            None => Some(H264Profile::Baseline),
        }
    }

    /// The parameter sets that it tells (RFC 6184, section 8.1; RFC 7798, section 7.1), in the order in which a decoder wants them.
    pub(super) fn parameter_sets(&self, codec: Codec) -> Vec<Box<[u8]>> {
        let names: &[&str] = match codec {
            Codec::H264 => &["sprop-parameter-sets"],
            Codec::H265 => &["sprop-vps", "sprop-sps", "sprop-pps"],
            _ => return Vec::new(),
        };
        let told = names.iter().filter_map(|name| self.parameter(name));
        let told = told.flat_map(|sets| sets.split(',')).take(MOST_SETS);
        let told = told.filter(|set| set.len() <= LONGEST_SET);
        // Some leave the padding out.
        let sets = told.filter_map(|set| BASE64.decode(set.trim().trim_end_matches('=')).ok());
        sets.map(Vec::into_boxed_slice).collect()
    }

    /// Single NAL units and fragments may be mixed (RFC 6184, section 6.3), as they are sent.
    pub(super) fn takes_fragments(&self) -> bool {
        self.parameter("packetization-mode") == Some("1")
    }

    /// What the answer says of it: as the offer does, where it binds both sides (RFC 6184, section 8.2.2, and its kin).
    pub(super) fn answered_parameters(&self, codec: Codec) -> String {
        let names: &[&str] = match codec {
            Codec::H264 => &[
                "level-asymmetry-allowed",
                "packetization-mode",
                "profile-level-id",
            ],
            Codec::H265 => &["level-id", "profile-id", "tier-flag", "tx-mode"],
            Codec::Vp9 => &["profile-id"],
            Codec::Av1 => &["level-idx", "profile", "tier"],
            Codec::Vp8 => &[],
            Codec::Opus => &[
                "stereo",
                "sprop-stereo",
                "usedtx",
                "maxaveragebitrate",
                "cbr",
            ],
        };
        let mut out = String::new();
        if codec == Codec::Opus {
            out.push_str("minptime=10;useinbandfec=1");
        }
        for name in names {
            let value = self.parameter(name).filter(|v| v.len() <= 32);
            if let Some(value) = value {
                let separator = if out.is_empty() { "" } else { ";" };
                out.extend([separator, name, "=", value]);
            }
        }
        out
    }
}

fn add_feedback(feedback: &mut Feedback, kind: &str) {
    let mut words = kind.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("nack"), None) => feedback.nack = true,
        (Some("nack"), Some("pli")) => feedback.pli = true,
        (Some("ccm"), Some("fir")) => feedback.fir = true,
        (Some("transport-cc"), _) => feedback.twcc = true,
        (Some("goog-remb"), _) => feedback.remb = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(map: &'a str, parameters: &'a str) -> Format<'a> {
        Format {
            pt: 96,
            map,
            parameters: vec![parameters],
            ..Format::default()
        }
    }

    #[test]
    fn encodings_are_known_with_their_parameters() {
        let h264 = Encoding::Known(Codec::H264);
        for (map, parameters, expected) in [
            ("H264/90000", "", h264),
            ("h264/90000", "packetization-mode=1", h264),
            (
                "H264/90000",
                "Profile-Level-ID = 42E01F ; packetization-mode = 1;",
                h264,
            ),
            ("H264/90000", "profile-level-id=640c1f", h264),
            ("H264/90000", "profile-level-id=f4001f", Encoding::Other),
            ("H264/90000", "profile-level-id=7a001f", Encoding::Other),
            ("H264/90000", "profile-level-id=+4001f", Encoding::Other),
            ("H264/90000", "packetization-mode=2", Encoding::Other),
            ("H264/48000", "", Encoding::Other),
            ("vp8/90000", "max-fr=30", Encoding::Known(Codec::Vp8)),
            ("VP9/90000", "profile-id=0", Encoding::Known(Codec::Vp9)),
            ("VP9/90000", "profile-id=7", Encoding::Other),
            (
                "AV1/90000",
                "level-idx=5;profile=0;tier=0",
                Encoding::Known(Codec::Av1),
            ),
            (
                "H265/90000",
                "profile-id=2;tx-mode=SRST",
                Encoding::Known(Codec::H265),
            ),
            ("H265/90000", "profile-id=4", Encoding::Other),
            ("H265/90000", "tx-mode=MRST", Encoding::Other),
            ("OPUS/48000/2", "", Encoding::Known(Codec::Opus)),
            ("opus/48000", "", Encoding::Known(Codec::Opus)),
            ("opus/48000/6", "", Encoding::Other),
            ("multiopus/48000/6", "", Encoding::Other),
            ("RTX/90000", "apt=97", Encoding::Rtx),
            ("red/48000/2", "111/111", Encoding::Red),
            ("", "", Encoding::Other),
        ] {
            assert_eq!(
                of(map, parameters).read_encoding(),
                expected,
                "{map} {parameters}"
            );
        }
    }

    #[test]
    fn what_is_not_taken_has_its_name_and_what_is_unusual() {
        for (pt, map, parameters, expected) in [
            (96, "H264/90000", "", Some("H264")),
            (
                96,
                "h264/90000",
                "profile-level-id=f4001f",
                Some("h264 f4001f"),
            ),
            (
                96,
                "H264/90000",
                "profile-level-id=\"x\"",
                Some("H264 \"x\""),
            ),
            (96, "H264", "", Some("H264")),
            (96, "H264/48000", "", Some("H264/48000")),
            (111, "opus/24000/2", "", Some("opus/24000/2")),
            (111, "multiopus/48000/6", "", Some("multiopus")),
            (0, "", "", Some("PCMU")),
            (0, "PCMU/8000", "", Some("PCMU")),
            (97, "", "", None),
            (97, "rtx/90000", "apt=96", None),
        ] {
            let format = Format {
                pt,
                ..of(map, parameters)
            };
            assert_eq!(format.named().as_deref(), expected, "{pt} {map}");
        }
    }

    #[test]
    fn payload_types_are_each_taken_once() {
        let formats = Formats::new("96 97 x 96 128 300 63");
        let pts: Vec<_> = formats.iter().map(|f| f.pt).collect();
        assert_eq!(pts, [96, 97, 63]);
    }

    #[test]
    fn feedback_of_all_is_that_of_each() {
        let mut formats = Formats::new("96 97");
        for (name, value) in [
            ("rtcp-fb", "* nack pli"),
            ("rtcp-fb", "96 nack"),
            ("rtcp-fb", "96  transport-cc "),
            ("rtcp-fb", "96 nack sli"),
            ("rtcp-fb", "98 ccm fir"),
            ("rtcp-fb", "97 trr-int 100"),
            ("rtcp-fb", "*"),
        ] {
            assert!(formats.read(name, value));
        }
        assert!(!formats.read("mid", "1"));
        formats.finish();
        let pli = Feedback {
            pli: true,
            ..Feedback::default()
        };
        let first = Feedback {
            nack: true,
            twcc: true,
            ..pli
        };
        let read: Vec<_> = formats.iter().map(|f| f.feedback).collect();
        assert_eq!(read, [first, pli]);
    }

    #[test]
    fn repairs_are_found_by_what_they_repair() {
        let mut formats = Formats::new("96 97 98 111 63 64");
        for (name, value) in [
            ("rtpmap", "96 H264/90000"),
            ("rtpmap", "97 rtx/90000"),
            ("fmtp", "97 rtx-time=3000; apt = 96"),
            ("rtpmap", "98 rtx/90000"),
            ("fmtp", "98 apt=99"),
            ("rtpmap", "111 opus/48000/2"),
            ("rtpmap", "63 red/48000/2"),
            ("fmtp", "63 111/111"),
        ] {
            assert!(formats.read(name, value));
        }
        formats.finish();
        let of = |pt, encoding| formats.repeating(pt, encoding).map(|f| f.pt);
        assert_eq!(of(96, Encoding::Rtx), Some(97));
        assert_eq!(of(111, Encoding::Rtx), None);
        assert_eq!(of(111, Encoding::Red), Some(63));
        assert_eq!(of(96, Encoding::Red), None);
    }

    #[test]
    fn parameter_sets_are_read_as_they_are_told() {
        let sets = |map, parameters| {
            let codec = if map == "H264/90000" {
                Codec::H264
            } else {
                Codec::H265
            };
            of(map, parameters).parameter_sets(codec)
        };
        let boxed =
            |sets: &[&[u8]]| -> Vec<Box<[u8]>> { sets.iter().map(|s| Box::from(*s)).collect() };
        let told = sets(
            "H264/90000",
            "packetization-mode=1; sprop-parameter-sets=Z0LADA==,aM4PyA==;x=y",
        );
        assert_eq!(
            told,
            boxed(&[&[0x67, 0x42, 0xc0, 0x0c], &[0x68, 0xce, 0x0f, 0xc8]])
        );
        let unpadded = sets("H264/90000", "sprop-parameter-sets=Z0LADA,%%%,");
        assert_eq!(unpadded, boxed(&[&[0x67, 0x42, 0xc0, 0x0c], &[]]));
        let told = sets("H265/90000", "sprop-sps=QgE=;sprop-vps=QAE=;sprop-pps=RAE=");
        assert_eq!(told, boxed(&[&[0x40, 1], &[0x42, 1], &[0x44, 1]]));
        let long = format!("sprop-parameter-sets={}", "A".repeat(LONGEST_SET + 1));
        assert!(sets("H264/90000", &long).is_empty());
        let many = format!("sprop-parameter-sets={}", "Z0LADA==,".repeat(50));
        assert_eq!(sets("H264/90000", &many).len(), MOST_SETS);
    }

    #[test]
    fn parameters_of_both_sides_are_answered() {
        let stereo = of(
            "opus/48000/2",
            "minptime=20;useinbandfec=1;stereo=1;sprop-stereo=1;x=y",
        );
        assert_eq!(
            stereo.answered_parameters(Codec::Opus),
            "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"
        );
        let h264 = of(
            "H264/90000",
            "sprop-parameter-sets=Z0;profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1",
        );
        assert_eq!(
            h264.answered_parameters(Codec::H264),
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
        );
        assert_eq!(
            of("VP8/90000", "max-fr=5").answered_parameters(Codec::Vp8),
            ""
        );
    }
}
