// SPDX-License-Identifier: MPL-2.0

//! Streams of the server that are participants: what people in the room are told of them.

#![allow(deprecated)]

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use sfu_rooms::proto::participant_info::{Kind, State};
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{ParticipantInfo, SessionDescription, TrackType, VideoLayer, VideoQuality};
use sfu_rooms::{
    Command, Config, Connection, Hello, Keys, Limits, Negotiated, Output, Permit, Rooms,
    StreamTrack,
};

const AT: u64 = 1_800_000_000;

fn permit(identity: &str) -> Permit {
    let claims = json!({
        "iss": "key", "sub": identity, "exp": AT + 600,
        "video": {"roomJoin": true, "room": "r"},
    });
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let keys: Keys = "key:secret".parse().unwrap();
    keys.permit(&token, AT, &Limits::default()).unwrap()
}

fn track(kind: TrackType, mime: &str, sizes: &[(u32, u32)]) -> StreamTrack {
    StreamTrack {
        kind,
        mime: mime.to_owned(),
        sizes: sizes.to_vec(),
    }
}

fn camera() -> Vec<StreamTrack> {
    vec![
        track(TrackType::Video, "video/H264", &[(320, 180), (1280, 720)]),
        track(TrackType::Audio, "audio/opus", &[]),
    ]
}

struct Studio {
    rooms: Rooms,
    now: Instant,
    /// The most m-lines of an offer.
    sections: usize,
}

impl Studio {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config {
            empty_timeout: Duration::from_secs(20),
            last_n: 1,
            ..Config::default()
        };
        let rooms = Rooms::new(config, now, SystemTime::now());
        Self {
            rooms,
            now,
            sections: 0,
        }
    }

    fn join(&mut self, connection: u64, identity: &str) -> Result<(), u16> {
        let (hello, connection) = (Hello::from_query([]).unwrap(), Connection(connection));
        let joined = self
            .rooms
            .join(self.now, connection, permit(identity), hello);
        joined.map(|_| ()).map_err(|refused| refused.status)
    }

    /// What all are told, who answer each offer, and how many tracks the last one has.
    fn settle(&mut self) -> (Vec<Told>, usize) {
        let (mut told, mut offered) = (Vec::new(), 0);
        while let Some(output) = self.rooms.poll() {
            match output {
                Output::Send(connection, message) => {
                    if let Told::Offer(offer) = &*message {
                        let answer = SessionDescription {
                            id: offer.id,
                            ..SessionDescription::default()
                        };
                        let answer = Asked::Answer(answer);
                        self.rooms.receive(self.now, connection, answer);
                    }
                    told.push(*message);
                }
                Output::Tell(_, message) => told.push(*message),
                Output::Media(Command::Offer {
                    participant,
                    sections,
                    ..
                }) => {
                    offered = sections.iter().filter(|s| s.track.is_some()).count();
                    self.sections = self.sections.max(sections.len());
                    let what = Negotiated::Offered {
                        sdp: String::new(),
                        mids: (0..sections.len()).map(|n| n.to_string()).collect(),
                    };
                    self.rooms.negotiated(self.now, participant.as_str(), what);
                }
                _ => {}
            }
        }
        (told, offered)
    }

    fn ping(&mut self, connection: u64) {
        let ping = Asked::Ping(0);
        self.rooms.receive(self.now, Connection(connection), ping);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.rooms.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.rooms.handle_timeout(self.now);
        }
        self.now = end;
    }
}

/// As it was told last.
fn last_of(told: &[Told], identity: &str) -> Option<ParticipantInfo> {
    let mut all = told.iter().flat_map(|message| match message {
        Told::Join(join) => join.other_participants.clone(),
        Told::Update(update) => update.participants.clone(),
        _ => Vec::new(),
    });
    all.rfind(|p| p.identity == identity)
}

#[test]
fn a_stream_is_a_participant_whom_all_are_told_of() {
    let mut studio = Studio::new();
    studio.join(1, "ann").unwrap();
    studio.settle();
    let (now, tracks) = (studio.now, camera());
    let (sid, sids) = studio.rooms.ingress(now, "r", "cam/1", &tracks).unwrap();
    let (told, offered) = studio.settle();
    assert_eq!(offered, 2);
    let info = last_of(&told, "cam/1").unwrap();
    assert_eq!(
        (info.kind(), info.state(), info.sid.as_str()),
        (Kind::Ingress, State::Active, sid.as_str())
    );
    let named: Vec<_> = info.tracks.iter().map(|track| track.sid.as_str()).collect();
    assert_eq!(named, [sids[0].as_str(), sids[1].as_str()]);
    let video = &info.tracks[0];
    assert_eq!(
        (
            video.mime_type.as_str(),
            video.width,
            video.height,
            video.simulcast
        ),
        ("video/H264", 1280, 720, true)
    );
    let qualities: Vec<_> = video.layers.iter().map(VideoLayer::quality).collect();
    assert_eq!(qualities, [VideoQuality::Low, VideoQuality::High]);
    // Who comes later finds it.
    studio.join(2, "ben").unwrap();
    assert!(last_of(&studio.settle().0, "cam/1").is_some());
    // The same again is nothing new, and other layers keep the names.
    studio.rooms.ingress(now, "r", "cam/1", &tracks).unwrap();
    assert!(last_of(&studio.settle().0, "cam/1").is_none());
    let larger = [
        track(TrackType::Video, "video/H264", &[(1920, 1080)]),
        tracks[1].clone(),
    ];
    let again = studio.rooms.ingress(now, "r", "cam/1", &larger).unwrap();
    assert_eq!(again, (sid.clone(), sids.clone()));
    let info = last_of(&studio.settle().0, "cam/1").unwrap();
    assert_eq!(
        (info.tracks[0].height, info.tracks[0].simulcast),
        (1080, false)
    );
    // Another codec is another track.
    let other = [track(TrackType::Video, "video/VP8", &[])];
    let (_, new) = studio.rooms.ingress(now, "r", "cam/1", &other).unwrap();
    let info = last_of(&studio.settle().0, "cam/1").unwrap();
    assert!(info.tracks.len() == 1 && !sids.contains(&new[0]));
    studio.rooms.end_ingress(now, &sid);
    let info = last_of(&studio.settle().0, "cam/1").unwrap();
    assert_eq!(info.state(), State::Disconnected);
}

#[test]
fn a_stream_needs_no_connection_and_keeps_its_room() {
    let mut studio = Studio::new();
    let (sid, _) = studio
        .rooms
        .ingress(studio.now, "r", "cam1", &camera())
        .unwrap();
    studio.run_for(Duration::from_secs(86_400));
    assert!(studio.rooms.has(&sid));
    studio.rooms.end_ingress(studio.now, &sid);
    studio.run_for(Duration::from_secs(60));
    assert_eq!(studio.rooms.count(), (0, 0));
    assert!(!studio.rooms.has(&sid));
}

#[test]
fn nobody_takes_the_place_of_another_kind() {
    let mut studio = Studio::new();
    let tracks = camera();
    studio.join(1, "ann").unwrap();
    let refused = studio.rooms.ingress(studio.now, "r", "ann", &tracks);
    assert_eq!(refused.unwrap_err().status, 409);
    let (sid, _) = studio
        .rooms
        .ingress(studio.now, "r", "cam1", &tracks)
        .unwrap();
    assert_eq!(studio.join(2, "cam1"), Err(409));
    studio.rooms.end_ingress(studio.now, &sid);
    studio.join(3, "cam1").unwrap();
}

#[test]
fn streams_that_come_and_go_leave_nothing() {
    let mut studio = Studio::new();
    studio.join(1, "ann").unwrap();
    studio.settle();
    for round in 0..200 {
        let (sid, _) = studio
            .rooms
            .ingress(studio.now, "r", "cam1", &camera())
            .unwrap();
        studio.settle();
        studio.run_for(Duration::from_millis(500));
        studio.settle();
        studio.rooms.end_ingress(studio.now, &sid);
        studio.settle();
        studio.run_for(Duration::from_millis(500));
        studio.settle();
        // M-lines are used again.
        assert!(studio.sections <= 4, "{round}: {}", studio.sections);
        studio.ping(1);
    }
    assert!(studio.sections >= 2);
    assert_eq!(studio.rooms.count(), (1, 1));
}
