// SPDX-License-Identifier: MPL-2.0

//! What clients ask for: part of [`Room`].

use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::simulate_scenario::Scenario;
use livekit_protocol::{
    AddTrackRequest, DisconnectReason, MuteTrackRequest, Pong, RequestResponse, SessionDescription,
    SignalTarget, TrackPublishedResponse, TrackType, UpdateParticipantMetadata, UpdateSubscription,
    UpdateTrackSettings, VideoLayer,
};

use super::allowed::Allowed;
use super::track::{Sends, Track};
use super::{Outputs, Room, say};
use crate::claims;
use crate::media::{Command, Wish};
use crate::rooms::{Now, Output};
use crate::sid::Sid;

/// Codecs of a track, and layers of a codec.
const CODECS: usize = 4;
const LAYERS: usize = 8;
/// Layers of all that a participant publishes, a sound being one: the engine takes no offer of more.
const LAYERS_IN_ALL: usize = 32;
/// Octets of a layer's name.
const RID: usize = 16;

/// Others are told of these.
fn bound(layers: &mut Vec<VideoLayer>) {
    layers.truncate(LAYERS);
    for layer in layers {
        layer.rid.truncate(layer.rid.floor_char_boundary(RID));
    }
}

/// Whether a name, metadata or attributes are, in LiveKit's words: clients' errors have them.
fn too_large(sizes: [(usize, usize); 3], has_room: bool) -> (Reason, &'static str) {
    let words = [
        "exceeds name length limit",
        "exceeds metadata size limit",
        "exceeds attributes size limit",
    ];
    let mut all = sizes.into_iter().zip(words);
    match all.find(|((size, limit), _)| size > limit) {
        Some((_, words)) => (Reason::LimitExceeded, words),
        None if !has_room => (
            Reason::LimitExceeded,
            "exceeds the room's limit of metadata",
        ),
        None => (Reason::Ok, ""),
    }
}

impl Room {
    /// Somebody says something. Returns why it has to go, if it has.
    pub(crate) fn receive(
        &mut self,
        now: Now,
        sid: &Sid,
        asked: Asked,
        out: &mut Outputs,
    ) -> Option<DisconnectReason> {
        let participant = self.participants.get_mut(sid)?;
        participant.heard = now.at;
        participant.said = now.at;
        match asked {
            Asked::Leave(_) => return Some(DisconnectReason::ClientInitiated),
            Asked::Simulate(simulate) => return self.simulate(sid, simulate.scenario, out),
            Asked::Ping(_) => {
                let time = now.unix().as_millis() as i64;
                say(participant.connection, Message::Pong(time), out);
            }
            Asked::PingReq(ping) => {
                let pong = Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: now.unix().as_millis() as i64,
                };
                say(participant.connection, Message::PongResp(pong), out);
            }
            Asked::AddTrack(add) => self.add_track(now, sid, add, out),
            Asked::Offer(offer) => self.offered(sid, offer, out),
            Asked::Answer(answer) => self.answered(sid, answer, out),
            Asked::Trickle(trickle) => {
                let publisher = trickle.target() == SignalTarget::Publisher;
                out.push_back(Output::Media(Command::Trickle {
                    participant: sid.clone(),
                    publisher,
                    candidate: trickle.candidate_init,
                }));
            }
            Asked::Mute(mute) => self.mute(now, sid, &mute),
            Asked::Subscription(subscription) => self.subscription(now, sid, subscription, out),
            Asked::TrackSetting(setting) => self.track_setting(sid, &setting),
            Asked::SubscriptionPermission(allows) => {
                let allowed = Allowed::new(allows, &self.config.limits);
                let before = participant.set_allowed(allowed);
                self.allow(now, sid, &before, out);
            }
            Asked::UpdateMetadata(update) => self.update_metadata(now, sid, update, out),
            Asked::UpdateLayers(update) => {
                let mut layers = update.layers;
                bound(&mut layers);
                self.change(now, sid, &update.track_sid, |track| {
                    track.set_layers(now, layers);
                });
            }
            Asked::UpdateAudioTrack(update) => {
                let features = update.features.into_iter().take(16).collect();
                self.change(now, sid, &update.track_sid, |t| {
                    t.set_audio_features(now, features);
                });
            }
            Asked::UpdateVideoTrack(update) => {
                let (width, height) = (update.width, update.height);
                self.change(now, sid, &update.track_sid, |t| {
                    t.set_size(now, width, height);
                });
            }
            Asked::SyncState(state) => {
                // What it wants, from before its connection broke.
                if let Some(subscription) = state.subscription {
                    self.subscription(now, sid, subscription, out);
                }
                if let Some(subscription) = state.data_subscription {
                    self.data_subscription(sid, &subscription);
                }
                self.compare_data_tracks(sid, state.publish_data_tracks, out);
            }
            Asked::PublishDataTrackRequest(request) => {
                self.publish_data_track(now, sid, request, out);
            }
            Asked::UnpublishDataTrackRequest(request) => {
                self.unpublish_data_track(now, sid, request, out);
            }
            Asked::UpdateDataSubscription(asked) => self.data_subscription(sid, &asked),
            Asked::StoreDataBlobRequest(request) => {
                let id = request.request_id;
                self.refuse(sid, id, Reason::UnsupportedType, None, out);
            }
            Asked::GetDataBlobRequest(request) => {
                let id = request.request_id;
                self.refuse(sid, id, Reason::UnsupportedType, None, out);
            }
        }
        self.settle(now, out);
        None
    }

    /// A request that is not done, and why.
    fn refuse(
        &self,
        sid: &Sid,
        request_id: u32,
        reason: Reason,
        request: Option<Request>,
        out: &mut Outputs,
    ) {
        self.respond(sid, request_id, (reason, ""), request, out);
    }

    fn respond(
        &self,
        sid: &Sid,
        request_id: u32,
        (reason, words): (Reason, &str),
        request: Option<Request>,
        out: &mut Outputs,
    ) {
        let connection = self.participants.get(sid).and_then(|p| p.connection);
        let response = RequestResponse {
            request_id,
            reason: reason.into(),
            message: words.to_owned(),
            request,
        };
        say(connection, Message::RequestResponse(response), out);
    }

    pub(super) fn add_track(
        &mut self,
        now: Now,
        sid: &Sid,
        mut add: AddTrackRequest,
        out: &mut Outputs,
    ) {
        let limits = self.config.limits;
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        bound(&mut add.layers);
        add.simulcast_codecs.truncate(CODECS);
        for codec in &mut add.simulcast_codecs {
            bound(&mut codec.layers);
        }
        // What is taken here is not to be refused as an offer, which would put the participant out.
        let mut known = participant.tracks.iter();
        let known = known.find(|track| track.sid.as_str() == add.sid);
        let more = known.map_or_else(|| Sends::announced(&add), |track| track.sends_more(&add));
        let all = participant.tracks.iter().map(Track::sends);
        let all = all.fold(more, Sends::and);
        let texts = [&add.cid, &add.name, &add.stream, &add.sid];
        let is_too_much = all.lines > limits.tracks || all.layers > LAYERS_IN_ALL;
        let refusal = if !participant.may_publish(add.source()) {
            Some(Reason::NotAllowed)
        } else if add.r#type() == TrackType::Data {
            Some(Reason::UnsupportedType)
        } else if is_too_much && more != Sends::default() {
            Some(Reason::LimitExceeded)
        } else if add.cid.is_empty() || texts.iter().any(|text| text.len() > limits.name) {
            Some(Reason::InvalidRequest)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.refuse(sid, 0, reason, Some(Request::AddTrack(add)), out);
        }
        add.audio_features.truncate(16);
        add.packet_trailer_features.truncate(16);
        for codec in &mut add.simulcast_codecs {
            codec
                .codec
                .truncate(32.min(codec.codec.floor_char_boundary(32)));
            codec
                .cid
                .truncate(codec.cid.floor_char_boundary(limits.name));
        }
        let connection = participant.connection;
        let known = match add.sid.is_empty() {
            true => None,
            false => participant.track(&add.sid),
        };
        let track = match known {
            Some(track) => {
                track.add_codecs(now, &add, CODECS);
                track.info().clone()
            }
            None => {
                let track = Track::announced(now, &add);
                let info = track.info().clone();
                self.publishers.insert(track.sid.clone(), sid.clone());
                participant.tracks.push(track);
                info
            }
        };
        let published = TrackPublishedResponse {
            cid: add.cid,
            track: Some(track),
        };
        say(connection, Message::TrackPublished(published), out);
    }

    /// What it publishes, and by v1 the m-lines that it has for what it gets.
    pub(super) fn offered(&mut self, sid: &Sid, offer: SessionDescription, out: &mut Outputs) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        participant.answering = Some(offer.id);
        let expected = participant.tracks.iter().map(Track::expected).collect();
        let participant_sid = sid.clone();
        let command = match participant.offering.wanted() {
            Some(wanted) => Command::Converse {
                participant: participant_sid,
                offer,
                expected,
                wanted,
            },
            None => Command::Answer {
                participant: participant_sid,
                offer,
                expected,
            },
        };
        out.push_back(Output::Media(command));
    }

    /// The answer to what it gets.
    fn answered(&mut self, sid: &Sid, answer: SessionDescription, out: &mut Outputs) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        if !participant.offering.answered(answer.id) {
            return;
        }
        out.push_back(Output::Media(Command::Accept {
            participant: sid.clone(),
            answer,
        }));
        self.carried(sid, out);
    }

    fn mute(&mut self, now: Now, sid: &Sid, mute: &MuteTrackRequest) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        let track = participant.track(&mute.sid);
        if track.is_some_and(|track| track.set_muted(now, mute.muted)) {
            participant.changed();
            self.note(now, sid);
            self.is_order_stale = true;
        }
    }

    /// Something of a track of its own has changed.
    fn change(&mut self, now: Now, sid: &Sid, track: &str, change: impl FnOnce(&mut Track)) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        if let Some(track) = participant.track(track) {
            change(track);
            participant.changed();
            self.note(now, sid);
        }
    }

    pub(super) fn subscription(
        &mut self,
        now: Now,
        sid: &Sid,
        asked: UpdateSubscription,
        out: &mut Outputs,
    ) {
        let mut tracks = asked.track_sids;
        tracks.extend(
            asked
                .participant_tracks
                .into_iter()
                .flat_map(|p| p.track_sids),
        );
        tracks.sort();
        tracks.dedup();
        for track in tracks {
            match asked.subscribe {
                true => {
                    self.ask_for(sid, &track);
                    self.subscribe(now, sid, &track, out);
                }
                false => {
                    self.decline(sid, &track);
                    self.unsubscribe(now, sid, &track);
                }
            }
        }
    }

    fn track_setting(&mut self, sid: &Sid, setting: &UpdateTrackSettings) {
        for asked in &setting.track_sids {
            let known = self.publisher_of(asked);
            let Some(track) = known.and_then(|p| p.tracks.iter().find(|t| t.sid.as_str() == asked))
            else {
                continue;
            };
            let height = match setting.width.min(setting.height) {
                0 => track.height_of(setting.quality()),
                // Pictures may stand upright.
                lines => lines,
            };
            let wish = Wish {
                shown: !setting.disabled,
                height,
                fps: setting.fps,
                priority: setting.priority,
            };
            let Some(subscriber) = self.participants.get_mut(sid) else {
                return;
            };
            let Some(subscription) = subscriber.subscriptions.get_mut(asked.as_str()) else {
                continue;
            };
            subscription.wish = wish;
            subscription.on_screen = setting.width.min(setting.height) > 0;
            self.to_choose.insert(sid.clone());
        }
    }

    fn update_metadata(
        &mut self,
        now: Now,
        sid: &Sid,
        update: UpdateParticipantMetadata,
        out: &mut Outputs,
    ) {
        let limits = self.config.limits;
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        let id = update.request_id;
        let mut attributes = participant.attributes.clone();
        for (key, value) in &update.attributes {
            match value.is_empty() {
                true => _ = attributes.remove(key),
                false => _ = attributes.insert(key.clone(), value.clone()),
            }
        }
        let metadata = match update.metadata.is_empty() {
            true => participant.metadata.len(),
            false => update.metadata.len(),
        };
        let texts = metadata + claims::size(&attributes) + participant.texts_of_data_tracks();
        let identity = participant.identity.clone();
        let has_room = self.has_room_for(texts, &identity);
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        let sizes = [
            (update.name.len(), limits.name),
            (update.metadata.len(), limits.metadata),
            (claims::size(&attributes), limits.metadata),
        ];
        let (reason, words) = match participant.permission.can_update_metadata {
            true => too_large(sizes, has_room),
            false => {
                let words = "does not have permission to update own metadata";
                (Reason::NotAllowed, words)
            }
        };
        if reason == Reason::Ok {
            if !update.metadata.is_empty() {
                participant.metadata.clone_from(&update.metadata);
            }
            if !update.name.is_empty() {
                participant.name.clone_from(&update.name);
            }
            participant.attributes = attributes;
            participant.changed();
            self.note(now, sid);
        }
        let request = (reason != Reason::Ok).then_some(Request::UpdateMetadata(update));
        self.respond(sid, id, (reason, words), request, out);
    }

    /// What clients' own tests ask for.
    fn simulate(
        &mut self,
        sid: &Sid,
        scenario: Option<Scenario>,
        out: &mut Outputs,
    ) -> Option<DisconnectReason> {
        let connection = self.participants.get(sid)?.connection?;
        match scenario? {
            Scenario::ServerLeave(true) => return Some(DisconnectReason::ServerShutdown),
            Scenario::LeaveRequestFullReconnect(true) | Scenario::NodeFailure(true) => {
                return Some(DisconnectReason::MediaFailure);
            }
            Scenario::DisconnectSignalOnResume(true)
            | Scenario::DisconnectSignalOnResumeNoMessages(true)
            | Scenario::Migration(true) => out.push_back(Output::Close(connection)),
            _ => {}
        }
        None
    }
}
