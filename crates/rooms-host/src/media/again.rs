// SPDX-License-Identifier: MPL-2.0

//! What a shard that is behind had no room for, and must come to pass all the same: part of [`Media`]. Who was put out is sent
//! nothing any more, and who was promised something gets it.

use std::collections::BTreeSet;
use std::time::Instant;

use sfu_engine::{Preference, SessionError, SessionId};
use sfu_rooms::Sid;

use super::Media;
use super::duplex::Way;
use crate::late::AGAIN;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Sessions that are to end.
    closing: Vec<SessionId>,
    /// Whose m-lines do not carry all that they are to carry.
    pub(super) carrying: BTreeSet<Sid>,
    /// It was tried lately, and is again then.
    due: Option<Instant>,
}

impl Again {
    /// Ends a session, now or later. `close` does it.
    fn close(
        &mut self,
        session: SessionId,
        close: impl FnOnce(SessionId) -> Result<(), SessionError>,
    ) {
        // One that has not begun, or is over, is not known there.
        if close(session) == Err(SessionError::Busy) {
            tracing::warn!(?session, "a shard is far behind: a session ends later");
            self.closing.push(session);
        }
    }

    fn close_again(&mut self, mut close: impl FnMut(SessionId) -> Result<(), SessionError>) {
        let is_busy = |session: &SessionId| close(*session) == Err(SessionError::Busy);
        self.closing.retain(is_busy);
    }

    fn is_empty(&self) -> bool {
        self.closing.is_empty() && self.carrying.is_empty()
    }

    /// When there is something to try. What has come up just now is tried at once.
    fn due(&self, now: Instant) -> Option<Instant> {
        (!self.is_empty()).then(|| self.due.unwrap_or(now))
    }

    /// Whether it is to be tried now, and so not again for a while: a shard that is behind gets no better by each of the rooms'
    /// thread's inputs.
    fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due(now).is_some_and(|due| due <= now);
        if is_due {
            self.due = Some(now + AGAIN);
        }
        is_due
    }
}

impl Media {
    pub(super) fn close(&mut self, session: SessionId) {
        self.again.close(session, |id| self.engine.close(id));
    }

    /// Does what found no room before.
    pub(crate) fn try_again(&mut self, now: Instant) {
        if !self.again.take_due(now) {
            return;
        }
        self.again.close_again(|id| self.engine.close(id));
        for sid in std::mem::take(&mut self.again.carrying) {
            if let Some(party) = self.parties.get_mut(&sid) {
                let silent = std::mem::take(&mut party.silent);
                for place in silent {
                    self.silence(&sid, place);
                }
            }
            self.carry(&sid);
        }
    }

    /// When [`try_again`](Self::try_again) has something to do.
    pub(crate) fn due_again(&self, now: Instant) -> Option<Instant> {
        self.again.due(now)
    }

    /// A place of a participant's carries nothing any more, unless it is another track's by now.
    pub(super) fn silence(&mut self, sid: &Sid, place: usize) {
        let Some(party) = self.parties.get_mut(sid) else {
            return;
        };
        if party.lines.values().any(|line| line.number == place) {
            return;
        }
        let way = Way::of(party.invited.as_ref(), party.duplex.as_ref());
        let stopped = way.carry(&self.engine, place, None, &Preference::default());
        if matches!(stopped, Err(SessionError::Busy)) {
            party.silent.push(place);
            self.again.carrying.insert(sid.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_can_not_be_ended_now_is_ended_later() {
        let mut again = Again::default();
        let ids: Vec<_> = (1..5).map(SessionId::from_bits).collect();
        let outcomes = [
            Ok(()),
            Err(SessionError::Busy),
            Err(SessionError::Unknown),
            Err(SessionError::Busy),
        ];
        for (id, outcome) in ids.iter().zip(outcomes) {
            again.close(*id, |_| outcome);
        }
        let tried = |again: &mut Again, outcome: fn(SessionId) -> Result<(), SessionError>| {
            let mut tried = Vec::new();
            again.close_again(|id| {
                tried.push(id);
                outcome(id)
            });
            tried
        };
        let both = [ids[1], ids[3]];
        assert_eq!(tried(&mut again, |_| Err(SessionError::Busy)), both);
        assert_eq!(tried(&mut again, |_| Ok(())), both);
        assert!(again.is_empty() && tried(&mut again, |_| Ok(())).is_empty());
    }

    #[test]
    fn however_much_comes_in_it_is_tried_again_now_and_then() {
        let (mut now, mut again) = (Instant::now(), Again::default());
        assert!(again.due(now).is_none() && !again.take_due(now));
        again.carrying.insert(Sid::participant());
        let (end, mut tried) = (now + 10 * AGAIN, 0);
        while now < end {
            tried += u32::from(again.take_due(now));
            let due = again.due(now);
            assert!(due.is_some_and(|due| due > now && due <= now + AGAIN));
            now += AGAIN / 50;
        }
        assert_eq!(tried, 10);
        again.carrying.clear();
        assert!(again.due(now).is_none() && !again.take_due(now));
    }
}
