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

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    since: Option<Instant>,
    received: u32,
    lost: u32,
    last: f64,
    /// Shares in sequence that were more than harmless.
    heavy: u32,
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

    /// More is lost than chance and a bad radio link make: twice in sequence.
    pub(super) fn is_heavy(&self) -> bool {
        self.heavy >= 2
    }

    /// Counts the share where it is time to. Whether it did.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let all = self.received + self.lost;
        if all < PACKETS || now.saturating_duration_since(since) < LASTS {
            return false;
        }
        let share = f64::from(self.lost) / f64::from(all);
        let chance = CHANCE * (HARMLESS * (1.0 - HARMLESS) / f64::from(all)).sqrt();
        self.heavy = if share > HARMLESS + chance {
            self.heavy.saturating_add(1)
        } else {
            0
        };
        (self.received, self.lost) = (0, 0);
        self.since = Some(now);
        self.last = share;
        true
    }
}
