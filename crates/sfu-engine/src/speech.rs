// SPDX-License-Identifier: MPL-2.0

//! Who speaks, and how loud, as rooms show it: from the levels that packets tell (RFC 6464), by windows of 400 ms.
//!
//! The rules and their numbers are LiveKit's (`pkg/sfu/audio/audiolevel.go`), so that clients see what they are used to: in a window
//! a part of a certain length must be loud enough; its loudest packet counts, less as less of the window is; and that is smoothed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(400);
/// A packet that is not louder than this, in dB below the loudest that there can be, counts as silence.
const ACTIVE: u8 = 35;
/// So much of a window must be louder.
const LEAST: f32 = 0.4;
/// How far a window moves what is told: 2 / (2 windows + 1).
const SMOOTH: f32 = 2.0 / 3.0;
/// The longest packet of Opus, and the usual one where timestamps don't tell.
const PACKET_MAX: Duration = Duration::from_millis(120);
const PACKET: Duration = Duration::from_millis(20);
/// After so long a silence nobody speaks.
const STALE: Duration = Duration::from_millis(800);
/// Of timestamps.
const CLOCK: u64 = 48_000;

/// Whether somebody speaks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Speech {
    /// It is speech, as far as its loudness tells.
    pub active: bool,
    /// From 0 to 1, linear.
    pub level: f32,
}

/// Windows of one sound. Once per packet: two comparisons and an addition.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    began: Option<Instant>,
    /// How much of the window was loud enough, and how loud at most.
    active: Duration,
    loudest: u8,
    timestamp: Option<u32>,
    level: f32,
}

impl Windows {
    /// The next packet. Returns the level from now on, where a window has ended.
    pub(crate) fn add(&mut self, now: Instant, timestamp: u32, level: Option<u8>) -> Option<f32> {
        let passed = self.timestamp.replace(timestamp);
        let ticks = passed.map_or(0, |before| timestamp.wrapping_sub(before));
        let length = Duration::from_micros(u64::from(ticks) * 1_000_000 / CLOCK);
        let length = match (Duration::from_millis(1)..=PACKET_MAX).contains(&length) {
            true => length,
            false => PACKET,
        };
        let began = *self.began.get_or_insert(now);
        let window = now.saturating_duration_since(began);
        let told = (window >= WINDOW).then(|| self.end(now, window));
        if let Some(level) = level.filter(|level| *level <= ACTIVE) {
            self.loudest = match self.active.is_zero() {
                true => level,
                false => self.loudest.min(level),
            };
            self.active += length;
        }
        told
    }

    fn end(&mut self, now: Instant, window: Duration) -> f32 {
        let share = (self.active.as_secs_f32() / WINDOW.as_secs_f32()).min(1.0);
        self.level = match share >= LEAST {
            true => {
                let level = linear(f32::from(self.loudest)) * share;
                let before = if window < STALE { self.level } else { 0.0 };
                before + (level - before) * SMOOTH
            }
            false => 0.0,
        };
        self.began = Some(now);
        self.active = Duration::ZERO;
        self.level
    }
}

fn linear(decibels: f32) -> f32 {
    10.0_f32.powf(-decibels / 20.0)
}

/// The last level and when that was, written by a shard and read by whoever wants, without a lock.
#[derive(Debug)]
pub(crate) struct LastSpeech {
    base: Instant,
    /// Milliseconds since `base`, and the level's bits.
    packed: AtomicU64,
    /// Milliseconds since `base`, of the last packet that was loud enough, and one.
    loud: AtomicU32,
}

impl LastSpeech {
    pub(crate) fn new(base: Instant) -> Self {
        Self {
            base,
            packed: AtomicU64::new(0),
            loud: AtomicU32::new(0),
        }
    }

    fn millis(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.base).as_millis();
        // Wraps after seven weeks, as the comparison does.
        since as u32
    }

    pub(crate) fn set(&self, now: Instant, level: f32) {
        let packed = u64::from(self.millis(now)) << 32 | u64::from(level.to_bits());
        self.packed.store(packed, Relaxed);
    }

    /// A packet has this level.
    pub(crate) fn packet(&self, now: Instant, level: Option<u8>) {
        if level.is_some_and(|level| level <= ACTIVE) {
            self.loud
                .store(self.millis(now).wrapping_add(1).max(1), Relaxed);
        }
    }

    /// Whether there was a loud packet within the last window: sooner known than whether that is speech.
    pub(crate) fn is_loud(&self, now: Instant) -> bool {
        let loud = self.loud.load(Relaxed);
        let age = self.millis(now).wrapping_add(1).wrapping_sub(loud);
        let is_new = u128::from(age) <= WINDOW.as_millis() || age > u32::MAX / 2;
        loud != 0 && is_new
    }

    pub(crate) fn clear(&self) {
        self.packed.store(0, Relaxed);
        self.loud.store(0, Relaxed);
    }

    pub(crate) fn get(&self, now: Instant) -> Speech {
        let packed = self.packed.load(Relaxed);
        let age = self.millis(now).wrapping_sub((packed >> 32) as u32);
        let level = f32::from_bits(packed as u32);
        // What was written a moment after `now` is new.
        if u128::from(age) > STALE.as_millis() && age < u32::MAX / 2 {
            return Speech::default();
        }
        Speech {
            active: level >= linear(ACTIVE.into()),
            level,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many packets of this length and level. Returns what was told last.
    fn speak(
        windows: &mut Windows,
        at: &mut (Instant, u32),
        packets: u32,
        ms: u32,
        level: u8,
    ) -> f32 {
        let mut told = windows.level;
        for _ in 0..packets {
            told = windows.add(at.0, at.1, Some(level)).unwrap_or(told);
            at.0 += Duration::from_millis(ms.into());
            at.1 = at.1.wrapping_add(ms * 48);
        }
        told
    }

    #[test]
    fn who_is_loud_for_long_enough_speaks_and_ends_with_that() {
        for ms in [10, 20, 60] {
            let packets = |of: u32| of / ms;
            for first in [0, u32::MAX - 500] {
                let mut windows = Windows::default();
                let mut at = (Instant::now(), first);
                assert_eq!(speak(&mut windows, &mut at, packets(1_200), ms, 127), 0.0);
                let level = speak(&mut windows, &mut at, packets(2_400), ms, 10);
                assert!((level - linear(10.0)).abs() < 0.06, "{ms}: {level}");
                // A second of pause is the end of it, a word of a tenth no beginning.
                assert_eq!(speak(&mut windows, &mut at, packets(1_200), ms, 80), 0.0);
                speak(&mut windows, &mut at, packets(120), ms, 5);
                assert_eq!(speak(&mut windows, &mut at, packets(1_200), ms, 60), 0.0);
            }
        }
    }

    #[test]
    fn who_tells_no_level_does_not_speak() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        for n in 0..100 {
            let told = windows.add(now + Duration::from_millis(n * 20), n as u32 * 960, None);
            assert!(told.is_none_or(|level| level == 0.0));
        }
    }

    #[test]
    fn the_last_level_holds_for_a_while() {
        let base = Instant::now();
        let last = LastSpeech::new(base);
        let after = |ms| base + Duration::from_millis(ms);
        assert_eq!(last.get(after(10)), Speech::default());
        last.set(after(5_000), 0.5);
        for (ms, active) in [(4_999, true), (5_000, true), (5_800, true), (5_801, false)] {
            assert_eq!(last.get(after(ms)).active, active, "{ms}");
        }
        last.set(after(6_000), 0.01);
        assert_eq!(
            last.get(after(6_000)),
            Speech {
                active: false,
                level: 0.01
            }
        );
        for (at, level) in [
            (7_000, Some(ACTIVE + 1)),
            (7_000, None),
            (7_000, Some(ACTIVE)),
        ] {
            assert!(!last.is_loud(after(at)), "{level:?}");
            last.packet(after(at), level);
        }
        for (ms, loud) in [(6_999, true), (7_000, true), (7_400, true), (7_401, false)] {
            assert_eq!(last.is_loud(after(ms)), loud, "{ms}");
        }
        // Seven weeks later, too.
        let later = 5_000_000_000;
        last.set(after(later), 0.5);
        assert!(last.get(after(later + 100)).active);
    }
}
