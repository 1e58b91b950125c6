// SPDX-License-Identifier: MPL-2.0

//! The share of packets that is lost, over a second or more.

use std::time::{Duration, Instant};

/// What is counted for one share.
const LASTS: Duration = Duration::from_secs(1);
const PACKETS: u32 = 80;
/// Up to this share is lost for other reasons than congestion (GCC, section 6).
const HARMLESS: f64 = 0.10;
/// So many standard deviations above it are not chance.
const CHANCE: f64 = 3.0;

/// A share, and whether it is more than chance and a bad radio link make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loss {
    pub(super) share: f64,
    pub(super) heavy: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    since: Option<Instant>,
    received: u32,
    lost: u32,
    last: f64,
}

impl LossMeter {
    pub(super) fn received(&mut self) {
        self.received += 1;
    }

    pub(super) fn lost(&mut self) {
        self.lost += 1;
    }

    /// A packet that was counted as lost has arrived.
    pub(super) fn found(&mut self) {
        self.lost = self.lost.saturating_sub(1);
        self.received += 1;
    }

    /// The share last counted.
    pub(super) fn last(&self) -> f64 {
        self.last
    }

    /// The share, once there is a new one.
    pub(super) fn take(&mut self, now: Instant) -> Option<Loss> {
        let since = *self.since.get_or_insert(now);
        let all = self.received + self.lost;
        if all < PACKETS || now.saturating_duration_since(since) < LASTS {
            return None;
        }
        let share = f64::from(self.lost) / f64::from(all);
        let chance = CHANCE * (HARMLESS * (1.0 - HARMLESS) / f64::from(all)).sqrt();
        (self.received, self.lost) = (0, 0);
        self.since = Some(now);
        self.last = share;
        Some(Loss {
            share,
            heavy: share > HARMLESS + chance,
        })
    }
}
