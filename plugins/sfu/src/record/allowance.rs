// SPDX-License-Identifier: MPL-2.0

//! How many files a publisher may cause: one who comes and goes, or changes its size, all the time would fill a folder
//! with thousands.

use std::time::{Duration, Instant};

/// Files that may begin one after the other, and the time that one more takes.
const BURST: u32 = 10;
const EACH: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// Until when the time that passed is counted.
    since: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// Whether one more file may begin.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.since) >= EACH {
            self.left += 1;
            self.since += EACH;
        }
        if self.left == BURST {
            self.since = now;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_changes_all_the_time_gets_few_files_and_who_does_so_now_and_then_all() {
        for (every, seconds, expected) in [(12, 15, 10 + 2), (12, 600, 10 + 119), (5_000, 600, 120)]
        {
            let start = Instant::now();
            let mut allowance = Allowance::new(start);
            let times = (0..seconds * 1_000).step_by(every);
            let at = |ms: usize| start + Duration::from_millis(ms as u64);
            let files = times.filter(|ms| allowance.take(at(*ms))).count();
            assert_eq!(files, expected, "a change every {every} ms for {seconds} s");
        }
    }

    #[test]
    fn what_was_not_taken_for_long_is_a_burst_and_no_more() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let later = start + Duration::from_secs(86_400);
        let taken = (0..100).filter(|_| allowance.take(later)).count();
        assert_eq!(taken, BURST as usize);
        assert!(!allowance.take(start), "a clock that goes back");
    }
}
