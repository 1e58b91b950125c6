// SPDX-License-Identifier: MPL-2.0

//! The last packets of a layer, from which whatever viewer missed one gets it again (RFC 4585).
//!
//! One a layer, shared by all viewers of all shards. Filled by the publisher's side with references, once a packet.

use std::sync::Arc;

use crate::packet::{Batch, Packet};

/// Nearly four seconds of 2.5 Mbit/s. A power of two.
const PACKETS: usize = 1_024;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    slots: Vec<Option<Slot>>,
}

#[derive(Debug, Clone)]
struct Slot {
    batch: Arc<Batch>,
    index: usize,
}

fn place(seq: u64) -> usize {
    seq as usize & (PACKETS - 1)
}

impl Ring {
    /// Takes in a batch that was just forwarded.
    pub(crate) fn push(&mut self, batch: &Arc<Batch>) {
        if self.slots.is_empty() {
            self.slots.resize(PACKETS, None);
        }
        for (index, packet) in batch.packets.iter().enumerate() {
            self.slots[place(packet.seq)] = Some(Slot {
                batch: batch.clone(),
                index,
            });
        }
    }

    /// The packet with this number of this publisher, where it is still there.
    pub(crate) fn get(&self, epoch: u32, seq: u64) -> Option<&Packet> {
        let slot = self.slots.get(place(seq))?.as_ref()?;
        let packet = &slot.batch.packets[slot.index];
        (packet.seq == seq && slot.batch.epoch == epoch).then_some(packet)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::codec::TrackKind;
    use crate::temporal::Temporal;

    fn batch(seqs: std::ops::Range<u64>) -> Arc<Batch> {
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
        };
        Arc::new(Batch {
            kind: TrackKind::Video,
            layer: 0,
            epoch: 1,
            packets: seqs.map(packet).collect(),
        })
    }

    #[test]
    fn the_last_packets_are_found_by_their_numbers() {
        let mut ring = Ring::default();
        assert!(ring.get(1, 70_000).is_none());
        let count = PACKETS as u64;
        ring.push(&batch(70_000..70_000 + count));
        ring.push(&batch(70_000 + count..70_010 + count));
        assert!(ring.get(1, 70_009).is_none(), "overwritten");
        assert_eq!(ring.get(1, 70_010).map(|p| p.seq), Some(70_010));
        assert_eq!(
            ring.get(1, 70_009 + count).map(|p| p.seq),
            Some(70_009 + count)
        );
        assert!(ring.get(1, 70_010 + count).is_none(), "not yet come");
        assert!(ring.get(2, 70_010).is_none(), "another publisher's");
    }
}
