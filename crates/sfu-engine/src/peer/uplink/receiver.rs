// SPDX-License-Identifier: MPL-2.0

//! One layer of a track, or a sound, as it comes in: which SSRC it has now, under which numbers its packets go on, what is missing,
//! and what to report of it (RFC 3550, section 6.4 and appendix A).
//!
//! A publisher that begins its encoder anew comes under another SSRC, with other numbers: to the stream they go on where
//! the last ones ended. A jump of the numbers becomes one that is missing. An example:
//!
//! | SSRC | index | goes on as | because |
//! | --- | --- | --- | --- |
//! | 1 | 100, 101 | 100, 101 | |
//! | 2 | 7 | 102 | another SSRC is followed |
//! | 1 | 102 | – | it was left |
//! | 2 | 9, 8 | 104, 103 | |
//! | 2 | 50,000 | 106 | more is missing than anybody can send again |

use std::ops::Range;
use std::time::{Duration, Instant};

use super::agreed::{Feedback, Format, Media};
use super::nack::Missing;
use crate::codec::{TrackKind, dependency};
use crate::rtcp::{ReportBlock, SenderInfo};
use crate::transport::TrackIn;

/// Steps that are taken for a jump (RFC 3550, appendix A.1: `MAX_DROPOUT`).
const JUMP: u64 = 3_000;
/// An SSRC that was left is taken up again when the one after it has been silent for so long.
const SILENT: Duration = Duration::from_secs(1);
/// A retransmission may come before its packet has been missed, but not long before.
const AHEAD: i16 = 64;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) track: TrackIn,
    pub(super) kind: TrackKind,
    /// Its index among the layers, highest first; 0 for sound.
    pub(super) layer: usize,
    pub(super) stream: Option<Stream>,
    /// The highest number under which something went on.
    last: Option<u64>,
    /// A keyframe is to be asked for.
    pub(super) wants_keyframe: bool,
    /// Commands for keyframes so far (FIR).
    pub(super) commands: u8,
}

/// Those of all m-lines that are received, each by layer.
#[derive(Debug)]
pub(super) struct Receivers(Vec<Vec<Receiver>>);

impl Receivers {
    pub(super) fn new(lines: &[Media]) -> Self {
        Self(lines.iter().map(Receiver::of).collect())
    }

    /// Others are received from now on; `before` tells which one each was.
    pub(super) fn change(&mut self, lines: &[Media], before: &[Option<usize>]) {
        let mut known = std::mem::take(&mut self.0);
        let mut next = |(media, before): (&Media, &Option<usize>)| match before {
            Some(at) => std::mem::take(&mut known[*at]),
            None => Receiver::of(media),
        };
        self.0 = lines.iter().zip(before).map(&mut next).collect();
    }

    pub(super) fn get_mut(&mut self, line: usize, layer: usize) -> Option<&mut Receiver> {
        self.0.get_mut(line)?.get_mut(layer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Receiver> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Receiver> {
        self.0.iter_mut().flatten()
    }
}

/// What comes under one SSRC.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) ssrc: u32,
    pub(super) format: Format,
    start: Instant,
    /// What to add to an index. Wraps.
    shift: u64,
    highest: u64,
    heard: Instant,
    pub(super) missing: Missing,
    /// Of AV1, whose structures come with keyframes.
    pub(super) dependencies: dependency::Reader,
    base: u64,
    received: u64,
    /// Of the report before: what was expected by then, and received.
    reported: (u64, u64),
    transit: Option<u32>,
    /// Sixteen times the jitter, in units of the timestamp.
    jitter: u32,
    /// The middle of the NTP time of the last sender report, and when it came.
    sender_report: Option<(u32, Instant)>,
}

/// How a packet goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number; wraps.
    pub(super) seq: u16,
    /// It comes after others that follow it.
    pub(super) is_late: bool,
    /// It is the first one of an SSRC.
    pub(super) begins: bool,
}

/// A packet that has come under the SSRC of its medium.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) ssrc: u32,
    /// Extended by the rollover counter.
    pub(super) index: u64,
    pub(super) timestamp: u32,
    /// It is the first one of this SSRC here.
    pub(super) is_first: bool,
}

impl Receiver {
    /// Those of an m-line's layers.
    fn of(media: &Media) -> Vec<Self> {
        let layers = 0..media.rids.len().max(1);
        let new = |layer| Self::new(media.track, media.kind, layer);
        layers.map(new).collect()
    }

    fn new(track: TrackIn, kind: TrackKind, layer: usize) -> Self {
        Self {
            track,
            kind,
            layer,
            stream: None,
            last: None,
            wants_keyframe: false,
            commands: 0,
        }
    }

    /// How a packet goes on. `None`: its SSRC was left.
    pub(super) fn came(
        &mut self,
        now: Instant,
        packet: Came,
        format: Option<Format>,
    ) -> Option<Place> {
        let begins = self.follow(now, packet, format);
        let stream = self.stream.as_mut().filter(|s| s.ssrc == packet.ssrc)?;
        if let Some(format) = format {
            stream.format = format;
        }
        stream.heard = now;
        stream.received += 1;
        let index = packet.index;
        let is_late = index <= stream.highest && !begins;
        if is_late {
            stream.missing.came(now, index);
        } else {
            stream.advance(now, index, self.last);
            stream.time(now, packet.timestamp);
            self.last = Some(index.wrapping_add(stream.shift));
        }
        Some(Place {
            seq: index.wrapping_add(stream.shift) as u16,
            is_late,
            begins,
        })
    }

    /// Whether another SSRC is followed from here on.
    fn follow(&mut self, now: Instant, packet: Came, format: Option<Format>) -> bool {
        let is_followed = match &self.stream {
            None => true,
            Some(stream) if stream.ssrc == packet.ssrc => false,
            Some(stream) => {
                packet.is_first || now.saturating_duration_since(stream.heard) >= SILENT
            }
        };
        let Some(format) = format.filter(|_| is_followed) else {
            return false;
        };
        let shift = self
            .last
            .map_or(0, |last| (last + 1).wrapping_sub(packet.index));
        self.stream = Some(Stream::new(now, packet, format, shift));
        true
    }

    /// How a packet that was sent again (RTX) goes on. `None`: nobody waits for it.
    pub(super) fn repaired(&mut self, now: Instant, number: u16) -> Option<Place> {
        let stream = self.stream.as_mut()?;
        let step = number.wrapping_sub(stream.highest as u16).cast_signed();
        let index = stream.highest.checked_add_signed(step.into())?;
        let is_late = step <= 0;
        if is_late {
            if !stream.missing.came(now, index) {
                return None;
            }
        } else if step < AHEAD {
            stream.advance(now, index, self.last);
            self.last = Some(index.wrapping_add(stream.shift));
        } else {
            return None;
        }
        Some(Place {
            seq: index.wrapping_add(stream.shift) as u16,
            is_late,
            begins: false,
        })
    }

    /// The stream has ended (BYE): the next SSRC is followed at once.
    pub(super) fn ended(&mut self, ssrc: u32) {
        self.stream.take_if(|s| s.ssrc == ssrc);
    }

    /// What was agreed on, where something comes.
    pub(super) fn feedback(&self) -> Option<(u32, Feedback)> {
        let stream = self.stream.as_ref()?;
        Some((stream.ssrc, stream.format.feedback))
    }
}

impl Stream {
    fn new(now: Instant, first: Came, format: Format, shift: u64) -> Self {
        Self {
            ssrc: first.ssrc,
            format,
            start: now,
            shift,
            highest: first.index,
            heard: now,
            missing: Missing::default(),
            dependencies: dependency::Reader::default(),
            base: first.index,
            received: 0,
            reported: (0, 0),
            transit: None,
            jitter: 0,
            sender_report: None,
        }
    }

    /// A packet after all that came. `last` is the number of the last one that went on.
    fn advance(&mut self, now: Instant, index: u64, last: Option<u64>) {
        let step = index.saturating_sub(self.highest);
        if step >= JUMP {
            let next = last.map_or(index, |last| last + 2);
            self.shift = next.wrapping_sub(index);
            self.missing = Missing::default();
            self.base = index;
            self.received = 1;
            self.reported = (0, 0);
        } else if step > 1 && self.format.feedback.nack {
            let missed: Range<u64> = self.highest + 1..index;
            self.missing.miss(now, missed);
        }
        self.highest = index;
    }

    /// The jitter of arrivals (RFC 3550, section 6.4.1 and appendix A.8).
    fn time(&mut self, now: Instant, timestamp: u32) {
        let micros = now.saturating_duration_since(self.start).as_micros() as u64;
        let rate = u64::from(self.format.codec.clock_rate());
        let transit = ((micros * rate / 1_000_000) as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let change = transit.wrapping_sub(before).cast_signed().unsigned_abs();
            let smaller = (self.jitter + 8) >> 4;
            // A jump of the timestamps is none of the network.
            self.jitter = (self.jitter + change.min(1 << 24)).saturating_sub(smaller);
        }
    }

    /// The peer's clocks, as it tells them.
    pub(super) fn told(&mut self, now: Instant, info: &SenderInfo) {
        self.sender_report = Some(((info.ntp_time >> 16) as u32, now));
    }

    /// A block for a report, and what was expected and what was lost since the last one.
    pub(super) fn report(&mut self, now: Instant) -> (ReportBlock, u64, u64) {
        let expected = self.highest + 1 - self.base;
        let lost = expected as i64 - self.received as i64;
        let (expected_before, received_before) = self.reported;
        let expected_now = expected.saturating_sub(expected_before);
        let received_now = self.received - received_before;
        let lost_now = expected_now.saturating_sub(received_now);
        self.reported = (expected, self.received);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        let (last_sender_report, delay) = match self.sender_report {
            Some((middle, at)) => {
                let delay =
                    now.saturating_duration_since(at).as_micros() as u64 * 65_536 / 1_000_000;
                (middle, delay as u32)
            }
            None => (0, 0),
        };
        let block = ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: self.highest as u32,
            jitter: self.jitter >> 4,
            last_sender_report,
            delay,
        };
        (block, expected_now, lost_now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;

    const MS: Duration = Duration::from_millis(1);

    fn format() -> Format {
        Format {
            codec: Codec::H264,
            pt: 96,
            rtx: Some(97),
            red: None,
            feedback: Feedback {
                nack: true,
                ..Feedback::default()
            },
        }
    }

    struct Test {
        receiver: Receiver,
        now: Instant,
        known: Vec<u32>,
    }

    impl Test {
        fn new() -> Self {
            Self {
                receiver: Receiver::new(TrackIn(0), TrackKind::Video, 0),
                now: Instant::now(),
                known: Vec::new(),
            }
        }

        /// The number under which a packet goes on, and whether it is late.
        fn came(&mut self, ssrc: u32, index: u64) -> Option<(u16, bool)> {
            let is_first = !self.known.contains(&ssrc);
            self.known.push(ssrc);
            let packet = Came {
                ssrc,
                index,
                timestamp: 0,
                is_first,
            };
            let place = self.receiver.came(self.now, packet, Some(format()))?;
            Some((place.seq, place.is_late))
        }
    }

    #[test]
    fn numbers_go_on_whatever_the_ssrc() {
        let mut test = Test::new();
        let (new, late) = (|n| Some((n, false)), |n| Some((n, true)));
        // The module's example.
        assert_eq!(test.came(1, 100), new(100));
        assert_eq!(test.came(1, 101), new(101));
        assert_eq!(test.came(2, 7), new(102));
        assert_eq!(test.came(1, 102), None);
        assert_eq!(test.came(2, 9), new(104));
        assert_eq!(test.came(2, 8), late(103));
        assert_eq!(test.came(2, 50_000), new(106));
        assert_eq!(test.came(2, 50_001), new(107));
        // The one before comes again when this one is silent.
        test.now += SILENT;
        assert_eq!(test.came(1, 103), new(108));
        test.receiver.ended(1);
        assert_eq!(test.came(2, 50_002), new(109), "after a goodbye at once");
    }

    #[test]
    fn repairs_take_the_places_of_what_is_missing_and_nothing_else() {
        let mut test = Test::new();
        for index in [10, 11, 14] {
            test.came(1, index);
        }
        let mut repaired = |number| {
            test.receiver
                .repaired(test.now, number)
                .map(|p| (p.seq, p.is_late))
        };
        assert_eq!(repaired(12), Some((12, true)));
        assert_eq!(repaired(12), None, "once");
        assert_eq!(repaired(11), None, "it came");
        assert_eq!(repaired(9), None, "before the first");
        assert_eq!(repaired(15), Some((15, false)), "before it was missed");
        assert_eq!(repaired(14 + 1_000), None);
        assert_eq!(test.came(1, 13), Some((13, true)));
        assert_eq!(test.came(1, 16), Some((16, false)));
    }

    #[test]
    fn reports_count_what_was_lost_and_when_the_peer_reported() {
        let mut test = Test::new();
        for index in (65_530..65_630).filter(|index| index % 4 != 0) {
            test.came(1, index);
        }
        let stream = test.receiver.stream.as_mut().unwrap();
        let info = SenderInfo {
            ssrc: 1,
            ntp_time: 0x1111_2222_3333_4444,
            rtp_time: 0,
        };
        stream.told(test.now, &info);
        let (block, expected, lost) = stream.report(test.now + 500 * MS);
        assert_eq!((expected, lost, block.cumulative_lost), (100, 25, 25));
        assert_eq!((block.fraction_lost, block.highest_sequence), (64, 65_629));
        assert_eq!(
            (block.last_sender_report, block.delay),
            (0x2222_3333, 32_768)
        );
        let (block, expected, lost) = stream.report(test.now);
        assert_eq!((expected, lost, block.fraction_lost), (0, 0, 0));
    }

    #[test]
    fn jitter_is_that_of_the_network() {
        for (steps, expected) in [([33u64, 33], 0), ([23, 43], 10 * 90)] {
            let mut test = Test::new();
            for n in 0..1_000u32 {
                test.now += MS * steps[n as usize % 2] as u32;
                let packet = Came {
                    ssrc: 1,
                    index: n.into(),
                    timestamp: n * 33 * 90,
                    is_first: n == 0,
                };
                test.receiver.came(test.now, packet, Some(format()));
            }
            let (block, ..) = test.receiver.stream.as_mut().unwrap().report(test.now);
            assert!(block.jitter.abs_diff(expected) <= 10, "{}", block.jitter);
        }
    }
}
