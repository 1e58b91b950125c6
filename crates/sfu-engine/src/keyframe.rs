// SPDX-License-Identifier: MPL-2.0

//! The keyframe arbiter: any number of viewers ask, the encoder hears at most one request an interval.
//!
//! One arbiter a layer. PLI (RFC 4585) and FIR (RFC 5104) of all viewers, and viewers that wait to join, come here.
//! It owns no clock: the caller says what time it is and asks again at [`KeyframeArbiter::deadline`].

use std::time::{Duration, Instant};

/// Merges the keyframe requests of a layer's viewers.
///
/// A request is answered by the next keyframe, whoever caused it. A request that comes too early after the last one
/// that was sent is kept, and sent when the interval is over unless a keyframe came in between.
#[derive(Debug)]
pub struct KeyframeArbiter {
    min_interval: Duration,
    last_sent: Option<Instant>,
    /// Somebody still waits for a keyframe, and no request that was sent covers it.
    pending: bool,
    received: u64,
    sent: u64,
}

impl KeyframeArbiter {
    /// An arbiter that sends at most one request each `min_interval`.
    pub fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            last_sent: None,
            pending: false,
            received: 0,
            sent: 0,
        }
    }

    /// A viewer needs a keyframe. Returns whether a request must go upstream now.
    #[must_use]
    pub fn request(&mut self, now: Instant) -> bool {
        self.received += 1;
        self.pending = true;
        self.poll(now)
    }

    /// A keyframe came: whoever waited has it.
    pub fn keyframe(&mut self) {
        self.pending = false;
    }

    /// Returns whether a request that was held back must go upstream now.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> bool {
        if !self.pending || self.deadline().is_some_and(|at| now < at) {
            return false;
        }
        self.pending = false;
        self.last_sent = Some(now);
        self.sent += 1;
        true
    }

    /// When [`poll`](Self::poll) has something to send, if anything is held back.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.pending, self.last_sent) {
            (true, Some(last)) => Some(last + self.min_interval),
            _ => None,
        }
    }

    /// How many requests came from viewers, and how many were sent upstream.
    pub fn counts(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    #[test]
    fn first_request_is_sent_at_once_and_the_next_ones_wait() {
        let t0 = Instant::now();
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        assert!(arbiter.request(t0));
        assert_eq!(arbiter.deadline(), None);
        assert!(!arbiter.request(t0 + Duration::from_millis(100)));
        assert_eq!(arbiter.deadline(), Some(t0 + INTERVAL));
        assert!(!arbiter.poll(t0 + Duration::from_millis(499)));
        assert!(arbiter.poll(t0 + INTERVAL));
        assert!(!arbiter.poll(t0 + INTERVAL * 3), "nobody asked again");
        assert_eq!(arbiter.counts(), (2, 2));
    }

    #[test]
    fn a_keyframe_answers_everybody_who_waited() {
        let t0 = Instant::now();
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        assert!(arbiter.request(t0));
        assert!(!arbiter.request(t0 + Duration::from_millis(10)));
        arbiter.keyframe();
        assert_eq!(arbiter.deadline(), None);
        assert!(!arbiter.poll(t0 + INTERVAL * 2));
    }

    #[test]
    fn a_request_that_the_encoder_lost_is_repeated() {
        let t0 = Instant::now();
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        assert!(arbiter.request(t0));
        // The viewer still has no picture and asks again.
        assert!(!arbiter.request(t0 + Duration::from_millis(300)));
        assert!(arbiter.poll(t0 + INTERVAL));
    }

    proptest! {
        #[test]
        fn never_more_than_one_an_interval(
            steps in proptest::collection::vec((0u64..400, any::<bool>(), any::<bool>()), 1..300)
        ) {
            let mut now = Instant::now();
            let mut arbiter = KeyframeArbiter::new(INTERVAL);
            let mut last: Option<Instant> = None;
            for (gap, ask, key) in steps {
                now += Duration::from_millis(gap);
                let sent = if ask { arbiter.request(now) } else { arbiter.poll(now) };
                if sent {
                    if let Some(last) = last {
                        prop_assert!(now.duration_since(last) >= INTERVAL);
                    }
                    last = Some(now);
                }
                if key {
                    arbiter.keyframe();
                }
            }
        }
    }
}
