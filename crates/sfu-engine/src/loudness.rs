// SPDX-License-Identifier: MPL-2.0

//! How loud a publisher's sound is, as its packets tell it (RFC 6464): the loudest of a second, so that whoever looks once a
//! second misses no word between two pauses.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// See the module's description. Levels are in dB below the loudest that there can be: 0 to 127.
#[derive(Debug, Default)]
pub(crate) struct Loudness {
    began: Option<Instant>,
    loudest: Option<u8>,
    before: Option<u8>,
}

impl Loudness {
    /// The next packet's level, if it tells one. What there is to tell from now on: the loudest of this second and the one before.
    pub(crate) fn add(&mut self, now: Instant, level: Option<u8>) -> Option<u8> {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed >= WINDOW {
            // After a pause the second before was silent.
            self.before = self.loudest.take().filter(|_| passed < 2 * WINDOW);
            self.began = Some(now);
        }
        // The loudest has the lowest number.
        self.loudest = [self.loudest, level].into_iter().flatten().min();
        [self.loudest, self.before].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudest_of_the_last_second_or_two_is_told() {
        let (mut loudness, start) = (Loudness::default(), Instant::now());
        for (ms, level, expected) in [
            (0, None, None),
            (20, Some(127), Some(127)),
            (40, Some(20), Some(20)),
            (60, Some(60), Some(20)),
            // Still within two seconds of it.
            (1_100, Some(60), Some(20)),
            (1_120, None, Some(20)),
            (2_200, Some(50), Some(50)),
            // After a pause nothing of before it counts, and without the extension there is nothing to tell.
            (9_000, Some(90), Some(90)),
            (20_000, None, None),
        ] {
            let now = start + Duration::from_millis(ms);
            assert_eq!(loudness.add(now, level), expected, "{ms}");
        }
    }
}
