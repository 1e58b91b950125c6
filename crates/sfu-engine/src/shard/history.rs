// SPDX-License-Identifier: MPL-2.0

//! What a viewer was sent under which number, so that it can be sent again: not the packets, only what became of them.
//!
//! The packets themselves are in the layer's [`Ring`](crate::ring::Ring), which all viewers share.

use std::time::Instant;

use crate::codec::Vp8Header;
use crate::packet::Packet;
use crate::rewrite::{Rewritten, Source};

/// Nearly two seconds of 2.5 Mbit/s. A power of two.
const PACKETS: usize = 512;

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
}

/// The same, small: there are hundreds for each viewer.
#[derive(Debug, Clone, Copy)]
struct Stored {
    sent_seq: u32,
    seq: u32,
    timestamp: u32,
    epoch: u16,
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
    records: Vec<Stored>,
    /// The newest numbers, of which the records hold the lower halves.
    newest_seq: u64,
    newest_epoch: u32,
}

impl History {
    /// A packet leaves.
    pub(super) fn add(&mut self, source: Source, packet: &Packet, sent: &Rewritten) {
        if self.records.is_empty() {
            self.records.resize(PACKETS, EMPTY);
        }
        let mut flags = USED;
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
        self.newest_seq = packet.seq;
        self.newest_epoch = source.epoch;
        self.records[sent.seq as usize & (PACKETS - 1)] = Stored {
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

    /// What left under this number.
    pub(super) fn get(&self, sent_seq: u64) -> Option<Record> {
        let stored = self.records.get(sent_seq as usize & (PACKETS - 1))?;
        if stored.flags & USED == 0 || stored.sent_seq != sent_seq as u32 {
            return None;
        }
        let back = (self.newest_seq as u32).wrapping_sub(stored.seq) as i32;
        let seq = self.newest_seq.checked_add_signed(-i64::from(back))?;
        let epochs_back = (self.newest_epoch as u16).wrapping_sub(stored.epoch);
        let header = Vp8Header {
            picture_id: (stored.flags & PICTURE_ID != 0)
                .then_some((stored.picture_id, stored.flags & LONG_PICTURE_ID != 0)),
            tl0_pic_idx: (stored.flags & TL0_PIC_IDX != 0).then_some(stored.tl0_pic_idx),
        };
        Some(Record {
            source: Source {
                epoch: self.newest_epoch.wrapping_sub(epochs_back.into()),
                layer: stored.layer.into(),
            },
            seq,
            sent_seq,
            timestamp: stored.timestamp,
            vp8: (stored.flags & (PICTURE_ID | TL0_PIC_IDX) != 0).then_some(header),
        })
    }

    /// Forgets what was sent: it would only delay what comes now.
    pub(super) fn clear(&mut self) {
        self.records.fill(EMPTY);
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u64) -> Packet {
        Packet {
            seq,
            timestamp: 0,
            captured: Instant::now(),
            marker: false,
            keyframe_start: false,
            vp8: None,
            payload: Vec::new().into(),
            red: None,
        }
    }

    #[test]
    fn what_left_is_known_by_its_number_until_it_is_overwritten() {
        let now = Instant::now();
        let mut history = History::default();
        assert_eq!(history.get(5), None);
        let source = Source {
            epoch: 70_000,
            layer: 2,
        };
        // Over the wrap of every number that is stored by halves.
        let (first_sent, first) = ((1 << 32) - 100, (3 << 32) - 50);
        let sent = |n: u64| Rewritten {
            seq: first_sent + n,
            timestamp: (n as u32).wrapping_mul(3_000),
            captured: now,
            vp8: Some(Vp8Header {
                picture_id: Some((n as u16 & 0x7fff, true)),
                tl0_pic_idx: None,
            }),
        };
        for n in 0..700 {
            history.add(source, &packet(first + n), &sent(n));
        }
        assert_eq!(history.get(first_sent + 187), None, "overwritten");
        assert_eq!(history.get(first_sent + 700), None, "never sent");
        for n in [188, 400, 699] {
            let record = history.get(first_sent + n).unwrap();
            assert_eq!((record.source, record.seq), (source, first + n));
            assert_eq!(record.rewritten(now), sent(n));
        }
        assert!(size_of::<Stored>() <= 24);
        history.clear();
        assert_eq!(history.get(first_sent + 699), None);
    }
}
