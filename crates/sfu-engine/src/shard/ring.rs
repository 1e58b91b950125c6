// SPDX-License-Identifier: MPL-2.0

//! The last packets of a layer, from which whatever viewer missed one gets it again (RFC 4585).
//!
//! One a layer and shard, for the shard's viewers: filled with references, once a packet, and read without a lock. It
//! holds at least a second, whatever the rate: see [`Depth`].

use std::sync::Arc;
use std::time::Instant;

use crate::depth::Depth;
use crate::packet::{Batch, Packet};
use crate::rewrite::Source;

/// The rings of a stream's layers.
#[derive(Debug, Default)]
pub(super) struct Rings {
    layers: Vec<Ring>,
}

impl Rings {
    /// Takes in video that is about to be forwarded.
    pub(super) fn push(&mut self, now: Instant, batch: &Arc<Batch>) {
        if self.layers.len() <= batch.layer {
            self.layers.resize_with(batch.layer + 1, Ring::default);
        }
        self.layers[batch.layer].push(now, batch);
    }

    /// The packet with this number, where it is still there.
    pub(super) fn get(&self, source: Source, seq: u64) -> Option<&Packet> {
        self.layers.get(source.layer)?.get(source.epoch, seq)
    }
}

/// See the module's description.
#[derive(Debug, Default)]
struct Ring {
    /// A power of two of them.
    slots: Vec<Option<Slot>>,
    depth: Depth,
}

#[derive(Debug, Clone)]
struct Slot {
    batch: Arc<Batch>,
    index: usize,
}

impl Slot {
    fn packet(&self) -> &Packet {
        &self.batch.packets[self.index]
    }

    /// What comes later has more.
    fn age(&self) -> (u32, u64) {
        (self.batch.epoch, self.packet().seq)
    }
}

impl Ring {
    fn push(&mut self, now: Instant, batch: &Arc<Batch>) {
        for index in 0..batch.packets.len() {
            if let Some(room) = self.depth.add(now, 1, self.slots.len()) {
                self.resize(room);
            }
            self.put(Slot {
                batch: batch.clone(),
                index,
            });
        }
    }

    /// Where a packet with this number is, if it is there.
    fn place(&self, seq: u64) -> usize {
        seq as usize & self.slots.len().saturating_sub(1)
    }

    /// Puts a packet in its place, unless a newer one has that.
    fn put(&mut self, slot: Slot) {
        let place = self.place(slot.packet().seq);
        if let Some(held) = self.slots.get_mut(place)
            && held.as_ref().is_none_or(|held| held.age() < slot.age())
        {
            *held = Some(slot);
        }
    }

    fn resize(&mut self, room: usize) {
        let before = std::mem::replace(&mut self.slots, vec![None; room]);
        for slot in before.into_iter().flatten() {
            self.put(slot);
        }
    }

    fn get(&self, epoch: u32, seq: u64) -> Option<&Packet> {
        let slot = self.slots.get(self.place(seq))?.as_ref()?;
        (slot.age() == (epoch, seq)).then(|| slot.packet())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::codec::TrackKind;
    use crate::temporal::Temporal;

    fn batch(epoch: u32, seqs: std::ops::Range<u64>) -> Arc<Batch> {
        let now = Instant::now();
        let packet = |seq| Packet {
            seq,
            timestamp: 0,
            captured: now,
            marker: false,
            keyframe_start: false,
            vp8: None,
            temporal: Temporal::default(),
            payload: [seq as u8].into(),
            red: None,
            from_above: 0,
            descriptor: None,
        };
        Arc::new(Batch {
            kind: TrackKind::Video,
            layer: 0,
            epoch,
            packets: seqs.map(packet).collect(),
        })
    }

    #[test]
    fn the_last_second_is_found_at_any_rate() {
        for per_frame in [1, 9, 57, 110, 190] {
            let (mut ring, mut now) = (Ring::default(), Instant::now());
            assert!(ring.get(1, 70_000).is_none());
            let mut next = 70_000;
            // Up and down again, so that it grows and shrinks.
            for frame in 0..2_000 {
                now += Duration::from_millis(33);
                let count = if frame < 1_000 { per_frame } else { 2 };
                ring.push(now, &batch(1, next..next + count));
                next += count;
                let kept = if frame < 1_000 { 30 * per_frame } else { 60 };
                for seq in next.saturating_sub(kept).max(70_000)..next {
                    let found = ring.get(1, seq).map(|p| p.seq);
                    assert_eq!(found, Some(seq), "{per_frame} a frame, {frame}");
                }
            }
            assert!(ring.slots.len() <= 128, "given back");
            assert!(ring.get(1, next).is_none(), "not yet come");
            assert!(ring.get(1, 70_000).is_none(), "overwritten");
            assert!(ring.get(2, next - 1).is_none(), "another publisher's");
        }
    }

    #[test]
    fn what_comes_late_does_not_replace_what_is_newer() {
        let (mut ring, now) = (Ring::default(), Instant::now());
        ring.push(now, &batch(1, 1_000..1_030));
        ring.push(now, &batch(1, 1_029 - 64..1_031 - 64));
        assert_eq!(ring.get(1, 1_029).map(|p| p.seq), Some(1_029));
        // Another publisher counts from elsewhere.
        ring.push(now, &batch(2, 5..6));
        assert_eq!(ring.get(2, 5).map(|p| p.seq), Some(5));
    }
}
