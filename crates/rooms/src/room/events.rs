// SPDX-License-Identifier: MPL-2.0

//! What happens in a room, for applications that want to be told (LiveKit's webhooks): part of [`Room`].

use livekit_protocol::{ParticipantInfo, TrackInfo, WebhookEvent};

use super::participant::Participant;
use super::track::Track;
use super::{Outputs, Room};
use crate::rooms::{Now, Output};
use crate::sid::Sid;

impl Room {
    pub(crate) fn tell(
        &self,
        event: &str,
        now: Now,
        participant: Option<ParticipantInfo>,
        track: Option<TrackInfo>,
        out: &mut Outputs,
    ) {
        if !self.config.events {
            return;
        }
        out.push_back(Output::Event(Box::new(WebhookEvent {
            event: event.to_owned(),
            room: Some(self.info()),
            participant,
            track,
            id: String::from(&Sid::event()),
            created_at: now.unix().as_secs() as i64,
            ..WebhookEvent::default()
        })));
    }

    /// Something of a participant, or of a track of its.
    pub(super) fn tell_of(
        &self,
        event: &str,
        now: Now,
        participant: &Participant,
        track: Option<&Track>,
        out: &mut Outputs,
    ) {
        if self.config.events {
            let track = track.map(|track| track.info().clone());
            self.tell(event, now, Some(participant.info()), track, out);
        }
    }

    /// Tracks of a participant have begun, and ended.
    pub(super) fn tell_of_tracks(
        &self,
        now: Now,
        sid: &Sid,
        begun: &[Sid],
        ended: Vec<TrackInfo>,
        out: &mut Outputs,
    ) {
        let participant = self.participants.get(sid).filter(|_| self.config.events);
        let Some(participant) = participant else {
            return;
        };
        for track in participant.tracks.iter().filter(|t| begun.contains(&t.sid)) {
            self.tell_of("track_published", now, participant, Some(track), out);
        }
        for track in ended {
            let info = Some(participant.info());
            self.tell("track_unpublished", now, info, Some(track), out);
        }
    }
}
