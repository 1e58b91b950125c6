// SPDX-License-Identifier: MPL-2.0

//! All rooms, and whose connection is whose.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use livekit_protocol::{
    Codec, DisconnectReason, LeaveRequest, ParticipantPermission, WebhookEvent, leave_request,
    signal_request, signal_response,
};

use crate::claims::{self, Permit, Refused};
use crate::hello::Hello;
use crate::limits::Limits;
use crate::media::{Command, Measured, Negotiated, Sound, StreamTrack};
use crate::room::Room;
use crate::service::Listed;
use crate::sid::Sid;

/// A client's WebSocket, as the caller numbers them: no number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// What all clients are told.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What clients may make grow.
    pub limits: Limits,
    /// What can be published, as `video/VP8`.
    pub codecs: Vec<Codec>,
    /// How long an empty room is kept, for who comes back.
    pub empty_timeout: Duration,
    /// So many pictures and sounds are forwarded to each participant, by who spoke last. 0: all.
    pub last_n: usize,
    /// What happens is told ([`Output::Event`]).
    pub events: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Say this to a client. STUN and TURN servers are left for the caller to fill in: their credentials may end.
    Send(Connection, Box<signal_response::Message>),
    /// Say this to all of these.
    Tell(Vec<Connection>, Box<signal_response::Message>),
    /// Give a client another token: it comes back with the newest one that it has.
    Refresh(Connection),
    /// Close a client's connection, after all that was said.
    Close(Connection),
    /// For the media.
    Media(Command),
    /// For whoever is told of what happens in rooms.
    Event(Box<WebhookEvent>),
}

/// How somebody wants a room to be that there was not before, as far as it says so.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wanted {
    /// In seconds, as the next.
    pub(crate) empty_timeout: u32,
    pub(crate) departure_timeout: u32,
    pub(crate) max_participants: u32,
    pub(crate) metadata: String,
}

/// One moment by both clocks: that of intervals, and the one that clients are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn unix(self) -> Duration {
        self.wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Rooms {
    pub(crate) config: Config,
    /// By name.
    pub(crate) rooms: BTreeMap<String, Room>,
    /// When each room has something to do.
    due: BTreeSet<(Instant, String)>,
    joins: Joins,
    connections: HashMap<Connection, Place>,
    /// The room of each participant.
    places: HashMap<Sid, String>,
    /// What an instant is on the wall.
    began: Now,
    pub(crate) outputs: VecDeque<Output>,
    /// The room that a call was about.
    pub(crate) worked_on: Option<String>,
    /// What was written of all rooms just now.
    pub(crate) listed: Listed,
}

/// Who speaks on a connection.
#[derive(Debug, Clone)]
struct Place {
    room: String,
    participant: Sid,
}

impl Rooms {
    /// None so far. `wall` is the time of `now`.
    pub fn new(config: Config, now: Instant, wall: SystemTime) -> Self {
        Self {
            config,
            rooms: BTreeMap::new(),
            due: BTreeSet::new(),
            joins: Joins::default(),
            connections: HashMap::new(),
            places: HashMap::new(),
            began: Now { at: now, wall },
            outputs: VecDeque::new(),
            worked_on: None,
            listed: Listed::default(),
        }
    }

    pub(crate) fn now(&self, at: Instant) -> Now {
        let wall = self.began.wall + at.saturating_duration_since(self.began.at);
        Now { at, wall }
    }

    /// Somebody joins by a new connection, or goes on by it. A refusal is for before the connection is taken; where that is
    /// too late for the client's protocol it is told on the connection, which then closes. Returns who it is.
    pub fn join(
        &mut self,
        at: Instant,
        connection: Connection,
        permit: Permit,
        hello: Hello,
    ) -> Result<Option<Sid>, Refused> {
        let now = self.now(at);
        let limits = self.config.limits;
        if !self.joins.may(at, &permit, limits.joins) {
            return Err(Refused::new(429, "this identity joins all the time"));
        }
        if let Some(sid) = &hello.resumes {
            let resumed = self.resume(now, connection, &permit, (sid, hello.v1.is_some()));
            self.schedule(&permit.room);
            return Ok(resumed);
        }
        self.admits(&permit)?;
        let name = permit.room.clone();
        self.enter(now, &name, permit.wanted());
        let room = self.rooms.get(&name);
        let again = room.and_then(|room| room.of_identity(&permit.identity));
        if let Some(before) = again {
            self.remove(now, &name, &before, DisconnectReason::DuplicateIdentity);
        }
        let Some(room) = self.rooms.get_mut(&name) else {
            return Ok(None);
        };
        let participant = room.join(now, connection, permit, hello, &mut self.outputs);
        self.schedule(&name);
        self.places.insert(participant.clone(), name.clone());
        self.connections.insert(
            connection,
            Place {
                room: name,
                participant: participant.clone(),
            },
        );
        Ok(Some(participant))
    }

    /// Whether somebody who joins anew would get in now.
    pub fn admits(&self, permit: &Permit) -> Result<(), Refused> {
        let limits = self.config.limits;
        let Some(room) = self.rooms.get(&permit.room) else {
            return self.has_place(&permit.room);
        };
        let again = room.of_identity(&permit.identity);
        if again.is_none() && room.is_full(limits.participants, permit.is_dependent()) {
            return Err(Refused::new(503, "the room is full"));
        }
        if again.is_some_and(|sid| room.is_ingress(&sid)) {
            let reason = "a stream of this server is in the room by this identity";
            return Err(Refused::new(409, reason));
        }
        let texts = permit.metadata.len() + claims::size(&permit.attributes);
        if texts > 0 && !room.has_room_for(texts, &permit.identity) {
            let reason = "the room's participants have too much metadata";
            return Err(Refused::new(503, reason));
        }
        Ok(())
    }

    /// Whether there is a room of this name, or may be one more.
    fn has_place(&self, name: &str) -> Result<(), Refused> {
        if self.rooms.len() < self.config.limits.rooms || self.rooms.contains_key(name) {
            return Ok(());
        }
        let reason = "there are too many rooms: try again later";
        Err(Refused::new(503, reason))
    }

    /// There is a room of this name from now on: if it is new, as somebody wants it.
    fn enter(&mut self, now: Now, name: &str, wanted: &Wanted) {
        if !self.rooms.contains_key(name) {
            self.open(now, name, wanted);
        }
    }

    /// A stream of the server's is a participant of a room from now on, or has other tracks than before. Returns who it is, and its
    /// tracks' names in the order of `tracks`.
    pub fn ingress(
        &mut self,
        at: Instant,
        name: &str,
        identity: &str,
        tracks: &[StreamTrack],
    ) -> Result<(Sid, Vec<Sid>), Refused> {
        let now = self.now(at);
        self.has_place(name)?;
        self.enter(now, name, &Wanted::default());
        let most = self.config.limits.participants;
        let missing = || Refused::new(500, "there is no such room");
        let room = self.rooms.get_mut(name).ok_or_else(missing)?;
        match room.of_identity(identity) {
            Some(known) if !room.is_ingress(&known) => {
                let reason = "somebody is in the room by this identity";
                return Err(Refused::new(409, reason));
            }
            None if room.is_full(most, false) => {
                return Err(Refused::new(503, "the room is full"));
            }
            _ => {}
        }
        let (participant, sids) = room.ingress(now, identity, tracks, &mut self.outputs);
        self.places.insert(participant.clone(), name.to_owned());
        self.schedule(name);
        Ok((participant, sids))
    }

    /// A stream is none any more.
    pub fn end_ingress(&mut self, at: Instant, participant: &Sid) {
        let now = self.now(at);
        if let Some(name) = self.places.get(participant).cloned() {
            self.remove(now, &name, participant, DisconnectReason::ClientInitiated);
            self.schedule(&name);
        }
    }

    /// Whether that one is still there.
    pub fn has(&self, participant: &Sid) -> bool {
        self.places.contains_key(participant)
    }

    /// A participant whose connection broke goes on by another one.
    fn resume(
        &mut self,
        now: Now,
        connection: Connection,
        permit: &Permit,
        (sid, by_v1): (&str, bool),
    ) -> Option<Sid> {
        let room = self.rooms.get_mut(&permit.room);
        let resumed = room.and_then(|room| {
            let who = (sid, by_v1);
            room.resume(now, connection, &permit.identity, who, &mut self.outputs)
        });
        let Some((participant, before)) = resumed else {
            let leave = LeaveRequest {
                reason: DisconnectReason::StateMismatch.into(),
                action: leave_request::Action::Reconnect.into(),
                can_reconnect: true,
                ..LeaveRequest::default()
            };
            let leave = Box::new(signal_response::Message::Leave(leave));
            self.outputs.push_back(Output::Send(connection, leave));
            self.outputs.push_back(Output::Close(connection));
            return None;
        };
        if let Some(before) = before {
            self.connections.remove(&before);
            self.outputs.push_back(Output::Close(before));
        }
        let place = Place {
            room: permit.room.clone(),
            participant: participant.clone(),
        };
        self.connections.insert(connection, place);
        Some(participant)
    }

    /// A client says something.
    pub fn receive(
        &mut self,
        at: Instant,
        connection: Connection,
        message: signal_request::Message,
    ) {
        let now = self.now(at);
        let Some(place) = self.connections.get(&connection).cloned() else {
            return;
        };
        let Some(room) = self.rooms.get_mut(&place.room) else {
            return;
        };
        let over = room.receive(now, &place.participant, message, &mut self.outputs);
        if let Some(reason) = over {
            self.remove(now, &place.room, &place.participant, reason);
        }
        self.schedule(&place.room);
    }

    /// A client's connection is closed. It may come back.
    pub fn closed(&mut self, at: Instant, connection: Connection) {
        let now = self.now(at);
        let Some(place) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(&place.room) {
            room.closed(now, &place.participant, connection);
            self.schedule(&place.room);
        }
    }

    /// What became of a participant's media.
    pub fn negotiated(&mut self, at: Instant, participant: &str, what: Negotiated) {
        let now = self.now(at);
        let Some((sid, name)) = self.places.get_key_value(participant) else {
            return;
        };
        let (sid, name) = (sid.clone(), name.clone());
        let Some(room) = self.rooms.get_mut(&name) else {
            return;
        };
        let over = room.negotiated(now, &sid, what, &mut self.outputs);
        if let Some(reason) = over {
            self.remove(now, &name, &sid, reason);
        }
        self.schedule(&name);
    }

    /// A participant sent this on one of its channels for data.
    pub fn data(&mut self, at: Instant, participant: &str, reliable: bool, packet: &[u8]) {
        let now = self.now(at);
        let Some((sid, name)) = self.places.get_key_value(participant) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(name) {
            room.data(now, sid, reliable, packet, &mut self.outputs);
        }
    }

    /// A participant sent this on its channel for data tracks.
    pub fn datagram(&mut self, at: Instant, participant: &str, packet: &[u8]) {
        let now = self.now(at);
        let Some((sid, name)) = self.places.get_key_value(participant) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(name) {
            room.datagram(now, sid, packet, &mut self.outputs);
        }
    }

    /// What is heard of a participant now.
    pub fn heard(&mut self, participant: &str, sound: Sound) {
        if let Some((room, sid)) = self.room_of(participant) {
            room.heard(&sid, sound);
            let name = room.name().to_owned();
            self.schedule(&name);
        }
    }

    /// All who are heard were named: who is forwarded is chosen anew.
    pub fn listened(&mut self, at: Instant) {
        let now = self.now(at);
        let mut changed = Vec::new();
        for (name, room) in &mut self.rooms {
            if room.listened(now, &mut self.outputs) {
                changed.push(name.clone());
            }
        }
        for name in changed {
            self.schedule(&name);
        }
    }

    /// The network has no room for a track that a participant gets, or has again.
    pub fn starved(&mut self, at: Instant, participant: &str, track: &str, starved: bool) {
        let now = self.now(at);
        let Some((sid, name)) = self.places.get_key_value(participant) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(name) {
            room.starved(now, sid, track, starved, &mut self.outputs);
            let name = name.clone();
            self.schedule(&name);
        }
    }

    /// What who speaks on a connection may do now, whatever its token says.
    pub fn permission(&self, connection: Connection) -> Option<&ParticipantPermission> {
        let place = self.connections.get(&connection)?;
        self.rooms.get(&place.room)?.permission(&place.participant)
    }

    /// How a participant's connections do.
    pub fn measured(&mut self, participant: &str, measured: &Measured) {
        if let Some((room, sid)) = self.room_of(participant) {
            room.measured(&sid, measured);
        }
    }

    /// All have been measured: what has changed is told.
    pub fn tell_quality(&mut self) {
        for room in self.rooms.values_mut() {
            room.tell_quality(&mut self.outputs);
        }
    }

    fn room_of(&mut self, participant: &str) -> Option<(&mut Room, Sid)> {
        let (sid, name) = self.places.get_key_value(participant)?;
        Some((self.rooms.get_mut(name)?, sid.clone()))
    }

    /// There is a room of this name from now on.
    pub(crate) fn open(&mut self, now: Now, name: &str, wanted: &Wanted) {
        let config = &self.config;
        let new = || Room::new(now, name.to_owned(), config);
        let room = self.rooms.entry(name.to_owned()).or_insert_with(new);
        room.configure(wanted);
        room.tell("room_started", now, None, None, &mut self.outputs);
    }

    /// There is none of it any more.
    pub(crate) fn close(&mut self, now: Now, name: &str) {
        if let Some(room) = self.rooms.remove(name) {
            if let Some(due) = room.scheduled {
                self.due.remove(&(due, name.to_owned()));
            }
            room.tell("room_finished", now, None, None, &mut self.outputs);
        }
    }

    /// A participant has to go.
    pub(crate) fn remove(
        &mut self,
        now: Now,
        name: &str,
        participant: &Sid,
        reason: DisconnectReason,
    ) {
        self.places.remove(participant);
        let Some(room) = self.rooms.get_mut(name) else {
            return;
        };
        let connection = room.remove(now, participant, reason, &mut self.outputs);
        if let Some(connection) = connection {
            self.connections.remove(&connection);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, at: Instant) {
        let now = self.now(at);
        self.listed.handle_timeout(at);
        let mut due = std::mem::take(&mut self.due);
        let is_due = |(due, _): &(Instant, String)| *due <= at;
        let names: Vec<_> = due.extract_if(.., is_due).collect();
        self.due = due;
        for (_, name) in names {
            let Some(room) = self.rooms.get_mut(&name) else {
                continue;
            };
            room.scheduled = None;
            let over = room.handle_timeout(now, &mut self.outputs);
            for (participant, reason) in over {
                self.remove(now, &name, &participant, reason);
            }
            let over = self.rooms.get(&name).filter(|room| room.is_over(now));
            if let Some(over) = over {
                // Who is there for others goes with them.
                for sid in over.sids() {
                    self.remove(now, &name, &sid, DisconnectReason::RoomClosed);
                }
                self.close(now, &name);
            }
            self.schedule(&name);
        }
    }

    /// Something of a room has changed.
    pub(crate) fn schedule(&mut self, name: &str) {
        let Some(room) = self.rooms.get_mut(name) else {
            return;
        };
        let due = room.due();
        let before = std::mem::replace(&mut room.scheduled, due);
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, name.to_owned()));
        }
        if let Some(due) = due {
            self.due.insert((due, name.to_owned()));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let room = self.due.first().map(|(due, _)| *due);
        room.into_iter().chain(self.listed.due()).min()
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many rooms and participants there are.
    pub fn count(&self) -> (usize, usize) {
        (self.rooms.len(), self.places.len())
    }
}

/// Who joins again and again: each time costs all who are in the room.
#[derive(Debug, Default)]
struct Joins {
    /// By room and identity: what was so far is paid for until then.
    paid: HashMap<(String, String), Instant>,
    /// There were so many when it was looked last which are over.
    kept: usize,
}

impl Joins {
    const EACH: Duration = Duration::from_secs(2);
    /// There is no look at fewer.
    const FEW: usize = 1_024;

    fn may(&mut self, now: Instant, permit: &Permit, at_once: u32) -> bool {
        if self.paid.len() > 2 * self.kept.max(Self::FEW) {
            self.paid.retain(|_, paid| *paid > now);
            self.kept = self.paid.len();
        }
        let who = (permit.room.clone(), permit.identity.clone());
        let paid = self.paid.entry(who).or_insert(now);
        *paid = now.max(*paid);
        if *paid + Self::EACH > now + Self::EACH * at_once {
            return false;
        }
        *paid += Self::EACH;
        true
    }
}
