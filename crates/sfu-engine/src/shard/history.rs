// SPDX-License-Identifier: MPL-2.0

//! What a viewer was sent under which number, so that it can be sent again: not the packets, only what became of them.
//!
//! The packets themselves are in the layer's [`Ring`](super::ring), which all viewers of a shard share. It reaches back at
//! least a second, whatever the rate: see [`Depth`].

use std::time::Instant;

use crate::codec::Vp8Header;
use crate::depth::Depth;
use crate::packet::Packet;
use crate::rewrite::{Rewritten, Source};

/// A packet as it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// What it was among the layer's packets.
    pub(super) source: Source,
    pub(super) seq: u64,
    /// The number under which it left.
    pub(super) sent_seq: u64,
    pub(super) timestamp: u32,
    vp8: Option<Vp8Header>,
    frame_number: Option<u16>,
    empty: bool,
}

/// What is known of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// This left under it.
    Sent(Record),
    /// Others left around it: the publisher's packet has not come, or never will.
    NotYet,
    /// It is too long ago.
    Forgotten,
}

/// The same, small: there are hundreds for each viewer.
#[derive(Debug, Clone, Copy)]
struct Stored {
    sent_seq: u32,
    seq: u32,
    timestamp: u32,
    epoch: u16,
    /// Of VP8, or the number of the frame in a dependency descriptor.
    picture_id: u16,
    layer: u8,
    tl0_pic_idx: u8,
    /// [`LONG_PICTURE_ID`] and so on; 0 is an empty place.
    flags: u8,
}

const USED: u8 = 1;
const PICTURE_ID: u8 = 2;
const LONG_PICTURE_ID: u8 = 4;
const TL0_PIC_IDX: u8 = 8;
const HOLDS_NOTHING: u8 = 16;
const FRAME_NUMBER: u8 = 32;

const EMPTY: Stored = Stored {
    sent_seq: 0,
    seq: 0,
    timestamp: 0,
    epoch: 0,
    picture_id: 0,
    layer: 0,
    tl0_pic_idx: 0,
    flags: 0,
};

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct History {
    /// A power of two of them.
    records: Vec<Stored>,
    depth: Depth,
    /// The newest numbers, of which the records hold the lower halves.
    newest_seq: u64,
    newest_epoch: u32,
    newest_sent: u64,
    /// What left before this number is not known any more.
    oldest_sent: u64,
}

impl History {
    /// A packet leaves.
    pub(super) fn add(&mut self, now: Instant, source: Source, packet: &Packet, sent: &Rewritten) {
        if let Some(room) = self.depth.add(now, 1, self.records.len()) {
            self.resize(room, sent.seq);
        }
        let mut flags = USED | if sent.empty { HOLDS_NOTHING } else { 0 };
        let (mut picture_id, mut tl0_pic_idx) = (0, 0);
        if let Some(header) = sent.vp8 {
            if let Some((id, long)) = header.picture_id {
                picture_id = id;
                flags |= PICTURE_ID | if long { LONG_PICTURE_ID } else { 0 };
            }
            if let Some(index) = header.tl0_pic_idx {
                tl0_pic_idx = index;
                flags |= TL0_PIC_IDX;
            }
        }
        if let Some(number) = sent.frame_number {
            picture_id = number;
            flags |= FRAME_NUMBER;
        }
        self.newest_seq = packet.seq;
        self.newest_epoch = source.epoch;
        self.newest_sent = self.newest_sent.max(sent.seq);
        if !self.is_in_reach(sent.seq) {
            // Its place is a newer one's.
            return;
        }
        let place = self.place(sent.seq);
        self.records[place] = Stored {
            sent_seq: sent.seq as u32,
            seq: packet.seq as u32,
            timestamp: sent.timestamp,
            epoch: source.epoch as u16,
            picture_id,
            layer: source.layer as u8,
            tl0_pic_idx,
            flags,
        };
    }

    fn place(&self, sent_seq: u64) -> usize {
        sent_seq as usize & self.records.len().saturating_sub(1)
    }

    fn is_in_reach(&self, sent_seq: u64) -> bool {
        self.newest_sent.saturating_sub(sent_seq) < self.records.len() as u64
    }

    /// Makes more or less room. `next` is the number that is about to leave.
    fn resize(&mut self, room: usize, next: u64) {
        let before = std::mem::replace(&mut self.records, vec![EMPTY; room]);
        if before.is_empty() {
            self.oldest_sent = next;
            return;
        }
        // What had been overwritten is not known for the new room.
        let reach = self.newest_sent.saturating_sub(before.len() as u64 - 1);
        self.oldest_sent = self.oldest_sent.max(reach);
        for stored in before.into_iter().filter(|s| s.flags & USED != 0) {
            let back = (self.newest_sent as u32).wrapping_sub(stored.sent_seq);
            if (back as usize) < room {
                let place = stored.sent_seq as usize & (room - 1);
                self.records[place] = stored;
            }
        }
    }

    /// What left under this number.
    pub(super) fn get(&self, sent_seq: u64) -> Found {
        let stored = self
            .records
            .get(self.place(sent_seq))
            .filter(|s| s.flags & USED != 0);
        match stored.filter(|s| s.sent_seq == sent_seq as u32) {
            Some(stored) => self.read(stored, sent_seq),
            None if self.is_recent(sent_seq) => Found::NotYet,
            None => Found::Forgotten,
        }
    }

    /// Whether it would be known if something had left under this number.
    fn is_recent(&self, sent_seq: u64) -> bool {
        let known = self.oldest_sent..self.newest_sent;
        known.contains(&sent_seq) && self.is_in_reach(sent_seq)
    }

    fn read(&self, stored: &Stored, sent_seq: u64) -> Found {
        let back = (self.newest_seq as u32).wrapping_sub(stored.seq) as i32;
        let seq = self.newest_seq.wrapping_add_signed(-i64::from(back));
        let epochs_back = (self.newest_epoch as u16).wrapping_sub(stored.epoch);
        let header = Vp8Header {
            picture_id: (stored.flags & PICTURE_ID != 0)
                .then_some((stored.picture_id, stored.flags & LONG_PICTURE_ID != 0)),
            tl0_pic_idx: (stored.flags & TL0_PIC_IDX != 0).then_some(stored.tl0_pic_idx),
        };
        Found::Sent(Record {
            source: Source {
                epoch: self.newest_epoch.wrapping_sub(epochs_back.into()),
                layer: stored.layer.into(),
            },
            seq,
            sent_seq,
            timestamp: stored.timestamp,
            vp8: (stored.flags & (PICTURE_ID | TL0_PIC_IDX) != 0).then_some(header),
            frame_number: (stored.flags & FRAME_NUMBER != 0).then_some(stored.picture_id),
            empty: stored.flags & HOLDS_NOTHING != 0,
        })
    }

    /// Forgets what was sent: it would only delay what comes now.
    pub(super) fn clear(&mut self) {
        self.records.fill(EMPTY);
        self.oldest_sent = self.newest_sent + 1;
    }
}

impl Record {
    /// How it left.
    pub(super) fn rewritten(&self, captured: Instant) -> Rewritten {
        Rewritten {
            seq: self.sent_seq,
            timestamp: self.timestamp,
            captured,
            vp8: self.vp8,
            frame_number: self.frame_number,
            empty: self.empty,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::temporal::Temporal;

    fn packet(seq: u64) -> Packet {
        Packet {
            seq,
            timestamp: 0,
            captured: Instant::now(),
            marker: false,
            keyframe_start: false,
            vp8: None,
            temporal: Temporal::default(),
            payload: Vec::new().into(),
            red: None,
            from_above: 0,
            descriptor: None,
        }
    }

    const SOURCE: Source = Source {
        epoch: 70_000,
        layer: 2,
    };

    fn sent(seq: u64, captured: Instant) -> Rewritten {
        Rewritten {
            seq,
            timestamp: (seq as u32).wrapping_mul(3_000),
            captured,
            vp8: Some(Vp8Header {
                picture_id: Some((seq as u16 & 0x7fff, true)),
                tl0_pic_idx: None,
            }),
            frame_number: None,
            empty: seq.is_multiple_of(7),
        }
    }

    #[test]
    fn what_left_is_known_by_its_number_until_it_is_overwritten() {
        let now = Instant::now();
        let mut history = History::default();
        assert_eq!(history.get(5), Found::Forgotten);
        // Over the wrap of every number that is stored by halves.
        let (first_sent, first) = ((1 << 32) - 100, (3 << 32) - 50);
        for n in 0..700 {
            // 300 a second.
            let at = now + Duration::from_millis(n * 10 / 3);
            history.add(at, SOURCE, &packet(first + n), &sent(first_sent + n, now));
        }
        assert_eq!(
            history.get(first_sent + 187),
            Found::Forgotten,
            "overwritten"
        );
        assert_eq!(
            history.get(first_sent + 700),
            Found::Forgotten,
            "never sent"
        );
        for n in [188, 400, 699] {
            let Found::Sent(record) = history.get(first_sent + n) else {
                panic!("{n} is known");
            };
            assert_eq!((record.source, record.seq), (SOURCE, first + n));
            assert_eq!(record.rewritten(now), sent(first_sent + n, now));
        }
        assert!(size_of::<Stored>() <= 24);
        history.clear();
        assert_eq!(history.get(first_sent + 699), Found::Forgotten);
    }

    #[test]
    fn the_number_of_a_frame_is_known() {
        let now = Instant::now();
        let mut history = History::default();
        let sent = Rewritten {
            vp8: None,
            frame_number: Some(65_535),
            ..sent(1_000, now)
        };
        history.add(now, SOURCE, &packet(5), &sent);
        let Found::Sent(record) = history.get(1_000) else {
            panic!("it is known");
        };
        assert_eq!(record.rewritten(now), sent);
    }

    #[test]
    fn what_never_left_is_not_taken_for_what_is_forgotten() {
        let now = Instant::now();
        let mut history = History::default();
        for n in (1_000..1_600).filter(|n| n % 100 != 50) {
            let at = now + Duration::from_millis((n - 1_000) * 10 / 3);
            history.add(at, SOURCE, &packet(n), &sent(n, now));
        }
        assert_eq!(history.get(1_050), Found::Forgotten, "long ago");
        assert_eq!(history.get(1_150), Found::NotYet);
        assert_eq!(history.get(1_600), Found::Forgotten, "beyond the newest");
        history.clear();
        assert_eq!(history.get(1_150), Found::Forgotten);
    }

    proptest! {
        /// Whatever the rate does, nothing is taken for another, and what left within a second is known.
        #[test]
        fn a_second_is_known_at_any_rate(
            frames in proptest::collection::vec((0u64..200, 1u64..40, 0u64..3), 1..400)
        ) {
            let start = Instant::now();
            let (mut now, mut next) = (start, (1 << 32) - 5_000);
            let mut history = History::default();
            let mut left: BTreeMap<u64, Instant> = BTreeMap::new();
            for (packets, ms, holes) in frames {
                now += Duration::from_millis(ms);
                next += holes;
                for _ in 0..packets {
                    history.add(now, SOURCE, &packet(next + 9), &sent(next, start));
                    left.insert(next, now);
                    next += 1;
                }
            }
            prop_assert!(history.records.len() <= crate::depth::MOST_PACKETS);
            let young = |at: &Instant| now.duration_since(*at) < Duration::from_secs(1);
            let newest = left.keys().next_back().copied().unwrap_or(next);
            // Where numbers that nothing left under lie between, they take places, too.
            let oldest = left.iter().find(|(_, at)| young(at)).map_or(next, |(seq, _)| *seq);
            let is_whole = left.range(oldest..).count() as u64 == newest + 1 - oldest;
            for seq in (newest.saturating_sub(10_000)..newest + 10).step_by(3) {
                match (history.get(seq), left.get(&seq)) {
                    (Found::Sent(record), Some(_)) => {
                        prop_assert_eq!((record.sent_seq, record.seq), (seq, seq + 9));
                    }
                    (Found::Sent(_), None) => prop_assert!(false, "{seq} never left"),
                    (Found::NotYet, at) => prop_assert_eq!(at, None),
                    (Found::Forgotten, Some(at)) if is_whole && newest - seq < 8_000 => {
                        prop_assert!(!young(at), "{seq}, {oldest} to {newest}");
                    }
                    (Found::Forgotten, _) => {}
                }
            }
        }
    }
}
