// SPDX-License-Identifier: MPL-2.0

//! Many people in a room, and media that does as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use sfu_rooms::proto::{
    AddTrackRequest, ConnectionQuality, SessionDescription, StreamState, TrackSource, TrackType,
    UpdateTrackSettings, VideoLayer, VideoQuality, signal_request, signal_response,
};
use sfu_rooms::{
    Command, Config, Connection, Found, Hello, Keys, Limits, Measured, Negotiated, Output, Rooms,
    Sid, Sound, Wish,
};

/// One of them.
#[derive(Default)]
struct Person {
    sid: String,
    /// By source.
    tracks: Vec<(TrackSource, String)>,
    offered: BTreeSet<String>,
    wishes: BTreeMap<String, Wish>,
    paused: BTreeSet<String>,
    is_up: bool,
    is_back: bool,
}

pub(crate) struct Crowd {
    rooms: Rooms,
    now: Instant,
    pinged: Instant,
    people: Vec<Person>,
    /// Whose each track is, and its kind.
    tracks: BTreeMap<String, (usize, TrackType)>,
    /// What the media was told.
    pub(crate) commands: usize,
    /// Offers of either side, since all had come.
    pub(crate) negotiations: usize,
    qualities: Vec<(usize, usize, String)>,
}

impl Crowd {
    /// So many who all publish a camera and a microphone, and see all others.
    pub(crate) fn new(people: usize, last_n: usize) -> Self {
        let now = Instant::now();
        let config = Config {
            empty_timeout: Duration::from_secs(300),
            last_n,
            ..Config::default()
        };
        let mut crowd = Self {
            rooms: Rooms::new(config, now, SystemTime::now()),
            now,
            pinged: now,
            people: Vec::new(),
            tracks: BTreeMap::new(),
            commands: 0,
            negotiations: 0,
            qualities: Vec::new(),
        };
        for who in 0..people {
            crowd.join(who);
            crowd.publish(who, TrackSource::Camera);
            crowd.publish(who, TrackSource::Microphone);
        }
        crowd.pass(Duration::from_secs(1));
        crowd.negotiations = 0;
        crowd
    }

    fn join(&mut self, who: usize) {
        let hello = Hello::from_query([]).unwrap();
        let sid = self.enter(who, hello);
        self.people.push(Person {
            sid,
            ..Person::default()
        });
        self.settle();
    }

    /// The connection of somebody breaks.
    pub(crate) fn lose(&mut self, who: usize) {
        self.rooms.closed(self.now, Connection(who as u64));
        self.settle();
    }

    /// It is back, and told what it knows again.
    pub(crate) fn resume(&mut self, who: usize) {
        let person = &mut self.people[who];
        person.is_back = true;
        let sid = person.sid.clone();
        let hello = Hello::from_query([("reconnect", "1"), ("sid", sid.as_str())]).unwrap();
        assert_eq!(self.enter(who, hello), sid);
        self.settle();
        self.people[who].is_back = false;
    }

    fn enter(&mut self, who: usize, hello: Hello) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = serde_json::json!({
            "iss": "key", "sub": format!("p{who}"), "nbf": 0, "exp": now + 600,
            "video": { "room": "crowd", "roomJoin": true },
        });
        let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let keys: Keys = "key:secret".parse().unwrap();
        let permit = keys.permit(&token, now, &Limits::default()).unwrap();
        let joined = self
            .rooms
            .join(self.now, Connection(who as u64), permit, hello);
        joined.unwrap().unwrap().to_string()
    }

    pub(crate) fn publish(&mut self, who: usize, source: TrackSource) {
        let kind = match source {
            TrackSource::Microphone | TrackSource::ScreenShareAudio => TrackType::Audio,
            _ => TrackType::Video,
        };
        let layer = |quality: VideoQuality, height| VideoLayer {
            quality: quality.into(),
            width: height * 16 / 9,
            height,
            ..VideoLayer::default()
        };
        self.say(
            who,
            signal_request::Message::AddTrack(AddTrackRequest {
                cid: format!("{source:?}"),
                r#type: kind.into(),
                source: source.into(),
                layers: vec![
                    layer(VideoQuality::Low, 180),
                    layer(VideoQuality::Medium, 360),
                    layer(VideoQuality::High, 720),
                ],
                ..AddTrackRequest::default()
            }),
        );
        self.say(
            who,
            signal_request::Message::Offer(SessionDescription {
                id: 1,
                ..SessionDescription::default()
            }),
        );
    }

    pub(crate) fn say(&mut self, who: usize, message: signal_request::Message) {
        self.rooms
            .receive(self.now, Connection(who as u64), message);
        self.settle();
    }

    /// How somebody wants to see another one's camera.
    pub(crate) fn set(
        &mut self,
        who: usize,
        whom: usize,
        change: impl FnOnce(&mut UpdateTrackSettings),
    ) {
        let mut setting = UpdateTrackSettings {
            track_sids: vec![self.track(whom, TrackSource::Camera)],
            quality: VideoQuality::High.into(),
            ..UpdateTrackSettings::default()
        };
        change(&mut setting);
        self.say(who, signal_request::Message::TrackSetting(setting));
    }

    pub(crate) fn track(&self, who: usize, source: TrackSource) -> String {
        let mut tracks = self.people[who].tracks.iter();
        tracks.find(|(s, _)| *s == source).unwrap().1.clone()
    }

    pub(crate) fn hear(&mut self, who: usize, sound: Sound) {
        self.rooms.heard(&self.people[who].sid, sound);
    }

    pub(crate) fn listened(&mut self, after: Duration) {
        self.pass(after);
        self.rooms.listened(self.now);
        self.settle();
    }

    pub(crate) fn starve(&mut self, who: usize, track: &str, starved: bool) {
        self.rooms
            .starved(self.now, &self.people[who].sid, track, starved);
        self.settle();
    }

    pub(crate) fn measure(&mut self, measured: impl Fn(usize) -> Measured) {
        for (who, person) in self.people.iter().enumerate() {
            self.rooms.measured(&person.sid, &measured(who));
        }
        self.rooms.tell_quality();
        self.settle();
    }

    /// Who was told of whom, and what, since the last call.
    pub(crate) fn take_qualities(&mut self) -> Vec<(usize, usize, String)> {
        std::mem::take(&mut self.qualities)
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.rooms.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(due);
            // So that nobody is taken for gone.
            let pings = self.now >= self.pinged + Duration::from_secs(5);
            if pings {
                self.pinged = self.now;
            }
            for who in (0..self.people.len()).filter(|_| pings) {
                let ping = signal_request::Message::Ping(1);
                self.rooms.receive(self.now, Connection(who as u64), ping);
            }
            self.rooms.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// What somebody gets: whose, and of which kind.
    pub(crate) fn forwarded(&self, who: usize) -> Vec<(usize, TrackType)> {
        let person = &self.people[who];
        let offered = person.offered.iter();
        let shown = offered.filter(|track| person.wishes.get(*track).is_none_or(|w| w.shown));
        shown.map(|track| self.tracks[track]).collect()
    }

    pub(crate) fn is_forwarded(&self, who: usize, whom: usize, kind: TrackType) -> bool {
        self.forwarded(who).contains(&(whom, kind))
    }

    pub(crate) fn offered(&self, who: usize) -> usize {
        self.people[who].offered.len()
    }

    /// How many tracks it was told are paused.
    pub(crate) fn paused(&self, who: usize) -> usize {
        self.people[who].paused.len()
    }

    fn who(&self, sid: &str) -> usize {
        self.people.iter().position(|p| p.sid == sid).unwrap()
    }

    fn settle(&mut self) {
        while let Some(output) = self.rooms.poll() {
            match output {
                Output::Send(connection, message) => self.read(connection.0 as usize, *message),
                Output::Tell(to, message) => {
                    for connection in to {
                        self.read(connection.0 as usize, (*message).clone());
                    }
                }
                Output::Media(command) => {
                    self.commands += 1;
                    self.obey(command);
                }
                Output::Refresh(_) | Output::Close(_) | Output::Event(_) => {}
            }
        }
    }

    fn read(&mut self, who: usize, message: signal_response::Message) {
        match message {
            signal_response::Message::Offer(offer) => {
                self.negotiations += 1;
                self.rooms.receive(
                    self.now,
                    Connection(who as u64),
                    signal_request::Message::Answer(SessionDescription {
                        id: offer.id,
                        ..SessionDescription::default()
                    }),
                );
            }
            signal_response::Message::StreamStateUpdate(update) => {
                let Person {
                    paused, is_back, ..
                } = &mut self.people[who];
                for state in update.stream_states {
                    match state.state() {
                        StreamState::Paused => assert!(paused.insert(state.track_sid) || *is_back),
                        StreamState::Active => _ = paused.remove(&state.track_sid),
                    }
                }
            }
            signal_response::Message::ConnectionQuality(update) => {
                for info in update.updates {
                    let of = self.who(&info.participant_sid);
                    let word = ConnectionQuality::as_str_name(&info.quality());
                    self.qualities.push((who, of, word.to_owned()));
                }
            }
            signal_response::Message::TrackPublished(published) => {
                let track = published.track.unwrap();
                self.tracks.insert(track.sid.clone(), (who, track.r#type()));
                self.people[who].tracks.push((track.source(), track.sid));
            }
            _ => {}
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Answer {
                participant,
                expected,
                ..
            } => {
                self.negotiations += 1;
                let found = |e: &sfu_rooms::Expected| Found {
                    track: e.track.clone(),
                    cid: e.cids[0].clone(),
                    mid: "0".into(),
                    mime: "video/VP8".into(),
                    rids: vec!["q".into(), "h".into(), "f".into()],
                };
                let tracks = expected.iter().map(found).collect();
                let answered = Negotiated::Answered {
                    sdp: String::new(),
                    tracks,
                };
                self.negotiated(&participant, answered);
            }
            Command::Converse { .. } => panic!("all of them speak v0"),
            Command::Offer {
                participant,
                sections,
                ..
            } => {
                let who = self.who(participant.as_str());
                let tracks = sections.iter().filter_map(|s| s.track.as_ref());
                self.people[who].offered = tracks.map(|(track, _)| track.to_string()).collect();
                let mids = (0..sections.len()).map(|n| n.to_string()).collect();
                self.negotiated(
                    &participant,
                    Negotiated::Offered {
                        sdp: String::new(),
                        mids,
                    },
                );
            }
            Command::Accept { participant, .. } => {
                let who = self.who(participant.as_str());
                if !std::mem::replace(&mut self.people[who].is_up, true) {
                    self.negotiated(&participant, Negotiated::Connected { publisher: false });
                }
            }
            Command::Show {
                participant,
                track,
                wish,
            } => {
                let who = self.who(participant.as_str());
                self.people[who].wishes.insert(track.to_string(), wish);
            }
            Command::Stop { participant, track } => {
                let who = self.who(participant.as_str());
                self.people[who].wishes.remove(track.as_str());
            }
            Command::Trickle { .. }
            | Command::Data { .. }
            | Command::Datagram { .. }
            | Command::End { .. } => {}
        }
    }

    fn negotiated(&mut self, participant: &Sid, what: Negotiated) {
        self.rooms.negotiated(self.now, participant.as_str(), what);
    }
}
