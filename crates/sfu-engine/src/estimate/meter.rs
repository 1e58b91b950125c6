// SPDX-License-Identifier: MPL-2.0

//! The rate of sending over the last second.

use super::clock::Tick;

/// A bucket holds 2^17 µs, 131 ms.
const SHIFT: u32 = 17;
const BUCKETS: usize = 8;
/// Where less time has passed, as if it were this, in µs.
const LEAST: u32 = 200_000;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Meter {
    buckets: [u32; BUCKETS],
    /// The newest bucket's number.
    newest: u32,
    /// Buckets since the first one, as long as that is kept.
    filled: u32,
    began: Option<Tick>,
}

impl Meter {
    pub(super) fn add(&mut self, at: Tick, bytes: usize) {
        self.turn(at);
        let bucket = &mut self.buckets[self.newest as usize % BUCKETS];
        *bucket = bucket.saturating_add(bytes as u32);
    }

    /// Bit/s.
    pub(super) fn rate(&mut self, at: Tick) -> f64 {
        self.turn(at);
        let bytes: u64 = self.buckets.iter().map(|&b| u64::from(b)).sum();
        let partial = at.0 & ((1 << SHIFT) - 1);
        let span = match self.began {
            // The first bucket began in its midst.
            Some(began) if self.filled < BUCKETS as u32 => at.since(began).unsigned_abs(),
            _ => ((BUCKETS as u32 - 1) << SHIFT) + partial,
        };
        bytes as f64 * 8e6 / f64::from(span.max(LEAST))
    }

    fn turn(&mut self, at: Tick) {
        let number = at.0 >> SHIFT;
        if self.began.is_none() {
            self.began = Some(at);
            self.newest = number;
        }
        // The numbers' wrap is a multiple of the buckets.
        let steps = number.wrapping_sub(self.newest) & (u32::MAX >> SHIFT);
        let steps = steps.min(BUCKETS as u32);
        for step in 1..=steps {
            self.buckets[(self.newest + step) as usize % BUCKETS] = 0;
        }
        self.filled = (self.filled + steps).min(BUCKETS as u32);
        self.newest = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_remembered_across_the_clock_s_wrap() {
        let mut meter = Meter::default();
        let start = u32::MAX - 5_000_000;
        for n in 0..10_000u32 {
            // 1,000 bytes each ms.
            let at = Tick(start.wrapping_add(n * 1_000));
            meter.add(at, 1_000);
            if n > 200 {
                let rate = meter.rate(at);
                assert!((7_900_000.0..8_100_000.0).contains(&rate), "{n}: {rate}");
            }
        }
        let later = Tick(start.wrapping_add(10_000_000 + 500_000));
        assert!((3_000_000.0..5_000_000.0).contains(&meter.rate(later)));
        let later = Tick(start.wrapping_add(12_000_000));
        assert_eq!(meter.rate(later) as u64, 0);
    }
}
