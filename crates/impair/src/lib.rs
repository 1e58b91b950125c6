// SPDX-License-Identifier: MPL-2.0

//! A bad network link, simulated exactly: loss alone or in bursts, delay, jitter, disorder and a rate limit, the same for
//! the same seed.
//!
//! Sans-IO: the time and a datagram's size go in, the time of its arrival comes out. The engine's simulation and the
//! load tool's proxy both use it.

use std::time::{Duration, Instant};

/// How a link treats datagrams, in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The share of datagrams that is lost at random, 0 to 1.
    pub loss: f64,
    /// How many datagrams in a row are lost on average (Gilbert's model: a good state that loses nothing, and a bad one that
    /// loses all). Up to 1, each is lost by itself. Where bursts of this length can't make the loss, they are longer. A burst
    /// is of a moment: datagrams that are [`BURST_MEMORY`] apart are lost independently.
    pub burst: f64,
    /// The share of datagrams that take another way, 0 to 1, on which others overtake them.
    pub reorder: f64,
    /// How much longer that way is.
    pub reorder_by: Duration,
    /// The time that each datagram is under way.
    pub delay: Duration,
    /// A random time between zero and this is added to the delay. The order stays but for those of `reorder`.
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
            burst: 1.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: Duration::from_millis(300),
        }
    }
}

/// What hits several datagrams at once (a full queue, a collision) is over after this. Not measured.
pub const BURST_MEMORY: Duration = Duration::from_millis(20);

/// One direction of a link.
#[derive(Debug, Clone)]
pub struct Link {
    conditions: Conditions,
    rng: Rng,
    /// When the bottleneck has passed on all that it holds.
    idle_at: Option<Instant>,
    last_arrival: Option<Instant>,
    /// A burst of losses is under way.
    bad: bool,
    last_entry: Option<Instant>,
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
            bad: false,
            last_entry: None,
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
            delay,
            jitter,
            rate,
            queue,
            reorder,
            reorder_by,
            ..
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
        if self.loses(now) {
            self.dropped += 1;
            return None;
        }
        let random = jitter.mul_f64(self.rng.unit());
        let arrives = leaves + delay + random;
        if self.rng.chance(reorder) {
            return Some(arrives + reorder_by);
        }
        let arrives = self.last_arrival.map_or(arrives, |last| arrives.max(last));
        self.last_arrival = Some(arrives);
        Some(arrives)
    }

    /// Whether the next datagram is lost.
    fn loses(&mut self, now: Instant) -> bool {
        let Conditions { loss, burst, .. } = self.conditions;
        let last = self.last_entry.replace(now);
        if burst <= 1.0 || loss <= 0.0 || loss >= 1.0 {
            return self.rng.chance(loss);
        }
        if last.is_none_or(|last| now.saturating_duration_since(last) >= BURST_MEMORY) {
            self.bad = self.rng.chance(loss);
            return self.bad;
        }
        // In the long run the share of the bad state is begins / (begins + ends), which is to be the loss. A burst can't
        // begin more often than always.
        let odds = loss / (1.0 - loss);
        let ends = (1.0 / burst).min(1.0 / odds);
        let turns = if self.bad { ends } else { ends * odds };
        self.bad ^= self.rng.chance(turns);
        self.bad
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

    /// A number from zero up to, but not including, `limit`, or zero.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % limit.max(1) as u64) as usize
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

    /// The share that was lost, and how many in a row on average, of a million datagrams.
    fn losses(conditions: Conditions, seed: u64) -> (f64, f64) {
        const COUNT: u32 = 1_000_000;
        let start = Instant::now();
        let mut link = Link::new(conditions, seed);
        let (mut bursts, mut before) = (0u32, false);
        for _ in 0..COUNT {
            let lost = link.pass(start, 100).is_none();
            bursts += u32::from(lost && !before);
            before = lost;
        }
        let lost = link.dropped() as f64;
        (lost / f64::from(COUNT), lost / f64::from(bursts.max(1)))
    }

    #[test]
    fn bursts_have_the_loss_and_the_length_that_were_asked_for() {
        for (loss, burst, length) in [
            (0.01, 1.0, 1.01),
            (0.1, 0.0, 1.11),
            (0.005, 2.0, 2.0),
            (0.01, 4.0, 4.0),
            (0.02, 1.5, 1.5),
            (0.1, 10.0, 10.0),
            (0.3, 3.0, 3.0),
            // Good datagrams come one by one at most: bursts must be longer than 2.
            (0.9, 2.0, 9.0),
        ] {
            for seed in 0..3 {
                let conditions = Conditions {
                    loss,
                    burst,
                    ..Conditions::default()
                };
                let (share, mean) = losses(conditions, seed);
                let near = |is: f64, wanted: f64| (is / wanted - 1.0).abs() < 0.06;
                assert!(
                    near(share, loss) && near(mean, length),
                    "loss {loss}, burst {burst}, seed {seed}: {share} in bursts of {mean}"
                );
            }
        }
        let conditions = Conditions {
            loss: 0.1,
            burst: 10.0,
            ..Conditions::default()
        };
        let (start, mut link) = (Instant::now(), Link::new(conditions, 5));
        let lost: Vec<_> = (0..100_000)
            .map(|n| link.pass(start + BURST_MEMORY * n, 100).is_none())
            .collect();
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!((9_500..10_500).contains(&link.dropped()));
        assert!(
            (900..1_100).contains(&pairs),
            "{pairs}: far from each other"
        );
        for (loss, share) in [(0.0, 0.0), (1.0, 1.0)] {
            let conditions = Conditions {
                loss,
                burst: 5.0,
                ..Conditions::default()
            };
            assert_eq!(losses(conditions, 1).0, share);
        }
    }

    /// Of any conditions: the same for the same seed, nothing arrives before its delay, and only those that took another
    /// way are overtaken, by as many as come within its length.
    #[test]
    fn disorder_is_as_asked_for_and_the_rest_keeps_its_order() {
        const COUNT: u32 = 20_000;
        let mut rng = Rng::new(11);
        for round in 0..50 {
            let conditions = Conditions {
                loss: rng.unit() * 0.2,
                burst: rng.unit() * 8.0,
                reorder: rng.unit() * 0.2,
                reorder_by: MS.mul_f64(2.0 + rng.unit() * 30.0),
                delay: MS.mul_f64(rng.unit() * 100.0),
                jitter: MS.mul_f64(rng.unit()),
                ..Conditions::default()
            };
            let start = Instant::now();
            let run = || {
                let mut link = Link::new(conditions, round);
                let all = (0..COUNT).map(|n| link.pass(start + n * MS, 100));
                all.collect::<Vec<_>>()
            };
            let passed = run();
            assert_eq!(passed, run(), "{conditions:?}");
            let (mut newest, mut overtaken, mut arrived) = (start, 0u32, 0u32);
            for (n, at) in (0..COUNT).zip(&passed) {
                let Some(at) = at else { continue };
                arrived += 1;
                let way = *at - (start + n * MS);
                let longest = conditions.delay + conditions.jitter + conditions.reorder_by;
                assert!(conditions.delay <= way && way <= longest, "{conditions:?}");
                if way > conditions.delay + conditions.jitter {
                    overtaken += 1;
                } else {
                    assert!(*at >= newest, "{conditions:?}");
                    newest = *at;
                }
            }
            let share = f64::from(overtaken) / f64::from(arrived);
            let wanted = conditions.reorder;
            assert!(
                (share - wanted).abs() < 0.01,
                "{conditions:?}: {share} are overtaken"
            );
        }
    }
}
