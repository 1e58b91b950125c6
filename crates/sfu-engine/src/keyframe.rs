// SPDX-License-Identifier: MPL-2.0

//! The keyframe arbiter: any number of viewers ask, the encoder hears at most one request an interval.
//!
//! One arbiter a layer. PLI (RFC 4585) and FIR (RFC 5104) of all viewers, and viewers that wait to join, come here, once
//! their viewer's [`Price`](crate::price::Price) lets them. It owns no clock: the caller says what time it is and asks again
//! at [`KeyframeArbiter::deadline`].

use std::time::{Duration, Instant};

use crate::ids::SessionId;

/// While one viewer alone asks, the interval doubles with each keyframe that it gets, up to this. Not tuned.
const LONE_MAX: Duration = Duration::from_secs(8);
/// What the first doubling starts from, at least.
const LONE_MIN: Duration = Duration::from_millis(500);
/// Keyframes for viewers who begin, which may come one an interval; and the time in which one more of them is earned. A
/// crowd that comes at once is served as fast as ever; who joins and leaves in a loop costs the others one in two seconds.
const STARTS: u32 = 10;
const START_EVERY: Duration = Duration::from_secs(2);
/// A publisher that has not answered for this long does not make keyframes when it is asked.
const DEAF_AFTER: Duration = Duration::from_secs(1);

/// Why a keyframe is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// This viewer can't decode what it gets (PLI, FIR).
    Repair(SessionId),
    /// A viewer waits to begin with the layer.
    Start,
    /// The publisher's packets are lost for good, or a consumer inside the process asks.
    Source,
}

/// Who waits for the keyframe that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Askers {
    One(SessionId),
    Starts,
    Many,
}

impl Askers {
    fn of(need: Need) -> Self {
        match need {
            Need::Repair(id) => Self::One(id),
            Need::Start => Self::Starts,
            Need::Source => Self::Many,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Held {
    at: Instant,
    by: Askers,
}

/// What became of the requests of one layer. `received` is `merged`, `sent`, and the one that may be held back now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyframeCounts {
    /// Requests of viewers, and for them.
    pub received: u64,
    /// Those that another one stood for, or a keyframe that came anyway.
    pub merged: u64,
    /// Those that went upstream.
    pub sent: u64,
}

/// Merges the keyframe requests of a layer's viewers.
///
/// A request is answered by the next keyframe, whoever caused it. A request that comes too early after the last one
/// that was sent is kept, and sent when the interval is over unless a keyframe came in between.
#[derive(Debug)]
pub struct KeyframeArbiter {
    min_interval: Duration,
    last_sent: Option<Instant>,
    /// A keyframe has come since.
    answered: bool,
    /// The last request was not answered in time.
    deaf: bool,
    /// Somebody still waits for a keyframe, and no request that was sent covers it.
    held: Option<Held>,
    /// The only viewer for whom the last keyframes were asked, and how often the interval has doubled.
    lone: Option<SessionId>,
    doublings: u32,
    starts_left: u32,
    starts_earned: Option<Instant>,
    counts: KeyframeCounts,
}

impl KeyframeArbiter {
    /// An arbiter that sends at most one request each `min_interval`.
    pub fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            last_sent: None,
            answered: true,
            deaf: false,
            held: None,
            lone: None,
            doublings: 0,
            starts_left: STARTS,
            starts_earned: None,
            counts: KeyframeCounts::default(),
        }
    }

    /// A keyframe is needed. Returns whether a request must go upstream now.
    #[must_use]
    pub fn request(&mut self, now: Instant, need: Need) -> bool {
        self.counts.received += 1;
        let interval = self.interval(now, need);
        let at = self.last_sent.map_or(now, |last| last + interval);
        let by = Askers::of(need);
        self.held = Some(match self.held {
            None => Held { at, by },
            Some(held) => {
                self.counts.merged += 1;
                let by = if held.by == by { by } else { Askers::Many };
                Held {
                    at: held.at.min(at),
                    by,
                }
            }
        });
        self.poll(now)
    }

    /// A keyframe came: whoever waited has it.
    pub fn keyframe(&mut self, now: Instant) {
        if !self.answered {
            self.deaf = self.is_deaf(now);
        }
        self.answered = true;
        self.counts.merged += u64::from(self.held.take().is_some());
    }

    /// Returns whether a request that was held back must go upstream now.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> bool {
        let Some(held) = self.held.take_if(|held| held.at <= now) else {
            return false;
        };
        let elapsed = self
            .last_sent
            .map_or(LONE_MAX, |last| now.saturating_duration_since(last));
        match held.by {
            Askers::One(id) if self.lone == Some(id) => {
                let faded = (elapsed.as_secs() / LONE_MAX.as_secs()) as u32;
                self.doublings = self.doublings.saturating_sub(faded) + u32::from(self.answered);
            }
            Askers::One(id) => (self.lone, self.doublings) = (Some(id), 1),
            Askers::Starts | Askers::Many => self.lone = None,
        }
        if held.by == Askers::Starts && self.answered {
            self.starts_left = self.starts_left.saturating_sub(1);
        }
        self.answered = false;
        self.last_sent = Some(now);
        self.counts.sent += 1;
        true
    }

    /// When [`poll`](Self::poll) has something to send, if anything is held back.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.map(|held| held.at)
    }

    /// The publisher was asked, and does not answer.
    pub(crate) fn is_deaf(&self, now: Instant) -> bool {
        let late = |last| now.saturating_duration_since(last) >= DEAF_AFTER;
        match self.answered {
            true => self.deaf,
            false => self.last_sent.is_some_and(late),
        }
    }

    /// What became of the requests.
    pub fn counts(&self) -> KeyframeCounts {
        self.counts
    }

    /// The time that must have passed since the last request that was sent.
    fn interval(&mut self, now: Instant, need: Need) -> Duration {
        if need == Need::Start {
            self.earn_starts(now);
        }
        if !self.answered {
            // The request may have been lost: a second one costs no second keyframe.
            return self.min_interval;
        }
        match need {
            Need::Repair(id) if self.lone == Some(id) => {
                let longer = self.min_interval.max(LONE_MIN) * (1 << self.doublings.min(8));
                longer.min(LONE_MAX).max(self.min_interval)
            }
            Need::Start if self.starts_left == 0 => START_EVERY.max(self.min_interval),
            _ => self.min_interval,
        }
    }

    fn earn_starts(&mut self, now: Instant) {
        let since = self.starts_earned.get_or_insert(now);
        let elapsed = now.saturating_duration_since(*since);
        let earned = (elapsed.as_millis() / START_EVERY.as_millis()) as u32;
        *since += START_EVERY * earned;
        self.starts_left = self.starts_left.saturating_add(earned).min(STARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(500);
    const MS: Duration = Duration::from_millis(1);

    fn viewer(n: u128) -> Need {
        Need::Repair(SessionId::from_bits(n))
    }

    fn counts(arbiter: &KeyframeArbiter) -> (u64, u64, u64) {
        let counts = arbiter.counts();
        (counts.received, counts.merged, counts.sent)
    }

    /// Asks every 50 ms for a time, by an encoder that answers after a frame. Returns what went upstream.
    fn ask(arbiter: &mut KeyframeArbiter, from: Instant, time: Duration, need: Need) -> u32 {
        let (mut sent, mut at) = (0, from);
        while at < from + time {
            arbiter.keyframe(at);
            sent += u32::from(arbiter.request(at, need));
            at += 50 * MS;
        }
        sent
    }

    #[test]
    fn first_request_is_sent_at_once_and_the_next_ones_wait() {
        let t0 = Instant::now();
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        assert!(arbiter.request(t0, viewer(1)));
        assert_eq!(arbiter.deadline(), None);
        assert!(!arbiter.request(t0 + 100 * MS, viewer(2)));
        assert_eq!(arbiter.deadline(), Some(t0 + INTERVAL));
        assert!(!arbiter.poll(t0 + 499 * MS));
        assert!(arbiter.poll(t0 + INTERVAL));
        assert!(!arbiter.poll(t0 + INTERVAL * 3), "nobody asked again");
        assert_eq!(counts(&arbiter), (2, 0, 2));
    }

    #[test]
    fn a_keyframe_answers_everybody_who_waited() {
        let t0 = Instant::now();
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        assert!(arbiter.request(t0, viewer(1)));
        assert!(!arbiter.request(t0 + 10 * MS, viewer(2)));
        arbiter.keyframe(t0 + 20 * MS);
        assert_eq!(arbiter.deadline(), None);
        assert!(!arbiter.poll(t0 + INTERVAL * 2));
        assert_eq!(counts(&arbiter), (2, 1, 1));
    }

    #[test]
    fn a_request_that_the_encoder_lost_is_repeated() {
        let t0 = Instant::now();
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        for n in 0..20 {
            // The viewer still has no picture and asks again.
            assert!(arbiter.request(t0 + INTERVAL * n, viewer(1)));
            assert!(!arbiter.is_deaf(t0 + INTERVAL * n + 999 * MS));
        }
        let late = t0 + INTERVAL * 19 + DEAF_AFTER;
        assert!(arbiter.is_deaf(late));
        // One that came anyway.
        arbiter.keyframe(late);
        assert!(arbiter.is_deaf(late));
        assert!(arbiter.request(late, viewer(1)));
        arbiter.keyframe(late + 100 * MS);
        assert!(!arbiter.is_deaf(late + 100 * MS));
    }

    #[test]
    fn one_viewer_alone_is_answered_less_and_less_often_and_others_at_once() {
        let t0 = Instant::now();
        let minute = Duration::from_secs(60);
        for (need, most) in [(viewer(1), 12), (Need::Start, 45), (Need::Source, 120)] {
            let mut arbiter = KeyframeArbiter::new(INTERVAL);
            let sent = ask(&mut arbiter, t0, minute, need);
            assert!((7..=most).contains(&sent), "{need:?}: {sent}");
            let after = t0 + minute;
            for (n, other) in (1..).zip([viewer(2), Need::Start, Need::Source]) {
                let mut arbiter = KeyframeArbiter::new(INTERVAL);
                ask(&mut arbiter, t0, minute, viewer(1));
                arbiter.keyframe(after);
                let waited = arbiter.request(after, viewer(1)) || arbiter.request(after, other);
                assert!(waited || arbiter.poll(after + INTERVAL), "{n}");
            }
        }
        // Who was quiet for long is as new.
        let mut arbiter = KeyframeArbiter::new(INTERVAL);
        ask(&mut arbiter, t0, minute, viewer(1));
        arbiter.keyframe(t0 + minute);
        assert!(arbiter.request(t0 + minute * 3, viewer(1)));
        arbiter.keyframe(t0 + minute * 3);
        assert!(!arbiter.request(t0 + minute * 3 + 400 * MS, viewer(1)));
        assert!(arbiter.poll(t0 + minute * 3 + Duration::from_secs(2)));
    }

    proptest! {
        #[test]
        fn never_more_than_one_an_interval_and_every_request_is_accounted_for(
            steps in proptest::collection::vec((0u64..400, 0u8..6, any::<bool>()), 1..300)
        ) {
            let mut now = Instant::now();
            let mut arbiter = KeyframeArbiter::new(INTERVAL);
            let mut last: Option<Instant> = None;
            for (gap, ask, key) in steps {
                now += Duration::from_millis(gap);
                let sent = match ask {
                    0 => arbiter.request(now, Need::Start),
                    1 => arbiter.request(now, Need::Source),
                    2 | 3 => arbiter.request(now, viewer(ask.into())),
                    _ => arbiter.poll(now),
                };
                if sent {
                    if let Some(last) = last {
                        prop_assert!(now.duration_since(last) >= INTERVAL);
                    }
                    last = Some(now);
                }
                if key {
                    arbiter.keyframe(now);
                }
                let (received, merged, sent) = counts(&arbiter);
                let held = u64::from(arbiter.deadline().is_some());
                prop_assert_eq!(received, merged + sent + held);
            }
        }
    }
}
