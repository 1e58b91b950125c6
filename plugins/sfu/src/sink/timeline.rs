// SPDX-License-Identifier: MPL-2.0

//! Time that goes on: what comes may have timestamps that step forward or back, repeat or are missing; behind this all outputs
//! see each frame about as long after the one before it as it came.
//!
//! All times are nanoseconds of running time.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::properties::lock;

/// A live source's frame that is this much further than the time that has passed, and that much ahead of now, has stepped.
const AHEAD: i64 = 1_000_000_000;
/// The same of what is not live, where nobody knows what has passed: pictures may stand for long.
const GAP: i64 = 10_000_000_000;
/// Pictures in the order of decoding go back by this much at most.
const REORDERED: i64 = 1_000_000_000;
/// Tracks and layers that step together land within this of each other.
const TOGETHER: i64 = 250_000_000;
/// A track that went back by no more than this may have done so for a moment: its source repeats times, or has uneven ones.
const MOMENT: i64 = 250_000_000;
/// The least from one frame to the next while a track comes back to its source's time.
const NEXT: i64 = 1_000_000;
/// A step's frame, where it does not say how long it lasts.
const FRAME: i64 = 33_333_333;
/// Corrections that are remembered: one frame that is wrong has two.
const REMEMBERED: usize = 4;

/// What the tracks of an element have in common.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// What steps were made up for with, the newest first: who steps as another one did keeps its distance to it.
    offsets: Mutex<VecDeque<i64>>,
    steps: AtomicU64,
}

impl Timeline {
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// The offset with which `time` becomes about `wanted`, and not less than `floor`.
    fn offset(&self, time: i64, wanted: i64, floor: i64) -> i64 {
        let offsets = lock(&self.offsets);
        let fits = |offset: &i64| {
            let at = time.saturating_add(*offset);
            at > floor && at.abs_diff(wanted) <= TOGETHER.unsigned_abs()
        };
        // Without any step it was none.
        let known = offsets.iter().chain(&[0]).copied().find(fits);
        let offset = known.unwrap_or_else(|| wanted.saturating_sub(time));
        drop(offsets);
        self.remember(offset);
        offset
    }

    fn remember(&self, offset: i64) {
        let mut offsets = lock(&self.offsets);
        offsets.push_front(offset);
        offsets.truncate(REMEMBERED);
    }

    /// Running time begins anew.
    pub(super) fn forget(&self) {
        lock(&self.offsets).clear();
    }

    pub(super) fn newest(&self) -> i64 {
        lock(&self.offsets).front().copied().unwrap_or_default()
    }
}

/// How a track's time behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each is later than the one before.
    Strict,
    /// Parts of a frame have the same time.
    Parts,
    /// Pictures come in the order of decoding, with the times at which they are shown, each of its own.
    Decoding,
    /// The same of parts of pictures.
    DecodingParts,
}

/// A frame, or a part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) time: Option<i64>,
    pub(super) duration: Option<i64>,
    /// When it came.
    pub(super) came: Instant,
    /// The running time then, if the source is live.
    pub(super) now: Option<i64>,
}

/// One track's way along the timeline.
#[derive(Debug)]
pub(super) struct Track {
    order: Order,
    last: Option<Last>,
    offset: i64,
    /// The offset from before times repeated or went back a little: what comes afterwards may be where it would have been.
    before: Option<i64>,
    /// How often they did so since.
    repeats: u32,
    /// What comes next has nothing to do with what came last.
    interrupted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    time: i64,
    /// The furthest that went out.
    newest: i64,
    duration: i64,
    came: Instant,
}

impl Track {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            last: None,
            offset: 0,
            before: None,
            repeats: 0,
            interrupted: false,
        }
    }

    /// What comes from now on is in this order.
    pub(super) fn set_order(&mut self, order: Order) {
        self.order = order;
    }

    /// Upstream goes on elsewhere: whatever time comes next follows what came last.
    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// How far it moves what comes now.
    pub(super) fn offset(&self) -> i64 {
        self.offset
    }

    /// The time that the frame gets.
    pub(super) fn at(&mut self, timeline: &Timeline, frame: Frame) -> i64 {
        let Some(last) = self.last else {
            self.offset = timeline.newest();
            let time = frame.time.or(frame.now).unwrap_or_default();
            let out = time.saturating_add(self.offset);
            return self.went(frame, time, out, FRAME);
        };
        let passed = frame.came.saturating_duration_since(last.came);
        let passed = i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX);
        let passed = if frame.now.is_some() { passed } else { 0 };
        // Where it would be if it had not stepped.
        let wanted = last.newest.saturating_add(last.duration.max(passed));
        let Some(time) = frame.time else {
            let time = wanted.saturating_sub(self.offset);
            return self.went(frame, time, wanted, last.duration);
        };
        if std::mem::take(&mut self.interrupted) {
            (self.before, self.repeats) = (None, 0);
            self.offset = timeline.offset(time, wanted, last.newest);
            return self.went(frame, time, time.saturating_add(self.offset), last.duration);
        }
        let delta = time.saturating_sub(last.time);
        if self.goes_back(delta, last.duration) && delta > -MOMENT {
            timeline.steps.fetch_add(1, Relaxed);
            let out = self.repeats(last, time, passed, frame.now.is_some());
            return self.went(frame, time, out, last.duration);
        }
        self.come_back(timeline, time, last.newest);
        if self.steps(delta, last.duration, passed, time, frame.now) {
            timeline.steps.fetch_add(1, Relaxed);
            self.before = None;
            self.offset = timeline.offset(time, wanted, last.newest);
        }
        let lasts = if (1..=GAP).contains(&delta) {
            delta
        } else {
            last.duration
        };
        self.went(frame, time, time.saturating_add(self.offset), lasts)
    }

    fn steps(&self, delta: i64, duration: i64, passed: i64, time: i64, now: Option<i64>) -> bool {
        let further = delta.saturating_sub(duration.max(passed));
        let ahead = match now {
            Some(now) => {
                further > AHEAD && time.saturating_add(self.offset) > now.saturating_add(AHEAD)
            }
            None => further > GAP,
        };
        self.goes_back(delta, duration) || ahead
    }

    fn goes_back(&self, delta: i64, duration: i64) -> bool {
        // What was rounded is no other time.
        let repeats = NEXT.min(duration / 8);
        match self.order {
            Order::Strict => delta <= repeats,
            Order::Parts => delta < 0,
            Order::Decoding => delta.abs() <= repeats || delta < -REORDERED,
            Order::DecodingParts => delta < -REORDERED,
        }
    }

    /// Where a frame goes whose time was there before: as much later as it came. Where nobody knows that, half way to the next one,
    /// however many there are.
    fn repeats(&mut self, last: Last, time: i64, passed: i64, live: bool) -> i64 {
        self.before.get_or_insert(self.offset);
        self.repeats += 1;
        let later = match live {
            true => passed,
            false => last.duration.checked_shr(self.repeats).unwrap_or_default(),
        };
        let out = last.newest.saturating_add(later.max(NEXT));
        self.offset = out.saturating_sub(time);
        out
    }

    /// After times that repeated: back to the distance that the track had to the others, without ever going back. Else each
    /// repeated time would leave it further ahead of them.
    fn come_back(&mut self, timeline: &Timeline, time: i64, newest: i64) {
        let Some(before) = self.before else {
            return;
        };
        let behind = newest.saturating_sub(time.saturating_add(before));
        if behind > MOMENT {
            // It stays back. The others may have done the same.
            timeline.remember(self.offset);
        } else if behind >= 0 {
            self.offset = before.saturating_add(behind).saturating_add(NEXT);
            return;
        } else {
            self.offset = before;
        }
        self.before = None;
        self.repeats = 0;
    }

    fn went(&mut self, frame: Frame, time: i64, out: i64, lasts: i64) -> i64 {
        let newest = self.last.map_or(out, |last| last.newest.max(out));
        let duration = frame.duration.filter(|d| *d > 0).unwrap_or(lasts);
        self.last = Some(Last {
            time,
            newest,
            duration: duration.clamp(1, 3_600_000_000_000),
            came: frame.came,
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: i64 = 1_000_000;
    const STEP: i64 = 40 * MS;

    /// 100 frames of 25 a second whose time is changed by `by`, and what becomes of them.
    fn run(order: Order, live: bool, by: impl Fn(i64) -> Option<i64>) -> (Vec<i64>, u64) {
        let (timeline, mut track) = (Timeline::default(), Track::new(order));
        let t0 = Instant::now();
        let frame = |n: i64| Frame {
            time: by(n).map(|by| n * STEP + by),
            duration: Some(STEP),
            came: t0 + Duration::from_nanos((n * STEP) as u64),
            now: live.then_some(n * STEP),
        };
        let out = (0..100).map(|n| track.at(&timeline, frame(n))).collect();
        (out, timeline.steps())
    }

    #[test]
    fn whatever_time_does_it_goes_on_frame_by_frame() {
        const S: i64 = 1_000 * MS;
        type By = fn(i64) -> Option<i64>;
        let kinds: [(&str, u64, By); 8] = [
            ("as it is", 0, |_| Some(0)),
            ("back", 1, |n| Some(if n < 50 { 0 } else { -30 * S })),
            ("forward", 1, |n| Some(if n < 50 { 0 } else { 60 * S })),
            ("one ahead", 2, |n| Some(if n == 50 { 60 * S } else { 0 })),
            ("again and again", 9, |n| Some(-(n / 10) * 100 * S)),
            ("far", 1, |n| Some(if n < 50 { 0 } else { i64::MAX / 2 })),
            ("a wrap", 1, |n| Some(if n < 50 { 95_443 * S } else { 0 })),
            ("missing", 0, |n| (n % 3 != 1).then_some(0)),
        ];
        for (name, steps, by) in kinds {
            for (order, live) in [
                (Order::Strict, true),
                (Order::Strict, false),
                (Order::Parts, true),
                (Order::Decoding, true),
                (Order::DecodingParts, true),
            ] {
                let (out, counted) = run(order, live, by);
                assert_eq!(counted, steps, "{name} {order:?} live {live}");
                for (n, pair) in out.windows(2).enumerate() {
                    let step = pair[1] - pair[0];
                    assert!(
                        (step - STEP).abs() <= MS,
                        "{name} {order:?} live {live}, {n}: {step}"
                    );
                }
            }
        }
    }

    #[test]
    fn repeated_times_are_made_distinct_where_frames_have_one_each() {
        let (out, steps) = run(Order::Strict, true, |n| {
            Some(if n % 2 == 1 { -STEP } else { 0 })
        });
        assert!(steps > 0 && out.windows(2).all(|w| w[1] > w[0]), "{out:?}");
        let (out, steps) = run(Order::Parts, true, |n| Some(-(n % 2) * STEP));
        assert!(
            steps == 0 && out[0] == out[1],
            "parts of a frame stay together"
        );
    }

    /// Whatever repeats, stands still or trembles: each frame is later than the one before, and none is left far from where its
    /// source's time says, for good.
    #[test]
    fn times_that_repeat_leave_a_track_beside_the_others() {
        type By = fn(i64) -> i64;
        let kinds: [(&str, By); 8] = [
            ("each twice", |n| -(n % 2)),
            ("each three times", |n| -(n % 3)),
            ("for half a second", |n| {
                (30 - n) * i64::from((30..43).contains(&n))
            }),
            ("for half a second, rounded", |n| {
                (30 - n) * i64::from((30..43).contains(&n))
            }),
            ("for three seconds", |n| {
                (10 - n) * i64::from((10..85).contains(&n))
            }),
            ("a fifth of each second", |n| -((n % 25) - 20).max(0)),
            ("trembling", |n| [0, -2, 1, -3, 0][(n % 5) as usize]),
            ("in steps", |n| -(n % 5)),
        ];
        for (name, by) in kinds {
            for (order, live) in [
                (Order::Strict, true),
                (Order::Strict, false),
                (Order::Decoding, true),
            ] {
                // Pictures in the order of decoding may go back: that is no step.
                if order == Order::Decoding && name == "trembling" {
                    continue;
                }
                let (out, steps) = run(order, live, |n| {
                    let rounded = n % 2 * i64::from(name.ends_with("rounded"));
                    Some(by(n) * STEP + rounded)
                });
                assert!(steps > 0, "{name} {order:?}");
                assert!(
                    out.windows(2).all(|w| w[1] > w[0]),
                    "{name} {order:?} live {live}: {out:?}"
                );
                let far = (out[99] - 99 * STEP).abs();
                assert!(
                    far <= 4 * STEP,
                    "{name} {order:?} live {live}: {} ms",
                    far / MS
                );
            }
        }
    }

    #[test]
    fn a_track_that_stays_a_little_back_goes_on_evenly() {
        for back in [1, 3, 6, 7, 20] {
            let (out, _) = run(Order::Strict, true, |n| {
                Some(-STEP * if n < 50 { 0 } else { back })
            });
            let uneven = out
                .windows(2)
                .skip(60)
                .filter(|w| (w[1] - w[0] - STEP).abs() > MS);
            assert_eq!(uneven.count(), 0, "{back}: {out:?}");
            assert!(out.windows(2).all(|w| w[1] > w[0]), "{back}");
        }
    }

    #[test]
    fn layers_that_step_together_stay_together_and_tracks_keep_their_distance() {
        let timeline = Timeline::default();
        let mut tracks = [Track::new(Order::Strict), Track::new(Order::Parts)];
        let t0 = Instant::now();
        for n in 0..100i64 {
            let time = n * STEP - if n < 50 { 0 } else { 20_000 * MS };
            let both = [0, 3].map(|late| Frame {
                time: Some(time),
                duration: None,
                came: t0 + Duration::from_nanos((n * STEP + late * MS) as u64),
                now: Some(n * STEP),
            });
            let out = [0, 1].map(|i| tracks[i].at(&timeline, both[i]));
            assert_eq!(out[0], out[1], "{n}");
        }
    }

    #[test]
    fn after_a_seek_every_layer_goes_on_behind_what_was_shown_wherever_it_goes() {
        for to in [0, 10 * STEP, 24 * STEP, 25 * STEP, 26 * STEP, 90_000 * MS] {
            let timeline = Timeline::default();
            let mut tracks = [
                Track::new(Order::DecodingParts),
                Track::new(Order::DecodingParts),
            ];
            let t0 = Instant::now();
            let mut out = [Vec::new(), Vec::new()];
            for n in 0..50i64 {
                for (track, out) in tracks.iter_mut().zip(&mut out) {
                    if n == 25 {
                        track.interrupt();
                    }
                    let time = if n < 25 {
                        n * STEP
                    } else {
                        to + (n - 25) * STEP
                    };
                    let frame = Frame {
                        time: Some(time),
                        duration: None,
                        came: t0 + Duration::from_nanos((n * STEP) as u64),
                        now: Some(time),
                    };
                    out.push(track.at(&timeline, frame));
                }
            }
            assert_eq!(out[0], out[1], "{to}");
            let even = |w: &[i64]| (w[1] - w[0] - STEP).abs() <= TOGETHER && w[1] > w[0];
            assert!(out[0].windows(2).all(even), "{to}: {:?}", out[0]);
            assert_eq!(timeline.steps(), 0, "who seeks knows that");
        }
    }

    #[test]
    fn what_was_held_back_and_pictures_that_stand_are_no_steps() {
        let (timeline, mut track) = (Timeline::default(), Track::new(Order::Parts));
        let t0 = Instant::now();
        // Three seconds come at once, and pictures stand for nine in a file.
        for n in 0..100i64 {
            let at = if (10..85).contains(&n) { 85 } else { n };
            let frame = Frame {
                time: Some(n * STEP),
                duration: None,
                came: t0 + Duration::from_nanos((at * STEP) as u64),
                now: Some(at * STEP),
            };
            assert_eq!(track.at(&timeline, frame), n * STEP);
        }
        let (out, steps) = run(Order::Strict, false, |n| Some(n * 9_000 * MS));
        assert_eq!((out[99], steps), (99 * (9_000 * MS + STEP), 0));
    }
}
