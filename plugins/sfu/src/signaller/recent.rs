// SPDX-License-Identifier: MPL-2.0

//! Sessions that have just ended: who ends one that its peer or the network has closed a moment before has done nothing wrong
//! (FFmpeg closes DTLS first, and then asks for the end).

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sfu_engine::SessionId;

use crate::properties::lock;

/// So long are they remembered.
const KEPT: Duration = Duration::from_secs(60);
/// And so many at most.
const MOST: usize = 4_096;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Ended>);

#[derive(Debug, Default)]
struct Ended {
    at: HashMap<SessionId, Instant>,
    /// The oldest first.
    order: VecDeque<SessionId>,
}

impl Recent {
    /// One has ended.
    pub(super) fn add(&self, now: Instant, session: SessionId) {
        let mut ended = lock(&self.0);
        let Ended { at, order } = &mut *ended;
        while let Some(oldest) = order.front() {
            let is_old = at
                .get(oldest)
                .is_none_or(|at| now.saturating_duration_since(*at) >= KEPT);
            if !is_old && order.len() < MOST {
                break;
            }
            at.remove(oldest);
            order.pop_front();
        }
        if at.insert(session, now).is_none() {
            order.push_back(session);
        }
    }

    /// Whether it ended a moment ago.
    pub(super) fn has(&self, now: Instant, session: SessionId) -> bool {
        let ended = lock(&self.0);
        let at = ended.at.get(&session);
        at.is_some_and(|at| now.saturating_duration_since(*at) < KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_remembered_for_a_minute_and_not_too_many() {
        let recent = Recent::default();
        let start = Instant::now();
        let id = SessionId::from_bits;
        for n in 0..3 * MOST as u128 {
            recent.add(start, id(n));
        }
        assert_eq!(lock(&recent.0).at.len(), MOST);
        assert!(recent.has(start, id(3 * MOST as u128 - 1)));
        assert!(!recent.has(start, id(0)));
        assert!(!recent.has(start + KEPT, id(3 * MOST as u128 - 1)));
        recent.add(start + KEPT, id(7));
        recent.add(start + KEPT, id(7));
        let ended = lock(&recent.0);
        assert_eq!((ended.at.len(), ended.order.len()), (1, 1));
    }
}
