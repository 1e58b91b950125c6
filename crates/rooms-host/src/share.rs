// SPDX-License-Identifier: MPL-2.0

//! A client's share of the rooms' thread: what it has said waits where that has taken more than a tenth of the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu_rooms::wire::Frame;

use crate::load::Waiting;

/// The thread may be at work for a client in one part of so many.
const PARTS: u32 = 10;
/// So long a client may go on without a rest. Who joins says some forty messages, of which the dearest, offers, take a millisecond
/// each; a busy machine may make ten of that.
const AT_ONCE: Duration = Duration::from_millis(500);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Share {
    /// What it has taken is made up for then.
    even: Instant,
    /// What it has said since it had its share. There is little of it: nothing more is read.
    later: VecDeque<(Frame, Waiting)>,
}

impl Share {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            even: now,
            later: VecDeque::new(),
        }
    }

    /// What it has taken otherwise is made up for then.
    pub(crate) fn owe(&mut self, even: Instant) {
        self.even = self.even.max(even);
    }

    /// When what it has taken is made up for.
    pub(crate) fn even(&self) -> Instant {
        self.even
    }

    /// It has taken so long.
    pub(crate) fn spend(&mut self, now: Instant, time: Duration) {
        self.even = self.even.max(now) + time * PARTS;
    }

    /// When it has a share again, where it has had it.
    pub(crate) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let until = self.even.checked_sub(AT_ONCE * PARTS)?;
        (until > now).then_some(until)
    }

    /// Whether that has to wait, which it then does.
    pub(crate) fn put_off(&mut self, now: Instant, frame: Frame, own: Waiting) -> Option<Frame> {
        if self.later.is_empty() && self.rests_until(now).is_none() {
            return Some(frame);
        }
        self.later.push_back((frame, own));
        None
    }

    /// What is to be heard next of it.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        self.later.pop_front().map(|(frame, _)| frame)
    }

    /// When that is due, if there is something.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let is_some = !self.later.is_empty();
        is_some.then(|| self.rests_until(now).unwrap_or(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;

    #[test]
    fn who_takes_much_time_rests_until_it_is_a_tenth_and_says_all_in_order() {
        let began = Instant::now();
        let (mut now, mut at_work) = (began, Duration::ZERO);
        let (mut share, load) = (Share::new(began), Load::default());
        let frame = |n: u8| Frame::Binary(vec![n].into());
        let (mut said, mut heard) = (0_u8, 0_u8);
        while now < began + Duration::from_secs(60) {
            // It says more than there is time for.
            while said.wrapping_sub(heard) < 5 {
                let now_heard = share.put_off(now, frame(said), load.add(1));
                said = said.wrapping_add(1);
                if let Some(at_once) = now_heard {
                    assert_eq!(at_once, frame(heard));
                    heard = heard.wrapping_add(1);
                    share.spend(now, Duration::from_millis(20));
                    at_work += Duration::from_millis(20);
                }
            }
            now += Duration::from_millis(20);
            while share.due(now).is_some_and(|due| due <= now) {
                assert_eq!(share.next(), Some(frame(heard)));
                heard = heard.wrapping_add(1);
                share.spend(now, Duration::from_millis(20));
                at_work += Duration::from_millis(20);
            }
        }
        let tenth = Duration::from_secs(6) + AT_ONCE + Duration::from_millis(100);
        assert!(
            at_work > Duration::from_secs(5) && at_work < tenth,
            "{at_work:?}"
        );
        while share.next().is_some() {}
        assert!(!load.is_full());
        // Who says little never waits.
        let mut share = Share::new(now);
        for n in 0..200 {
            let heard = share.put_off(now, frame(n), load.add(1));
            assert_eq!(heard, Some(frame(n)));
            share.spend(now, Duration::from_millis(2));
            now += Duration::from_millis(20);
        }
    }
}
