// SPDX-License-Identifier: MPL-2.0

//! True latency, from capture to screen, as viewers' pages measure and report it. Nothing here is on a packet's way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The upper bounds of the histogram's buckets, in seconds.
pub const LATENCY_BUCKETS: [f64; 12] = [
    0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0,
];
/// What is longer is a mistake.
pub const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Quantiles are those of the reports of this time.
const RECENT: Duration = Duration::from_secs(60);
/// And of so many at most.
const RECENT_MAX: usize = 1_024;

/// The reports of a stream's viewers.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    /// One more than there are bounds: what is above all of them.
    buckets: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    sum_micros: AtomicU64,
    recent: Mutex<VecDeque<(Instant, Duration)>>,
}

/// What viewers have reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatencyInfo {
    /// Reports up to each of [`LATENCY_BUCKETS`], and all of them, since the stream began.
    pub cumulative: [u64; LATENCY_BUCKETS.len() + 1],
    /// The sum of all reports.
    pub sum: Duration,
    /// Reports of the last minute, a thousand at most.
    pub recent: usize,
    /// Half of those are shorter.
    pub p50: Option<Duration>,
    /// Nineteen of twenty of those are shorter.
    pub p95: Option<Duration>,
}

/// What a page needs to know how old the picture is that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaClock {
    /// The server's time.
    pub now: SystemTime,
    /// The RTP timestamp (90 kHz) that a picture captured at `now` has in this session. `None` before the first one.
    pub video: Option<u32>,
}

impl Latencies {
    /// A viewer has measured.
    pub(crate) fn report(&self, now: Instant, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let bucket = LATENCY_BUCKETS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back((now, latency));
    }

    pub(crate) fn info(&self, now: Instant) -> LatencyInfo {
        let mut cumulative = [0; LATENCY_BUCKETS.len() + 1];
        let mut total = 0;
        for (sum, bucket) in cumulative.iter_mut().zip(&self.buckets) {
            total += bucket.load(Relaxed);
            *sum = total;
        }
        let mut recent: Vec<_> = {
            let mut kept = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|(at, _)| now.saturating_duration_since(*at) < RECENT);
            kept.iter().map(|(_, latency)| *latency).collect()
        };
        recent.sort_unstable();
        let quantile = |percent: usize| {
            let rank = (recent.len() * percent).div_ceil(100);
            recent.get(rank.saturating_sub(1)).copied()
        };
        LatencyInfo {
            cumulative,
            sum: Duration::from_micros(self.sum_micros.load(Relaxed)),
            recent: recent.len(),
            p50: quantile(50),
            p95: quantile(95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_not_above_them() {
        let latencies = Latencies::default();
        let now = Instant::now();
        for ms in [50, 51, 4_999, 5_001] {
            latencies.report(now, Duration::from_millis(ms));
        }
        let info = latencies.info(now);
        assert_eq!(info.cumulative, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4]);
        assert_eq!(info.sum, Duration::from_millis(10_101));
    }

    #[test]
    fn quantiles_are_of_the_last_minute() {
        let latencies = Latencies::default();
        let start = Instant::now();
        assert_eq!(latencies.info(start).p50, None);
        latencies.report(start, Duration::from_secs(9));
        let now = start + RECENT;
        for ms in 1..=20 {
            latencies.report(now, Duration::from_millis(ms));
        }
        let info = latencies.info(now);
        assert_eq!(info.recent, 20);
        assert_eq!(info.p50, Some(Duration::from_millis(10)));
        assert_eq!(info.p95, Some(Duration::from_millis(19)));
        assert_eq!(
            info.cumulative.last(),
            Some(&21),
            "the histogram forgets nothing"
        );
    }

    #[test]
    fn a_flood_of_reports_keeps_its_size() {
        let latencies = Latencies::default();
        let now = Instant::now();
        for _ in 0..3 * RECENT_MAX {
            latencies.report(now, Duration::from_millis(100));
        }
        assert_eq!(latencies.info(now).recent, RECENT_MAX);
    }
}
