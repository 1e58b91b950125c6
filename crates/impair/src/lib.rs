// SPDX-License-Identifier: MPL-2.0

//! A bad network link, simulated exactly: loss, delay, jitter and a rate limit, the same for the same seed.
//!
//! Sans-IO: the time and a datagram's size go in, the time of its arrival comes out. The engine's simulation and the
//! load tool's proxy both use it.

use std::time::{Duration, Instant};

/// How a link treats datagrams, in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The share of datagrams that is lost at random, 0 to 1.
    pub loss: f64,
    /// The time that each datagram is under way.
    pub delay: Duration,
    /// A random time between zero and this is added to the delay. The order stays.
    pub jitter: Duration,
    /// The bottleneck's rate in bit/s, counted over whole datagrams. `None` is without limit.
    pub rate: Option<u64>,
    /// The longest wait before the bottleneck; what would wait longer is dropped.
    pub queue: Duration,
}

impl Default for Conditions {
    /// A perfect link.
    fn default() -> Self {
        Self {
            loss: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: Duration::from_millis(300),
        }
    }
}

/// One direction of a link.
#[derive(Debug, Clone)]
pub struct Link {
    conditions: Conditions,
    rng: Rng,
    /// When the bottleneck has passed on all that it holds.
    idle_at: Option<Instant>,
    last_arrival: Option<Instant>,
    dropped: u64,
}

impl Link {
    /// A link whose chance is drawn from `seed`.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            rng: Rng::new(seed),
            idle_at: None,
            last_arrival: None,
            dropped: 0,
        }
    }

    /// Changes the conditions for what comes from now on.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Datagrams that were lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When a datagram that enters now arrives. `None`: it is lost.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Conditions {
            loss,
            delay,
            jitter,
            rate,
            queue,
        } = self.conditions;
        let mut leaves = now;
        if let Some(rate) = rate.map(|r| r.max(1)) {
            let begins = self.idle_at.map_or(now, |at| at.max(now));
            if begins - now > queue {
                self.dropped += 1;
                return None;
            }
            let bits = bytes as u64 * 8;
            leaves = begins + Duration::from_nanos(bits.saturating_mul(1_000_000_000) / rate);
            self.idle_at = Some(leaves);
        }
        if self.rng.chance(loss) {
            self.dropped += 1;
            return None;
        }
        let random = jitter.mul_f64(self.rng.unit());
        let arrives = leaves + delay + random;
        let arrives = self.last_arrival.map_or(arrives, |last| arrives.max(last));
        self.last_arrival = Some(arrives);
        Some(arrives)
    }
}

/// A small random generator (SplitMix64), so that a seed means the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from zero up to, but not including, one.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens now.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_bottleneck_spaces_datagrams_and_drops_what_would_wait_too_long() {
        let start = Instant::now();
        let conditions = Conditions {
            delay: 10 * MS,
            rate: Some(80_000),
            queue: 250 * MS,
            ..Conditions::default()
        };
        let mut link = Link::new(conditions, 1);
        // 1,000 bytes take 100 ms at 80 kbit/s.
        let arrivals: Vec<_> = (0..5)
            .map(|_| link.pass(start, 1_000).map(|at| (at - start).as_millis()))
            .collect();
        assert_eq!(arrivals, [Some(110), Some(210), Some(310), None, None]);
        assert_eq!(link.dropped(), 2);
        let later = link.pass(start + 1_000 * MS, 1_000);
        assert_eq!(later, Some(start + 1_110 * MS), "it ran empty");
    }

    #[test]
    fn loss_and_jitter_are_the_same_for_the_same_seed_and_keep_the_order() {
        let start = Instant::now();
        let conditions = Conditions {
            loss: 0.1,
            jitter: 20 * MS,
            ..Conditions::default()
        };
        let run = |seed| {
            let mut link = Link::new(conditions, seed);
            let passed: Vec<_> = (0..10_000u32)
                .map(|n| link.pass(start + n * MS, 100))
                .collect();
            (passed, link.dropped())
        };
        let (passed, dropped) = run(7);
        assert_eq!((passed.clone(), dropped), run(7));
        assert_ne!(passed, run(8).0);
        assert!((900..1_100).contains(&dropped), "{dropped}");
        assert!(passed.iter().flatten().is_sorted());
    }
}
