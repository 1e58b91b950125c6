// SPDX-License-Identifier: MPL-2.0

//! What of the tracks that somebody has subscribed to it gets: the first N of each kind, as far as there is room on the network
//! (part of [`Room`]).
//!
//! All are announced and negotiated. Who is outside costs no packet, and is told as paused; to come in again is a matter of the
//! forwarder alone.

use std::collections::BTreeSet;

use livekit_protocol::signal_response::Message;
use livekit_protocol::{StreamState, StreamStateInfo, StreamStateUpdate, TrackSource, TrackType};

use super::participant::Participant;
use super::{Outputs, Room, say};
use crate::media::{Command, Sound};
use crate::rooms::{Now, Output};
use crate::sid::Sid;

/// As loud as who is heard and does not, or not yet, speak counts.
const LOUD: f32 = 0.02;

impl Room {
    pub(crate) fn heard(&mut self, sid: &Sid, sound: Sound) {
        if !self.participants.contains_key(sid) {
            return;
        }
        if sound.speech > 0.0 {
            self.speakers.heard(sid, sound.speech);
            self.faces.heard(sid, sound.speech);
        }
        // A first syllable is not to be lost, and a cough brings nobody's picture.
        let loud = if sound.loud { LOUD } else { 0.0 };
        self.voices.heard(sid, sound.speech.max(loud));
    }

    /// All have been heard. Returns whether others are forwarded now.
    pub(crate) fn listened(&mut self, now: Now, out: &mut Outputs) -> bool {
        if self.config.last_n == 0 {
            return false;
        }
        let faces = self.faces.rank(now.at);
        let voices = self.voices.rank(now.at);
        let changed = faces || voices || std::mem::take(&mut self.is_order_stale);
        if changed {
            self.choose_for_all();
            self.settle(now, out);
        }
        changed
    }

    pub(crate) fn starved(
        &mut self,
        now: Now,
        sid: &Sid,
        track: &str,
        starved: bool,
        out: &mut Outputs,
    ) {
        let subscriber = self.participants.get_mut(sid);
        let subscription = subscriber.and_then(|s| s.subscriptions.get_mut(track));
        let Some(subscription) = subscription else {
            return;
        };
        if std::mem::replace(&mut subscription.starved, starved) != starved {
            self.to_choose.insert(sid.clone());
            self.settle(now, out);
        }
    }

    pub(super) fn choose_for_all(&mut self) {
        self.to_choose.extend(self.participants.keys().cloned());
    }

    /// Chooses anew where something has changed, and tells what comes of it.
    pub(super) fn choose(&mut self, out: &mut Outputs) {
        let to_choose = std::mem::take(&mut self.to_choose);
        if to_choose.is_empty() {
            return;
        }
        for (participant, track) in std::mem::take(&mut self.to_stop) {
            // Who has gone has ended; it may have been subscribed to again meanwhile.
            let subscriber = self.participants.get(&participant);
            if subscriber.is_some_and(|s| !s.subscriptions.contains_key(&track)) {
                out.push_back(Output::Media(Command::Stop { participant, track }));
            }
        }
        for sid in &to_choose {
            let outside = self.participants.get(sid).map(|p| self.outside(p));
            let Some(subscriber) = self.participants.get_mut(sid) else {
                continue;
            };
            for (track, is_outside) in outside.unwrap_or_default() {
                if let Some(subscription) = subscriber.subscriptions.get_mut(&track) {
                    subscription.outside = is_outside;
                }
            }
            subscriber.ask_media(out);
        }
        self.tell_stream_states(&to_choose, out);
    }

    /// Which of somebody's tracks are outside. What is muted or not wanted stays as it is, and takes nobody's place.
    fn outside(&self, subscriber: &Participant) -> Vec<(Sid, bool)> {
        let n = self.config.last_n;
        if n == 0 || subscriber.subscriptions.len() <= n {
            let all = subscriber.subscriptions.keys();
            return all.map(|track| (track.clone(), false)).collect();
        }
        let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
        for (sid, subscription) in &subscriber.subscriptions {
            let publisher = self.publisher_of(sid.as_str());
            let track = publisher.and_then(|p| p.tracks.iter().find(|track| track.sid == *sid));
            let Some((publisher, track)) = publisher.zip(track) else {
                continue;
            };
            if track.info().muted || !subscription.wish.shown {
                continue;
            }
            let source = track.info().source();
            // Somebody wants it to be seen, whoever speaks.
            let is_shown = publisher.is_ingress()
                || matches!(
                    source,
                    TrackSource::ScreenShare | TrackSource::ScreenShareAudio
                );
            let (ranked, stage, unseen) = match track.kind() {
                TrackType::Audio => (&mut sounds, &self.voices, false),
                TrackType::Video => (&mut pictures, &self.faces, !subscription.on_screen),
                TrackType::Data => continue,
            };
            ranked.push((!is_shown, unseen, stage.place(&publisher.sid), sid));
        }
        let mut outside = Vec::with_capacity(pictures.len() + sounds.len());
        for mut ranked in [pictures, sounds] {
            ranked.sort_unstable();
            let ranked = ranked.into_iter().enumerate();
            outside.extend(ranked.map(|(place, (.., sid))| (sid.clone(), place >= n)));
        }
        outside
    }

    /// Tells some what has paused, and what goes on.
    fn tell_stream_states(&mut self, to: &BTreeSet<Sid>, out: &mut Outputs) {
        let mut changed = Vec::new();
        for sid in to {
            let Some(subscriber) = self.participants.get_mut(sid) else {
                continue;
            };
            for (track, subscription) in &mut subscriber.subscriptions {
                let paused = subscription.is_paused();
                if subscription.told && subscription.wish.shown && subscription.paused != paused {
                    subscription.paused = paused;
                    changed.push((sid, track.clone(), paused));
                }
            }
        }
        if changed.is_empty() {
            return;
        }
        let mut updates = Vec::<(&Sid, StreamStateUpdate)>::new();
        for (sid, track, paused) in changed {
            let Some(publisher) = self.publisher_of(track.as_str()) else {
                continue;
            };
            let state = stream_state(&publisher.sid, &track, paused);
            match updates.last_mut().filter(|(to, _)| *to == sid) {
                Some((_, update)) => update.stream_states.push(state),
                None => {
                    let stream_states = vec![state];
                    updates.push((sid, StreamStateUpdate { stream_states }));
                }
            }
        }
        for (sid, update) in updates {
            let connection = self.participants.get(sid).and_then(|p| p.connection);
            say(connection, Message::StreamStateUpdate(update), out);
        }
    }
}

impl Room {
    /// Who is back is told of all that it gets whether it is paused: what it was told before may be lost with the connection.
    pub(super) fn tell_stream_states_again(&self, sid: &Sid, out: &mut Outputs) {
        let Some(subscriber) = self.participants.get(sid) else {
            return;
        };
        let told = subscriber.subscriptions.iter().filter(|(_, s)| s.told);
        let states = told.filter_map(|(track, subscription)| {
            let publisher = self.publisher_of(track.as_str())?;
            Some(stream_state(&publisher.sid, track, subscription.paused))
        });
        let stream_states: Vec<_> = states.collect();
        if !stream_states.is_empty() {
            let update = StreamStateUpdate { stream_states };
            say(
                subscriber.connection,
                Message::StreamStateUpdate(update),
                out,
            );
        }
    }
}

impl Participant {
    /// Has the media forward what is to be forwarded.
    fn ask_media(&mut self, out: &mut Outputs) {
        for (track, subscription) in &mut self.subscriptions {
            let wish = subscription.effective();
            if subscription.asked.replace(wish) != Some(wish) {
                out.push_back(Output::Media(Command::Show {
                    participant: self.sid.clone(),
                    track: track.clone(),
                    wish,
                }));
            }
        }
    }
}

pub(super) fn stream_state(publisher: &Sid, track: &Sid, paused: bool) -> StreamStateInfo {
    let state = match paused {
        true => StreamState::Paused,
        false => StreamState::Active,
    };
    StreamStateInfo {
        participant_sid: String::from(publisher),
        track_sid: String::from(track),
        state: state.into(),
    }
}
