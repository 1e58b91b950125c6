// SPDX-License-Identifier: MPL-2.0

//! A track in a codec that not all can show, and in another one for those: its publisher is asked for what somebody can.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{
    AddTrackRequest, SessionDescription, SimulcastCodec, SubscribedQualityUpdate, TrackSource,
    TrackType,
};
use sfu_rooms::{
    Command, Config, Connection, Expected, Found, Hello, Keys, Limits, Negotiated, Output, Rooms,
    Sid,
};

const AT: u64 = 1_800_000_000;
/// Of who publishes.
const ANN: u64 = 1;

/// Ann, and others who take some codecs each.
struct Meeting {
    rooms: Rooms,
    now: Instant,
    shows: BTreeMap<Sid, Vec<String>>,
    /// What ann was told.
    told: Vec<Told>,
}

impl Meeting {
    fn new() -> Self {
        let now = Instant::now();
        let mut meeting = Self {
            rooms: Rooms::new(Config::default(), now, SystemTime::now()),
            now,
            shows: BTreeMap::new(),
            told: Vec::new(),
        };
        meeting.join(ANN, &[]);
        meeting
    }

    fn join(&mut self, connection: u64, shows: &[&str]) {
        let claims = json!({
            "iss": "key", "sub": connection.to_string(), "exp": AT + 600,
            "video": {"roomJoin": true, "room": "r"},
        });
        let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let keys: Keys = "key:secret".parse().unwrap();
        let permit = keys.permit(&token, AT, &Limits::default()).unwrap();
        let hello = Hello::from_query([]).unwrap();
        let joined = self
            .rooms
            .join(self.now, Connection(connection), permit, hello);
        let sid = joined.unwrap().unwrap();
        let shows = shows.iter().map(|mime| (*mime).to_owned()).collect();
        self.shows.insert(sid, shows);
        self.settle();
    }

    fn ask(&mut self, connection: u64, asked: Asked) {
        self.rooms.receive(self.now, Connection(connection), asked);
        self.settle();
    }

    /// Ann announces these codecs of a camera, or one more of it, and offers what there is by then.
    fn publish(&mut self, sid: &str, codecs: &[(&str, &str)]) {
        let codecs = codecs.iter().map(|(codec, cid)| SimulcastCodec {
            codec: (*codec).to_owned(),
            cid: (*cid).to_owned(),
            ..SimulcastCodec::default()
        });
        let add = AddTrackRequest {
            cid: "camera".into(),
            sid: sid.into(),
            r#type: TrackType::Video.into(),
            source: TrackSource::Camera.into(),
            simulcast_codecs: codecs.collect(),
            ..AddTrackRequest::default()
        };
        self.ask(ANN, Asked::AddTrack(add));
        self.ask(ANN, Asked::Offer(SessionDescription::default()));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.rooms.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.rooms.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
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
                    if connection == Connection(ANN) {
                        self.told.push(*message);
                    }
                }
                Output::Media(command) => self.obey(command),
                _ => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let (who, outcome) = match command {
            Command::Answer {
                participant,
                expected,
                ..
            } => {
                let (sdp, tracks) = (String::new(), expected.iter().flat_map(found).collect());
                (participant, Negotiated::Answered { sdp, tracks })
            }
            Command::Offer {
                participant,
                sections,
                ..
            } => {
                let mids = (0..sections.len()).map(|n| n.to_string()).collect();
                let sdp = String::new();
                (participant, Negotiated::Offered { sdp, mids })
            }
            Command::Accept { participant, .. } => {
                let shows = self.shows[&participant].clone();
                (participant, Negotiated::Accepted { shows })
            }
            _ => return,
        };
        self.rooms.negotiated(self.now, who.as_str(), outcome);
    }

    /// Which codecs ann was asked for last, in her order.
    fn wanted(&self) -> Vec<String> {
        let told = self.told.iter().rev().find_map(|told| match told {
            Told::SubscribedQualityUpdate(update) => Some(update),
            _ => None,
        });
        let codecs = |update: &SubscribedQualityUpdate| {
            let codecs = update.subscribed_codecs.iter();
            let wanted = codecs.filter(|codec| codec.qualities.iter().any(|q| q.enabled));
            wanted.map(|codec| codec.codec.clone()).collect()
        };
        told.map(codecs).unwrap_or_default()
    }

    /// What ann knows of her track.
    fn sid(&self) -> String {
        let sid = self.told.iter().find_map(|told| match told {
            Told::TrackPublished(published) => Some(published.track.clone()?.sid),
            _ => None,
        });
        sid.unwrap()
    }
}

/// What an offer has by now: all that has got an id.
fn found(expected: &Expected) -> impl Iterator<Item = Found> {
    let codecs = expected.codecs.iter().filter(|(cid, _)| !cid.is_empty());
    codecs.map(|(cid, codec)| Found {
        track: expected.track.clone(),
        cid: cid.clone(),
        mid: cid.clone(),
        mime: format!("video/{}", codec.to_uppercase()),
        rids: Vec::new(),
    })
}

const BOTH: [&str; 2] = ["video/VP8", "video/VP9"];

#[test]
fn a_backup_is_asked_for_while_somebody_needs_it() {
    let mut meeting = Meeting::new();
    meeting.publish("", &[("vp9", "camera"), ("vp8", "")]);
    let soon = Duration::from_secs(1);
    meeting.join(2, &BOTH);
    meeting.wait(soon);
    assert_eq!(meeting.wanted(), ["vp9"]);
    // Who can't show VP9, before and after there is something else for it.
    meeting.join(3, &BOTH[..1]);
    meeting.wait(soon);
    assert_eq!(meeting.wanted(), ["vp9", "vp8"]);
    let sid = meeting.sid();
    meeting.publish(&sid, &[("vp8", "backup")]);
    meeting.wait(soon);
    assert_eq!(meeting.wanted(), ["vp9", "vp8"]);
    // Who can show neither is none for whom more is made.
    meeting.join(4, &["video/H264"]);
    meeting.wait(soon);
    assert_eq!(meeting.wanted(), ["vp9", "vp8"]);
    meeting.ask(3, Asked::Leave(sfu_rooms::proto::LeaveRequest::default()));
    meeting.wait(soon);
    assert_eq!(meeting.wanted(), ["vp9", "vp8"], "it may come back");
    meeting.wait(Duration::from_secs(6));
    assert_eq!(meeting.wanted(), ["vp9"]);
}

#[test]
fn what_nobody_can_show_is_not_asked_for() {
    let mut meeting = Meeting::new();
    meeting.publish("", &[("av1", "camera"), ("vp8", "")]);
    meeting.join(2, &BOTH);
    meeting.wait(Duration::from_secs(10));
    assert_eq!(meeting.wanted(), ["vp8"]);
}
