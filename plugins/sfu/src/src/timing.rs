// SPDX-License-Identifier: MPL-2.0

//! From the moments of capture to running time: one mapping for all pads of an element gives lip sync.
//!
//! All times are nanoseconds of running time, and may be below zero until they go out.

use std::time::{Duration, Instant};

/// The mapping is looked at once in this time.
const WINDOW: Duration = Duration::from_secs(2);
/// It moves by one part in this many of the time that passes, which nobody hears.
const SLEW: i64 = 200;
/// What is further off is no drift: somebody set a clock.
const JUMP: i64 = 1_000_000_000;
/// A timestamp further from its moment of capture than this is not moved there smoothly.
const SMOOTH: i64 = 100_000_000;
/// A timestamp that is from before the last one was sent again, unless it was captured this much later than that.
const STEPPED: i64 = 250_000_000;
/// A timestamp's step is changed by one part in this many.
const STEP_SLEW: i64 = 50;
/// The smallest step, for what must catch up.
const STEP: i64 = 1_000_000;

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Maps moments of capture to running time. The first packet's is the running time at which it came; after that the
/// mapping follows when packets are late, or early, for seconds: clocks drift, and the first one may have been slow.
#[derive(Debug)]
pub(super) struct Mapping {
    /// How late packets may be, in nanoseconds.
    tolerance: i64,
    anchor: Option<(Instant, i64)>,
    /// Since when, and the greatest lateness since then.
    window: Option<(Instant, i64)>,
    correction: i64,
    last: Option<Instant>,
}

impl Mapping {
    /// `latency` is how much later downstream shows what it gets.
    pub(super) fn new(latency: Duration) -> Self {
        Self {
            tolerance: nanos(latency) / 2,
            anchor: None,
            window: None,
            correction: 0,
            last: None,
        }
    }

    /// The next packet is the first one.
    pub(super) fn reset(&mut self) {
        *self = Self {
            anchor: None,
            window: None,
            correction: 0,
            last: None,
            ..*self
        };
    }

    /// The first packet stands for this running time, unless there was one before.
    pub(super) fn begin(&mut self, captured: Instant, running_time: i64) {
        self.anchor.get_or_insert((captured, running_time));
    }

    /// Takes note of a packet that just came, `now` being `running_time`.
    pub(super) fn observe(&mut self, captured: Instant, now: Instant, running_time: i64) {
        let Some((instant, at)) = self.anchor else {
            self.anchor = Some((captured, running_time));
            return;
        };
        let passed = self.last.map_or(Duration::ZERO, |last| now - last.min(now));
        self.last = Some(now);
        let limit = nanos(passed) / SLEW;
        let step = self.correction.clamp(-limit, limit);
        self.correction -= step;
        self.anchor = Some((instant, at + step));
        let late = running_time - self.at(captured);
        if late.abs() > JUMP {
            self.reset();
            self.anchor = Some((captured, running_time));
            return;
        }
        let (since, worst) = self.window.unwrap_or((now, late));
        let worst = worst.max(late);
        if now.saturating_duration_since(since) < WINDOW {
            self.window = Some((since, worst));
            return;
        }
        self.window = None;
        self.correction = worst - worst.clamp(0, self.tolerance);
    }

    /// The running time of a moment of capture.
    pub(super) fn at(&self, captured: Instant) -> i64 {
        let Some((instant, at)) = self.anchor else {
            return 0;
        };
        if captured >= instant {
            at.saturating_add(nanos(captured - instant))
        } else {
            at.saturating_sub(nanos(instant - captured))
        }
    }
}

/// A pad's timestamps: as even as those of RTP, near the moments of capture, and never backwards.
#[derive(Debug)]
pub(super) struct TrackClock {
    rate: i64,
    /// The newest RTP timestamp and its running time.
    last: Option<(u32, i64)>,
    /// Nothing goes before this.
    floor: i64,
}

impl TrackClock {
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate: i64::from(rate),
            last: None,
            floor: 0,
        }
    }

    /// The next timestamp has nothing to do with the last one.
    pub(super) fn reset(&mut self) {
        if let Some((_, at)) = self.last.take() {
            self.floor = at + STEP;
        }
    }

    /// Whether this timestamp is from after all others.
    pub(super) fn is_newer(&self, timestamp: u32) -> bool {
        self.last
            .is_none_or(|(last, _)| timestamp.wrapping_sub(last) as i32 > 0)
    }

    /// The running time of an RTP timestamp that was captured at the running time `captured`.
    pub(super) fn at(&mut self, timestamp: u32, captured: i64) -> u64 {
        let next = match self.last {
            None => captured.max(self.floor),
            Some((last, at)) => {
                let ticks = i64::from(timestamp.wrapping_sub(last) as i32);
                let step = ticks * 1_000_000_000 / self.rate;
                let off = captured - (at + step);
                if step <= 0 && off <= STEPPED {
                    // The same frame, or a packet that was sent again.
                    return unsigned((at + step).max(self.floor));
                }
                if step > 0 && off.abs() <= SMOOTH {
                    at + step + off.clamp(-step / STEP_SLEW, step / STEP_SLEW)
                } else {
                    captured.max(at + step.clamp(0, STEP))
                }
            }
        };
        self.last = Some((timestamp, next));
        unsigned(next)
    }
}

fn unsigned(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_packet_anchors_all_tracks() {
        let t0 = Instant::now() + ms(1_000);
        let mut mapping = Mapping::new(ms(100));
        mapping.observe(t0, t0 + ms(60), 5_000 * MS);
        assert_eq!(mapping.at(t0), 5_000 * MS);
        assert_eq!(mapping.at(t0 + ms(20)), 5_020 * MS);
        assert_eq!(mapping.at(t0 - ms(40)), 4_960 * MS);
    }

    #[test]
    fn it_follows_a_drift_slowly_and_a_set_clock_at_once() {
        let t0 = Instant::now() + ms(1_000);
        let mut mapping = Mapping::new(ms(100));
        let mut before = i64::MIN;
        // The pipeline's clock is one part in a thousand fast, and the first packet came 200 ms late.
        for n in 0..6_000u64 {
            let captured = t0 + ms(20 * n);
            let late = if n == 0 { 200 } else { 0 };
            let running_time = (20 * n + late) as i64 * MS * 1_001 / 1_000;
            mapping.observe(captured, captured + ms(late), running_time);
            let at = mapping.at(captured);
            assert!(at > before, "forward only");
            before = at;
        }
        let off = mapping.at(t0 + ms(120_000)) - 120_120 * MS;
        assert!((-60 * MS..=10 * MS).contains(&off), "{off}");
        let captured = t0 + ms(120_020);
        mapping.observe(captured, captured, 500_000 * MS);
        assert_eq!(mapping.at(captured), 500_000 * MS);
    }

    #[test]
    fn timestamps_are_even_where_captures_jitter() {
        let mut clock = TrackClock::new(90_000);
        let mut last = None;
        for n in 0..300i64 {
            let jitter = (n * 7 % 11 - 5) * MS;
            let at = clock.at(
                (n as u32).wrapping_mul(3_000).wrapping_sub(9_000),
                n * 1_000 * MS / 30 + jitter + 50 * MS,
            );
            if let Some(last) = last {
                let step = at as i64 - last as i64;
                assert!((step - 33 * MS).abs() < 2 * MS, "{step}");
            }
            last = Some(at);
        }
        assert_eq!(
            clock.at(299 * 3_000 - 9_000, 0),
            last.unwrap_or(0),
            "one frame"
        );
    }

    #[test]
    fn it_never_goes_back() {
        let mut clock = TrackClock::new(90_000);
        // A replayed group of pictures from before the pipeline began, and then live ones.
        assert_eq!(clock.at(0, -400 * MS), 0);
        assert_eq!(clock.at(3_000, -367 * MS), MS as u64);
        assert_eq!(clock.at(6_000, 40 * MS), 34_999_999, "smoothly");
        clock.reset();
        let after = clock.at(77, 10 * MS);
        assert!(after > 34 * MS as u64, "another publisher");
        assert_eq!(clock.at(90_077, 5_000 * MS), 5_000 * MS as u64, "a pause");
    }
}
