// SPDX-License-Identifier: MPL-2.0

//! What waits to be sent on a channel, before SCTP has it: shared with all others that are sent the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Message, Reliability};
use crate::held::{Held, Total};

/// What waits for all peers of the process. What goes to many is counted for each.
pub(super) static WAITING: Total = Total::new();

/// What waits on a channel where messages may be lost, in octets: one that finds more is lost.
const LOSSY: usize = 128 * 1024;
/// What is reckoned for a message beside its octets.
const MESSAGE: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Outgoing {
    messages: VecDeque<Waiting>,
    held: Held,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            messages: VecDeque::new(),
            held: Held::of(&WAITING),
        }
    }
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    until: Option<Instant>,
}

impl Outgoing {
    /// Takes a message in. `false`: it is lost.
    pub(super) fn push(
        &mut self,
        now: Instant,
        message: Message,
        reliability: Reliability,
    ) -> bool {
        if reliability != Reliability::Reliable && self.octets() > LOSSY {
            return false;
        }
        let until = match reliability {
            Reliability::Lifetime(millis) => Some(now + Duration::from_millis(millis.into())),
            _ => None,
        };
        self.held.set(self.octets() + cost(&message));
        self.messages.push_back(Waiting { message, until });
        true
    }

    /// The next one whose time is not over.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Message> {
        while let Some(Waiting { message, until }) = self.messages.pop_front() {
            self.held.set(self.octets() - cost(&message));
            if until.is_none_or(|until| until > now) {
                return Some(message);
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn octets(&self) -> usize {
        self.held.octets()
    }
}

fn cost(message: &Message) -> usize {
    message.data.len() + MESSAGE
}

/// Messages that SCTP has and the peer may not, as far as the octets tell that wait there. Each takes memory of its own, however
/// small it is.
#[derive(Debug, Default)]
pub(super) struct Handed {
    sizes: VecDeque<u32>,
    octets: usize,
}

impl Handed {
    /// SCTP has one more.
    pub(super) fn add(&mut self, octets: usize) {
        self.octets += octets;
        self.sizes.push_back(octets as u32);
    }

    /// So many octets are still there. Returns of how many messages they can be.
    pub(super) fn left(&mut self, octets: usize) -> usize {
        while let Some(first) = self.sizes.front()
            && self.octets - *first as usize >= octets
        {
            self.octets -= *first as usize;
            self.sizes.pop_front();
        }
        self.sizes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(octets: usize) -> Message {
        Message {
            text: false,
            data: vec![0; octets].into(),
        }
    }

    #[test]
    fn what_may_be_lost_is_lost_where_too_much_waits() {
        let now = Instant::now();
        for (reliability, kept) in [
            (Reliability::Reliable, 1_000),
            (Reliability::Retransmits(0), LOSSY / (1_000 + MESSAGE) + 1),
            (Reliability::Lifetime(100), LOSSY / (1_000 + MESSAGE) + 1),
        ] {
            let mut outgoing = Outgoing::default();
            let pushed = (0..1_000).filter(|_| outgoing.push(now, message(1_000), reliability));
            assert_eq!(pushed.count(), kept, "{reliability:?}");
            let left = std::iter::from_fn(|| outgoing.pop(now)).count();
            assert_eq!((left, outgoing.octets()), (kept, 0));
        }
    }

    #[test]
    fn what_has_a_lifetime_ends_with_that() {
        let (now, mut outgoing) = (Instant::now(), Outgoing::default());
        let after = |ms| now + Duration::from_millis(ms);
        for ms in [0, 50, 100] {
            assert!(outgoing.push(after(ms), message(1), Reliability::Lifetime(100)));
        }
        let left = std::iter::from_fn(|| outgoing.pop(after(150))).count();
        assert_eq!(left, 1);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn messages_are_counted_by_what_is_left_of_them() {
        let mut handed = Handed::default();
        for octets in [10, 20, 1, 1, 1] {
            handed.add(octets);
        }
        for (left, messages) in [(33, 5), (30, 5), (23, 4), (3, 3), (2, 2), (0, 0), (7, 0)] {
            assert_eq!(handed.left(left), messages, "{left}");
        }
    }
}
