// SPDX-License-Identifier: MPL-2.0

//! How long there is a room, for how many, and what all are told of it: part of [`Room`].

use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message;
use livekit_protocol::{ParticipantInfo, ParticipantUpdate, RoomUpdate};

use super::{Outputs, Room, tell};
use crate::rooms::Now;
use crate::sid::Sid;

impl Room {
    /// Nobody is there, and nobody is waited for.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.empty_until().is_some_and(|until| now.at >= until)
    }

    pub(super) fn empty_until(&self) -> Option<Instant> {
        let timeout = match self.had_somebody {
            true => self.departure_timeout,
            false => self.empty_timeout,
        };
        Some(self.empty_since? + timeout)
    }

    /// How many there may be, where any room may have so many.
    pub(crate) fn capacity(&self, most: usize) -> usize {
        match self.max_participants {
            0 => most,
            max => most.min(max as usize),
        }
    }

    pub(super) fn tell_others(&self, sid: &Sid, info: &ParticipantInfo, out: &mut Outputs) {
        let update = ParticipantUpdate {
            participants: vec![info.clone()],
        };
        let others = self.participants.values().filter(|p| p.sid != *sid);
        tell(others, Message::Update(update), out);
    }

    pub(super) fn tell_room_in(&mut self, now: Now, delay: Duration) {
        let due = now.at + delay;
        self.tell_room = Some(self.tell_room.map_or(due, |at| at.min(due)));
    }

    pub(super) fn tell_room_now(&mut self, out: &mut Outputs) {
        self.tell_room = None;
        let room = RoomUpdate {
            room: Some(self.info()),
        };
        self.tell_all(&Message::RoomUpdate(room), out);
    }

    /// Tells all that are connected.
    pub(super) fn tell_all(&self, message: &Message, out: &mut Outputs) {
        tell(self.participants.values(), message.clone(), out);
    }
}
