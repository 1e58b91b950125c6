// SPDX-License-Identifier: MPL-2.0

//! The estimate itself: additive increase, multiplicative decrease (GCC, section 5.5), and jumps to what was measured.

use std::time::{Duration, Instant};

use super::probe::Measured;

/// The share of what arrives in overload that is left, so that the queue empties and others find room.
const BACKOFF: f64 = 0.9;
/// The same where the capacity was read from a collapse, or by a train of packets.
const CAPACITY: f64 = 0.95;
/// Growth in a second.
const GROWTH: f64 = 0.08;
/// Near what was too much, it grows by two packets a round trip, in bits, which takes at least this long.
const STEP: f64 = 24_000.0;
const LEAST_STEP: Duration = Duration::from_millis(100);
/// Near is this much below and above it.
const NEAR: f64 = 0.15;
/// There it does not grow at all while less than this share of it arrives.
const USED: f64 = 0.8;
/// It does not grow by itself beyond this many times what arrives, and bit/s.
const UNPROVED: f64 = 1.5;
const UNPROVED_PLUS: f64 = 10_000.0;
/// Receiver reports of video come about so often (RFC 3550, section 6.2; libwebrtc sends one a second).
const REPORTS: Duration = Duration::from_secs(1);
/// Growth is by the time that has passed, but not by more than this.
const LONGEST: Duration = Duration::from_millis(500);
/// No network is slower or faster, in bit/s.
const LEAST: f64 = 5_000.0;
const MOST: f64 = 1e9;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Rate {
    rate: f64,
    /// What arrived when it was too much.
    ceiling: Option<f64>,
    grown: Option<Instant>,
    pub(super) rtt: Option<Duration>,
}

impl Rate {
    pub(super) fn new(rate: u64) -> Self {
        let mut new = Self {
            rate: 0.0,
            ceiling: None,
            grown: None,
            rtt: None,
        };
        new.set(rate as f64);
        new
    }

    pub(super) fn get(&self) -> f64 {
        self.rate
    }

    /// The network lets this much through, and not more.
    pub(super) fn collapsed(&mut self, capacity: f64) {
        self.ceiling = Some(capacity);
        self.set(capacity * CAPACITY);
    }

    /// A queue stands while this much arrives.
    pub(super) fn overloaded(&mut self, arrives: f64) {
        self.ceiling = Some(arrives);
        self.set(self.rate.min(arrives * BACKOFF));
    }

    /// This much arrives; more than a radio link loses is lost.
    pub(super) fn lossy(&mut self, arrives: f64) {
        self.set(self.rate.min(arrives));
    }

    /// This much arrives without being held up. `grow`: the rate may grow, if that much arrives in the long run.
    pub(super) fn carried(&mut self, now: Instant, arrives: f64, grow: Option<f64>) {
        if self.ceiling.is_some_and(|c| arrives > c * (1.0 + NEAR)) {
            self.ceiling = None;
        }
        let passed = self
            .grown
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.grown = Some(now);
        self.set(self.rate.max(arrives));
        let limit = |arrives: f64| arrives * UNPROVED + UNPROVED_PLUS;
        if let Some(arrives) = grow.filter(|a| self.rate < limit(*a)) {
            let growth = self.growth(passed.min(LONGEST), arrives);
            self.set((self.rate + growth).min(limit(arrives)));
        }
    }

    /// A train of packets got through at this rate.
    pub(super) fn measured(&mut self, found: Measured, arrives: f64) {
        let rate = found.rate;
        if !found.limited {
            self.ceiling = self.ceiling.filter(|&c| c > rate);
            self.set(self.rate.max(rate));
            return;
        }
        self.ceiling = Some(rate);
        let least = if found.rough { self.rate } else { arrives };
        self.set((rate * CAPACITY).max(least));
    }

    /// Nothing is lost, where nothing else is known. What is sent, or `goal` where that is more, sets a limit to growth.
    ///
    /// By the time that has passed: reports may come as often as the viewer likes.
    pub(super) fn clean(&mut self, now: Instant, sent: f64, goal: f64) {
        let passed = self
            .grown
            .map_or(REPORTS, |at| now.saturating_duration_since(at));
        self.grown = Some(now);
        let limit = (sent * UNPROVED + UNPROVED_PLUS).max(goal * (1.0 + NEAR));
        let grown = self.rate * (1.0 + GROWTH * passed.min(REPORTS).as_secs_f64());
        self.set(self.rate.max(limit.min(grown)));
    }

    fn growth(&mut self, passed: Duration, arrives: f64) -> f64 {
        if let Some(ceiling) = self.ceiling {
            if self.rate > ceiling * (1.0 + NEAR) {
                self.ceiling = None;
            } else if self.rate > ceiling * (1.0 - NEAR) {
                let trip = self.rtt.unwrap_or(LEAST_STEP) + LEAST_STEP;
                // Only what uses it tries it out.
                if arrives < self.rate * USED {
                    return 0.0;
                }
                return STEP * passed.as_secs_f64() / trip.as_secs_f64();
            }
        }
        self.rate * GROWTH * passed.as_secs_f64()
    }

    fn set(&mut self, rate: f64) {
        self.rate = rate.clamp(LEAST, MOST);
    }
}
