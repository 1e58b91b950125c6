// SPDX-License-Identifier: MPL-2.0

//! Which packets of a stream are missing, and when to ask for them again (NACK, RFC 4585 section 6.2.1). One for each SSRC
//! whose format has NACK agreed on.
//!
//! A number is asked for a little after it is missed, for packets overtake each other, and again after each round trip.
//! That is measured by what comes: from the first request to the packet.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Numbers that are waited for at once: as many as the stream has places for (`arrival.rs`).
const MOST: usize = 512;
/// Where more is missing in one place, a keyframe is sooner there.
const LONGEST: u64 = 256;
/// Requests for one number, as in libwebrtc (`kMaxNackRetries`).
const TRIES: u8 = 10;
/// What is older comes too late for anybody.
const OLDEST: Duration = Duration::from_secs(1);
/// For what was only overtaken. Not tuned.
const PATIENCE: Duration = Duration::from_millis(8);
/// A round trip before one was measured, as in libwebrtc (`kDefaultRtt`), and the shortest that is believed.
const FIRST_TRIP: Duration = Duration::from_millis(100);
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST_TRIP: Duration = Duration::from_millis(500);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Missing {
    /// By rising index.
    numbers: VecDeque<Number>,
    trip: Duration,
    /// When the first of them is to be asked for.
    due: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Number {
    index: u64,
    since: Instant,
    tries: u8,
    asked: Instant,
    due: Instant,
}

impl Default for Missing {
    fn default() -> Self {
        Self {
            numbers: VecDeque::new(),
            trip: FIRST_TRIP,
            due: None,
        }
    }
}

impl Missing {
    /// These have not come, and a later one has.
    pub(super) fn miss(&mut self, now: Instant, indices: Range<u64>) {
        if indices.end - indices.start > LONGEST {
            return;
        }
        let due = now + PATIENCE;
        for index in indices {
            if self.numbers.len() == MOST {
                self.numbers.pop_front();
            }
            self.numbers.push_back(Number {
                index,
                since: now,
                tries: 0,
                asked: now,
                due,
            });
            self.due = Some(self.due.map_or(due, |first| first.min(due)));
        }
    }

    /// One has come that is not the newest. Returns whether it was still waited for.
    pub(super) fn came(&mut self, now: Instant, index: u64) -> bool {
        let Ok(at) = self.numbers.binary_search_by_key(&index, |n| n.index) else {
            return false;
        };
        let number = self.numbers.remove(at);
        if let Some(number) = number.filter(|n| n.tries == 1) {
            let trip = now.saturating_duration_since(number.asked);
            self.trip = (self.trip * 7 + trip.clamp(SHORTEST, LONGEST_TRIP)) / 8;
        }
        if self.numbers.is_empty() {
            self.due = None;
        }
        true
    }

    /// When to [`ask`](Self::ask).
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Appends the numbers that are to be asked for now, at most `most`, and gives up what is hopeless.
    pub(super) fn ask(&mut self, now: Instant, most: usize, numbers: &mut Vec<u16>) {
        self.numbers.retain(|number| {
            let age = now.saturating_duration_since(number.since);
            age < OLDEST && (number.tries < TRIES || now < number.due)
        });
        let again = now + self.trip + self.trip / 4;
        let due = self.numbers.iter_mut().filter(|n| n.due <= now);
        for number in due.take(most) {
            number.tries += 1;
            number.asked = now;
            number.due = again;
            numbers.push(number.index as u16);
        }
        self.due = self.numbers.iter().map(|n| n.due).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(missing: &mut Missing, now: Instant) -> Vec<u16> {
        let mut numbers = Vec::new();
        missing.ask(now, MOST, &mut numbers);
        numbers
    }

    #[test]
    fn a_number_is_asked_for_until_it_comes_and_paced_by_the_round_trip() {
        let start = Instant::now();
        let mut missing = Missing::default();
        missing.miss(start, 65_535..65_538);
        assert_eq!(asked(&mut missing, start), [0u16; 0], "it may come yet");
        assert!(missing.came(start, 65_536));
        let now = start + PATIENCE;
        assert_eq!(missing.due(), Some(now));
        assert_eq!(asked(&mut missing, now), [65_535, 1]);
        assert_eq!(asked(&mut missing, now + 10 * MS), [0u16; 0]);
        assert!(missing.came(now + 30 * MS, 65_535));
        assert!(!missing.came(now + 30 * MS, 65_535), "once");
        assert!(missing.trip < FIRST_TRIP);
        let again = missing.due().unwrap();
        assert_eq!(asked(&mut missing, again), [1]);
        assert!(missing.came(again, 65_537));
        assert_eq!(missing.due(), None);
    }

    #[test]
    fn requests_and_memory_are_bounded() {
        let start = Instant::now();
        let mut missing = Missing::default();
        missing.miss(start, 0..LONGEST + 1);
        assert_eq!(missing.due(), None, "a keyframe is sooner there");
        for n in 0..100 {
            missing.miss(start, n * 100..n * 100 + 99);
        }
        assert_eq!(missing.numbers.len(), MOST);
        let mut times = 0;
        let mut most = 0;
        while let Some(due) = missing.due() {
            let numbers = asked(&mut missing, due);
            times += numbers.len();
            most = most.max(numbers.len());
            assert!(due < start + OLDEST + LONGEST_TRIP);
        }
        assert!(times <= MOST * usize::from(TRIES), "{times}");
        assert_eq!(most, MOST);
    }

    #[test]
    fn who_never_answers_is_asked_for_a_second_at_most() {
        let start = Instant::now();
        let mut missing = Missing::default();
        missing.miss(start, 5..6);
        let mut times = 0;
        while let Some(due) = missing.due() {
            times += asked(&mut missing, due).len();
        }
        assert!((5..=usize::from(TRIES)).contains(&times), "{times}");
    }
}
