// SPDX-License-Identifier: MPL-2.0

//! The numbers that a viewer has just asked for again (NACK, RFC 4585 section 6.2.1): each is heard once.

use std::time::{Duration, Instant};

/// How far behind the newest a number may be: more than any history reaches back at 20 Mbit/s, and a power of two.
const WINDOW: u16 = 8_192;
/// A number that comes again within this time is not heard again. Browsers look for what is missing each 20 ms
/// (`NackRequester` of libwebrtc), and ask again after a round trip.
const AGAIN: Duration = Duration::from_millis(10);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Asked {
    /// A bit a number, by its lowest 13 bits.
    bits: [u64; WINDOW as usize / 64],
    since: Option<Instant>,
}

/// What becomes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The extended number to be looked up.
    New(u64),
    Repeated,
    /// Nothing left under it, or too long ago.
    Unknown,
}

impl Asked {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            bits: [0; WINDOW as usize / 64],
            since: None,
        })
    }

    /// A datagram with numbers has come.
    pub(super) fn begin(&mut self, now: Instant) {
        let goes_on = |since| now.saturating_duration_since(since) < AGAIN;
        if !self.since.is_some_and(goes_on) {
            self.since = Some(now);
            self.bits.fill(0);
        }
    }

    /// A number in it. `newest` is the extended number of the newest packet that left.
    pub(super) fn hear(&mut self, newest: u64, seq: u16) -> Answer {
        let back = (newest as u16).wrapping_sub(seq);
        let Some(number) = newest.checked_sub(back.into()).filter(|_| back < WINDOW) else {
            return Answer::Unknown;
        };
        let place = usize::from(seq % WINDOW);
        let (word, bit) = (&mut self.bits[place / 64], 1 << (place % 64));
        if *word & bit != 0 {
            return Answer::Repeated;
        }
        *word |= bit;
        Answer::New(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_heard_once_in_a_while_and_extended() {
        let mut now = Instant::now();
        let mut asked = Asked::new();
        let newest = 70_000;
        for (seq, expected) in [
            (70_000u32, Answer::New(70_000)),
            (70_000, Answer::Repeated),
            (65_535, Answer::New(65_535)),
            (61_809, Answer::New(61_809)),
            (61_808, Answer::Unknown),
            (70_001, Answer::Unknown),
            (90_000, Answer::Unknown),
            (65_535, Answer::Repeated),
        ] {
            asked.begin(now);
            assert_eq!(asked.hear(newest, seq as u16), expected, "{seq}");
            now += Duration::from_millis(1);
        }
        now += AGAIN;
        asked.begin(now);
        assert_eq!(asked.hear(newest, 70_000u32 as u16), Answer::New(70_000));
        assert_eq!(asked.hear(3, 65_535), Answer::Unknown, "before the first");
    }

    #[test]
    fn of_all_numbers_as_many_are_heard_as_may_have_left() {
        let mut asked = Asked::new();
        asked.begin(Instant::now());
        for _ in 0..3 {
            let all = 0..=u16::MAX;
            let new = all.filter(|seq| matches!(asked.hear(1 << 20, *seq), Answer::New(_)));
            assert!([usize::from(WINDOW), 0].contains(&new.count()));
        }
    }
}
