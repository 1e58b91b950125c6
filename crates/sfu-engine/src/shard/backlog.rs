// SPDX-License-Identifier: MPL-2.0

//! What a viewer that joins is sent first: the layer's current group of pictures, in portions, and what has come since.
//!
//! Portions are counted in octets. They leave at the pace of the viewer's network, but two and a half times as fast as what
//! comes live, and by a fixed time all has left: a replay never falls behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gop::Gop;
use crate::packet::{Batch, Packet};
use crate::rewrite::Squeezed;

/// A replayed group of pictures leaves in portions, so that no buffer on the way overflows.
const PORTION_EVERY: Duration = Duration::from_millis(5);
/// The first portion: a keyframe of some Mbit/s, and less than what home routers' queues take.
const FIRST: i64 = 48_000;
/// Where the network's rate is known, a replay must not take it for longer than this.
const LONGEST: Duration = Duration::from_millis(500);
/// What is sent live must have been caught up with after this part of what was there, within these bounds.
const CATCH_UP: (u32, u32) = (2, 3);
const CATCH_UP_MIN: Duration = Duration::from_millis(500);
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(3);
/// After that time a portion has at least so many octets: 400 Mbit/s, which no stream is faster than, and little enough that
/// others get between.
const LATE: i64 = 256 * 1024;
/// A layer whose rate is not known yet, in bit/s, towards a network of which nothing is known either.
const UNKNOWN_RATE: u64 = 8_000_000;
/// Headers and the SRTP tag of a packet.
const HEADERS: usize = 50;
/// More than this does not wait, whatever the network carries.
const MAX_OCTETS: usize = 24 << 20;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: VecDeque<Waiting>,
    octets: usize,
    due: Option<Instant>,
    /// When the last portion left, and how many octets may still leave.
    last: Option<Instant>,
    credit: i64,
    /// The pace at least, in bit/s.
    pace: u64,
    /// By then it is to be empty.
    until: Option<Instant>,
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

    fn octets(&self) -> usize {
        self.packet().payload.len() + HEADERS
    }
}

impl Backlog {
    /// Whether a network of this rate, in bit/s, carries a group of pictures soon enough.
    pub(super) fn is_quick(gop: &Gop, rate: Option<u64>) -> bool {
        let bits = gop.octets * 8;
        rate.is_none_or(|rate| bits as f64 <= rate as f64 * LONGEST.as_secs_f64())
    }

    /// A group of pictures, dated as if it had just been captured.
    ///
    /// Returns its first packet and its last packet's sequence number.
    pub(super) fn fill(
        &mut self,
        now: Instant,
        gop: &Gop,
        rate: Option<u64>,
    ) -> Option<(&Waiting, u64)> {
        self.clear();
        let last_seq = gop.packets.last()?.packet().seq;
        let (anchor, frames) = anchor(gop)?;
        let live = gop.packets.get(anchor)?.packet();
        self.queue.reserve_exact(gop.packets.len());
        let step = 90_000 / 1_000;
        let mut frame = 0u32;
        let mut at = None;
        for (n, kept) in gop.packets.iter().enumerate() {
            let packet = kept.packet();
            frame += u32::from(at != Some(packet.timestamp));
            at = Some(packet.timestamp);
            let back = frames.saturating_sub(frame);
            let squeezed = match n < anchor {
                true => Squeezed {
                    timestamp: live.timestamp.wrapping_sub(back * step),
                    captured: live.captured - Duration::from_millis(u64::from(back)),
                },
                false => Squeezed {
                    timestamp: packet.timestamp,
                    captured: packet.captured,
                },
            };
            self.add(Waiting {
                batch: kept.batch.clone(),
                index: kept.index,
                squeezed: Some(squeezed),
            });
        }
        let catch_up = gop.span() * CATCH_UP.0 / CATCH_UP.1;
        let layer = gop.rate.unwrap_or_else(|| {
            let seconds = gop.span().max(CATCH_UP_MIN).as_secs_f64();
            let measured = (self.octets as f64 * 8.0 / seconds) as u64;
            measured.max(rate.map_or(UNKNOWN_RATE, |_| 0))
        });
        self.pace = layer.saturating_mul(5) / 2;
        // A network that carries little gets no more than any portion: with a tenth of a second more, a joiner's replay overflowed
        // a queue of 300 ms before 1 Mbit/s.
        let first = rate.map_or(FIRST, |rate| {
            let octets = rate.saturating_mul(3) / 16 * PORTION_EVERY.as_millis() as u64 / 1_000;
            i64::try_from(octets.max(1)).unwrap_or(FIRST)
        });
        self.credit = first.min(FIRST);
        self.last = Some(now);
        self.until = Some(now + catch_up.clamp(CATCH_UP_MIN, CATCH_UP_MAX));
        self.due = Some(now);
        self.queue.front().map(|first| (first, last_seq))
    }

    /// A live packet, behind what waits.
    pub(super) fn push(&mut self, batch: &Arc<Batch>, index: usize) {
        self.add(Waiting {
            batch: batch.clone(),
            index,
            squeezed: None,
        });
        if self.octets > MAX_OCTETS {
            // All leaves with the next portion.
            self.until = self.last;
        }
    }

    fn add(&mut self, waiting: Waiting) {
        self.octets += waiting.octets();
        self.queue.push_back(waiting);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When the next portion is to leave.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What leaves now: half as much again as the network carries, where its rate in bit/s is known, and more where that
    /// would never be all.
    pub(super) fn portion(
        &mut self,
        now: Instant,
        rate: Option<u64>,
    ) -> impl Iterator<Item = Waiting> {
        let since = |at: Instant| now.saturating_duration_since(at);
        let elapsed = self.last.replace(now).map_or(Duration::ZERO, since);
        let pace = self.pace.max(rate.unwrap_or(0).saturating_mul(3) / 2);
        let by_pace = pace as f64 / 8.0 * elapsed.as_secs_f64();
        let left = self
            .until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let parts = left.as_secs_f64() / elapsed.max(PORTION_EVERY).as_secs_f64();
        let by_time = match elapsed {
            Duration::ZERO if !left.is_zero() => 0.0,
            _ => self.octets as f64 / parts.max(1.0),
        };
        self.credit += by_pace.max(by_time) as i64;
        if left.is_zero() {
            self.credit = self.credit.max(LATE);
        }
        let mut count = 0;
        for waiting in &self.queue {
            if self.credit <= 0 {
                break;
            }
            let octets = waiting.octets();
            self.credit -= octets as i64;
            self.octets -= octets;
            count += 1;
        }
        self.due = (count < self.queue.len()).then(|| now + PORTION_EVERY);
        self.queue.drain(..count)
    }

    /// What would leave next, whatever the pace.
    pub(super) fn take_first(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.octets -= waiting.octets();
        Some(waiting)
    }

    /// The shard has no room: the next portion leaves a little later.
    pub(super) fn put_off(&mut self, now: Instant) {
        if self.due.is_some() {
            self.due = Some(now + PORTION_EVERY);
        }
    }

    /// Forgets what waits, and gives its memory back: a viewer joins once, and this is a third of all that it needs.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The first packet that keeps its own date, and its frame's place: that of the last frame or, where something is still to
/// come, of the frame before that, which it may belong to. What comes late is dated as the live stream is.
fn anchor(gop: &Gop) -> Option<(usize, u32)> {
    let end = match gop.holes.first() {
        Some(hole) => gop.packets.iter().position(|k| k.packet().seq > *hole)?,
        None => gop.packets.len(),
    };
    let before = &gop.packets[..end];
    let timestamp = before.last()?.packet().timestamp;
    let anchor = before
        .iter()
        .position(|k| k.packet().timestamp == timestamp)?;
    let mut frames = 1;
    for pair in before[..=anchor].windows(2) {
        frames += u32::from(pair[0].packet().timestamp != pair[1].packet().timestamp);
    }
    Some((anchor, frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::TrackKind;
    use crate::gop::GopCache;
    use crate::temporal::Temporal;

    const FRAME: Duration = Duration::from_millis(33);

    fn frame(n: u32, start: Instant, packets: u64, size: usize) -> Arc<Batch> {
        let packet = |index| Packet {
            seq: 1_000 + u64::from(n) * packets + index,
            timestamp: n * 2_970,
            captured: start + FRAME * n,
            marker: index + 1 == packets,
            keyframe_start: n == 0 && index == 0,
            vp8: None,
            temporal: Temporal::default(),
            payload: vec![0; size].into(),
            red: None,
            from_above: 0,
            descriptor: None,
        };
        Arc::new(Batch {
            kind: TrackKind::Video,
            layer: 0,
            epoch: 0,
            packets: (0..packets).map(packet).collect(),
        })
    }

    /// Replays `frames` frames while live ones come. Returns how long it took, and the most octets that left at once.
    fn replay(frames: u32, packets: u64, size: usize, rate: Option<u64>) -> (Duration, usize) {
        let start = Instant::now();
        let mut cache = GopCache::default();
        for n in 0..frames {
            cache.push(start + FRAME * n, &frame(n, start, packets, size));
        }
        let joined = start + FRAME * frames;
        let mut gop = cache.get(joined).expect("it is whole");
        let bits = packets as usize * (size + HEADERS) * 8 * 30;
        gop.rate = Some(bits as u64);
        let mut backlog = Backlog::default();
        let (_, last) = backlog.fill(joined, &gop, rate).unwrap();
        let (mut now, mut n, mut most) = (joined, frames, 0);
        let mut expected = 1_000;
        while let Some(due) = backlog.due() {
            now = now.max(due);
            while start + FRAME * n <= now {
                let batch = frame(n, start, packets, size);
                for index in 0..batch.packets.len() {
                    backlog.push(&batch, index);
                }
                n += 1;
            }
            let mut at_once = 0;
            for waiting in backlog.portion(now, rate) {
                assert_eq!(waiting.packet().seq, expected, "in order");
                assert_eq!(waiting.squeezed.is_some(), expected <= last);
                expected += 1;
                at_once += waiting.octets();
            }
            most = most.max(at_once);
            assert!(now - joined < Duration::from_secs(10), "falls behind");
        }
        (now - joined, most)
    }

    #[test]
    fn it_catches_up_whatever_the_rate_and_the_size_of_packets() {
        for (packets, size) in [
            (1, 60),
            (10, 60),
            (10, 150),
            (40, 30),
            (4, 1_100),
            (17, 1_000),
            (80, 1_000),
        ] {
            for frames in [3, 30, 60, 110] {
                for rate in [
                    None,
                    Some(0),
                    Some(100_000),
                    Some(1_000_000),
                    Some(100_000_000),
                ] {
                    let octets = packets as usize * size * frames as usize;
                    if octets > 7 << 20 {
                        continue;
                    }
                    let (time, most) = replay(frames, packets, size, rate);
                    let what =
                        format!("{frames} of {packets} x {size} at {rate:?}: {time:?}, {most}");
                    assert!(time <= CATCH_UP_MAX, "{what}");
                    let frame = packets as usize * (size + HEADERS);
                    let network = rate.unwrap_or(0) as usize / 8 * 3 / 2 / 200;
                    // Five frames a time of a frame is what a network sees that carries the keyframes.
                    assert!(
                        most <= FIRST as usize + (frame * 5).max(network) + 2_000,
                        "{what}"
                    );
                }
            }
        }
    }

    #[test]
    fn more_than_the_bound_does_not_wait() {
        let start = Instant::now();
        let mut cache = GopCache::default();
        cache.push(start, &frame(0, start, 10, 1_000));
        let mut backlog = Backlog::default();
        backlog
            .fill(start, &cache.get(start).unwrap(), None)
            .unwrap();
        let live = frame(1, start, 1, 1 << 20);
        for _ in 0..30 {
            backlog.push(&live, 0);
        }
        let count = backlog.portion(start + PORTION_EVERY, Some(1)).count();
        assert_eq!((count, backlog.octets, backlog.due()), (40, 0, None));
    }

    #[test]
    fn frames_are_dated_before_the_live_one_and_from_a_hole_on_as_they_are() {
        let start = Instant::now();
        for (missing, first_true) in [
            (None, 19),
            (Some((15, 1)), 15),
            (Some((15, 0)), 14),
            (Some((0, 1)), 0),
        ] {
            let mut cache = GopCache::default();
            for n in 0..20u32 {
                let mut batch = frame(n, start, 3, 100);
                if let Some((_, index)) = missing.filter(|(at, _)| *at == n) {
                    Arc::get_mut(&mut batch).unwrap().packets.remove(index);
                }
                cache.push(start, &batch);
            }
            let gop = cache.get(start).unwrap();
            let mut backlog = Backlog::default();
            backlog.fill(start, &gop, None).unwrap();
            let mut last = None;
            for waiting in &backlog.queue {
                let (own, date) = (
                    waiting.packet().timestamp,
                    waiting.squeezed.unwrap().timestamp,
                );
                let n = own / 2_970;
                let back = first_true - n.min(first_true);
                let anchor = first_true * 2_970;
                let wanted = if n >= first_true {
                    own
                } else {
                    anchor.wrapping_sub(back * 90)
                };
                assert_eq!(date, wanted, "{missing:?}, frame {n}");
                assert!(last.is_none_or(|l: u32| date.wrapping_sub(l) < 1 << 31));
                last = Some(date);
            }
        }
    }
}
