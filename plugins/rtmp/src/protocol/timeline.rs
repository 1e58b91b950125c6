// SPDX-License-Identifier: MPL-2.0
//! Brings a publisher's timestamps, milliseconds that begin anywhere and turn over after 49 days, to running time, for
//! `rtmpserversrc/feed.rs`. All times are in nanoseconds.

const MS: i64 = 1_000_000;
/// Who is this far from where its timestamps say has lost its time, or we have.
const FARTHEST: i64 = 5_000 * MS;
/// A step of timestamps that is so much longer than what passed meanwhile is no delay of the network. Not measured.
const JUMP: i64 = 500 * MS;
/// Timestamps that go back in a stream by more than this began anew.
const BACK: i64 = 100 * MS;
/// Who was held back catches up within this time; whose timestamps stood still does not.
const CATCHING_UP: i64 = 3_000 * MS;

/// Where a message belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) time: u64,
    /// What comes now does not follow on what came before.
    pub(crate) discontinuous: bool,
}

/// A timestamp, and the running time that it means.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    timestamp: u32,
    time: i64,
}

impl Anchor {
    fn time_of(self, timestamp: u32) -> i64 {
        self.time
            .saturating_add(distance(self.timestamp, timestamp))
    }
}

/// How long after `from` a timestamp is, which may have turned over.
fn distance(from: u32, timestamp: u32) -> i64 {
    i64::from(timestamp.wrapping_sub(from).cast_signed()).saturating_mul(MS)
}

/// One publisher's time, for both of its streams.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    anchor: Option<Anchor>,
    /// The one before: what the other stream sent before the jump still comes in.
    former: Option<Anchor>,
    /// How often it was set.
    anchors: u32,
    /// Since when messages have been late.
    late_since: Option<i64>,
}

/// One stream's place in it.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// The earliest time that the next message may have.
    floor: i64,
    anchors: u32,
    /// The last message's timestamp and arrival.
    last: Option<(u32, i64)>,
}

impl Track {
    /// For a stream that has got as far as `floor` under former publishers.
    pub(crate) fn from(floor: u64) -> Self {
        Self {
            floor: i64::try_from(floor).unwrap_or(i64::MAX),
            ..Self::default()
        }
    }

    pub(crate) fn floor(&self) -> u64 {
        u64::try_from(self.floor).unwrap_or(0)
    }
}

impl Timeline {
    /// When a message that arrives `now` is to be decoded. Never before the one that came before it.
    pub(crate) fn place(&mut self, track: &mut Track, timestamp: u32, now: u64) -> Place {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let last = track.last.replace((timestamp, now));
        // Where the other stream has jumped already, this one's step says nothing.
        let last = last.filter(|_| track.anchors == self.anchors);
        let step = last.map(|(from, then)| (distance(from, timestamp), now - then));
        if let Some(time) = self.before_the_jump(track, timestamp, now) {
            return track.put(time, false);
        }
        let meant = self.anchor.map(|anchor| anchor.time_of(timestamp));
        let time = match meant {
            Some(time) if !self.jumped(step, time, now) => time,
            _ => {
                self.former = self.anchor;
                self.anchors += 1;
                self.late_since = None;
                now.max(track.floor)
            }
        };
        // Differences reach 24 days: the anchor moves along.
        self.anchor = Some(Anchor { timestamp, time });
        let discontinuous = std::mem::replace(&mut track.anchors, self.anchors) != self.anchors;
        track.put(time, discontinuous)
    }

    /// Where the former anchor puts a message of a stream that has not jumped yet.
    fn before_the_jump(&self, track: &Track, timestamp: u32, now: i64) -> Option<i64> {
        if track.anchors == 0 || track.anchors == self.anchors {
            return None;
        }
        let off = |anchor: Anchor| (anchor.time_of(timestamp) - now).abs();
        let (former, anchor) = (self.former?, self.anchor?);
        let earlier = off(former) < off(anchor) && off(former) <= FARTHEST;
        earlier.then(|| former.time_of(timestamp))
    }

    /// Whether a timestamp can't mean the time that it should.
    fn jumped(&mut self, step: Option<(i64, i64)>, meant: i64, now: i64) -> bool {
        let ahead = meant - now;
        if ahead > -JUMP {
            self.late_since = None;
        }
        let since = match ahead > -JUMP {
            true => now,
            false => *self.late_since.get_or_insert(now),
        };
        let stepped = step
            .is_some_and(|(step, passed)| step < -BACK || (step - passed > JUMP && ahead > JUMP));
        stepped || ahead.abs() > FARTHEST || now - since > CATCHING_UP
    }
}

impl Track {
    fn put(&mut self, time: i64, discontinuous: bool) -> Place {
        let time = time.max(self.floor).max(0);
        self.floor = time.saturating_add(1);
        Place {
            time: time.unsigned_abs(),
            discontinuous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn both_streams_keep_their_distance() {
        let (mut timeline, mut audio, mut video) = Default::default();
        let first = timeline_place(&mut timeline, &mut video, 10_000, 700);
        assert_eq!((first.time, first.discontinuous), (700 * MS, true));
        let sound = timeline_place(&mut timeline, &mut audio, 9_990, 705);
        assert_eq!((sound.time, sound.discontinuous), (690 * MS, true));
        let second = timeline_place(&mut timeline, &mut video, 10_033, 760);
        assert_eq!((second.time, second.discontinuous), (733 * MS, false));
    }

    fn timeline_place(timeline: &mut Timeline, track: &mut Track, ms: u32, now: u64) -> Place {
        timeline.place(track, ms, now * MS)
    }

    #[test]
    fn timestamps_turn_over() {
        let (mut timeline, mut track) = Default::default();
        timeline_place(&mut timeline, &mut track, u32::MAX - 9, 0);
        let place = timeline_place(&mut timeline, &mut track, 10, 20);
        assert_eq!((place.time, place.discontinuous), (20 * MS, false));
    }

    #[test]
    fn a_jump_is_a_discontinuity_for_each_stream_and_time_goes_on() {
        let (mut timeline, mut audio, mut video) = Default::default();
        timeline_place(&mut timeline, &mut video, 0, 1_000);
        timeline_place(&mut timeline, &mut audio, 0, 1_000);
        let jumped = timeline_place(&mut timeline, &mut video, 3_600_000, 1_040);
        assert_eq!((jumped.time, jumped.discontinuous), (1_040 * MS, true));
        let sound = timeline_place(&mut timeline, &mut audio, 3_600_005, 1_045);
        assert_eq!((sound.time, sound.discontinuous), (1_045 * MS, true));
    }

    #[test]
    fn a_later_publisher_never_goes_behind_an_earlier_one() {
        let mut timeline = Timeline::default();
        let mut track = Track::from(5_000 * MS);
        let place = timeline_place(&mut timeline, &mut track, 0, 4_000);
        assert!(place.time >= 5_000 * MS);
        let next = timeline_place(&mut timeline, &mut track, 0, 4_010);
        assert!(next.time > place.time);
    }

    /// Sends both streams from `from` to `to` ms, each message on time, by a clock that is `shift` ms ahead.
    fn run(
        timeline: &mut Timeline,
        tracks: &mut [Track; 2],
        (from, to): (u64, u64),
        shift: i64,
    ) -> Vec<[(u64, Place); 2]> {
        let steps = (from..to).step_by(20);
        steps
            .map(|now| {
                let timestamp = u32::try_from(now.saturating_add_signed(shift)).unwrap();
                let mut place = |n: usize| {
                    (
                        now,
                        timeline_place(timeline, &mut tracks[n], timestamp, now),
                    )
                };
                [place(0), place(1)]
            })
            .collect()
    }

    #[test]
    fn jumps_of_all_lengths_cost_no_time() {
        for jump in [
            -9_000, -4_900, -3_000, -1_000, -200, 1_000, 3_000, 4_900, 9_000, 3_600_000,
        ] {
            let (mut timeline, mut tracks) = <(Timeline, [Track; 2])>::default();
            run(&mut timeline, &mut tracks, (0, 1_000), 20_000);
            let after = run(&mut timeline, &mut tracks, (1_000, 3_000), 20_000 + jump);
            for n in 0..2 {
                let jumps = after.iter().filter(|both| both[n].1.discontinuous).count();
                assert_eq!(jumps, 1, "stream {n} jumps by {jump} ms");
                for (now, place) in after.iter().map(|both| both[n]) {
                    assert!(
                        place.time.abs_diff(now * MS) < MS,
                        "{jump} ms: {place:?} at {now}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_the_other_stream_sent_before_a_jump_keeps_its_place() {
        for jump in [-3_000i64, 3_000] {
            let (mut timeline, mut tracks) = <(Timeline, [Track; 2])>::default();
            run(&mut timeline, &mut tracks, (0, 1_000), 20_000);
            let jumped = u32::try_from(21_000 + jump).unwrap();
            timeline_place(&mut timeline, &mut tracks[0], jumped, 1_000);
            let old = timeline_place(&mut timeline, &mut tracks[1], 21_000, 1_001);
            assert_eq!((old.time, old.discontinuous), (1_000 * MS, false), "{jump}");
            let new = timeline_place(&mut timeline, &mut tracks[1], jumped + 20, 1_021);
            assert_eq!((new.time, new.discontinuous), (1_020 * MS, true), "{jump}");
        }
    }

    #[test]
    fn what_the_network_held_back_keeps_its_distances() {
        for held in [500, 1_000, 3_000, 4_500] {
            let (mut timeline, mut tracks) = <(Timeline, [Track; 2])>::default();
            run(&mut timeline, &mut tracks, (0, 1_000), 20_000);
            // All at once, and then as ever.
            for sent in (1_000..1_000 + held).step_by(20) {
                for track in &mut tracks {
                    let timestamp = u32::try_from(20_000 + sent).unwrap();
                    let place = timeline_place(&mut timeline, track, timestamp, 1_000 + held);
                    assert_eq!(
                        (place.time, place.discontinuous),
                        (sent * MS, false),
                        "{held}"
                    );
                }
            }
            for both in run(&mut timeline, &mut tracks, (1_000 + held, 9_000), 20_000) {
                for (now, place) in both {
                    assert_eq!(
                        (place.time, place.discontinuous),
                        (now * MS, false),
                        "{held}"
                    );
                }
            }
        }
    }

    #[test]
    fn timestamps_that_stood_still_are_on_time_again_soon() {
        let (mut timeline, mut tracks) = <(Timeline, [Track; 2])>::default();
        run(&mut timeline, &mut tracks, (0, 1_000), 20_000);
        let after = run(&mut timeline, &mut tracks, (4_000, 9_000), 17_000);
        let [(now, video), (_, audio)] = after.last().unwrap();
        assert_eq!((video.time, audio.time), (now * MS, now * MS));
        let jumps = after.iter().filter(|both| both[0].1.discontinuous).count();
        assert_eq!(jumps, 1);
    }

    proptest::proptest! {
        #[test]
        fn time_only_grows_and_stays_near(messages: Vec<(bool, u32, u16)>) {
            let (mut timeline, mut tracks) = <(Timeline, [Track; 2])>::default();
            let (mut now, mut last) = (0, [None, None]);
            for (n, timestamp, passed) in messages {
                now += u64::from(passed) * MS;
                let n = usize::from(n);
                let time = timeline.place(&mut tracks[n], timestamp, now).time;
                proptest::prop_assert!(last[n].is_none_or(|last| time > last));
                last[n] = Some(time);
                proptest::prop_assert!(time <= now + 6_000 * MS);
            }
        }
    }
}
