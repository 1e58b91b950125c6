// SPDX-License-Identifier: MPL-2.0

//! Somebody in a room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use livekit_protocol::participant_info::{Kind, State};
use livekit_protocol::{ParticipantInfo, ParticipantPermission, TrackSource};

use super::allowed::Allowed;
use super::data_track::DataTrack;
use super::offering::Offering;
use super::quality::Quality;
use super::track::Track;
use crate::claims::{self, Permit};
use crate::hello::Hello;
use crate::media::Wish;
use crate::rooms::{Connection, Now};
use crate::sid::Sid;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) sid: Sid,
    pub(super) kind: Kind,
    /// It is a stream of the server's, which nobody is behind.
    is_stream: bool,
    is_recorder: bool,
    is_agent: bool,
    pub(super) identity: String,
    pub(super) name: String,
    pub(super) metadata: String,
    pub(super) attributes: HashMap<String, String>,
    pub(super) permission: ParticipantPermission,
    pub(super) hello: Hello,
    pub(super) state: State,
    /// Grows with each change: clients take the newest of two.
    version: u32,
    joined_at_ms: i64,
    /// `None`: it is broken, and may come back. A stream has none.
    pub(super) connection: Option<Connection>,
    /// When it was last heard of, by its present connection or before that broke.
    pub(super) heard: Instant,
    /// When it last said something: what it was told later may be lost with its connection.
    pub(super) said: Instant,
    /// The number of its last message on the reliable channel. 0: it has numbered none.
    sequence: u32,
    /// When it gets another token.
    pub(super) refresh: Instant,
    pub(super) tracks: Vec<Track>,
    pub(super) data_tracks: Vec<DataTrack>,
    /// Data tracks of others that it wants.
    pub(super) data_subscriptions: BTreeSet<Sid>,
    /// By track.
    pub(super) subscriptions: BTreeMap<Sid, Subscription>,
    /// Tracks that it wants and has no m-line for.
    pub(super) waiting: BTreeSet<Sid>,
    /// There were more of them than are kept: once these have one it is looked for the others.
    pub(super) forgot: bool,
    /// The codecs of pictures that it takes, as it was last seen.
    pub(super) shows: Vec<String>,
    /// Tracks that it would get and does not want.
    pub(super) declined: BTreeSet<Sid>,
    /// Tracks that it has asked for, of who gets none by itself: whether it may have them just now or not.
    pub(super) asked_for: BTreeSet<Sid>,
    /// Who may have its tracks.
    allowed: Allowed,
    /// What the server offers it.
    pub(super) offering: Offering,
    /// The newest offer of its own that is being answered.
    pub(super) answering: Option<u32>,
    pub(super) quality: Quality,
    /// What it may not publish any more is to be out of its offers by then.
    pub(super) revoke: Option<Instant>,
}

/// A track that a participant wants.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) wish: Wish,
    /// The participant says how large it shows it.
    pub(super) on_screen: bool,
    /// It was offered, and taken.
    pub(super) told: bool,
    /// Enough others come before it.
    pub(super) outside: bool,
    /// The network has no room for it.
    pub(super) starved: bool,
    /// What the media was asked for last.
    pub(super) asked: Option<Wish>,
    /// What the participant was told last.
    pub(super) paused: bool,
}

impl Subscription {
    /// What is to be forwarded.
    pub(super) fn effective(&self) -> Wish {
        Wish {
            shown: self.wish.shown && !self.outside,
            ..self.wish
        }
    }

    /// The participant wants it and does not get it.
    pub(super) fn is_paused(&self) -> bool {
        self.wish.shown && (self.outside || self.starved)
    }
}

impl Participant {
    pub(super) fn new(now: Now, connection: Connection, permit: Permit, hello: Hello) -> Self {
        Self {
            connection: Some(connection),
            kind: permit.kind,
            is_recorder: permit.is_recorder(),
            is_agent: permit.is_agent(),
            name: permit.name,
            metadata: permit.metadata,
            attributes: permit.attributes,
            offering: Offering::new(hello.v1.is_some()),
            hello,
            ..Self::nobody(now, permit.identity, permit.permission)
        }
    }

    /// A stream of the server's, which nobody is behind.
    pub(super) fn ingress(now: Now, identity: &str) -> Self {
        let permission = ParticipantPermission {
            can_publish: true,
            ..ParticipantPermission::default()
        };
        Self {
            kind: Kind::Ingress,
            is_stream: true,
            name: identity.to_owned(),
            state: State::Active,
            ..Self::nobody(now, identity.to_owned(), permission)
        }
    }

    fn nobody(now: Now, identity: String, permission: ParticipantPermission) -> Self {
        Self {
            sid: Sid::participant(),
            kind: Kind::Standard,
            is_stream: false,
            is_recorder: false,
            is_agent: false,
            identity,
            name: String::new(),
            metadata: String::new(),
            attributes: HashMap::new(),
            permission,
            hello: Hello::default(),
            state: State::Joined,
            version: 0,
            joined_at_ms: now.unix().as_millis() as i64,
            connection: None,
            heard: now.at,
            said: now.at,
            sequence: 0,
            refresh: now.at,
            tracks: Vec::new(),
            data_tracks: Vec::new(),
            data_subscriptions: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            waiting: BTreeSet::new(),
            forgot: false,
            shows: Vec::new(),
            declined: BTreeSet::new(),
            asked_for: BTreeSet::new(),
            allowed: Allowed::default(),
            offering: Offering::default(),
            answering: None,
            quality: Quality::default(),
            revoke: None,
        }
    }

    /// Octets of what it says of itself without any structure.
    pub(super) fn texts(&self) -> usize {
        self.metadata.len() + claims::size(&self.attributes) + self.texts_of_data_tracks()
    }

    pub(super) fn texts_of_data_tracks(&self) -> usize {
        self.data_tracks.iter().map(DataTrack::texts).sum()
    }

    /// It is a stream of the server's, and has no connection that could break.
    pub(super) fn is_ingress(&self) -> bool {
        self.is_stream
    }

    /// It records the room.
    pub(super) fn is_recorder(&self) -> bool {
        self.is_recorder
    }

    /// It is there for others, and doesn't count as somebody.
    pub(super) fn is_dependent(&self) -> bool {
        self.is_recorder || self.is_agent
    }

    /// Whether a message on the reliable channel is new: who comes back says again what the server may not have got.
    pub(super) fn is_new(&mut self, sequence: u32) -> bool {
        // Not every client numbers its messages.
        let is_new = sequence == 0 || sequence > self.sequence;
        self.sequence = self.sequence.max(sequence);
        is_new
    }

    /// The number of the last message that came on the reliable channel.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Something of it came by its media. While its connection is broken that does not count: who only sends has not come back.
    pub(super) fn heard_of(&mut self, now: Now) {
        if self.connection.is_some() {
            self.heard = now.at;
        }
    }

    /// Something that others are told has changed.
    pub(super) fn changed(&mut self) {
        self.version += 1;
    }

    pub(super) fn is_publisher(&self) -> bool {
        self.tracks.iter().any(|track| track.live) || !self.data_tracks.is_empty()
    }

    pub(super) fn info(&self) -> ParticipantInfo {
        let live = self.tracks.iter().filter(|track| track.live);
        let data_tracks = self.data_tracks.iter();
        ParticipantInfo {
            sid: String::from(&self.sid),
            identity: self.identity.clone(),
            state: self.state.into(),
            tracks: live.map(|track| track.info().clone()).collect(),
            metadata: self.metadata.clone(),
            joined_at: self.joined_at_ms / 1_000,
            joined_at_ms: self.joined_at_ms,
            name: self.name.clone(),
            version: self.version,
            permission: Some(self.permission.clone()),
            is_publisher: self.is_publisher(),
            kind: self.kind.into(),
            attributes: self.attributes.clone(),
            client_protocol: self.hello.client_protocol,
            capabilities: self.hello.capabilities.clone(),
            data_tracks: data_tracks.map(|track| track.info().clone()).collect(),
            ..ParticipantInfo::default()
        }
    }

    pub(super) fn track(&mut self, sid: &str) -> Option<&mut Track> {
        self.tracks
            .iter_mut()
            .find(|track| track.sid.as_str() == sid)
    }

    pub(super) fn may_publish(&self, source: TrackSource) -> bool {
        let sources = &self.permission.can_publish_sources;
        self.permission.can_publish && (sources.is_empty() || sources.contains(&i32::from(source)))
    }

    /// Returns who might have its tracks until now.
    pub(super) fn set_allowed(&mut self, allowed: Allowed) -> Allowed {
        std::mem::replace(&mut self.allowed, allowed)
    }

    /// Whether it is to get a track as soon as it may: by itself, or since it has asked for it.
    pub(super) fn wants(&self, track: &Sid) -> bool {
        match self.hello.auto_subscribe {
            true => !self.declined.contains(track),
            false => self.asked_for.contains(track),
        }
    }

    /// Whether this one lets another one have its track.
    pub(super) fn allows(&self, other: &Participant, track: &Sid) -> bool {
        other.is_in(&self.allowed, track)
    }

    /// Whether these let it have a track.
    pub(super) fn is_in(&self, allowed: &Allowed, track: &Sid) -> bool {
        allowed.has(self.sid.as_str(), &self.identity, track.as_str())
    }
}
