// SPDX-License-Identifier: MPL-2.0

//! How much a publishing peer may send, for peers that get no arrival reports (TWCC): by what arrives and what is lost.
//!
//! Told to the peer as REMB (draft-alvestrand-rmcat-remb-03) once a second by the session that takes its media in.

use std::time::{Duration, Instant};

/// What a peer may begin with, in bit/s.
const FIRST: u64 = 2_500_000;
const LEAST: u64 = 100_000;
const MOST: u64 = 50_000_000;
const EVERY: Duration = Duration::from_secs(1);

/// Loss above this is congestion; below that there may be room for more.
const LOSS_HIGH: f32 = 0.1;
const LOSS_LOW: f32 = 0.02;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Remb {
    limit: u64,
    since: Instant,
    bytes: u64,
}

impl Remb {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            limit: FIRST,
            since: now,
            bytes: 0,
        }
    }

    /// Media came in.
    pub(super) fn received(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The limit, when it is time to tell it. `loss` is the share that was lost in the last second.
    pub(super) fn poll(&mut self, now: Instant, loss: f32) -> Option<u64> {
        let span = now.saturating_duration_since(self.since);
        if span < EVERY {
            return None;
        }
        let received = self.bytes as f64 * 8.0 / span.as_secs_f64();
        self.since = now;
        self.bytes = 0;
        let limit = self.limit as f64;
        let limit = if loss > LOSS_HIGH {
            limit.min(received * (1.0 - 0.5 * f64::from(loss)))
        } else if loss < LOSS_LOW {
            // Room to grow, but not far beyond what was proven.
            limit.max((limit * 1.08).min(received * 2.0))
        } else {
            limit
        };
        self.limit = (limit as u64).clamp(LEAST, MOST);
        Some(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit after so many seconds of this rate and loss.
    fn after(remb: &mut Remb, now: &mut Instant, seconds: u32, rate: usize, loss: f32) -> u64 {
        let mut limit = 0;
        for _ in 0..seconds {
            remb.received(rate / 8);
            *now += EVERY;
            limit = remb.poll(*now, loss).expect("a second has passed");
        }
        limit
    }

    #[test]
    fn loss_limits_and_its_absence_frees() {
        let mut now = Instant::now();
        let mut remb = Remb::new(now);
        assert_eq!(remb.poll(now, 0.0), None, "not yet");
        assert_eq!(after(&mut remb, &mut now, 5, 500_000, 0.0), FIRST);
        let limited = after(&mut remb, &mut now, 3, 1_000_000, 0.3);
        assert!((800_000..900_000).contains(&limited), "{limited}");
        assert_eq!(
            after(&mut remb, &mut now, 5, 800_000, 0.05),
            limited,
            "stays"
        );
        let freed = after(&mut remb, &mut now, 20, 3_000_000, 0.0);
        assert!(freed > 3_000_000, "{freed}");
        assert_eq!(after(&mut remb, &mut now, 9, 0, 0.9), LEAST);
    }
}
