// SPDX-License-Identifier: MPL-2.0

//! Whose packet it is: m-line and layer, by what the packet says of itself, then by what the offer says of SSRCs, then by
//! the payload type (RFC 9143, section 9.2; RFC 8852). Called once for each packet that is authentic, and for no others.

use super::agreed::{AgreedTracks, Format, Media};
use super::packet::Extensions;

/// SSRCs that are remembered, as those of [`UnprotectRtp`](crate::srtp::UnprotectRtp): of all [`LAYERS_IN_ALL`] with their
/// retransmissions.
///
/// [`LAYERS_IN_ALL`]: crate::peer::sdp::LAYERS_IN_ALL
const KNOWN: usize = 64;

/// What is in a packet, by its payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Media(Format),
    /// With redundancy (RED).
    Redundant(Format),
    /// A packet that was sent before (RTX).
    Repair(Format),
    /// What nobody agreed on, such as comfort noise, under an SSRC that is known.
    Unknown,
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Its m-line, by its place among those that are received.
    pub(super) line: usize,
    pub(super) layer: usize,
    pub(super) content: Content,
    /// It is the first one of its SSRC here.
    pub(super) is_first: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    ssrc: u32,
    line: usize,
    layer: usize,
    /// When it was heard last, in packets of the session.
    heard: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Router {
    lines: Vec<Media>,
    known: Vec<Known>,
    packets: u64,
    /// SSRCs that had to make room for others.
    forgotten: u64,
}

impl Media {
    fn content(&self, pt: u8) -> Content {
        for format in &self.formats {
            if format.pt == pt {
                return Content::Media(*format);
            }
            if format.red == Some(pt) {
                return Content::Redundant(*format);
            }
            if format.rtx == Some(pt) {
                return Content::Repair(*format);
            }
        }
        Content::Unknown
    }

    fn names(&self, ssrc: u32) -> bool {
        let mut sources = self.sources.iter();
        sources.any(|s| s.ssrc == ssrc || s.rtx == Some(ssrc))
    }

    fn layer(&self, rid: &[u8]) -> Option<usize> {
        self.rids.iter().position(|r| r.as_bytes() == rid)
    }
}

impl Router {
    pub(super) fn new(tracks: AgreedTracks) -> Self {
        Self {
            lines: tracks.medias,
            known: Vec::new(),
            packets: 0,
            forgotten: 0,
        }
    }

    /// The m-lines that are received, or were.
    pub(super) fn lines(&self) -> &[Media] {
        &self.lines
    }

    /// Others are received from now on. Returns for each m-line which one it was before, if it goes on as that.
    ///
    /// One that has stopped is remembered: when it begins again, its SSRCs need not say any more whose they are.
    pub(super) fn change(&mut self, tracks: AgreedTracks) -> Vec<Option<usize>> {
        let mut lines = tracks.medias;
        let stopped = self.lines.iter().filter(|line| {
            let mut others = lines.iter().map(|l| l.track);
            others.all(|track| track != line.track)
        });
        let stopped: Vec<_> = stopped.map(Media::stopped).collect();
        lines.extend(stopped);
        let was = |line: &Media| self.lines.iter().position(|before| line.continues(before));
        let was: Vec<_> = lines.iter().map(was).collect();
        self.known.retain_mut(|known| {
            let now = was.iter().position(|at| *at == Some(known.line));
            known.line = now.unwrap_or(known.line);
            now.is_some()
        });
        let goes_on = |at: &usize| self.lines[*at].is_received();
        let before = was.into_iter().zip(&lines);
        let before = before.map(|(at, line)| at.filter(goes_on).filter(|_| line.is_received()));
        let before = before.collect();
        self.lines = lines;
        before
    }

    /// How many SSRCs had to make room for others.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Where a packet belongs. `None`: nowhere, and nothing is remembered.
    pub(super) fn route(&mut self, ssrc: u32, pt: u8, names: &Extensions<'_>) -> Option<Route> {
        self.packets += 1;
        let known = self.known.iter().position(|k| k.ssrc == ssrc);
        if let Some(at) = known.filter(|_| !names.names()) {
            let known = &mut self.known[at];
            known.heard = self.packets;
            return Some(Route {
                line: known.line,
                layer: known.layer,
                content: self.lines[known.line].content(pt),
                is_first: false,
            });
        }
        let line = self.line(ssrc, pt, known, names)?;
        let content = self.lines[line].content(pt);
        if content == Content::Unknown && known.is_none() {
            return None;
        }
        let before = known.map(|at| self.known[at]).filter(|k| k.line == line);
        let layer = self.layer(ssrc, line, content, before, names)?;
        let is_first = before.is_none_or(|k| k.layer != layer);
        self.remember(known, ssrc, line, layer);
        Some(Route {
            line,
            layer,
            content,
            is_first,
        })
    }

    fn line(
        &self,
        ssrc: u32,
        pt: u8,
        known: Option<usize>,
        names: &Extensions<'_>,
    ) -> Option<usize> {
        if let Some(mid) = names.mid {
            return self.lines.iter().position(|l| l.mid.as_bytes() == mid);
        }
        if let Some(line) = self.lines.iter().position(|l| l.names(ssrc)) {
            return Some(line);
        }
        if let Some(at) = known {
            return Some(self.known[at].line);
        }
        let has = |line: &Media| {
            let rid = names.rid.or(names.repaired_rid);
            let is_named = rid.is_none_or(|rid| line.rids.is_empty() || line.layer(rid).is_some());
            is_named && line.content(pt) != Content::Unknown
        };
        // A payload type of several m-lines tells nothing.
        let mut all = (0..self.lines.len()).filter(|at| has(&self.lines[*at]));
        all.next().filter(|_| all.next().is_none())
    }

    fn layer(
        &self,
        ssrc: u32,
        at: usize,
        content: Content,
        before: Option<Known>,
        names: &Extensions<'_>,
    ) -> Option<usize> {
        let line = &self.lines[at];
        if line.rids.is_empty() {
            return Some(0);
        }
        let rid = match content {
            Content::Repair(_) => names.repaired_rid.or(names.rid),
            _ => names.rid,
        };
        if let Some(rid) = rid {
            return line.layer(rid);
        }
        if let Some(before) = before {
            return Some(before.layer);
        }
        // Without a name retransmissions are those of the SSRC that the offer pairs them with.
        let repaired = line.sources.iter().find(|s| s.rtx == Some(ssrc))?;
        let media = self.known.iter().find(|k| k.ssrc == repaired.ssrc)?;
        (media.line == at).then_some(media.layer)
    }

    fn remember(&mut self, known: Option<usize>, ssrc: u32, line: usize, layer: usize) {
        let entry = Known {
            ssrc,
            line,
            layer,
            heard: self.packets,
        };
        if let Some(at) = known {
            self.known[at] = entry;
        } else if self.known.len() < KNOWN {
            self.known.push(entry);
        } else if let Some(silent) = self.known.iter_mut().min_by_key(|k| k.heard) {
            *silent = entry;
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, TrackKind};
    use crate::peer::uplink::agreed::{self, Feedback, Source};
    use crate::transport::TrackIn;

    fn tracks_of(medias: Vec<Media>) -> AgreedTracks {
        AgreedTracks { medias, data: None }
    }

    fn format(codec: Codec, pt: u8, rtx: Option<u8>, red: Option<u8>) -> Format {
        Format {
            codec,
            pt,
            rtx,
            red,
            feedback: Feedback::default(),
        }
    }

    fn media(mid: &str, kind: TrackKind, formats: Vec<Format>) -> Media {
        Media {
            track: TrackIn(0),
            mid: mid.into(),
            msid: None,
            language: None,
            kind,
            formats,
            sources: Vec::new(),
            rids: Vec::new(),
            sets: Vec::new(),
            extensions: agreed::Extensions::default(),
        }
    }

    fn audio() -> Media {
        media(
            "a",
            TrackKind::Audio,
            vec![format(Codec::Opus, 111, None, Some(63))],
        )
    }

    fn video() -> Media {
        let formats = vec![
            format(Codec::H264, 96, Some(97), None),
            format(Codec::H264, 98, None, None),
        ];
        media("v", TrackKind::Video, formats)
    }

    fn simulcast() -> Media {
        Media {
            rids: ["hi-there", "hi", "lo"].map(String::from).to_vec(),
            ..video()
        }
    }

    fn names<'a>(
        mid: Option<&'a str>,
        rid: Option<&'a str>,
        repaired: Option<&'a str>,
    ) -> Extensions<'a> {
        Extensions {
            mid: mid.map(str::as_bytes),
            rid: rid.map(str::as_bytes),
            repaired_rid: repaired.map(str::as_bytes),
            ..Extensions::default()
        }
    }

    const NONE: Extensions<'static> = Extensions {
        mid: None,
        rid: None,
        repaired_rid: None,
        twcc: None,
        audio_level: None,
        dependency: None,
    };

    /// Each layer's number: 0 is the sound's, or the first m-line's.
    #[test]
    fn packets_find_their_layer_by_the_order_of_rfc_9143() {
        let source = |ssrc, rtx| Source {
            ssrc,
            rtx,
            cname: None,
        };
        let named = || Media {
            sources: vec![source(10, Some(11))],
            ..video()
        };
        let named_layers = || Media {
            sources: vec![source(10, Some(11))],
            ..simulcast()
        };
        let same_types = || Media {
            mid: "a".into(),
            kind: TrackKind::Audio,
            ..video()
        };
        let (mid, rid) = (
            |m| names(Some(m), None, None),
            |m, r| names(Some(m), Some(r), None),
        );
        for (what, medias, packets) in [
            (
                "MID",
                [audio(), video()],
                &[
                    (1, 96, mid("v"), Some(1)),
                    (2, 111, mid("a"), Some(0)),
                    (3, 96, mid("?"), None),
                ][..],
            ),
            (
                "payload type",
                [audio(), video()],
                &[
                    (1, 98, NONE, Some(1)),
                    (2, 63, NONE, Some(0)),
                    (3, 99, NONE, None),
                ],
            ),
            (
                "learnt SSRC",
                [audio(), video()],
                &[(1, 96, mid("v"), Some(1)), (1, 13, NONE, Some(1))],
            ),
            (
                "a payload type of both",
                [same_types(), video()],
                &[
                    (1, 96, NONE, None),
                    (1, 96, mid("v"), Some(1)),
                    (1, 96, NONE, Some(1)),
                ],
            ),
            (
                "a=ssrc",
                [same_types(), named()],
                &[
                    (10, 96, NONE, Some(1)),
                    (11, 97, NONE, Some(1)),
                    (12, 96, NONE, None),
                ],
            ),
            (
                "MID before a=ssrc",
                [same_types(), named()],
                &[(10, 96, mid("a"), Some(0)), (10, 96, NONE, Some(0))],
            ),
            (
                "RID",
                [audio(), simulcast()],
                &[
                    (1, 96, rid("v", "lo"), Some(3)),
                    (2, 96, rid("v", "hi"), Some(2)),
                    (3, 96, names(None, Some("hi-there"), None), Some(1)),
                    (1, 96, NONE, Some(3)),
                    (4, 96, rid("v", "h"), None),
                    (5, 96, mid("v"), None),
                    (1, 96, rid("v", "hi"), Some(2)),
                ],
            ),
            (
                "RTX by RRID",
                [audio(), simulcast()],
                &[
                    (1, 97, names(Some("v"), None, Some("lo")), Some(3)),
                    (1, 97, NONE, Some(3)),
                    (2, 97, mid("v"), None),
                ],
            ),
            (
                "RTX by FID",
                [audio(), named_layers()],
                &[
                    (11, 97, NONE, None),
                    (10, 96, rid("v", "lo"), Some(3)),
                    (11, 97, NONE, Some(3)),
                ],
            ),
            (
                "RTX by payload type",
                [audio(), video()],
                &[(1, 97, NONE, Some(1))],
            ),
        ] {
            let mut router = Router::new(tracks_of(medias.to_vec()));
            for (ssrc, pt, names, expected) in packets {
                let route = router.route(*ssrc, *pt, names);
                assert_eq!(
                    route.map(|r| r.line + r.layer),
                    *expected,
                    "{what}: {ssrc} {pt} {names:?}"
                );
            }
        }
    }

    #[test]
    fn the_first_packet_of_an_ssrc_is_told_and_what_is_in_it() {
        let mut router = Router::new(tracks_of(vec![audio(), video()]));
        let formats = video().formats;
        let mut next = |ssrc, pt| {
            let route = router.route(ssrc, pt, &NONE).unwrap();
            (route.is_first, route.content)
        };
        assert_eq!(next(1, 96), (true, Content::Media(formats[0])));
        assert_eq!(next(1, 96), (false, Content::Media(formats[0])));
        assert_eq!(next(1, 98), (false, Content::Media(formats[1])));
        assert_eq!(next(1, 13), (false, Content::Unknown));
        assert_eq!(next(2, 97), (true, Content::Repair(formats[0])));
        assert_eq!(next(3, 63), (true, Content::Redundant(audio().formats[0])));
    }

    #[test]
    fn each_m_line_of_a_kind_is_a_track_of_its_own() {
        let second = Media {
            mid: "w".into(),
            track: TrackIn(1),
            ..simulcast()
        };
        let mut router = Router::new(tracks_of(vec![video(), second]));
        let mut at = |ssrc, names| {
            let route = router.route(ssrc, 96, &names)?;
            Some((route.line, route.layer))
        };
        assert_eq!(at(1, names(Some("w"), Some("lo"), None)), Some((1, 2)));
        assert_eq!(at(2, names(Some("v"), None, None)), Some((0, 0)));
        assert_eq!(at(1, NONE), Some((1, 2)));
        assert_eq!(at(3, NONE), None, "a payload type of both");
    }

    #[test]
    fn what_is_known_stays_with_the_m_lines_that_stay() {
        let track = |mid: &str, track| Media {
            track: TrackIn(track),
            ..media(mid, TrackKind::Video, video().formats)
        };
        let lines = |all: &[Media]| tracks_of(all.to_vec());
        let (a, b, c) = (track("a", 0), track("b", 1), track("c", 2));
        let mut router = Router::new(lines(&[a.clone(), b.clone()]));
        for (ssrc, mid) in [(1, "a"), (2, "b")] {
            router
                .route(ssrc, 96, &names(Some(mid), None, None))
                .unwrap();
        }
        // The first stops, and a third comes.
        let before = router.change(lines(&[b.clone(), c.clone()]));
        assert_eq!(before, [Some(1), None, None]);
        let route = router.route(2, 96, &NONE).unwrap();
        assert_eq!((route.line, route.is_first), (0, false));
        let route = router.route(1, 96, &NONE).unwrap();
        assert_eq!(
            (route.line, route.content),
            (2, Content::Unknown),
            "stopped"
        );
        // It begins again, without a word of whose its packets are; the second is another one.
        let again = Media {
            rids: vec!["x".into()],
            ..b.clone()
        };
        let before = router.change(lines(&[a.clone(), again, c.clone()]));
        assert_eq!(before, [None, None, Some(1)]);
        let route = router.route(1, 96, &NONE).unwrap();
        assert_eq!(
            (route.line, route.content),
            (0, Content::Media(video().formats[0]))
        );
        assert_eq!(router.route(2, 96, &NONE), None, "an SSRC of nobody");
        // However often, no more is remembered than there are m-lines.
        for _ in 0..100 {
            router.change(lines(&[]));
            router.change(lines(&[a.clone(), b.clone()]));
        }
        assert_eq!((router.lines.len(), router.known.len()), (3, 1));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_silent_longest() {
        let mut router = Router::new(tracks_of(vec![audio(), video()]));
        for ssrc in 0..1_000 {
            router.route(ssrc, 96, &NONE).unwrap();
            router.route(7_777, 111, &NONE).unwrap();
        }
        assert_eq!(router.known.len(), KNOWN);
        assert_eq!(router.forgotten(), 1_001 - KNOWN as u64);
        assert!(!router.route(7_777, 111, &NONE).unwrap().is_first);
    }
}
