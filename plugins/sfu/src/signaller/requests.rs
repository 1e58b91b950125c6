// SPDX-License-Identifier: MPL-2.0

//! The requests of one connection that are under way: one by HTTP/1.1 (the next may begin a moment before it is over), any
//! number by HTTP/2, up to `STREAMS_MAX`.

use std::collections::BTreeMap;
use std::time::Instant;

use super::limits::GIVEN_UP_MAX;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u64,
    /// By their numbers: since when the peer has not taken what it was given of the answer.
    under_way: BTreeMap<u64, Option<Instant>>,
    answered: u32,
    given_up: u32,
}

impl Requests {
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn begin(&mut self) -> u64 {
        self.last += 1;
        self.under_way.insert(self.last, None);
        self.last
    }

    /// Whether it was under way.
    pub(super) fn finish(&mut self, number: u64, answered: bool) -> bool {
        let was = self.under_way.remove(&number).is_some();
        let count = match answered {
            true => &mut self.answered,
            false => &mut self.given_up,
        };
        *count = count.saturating_add(was.into());
        was
    }

    /// Whether its peer asks only to make us work ("rapid reset", CVE-2023-44487).
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up > GIVEN_UP_MAX.max(self.answered)
    }

    pub(super) fn takes(&mut self, number: u64) {
        if let Some(since) = self.under_way.get_mut(&number) {
            *since = None;
        }
    }

    pub(super) fn waits(&mut self, number: u64, now: Instant) {
        if let Some(since) = self.under_way.get_mut(&number) {
            *since = Some(now);
        }
    }

    /// For how long the slowest one has taken nothing.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.under_way.values().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_slowest_answer_counts() {
        let mut requests = Requests::default();
        let now = Instant::now();
        let numbers = [(); 3].map(|()| requests.begin());
        assert_eq!(requests.waits_since(), None);
        for (n, number) in numbers.into_iter().enumerate() {
            requests.waits(number, now + Duration::from_secs(n as u64));
        }
        assert_eq!(requests.waits_since(), Some(now));
        requests.takes(numbers[0]);
        assert_eq!(requests.waits_since(), Some(now + Duration::from_secs(1)));
        assert!(requests.finish(numbers[1], true));
        assert!(!requests.finish(numbers[1], true));
        assert_eq!(requests.waits_since(), Some(now + Duration::from_secs(2)));
        requests.waits(numbers[1], now);
        assert_eq!(requests.under_way(), 2);
    }

    #[test]
    fn who_gives_up_more_than_he_hears_is_found() {
        for (answered, given_up, found) in [
            (0, 100, false),
            (0, 101, true),
            (500, 500, false),
            (500, 501, true),
            (50, 99, false),
        ] {
            let mut requests = Requests::default();
            for n in 0..answered + given_up {
                let number = requests.begin();
                requests.finish(number, n < answered);
            }
            assert_eq!(requests.is_given_up(), found, "{answered} {given_up}");
        }
    }
}
