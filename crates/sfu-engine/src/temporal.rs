// SPDX-License-Identifier: MPL-2.0

//! Temporal layers: frames that others don't need, so that a viewer may go without them and see fewer frames a second.
//!
//! [`TemporalReader`] runs once per packet that comes in, one for each simulcast layer. It finds each frame's temporal layer
//! and counts what a viewer without the upper ones does not get, so that the rewriter, which runs once per packet and
//! viewer, only subtracts.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::codec::TemporalMark;
use crate::packet::Packet;

/// Temporal layers that can be left out: those above number 0, 1 and 2. The standards' streams have no more than four.
pub(crate) const CUTS: usize = 3;
/// Frames after which a temporal layer that has not come counts as not sent.
const FORGET_AFTER: u32 = 64;

/// The highest temporal layer that a viewer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(u8);

impl Limit {
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);
    /// Only the one that the others build on.
    pub const BASE: Self = Self(0);

    /// Those up to this number. There is no limit above 2: whoever gets the fourth temporal layer gets all.
    pub fn up_to(id: u8) -> Self {
        if usize::from(id) < CUTS {
            Self(id)
        } else {
            Self::ALL
        }
    }

    /// The number of the highest one that passes, or `None` where all do.
    pub fn id(self) -> Option<u8> {
        (self != Self::ALL).then_some(self.0)
    }

    fn admits(self, id: u8) -> bool {
        id <= self.0
    }
}

/// A limit that one thread sets and others read.
#[derive(Debug)]
pub(crate) struct AtomicLimit(AtomicU8);

impl Default for AtomicLimit {
    fn default() -> Self {
        Self(AtomicU8::new(Limit::ALL.0))
    }
}

impl AtomicLimit {
    pub(crate) fn store(&self, limit: Limit) {
        self.0.store(limit.0, Relaxed);
    }

    pub(crate) fn load(&self) -> Limit {
        Limit(self.0.load(Relaxed))
    }
}

/// Where a packet is among the temporal layers of its layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Temporal {
    /// The temporal layer of its frame. 0 is needed by all others.
    pub id: u8,
    /// Whoever has decoded all of the temporal layers below may go on with this one from here.
    pub switches_up: bool,
    /// It comes after packets with higher numbers, which were counted as if nobody had to go without this one.
    pub late: bool,
    /// The highest temporal layer that was sent lately.
    pub top: u8,
    /// What came before it, by sequence number, of the temporal layers above 0, 1 and 2.
    above: [Above; CUTS],
}

/// Packets, and frames, which wrap as picture ids do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Above {
    packets: u64,
    frames: u16,
}

impl Temporal {
    /// Whether a viewer with this limit gets it.
    pub fn is_within(&self, limit: Limit) -> bool {
        limit.admits(self.id)
    }

    /// How many packets before this one a viewer with this limit has not got.
    pub fn packets_above(&self, limit: Limit) -> u64 {
        self.above(limit).packets
    }

    /// The same of frames; wraps.
    pub fn frames_above(&self, limit: Limit) -> u16 {
        self.above(limit).frames
    }

    fn above(&self, limit: Limit) -> Above {
        let counts = self.above.get(usize::from(limit.0));
        counts.copied().unwrap_or_default()
    }

    /// The limit with which a viewer goes on from the start of this frame, that has one and wants another.
    pub fn step(&self, from: Limit, wanted: Limit, is_keyframe: bool) -> Limit {
        if wanted < from || is_keyframe {
            return wanted;
        }
        let is_next = from.id().is_some_and(|id| self.id == id + 1);
        if !(is_next && self.switches_up && self.is_within(wanted)) {
            return from;
        }
        match self.id >= self.top {
            true => wanted,
            false => Limit::up_to(self.id),
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct TemporalReader {
    counts: [Above; CUTS],
    /// The frame that is being read.
    frame: Option<Frame>,
    top: Top,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    timestamp: u32,
    mark: TemporalMark,
}

/// The highest temporal layer of the last frames.
#[derive(Debug, Default)]
struct Top {
    frames: u32,
    before: u8,
    now: u8,
}

impl Top {
    fn frame(&mut self, id: u8) {
        if self.frames == FORGET_AFTER {
            *self = Self {
                frames: 0,
                before: self.now,
                now: 0,
            };
        }
        self.frames += 1;
        self.now = self.now.max(id);
    }

    fn id(&self) -> u8 {
        self.before.max(self.now)
    }
}

/// What was counted when a packet should have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted([Above; CUTS]);

impl TemporalReader {
    /// What has been counted so far, for packets that should have come by now.
    pub(crate) fn counted(&self) -> Counted {
        Counted(self.counts)
    }

    /// The highest temporal layer that was sent lately.
    pub(crate) fn top(&self) -> u8 {
        self.top.id()
    }

    /// Places a packet that comes in order. The marks are its own and, where it has none, that of the next packets of its
    /// frame that are at hand: a frame is of one temporal layer, and what can't be told is of the lowest.
    pub(crate) fn place(&mut self, packet: &mut Packet, marks: &[(u32, Option<TemporalMark>)]) {
        let timestamp = packet.timestamp;
        let begins = self.frame.is_none_or(|f| f.timestamp != timestamp);
        let mark = match self.frame.filter(|_| !begins) {
            Some(frame) => frame.mark,
            None => {
                let of_frame = marks.iter().take_while(|(t, _)| *t == timestamp);
                let mark = of_frame.filter_map(|(_, mark)| *mark).next();
                mark.unwrap_or_default()
            }
        };
        if begins {
            self.frame = Some(Frame { timestamp, mark });
            self.top.frame(mark.id);
        }
        packet.temporal = self.temporal(mark, self.counts);
        for count in &mut self.counts[..usize::from(mark.id).min(CUTS)] {
            count.packets += 1;
            count.frames = count.frames.wrapping_add(begins.into());
        }
    }

    /// Places a packet that comes after those that follow it.
    pub(crate) fn place_late(
        &self,
        packet: &mut Packet,
        mark: Option<TemporalMark>,
        counted: Counted,
    ) {
        let of_frame = self.frame.filter(|f| f.timestamp == packet.timestamp);
        let mark = of_frame.map(|f| f.mark).or(mark).unwrap_or_default();
        packet.temporal = Temporal {
            late: true,
            ..self.temporal(mark, counted.0)
        };
    }

    fn temporal(&self, mark: TemporalMark, above: [Above; CUTS]) -> Temporal {
        Temporal {
            id: mark.id,
            switches_up: mark.switches_up,
            late: false,
            top: self.top.id(),
            above,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;
    use crate::packet::LayerReader;
    use crate::packet::tests::rtp;

    const SEI: &[u8] = &[0x06, 5];
    const AUD: &[u8] = &[0x09, 0xf0];
    const IDR: &[u8] = &[0x65, 0x88];
    const REFERENCE: &[u8] = &[0x41, 0x9a];
    const DISPOSABLE: &[u8] = &[0x01, 0x9a];

    #[test]
    fn a_frame_is_of_one_temporal_layer_whatever_begins_it() {
        let mut reader = LayerReader::default();
        let (packets, _) = reader.read(
            Codec::H264,
            [
                rtp(1, 0, AUD),
                rtp(2, 0, IDR),
                rtp(3, 10, AUD),
                rtp(4, 10, SEI),
                rtp(5, 10, DISPOSABLE),
                rtp(6, 10, SEI),
                rtp(7, 20, REFERENCE),
            ],
        );
        let ids: Vec<_> = packets.iter().map(|p| p.temporal.id).collect();
        assert_eq!(ids, [0, 0, 1, 1, 1, 1, 0]);
        let above = packets
            .iter()
            .map(|p| p.temporal.packets_above(Limit::BASE));
        assert_eq!(above.collect::<Vec<_>>(), [0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(packets[6].temporal.frames_above(Limit::BASE), 1);
        // What begins a frame alone decides for the frame: it is forwarded, and so the rest of it must be.
        let mut next = |payload, timestamp, seq| {
            let (packets, _) = reader.read(Codec::H264, [rtp(seq, timestamp, payload)]);
            packets[0].temporal.id
        };
        assert_eq!(next(AUD, 30, 8), 0);
        assert_eq!(next(DISPOSABLE, 30, 9), 0);
        assert_eq!(next(DISPOSABLE, 40, 10), 1);
    }

    #[test]
    fn what_comes_late_is_counted_as_it_was_missed() {
        let mut reader = LayerReader::default();
        let mut next = |seq, timestamp, payload| {
            let (packets, _) = reader.read(Codec::H264, [rtp(seq, timestamp, payload)]);
            let temporal = packets[0].temporal;
            let above = temporal.packets_above(Limit::BASE);
            (temporal.id, above, temporal.late)
        };
        assert_eq!(next(1, 0, IDR), (0, 0, false));
        assert_eq!(next(2, 10, DISPOSABLE), (1, 0, false));
        assert_eq!(next(5, 40, DISPOSABLE), (1, 1, false));
        assert_eq!(next(6, 50, REFERENCE), (0, 2, false));
        assert_eq!(next(4, 30, REFERENCE), (0, 1, true));
        assert_eq!(next(3, 20, DISPOSABLE), (1, 1, true));
        assert_eq!(
            next(7, 60, REFERENCE),
            (0, 2, false),
            "late ones change nothing"
        );
    }

    #[test]
    fn steps_up_are_where_the_stream_lets_them_and_one_at_a_time() {
        let temporal = |id, switches_up, top| Temporal {
            id,
            switches_up,
            top,
            ..Temporal::default()
        };
        let (base, one, all) = (Limit::BASE, Limit::up_to(1), Limit::ALL);
        for (what, frame, from, wanted, is_key, expected) in [
            (
                "down, anywhere",
                temporal(0, false, 2),
                all,
                base,
                false,
                base,
            ),
            (
                "up at a keyframe",
                temporal(0, false, 2),
                base,
                all,
                true,
                all,
            ),
            (
                "not at the base",
                temporal(0, false, 2),
                base,
                all,
                false,
                base,
            ),
            (
                "not two at a time",
                temporal(2, true, 2),
                base,
                all,
                false,
                base,
            ),
            ("one", temporal(1, true, 2), base, all, false, one),
            (
                "the last one is all",
                temporal(2, true, 2),
                one,
                all,
                false,
                all,
            ),
            (
                "no more than wanted",
                temporal(2, true, 2),
                one,
                one,
                false,
                one,
            ),
            (
                "not without a mark",
                temporal(1, false, 1),
                base,
                all,
                false,
                base,
            ),
        ] {
            assert_eq!(frame.step(from, wanted, is_key), expected, "{what}");
        }
    }

    #[test]
    fn a_temporal_layer_that_ends_is_forgotten() {
        let mut reader = LayerReader::default();
        let mut seq = 0;
        let mut next = |payload| {
            seq += 1;
            reader.read(Codec::H264, [rtp(seq, u32::from(seq), payload)]);
            reader.top()
        };
        assert_eq!(next(IDR), 0);
        assert_eq!(next(DISPOSABLE), 1);
        let kept = (0..).take_while(|_| next(REFERENCE) == 1).count() as u32;
        assert!((FORGET_AFTER..=2 * FORGET_AFTER).contains(&kept), "{kept}");
    }
}
