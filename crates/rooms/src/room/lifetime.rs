// SPDX-License-Identifier: MPL-2.0

//! How long there is a room, for how many, and what all are told of it: part of [`Room`].

use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message;
use livekit_protocol::{ParticipantInfo, ParticipantUpdate, RoomUpdate};

use super::{Outputs, Participant, Room, TELL, TELL_OCTET, TOLD_AT_ONCE, say, tell};
use crate::rooms::Now;
use crate::sid::Sid;

/// In a room of more, who publishes nothing comes and goes unannounced for this long, so that N who come cost less than N² messages.
const CROWD: usize = 30;
const BATCH: Duration = Duration::from_secs(3);

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

    /// Whether one more is too much, where any room may have so many. Who is there for others has a place beside those that the room's
    /// creator allows.
    pub(crate) fn is_full(&self, most: usize, is_dependent: bool) -> bool {
        let people = self.participants.values().filter(|p| !p.is_dependent());
        let is_limited = self.max_participants > 0 && !is_dependent;
        self.participants.len() >= most
            || is_limited && people.count() >= self.max_participants as usize
    }

    /// Nobody is there, but maybe who is there for others.
    pub(super) fn is_deserted(&self) -> bool {
        self.participants.values().all(Participant::is_dependent)
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

    /// Something of a participant has changed, of which others are told.
    pub(super) fn note(&mut self, now: Now, sid: &Sid) {
        let is_crowd = self.participants.len() > CROWD;
        match self.participants.get(sid) {
            Some(p) if is_crowd && p.tracks.is_empty() && p.data_tracks.is_empty() => {
                self.quiet.insert(sid.clone());
                self.batch.get_or_insert(now.at + BATCH);
            }
            _ => {
                self.changed.insert(sid.clone());
            }
        }
    }

    /// Tells what has changed. Where that was much lately it waits, so that many changes become one message.
    pub(super) fn tell_changes(&mut self, now: Now, out: &mut Outputs) {
        if self.told > now.at + TOLD_AT_ONCE {
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return;
        }
        let known = changed.iter().filter_map(|sid| self.participants.get(sid));
        let (hidden, visible): (Vec<_>, Vec<_>) = known.partition(|p| p.permission.hidden);
        let visible: Vec<_> = visible.into_iter().map(Participant::info).collect();
        // Who is hidden is told of itself, too.
        for one in &hidden {
            let mut participants = visible.clone();
            participants.push(one.info());
            let update = ParticipantUpdate { participants };
            say(one.connection, Message::Update(update), out);
        }
        if visible.is_empty() {
            return;
        }
        let is_told = |p: &&Participant| !hidden.iter().any(|one| one.sid == p.sid);
        let others = self.participants.values().filter(is_told);
        let octets: usize = visible.iter().map(prost::Message::encoded_len).sum();
        let update = ParticipantUpdate {
            participants: visible,
        };
        let told = tell(others, Message::Update(update), out);
        self.told = self.told.max(now.at) + (TELL + TELL_OCTET * octets as u32) * told;
    }

    /// Tells all that are connected.
    pub(super) fn tell_all(&self, message: &Message, out: &mut Outputs) {
        tell(self.participants.values(), message.clone(), out);
    }
}
