// SPDX-License-Identifier: MPL-2.0

//! What was sent under each transport-wide number: 8 bytes a packet, in a ring that grows to the rate.

use super::clock::Tick;
use crate::rtcp::Numbers;

/// Packets that the ring holds at first, and at most.
const FIRST: usize = 256;
const MOST: usize = 4_096;
/// The ring grows rather than lose a packet younger than this that no report has spoken of, in µs.
const KEEP: i32 = 3_000_000;

/// What is known of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    /// The number was not used.
    #[default]
    NotSent,
    UnderWay,
    Missing,
    Arrived,
}

/// One packet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    pub(super) sent: Tick,
    pub(super) bytes: u16,
    pub(super) fate: Fate,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Records {
    /// A power of two.
    ring: Vec<Record>,
    /// The extended number after the newest packet's. `None` before the first.
    next: Option<u64>,
}

impl Records {
    pub(super) fn new() -> Self {
        Self {
            ring: vec![Record::default(); FIRST],
            next: None,
        }
    }

    /// A packet leaves. Returns its extended number, or `None` for a number from the past.
    pub(super) fn push(&mut self, at: Tick, seq: u16, bytes: usize) -> Option<u64> {
        let next = *self.next.get_or_insert(u64::from(seq) + (1 << 16));
        let skipped = seq.wrapping_sub(next as u16);
        if skipped >= 1 << 15 {
            return None;
        }
        let number = next + u64::from(skipped);
        for unused in number.saturating_sub(self.ring.len() as u64).max(next)..number {
            let slot = self.slot(unused);
            self.ring[slot] = Record::default();
        }
        let mut slot = self.slot(number);
        let oldest = self.ring[slot];
        let needed = oldest.fate == Fate::UnderWay && at.since(oldest.sent) < KEEP;
        if needed && self.ring.len() < MOST {
            self.grow(next);
            slot = self.slot(number);
        }
        self.ring[slot] = Record {
            sent: at,
            bytes: u16::try_from(bytes).unwrap_or(u16::MAX),
            fate: Fate::UnderWay,
        };
        self.next = Some(number + 1);
        Some(number)
    }

    /// The packet of a number that a report names, and its extended number.
    pub(super) fn find(&mut self, seq: u16) -> Option<(u64, &mut Record)> {
        let next = self.next?;
        let back = match (next as u16).wrapping_sub(seq) {
            0 => 1 << 16,
            back => usize::from(back),
        };
        if back > self.ring.len() {
            return None;
        }
        let number = next - back as u64;
        let slot = self.slot(number);
        let record = &mut self.ring[slot];
        (record.fate != Fate::NotSent).then_some((number, record))
    }

    /// The numbers that can be found, and those among them that were not used.
    pub(super) fn known(&self) -> Numbers {
        let Some(next) = self.next else {
            return Numbers::default();
        };
        let count = self.ring.len() as u16;
        Numbers {
            first: (next as u16).wrapping_sub(count),
            count,
        }
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.ring.capacity() * size_of::<Record>()
    }

    fn slot(&self, number: u64) -> usize {
        number as usize & (self.ring.len() - 1)
    }

    fn grow(&mut self, next: u64) {
        let before = std::mem::take(&mut self.ring);
        self.ring = vec![Record::default(); before.len() * 2];
        for number in next - before.len() as u64..next {
            let slot = self.slot(number);
            self.ring[slot] = before[number as usize & (before.len() - 1)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(records: &mut Records, from: u32, count: u32, every: u32) {
        for n in from..from + count {
            records.push(Tick(n * every), n as u16, n as usize % 1_000);
        }
    }

    #[test]
    fn a_packet_takes_eight_bytes_and_is_found_by_its_number() {
        assert_eq!(size_of::<Record>(), 8);
        let mut records = Records::new();
        fill(&mut records, 65_500, 100, 10_000);
        for seq in 65_500..65_600u32 {
            let (number, record) = records.find(seq as u16).unwrap();
            assert_eq!(number, 65_536 + u64::from(seq));
            assert_eq!(usize::from(record.bytes), seq as usize % 1_000);
        }
        assert!(records.find(64).is_none(), "not sent yet");
        assert!(records.find(65_499).is_none(), "not sent either");
    }

    #[test]
    fn the_ring_grows_to_three_seconds_and_no_further() {
        let mut records = Records::new();
        fill(&mut records, 0, 2_000, 100_000);
        assert_eq!(records.ring.len(), FIRST, "10 packets a second");
        let mut records = Records::new();
        fill(&mut records, 0, 2_000, 3_000);
        assert_eq!(records.ring.len(), 1_024, "333 packets a second");
        for seq in 1_000..2_000u16 {
            let (_, record) = records.find(seq).unwrap();
            assert_eq!(record.sent, Tick(u32::from(seq) * 3_000));
        }
        fill(&mut records, 2_000, 20_000, 1);
        assert_eq!(records.ring.len(), MOST);
        assert!(records.find(2_000).is_none(), "overwritten");
    }

    #[test]
    fn numbers_may_be_left_out_but_not_go_back() {
        let mut records = Records::new();
        fill(&mut records, 0, 300, 1_000);
        assert!(records.push(Tick(0), 299, 1).is_none());
        assert!(records.push(Tick(0), 0, 1).is_none());
        assert!(records.push(Tick(400_000), 320, 1).is_some());
        assert!(records.find(310).is_none());
        assert!(records.find(299).is_some());
        assert!(records.push(Tick(400_000), 20_000, 1).is_some());
        assert!(records.find(19_999).is_none());
        assert!(records.find(320).is_none());
    }
}
