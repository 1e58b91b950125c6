// SPDX-License-Identifier: MPL-2.0

//! Keeps keyframes coming: says when one must be asked for because none came for long. What goes on to RTMP services or
//! into segments must begin anew every few seconds, and browsers send keyframes only to who asks.

use std::time::{Duration, Instant};

/// A keyframe that did not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Cadence {
    /// None: keyframes come as they come.
    interval: Option<Duration>,
    last: Option<Instant>,
    asked: Option<Instant>,
}

impl Cadence {
    /// An interval of zero is none.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval: (!interval.is_zero()).then_some(interval),
            last: None,
            asked: None,
        }
    }

    /// From now on.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = (!interval.is_zero()).then_some(interval);
    }

    /// A keyframe went out, whoever asked for it.
    pub(super) fn keyframe(&mut self, now: Instant) {
        self.last = Some(now);
        self.asked = None;
    }

    /// Something else went out. Returns whether a keyframe must be asked for now.
    pub(super) fn other(&mut self, now: Instant) -> bool {
        let (Some(interval), Some(last)) = (self.interval, self.last) else {
            return false;
        };
        let long = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        let due = long(last, interval) && self.asked.is_none_or(|at| long(at, ASK_AGAIN));
        if due {
            self.asked = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_is_asked_for_when_none_came_for_long() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut cadence = Cadence::new(Duration::from_millis(2_000));
        assert!(!cadence.other(at(9_000)), "nothing has begun");
        cadence.keyframe(t0);
        assert!(!cadence.other(at(1_990)));
        assert!(cadence.other(at(2_000)));
        assert!(!cadence.other(at(2_900)), "it is under way");
        assert!(cadence.other(at(3_000)), "it did not come");
        cadence.keyframe(at(3_100));
        assert!(!cadence.other(at(5_000)));
        assert!(cadence.other(at(5_100)));
    }

    #[test]
    fn without_an_interval_nothing_is_asked_for() {
        let now = Instant::now();
        let mut cadence = Cadence::new(Duration::ZERO);
        cadence.keyframe(now);
        assert!(!cadence.other(now + Duration::from_secs(60)));
    }
}
