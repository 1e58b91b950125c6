// SPDX-License-Identifier: MPL-2.0

//! Brings a publisher's tracks and layers on common timelines.
//!
//! Each simulcast layer has its own random timestamp offset. Viewers that change between layers need one timeline, and
//! sound needs the same clock as pictures. Arrival times give a first guess; sender reports give the truth.

use std::time::{Duration, Instant, SystemTime};

/// Of how much an error a peer's clock is corrected by each report, and at most of the time since the last one.
const GAIN: u32 = 4;
const MOST: u32 = 20;
/// A report that is this far off is not plausible: the peer's clock was set.
const SET: Duration = Duration::from_secs(60);

/// Timestamps that go back by more than any order of pictures does, ahead of the clock, or behind it by more than any
/// network holds packets up, are of another beginning.
const BACK: Duration = Duration::from_secs(1);
const AHEAD: Duration = Duration::from_secs(1);
const BEHIND: Duration = Duration::from_secs(10);
/// A moment that a report gives and that is this far from now is not believed.
const IMPLAUSIBLE: Duration = Duration::from_secs(5);

/// Without reports a slow clock is followed by this much in each such time.
const EVERY: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);

/// The timeline of one layer.
#[derive(Debug)]
pub(super) struct Timeline {
    clock_rate: u32,
    anchor: Option<Anchor>,
    /// The SSRC that it is of.
    source: u32,
    /// When the anchor's packet came.
    heard: Option<Instant>,
    /// Reports tell the moments.
    is_reported: bool,
    lag: Option<Lag>,
}

/// How far behind their arrival packets stand at the least: what the clock is slow by, where there are no reports.
#[derive(Debug, Clone, Copy)]
struct Lag {
    since: Instant,
    least: Duration,
}

/// What a packet says of its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// Its SSRC.
    pub(super) source: u32,
    pub(super) timestamp: u32,
    /// It comes after others that follow it.
    pub(super) is_late: bool,
}

/// One moment in the peer's timestamps, in ours, and on our clock.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    theirs: u32,
    ours: u32,
    captured: Instant,
}

/// What all tracks of a peer share: one moment on its clock and on ours.
///
/// Clocks drift, so the moment is moved with each report, by little: all tracks move together, and nobody hears it.
#[derive(Debug, Default)]
pub(super) struct PeerClock(Option<Moment>);

#[derive(Debug, Clone, Copy)]
struct Moment {
    theirs: SystemTime,
    ours: Instant,
    /// When the last report came.
    reported: Instant,
}

impl PeerClock {
    /// The moment on our clock at which the peer's clock showed `ntp`.
    ///
    /// `None` for a report that is not plausible: more than a minute from when it came.
    pub(super) fn local(&mut self, ntp: SystemTime, now: Instant) -> Option<Instant> {
        let moment = self.0.get_or_insert(Moment {
            theirs: ntp,
            ours: now,
            reported: now,
        });
        let local = match ntp.duration_since(moment.theirs) {
            Ok(later) => moment.ours.checked_add(later)?,
            Err(earlier) => moment.ours.checked_sub(earlier.duration())?,
        };
        let off = local.max(now) - local.min(now);
        if off > SET {
            // Begin anew with the next report.
            self.0 = None;
            return None;
        }
        let since = now.saturating_duration_since(moment.reported);
        let step = (off / GAIN).min(since / MOST);
        let local = match local > now {
            true => local.checked_sub(step)?,
            false => local + step,
        };
        *moment = Moment {
            theirs: ntp,
            ours: local,
            reported: now,
        };
        Some(local)
    }
}

impl Timeline {
    pub(super) fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            anchor: None,
            source: 0,
            heard: None,
            is_reported: false,
            lag: None,
        }
    }

    /// A packet's timestamp on our timeline, and the moment that it stands for. `start` is where our timeline begins.
    ///
    /// Where another SSRC begins, or timestamps jump, ours go on by the time that has passed.
    pub(super) fn map(&mut self, stamp: Stamp, now: Instant, start: Instant) -> (u32, Instant) {
        let theirs = stamp.timestamp;
        let mut anchor = match self.anchor {
            Some(anchor) => anchor.moved(theirs, self.clock_rate),
            None => Anchor {
                theirs,
                ours: ticks(now.saturating_duration_since(start), self.clock_rate),
                captured: now,
            },
        };
        if let Some(before) = self.anchor {
            let is_other = stamp.source != self.source;
            if is_other || !stamp.is_late && self.jumps(before, anchor, now) {
                anchor = self.goes_on(before, theirs, now);
                self.is_reported = false;
                self.lag = None;
                self.anchor = None;
            }
        }
        let newer = self
            .anchor
            .is_none_or(|a| (theirs.wrapping_sub(a.theirs) as i32) > 0);
        if newer {
            self.source = stamp.source;
            self.heard = Some(now);
            self.follow(&mut anchor, now);
            // Kept close to the newest packet, so that wraps are far away.
            self.anchor = Some(anchor);
        }
        (anchor.ours, anchor.captured)
    }

    fn jumps(&self, before: Anchor, anchor: Anchor, now: Instant) -> bool {
        let step = anchor.theirs.wrapping_sub(before.theirs).cast_signed();
        let back = ticks(BACK, self.clock_rate).cast_signed();
        step < -back || anchor.captured > now + AHEAD || anchor.captured + BEHIND < now
    }

    /// The time that has passed since the last packet has passed in ours, too.
    fn goes_on(&self, before: Anchor, theirs: u32, now: Instant) -> Anchor {
        let passed = self.heard.map(|at| now.saturating_duration_since(at));
        let passed = ticks(passed.unwrap_or_default(), self.clock_rate);
        Anchor {
            theirs,
            ours: before
                .ours
                .wrapping_add(passed.max(self.clock_rate / 1_000)),
            captured: now,
        }
    }

    /// Nothing is captured after it has come, and without reports nothing long before: so a clock that drifts is followed.
    fn follow(&mut self, anchor: &mut Anchor, now: Instant) {
        anchor.captured = anchor.captured.min(now);
        if self.is_reported {
            return;
        }
        let behind = now.saturating_duration_since(anchor.captured);
        let lag = self.lag.get_or_insert(Lag {
            since: now,
            least: behind,
        });
        lag.least = lag.least.min(behind);
        if now.saturating_duration_since(lag.since) >= EVERY {
            anchor.captured += lag.least.min(STEP);
            self.lag = None;
        }
    }

    /// A sender report told when a timestamp was captured. Our timestamps stay as they are.
    pub(super) fn correct(&mut self, now: Instant, source: u32, theirs: u32, captured: Instant) {
        let off = captured.max(now) - captured.min(now);
        if let Some(anchor) = &mut self.anchor
            && source == self.source
            && off < IMPLAUSIBLE
        {
            let reported = Anchor {
                captured,
                ..anchor.moved(theirs, self.clock_rate)
            };
            *anchor = reported.moved(anchor.theirs, self.clock_rate);
            self.is_reported = true;
        }
    }
}

impl Anchor {
    fn moved(self, theirs: u32, clock_rate: u32) -> Self {
        let delta = theirs.wrapping_sub(self.theirs);
        let steps = i64::from(delta as i32);
        let span =
            Duration::from_nanos(steps.unsigned_abs() * 1_000_000_000 / u64::from(clock_rate));
        let captured = if steps >= 0 {
            self.captured.checked_add(span)
        } else {
            self.captured.checked_sub(span)
        };
        Self {
            theirs,
            ours: self.ours.wrapping_add(delta),
            captured: captured.unwrap_or(self.captured),
        }
    }
}

fn ticks(time: Duration, clock_rate: u32) -> u32 {
    (time.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn stamp(timestamp: u32) -> Stamp {
        Stamp {
            source: 1,
            timestamp,
            is_late: false,
        }
    }

    #[test]
    fn layers_with_different_offsets_share_a_timeline() {
        let start = Instant::now();
        let mut low = Timeline::new(90_000);
        let mut high = Timeline::new(90_000);
        let now = start + MS * 100;
        assert_eq!(low.map(stamp(5), now, start), (9_000, now));
        assert_eq!(high.map(stamp(u32::MAX - 10), now, start), (9_000, now));
        let later = (9_000 + 90_000, now + MS * 1_000);
        assert_eq!(low.map(stamp(5 + 90_000), now + MS * 1_030, start), later);
        assert_eq!(
            high.map(stamp(90_000 - 11), now + MS * 1_003, start),
            later,
            "over the wrap"
        );
        assert_eq!(
            low.map(stamp(5 + 87_000), now + MS * 1_040, start).0,
            96_000,
            "a late packet"
        );
    }

    #[test]
    fn sender_reports_align_sound_and_pictures() {
        let start = Instant::now();
        let now = start + MS * 100;
        let mut clock = PeerClock::default();
        let (mut video, mut audio) = (Timeline::new(90_000), Timeline::new(48_000));
        // The picture took 80 ms longer through the peer than the sound of the same moment.
        video.map(stamp(0), now + MS * 80, start);
        audio.map(stamp(0), now, start);
        let ntp = SystemTime::now();
        for timeline in [&mut video, &mut audio] {
            let captured = clock.local(ntp, now).unwrap();
            timeline.correct(now, 1, 0, captured);
        }
        let moment = |t: &mut Timeline, ticks| t.map(stamp(ticks), now, start).1;
        assert_eq!(moment(&mut video, 9_000), moment(&mut audio, 4_800));
    }

    #[test]
    fn a_peer_whose_clock_jumps_is_believed_again() {
        let now = Instant::now() + MS * 500_000;
        let mut clock = PeerClock::default();
        let ntp = SystemTime::now();
        assert_eq!(clock.local(ntp, now), Some(now));
        assert_eq!(clock.local(ntp + MS * 90_000, now), None);
        assert_eq!(clock.local(ntp + MS * 90_000, now), Some(now));
    }

    /// A clock that is off by so many millionths, over hours, at 30 pictures a second, some of which come late.
    fn drift(millionths: i64, reports: bool) {
        let start = Instant::now();
        let mut clock = PeerClock::default();
        let mut timeline = Timeline::new(90_000);
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut last: Option<(u32, Instant)> = None;
        for frame in 0..3 * 3_600 * 30u64 {
            let real = Duration::from_micros(frame * 33_333);
            let theirs = real.as_micros() as i64 * (1_000_000 + millionths) / 1_000_000;
            let timestamp = (theirs * 9 / 100) as u32;
            let jitter = MS * (frame * 7 % 20) as u32;
            let now = start + real + jitter;
            let (ours, captured) = timeline.map(stamp(timestamp), now, start);
            if reports && frame % 150 == 0 {
                let ntp = begin + Duration::from_micros(theirs as u64);
                let told = clock.local(ntp, now).expect("plausible");
                timeline.correct(now, 1, timestamp, told);
            }
            let off = captured.max(now) - captured.min(now);
            assert!(off < MS * 300, "{millionths}: {off:?} after {real:?}");
            if let Some((before, at)) = last.replace((ours, captured)) {
                let step = ours.wrapping_sub(before);
                assert!((2_900..3_100).contains(&step), "{millionths}: {step}");
                let moved = captured.saturating_duration_since(at);
                assert!(moved < MS * 200, "{millionths}: {moved:?} after {real:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        for millionths in [-10_000, -500, -50, 0, 50, 500, 10_000] {
            drift(millionths, true);
        }
        for millionths in [-500, -50, 0, 50, 500] {
            drift(millionths, false);
        }
    }

    #[test]
    fn jumps_and_other_ssrcs_go_on_by_the_time_that_has_passed() {
        let start = Instant::now();
        let (a, b) = (stamp(9_000), |source, timestamp, is_late| Stamp {
            source,
            timestamp,
            is_late,
        });
        let now = start + MS * 133;
        for (what, next, expected) in [
            ("in time", b(1, 9_000 + 2_970, false), 2_970),
            ("ahead", b(1, 9_000 + 900_000, false), 2_970),
            ("back", b(1, 9_000u32.wrapping_sub(180_000), false), 2_970),
            ("another SSRC", b(2, 7, false), 2_970),
            (
                "a B-frame",
                b(1, 9_000u32.wrapping_sub(5_940), false),
                0u32.wrapping_sub(5_940),
            ),
            (
                "late",
                b(1, 9_000u32.wrapping_sub(5_940), true),
                0u32.wrapping_sub(5_940),
            ),
        ] {
            let mut timeline = Timeline::new(90_000);
            let (first, _) = timeline.map(a, start + MS * 100, start);
            let (ours, captured) = timeline.map(next, now, start);
            assert_eq!(ours.wrapping_sub(first), expected, "{what}");
            assert!(captured <= now, "{what}");
        }
        // A pause in which the timestamps stood still.
        let mut timeline = Timeline::new(90_000);
        let (first, _) = timeline.map(a, start, start);
        let (ours, _) = timeline.map(b(1, 9_000 + 2_970, false), start + MS * 30_000, start);
        assert_eq!(ours - first, 30 * 90_000);
    }
}
