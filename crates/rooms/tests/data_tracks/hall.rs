// SPDX-License-Identifier: MPL-2.0

//! A room of clients that publish data and subscribe to it, with media that does nothing but say that it is up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sfu_rooms::proto::request_response::Reason;
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{
    DataTrackInfo, ParticipantInfo, PublishDataTrackRequest, UnpublishDataTrackRequest,
    UpdateDataSubscription, update_data_subscription,
};
use sfu_rooms::{
    Call, Command, Config, Connection, Form, Hello, Keys, Limits, Negotiated, Output, Permit,
    Rooms, Sid, VideoGrants,
};

const AT: u64 = 1_800_000_000;

pub(crate) struct Hall {
    pub(crate) rooms: Rooms,
    pub(crate) now: Instant,
    /// What each connection was told.
    pub(crate) told: BTreeMap<u64, Vec<Told>>,
    pub(crate) sids: BTreeMap<u64, Sid>,
    /// Datagrams that were sent to somebody.
    pub(crate) sent: Vec<(Sid, Arc<[u8]>)>,
}

pub(crate) fn permit(identity: &str, grants: &Value) -> Permit {
    let mut video = json!({"roomJoin": true, "room": "r", "canUpdateOwnMetadata": true});
    for (grant, value) in grants.as_object().into_iter().flatten() {
        video[grant] = value.clone();
    }
    let claims = json!({"iss": "key", "sub": identity, "exp": AT + 600, "video": video});
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let keys: Keys = "key:secret".parse().unwrap();
    keys.permit(&token, AT, &Limits::default()).unwrap()
}

pub(crate) fn named(pub_handle: u32, name: &str) -> PublishDataTrackRequest {
    PublishDataTrackRequest {
        pub_handle,
        name: name.into(),
        ..PublishDataTrackRequest::default()
    }
}

pub(crate) fn subscription<'a>(
    tracks: impl IntoIterator<Item = &'a str>,
    subscribe: bool,
) -> UpdateDataSubscription {
    let update = |track: &str| update_data_subscription::Update {
        track_sid: track.to_owned(),
        subscribe,
        options: None,
    };
    UpdateDataSubscription {
        updates: tracks.into_iter().map(update).collect(),
    }
}

/// A whole frame in one datagram.
pub(crate) fn datagram(handle: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0b0001_1000, 0];
    datagram.extend(handle.to_be_bytes());
    datagram.extend([0, 1, 0, 2, 0, 0, 0, 3]);
    datagram.extend(payload);
    datagram
}

impl Hall {
    pub(crate) fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let config = Config {
            limits,
            empty_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        Self {
            rooms: Rooms::new(config, now, SystemTime::now()),
            now,
            told: BTreeMap::new(),
            sids: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// Somebody with all rights comes.
    pub(crate) fn join(&mut self, connection: u64, identity: &str) {
        let hello = Hello::from_query([]).unwrap();
        self.enter(connection, permit(identity, &json!({})), hello);
    }

    pub(crate) fn enter(&mut self, connection: u64, permit: Permit, hello: Hello) {
        let is_new = hello.resumes.is_none();
        let joined = self
            .rooms
            .join(self.now, Connection(connection), permit, hello);
        let sid = joined.unwrap().expect("it goes on where it was");
        if is_new {
            let up = Negotiated::Connected { publisher: false };
            self.rooms.negotiated(self.now, sid.as_str(), up);
        }
        self.sids.insert(connection, sid);
        self.settle();
    }

    /// A client whose connection broke goes on by another one.
    pub(crate) fn resume(&mut self, before: u64, connection: u64, identity: &str) {
        let sid = self.sids[&before].clone();
        let query = [("reconnect", "1"), ("sid", sid.as_str())];
        let hello = Hello::from_query(query).unwrap();
        self.enter(connection, permit(identity, &json!({})), hello);
    }

    pub(crate) fn ask(&mut self, connection: u64, asked: Asked) {
        self.rooms.receive(self.now, Connection(connection), asked);
        self.settle();
    }

    pub(crate) fn publish(&mut self, connection: u64, request: PublishDataTrackRequest) {
        self.ask(connection, Asked::PublishDataTrackRequest(request));
    }

    pub(crate) fn unpublish(&mut self, connection: u64, pub_handle: u32) {
        let request = UnpublishDataTrackRequest { pub_handle };
        self.ask(connection, Asked::UnpublishDataTrackRequest(request));
    }

    pub(crate) fn subscribe(&mut self, connection: u64, track: &str, subscribe: bool) {
        let asked = subscription([track], subscribe);
        self.ask(connection, Asked::UpdateDataSubscription(asked));
    }

    /// A client sends a datagram. Returns who was sent it, by connection, and as what.
    pub(crate) fn send(&mut self, connection: u64, datagram: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let sid = self.sids[&connection].clone();
        self.rooms.datagram(self.now, sid.as_str(), datagram);
        self.settle();
        let sent = std::mem::take(&mut self.sent).into_iter();
        let sent = sent.map(|(to, packet)| {
            let mut known = self.sids.iter().filter(|(_, sid)| **sid == to);
            (*known.next_back().unwrap().0, packet.to_vec())
        });
        let mut sent: Vec<_> = sent.collect();
        sent.sort();
        sent
    }

    /// An application gives somebody other rights.
    pub(crate) fn allow(&mut self, identity: &str, publish_data: bool, subscribe: bool) {
        let permission = json!({
            "canPublish": true, "canPublishData": publish_data, "canSubscribe": subscribe,
        });
        let body = json!({"room": "r", "identity": identity, "permission": permission});
        let call = Call {
            method: "UpdateParticipant".into(),
            form: Form::Json,
            body: body.to_string().into_bytes(),
            grants: VideoGrants {
                room: "r".into(),
                room_admin: true,
                ..VideoGrants::default()
            },
        };
        self.rooms.serve(self.now, &call).unwrap();
        self.settle();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.rooms.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.rooms.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    pub(crate) fn settle(&mut self) {
        while let Some(output) = self.rooms.poll() {
            match output {
                Output::Send(connection, message) => self.hear(connection, *message),
                Output::Tell(to, message) => {
                    for connection in to {
                        self.hear(connection, (*message).clone());
                    }
                }
                Output::Media(Command::Datagram {
                    participant,
                    packet,
                }) => self.sent.push((participant, packet)),
                Output::Refresh(_) | Output::Event(_) | Output::Close(_) | Output::Media(_) => {}
            }
        }
    }

    fn hear(&mut self, connection: Connection, message: Told) {
        self.told.entry(connection.0).or_default().push(message);
    }

    /// The newest track that a client was told it publishes.
    pub(crate) fn published(&self, connection: u64) -> DataTrackInfo {
        let told = self.told[&connection].iter().rev();
        let mut published = told.filter_map(|told| match told {
            Told::PublishDataTrackResponse(response) => response.info.clone(),
            _ => None,
        });
        published.next().expect("nothing is published")
    }

    /// The handles that a client knows its data tracks by, with the tracks; `None`: it was told of none.
    pub(crate) fn handles(&self, connection: u64) -> Option<BTreeMap<u16, String>> {
        let told = self.told.get(&connection)?.iter().rev();
        let mut handles = told.filter_map(|told| match told {
            Told::DataTrackSubscriberHandles(handles) => Some(&handles.sub_handles),
            _ => None,
        });
        let all = handles.next()?.iter();
        let all = all.map(|(handle, of)| (u16::try_from(*handle).unwrap(), of.track_sid.clone()));
        Some(all.collect())
    }

    /// What a client was told last of somebody.
    pub(crate) fn last_of(&self, connection: u64, identity: &str) -> ParticipantInfo {
        let told = self.told[&connection].iter().rev();
        let lists = told.filter_map(|told| match told {
            Told::Join(join) => Some(&join.other_participants),
            Told::Update(update) => Some(&update.participants),
            _ => None,
        });
        let mut all = lists.flat_map(|list| list.iter().rev());
        all.find(|p| p.identity == identity).unwrap().clone()
    }

    /// Why what a client asked for was refused, in order.
    pub(crate) fn refusals(&self, connection: u64) -> Vec<Reason> {
        let told = self.told[&connection].iter();
        let refusals = told.filter_map(|told| match told {
            Told::RequestResponse(response) => Some(response.reason()),
            _ => None,
        });
        refusals.collect()
    }

    /// The handles of tracks that a client was told it does not publish any more, in order.
    pub(crate) fn unpublished(&self, connection: u64) -> Vec<u32> {
        let told = self.told[&connection].iter();
        let gone = told.filter_map(|told| match told {
            Told::UnpublishDataTrackResponse(response) => Some(response.info.as_ref()?.pub_handle),
            _ => None,
        });
        gone.collect()
    }
}
