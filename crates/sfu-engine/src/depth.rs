// SPDX-License-Identifier: MPL-2.0

//! How many of the last packets, or octets, must be kept so that it is at least a second of them, whatever the rate.

use std::time::{Duration, Instant};

/// Places that are there from the first packet on.
const LEAST_PACKETS: usize = 64;
/// Places at most: a second of some 70 Mbit/s. Beyond it is less than a second that is kept.
pub(crate) const MOST_PACKETS: usize = 8_192;
/// The moments that are remembered are at least so far apart.
const STEP: Duration = Duration::from_millis(250);
/// Of these moments the oldest is at least a second ago.
const MARKS: usize = 5;
/// Places that were not needed for so many steps are given back: 10 s. It takes a keyframe or a replay at most a few.
const PATIENCE: u32 = 40;

/// Counts packets or octets, and tells how much room they need. It is a power of two, as both bounds are.
#[derive(Debug, Default)]
pub(crate) struct Depth<const LEAST: usize = LEAST_PACKETS, const MOST: usize = MOST_PACKETS> {
    next: Option<Instant>,
    /// All that came so far; wraps, as those below do.
    count: u32,
    /// How much it was at the last steps, the newest first.
    marks: [u32; MARKS],
    /// The most that was needed at one of the last steps.
    peak: u32,
    steps: u32,
}

impl<const LEAST: usize, const MOST: usize> Depth<LEAST, MOST> {
    /// So much more comes where there is room for `room`. Returns how much room there must be instead.
    ///
    /// Once per packet and viewer.
    pub(crate) fn add(&mut self, now: Instant, more: u32, room: usize) -> Option<usize> {
        self.count = self.count.wrapping_add(more);
        let needed = self.needed();
        if needed as usize > room && room < MOST {
            return Some(Self::room_for(needed));
        }
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + STEP);
        self.marks.rotate_right(1);
        self.marks[0] = self.count;
        self.peak = self.peak.max(needed);
        self.steps += 1;
        if self.steps < PATIENCE {
            return None;
        }
        // Not if the next larger frame would need the place again.
        let enough = Self::room_for(self.peak + self.peak / 4);
        (self.peak, self.steps) = (0, 0);
        (enough < room).then_some(enough)
    }

    /// What came since the oldest moment that is remembered.
    fn needed(&self) -> u32 {
        self.count.wrapping_sub(self.marks[MARKS - 1])
    }

    fn room_for(needed: u32) -> usize {
        (needed as usize).next_power_of_two().clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Sends packets at these rates, each for a while, in frames of 33 ms, and checks that none of the last second is
    /// lost. Returns the most and the last room.
    fn run(rates: &[(u32, u32)]) -> (usize, usize) {
        let mut now = Instant::now();
        let (mut depth, mut room, mut most) = (<Depth>::default(), 0, 0);
        let mut last_second = VecDeque::new();
        let mut due = 0.0;
        for &(per_second, frames) in rates {
            for _ in 0..frames {
                now += Duration::from_millis(33);
                due += f64::from(per_second) * 0.033;
                while due >= 1.0 {
                    due -= 1.0;
                    room = depth.add(now, 1, room).unwrap_or(room);
                    last_second.push_back(now);
                    most = most.max(room);
                }
                let young = |at: &Instant| now.duration_since(*at) < Duration::from_secs(1);
                while last_second.front().is_some_and(|at| !young(at)) {
                    last_second.pop_front();
                }
                assert!(
                    last_second.len().min(MOST_PACKETS) <= room,
                    "{} packets in a second and room for {room}",
                    last_second.len()
                );
            }
        }
        (most, room)
    }

    #[test]
    fn room_follows_the_rate_up_and_down() {
        // Packets of 1,100 octets: 2.5, 15 and 30 Mbit/s.
        assert_eq!(run(&[(284, 600)]), (512, 512));
        assert_eq!(run(&[(1_700, 600)]), (4_096, 4_096));
        assert_eq!(run(&[(3_400, 600)]).0, 8_192);
        assert_eq!(run(&[(3_400, 300), (284, 700)]).1, 512);
        assert_eq!(run(&[(3_400, 300), (30, 1_000)]).1, LEAST_PACKETS);
        assert_eq!(run(&[(100_000, 100)]).0, MOST_PACKETS, "bounded");
    }

    #[test]
    fn a_steady_rate_asks_once_however_long() {
        let mut now = Instant::now();
        for per_frame in [1, 9, 12, 13, 17, 26, 57, 110] {
            let (mut depth, mut room, mut asked) = (<Depth>::default(), 0, 0);
            for frame in 0..20_000 {
                now += Duration::from_millis(33);
                // A keyframe of four times the size every two seconds.
                let packets = if frame % 60 == 0 {
                    4 * per_frame
                } else {
                    per_frame
                };
                for _ in 0..packets {
                    if let Some(other) = depth.add(now, 1, room) {
                        asked += usize::from(frame > 600);
                        room = other;
                    }
                }
            }
            assert_eq!(asked, 0, "{per_frame} packets a frame");
        }
    }

    proptest! {
        #[test]
        fn the_last_second_is_kept_whatever_the_rates(
            rates in proptest::collection::vec((0u32..6_000, 1u32..200), 1..12)
        ) {
            let (most, _) = run(&rates);
            let fastest = rates.iter().map(|(rate, _)| *rate).max().unwrap_or(0);
            // 1.25 s of the fastest, a frame, and the next power of two.
            let bound = <Depth>::room_for((f64::from(fastest) * 1.35) as u32 + 1);
            prop_assert!(most <= bound, "{most} places for {fastest} packets a second");
        }
    }
}
