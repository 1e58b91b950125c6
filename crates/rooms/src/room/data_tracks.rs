// SPDX-License-Identifier: MPL-2.0

//! Who publishes and gets which data track, and where datagrams go: part of [`Room`].

use livekit_protocol::data_track_subscriber_handles::PublishedDataTrack;
use livekit_protocol::participant_info::State;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DataTrackInfo, DataTrackSubscriberHandles, PublishDataTrackRequest, PublishDataTrackResponse,
    RequestResponse, UnpublishDataTrackRequest, UnpublishDataTrackResponse, UpdateDataSubscription,
};
use prost::Message as _;

use super::data_track::{self, DataTrack, Refusal};
use super::{Outputs, Participant, Room, TELL, TELL_OCTET, TOLD_AT_ONCE, say};
use crate::media::Command;
use crate::rooms::{Now, Output};
use crate::sid::Sid;

impl Room {
    pub(super) fn publish_data_track(
        &mut self,
        now: Now,
        sid: &Sid,
        request: PublishDataTrackRequest,
        out: &mut Outputs,
    ) {
        if let Err(refusal) = self.check_data_track(sid, &request) {
            let request = Request::PublishDataTrack(request);
            return self.refuse_data_track(sid, refusal, request, out);
        }
        let Some(handle) = self.handles.take() else {
            let refusal = (Reason::LimitExceeded, "the room has too many data tracks");
            let request = Request::PublishDataTrack(request);
            return self.refuse_data_track(sid, refusal, request, out);
        };
        let Some(publisher) = self.participants.get_mut(sid) else {
            return self.handles.give_back(handle);
        };
        let track = DataTrack::new(request, handle);
        let response = PublishDataTrackResponse {
            info: Some(track.info().clone()),
        };
        let response = Message::PublishDataTrackResponse(response);
        say(publisher.connection, response, out);
        let (track_sid, is_hidden) = (track.sid.clone(), publisher.permission.hidden);
        let was_publisher = publisher.is_publisher();
        publisher.data_tracks.push(track);
        self.publishers.insert(track_sid.clone(), sid.clone());
        self.data_tracks_changed(now, sid, was_publisher);
        let wants = |p: &&Participant| p.hello.auto_subscribe_data && !is_hidden;
        let all = self.participants.values().filter(wants);
        let all: Vec<_> = all.map(|p| p.sid.clone()).collect();
        for subscriber in all {
            self.subscribe_to_data(&subscriber, track_sid.as_str());
        }
    }

    /// Whether somebody may publish that.
    fn check_data_track(
        &self,
        sid: &Sid,
        request: &PublishDataTrackRequest,
    ) -> Result<(), Refusal> {
        let limits = self.config.limits;
        let publisher = self.participants.get(sid);
        let Some(publisher) = publisher.filter(|p| p.permission.can_publish_data) else {
            return Err((Reason::NotAllowed, "the token grants no data"));
        };
        data_track::check(request, limits.name)?;
        let known = || publisher.data_tracks.iter().map(DataTrack::info);
        if known().any(|info| info.pub_handle == request.pub_handle) {
            let why = "another data track has this handle";
            return Err((Reason::DuplicateHandle, why));
        }
        if known().any(|info| info.name == request.name) {
            return Err((Reason::DuplicateName, "another data track has this name"));
        }
        let texts = publisher.texts() + data_track::texts(request);
        if publisher.data_tracks.len() >= limits.data_tracks {
            let why = "a participant has too many data tracks";
            return Err((Reason::LimitExceeded, why));
        }
        if !self.has_room_for(texts, &publisher.identity) {
            let why = "the room's participants have too much metadata";
            return Err((Reason::LimitExceeded, why));
        }
        Ok(())
    }

    fn refuse_data_track(
        &self,
        sid: &Sid,
        (reason, why): Refusal,
        request: Request,
        out: &mut Outputs,
    ) {
        let connection = self.participants.get(sid).and_then(|p| p.connection);
        let response = RequestResponse {
            reason: reason.into(),
            message: why.to_owned(),
            request: Some(request),
            ..RequestResponse::default()
        };
        say(connection, Message::RequestResponse(response), out);
    }

    pub(super) fn unpublish_data_track(
        &mut self,
        now: Now,
        sid: &Sid,
        request: UnpublishDataTrackRequest,
        out: &mut Outputs,
    ) {
        let Some(publisher) = self.participants.get_mut(sid) else {
            return;
        };
        let was_publisher = publisher.is_publisher();
        let mut known = publisher.data_tracks.iter();
        let Some(place) = known.position(|t| t.info().pub_handle == request.pub_handle) else {
            let refusal = (Reason::NotFound, "no data track has this handle");
            let request = Request::UnpublishDataTrack(request);
            return self.refuse_data_track(sid, refusal, request, out);
        };
        let track = publisher.data_tracks.remove(place);
        say(publisher.connection, unpublished(&track), out);
        self.end_data_track(&track);
        self.data_tracks_changed(now, sid, was_publisher);
    }

    /// Others are to be told which data tracks somebody has.
    fn data_tracks_changed(&mut self, now: Now, sid: &Sid, was_publisher: bool) {
        let Some(publisher) = self.participants.get_mut(sid) else {
            return;
        };
        publisher.changed();
        if publisher.is_publisher() != was_publisher {
            self.tell_room_in(now, std::time::Duration::ZERO);
        }
        self.note(now, sid);
    }

    /// A track that is none of its publisher's any more is nobody's.
    pub(super) fn end_data_track(&mut self, track: &DataTrack) {
        self.publishers.remove(&track.sid);
        self.handles.give_back(track.handle);
        for sid in &track.subscribers {
            if let Some(subscriber) = self.participants.get_mut(sid) {
                subscriber.data_subscriptions.remove(&track.sid);
                self.stale_handles.insert(sid.clone());
            }
        }
    }

    /// Somebody has gone.
    pub(super) fn forget_data_of(&mut self, gone: &mut Participant) {
        for track in std::mem::take(&mut gone.data_tracks) {
            self.end_data_track(&track);
        }
        for track in std::mem::take(&mut gone.data_subscriptions) {
            if let Some(track) = self.data_track(track.as_str()) {
                track.subscribers.remove(&gone.sid);
            }
        }
        self.stale_handles.remove(&gone.sid);
    }

    /// Somebody may do something else from now on. What it has subscribed to it gets again when it may.
    pub(super) fn permit_data(&mut self, now: Now, sid: &Sid, out: &mut Outputs) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        if !participant.data_subscriptions.is_empty() {
            self.stale_handles.insert(sid.clone());
        }
        if participant.permission.can_publish_data || participant.data_tracks.is_empty() {
            return;
        }
        let was_publisher = participant.is_publisher();
        let connection = participant.connection;
        for track in std::mem::take(&mut participant.data_tracks) {
            say(connection, unpublished(&track), out);
            self.end_data_track(&track);
        }
        self.data_tracks_changed(now, sid, was_publisher);
    }

    pub(super) fn data_subscription(&mut self, sid: &Sid, asked: &UpdateDataSubscription) {
        let most = self.config.limits.data_subscriptions;
        for update in asked.updates.iter().take(most) {
            match update.subscribe {
                true => self.subscribe_to_data(sid, &update.track_sid),
                false => self.unsubscribe_from_data(sid, &update.track_sid),
            }
        }
    }

    /// Who joins gets all data that there is, where it wants that.
    pub(super) fn subscribe_to_all_data(&mut self, sid: &Sid) {
        let wants = self.participants.get(sid);
        if wants.is_none_or(|p| !p.hello.auto_subscribe_data) {
            return;
        }
        let visible = self.participants.values().filter(|p| !p.permission.hidden);
        let tracks = visible.flat_map(|p| &p.data_tracks);
        let all: Vec<_> = tracks.map(|track| track.sid.clone()).collect();
        for track in all {
            self.subscribe_to_data(sid, track.as_str());
        }
    }

    /// Who asks again is told again.
    fn subscribe_to_data(&mut self, sid: &Sid, track: &str) {
        let most = self.config.limits.data_subscriptions;
        let subscriber = self.participants.get(sid).map(|p| &p.data_subscriptions);
        let has_room = subscriber.is_some_and(|all| all.len() < most || all.contains(track));
        if !has_room || self.publishers.get(track) == Some(sid) {
            return;
        }
        let Some(track) = self.data_track(track) else {
            return;
        };
        track.subscribers.insert(sid.clone());
        let track = track.sid.clone();
        if let Some(subscriber) = self.participants.get_mut(sid) {
            subscriber.data_subscriptions.insert(track);
            self.stale_handles.insert(sid.clone());
        }
    }

    fn unsubscribe_from_data(&mut self, sid: &Sid, track: &str) {
        let Some(subscriber) = self.participants.get_mut(sid) else {
            return;
        };
        if !subscriber.data_subscriptions.remove(track) {
            return;
        }
        self.stale_handles.insert(sid.clone());
        if let Some(track) = self.data_track(track) {
            track.subscribers.remove(sid);
        }
    }

    fn data_track(&mut self, track: &str) -> Option<&mut DataTrack> {
        let publisher = self.participants.get_mut(self.publishers.get(track)?)?;
        let mut tracks = publisher.data_tracks.iter_mut();
        tracks.find(|known| known.sid.as_str() == track)
    }

    /// Tells who is connected by which handles its data tracks go: all of them each time, as LiveKit's server does. Where all were
    /// told much lately it waits, so that many changes become one message. Who is away is told when it is back.
    pub(super) fn tell_handles(&mut self, now: Now, out: &mut Outputs) {
        while self.told <= now.at + TOLD_AT_ONCE
            && let Some(sid) = self.stale_handles.pop_first()
        {
            let subscriber = self.participants.get(&sid);
            let Some(subscriber) = subscriber.filter(|p| p.connection.is_some()) else {
                continue;
            };
            let handles = self.handles_of(subscriber);
            let octets = handles.encoded_len() as u32;
            let handles = Message::DataTrackSubscriberHandles(handles);
            say(subscriber.connection, handles, out);
            self.told = self.told.max(now.at) + TELL + TELL_OCTET * octets;
        }
    }

    fn handles_of(&self, subscriber: &Participant) -> DataTrackSubscriberHandles {
        let may = subscriber.permission.can_subscribe;
        let wanted = subscriber.data_subscriptions.iter().filter(|_| may);
        let handles = wanted.filter_map(|sid| {
            let publisher = self.publisher_of(sid.as_str())?;
            let track = publisher.data_tracks.iter().find(|t| t.sid == *sid)?;
            let published = PublishedDataTrack {
                publisher_identity: publisher.identity.clone(),
                publisher_sid: String::from(&publisher.sid),
                track_sid: String::from(sid),
            };
            Some((u32::from(track.handle), published))
        });
        DataTrackSubscriberHandles {
            sub_handles: handles.collect(),
        }
    }

    /// What somebody who is back takes for published is compared with what is: what it was told may be lost with its connection.
    pub(super) fn compare_data_tracks(
        &self,
        sid: &Sid,
        named: Vec<PublishDataTrackResponse>,
        out: &mut Outputs,
    ) {
        let Some(publisher) = self.participants.get(sid) else {
            return;
        };
        let named = named.into_iter().filter_map(|one| one.info);
        let named: Vec<_> = named.take(self.config.limits.data_tracks).collect();
        for track in &publisher.data_tracks {
            let info = track.info();
            // It may know the handle by what it published before: unpublished and published again, it is another track.
            let is_it = |n: &DataTrackInfo| (n.pub_handle, &n.sid) == (info.pub_handle, &info.sid);
            if !named.iter().any(is_it) {
                let info = Some(info.clone());
                let message = Message::PublishDataTrackResponse(PublishDataTrackResponse { info });
                say(publisher.connection, message, out);
            }
        }
        for info in named {
            let mut known = publisher.data_tracks.iter().map(DataTrack::info);
            if known.all(|known| known.pub_handle != info.pub_handle) {
                let info = Some(info);
                let message =
                    Message::UnpublishDataTrackResponse(UnpublishDataTrackResponse { info });
                say(publisher.connection, message, out);
            }
        }
    }

    /// A datagram of one of somebody's data tracks, for all who have subscribed to that.
    pub(crate) fn datagram(&mut self, now: Now, sid: &Sid, packet: &[u8], out: &mut Outputs) {
        let Some(sender) = self.participants.get_mut(sid) else {
            return;
        };
        sender.heard_of(now);
        let is_too_large = packet.len() > self.config.limits.datagram;
        let Some(sender) = self.participants.get(sid).filter(|_| !is_too_large) else {
            return;
        };
        let handle = data_track::handle_of(packet).map(u32::from);
        let mut tracks = sender.data_tracks.iter();
        let Some(track) = tracks.find(|t| Some(t.info().pub_handle) == handle) else {
            return;
        };
        let subscribers = track.subscribers.iter();
        let mut forwarded = None;
        for subscriber in subscribers.filter_map(|sid| self.participants.get(sid)) {
            if subscriber.state != State::Active || !subscriber.permission.can_subscribe {
                continue;
            }
            let forwarded =
                forwarded.get_or_insert_with(|| data_track::by_handle(packet, track.handle));
            out.push_back(Output::Media(Command::Datagram {
                participant: subscriber.sid.clone(),
                packet: forwarded.clone(),
            }));
        }
    }
}

fn unpublished(track: &DataTrack) -> Message {
    let info = Some(track.info().clone());
    Message::UnpublishDataTrackResponse(UnpublishDataTrackResponse { info })
}
