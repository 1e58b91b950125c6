// SPDX-License-Identifier: MPL-2.0

//! Packets of a layer that never came from the publisher: when repair has failed, only a keyframe helps.
//!
//! A publishing peer is asked for single packets (NACK) by its session; this notices what that did not bring. One watch
//! a layer, called for each of its packets.

use std::time::{Duration, Instant};

/// Repair takes a few round trips. What is missing longer is lost.
const PATIENCE: Duration = Duration::from_millis(400);
/// Where more is missing at once, repair is not even tried.
const MANY: u64 = 100;
/// Holes that are watched at a time.
const HOLES: usize = 32;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct LossWatch {
    highest: Option<u64>,
    holes: Vec<Hole>,
}

/// Numbers from `from` up to, but not including, `until`.
#[derive(Debug, Clone, Copy)]
struct Hole {
    from: u64,
    until: u64,
    since: Instant,
    lost: bool,
}

impl LossWatch {
    /// A packet came, with its extended sequence number.
    pub(crate) fn packet(&mut self, now: Instant, seq: u64, keyframe_start: bool) {
        let highest = self.highest.unwrap_or(seq);
        if keyframe_start && seq >= highest {
            // What is before a keyframe is not needed any more.
            self.holes.clear();
        } else if seq > highest + 1 {
            self.holes.truncate(HOLES - 1);
            self.holes.push(Hole {
                from: highest + 1,
                until: seq,
                since: now,
                lost: seq - highest > MANY,
            });
        } else if seq < highest {
            self.fill(seq);
        }
        self.highest = Some(highest.max(seq));
    }

    /// A late packet takes its place.
    fn fill(&mut self, seq: u64) {
        let Some(index) = self
            .holes
            .iter()
            .position(|h| (h.from..h.until).contains(&seq))
        else {
            return;
        };
        let hole = self.holes.swap_remove(index);
        for (from, until) in [(hole.from, seq), (seq + 1, hole.until)] {
            if from < until && self.holes.len() < HOLES {
                self.holes.push(Hole {
                    from,
                    until,
                    ..hole
                });
            }
        }
    }

    /// Whether something is lost for good. Tells it once.
    pub(crate) fn take_lost(&mut self, now: Instant) -> bool {
        let lost = |h: &Hole| h.lost || now.saturating_duration_since(h.since) >= PATIENCE;
        let any = self.holes.iter().any(lost);
        if any {
            self.holes.clear();
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_repair_brings_is_not_lost() {
        let now = Instant::now();
        let mut watch = LossWatch::default();
        for seq in [1, 2, 6, 4, 3, 7, 5] {
            watch.packet(now, seq, false);
        }
        assert!(!watch.take_lost(now + 1_000 * MS));
    }

    #[test]
    fn what_it_does_not_bring_is_lost_once() {
        let now = Instant::now();
        let mut watch = LossWatch::default();
        for seq in [1, 2, 6, 4] {
            watch.packet(now, seq, false);
        }
        assert!(!watch.take_lost(now + 399 * MS), "it may still come");
        assert!(watch.take_lost(now + 400 * MS));
        assert!(!watch.take_lost(now + 800 * MS), "told already");
    }

    #[test]
    fn a_long_cut_needs_no_patience_and_a_keyframe_needs_nothing() {
        let now = Instant::now();
        let mut watch = LossWatch::default();
        watch.packet(now, 1, false);
        watch.packet(now, 300, false);
        assert!(watch.take_lost(now));
        watch.packet(now, 600, true);
        assert!(!watch.take_lost(now + 1_000 * MS));
    }
}
