// SPDX-License-Identifier: MPL-2.0

//! What a viewer that joins is sent first: the layer's current group of pictures, in portions, and what has come since.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gop::Gop;
use crate::packet::{Batch, Packet};
use crate::rewrite::Squeezed;

/// A replayed group of pictures leaves in portions, so that no buffer on the way overflows.
const PORTION: usize = 24;
const PORTION_EVERY: Duration = Duration::from_millis(5);
/// Where the network's rate is known, a replay must not take it for longer than this.
const LONGEST: Duration = Duration::from_millis(500);
/// A packet, as far as the pace of a replay depends on it.
const PACKET_BITS: u64 = 9_600;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: VecDeque<Waiting>,
    due: Option<Instant>,
}

/// A packet that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    batch: Arc<Batch>,
    index: usize,
    /// Another date than its own, for a replayed frame.
    pub(super) squeezed: Option<Squeezed>,
}

impl Waiting {
    pub(super) fn packet(&self) -> &Packet {
        &self.batch.packets[self.index]
    }
}

impl Backlog {
    /// Whether a network of this rate, in bit/s, carries a group of pictures soon enough.
    pub(super) fn is_quick(gop: &Gop, rate: Option<u64>) -> bool {
        let bits: usize = gop.batches.iter().map(|b| b.bytes() * 8).sum();
        rate.is_none_or(|rate| bits as f64 <= rate as f64 * LONGEST.as_secs_f64())
    }

    /// A group of pictures, dated as if it had just been captured.
    ///
    /// Returns its first packet and its last packet's sequence number.
    pub(super) fn fill(&mut self, now: Instant, gop: &Gop) -> Option<(&Waiting, u64)> {
        self.clear();
        let packets = || {
            let batches = gop.batches.iter().enumerate();
            batches.flat_map(|(n, batch)| {
                let start = if n == 0 { gop.start } else { 0 };
                (start..batch.packets.len()).map(move |index| (batch, index))
            })
        };
        let mut frames = 0u32;
        let mut last: Option<&Packet> = None;
        for (batch, index) in packets() {
            let packet = &batch.packets[index];
            frames += u32::from(last.is_none_or(|l| l.timestamp != packet.timestamp));
            last = Some(packet);
        }
        let live = last?;
        self.queue.reserve_exact(packets().count());
        let step = 90_000 / 1_000;
        let mut frame = 0u32;
        let mut at = None;
        for (batch, index) in packets() {
            let packet = &batch.packets[index];
            frame += u32::from(at != Some(packet.timestamp));
            at = Some(packet.timestamp);
            let back = frames - frame;
            let squeezed = Some(Squeezed {
                timestamp: live.timestamp.wrapping_sub(back * step),
                captured: live.captured - Duration::from_millis(u64::from(back)),
            });
            self.queue.push_back(Waiting {
                batch: batch.clone(),
                index,
                squeezed,
            });
        }
        self.due = Some(now);
        self.queue.front().map(|first| (first, live.seq))
    }

    /// A live packet, behind what waits.
    pub(super) fn push(&mut self, batch: &Arc<Batch>, index: usize) {
        self.queue.push_back(Waiting {
            batch: batch.clone(),
            index,
            squeezed: None,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When the next portion is to leave.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What leaves now: half as much again as the network carries, where its rate in bit/s is known.
    pub(super) fn portion(
        &mut self,
        now: Instant,
        rate: Option<u64>,
    ) -> impl Iterator<Item = Waiting> {
        let portion = rate.map_or(PORTION, |rate| {
            let bits = rate * 3 / 2 * PORTION_EVERY.as_millis() as u64 / 1_000;
            usize::try_from(bits / PACKET_BITS).map_or(PORTION, |n| n.clamp(1, PORTION))
        });
        let count = portion.min(self.queue.len());
        self.due = (count < self.queue.len()).then(|| now + PORTION_EVERY);
        self.queue.drain(..count)
    }

    /// Forgets what waits, and gives its memory back: a viewer joins once, and this is a third of all that it needs.
    pub(super) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.due = None;
    }
}
