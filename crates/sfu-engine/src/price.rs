// SPDX-License-Identifier: MPL-2.0

//! What a keyframe costs who asks for it: each one costs all the other viewers of the layer, in bits and in quality.
//!
//! One price a viewer, whatever it asks for: PLI, FIR, another layer. A keyframe doubles the price, which is the time until
//! the next one may be had, and quiet times halve it. What was asked for and has not come yet costs nothing more.

use std::time::{Duration, Instant};

/// The price after the first keyframe. The arbiter's usual interval.
const SHORTEST: Duration = Duration::from_millis(500);
/// A viewer who goes on asking has one keyframe in this time: it shows pictures at all, and the others notice little. In as
/// much time of quiet the price halves. Not tuned.
pub(crate) const VIEWER_MAX: Duration = Duration::from_secs(8);
/// The same of a publisher whose packets are lost for good: all its viewers wait.
pub(crate) const SOURCE_MAX: Duration = Duration::from_secs(2);
/// What has not come is asked for again after this time, from the fourth and eighth time on after twice and four times.
const AGAIN: Duration = Duration::from_millis(500);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Price {
    longest: Duration,
    price: Duration,
    last: Option<Bought>,
    /// A request that came too early waits, for a keyframe of this layer.
    held: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Bought {
    at: Instant,
    layer: usize,
    /// The keyframe has come.
    answered: bool,
    repeats: u32,
}

impl Price {
    /// Nothing was asked for yet. A keyframe costs `longest` in the end.
    pub(crate) fn new(longest: Duration) -> Self {
        Self {
            longest,
            price: Duration::ZERO,
            last: None,
            held: None,
        }
    }

    /// Whether the arbiter may be asked for a keyframe of a layer now. What may not waits until [`due`](Self::due).
    pub(crate) fn ask(&mut self, now: Instant, layer: usize) -> bool {
        if self.next(layer).is_some_and(|at| now < at) {
            self.held = Some(layer);
            return false;
        }
        self.held = None;
        let repeats = match self.last {
            Some(last) if !last.answered && last.layer == layer => last.repeats + 1,
            last => {
                let quiet = last.map_or(Duration::ZERO, |l| now.saturating_duration_since(l.at));
                let halvings = quiet.as_secs_f64() / self.longest.as_secs_f64();
                let price = self.price.mul_f64(2.0 * (-halvings).exp2());
                self.price = price.clamp(SHORTEST, self.longest);
                0
            }
        };
        self.last = Some(Bought {
            at: now,
            layer,
            answered: false,
            repeats,
        });
        true
    }

    /// A keyframe of a layer came, whoever asked for it.
    pub(crate) fn keyframe(&mut self, layer: usize) {
        self.held.take_if(|held| *held == layer);
        if let Some(last) = &mut self.last {
            last.answered |= last.layer == layer;
        }
    }

    /// When a request that waits may be made, and of which layer.
    pub(crate) fn due(&self) -> Option<(Instant, usize)> {
        let layer = self.held?;
        Some((self.next(layer)?, layer))
    }

    /// What waits is not wanted any more.
    pub(crate) fn forget(&mut self) {
        self.held = None;
    }

    /// When a keyframe of a layer may be had. `None`: at any time.
    pub(crate) fn next(&self, layer: usize) -> Option<Instant> {
        let last = self.last?;
        let wait = match !last.answered && last.layer == layer {
            true => AGAIN * (1 << (last.repeats / 4).min(2)),
            false => self.price,
        };
        Some(last.at + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const MINUTE: Duration = Duration::from_secs(60);

    /// When keyframes are had by who asks each `every`, of layers in turn, of an encoder that answers at once or never.
    fn had(every: Duration, layers: usize, answers: bool, time: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut price = Price::new(VIEWER_MAX);
        let (mut had, mut at, mut n) = (Vec::new(), Duration::ZERO, 0);
        while at < time {
            if price.ask(start + at, n % layers) {
                had.push(at);
                if answers {
                    price.keyframe(n % layers);
                }
            }
            at += every;
            n += 1;
        }
        had
    }

    #[test]
    fn who_asks_and_asks_is_answered_less_and_less_often() {
        for (every, layers) in [(10, 1), (100, 1), (100, 2), (1_000, 1), (1_000, 3)] {
            let all = had(every * MS, layers, true, 3 * MINUTE);
            let first = all.iter().filter(|at| **at < MINUTE).count();
            let last = all.iter().filter(|at| **at >= 2 * MINUTE).count();
            let what = format!("each {every} ms of {layers} layers: {all:?}");
            assert!(all[0] == Duration::ZERO && all[1] <= 1_000 * MS, "{what}");
            assert!((8..=14).contains(&first), "{what}");
            assert!((6..=8).contains(&last), "{what}");
        }
    }

    #[test]
    fn who_asks_seldom_is_answered_at_once_and_quiet_is_forgiven() {
        let seldom = had(9_000 * MS, 1, true, 5 * MINUTE);
        assert_eq!(seldom.len(), 34, "all of them");
        let start = Instant::now();
        let mut price = Price::new(VIEWER_MAX);
        for n in 0..600 {
            if price.ask(start + 100 * MS * n, 0) {
                price.keyframe(0);
            }
        }
        let later = start + MINUTE + 3 * VIEWER_MAX;
        assert!(price.ask(later, 0));
        price.keyframe(0);
        assert!(!price.ask(later + 500 * MS, 0), "not quite as new yet");
        assert_eq!(price.due().unwrap().1, 0);
        assert!(price.due().unwrap().0 <= later + 2_500 * MS);
    }

    #[test]
    fn what_does_not_come_is_asked_for_again_at_no_price() {
        let all = had(100 * MS, 1, false, Duration::from_secs(10));
        assert_eq!(all[..5], [0, 500, 1_000, 1_500, 2_000].map(|ms| ms * MS));
        assert!((8..=12).contains(&all.len()), "{all:?}");
        let flapping = had(100 * MS, 2, false, MINUTE);
        assert!(flapping.len() <= 60, "{flapping:?}");
    }

    #[test]
    fn what_waits_is_answered_by_any_keyframe_of_its_layer() {
        let now = Instant::now();
        let mut price = Price::new(VIEWER_MAX);
        assert!(price.ask(now, 1));
        price.keyframe(1);
        assert!(!price.ask(now + MS, 1));
        price.keyframe(0);
        assert_eq!(price.due(), Some((now + SHORTEST, 1)));
        price.keyframe(1);
        assert_eq!(price.due(), None);
    }

    proptest! {
        #[test]
        fn no_two_within_half_a_second_and_few_in_a_minute(
            steps in proptest::collection::vec((0u32..700, 0usize..3, any::<bool>()), 1..500)
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut price = Price::new(VIEWER_MAX);
            let mut had: Vec<Instant> = Vec::new();
            for (gap, layer, wait) in steps {
                now += gap * MS;
                if wait {
                    now = price.due().map_or(now, |(at, _)| at.max(now));
                }
                if price.ask(now, layer) {
                    price.keyframe(layer);
                    had.push(now);
                }
            }
            for pair in had.windows(2) {
                prop_assert!(pair[1] - pair[0] >= SHORTEST);
            }
            for many in had.windows(16) {
                prop_assert!(many[15] - many[0] >= MINUTE, "{many:?}");
            }
        }
    }
}
