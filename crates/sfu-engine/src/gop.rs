// SPDX-License-Identifier: MPL-2.0

//! The current group of pictures of a layer, kept so that a viewer who joins sees a picture at once.
//!
//! Filled by the publisher's side for each batch, copied (references only) for each viewer who joins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::packet::Batch;

/// A larger group of pictures is not replayed: a joiner gets a new keyframe sooner than this many bytes.
const MAX_BYTES: usize = 512 * 1024;
const MAX_PACKETS: usize = 600;
/// A group of pictures whose newest packet is older is a layer that stopped.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// The packets since the last keyframe of a layer.
#[derive(Debug, Default)]
pub struct GopCache {
    batches: Vec<Arc<Batch>>,
    /// Index in the first batch at which the keyframe starts.
    start: usize,
    bytes: usize,
    packets: usize,
    /// The group of pictures has a hole or grew too large: wait for the next keyframe.
    broken: bool,
    last_seq: Option<u64>,
    last_arrival: Option<Instant>,
}

/// What a joiner is sent first: batches and the index in the first one at which to begin.
#[derive(Debug, Clone, Default)]
pub struct Gop {
    /// The batches, oldest first.
    pub batches: Vec<Arc<Batch>>,
    /// Index of the first packet to send in the first batch.
    pub start: usize,
}

impl GopCache {
    /// Takes in a batch that was just forwarded.
    pub fn push(&mut self, now: Instant, batch: &Arc<Batch>) {
        self.last_arrival = Some(now);
        let key = batch.packets.iter().rposition(|p| p.keyframe_start);
        if let Some(start) = key {
            self.clear();
            self.start = start;
        } else if self.batches.is_empty() {
            return;
        }
        for packet in &batch.packets[key.unwrap_or(0)..] {
            self.broken |= self.last_seq.is_some_and(|last| packet.seq != last + 1);
            self.last_seq = Some(packet.seq);
            self.packets += 1;
            self.bytes += packet.payload.len();
        }
        self.broken |= self.bytes > MAX_BYTES || self.packets > MAX_PACKETS;
        if self.broken {
            // Nothing of it will be replayed: don't hold the memory until the next keyframe.
            self.batches.clear();
        } else {
            self.batches.push(batch.clone());
        }
    }

    /// The group of pictures to replay, where it is whole, small and fresh.
    pub fn get(&self, now: Instant) -> Option<Gop> {
        let fresh = self
            .last_arrival
            .is_some_and(|at| now.saturating_duration_since(at) < MAX_SILENCE);
        (fresh && !self.batches.is_empty()).then(|| Gop {
            batches: self.batches.clone(),
            start: self.start,
        })
    }

    /// Forgets everything: the publisher has changed.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
        self.packets = 0;
        self.start = 0;
        self.broken = false;
        self.last_seq = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::TrackKind;
    use crate::packet::Packet;
    use crate::temporal::Temporal;

    fn batch(seqs: &[(u64, bool)], size: usize) -> Arc<Batch> {
        let packets = seqs.iter().map(|&(seq, keyframe_start)| Packet {
            seq,
            timestamp: 0,
            captured: Instant::now(),
            marker: false,
            keyframe_start,
            vp8: None,
            temporal: Temporal::default(),
            payload: vec![0; size].into(),
            red: None,
        });
        Arc::new(Batch {
            kind: TrackKind::Video,
            layer: 0,
            epoch: 0,
            packets: packets.collect(),
        })
    }

    #[test]
    fn holds_what_follows_the_last_keyframe() {
        let now = Instant::now();
        let mut gop = GopCache::default();
        gop.push(now, &batch(&[(1, false)], 10));
        assert!(gop.get(now).is_none(), "no keyframe yet");
        gop.push(now, &batch(&[(2, true), (3, false)], 10));
        gop.push(now, &batch(&[(4, false)], 10));
        assert_eq!(
            gop.get(now).map(|g| (g.batches.len(), g.start)),
            Some((2, 0))
        );
        gop.push(now, &batch(&[(5, false), (6, true)], 10));
        assert_eq!(
            gop.get(now).map(|g| (g.batches.len(), g.start)),
            Some((1, 1))
        );
    }

    #[test]
    fn is_not_replayed_with_a_hole_too_large_or_stale() {
        let now = Instant::now();
        let mut gop = GopCache::default();
        gop.push(now, &batch(&[(1, true)], 10));
        assert!(gop.get(now + MAX_SILENCE).is_none(), "stale");
        gop.push(now, &batch(&[(3, false)], 10));
        assert!(gop.get(now).is_none(), "hole");
        gop.push(now, &batch(&[(4, false)], 10));
        assert!(gop.get(now).is_none(), "still the same group of pictures");
        gop.push(now, &batch(&[(5, true)], 10));
        assert!(gop.get(now).is_some());
        gop.push(now, &batch(&[(6, false)], MAX_BYTES));
        assert!(gop.get(now).is_none(), "too large");
    }
}
