// SPDX-License-Identifier: MPL-2.0

//! When media was captured: running time becomes moments on the machine's clock, the same for all pads of an element, by
//! the pipeline's clock, and by what the source says of it (NDI timecode).

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;

use crate::properties::lock;

/// A running time that is further from now than this was not produced now: a pause or a seek lies between.
const PAST: Duration = Duration::from_secs(10);
const FUTURE: Duration = Duration::from_secs(1);
/// What is further off than this is no drift of the pipeline's clock.
const JUMP: Duration = Duration::from_millis(100);
/// Drift is made up for by one part in this many a frame.
const SLEW: u32 = 32;
/// Two clocks that are read within this time are read at once, and how often that is tried.
const TOGETHER: Duration = Duration::from_micros(200);
const LOOKS: usize = 3;
/// Seconds between 1900, from which NTP counts, and 1970.
const UNIX_IN_NTP: u64 = 2_208_988_800;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Wallclock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// One moment on both clocks.
    anchor: Option<(gst::ClockTime, Instant)>,
    /// So much before a buffer's running time it was captured, says the source.
    before: Option<Duration>,
}

/// One moment on all clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    instant: Instant,
    /// By the pipeline's clock, where it has one.
    running_time: Option<gst::ClockTime>,
}

impl Now {
    pub(super) fn instant(self) -> Instant {
        self.instant
    }

    pub(super) fn running_time(self) -> Option<gst::ClockTime> {
        self.running_time
    }

    /// The time at an element. Who is interrupted between the two clocks looks again.
    pub(super) fn of(element: &impl IsA<gst::Element>) -> Self {
        let look = || {
            let before = Instant::now();
            let running_time = element.current_running_time();
            let took = before.elapsed();
            let instant = before + took / 2;
            (
                took,
                Self {
                    instant,
                    running_time,
                },
            )
        };
        let mut best = look();
        for _ in 1..LOOKS {
            if best.0 <= TOGETHER {
                break;
            }
            best = std::cmp::min_by_key(best, look(), |(took, _)| *took);
        }
        best.1
    }
}

impl Wallclock {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// When what has this running time was captured.
    pub(super) fn at(&self, running_time: Option<gst::ClockTime>, now: Now) -> Instant {
        let mut state = self.lock();
        let at = running_time.map_or(now.instant, |time| state.map(time, now));
        let before = state.before.unwrap_or_default();
        at.checked_sub(before).unwrap_or(at)
    }

    /// A buffer comes in that knows when it was captured.
    pub(super) fn observe(&self, buffer: &gst::BufferRef, pad: &gst::Pad, now: Now) {
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        let running_time = segment.as_ref().and_then(|event| {
            let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
            segment.to_running_time(buffer.pts()?)
        });
        let wall = SystemTime::now();
        let age = |at: SystemTime| wall.duration_since(at).ok().filter(|age| *age < PAST);
        let age = captured(buffer).filter_map(age).next();
        if let (Some(time), Some(age)) = (running_time, age) {
            self.lock().reference(time, age, now);
        }
    }
}

/// When a buffer says that it was captured, the best one first. It is for the caller to see whether that can be.
fn captured(buffer: &gst::BufferRef) -> impl Iterator<Item = SystemTime> {
    let by = |name: &'static str, epoch: u64| {
        let mut metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
        let meta = metas.find(|meta| {
            let reference = meta.reference().structure(0);
            reference.is_some_and(|reference| reference.name() == name)
        })?;
        let since: Duration = meta.timestamp().into();
        SystemTime::UNIX_EPOCH.checked_add(since.checked_sub(Duration::from_secs(epoch))?)
    };
    let all = [
        // Some senders' timecode is a time of day: then only the time at which they sent is of use.
        by("timestamp/x-ndi-timecode", 0),
        by("timestamp/x-ndi-timestamp", 0),
        by("timestamp/x-unix", 0),
        by("timestamp/x-ntp", UNIX_IN_NTP),
    ];
    all.into_iter().flatten()
}

impl State {
    /// The moment of a running time.
    fn map(&mut self, running_time: gst::ClockTime, now: Now) -> Instant {
        let near = |at: &Instant| {
            at.saturating_duration_since(now.instant) <= FUTURE
                && now.instant.saturating_duration_since(*at) <= PAST
        };
        let from = |base: gst::ClockTime, instant: Instant| {
            moved(instant, base, running_time).filter(near)
        };
        let predicted = self.anchor.and_then(|(base, instant)| from(base, instant));
        let measured = now.running_time.and_then(|time| from(time, now.instant));
        let at = match (predicted, measured) {
            (Some(predicted), Some(measured)) => follow(predicted, measured),
            (predicted, measured) => measured.or(predicted).unwrap_or(now.instant),
        };
        self.anchor = Some((running_time, at));
        at
    }

    /// The source captured what has this running time so long ago.
    fn reference(&mut self, running_time: gst::ClockTime, age: Duration, now: Now) {
        let since = now
            .instant
            .saturating_duration_since(self.map(running_time, now));
        // A source's clock that is ahead of ours says nothing.
        let before = age.saturating_sub(since);
        self.before = Some(match self.before {
            Some(last) if last.abs_diff(before) < JUMP => (last * (SLEW - 1) + before) / SLEW,
            _ => before,
        });
    }
}

/// `instant`, later by as much as `to` is later than `from`.
fn moved(instant: Instant, from: gst::ClockTime, to: gst::ClockTime) -> Option<Instant> {
    if to >= from {
        instant.checked_add((to - from).into())
    } else {
        instant.checked_sub((from - to).into())
    }
}

/// A little of the way to what was measured, or all of it.
fn follow(predicted: Instant, measured: Instant) -> Instant {
    let off = measured.max(predicted) - measured.min(predicted);
    if off >= JUMP {
        measured
    } else if measured > predicted {
        predicted + off / SLEW
    } else {
        predicted - off / SLEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ms(n: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(n)
    }

    fn start() -> Instant {
        Instant::now() + Duration::from_secs(100)
    }

    fn at(clock: &Wallclock, time: u64, instant: Instant, running: Option<u64>) -> Instant {
        let running_time = running.map(ms);
        let now = Now {
            instant,
            running_time,
        };
        clock.at(Some(ms(time)), now)
    }

    #[test]
    fn without_a_clock_the_first_packet_comes_when_it_was_captured() {
        let clock = Wallclock::default();
        let now = start();
        assert_eq!(at(&clock, 5_000, now, None), now);
        assert_eq!(at(&clock, 4_980, now, None), now - MS * 20);
        assert_eq!(at(&clock, 5_100, now + MS * 105, None), now + MS * 100);
        let after_a_pause = now + MS * 60_000;
        assert_eq!(at(&clock, 5_133, after_a_pause, None), after_a_pause);
        assert_eq!(
            at(&clock, 5_166, after_a_pause, None),
            after_a_pause + MS * 33
        );
    }

    #[test]
    fn with_a_clock_what_was_encoded_for_long_is_that_old() {
        let clock = Wallclock::default();
        let now = start();
        assert_eq!(at(&clock, 5_000, now, Some(5_070)), now - MS * 70);
        assert_eq!(
            at(&clock, 5_010, now, Some(5_070)),
            now - MS * 60,
            "another pad"
        );
        // A clock that is slow by a thousandth is followed.
        let mut off = Duration::ZERO;
        for n in 1..3_000 {
            let later = now + MS * 30 * n;
            let running = 5_070 + u64::from(n) * 30 * 999 / 1_000;
            let captured = at(&clock, running - 70, later, Some(running));
            off = (later - captured).abs_diff(MS * 70);
        }
        assert!(off < MS * 3, "{off:?}");
        let paused = now + MS * 500_000;
        assert_eq!(at(&clock, 95_100, paused, Some(95_120)), paused - MS * 20);
    }

    #[test]
    fn what_the_source_says_moves_all_pads() {
        let clock = Wallclock::default();
        let instant = start();
        let now = Now {
            instant,
            running_time: Some(ms(1_010)),
        };
        clock.lock().reference(ms(1_000), MS * 50, now);
        assert_eq!(clock.at(Some(ms(1_000)), now), instant - MS * 50);
        assert_eq!(clock.at(Some(ms(1_005)), now), instant - MS * 45);
        // A source that is ahead of us.
        let clock = Wallclock::default();
        clock.lock().reference(ms(1_000), Duration::ZERO, now);
        assert_eq!(clock.at(Some(ms(1_000)), now), instant - MS * 10);
    }

    #[test]
    fn the_timecode_comes_first() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        for (name, seconds) in [
            ("timestamp/x-ntp", UNIX_IN_NTP + 3),
            ("timestamp/x-ndi-timestamp", 2),
            ("timestamp/x-other", 9),
            ("timestamp/x-ndi-timecode", 1),
        ] {
            let caps = gst::Caps::new_empty_simple(name);
            let time = gst::ClockTime::from_seconds(seconds);
            gst::ReferenceTimestampMeta::add(buffer.get_mut().unwrap(), &caps, time, None);
        }
        let seconds: Vec<_> = captured(&buffer)
            .map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 3]);
    }
}
