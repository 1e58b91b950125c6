// SPDX-License-Identifier: MPL-2.0

//! Who gets which track: part of [`Room`].

use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    StreamStateUpdate, SubscriptionPermissionUpdate, TrackSubscribed, TrackType, VideoQuality,
};

use super::allowed::Allowed;
use super::demand::{self, Wanted};
use super::forwarded::stream_state;
use super::participant::{Participant, Subscription};
use super::{Outputs, Room, say};
use crate::media::Found;
use crate::rooms::Now;
use crate::sid::Sid;

impl Room {
    /// The tracks in a publisher's offer, as it was answered.
    pub(super) fn published(&mut self, now: Now, sid: &Sid, found: &[Found], out: &mut Outputs) {
        let Some(publisher) = self.participants.get_mut(sid) else {
            return;
        };
        let (mut is_new, mut live, mut gone) = (false, Vec::new(), Vec::new());
        let mut ended = Vec::new();
        let was_publisher = publisher.is_publisher();
        for track in found {
            if let Some(known) = publisher.track(track.track.as_str()) {
                let was_live = known.live;
                is_new |= known.found(now, track);
                if !was_live {
                    live.push(known.sid.clone());
                }
            }
        }
        publisher.tracks.retain(|track| {
            let is_there = !track.live || found.iter().any(|f| f.track == track.sid);
            if !is_there {
                gone.push(track.sid.clone());
                ended.push(track.info().clone());
            }
            is_there
        });
        if !is_new && gone.is_empty() {
            return;
        }
        publisher.changed();
        if publisher.is_publisher() != was_publisher {
            self.tell_room_in(now, std::time::Duration::ZERO);
        }
        for track in &gone {
            self.publishers.remove(track);
            self.unsubscribe_all(now, track);
        }
        self.note(now, sid);
        self.tell_of_tracks(now, sid, &live, ended, out);
        let all: Vec<_> = self.participants.keys().cloned().collect();
        for track in live {
            for subscriber in &all {
                let known = self.participants.get(subscriber);
                if known.is_some_and(|p| p.wants(&track)) {
                    self.subscribe(now, subscriber, track.as_str(), out);
                }
            }
        }
    }

    /// Who joins, or may subscribe again, gets all that there is and it wants.
    pub(super) fn subscribe_to_all(&mut self, now: Now, sid: &Sid, out: &mut Outputs) {
        let Some(subscriber) = self.participants.get(sid) else {
            return;
        };
        let tracks = self.participants.values().flat_map(|p| &p.tracks);
        let wanted = tracks.filter(|t| t.live && subscriber.wants(&t.sid));
        let all = wanted.map(|track| (track.kind() != TrackType::Audio, track.sid.clone()));
        let mut all: Vec<_> = all.collect();
        // Where there is no room for all, it is better to hear somebody than to see somebody else.
        all.sort_by_key(|(is_picture, _)| *is_picture);
        for (_, track) in all {
            self.subscribe(now, sid, track.as_str(), out);
        }
    }

    /// The publisher of a track.
    pub(super) fn publisher_of(&self, track: &str) -> Option<&Participant> {
        self.participants.get(self.publishers.get(track)?)
    }

    /// From now on somebody gets a track, if it may, and is told whether the publisher lets it.
    pub(super) fn subscribe(&mut self, now: Now, sid: &Sid, track: &str, out: &mut Outputs) {
        self.subscribe_to(now, sid, track, false, out);
    }

    /// The same, of what it may have been told already.
    fn subscribe_to(&mut self, now: Now, sid: &Sid, track: &str, is_told: bool, out: &mut Outputs) {
        let Some(publisher) = self.publisher_of(track) else {
            return;
        };
        let known = publisher.tracks.iter().find(|t| t.sid.as_str() == track);
        let Some(known) = known.filter(|track| track.live) else {
            return;
        };
        let Some(subscriber) = self.participants.get(sid) else {
            return;
        };
        if publisher.sid == *sid
            || !subscriber.permission.can_subscribe
            || subscriber.subscriptions.contains_key(track)
            || subscriber.waiting.contains(track)
        {
            return;
        }
        let allowed = publisher.allows(subscriber, &known.sid);
        let most = self.config.limits.offered;
        let has_room = subscriber.offering.has_room(known.kind(), most);
        let update = permission_update(&publisher.sid, &known.sid, allowed);
        if (has_room || !allowed) && !is_told {
            say(subscriber.connection, update, out);
        }
        let (publisher, kind, track) = (publisher.sid.clone(), known.kind(), known.sid.clone());
        if let Some(subscriber) = self.participants.get_mut(sid).filter(|_| allowed) {
            if !has_room {
                // More would be much to go through each time.
                match subscriber.waiting.len() < most {
                    true => _ = subscriber.waiting.insert(track),
                    false => subscriber.forgot = true,
                }
                return;
            }
            let subscription = Subscription::default();
            subscriber.subscriptions.insert(track.clone(), subscription);
            subscriber.offering.add(now.at, kind, track, publisher);
            self.to_choose.insert(sid.clone());
        }
    }

    /// Somebody asks for a track, which it may not be let have just now.
    pub(super) fn ask_for(&mut self, sid: &Sid, track: &str) {
        let publisher = self.publisher_of(track);
        let known = publisher.and_then(|p| p.tracks.iter().find(|t| t.sid.as_str() == track));
        let known = known.map(|track| track.sid.clone());
        let Some(subscriber) = self.participants.get_mut(sid) else {
            return;
        };
        subscriber.declined.remove(track);
        if !subscriber.hello.auto_subscribe {
            subscriber.asked_for.extend(known);
        }
    }

    /// Somebody does not want a track that it would get. Nobody gets a data track so, and nothing would take it out when it ends.
    pub(super) fn decline(&mut self, sid: &Sid, track: &str) {
        let publisher = self.publisher_of(track);
        let known = publisher.and_then(|p| p.tracks.iter().find(|t| t.sid.as_str() == track));
        let Some(track) = known.map(|track| track.sid.clone()) else {
            return;
        };
        let Some(subscriber) = self.participants.get_mut(sid) else {
            return;
        };
        match subscriber.hello.auto_subscribe {
            true => _ = subscriber.declined.insert(track),
            false => _ = subscriber.asked_for.remove(&track),
        }
    }

    pub(super) fn unsubscribe(&mut self, now: Now, sid: &Sid, track: &str) {
        let Some(subscriber) = self.participants.get_mut(sid) else {
            return;
        };
        subscriber.waiting.remove(track);
        if let Some((track, _)) = subscriber.subscriptions.remove_entry(track) {
            subscriber.offering.remove(now.at, &track);
            self.to_stop.push((sid.clone(), track));
            self.to_choose.insert(sid.clone());
        }
    }

    /// Who had no m-line for all that it wanted gets more of it where some have become free.
    pub(super) fn subscribe_who_waits(&mut self, now: Now, out: &mut Outputs) {
        let freed = |(sid, p): (&Sid, &mut Participant)| {
            let waits = p.forgot || !p.waiting.is_empty();
            let is_due = p.offering.take_freed() && waits;
            is_due.then(|| (sid.clone(), std::mem::take(&mut p.waiting)))
        };
        let all = self.participants.iter_mut();
        let due: Vec<_> = all.filter_map(freed).collect();
        for (subscriber, tracks) in due {
            let is_picture = |track: &Sid| {
                let publisher = self.publisher_of(track.as_str());
                let known = publisher.and_then(|p| p.tracks.iter().find(|t| t.sid == *track));
                known.is_some_and(|track| track.kind() != TrackType::Audio)
            };
            let (pictures, sounds): (Vec<_>, Vec<_>) = tracks.into_iter().partition(is_picture);
            for tracks in [sounds, pictures] {
                self.subscribe_while_room(now, &subscriber, tracks, out);
            }
            let all_have_one = |p: &&mut Participant| p.waiting.is_empty();
            let known = self.participants.get_mut(&subscriber).filter(all_have_one);
            if known.is_some_and(|p| std::mem::take(&mut p.forgot)) {
                self.subscribe_to_all(now, &subscriber, out);
            }
        }
    }

    /// The same, of tracks of one kind: where there is no room for one there is none for those after it, which are not looked at.
    fn subscribe_while_room(&mut self, now: Now, sid: &Sid, tracks: Vec<Sid>, out: &mut Outputs) {
        let mut tracks = tracks.into_iter();
        while let Some(track) = tracks.next() {
            self.subscribe(now, sid, track.as_str(), out);
            let subscriber = self.participants.get_mut(sid);
            if let Some(subscriber) = subscriber.filter(|s| s.waiting.contains(&track)) {
                subscriber.waiting.extend(tracks);
                return;
            }
        }
    }

    /// A track is gone, for whoever had it.
    pub(super) fn unsubscribe_all(&mut self, now: Now, track: &Sid) {
        let all: Vec<_> = self.participants.keys().cloned().collect();
        for subscriber in all {
            self.unsubscribe(now, &subscriber, track.as_str());
            if let Some(subscriber) = self.participants.get_mut(&subscriber) {
                subscriber.declined.remove(track);
                subscriber.asked_for.remove(track);
            }
        }
    }

    /// A publisher said who may have its tracks: who may not any more loses them, and who may now is told. Clients say the same again
    /// whenever they come back, which is no change: who has given a track up by itself does not get it by that.
    pub(super) fn allow(&mut self, now: Now, sid: &Sid, before: &Allowed, out: &mut Outputs) {
        let Some(publisher) = self.participants.get(sid) else {
            return;
        };
        let live = publisher.tracks.iter().filter(|track| track.live);
        let tracks: Vec<_> = live.map(|track| track.sid.clone()).collect();
        let others: Vec<_> = self
            .participants
            .keys()
            .filter(|s| *s != sid)
            .cloned()
            .collect();
        for track in &tracks {
            for other in &others {
                let (Some(publisher), Some(subscriber)) =
                    (self.participants.get(sid), self.participants.get(other))
                else {
                    continue;
                };
                let allowed = publisher.allows(subscriber, track);
                if allowed == subscriber.is_in(before, track) {
                    continue;
                }
                let has = subscriber.subscriptions.contains_key(track)
                    || subscriber.waiting.contains(track);
                let wants = subscriber.wants(track);
                // Who had it and may again is to know, whether it gets it by itself or not.
                if allowed || has {
                    let update = permission_update(sid, track, allowed);
                    say(subscriber.connection, update, out);
                }
                match allowed {
                    true if wants => self.subscribe_to(now, other, track.as_str(), true, out),
                    true => {}
                    false => self.unsubscribe(now, other, track.as_str()),
                }
            }
        }
    }

    /// The offer of what somebody gets was answered: what is new in it is told to both sides.
    pub(super) fn carried(&mut self, sid: &Sid, out: &mut Outputs) {
        let Some(subscriber) = self.participants.get_mut(sid) else {
            return;
        };
        let mut new = Vec::new();
        for (track, publisher) in subscriber.offering.carried() {
            if let Some(subscription) = subscriber.subscriptions.get_mut(track)
                && !std::mem::replace(&mut subscription.told, true)
            {
                subscription.paused = subscription.is_paused();
                new.push((track.clone(), publisher.clone(), subscription.paused));
            }
        }
        if new.is_empty() {
            return;
        }
        // Of those whom it now gets something of.
        subscriber.quality.knows = false;
        let connection = subscriber.connection;
        // By v1 that it comes is what is not told.
        let by_v1 = subscriber.hello.v1.is_some();
        let told = new.iter().filter(|(.., paused)| *paused || !by_v1);
        let states = told.map(|(track, publisher, paused)| stream_state(publisher, track, *paused));
        let states = StreamStateUpdate {
            stream_states: states.collect(),
        };
        if !states.stream_states.is_empty() {
            say(connection, Message::StreamStateUpdate(states), out);
        }
        for (track, publisher, _) in new {
            let publisher = self.participants.get_mut(&publisher);
            let Some(publisher) = publisher else {
                continue;
            };
            let connection = publisher.connection;
            if let Some(known) = publisher.track(track.as_str())
                && !std::mem::replace(&mut known.subscribed, true)
            {
                let track_sid = String::from(&track);
                let told = Message::TrackSubscribed(TrackSubscribed { track_sid });
                say(connection, told, out);
            }
        }
    }

    /// Tells publishers which layers somebody wants. Returns how many subscriptions were looked at.
    pub(super) fn ask_for_layers(&mut self, now: Now, out: &mut Outputs) -> u32 {
        let mut looked_at = 0;
        let mut wanted = std::collections::BTreeMap::<Sid, Wanted>::new();
        for subscriber in self.participants.values() {
            looked_at += subscriber.subscriptions.len() as u32;
            let shown = subscriber.subscriptions.iter();
            for (sid, subscription) in shown.filter(|(_, s)| s.told && s.wish.shown) {
                let Some(track) = self
                    .publisher_of(sid.as_str())
                    .and_then(|p| p.tracks.iter().find(|track| track.sid == *sid))
                else {
                    continue;
                };
                let quality = match subscription.outside {
                    // So that there is something to show at once when it is to be shown.
                    true => VideoQuality::Low,
                    false => track.quality_of(subscription.wish.height),
                };
                let codec = track.codec_for(&subscriber.shows);
                wanted.entry(sid.clone()).or_default().add(codec, quality);
            }
        }
        for publisher in self.participants.values_mut() {
            let connection = publisher.connection;
            let video = TrackType::Video;
            let pictures = publisher
                .tracks
                .iter_mut()
                .filter(|t| t.live && t.kind() == video);
            for track in pictures {
                let wanted = wanted.remove(&track.sid).unwrap_or_default();
                let codecs = track.info().codecs.len();
                if track.demands.want(now.at, codecs, &wanted) {
                    let update = demand::update(track);
                    say(connection, Message::SubscribedQualityUpdate(update), out);
                }
            }
        }
        looked_at
    }
}

fn permission_update(publisher: &Sid, track: &Sid, allowed: bool) -> Message {
    Message::SubscriptionPermissionUpdate(SubscriptionPermissionUpdate {
        participant_sid: String::from(publisher),
        track_sid: String::from(track),
        allowed,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use livekit_protocol::{
        AddTrackRequest, PublishDataTrackRequest, TrackSource, UnpublishDataTrackRequest,
        UpdateSubscription,
    };

    use super::*;
    use crate::{Config, Connection, Hello, Keys, Limits};

    #[test]
    fn what_was_declined_is_kept_until_it_ends_and_of_data_tracks_not_at_all() {
        const NOW: u64 = 1_800_000_000;
        let keys: Keys = "key:secret".parse().unwrap();
        let now = Now {
            at: Instant::now(),
            wall: SystemTime::now(),
        };
        let mut room = Room::new(now, "r".into(), &Config::default());
        let mut out = Outputs::new();
        let [ann, ben] = [1, 2].map(|n: u64| {
            let claims = serde_json::json!({
                "iss": "key", "sub": n.to_string(), "exp": NOW + 60,
                "video": {"roomJoin": true, "room": "r"},
            });
            let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
            let header = jsonwebtoken::Header::default();
            let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            let permit = keys.permit(&token, NOW, &Limits::default()).unwrap();
            let hello = Hello::from_query([]).unwrap();
            room.join(now, Connection(n), permit, hello, &mut out)
        });
        let camera = AddTrackRequest {
            cid: "camera".into(),
            r#type: TrackType::Video.into(),
            source: TrackSource::Camera.into(),
            ..AddTrackRequest::default()
        };
        room.add_track(now, &ann, camera, &mut out);
        let camera = room.participants[&ann].tracks[0].sid.clone();
        let declines = |room: &mut Room, track: &Sid, out: &mut Outputs| {
            let asked = UpdateSubscription {
                track_sids: vec![String::from(track)],
                subscribe: false,
                participant_tracks: Vec::new(),
            };
            room.subscription(now, &ben, asked, out);
        };
        for pub_handle in 1..100 {
            let named = PublishDataTrackRequest {
                pub_handle,
                name: "arm".into(),
                ..PublishDataTrackRequest::default()
            };
            room.publish_data_track(now, &ann, named, &mut out);
            let arm = room.participants[&ann].data_tracks[0].sid.clone();
            declines(&mut room, &arm, &mut out);
            declines(&mut room, &camera, &mut out);
            let end = UnpublishDataTrackRequest { pub_handle };
            room.unpublish_data_track(now, &ann, end, &mut out);
            assert!(room.participants[&ben].declined.iter().eq([&camera]));
        }
        room.unsubscribe_all(now, &camera);
        assert!(room.participants[&ben].declined.is_empty());
    }
}
