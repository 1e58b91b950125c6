// SPDX-License-Identifier: MPL-2.0

//! Percentiles, of few numbers exactly and of many by a histogram.

use std::time::Duration;

/// The value below which this share of the values lies (nearest rank). Sorts them.
pub fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

/// Steps of 10 µs up to 100 ms, then of 1 ms up to 10 s.
const FINE: usize = 10_000;
const COARSE: usize = 9_900;

/// Counts durations.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; FINE + COARSE],
            count: 0,
        }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, value: Duration) {
        let fine = value.as_micros() as usize / 10;
        let coarse = value.as_millis() as usize;
        let bucket = if fine < FINE {
            fine
        } else {
            FINE + coarse - 100
        };
        let bucket = bucket.min(self.buckets.len() - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// Adds another one's counts.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
        self.count += other.count;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many are longer than this, a whole number of milliseconds from 1 to 100.
    pub fn above(&self, limit: Duration) -> u64 {
        let first = limit.as_micros() as usize / 10;
        let above = self.buckets.get(first..).unwrap_or_default();
        above.iter().copied().map(u64::from).sum()
    }

    /// The upper end of the step that holds this share, in milliseconds.
    pub fn percentile_ms(&self, share: f64) -> Option<f64> {
        let rank = ((share * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        Some(if bucket < FINE {
            (bucket + 1) as f64 / 100.0
        } else {
            (bucket - FINE + 101) as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.5), Some(50.0));
        assert_eq!(percentile(&mut values, 0.99), Some(99.0));
        assert_eq!(percentile(&mut values, 1.0), Some(100.0));
        assert_eq!(percentile(&mut [7.0], 0.01), Some(7.0));
        assert_eq!(percentile(&mut [], 0.5), None);
    }

    #[test]
    fn the_histogram_keeps_the_order_of_magnitude() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_ms(0.5), None);
        for micros in [100, 200, 300, 250_000, 60_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.percentile_ms(0.5), Some(0.31));
        assert_eq!(histogram.percentile_ms(0.8), Some(251.0));
        assert_eq!(histogram.percentile_ms(1.0), Some(10_000.0));
        assert_eq!(
            (
                histogram.count(),
                histogram.above(Duration::from_millis(50))
            ),
            (5, 2)
        );
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!(twice.percentile_ms(0.5), Some(0.31));
    }
}
