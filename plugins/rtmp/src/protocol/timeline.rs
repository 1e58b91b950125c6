// SPDX-License-Identifier: MPL-2.0
//! Brings a publisher's timestamps, milliseconds that begin anywhere and turn over after 49 days, to running time, for
//! `rtmpserversrc/feed.rs`. All times are in nanoseconds.

const MS: i64 = 1_000_000;
/// Who is this far from where its timestamps say has lost its time, or we have.
const FARTHEST: i64 = 5_000 * MS;

/// Where a message belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) time: u64,
    /// What comes now does not follow on what came before.
    pub(crate) discontinuous: bool,
}

/// One publisher's time, for both of its streams.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// A timestamp, and the running time that it means.
    anchor: Option<(u32, i64)>,
    /// How often it was set.
    anchors: u32,
}

/// One stream's place in it.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// The earliest time that the next message may have.
    floor: i64,
    anchors: u32,
}

impl Track {
    /// For a stream that has got as far as `floor` under former publishers.
    pub(crate) fn from(floor: u64) -> Self {
        let floor = i64::try_from(floor).unwrap_or(i64::MAX);
        Self { floor, anchors: 0 }
    }

    pub(crate) fn floor(&self) -> u64 {
        u64::try_from(self.floor).unwrap_or(0)
    }
}

impl Timeline {
    /// When a message that arrives `now` is to be decoded. Never before the one that came before it.
    pub(crate) fn place(&mut self, track: &mut Track, timestamp: u32, now: u64) -> Place {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let meant = self.anchor.map(|(from, time)| {
            let passed = i64::from(timestamp.wrapping_sub(from).cast_signed());
            time.saturating_add(passed.saturating_mul(MS))
        });
        let time = match meant {
            Some(time) if (time - now).abs() <= FARTHEST => {
                // Differences reach 24 days: the anchor moves along.
                self.anchor = Some((timestamp, time));
                time
            }
            _ => {
                let time = now.max(track.floor);
                self.anchor = Some((timestamp, time));
                self.anchors += 1;
                time
            }
        };
        let discontinuous = std::mem::replace(&mut track.anchors, self.anchors) != self.anchors;
        let time = time.max(track.floor).max(0);
        track.floor = time + 1;
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
}
