// SPDX-License-Identifier: MPL-2.0

//! How long to wait before the next start.

use std::time::Duration;

/// A pipeline that ran for so long did not fail at its start: the next delay is the first again.
const STABLE: Duration = Duration::from_secs(10);

/// Doubles from `first` to `most`.
#[derive(Debug)]
pub(super) struct Delay {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Delay {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        let most = most.max(first);
        let next = first;
        Self { first, most, next }
    }

    /// The delay after a run of this length.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= STABLE {
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
            assert_eq!(delay.after(ms(5)), ms(expected));
        }
        assert_eq!(delay.after(STABLE), ms(100));
        assert_eq!(delay.after(ms(5)), ms(200));
        // The most is never less than the first.
        assert_eq!(Delay::new(ms(100), ms(1)).after(ms(0)), ms(100));
    }
}
