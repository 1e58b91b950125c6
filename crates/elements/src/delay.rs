// SPDX-License-Identifier: MPL-2.0

//! How long to wait before what has failed is tried again.

use std::time::Duration;

/// A pipeline that ran for so long did not fail at its start: the next delay is the first again.
const STABLE: Duration = Duration::from_secs(10);

/// One that came to its end after so long has not either.
const ENDED: Duration = Duration::from_secs(1);

/// Doubles from `first` to `most`.
#[derive(Debug)]
pub struct Delay {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Delay {
    /// The first delay, and the longest.
    pub fn new(first: Duration, most: Duration) -> Self {
        let most = most.max(first);
        let next = first;
        Self { first, most, next }
    }

    /// The delay after a run of this length, which came to its end or failed.
    pub fn after(&mut self, ran: Duration, ended: bool) -> Duration {
        if ran >= STABLE || (ended && ran >= ENDED) {
            self.next = self.first;
        }
        let delay = self.next;
        self.next = (self.next * 2).min(self.most);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most_and_begin_anew_after_a_stable_run() {
        let ms = Duration::from_millis;
        let mut delay = Delay::new(ms(100), ms(350));
        for expected in [100, 200, 350, 350] {
            assert_eq!(delay.after(ms(5), false), ms(expected));
        }
        assert_eq!(delay.after(STABLE, false), ms(100));
        assert_eq!(delay.after(ms(5), true), ms(200));
        assert_eq!(delay.after(ms(2_000), false), ms(350));
        assert_eq!(delay.after(ms(2_000), true), ms(100));
        // The most is never less than the first.
        assert_eq!(Delay::new(ms(100), ms(1)).after(ms(0), false), ms(100));
    }
}
