// SPDX-License-Identifier: MPL-2.0

//! Joins packets that queued up while their shard was at work, so that each viewer is visited once for all of them.
//! Nothing waits here: under little load each packet goes by itself, and under more they go together.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::packet::Batch;

/// Packets that go together at most: a viewer's share of the socket's buffer.
const MAX_PACKETS: usize = 256;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    stream: u64,
    first: Arc<Batch>,
    more: Vec<Arc<Batch>>,
    packets: usize,
}

impl Waiting {
    fn takes(&self, stream: u64, batch: &Batch) -> bool {
        self.stream == stream
            && self.first.kind == batch.kind
            && self.first.layer == batch.layer
            && self.first.epoch == batch.epoch
            && self.packets + batch.packets.len() <= MAX_PACKETS
    }

    fn join(self) -> Arc<Batch> {
        if self.more.is_empty() {
            return self.first;
        }
        let mut packets = Vec::with_capacity(self.packets);
        for batch in std::iter::once(&self.first).chain(&self.more) {
            packets.extend(batch.packets.iter().cloned());
        }
        Arc::new(Batch {
            kind: self.first.kind,
            layer: self.first.layer,
            epoch: self.first.epoch,
            packets,
        })
    }
}

impl Gathered {
    /// Adds packets. The order within a track and layer stays.
    pub(super) fn add(&mut self, stream: u64, batch: Arc<Batch>) {
        let mut before = self.waiting.iter_mut().rev();
        // A new publisher's packets don't go before the last one's.
        let of_stream = before.by_ref().filter(|w| w.stream == stream);
        let mut same_epoch = of_stream.take_while(|w| w.first.epoch == batch.epoch);
        let same = same_epoch.find(|w| w.first.kind == batch.kind && w.first.layer == batch.layer);
        if let Some(waiting) = same.filter(|w| w.takes(stream, &batch)) {
            waiting.packets += batch.packets.len();
            waiting.more.push(batch);
            return;
        }
        let packets = batch.packets.len();
        self.waiting.push_back(Waiting {
            stream,
            first: batch,
            more: Vec::new(),
            packets,
        });
    }

    /// Takes out what came first, with its stream.
    pub(super) fn next(&mut self) -> Option<(u64, Arc<Batch>)> {
        let waiting = self.waiting.pop_front()?;
        Some((waiting.stream, waiting.join()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::codec::TrackKind;
    use crate::packet::Packet;
    use crate::temporal::Temporal;

    fn batch(kind: TrackKind, layer: usize, epoch: u32, seqs: &[u64]) -> Arc<Batch> {
        let packet = |seq: &u64| Packet {
            seq: *seq,
            timestamp: 0,
            captured: Instant::now(),
            marker: false,
            keyframe_start: false,
            vp8: None,
            temporal: Temporal::default(),
            payload: [1].into(),
            red: None,
            from_above: 0,
            descriptor: None,
        };
        Arc::new(Batch {
            kind,
            layer,
            epoch,
            packets: seqs.iter().map(packet).collect(),
        })
    }

    #[test]
    fn packets_of_one_track_go_together_in_order() {
        let (video, audio) = (TrackKind::Video, TrackKind::Audio);
        let mut gathered = Gathered::default();
        gathered.add(1, batch(video, 0, 1, &[1, 2]));
        gathered.add(1, batch(audio, 0, 1, &[7]));
        gathered.add(1, batch(video, 1, 1, &[4]));
        gathered.add(2, batch(video, 0, 1, &[9]));
        gathered.add(1, batch(video, 0, 1, &[3]));
        gathered.add(1, batch(video, 0, 2, &[5]));
        gathered.add(1, batch(video, 0, 2, &[6]));
        let mut all = Vec::new();
        while let Some((stream, batch)) = gathered.next() {
            let seqs: Vec<_> = batch.packets.iter().map(|p| p.seq).collect();
            all.push((stream, batch.layer, batch.epoch, seqs));
        }
        assert_eq!(
            all,
            [
                (1, 0, 1, vec![1, 2, 3]),
                (1, 0, 1, vec![7]),
                (1, 1, 1, vec![4]),
                (2, 0, 1, vec![9]),
                (1, 0, 2, vec![5, 6]),
            ]
        );
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut gathered = Gathered::default();
        let seqs: Vec<u64> = (0..200).collect();
        gathered.add(1, batch(TrackKind::Video, 0, 1, &seqs));
        gathered.add(1, batch(TrackKind::Video, 0, 1, &seqs));
        assert_eq!(gathered.next().map(|(_, b)| b.packets.len()), Some(200));
        assert_eq!(gathered.next().map(|(_, b)| b.packets.len()), Some(200));
        assert!(gathered.next().is_none());
    }
}
