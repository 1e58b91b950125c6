// SPDX-License-Identifier: MPL-2.0

//! What becomes of people's tokens, and of who is away for a while.

#![allow(deprecated)]

mod away;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;
use serde_json::{Value, json};
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{DataPacket, Room, WebhookEvent};
use sfu_rooms::{
    Call, Command, Config, Connection, Fault, Form, Hello, Keys, Limits, Negotiated, Output,
    Permit, Refused, Rooms, Sid,
};

const AT: u64 = 1_800_000_000;

/// A room whose people are connected as soon as they have joined.
struct People {
    rooms: Rooms,
    now: Instant,
    sids: BTreeMap<u64, Sid>,
    told: BTreeMap<u64, Vec<Told>>,
    /// Who gets another token.
    refreshed: Vec<u64>,
    closed: BTreeSet<u64>,
    events: Vec<WebhookEvent>,
    /// To whom.
    data: Vec<(Sid, DataPacket)>,
}

fn keys() -> Keys {
    "key:secret".parse().unwrap()
}

/// What a token grants with this of its own.
fn permit(identity: &str, own: &Value) -> Result<Permit, Refused> {
    let mut claims = json!({ "iss": "key", "sub": identity, "exp": AT + 600, "video": {} });
    for (key, value) in own.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims["video"]["roomJoin"] = true.into();
    claims["video"]["room"] = "r".into();
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    keys().permit(&token, AT, &Limits::default())
}

impl People {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config {
            empty_timeout: Duration::from_secs(20),
            events: true,
            ..Config::default()
        };
        Self {
            rooms: Rooms::new(config, now, SystemTime::now()),
            now,
            sids: BTreeMap::new(),
            told: BTreeMap::new(),
            refreshed: Vec::new(),
            closed: BTreeSet::new(),
            events: Vec::new(),
            data: Vec::new(),
        }
    }

    fn join(&mut self, n: u64, identity: &str, own: &Value) -> Result<(), Refused> {
        let (permit, hello) = (permit(identity, own)?, Hello::default());
        let admitted = self.rooms.admits(&permit);
        let joined = self.rooms.join(self.now, Connection(n), permit, hello);
        assert_eq!(admitted.err(), joined.as_ref().err().cloned());
        let sid = joined?.unwrap();
        let up = Negotiated::Connected { publisher: false };
        self.rooms.negotiated(self.now, sid.as_str(), up);
        self.sids.insert(n, sid);
        self.settle();
        Ok(())
    }

    /// Who had one connection goes on by another.
    fn resume(&mut self, before: u64, n: u64, identity: &str) {
        let sid = self.sids[&before].clone();
        let hello = Hello::from_query([("reconnect", "1"), ("sid", sid.as_str())]).unwrap();
        let permit = permit(identity, &json!({})).unwrap();
        let joined = self.rooms.join(self.now, Connection(n), permit, hello);
        assert_eq!(joined.unwrap(), Some(sid.clone()));
        self.sids.insert(n, sid);
        self.settle();
    }

    fn ask(&mut self, n: u64, asked: Asked) {
        self.rooms.receive(self.now, Connection(n), asked);
        self.settle();
    }

    fn close(&mut self, n: u64) {
        self.rooms.closed(self.now, Connection(n));
        self.settle();
    }

    fn call(&mut self, method: &str, body: &Value) -> Result<Value, Fault> {
        let grants = json!({ "room": "r", "roomAdmin": true, "roomCreate": true });
        let call = Call {
            method: method.to_owned(),
            form: Form::Json,
            body: body.to_string().into_bytes(),
            grants: serde_json::from_value(grants).unwrap(),
        };
        let answer = self.rooms.serve(self.now, &call);
        self.settle();
        answer.map(|answer| serde_json::from_slice(&answer).unwrap())
    }

    fn run_for(&mut self, time: Duration) {
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
                Output::Send(Connection(n), message) => {
                    self.told.entry(n).or_default().push(*message);
                }
                Output::Tell(to, message) => {
                    for Connection(n) in to {
                        self.told.entry(n).or_default().push((*message).clone());
                    }
                }
                Output::Refresh(Connection(n)) => self.refreshed.push(n),
                Output::Close(Connection(n)) => _ = self.closed.insert(n),
                Output::Event(event) => self.events.push(*event),
                Output::Media(Command::Data {
                    participant,
                    packet,
                    ..
                }) => {
                    let packet = DataPacket::decode(&*packet).unwrap();
                    self.data.push((participant, packet));
                }
                Output::Media(_) => {}
            }
        }
    }

    fn told(&mut self, n: u64) -> Vec<Told> {
        self.told.remove(&n).unwrap_or_default()
    }

    /// The room, as somebody was told of it last.
    fn room(&self, n: u64) -> Room {
        let told = self.told.get(&n).into_iter().flatten().rev();
        let mut rooms = told.filter_map(|told| match told {
            Told::Join(join) => join.room.clone(),
            Told::RoomUpdate(update) => update.room.clone(),
            _ => None,
        });
        rooms.next().unwrap()
    }
}
