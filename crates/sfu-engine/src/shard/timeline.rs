// SPDX-License-Identifier: MPL-2.0

//! Brings a publisher's tracks and layers on common timelines.
//!
//! Each simulcast layer has its own random timestamp offset. Viewers that change between layers need one timeline, and
//! sound needs the same clock as pictures. Arrival times give a first guess; sender reports give the truth.

use std::time::{Duration, Instant, SystemTime};

/// The timeline of one layer.
#[derive(Debug)]
pub(super) struct Timeline {
    clock_rate: u32,
    anchor: Option<Anchor>,
}

/// One moment in the peer's timestamps, in ours, and on our clock.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    theirs: u32,
    ours: u32,
    captured: Instant,
}

/// What all tracks of a peer share: one moment on its clock and on ours.
#[derive(Debug, Default)]
pub(super) struct PeerClock(Option<(SystemTime, Instant)>);

impl PeerClock {
    /// The moment on our clock at which the peer's clock showed `ntp`, by the first report that came.
    ///
    /// `None` for a report that is not plausible: more than a minute from when it came.
    pub(super) fn local(&mut self, ntp: SystemTime, now: Instant) -> Option<Instant> {
        let (base, at) = *self.0.get_or_insert((ntp, now));
        let local = match ntp.duration_since(base) {
            Ok(later) => at.checked_add(later)?,
            Err(earlier) => at.checked_sub(earlier.duration())?,
        };
        let off = local.max(now) - local.min(now);
        if off > Duration::from_secs(60) {
            // The peer's clock was set: begin anew with the next report.
            self.0 = None;
            return None;
        }
        Some(local)
    }
}

impl Timeline {
    pub(super) fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            anchor: None,
        }
    }

    /// A packet's timestamp on our timeline, and the moment that it stands for. `start` is where our timeline begins.
    pub(super) fn map(&mut self, theirs: u32, now: Instant, start: Instant) -> (u32, Instant) {
        let anchor = match self.anchor {
            Some(anchor) => anchor.moved(theirs, self.clock_rate),
            None => Anchor {
                theirs,
                ours: ticks(now.saturating_duration_since(start), self.clock_rate),
                captured: now,
            },
        };
        let newer = self
            .anchor
            .is_none_or(|a| (theirs.wrapping_sub(a.theirs) as i32) > 0);
        if newer {
            // Kept close to the newest packet, so that wraps are far away.
            self.anchor = Some(anchor);
        }
        (anchor.ours, anchor.captured)
    }

    /// A sender report told when a timestamp was captured. Our timestamps stay as they are.
    pub(super) fn correct(&mut self, theirs: u32, captured: Instant) {
        if let Some(anchor) = &mut self.anchor {
            let reported = Anchor {
                captured,
                ..anchor.moved(theirs, self.clock_rate)
            };
            *anchor = reported.moved(anchor.theirs, self.clock_rate);
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

    #[test]
    fn layers_with_different_offsets_share_a_timeline() {
        let start = Instant::now();
        let mut low = Timeline::new(90_000);
        let mut high = Timeline::new(90_000);
        let now = start + MS * 100;
        assert_eq!(low.map(5, now, start), (9_000, now));
        assert_eq!(high.map(u32::MAX - 10, now, start), (9_000, now));
        let later = (9_000 + 90_000, now + MS * 1_000);
        assert_eq!(low.map(5 + 90_000, now + MS * 1_030, start), later);
        assert_eq!(
            high.map(90_000 - 11, now + MS * 1_003, start),
            later,
            "over the wrap"
        );
        assert_eq!(
            low.map(5 + 87_000, now + MS * 1_040, start).0,
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
        video.map(0, now + MS * 80, start);
        audio.map(0, now, start);
        let ntp = SystemTime::now();
        for timeline in [&mut video, &mut audio] {
            let captured = clock.local(ntp, now).unwrap();
            timeline.correct(0, captured);
        }
        let moment = |t: &mut Timeline, ticks| t.map(ticks, now, start).1;
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
}
