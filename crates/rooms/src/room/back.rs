// SPDX-License-Identifier: MPL-2.0

//! Who comes back after its connection broke, and what it has missed: part of [`Room`].

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{ParticipantInfo, ParticipantUpdate, ReconnectResponse, RoomUpdate};

use super::{Outputs, PING_TIMEOUT, Participant, REFRESH, RESUME, Room, server_info};
use crate::rooms::{Connection, Now, Output};
use crate::sid::Sid;

/// So many who have left are remembered, as many as there may be in a room, for so long as somebody may be away unseen and seen.
const MOST: usize = 1_000;
const LONGEST: Duration = PING_TIMEOUT.saturating_add(RESUME);

/// Who has left: whoever was away then is told when it comes back, since its client keeps who is in no update.
#[derive(Debug, Default)]
pub(super) struct Left(VecDeque<(Instant, ParticipantInfo)>);

impl Left {
    /// Somebody has left.
    pub(super) fn add(&mut self, now: Instant, info: &ParticipantInfo) {
        self.forget(now);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        let gone = ParticipantInfo {
            sid: info.sid.clone(),
            identity: info.identity.clone(),
            state: State::Disconnected.into(),
            version: info.version,
            joined_at: info.joined_at,
            joined_at_ms: info.joined_at_ms,
            disconnect_reason: info.disconnect_reason,
            ..ParticipantInfo::default()
        };
        self.0.push_back((now, gone));
    }

    /// Nobody is away any more who could have to be told.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.0.front()
            && *at + LONGEST < now
        {
            self.0.pop_front();
        }
    }

    fn since(&self, since: Instant) -> impl Iterator<Item = &ParticipantInfo> {
        let all = self.0.iter().filter(move |(at, _)| *at >= since);
        all.map(|(_, info)| info)
    }
}

impl Room {
    /// Somebody whose connection broke is back. Returns who, and a connection that was not known to be broken.
    pub(crate) fn resume(
        &mut self,
        now: Now,
        connection: Connection,
        identity: &str,
        (sid, by_v1): (&str, bool),
        out: &mut Outputs,
    ) -> Option<(Sid, Option<Connection>)> {
        let known = self.participants.get_mut(sid)?;
        // By the other version it has other connections.
        if known.identity != identity || known.hello.v1.is_some() != by_v1 {
            return None;
        }
        let before = known.connection.replace(connection);
        known.heard = now.at;
        let missed_from = std::mem::replace(&mut known.said, now.at);
        known.refresh = now.at + REFRESH;
        known.answering = None;
        known.offering.again(now.at, true);
        // What it was told may be lost with the connection.
        known
            .tracks
            .iter_mut()
            .for_each(|track| track.demands.forget());
        let sid = known.sid.clone();
        if !known.data_subscriptions.is_empty() {
            self.stale_handles.insert(sid.clone());
        }
        let reconnect = ReconnectResponse {
            server_info: Some(server_info()),
            last_message_seq: known.sequence(),
            ..ReconnectResponse::default()
        };
        let room = RoomUpdate {
            room: Some(self.info()),
        };
        for message in [
            Message::Reconnect(reconnect),
            Message::Update(self.missed(&sid, missed_from)),
            Message::RoomUpdate(room),
        ] {
            out.push_back(Output::Send(connection, Box::new(message)));
        }
        out.push_back(Output::Refresh(connection));
        self.tell_stream_states_again(&sid, out);
        self.settle(now, out);
        Some((sid, before))
    }

    /// All that a participant may know of, itself included, and before them who has left since. Clients know others by identity:
    /// who has come anew by its own is there.
    fn missed(&self, sid: &Sid, since: Instant) -> ParticipantUpdate {
        let visible = self.visible_to(sid);
        let there: BTreeSet<_> = visible.map(|p| p.identity.as_str()).collect();
        let left = self.left.since(since);
        let left = left.filter(|info| !there.contains(info.identity.as_str()));
        let visible = self.visible_to(sid).map(Participant::info);
        ParticipantUpdate {
            participants: left.cloned().chain(visible).collect(),
        }
    }

    /// All that a participant may know of, itself included.
    fn visible_to(&self, sid: &Sid) -> impl Iterator<Item = &Participant> {
        self.participants
            .values()
            .filter(move |p| p.sid == *sid || !p.permission.hidden)
    }

    /// A connection broke.
    pub(crate) fn closed(&mut self, now: Now, participant: &Sid, connection: Connection) {
        if let Some(known) = self.participants.get_mut(participant)
            && known.connection == Some(connection)
        {
            known.connection = None;
            known.heard = now.at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_all_who_ever_left_are_remembered() {
        let (start, mut left) = (Instant::now(), Left::default());
        let at = |n: usize| start + Duration::from_millis(10) * n as u32;
        for n in 0..MOST + 100 {
            let info = ParticipantInfo {
                identity: n.to_string(),
                metadata: "x".repeat(100),
                ..ParticipantInfo::default()
            };
            left.add(at(n), &info);
        }
        let since: Vec<_> = left.since(at(500)).collect();
        assert_eq!((left.0.len(), since.len()), (MOST, MOST - 400));
        assert!(since.iter().all(|info| info.metadata.is_empty()));
        assert_eq!(since[0].identity, "500");
        left.forget(at(500) + LONGEST);
        assert_eq!(left.0.len(), MOST - 400);
        left.forget(at(MOST + 100) + LONGEST);
        assert!(left.0.is_empty());
    }
}
