// SPDX-License-Identifier: MPL-2.0

//! The queue that never empties: the least delay of each fifth of a second, above its base.
//!
//! A frame's burst and jitter lengthen the delay of some packets. Only too much traffic lengthens that of all (CoDel,
//! RFC 8289). The base is the least delay of the last 5 to 10 s (LEDBAT, RFC 6817), so that another route or a drifting
//! clock becomes the base in time.

use super::clock::Tick;

/// One interval, in µs, and the packets that it must have.
const INTERVAL: i32 = 200_000;
const PACKETS: u32 = 4;
/// An interval that took longer for want of packets tells nothing.
const TOO_LONG: i32 = 1_000_000;
/// The base is the least of this time and of that before it.
const EPOCH: i32 = 5_000_000;
/// A queue below this is none; one above that is a standing queue. In µs.
const EMPTY: i32 = 20_000;
const FULL: i32 = 40_000;
/// What it must grow by in each of three intervals: a burst lets it grow in one or two.
const GROWS: i32 = 3_000;
/// A queue that loses this share of what comes is full, unless it becomes shorter by this much.
const OVERFLOWS: f64 = 0.01;
const DRAINS: i32 = 5_000;

/// What the queue says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// There is none.
    Calm,
    /// There is one, or it is not known.
    Queued,
    /// More comes than gets through.
    Overload,
}

#[derive(Debug, Clone, Copy, Default)]
struct Interval {
    least: i32,
    packets: u32,
    lost: u32,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The one under way, and its beginning.
    current: Interval,
    began: Option<Tick>,
    /// The last ones, the newest first.
    past: [Interval; 4],
    known: usize,
    base: Option<i32>,
    base_before: Option<i32>,
    epoch: Tick,
}

impl Standing {
    /// A packet arrived with this delay. Returns what there is to say when an interval ends with it.
    pub(super) fn received(&mut self, at: Tick, delay: i32) -> Option<Load> {
        let Some(began) = self.began else {
            self.begin(at, delay);
            self.epoch = at;
            return None;
        };
        let lasts = at.since(began);
        if lasts < INTERVAL || (self.current.packets < PACKETS && lasts < TOO_LONG) {
            self.current.least = self.current.least.min(delay);
            self.current.packets += 1;
            return None;
        }
        if lasts >= TOO_LONG {
            self.known = 0;
        } else {
            self.past.rotate_right(1);
            self.past[0] = self.current;
            self.known = (self.known + 1).min(self.past.len());
            self.rebase(at);
        }
        self.begin(at, delay);
        self.load()
    }

    /// A packet did not arrive.
    pub(super) fn lost(&mut self) {
        self.current.lost += 1;
    }

    /// How long the queue is, in µs.
    pub(super) fn length(&self) -> Option<i32> {
        let base = self.base?.min(self.base_before.unwrap_or(i32::MAX));
        (self.known > 0).then(|| self.past[0].least.saturating_sub(base))
    }

    fn begin(&mut self, at: Tick, delay: i32) {
        self.began = Some(at);
        self.current = Interval {
            least: delay,
            packets: 1,
            lost: 0,
        };
    }

    fn rebase(&mut self, at: Tick) {
        let least = self.past[0].least;
        if at.since(self.epoch) >= EPOCH {
            self.epoch = at;
            self.base_before = self.base.take();
        }
        self.base = Some(self.base.map_or(least, |base| base.min(least)));
    }

    fn load(&self) -> Option<Load> {
        let length = self.length()?;
        if length < EMPTY {
            return Some(Load::Calm);
        }
        if length < FULL || self.known < self.past.len() {
            return Some(Load::Queued);
        }
        let least = self.past.map(|i| i.least);
        let rising = |by: i32| least.windows(2).all(|w| w[0] > w[1].saturating_add(by));
        let (now, first) = (least[0], least[self.past.len() - 1]);
        let shortest = length - now + least.into_iter().fold(now, i32::min);
        let highest = least.into_iter().fold(first, i32::max);
        // A burst is followed by a shorter queue; slight overload by one that is now and then no longer.
        let creeps = shortest >= EMPTY && now == highest && now > first + GROWS;
        let grows = rising(GROWS) || creeps;
        let stands = shortest >= FULL && now >= first - DRAINS;
        let lost: u32 = self.past.iter().map(|i| i.lost).sum();
        let all: u32 = lost + self.past.iter().map(|i| i.packets).sum::<u32>();
        let overflows = f64::from(lost) >= f64::from(all) * OVERFLOWS;
        Some(if grows || (stands && overflows) {
            Load::Overload
        } else {
            Load::Queued
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet each 10 ms, with the delay in ms that `delay` tells. Returns when there was an overload, in ms.
    fn run(count: u32, delay: impl Fn(u32) -> i32) -> Option<u32> {
        let mut standing = Standing::default();
        (0..count).map(|n| n * 10).find(|&ms| {
            standing.received(Tick(ms * 1_000), delay(ms) * 1_000) == Some(Load::Overload)
        })
    }

    #[test]
    fn a_queue_that_grows_slowly_is_an_overload() {
        // A tenth too much.
        let at = run(300, |ms| 30 + (ms.max(1_000) - 1_000) as i32 / 10);
        assert!(at.is_some_and(|at| at < 2_000), "{at:?}");
    }

    #[test]
    fn bursts_jitter_another_route_and_a_drifting_clock_are_none() {
        assert_eq!(run(3_000, |ms| 30 + (ms * 7_919 % 41) as i32), None);
        assert_eq!(run(3_000, |ms| if ms < 5_000 { 30 } else { 180 }), None);
        assert_eq!(run(30_000, |ms| 30 + ms as i32 / 10_000), None);
        let keyframes = |ms: u32| (200 - (ms % 2_000) as i32).max(0);
        assert_eq!(run(3_000, keyframes), None);
    }
}
