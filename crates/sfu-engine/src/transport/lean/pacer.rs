// SPDX-License-Identifier: MPL-2.0

//! Spreads a frame's packets in time where the viewer's network has little room for bursts.
//!
//! At most for half of the time between two frames, so that it never becomes latency.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Outgoing, Slot};
use crate::codec::dependency::Descriptor;
use crate::codec::{Codec, Vp8Header};

/// Half of the time between two frames at 30 a second.
const LONGEST: Duration = Duration::from_millis(16);
/// Packets leave at this many times the estimate.
const FACTOR: f64 = 1.5;

/// Room for a keyframe, from the first packet that waits on.
const ROOM: usize = 64;

/// A packet that waits. It owns what [`Outgoing`] borrows.
#[derive(Debug)]
pub(super) struct Waiting {
    slot: Slot,
    codec: Codec,
    seq: u64,
    timestamp: u32,
    captured: Instant,
    marker: bool,
    keyframe_start: bool,
    vp8: Option<Vp8Header>,
    descriptor: Option<(Arc<Descriptor>, u16)>,
    payload: Arc<[u8]>,
}

impl Waiting {
    pub(super) fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            slot: self.slot,
            codec: self.codec,
            seq: self.seq,
            timestamp: self.timestamp,
            captured: self.captured,
            marker: self.marker,
            keyframe_start: self.keyframe_start,
            vp8: self.vp8,
            descriptor: self.descriptor.as_ref().map(|(d, number)| (d, *number)),
            payload: &self.payload,
            red: None,
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    queue: VecDeque<Waiting>,
    due: Option<Instant>,
    /// By then the queue is to be empty.
    until: Option<Instant>,
}

impl Pacer {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When the next packet is to leave.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn push(&mut self, now: Instant, packet: &Outgoing<'_>) {
        if self.queue.capacity() == 0 {
            self.queue.reserve(ROOM);
        }
        self.due.get_or_insert(now);
        self.until = Some(now + LONGEST);
        self.queue.push_back(Waiting {
            slot: packet.slot,
            codec: packet.codec,
            seq: packet.seq,
            timestamp: packet.timestamp,
            captured: packet.captured,
            marker: packet.marker,
            keyframe_start: packet.keyframe_start,
            vp8: packet.vp8,
            descriptor: packet.descriptor.map(|(d, number)| (d.clone(), number)),
            payload: packet.payload.clone(),
        });
    }

    /// The next packet, if its time has come. `rate` is what the network carries, in bit/s.
    pub(super) fn pop(&mut self, now: Instant, rate: u64) -> Option<Waiting> {
        let due = self.due.filter(|at| *at <= now)?;
        let left = self.queue.len() as u32;
        let packet = self.queue.pop_front();
        let bits = packet.as_ref().map_or(0, |p| p.payload.len() * 8) as f64;
        let by_rate = Duration::from_secs_f64(bits / (rate.max(1) as f64 * FACTOR));
        let time = self.until.map(|at| at.saturating_duration_since(due));
        let gap = by_rate.min(time.unwrap_or_default() / left.max(1));
        self.due = (!self.queue.is_empty()).then_some(due + gap);
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: u64, rate: u64) -> Vec<Duration> {
        let start = Instant::now();
        let payload: Arc<[u8]> = vec![0; 1_000].into();
        let mut pacer = Pacer::default();
        for seq in 0..count {
            let packet = Outgoing {
                slot: Slot(0),
                codec: Codec::H264,
                seq,
                timestamp: 0,
                captured: start,
                marker: false,
                keyframe_start: false,
                vp8: None,
                descriptor: None,
                payload: &payload,
                red: None,
            };
            pacer.push(start, &packet);
        }
        let mut left = Vec::new();
        while let Some(at) = pacer.due() {
            let packet = pacer.pop(at, rate).unwrap();
            assert_eq!(packet.seq, left.len() as u64, "in order");
            left.push(at - start);
        }
        left
    }

    #[test]
    fn packets_leave_at_one_and_a_half_times_the_rate() {
        let at = run(4, 8_000_000);
        assert_eq!(at[0], Duration::ZERO);
        let gap = at[1] - at[0];
        assert!((600..=700).contains(&gap.as_micros()), "{gap:?}");
    }

    #[test]
    fn a_large_frame_is_not_spread_for_longer_than_half_a_frame() {
        let at = run(60, 300_000);
        assert!(at[59] <= LONGEST, "{:?}", at[59]);
        assert!(at[59] > LONGEST / 2);
    }
}
