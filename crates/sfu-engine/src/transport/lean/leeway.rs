// SPDX-License-Identifier: MPL-2.0

//! How long a viewer is to keep pictures back, so that what is lost and sent again comes in time to be shown, and how long it may,
//! so that they are shown with the sound that belongs to them.
//!
//! Browsers that are told to show what comes (a delay of 0) freeze for two round trips with each packet that is lost, as
//! long as they were not told of anything else. Where nothing is lost nothing is kept back. They also show pictures long before their
//! sound where that comes late; where it does not, waiting for it would only cost latency.

use std::time::{Duration, Instant};

use super::super::negotiate::PlayoutDelay;

/// So many packets lost within [`LATELY`] are no accident.
const LOST: u32 = 3;
const LATELY: Duration = Duration::from_secs(10);
/// With nothing lost for so long, nothing is kept back any more: a browser gets over each change within seconds.
const QUIET: Duration = Duration::from_secs(60);
/// A packet is missed when the next frame has come, and what is sent again may be lost, too: twice the round trip, and this.
const TO_NOTICE: Duration = Duration::from_millis(60);
/// More would be felt in a conversation, and freezes less than a late picture.
const MOST: Duration = Duration::from_millis(250);
/// Sound that is later than this belongs to no picture any more.
const LATEST_SOUND: Duration = Duration::from_secs(10);
/// A round trip that has changed by less makes no difference.
const STEP: Duration = Duration::from_millis(40);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Leeway {
    rtt: Option<Duration>,
    lost: u32,
    since: Instant,
    last: Option<Instant>,
    sound_lags: bool,
    told: Duration,
    /// Whether what was told has room for late sound.
    told_lag: bool,
}

impl Leeway {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rtt: None,
            lost: 0,
            since: now,
            last: None,
            sound_lags: false,
            told: Duration::ZERO,
            told_lag: false,
        }
    }

    pub(super) fn rtt(&mut self, rtt: Duration) {
        // The least of late: a queue on the way is not what repairs should wait for.
        let least = self.rtt.map_or(rtt, |r| r.min(rtt));
        self.rtt = Some(least + rtt.saturating_sub(least) / 8);
    }

    /// The viewer missed a packet.
    pub(super) fn lost(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) > LATELY {
            (self.since, self.lost) = (now, 0);
        }
        self.lost += 1;
        self.last = Some(now);
    }

    /// Room that was given is not taken back: with the sound in time, browsers don't use it, and Firefox showed nothing new after that.
    pub(super) fn wait_for_sound(&mut self, lags: bool) {
        self.sound_lags |= lags;
    }

    /// What the viewer is to be told, where that has changed.
    pub(super) fn poll(&mut self, now: Instant) -> Option<PlayoutDelay> {
        let quiet = |at| now.saturating_duration_since(at) > QUIET;
        let wanted = if self.last.is_none_or(quiet) {
            Duration::ZERO
        } else if self.lost >= LOST || !self.told.is_zero() {
            (self.rtt? * 2 + TO_NOTICE).min(MOST)
        } else {
            Duration::ZERO
        };
        let changed = match wanted.is_zero() {
            true => !self.told.is_zero(),
            false => self.told.is_zero() || wanted.abs_diff(self.told) >= STEP,
        };
        if !changed && self.told_lag == self.sound_lags {
            return None;
        }
        (self.told, self.told_lag) = (wanted, self.sound_lags);
        let most = if self.sound_lags {
            LATEST_SOUND
        } else {
            wanted
        };
        PlayoutDelay::from_millis(wanted.as_millis() as u32, most.as_millis() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn lossy(now: Instant, rtt: Duration) -> Leeway {
        let mut leeway = Leeway::new(now);
        leeway.rtt(rtt);
        for _ in 0..LOST {
            leeway.lost(now);
        }
        leeway
    }

    #[test]
    fn nothing_is_kept_back_where_next_to_nothing_is_lost() {
        let now = Instant::now();
        let mut leeway = Leeway::new(now);
        leeway.rtt(80 * MS);
        for second in 0..100 {
            let now = now + SECOND * 6 * second;
            leeway.lost(now);
            assert_eq!(leeway.poll(now), None, "one loss in six seconds");
        }
    }

    #[test]
    fn two_round_trips_where_packets_are_lost_and_none_a_minute_after() {
        let now = Instant::now();
        for (rtt, told) in [(4, 68), (40, 140), (80, 220), (95, 250), (400, 250)] {
            let mut leeway = lossy(now, rtt * MS);
            assert_eq!(leeway.poll(now), PlayoutDelay::from_millis(told, told));
            assert_eq!(leeway.poll(now), None, "told once");
            assert_eq!(leeway.poll(now + QUIET), None);
            let after = leeway.poll(now + QUIET + MS);
            assert_eq!(after, PlayoutDelay::from_millis(0, 0));
            assert_eq!(leeway.poll(now + 2 * QUIET), None, "told once");
        }
    }

    #[test]
    fn it_follows_the_round_trip_and_not_its_jitter() {
        let now = Instant::now();
        let mut leeway = lossy(now, 40 * MS);
        assert!(leeway.poll(now).is_some());
        for n in 0..100u32 {
            leeway.rtt(40 * MS + MS * (n % 20));
            leeway.lost(now);
            assert_eq!(leeway.poll(now), None, "{:?}", leeway.rtt);
        }
        for _ in 0..100 {
            leeway.rtt(90 * MS);
        }
        assert_eq!(leeway.poll(now), PlayoutDelay::from_millis(239, 239));
        let mut unknown = Leeway::new(now);
        for _ in 0..LOST {
            unknown.lost(now);
        }
        assert_eq!(unknown.poll(now), None, "without a round trip");
    }

    #[test]
    fn pictures_may_wait_for_late_sound() {
        let now = Instant::now();
        let mut leeway = Leeway::new(now);
        leeway.wait_for_sound(true);
        assert_eq!(leeway.poll(now), PlayoutDelay::from_millis(0, 10_000));
        assert_eq!(leeway.poll(now), None);
        leeway.rtt(40 * MS);
        (0..LOST).for_each(|_| leeway.lost(now));
        assert_eq!(leeway.poll(now), PlayoutDelay::from_millis(140, 10_000));
        leeway.wait_for_sound(false);
        assert_eq!(leeway.poll(now), None);
    }
}
