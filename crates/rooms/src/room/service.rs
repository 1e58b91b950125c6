// SPDX-License-Identifier: MPL-2.0

//! What applications do with a room and who is in it, from outside: part of [`Room`].

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DataPacket, MuteRoomTrackRequest, MuteRoomTrackResponse, MuteTrackRequest, ParticipantInfo,
    ParticipantPermission, SendDataRequest, SendDataResponse, TrackUnpublishedResponse,
    UpdateParticipantRequest, UpdateSubscription, UpdateSubscriptionsRequest,
    UpdateSubscriptionsResponse, UserPacket,
};
use prost::Message as _;

use super::{Outputs, Room, say};
use crate::claims;
use crate::rooms::{Now, Output, Wanted};
use crate::service::{Fault, deliver};
use crate::sid::Sid;

/// So long a client may take to offer without what it may not publish any more.
pub(super) const REVOKE: Duration = Duration::from_secs(10);

impl Room {
    /// As its creator wants it, or the token of who is the first. What is 0 stays as it is.
    pub(crate) fn configure(&mut self, wanted: &Wanted) {
        let seconds = |n: u32| (n > 0).then(|| Duration::from_secs(n.into()));
        self.empty_timeout = seconds(wanted.empty_timeout).unwrap_or(self.empty_timeout);
        self.departure_timeout =
            seconds(wanted.departure_timeout).unwrap_or(self.departure_timeout);
        self.max_participants = wanted.max_participants;
        self.metadata.clone_from(&wanted.metadata);
    }

    pub(crate) fn everybody(&self) -> Vec<ParticipantInfo> {
        let visible = self.participants.values().filter(|p| !p.permission.hidden);
        visible.map(super::Participant::info).collect()
    }

    pub(crate) fn permission(&self, sid: &Sid) -> Option<&ParticipantPermission> {
        Some(&self.participants.get(sid)?.permission)
    }

    pub(crate) fn sids(&self) -> Vec<Sid> {
        self.participants.keys().cloned().collect()
    }

    pub(crate) fn info_of(&self, identity: &str) -> Option<ParticipantInfo> {
        let sid = self.of_identity(identity)?;
        Some(self.participants.get(&sid)?.info())
    }

    pub(crate) fn mute_published(
        &mut self,
        now: Now,
        request: &MuteRoomTrackRequest,
        out: &mut Outputs,
    ) -> Result<MuteRoomTrackResponse, Fault> {
        let sid = self
            .of_identity(&request.identity)
            .ok_or_else(Fault::nobody)?;
        let participant = self.participants.get_mut(&sid).ok_or_else(Fault::nobody)?;
        if participant.is_ingress() {
            let reason = "a stream of this server is muted where it is made";
            return Err(Fault::new(412, "failed_precondition", reason));
        }
        let connection = participant.connection;
        let no_track = || Fault::new(404, "not_found", "track does not exist");
        let track = participant.track(&request.track_sid).ok_or_else(no_track)?;
        if !request.muted && track.info().muted {
            // Nobody's microphone is opened by others.
            return Err(Fault::new(
                412,
                "failed_precondition",
                "remote unmute not enabled",
            ));
        }
        let is_new = track.set_muted(now, request.muted);
        let info = track.info().clone();
        if is_new {
            participant.changed();
            let mute = MuteTrackRequest {
                sid: request.track_sid.clone(),
                muted: request.muted,
            };
            say(connection, Message::Mute(mute), out);
            self.note(now, &sid);
            self.is_order_stale = true;
            self.settle(now, out);
        }
        Ok(MuteRoomTrackResponse { track: Some(info) })
    }

    pub(crate) fn update_participant(
        &mut self,
        now: Now,
        request: UpdateParticipantRequest,
        out: &mut Outputs,
    ) -> Result<ParticipantInfo, Fault> {
        let limits = self.config.limits;
        let sid = self
            .of_identity(&request.identity)
            .ok_or_else(Fault::nobody)?;
        let participant = self.participants.get_mut(&sid).ok_or_else(Fault::nobody)?;
        let mut attributes = participant.attributes.clone();
        for (key, value) in request.attributes {
            match value.is_empty() {
                true => _ = attributes.remove(&key),
                false => _ = attributes.insert(key, value),
            }
        }
        for (what, size, limit) in [
            ("metadata", request.metadata.len(), limits.metadata),
            ("attributes", claims::size(&attributes), limits.metadata),
            ("name", request.name.len(), limits.name),
        ] {
            if size > limit {
                return Err(Fault::too_large(what, limit));
            }
        }
        participant.attributes = attributes;
        if !request.metadata.is_empty() {
            participant.metadata = request.metadata;
        }
        if !request.name.is_empty() {
            participant.name = request.name;
        }
        participant.changed();
        if let Some(permission) = request.permission {
            self.permit(now, &sid, permission, out);
        }
        self.note(now, &sid);
        self.settle(now, out);
        self.info_of(&request.identity).ok_or_else(Fault::nobody)
    }

    /// Somebody may do something else from now on.
    fn permit(
        &mut self,
        now: Now,
        sid: &Sid,
        mut permission: ParticipantPermission,
        out: &mut Outputs,
    ) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        permission.can_publish_sources.truncate(8);
        let could_subscribe = participant.permission.can_subscribe;
        let can_subscribe = permission.can_subscribe;
        participant.permission = permission;
        let connection = participant.connection;
        let tracks = std::mem::take(&mut participant.tracks);
        let (kept, revoked): (Vec<_>, Vec<_>) = tracks
            .into_iter()
            .partition(|track| participant.may_publish(track.info().source()));
        participant.tracks = kept;
        if revoked.iter().any(|track| track.live) {
            participant.revoke.get_or_insert(now.at + REVOKE);
        }
        let theirs: Vec<_> = participant.subscriptions.keys().cloned().collect();
        for track in revoked {
            self.publishers.remove(&track.sid);
            if track.live {
                let ended = vec![track.info().clone()];
                self.tell_of_tracks(now, sid, &[], ended, out);
            }
            self.unsubscribe_all(now, &track.sid);
            let track_sid = String::from(&track.sid);
            let gone = TrackUnpublishedResponse { track_sid };
            say(connection, Message::TrackUnpublished(gone), out);
        }
        match (could_subscribe, can_subscribe) {
            (true, false) => {
                for track in theirs {
                    self.unsubscribe(now, sid, track.as_str());
                }
            }
            (false, true) => self.subscribe_to_all(now, sid, out),
            _ => {}
        }
        self.permit_data(now, sid, out);
        // By its old token it would come back with what it may not do any more.
        out.extend(connection.map(Output::Refresh));
        self.tell_room_in(now, Duration::ZERO);
    }

    pub(crate) fn update_subscriptions(
        &mut self,
        now: Now,
        request: UpdateSubscriptionsRequest,
        out: &mut Outputs,
    ) -> Result<UpdateSubscriptionsResponse, Fault> {
        let sid = self
            .of_identity(&request.identity)
            .ok_or_else(Fault::nobody)?;
        let asked = UpdateSubscription {
            track_sids: request.track_sids,
            subscribe: request.subscribe,
            participant_tracks: request.participant_tracks,
        };
        self.subscription(now, &sid, asked, out);
        self.settle(now, out);
        Ok(UpdateSubscriptionsResponse {})
    }

    pub(crate) fn send_data(
        &mut self,
        request: SendDataRequest,
        out: &mut Outputs,
    ) -> Result<SendDataResponse, Fault> {
        let limit = self.config.limits.message;
        if request.data.len() > limit {
            return Err(Fault::too_large("data", limit));
        }
        let reliable = request.kind() == Kind::Reliable;
        let (to, to_sids) = (request.destination_identities, request.destination_sids);
        let packet = DataPacket {
            kind: request.kind,
            destination_identities: to.clone(),
            value: Some(Value::User(UserPacket {
                payload: request.data,
                topic: request.topic,
                nonce: request.nonce,
                destination_identities: to.clone(),
                destination_sids: to_sids.clone(),
                ..UserPacket::default()
            })),
            ..DataPacket::default()
        };
        let packet: Arc<[u8]> = packet.encode_to_vec().into();
        for other in self.participants.values() {
            let is_meant = to.is_empty() && to_sids.is_empty()
                || to.contains(&other.identity)
                || to_sids.iter().any(|sid| sid == other.sid.as_str());
            if is_meant && other.state == State::Active {
                out.push_back(deliver(&other.sid, reliable, &packet));
            }
        }
        Ok(SendDataResponse {})
    }

    pub(crate) fn update_metadata_of_room(
        &mut self,
        metadata: String,
        out: &mut Outputs,
    ) -> Result<livekit_protocol::Room, Fault> {
        let limit = self.config.limits.metadata;
        if metadata.len() > limit {
            return Err(Fault::too_large("metadata", limit));
        }
        self.metadata = metadata;
        self.tell_room_now(out);
        Ok(self.info())
    }
}
