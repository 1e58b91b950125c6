// SPDX-License-Identifier: MPL-2.0

//! One room: who is there, what each is told, and what is forwarded to whom.

mod allowed;
mod back;
mod data;
mod data_track;
mod data_tracks;
mod demand;
mod events;
mod forwarded;
mod ingress;
mod lifetime;
mod offering;
mod participant;
mod quality;
mod requests;
mod service;
mod speakers;
mod stage;
mod subscriptions;
mod track;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    self as proto, DisconnectReason, JoinResponse, LeaveRequest, ServerInfo, SessionDescription,
    SpeakersChanged, TrickleRequest, leave_request, server_info,
};

use crate::claims::Permit;
use crate::hello::{First, Hello};
use crate::media::{Command, Negotiated};
use crate::rooms::{Config, Connection, Now, Output};
use crate::sid::Sid;
use back::Left;
use data_track::Handles;
use participant::Participant;
use speakers::Speakers;
use stage::Stage;

/// The protocol's version that is spoken here, and a server's that speaks it: clients look at both.
const PROTOCOL: i32 = 17;
const VERSION: &str = "1.13.5";
/// Clients ask this often whether the server is there, and are taken for gone after that long.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// So long a participant without a connection may come back.
const RESUME: Duration = Duration::from_secs(20);
/// So long a room is kept that nobody has come to yet, where its creator says nothing else: LiveKit's own.
const EMPTY: Duration = Duration::from_secs(300);
/// How often a client gets another token.
const REFRESH: Duration = Duration::from_secs(300);
/// How many there are is told so long after somebody came.
const TELL_ROOM: Duration = Duration::from_secs(5);

/// Which layers are wanted is looked at anew so long after so many subscriptions were looked at: a hundredth of the time.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: u32 = 100;

/// To tell somebody of a change is reckoned as this, and each octet of it: some 50 MB a second for a room, and as much at once.
const TELL: Duration = Duration::from_micros(1);
const TELL_OCTET: Duration = Duration::from_nanos(20);
const TOLD_AT_ONCE: Duration = Duration::from_secs(1);

type Outputs = VecDeque<Output>;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Room {
    sid: Sid,
    name: String,
    config: Config,
    created: Duration,
    metadata: String,
    participants: BTreeMap<Sid, Participant>,
    left: Left,
    /// Of each track, and each data track.
    publishers: HashMap<Sid, Sid>,
    /// What data tracks are known by.
    handles: Handles,
    /// Who is to be told anew by which of them its data tracks go.
    stale_handles: BTreeSet<Sid>,
    /// Whose changes others are to be told of.
    changed: BTreeSet<Sid>,
    /// The same, at the end of the batch.
    quiet: BTreeSet<Sid>,
    batch: Option<Instant>,
    /// What was told so far is paid for until then.
    told: Instant,
    tell_room: Option<Instant>,
    speakers: Speakers,
    /// When it may be looked again at which layers are wanted, and whether there is a reason to.
    layers: (Instant, bool),
    /// Whose pictures, and whose sound, come first.
    faces: Stage,
    voices: Stage,
    /// For whom it is to be chosen anew what is forwarded.
    to_choose: BTreeSet<Sid>,
    /// Who is not to get which track any more.
    to_stop: Vec<(Sid, Sid)>,
    /// The same for all, when it is next looked at who speaks.
    is_order_stale: bool,
    empty_since: Option<Instant>,
    /// For who keeps when it is due.
    pub(crate) scheduled: Option<Instant>,
    /// How long it is kept when nobody has come, and after the last one has gone.
    empty_timeout: Duration,
    departure_timeout: Duration,
    had_somebody: bool,
    /// 0: as many as there may be.
    max_participants: u32,
}

impl Room {
    pub(crate) fn new(now: Now, name: String, config: &Config) -> Self {
        Self {
            sid: Sid::room(),
            name,
            config: config.clone(),
            created: now.unix(),
            metadata: String::new(),
            participants: BTreeMap::new(),
            left: Left::default(),
            publishers: HashMap::new(),
            handles: Handles::default(),
            stale_handles: BTreeSet::new(),
            changed: BTreeSet::new(),
            quiet: BTreeSet::new(),
            batch: None,
            told: now.at,
            tell_room: None,
            speakers: Speakers::default(),
            layers: (now.at, false),
            faces: Stage::new(config.last_n),
            voices: Stage::new(config.last_n),
            to_choose: BTreeSet::new(),
            to_stop: Vec::new(),
            is_order_stale: false,
            empty_since: Some(now.at),
            scheduled: None,
            empty_timeout: EMPTY,
            departure_timeout: config.empty_timeout,
            had_somebody: false,
            max_participants: 0,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there may be so many octets of texts, instead of those that this identity has.
    pub(crate) fn has_room_for(&self, octets: usize, identity: &str) -> bool {
        let others = self
            .participants
            .values()
            .filter(|p| p.identity != identity);
        others.map(Participant::texts).sum::<usize>() + octets <= self.config.limits.texts
    }

    pub(crate) fn of_identity(&self, identity: &str) -> Option<Sid> {
        let mut all = self.participants.values();
        all.find(|p| p.identity == identity).map(|p| p.sid.clone())
    }

    /// Somebody comes.
    pub(crate) fn join(
        &mut self,
        now: Now,
        connection: Connection,
        permit: Permit,
        mut hello: Hello,
        out: &mut Outputs,
    ) -> Sid {
        let first = hello.v1.as_mut().map(std::mem::take);
        let mut participant = Participant::new(now, connection, permit, hello);
        participant.refresh = now.at + REFRESH;
        let sid = participant.sid.clone();
        let join = self.join_response(&participant);
        out.push_back(Output::Send(connection, Box::new(Message::Join(join))));
        out.push_back(Output::Refresh(connection));
        let speaking = self.speakers.all();
        if !speaking.is_empty() {
            let speaking = SpeakersChanged { speakers: speaking };
            out.push_back(Output::Send(
                connection,
                Box::new(Message::SpeakersChanged(speaking)),
            ));
        }
        participant.offering.again(now.at, false);
        // That the room is recorded is told at once.
        let delay = match participant.is_recorder() {
            true => Duration::ZERO,
            false => TELL_ROOM,
        };
        self.add(participant);
        self.tell_room_in(now, delay);
        self.subscribe_to_all(now, &sid, out);
        self.subscribe_to_all_data(&sid);
        if let Some(First { offer, tracks }) = first {
            for track in tracks {
                self.add_track(now, &sid, track, out);
            }
            if let Some(offer) = offer {
                self.offered(&sid, offer, out);
            }
        }
        self.settle(now, out);
        sid
    }

    fn add(&mut self, participant: Participant) {
        self.faces.add(&participant.sid);
        self.voices.add(&participant.sid);
        if !participant.is_dependent() {
            self.empty_since = None;
            self.had_somebody = true;
        }
        self.participants
            .insert(participant.sid.clone(), participant);
    }

    fn join_response(&self, participant: &Participant) -> JoinResponse {
        let others = self.participants.values().filter(|p| !p.permission.hidden);
        JoinResponse {
            room: Some(self.info()),
            participant: Some(participant.info()),
            other_participants: others.map(Participant::info).collect(),
            server_version: VERSION.into(),
            server_info: Some(server_info()),
            // By v1 there is one connection.
            subscriber_primary: participant.hello.v1.is_none(),
            ping_interval: PING_INTERVAL.as_secs() as i32,
            ping_timeout: PING_TIMEOUT.as_secs() as i32,
            enabled_publish_codecs: self.config.codecs.clone(),
            fast_publish: true,
            ..JoinResponse::default()
        }
    }

    pub(crate) fn info(&self) -> proto::Room {
        let visible = self.participants.values().filter(|p| !p.permission.hidden);
        let publishers = visible.clone().filter(|p| p.is_publisher());
        proto::Room {
            sid: String::from(&self.sid),
            name: self.name.clone(),
            empty_timeout: self.empty_timeout.as_secs() as u32,
            departure_timeout: self.departure_timeout.as_secs() as u32,
            max_participants: self.max_participants,
            creation_time: self.created.as_secs() as i64,
            creation_time_ms: self.created.as_millis() as i64,
            enabled_codecs: self.config.codecs.clone(),
            metadata: self.metadata.clone(),
            num_participants: visible.filter(|p| !p.is_dependent()).count() as u32,
            active_recording: self.participants.values().any(Participant::is_recorder),
            num_publishers: publishers.count() as u32,
            ..proto::Room::default()
        }
    }

    /// Somebody goes. Returns the connection, which is told why and closed.
    pub(crate) fn remove(
        &mut self,
        now: Now,
        sid: &Sid,
        reason: DisconnectReason,
        out: &mut Outputs,
    ) -> Option<Connection> {
        let mut gone = self.participants.remove(sid)?;
        if let Some(connection) = gone.connection {
            let leave = LeaveRequest {
                reason: reason.into(),
                action: match reason {
                    DisconnectReason::MediaFailure => leave_request::Action::Reconnect.into(),
                    _ => leave_request::Action::Disconnect.into(),
                },
                can_reconnect: reason == DisconnectReason::MediaFailure,
                ..LeaveRequest::default()
            };
            out.push_back(Output::Send(connection, Box::new(Message::Leave(leave))));
            out.push_back(Output::Close(connection));
        }
        out.push_back(Output::Media(Command::End {
            participant: sid.clone(),
        }));
        for track in &gone.tracks {
            self.publishers.remove(&track.sid);
            self.unsubscribe_all(now, &track.sid);
            if track.live {
                self.tell_of("track_unpublished", now, &gone, Some(track), out);
            }
        }
        let was_active = gone.state == State::Active;
        self.changed.remove(sid);
        self.quiet.remove(sid);
        self.speakers.forget(sid);
        self.faces.remove(sid);
        self.voices.remove(sid);
        self.to_choose.remove(sid);
        gone.changed();
        gone.state = State::Disconnected;
        gone.tracks.clear();
        self.forget_data_of(&mut gone);
        let mut info = gone.info();
        info.disconnect_reason = reason.into();
        if !gone.permission.hidden {
            self.tell_others(sid, &info, out);
            self.left.add(now.at, &info);
        }
        if was_active {
            self.tell("participant_left", now, Some(info), None, out);
        }
        if self.is_deserted() {
            self.empty_since.get_or_insert(now.at);
        }
        self.tell_room_in(now, Duration::ZERO);
        self.settle(now, out);
        gone.connection
    }

    /// What became of somebody's media. Returns why it has to go, if it has.
    pub(crate) fn negotiated(
        &mut self,
        now: Now,
        sid: &Sid,
        what: Negotiated,
        out: &mut Outputs,
    ) -> Option<DisconnectReason> {
        let participant = self.participants.get_mut(sid)?;
        let connection = participant.connection;
        match what {
            Negotiated::Answered { sdp, tracks } => {
                // Without what it may not publish any more: that was not expected.
                participant.revoke = None;
                let id = participant.answering.take()?;
                let answer = SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id,
                    ..SessionDescription::default()
                };
                say(connection, Message::Answer(answer), out);
                self.published(now, sid, &tracks, out);
            }
            Negotiated::Conversed {
                sdp,
                tracks,
                mids,
                free,
                shows,
            } => {
                participant.revoke = None;
                participant.shows = shows;
                let id = participant.answering.take()?;
                let answer = SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id,
                    mid_to_track_id: participant.offering.conversed(now.at, &mids, free),
                };
                say(connection, Message::Answer(answer), out);
                self.published(now, sid, &tracks, out);
                self.carried(sid, out);
            }
            Negotiated::Accepted { shows } => participant.shows = shows,
            Negotiated::Refused(reason) => {
                tracing::info!(participant = %sid, %reason, "an offer can't be taken");
                return Some(DisconnectReason::MediaFailure);
            }
            Negotiated::Offered { sdp, mids } => {
                let offer = participant.offering.made(sdp, &mids)?;
                match connection {
                    Some(_) => say(connection, Message::Offer(offer), out),
                    None => participant.offering.failed(now.at),
                }
            }
            Negotiated::Candidate {
                publisher,
                candidate,
                last,
            } => {
                let target = match publisher {
                    true => proto::SignalTarget::Publisher,
                    false => proto::SignalTarget::Subscriber,
                };
                let trickle = TrickleRequest {
                    candidate_init: candidate,
                    target: target.into(),
                    r#final: last,
                };
                say(connection, Message::Trickle(trickle), out);
            }
            Negotiated::Connected { publisher } => {
                // What clients begin with: the one that the server offers, or the only one.
                if !publisher && participant.state != State::Active {
                    participant.state = State::Active;
                    participant.changed();
                    self.note(now, sid);
                    if let Some(participant) = self.participants.get(sid) {
                        self.tell_of("participant_joined", now, participant, None, out);
                    }
                }
            }
            Negotiated::Lost => return Some(DisconnectReason::MediaFailure),
        }
        self.settle(now, out);
        None
    }

    /// Tells what has changed, and what is to be offered.
    fn settle(&mut self, now: Now, out: &mut Outputs) {
        self.tell_changes(now, out);
        self.tell_handles(now, out);
        self.subscribe_who_waits(now, out);
        self.choose(out);
        if self.layers.0 > now.at {
            self.layers.1 = true;
        } else {
            let looked_at = self.ask_for_layers(now, out);
            self.layers = (now.at + LOOK * (looked_at / LOOKS), false);
        }
        for participant in self.participants.values_mut() {
            // Who is away is offered nothing before it is back.
            let Some(_) = participant.connection else {
                continue;
            };
            if let Some(required) = participant.offering.require(now.at) {
                let required = Message::MediaSectionsRequirement(required);
                say(participant.connection, required, out);
            }
            if let Some((sections, restart_ice)) = participant.offering.next(now.at) {
                out.push_back(Output::Media(Command::Offer {
                    participant: participant.sid.clone(),
                    sections,
                    restart_ice,
                }));
            }
        }
    }

    /// Does what is due. Returns who has to go, and why.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Now,
        out: &mut Outputs,
    ) -> Vec<(Sid, DisconnectReason)> {
        let mut over = Vec::new();
        for participant in self.participants.values_mut() {
            match participant.connection {
                Some(connection) if now.at >= participant.heard + PING_TIMEOUT => {
                    out.push_back(Output::Close(connection));
                    participant.connection = None;
                    participant.heard = now.at;
                }
                Some(connection) if now.at >= participant.refresh => {
                    participant.refresh = now.at + REFRESH;
                    out.push_back(Output::Refresh(connection));
                }
                _ if participant.revoke.is_some_and(|at| now.at >= at) => {
                    over.push((
                        participant.sid.clone(),
                        DisconnectReason::ParticipantRemoved,
                    ));
                }
                None if !participant.is_ingress() && now.at >= participant.heard + RESUME => {
                    over.push((participant.sid.clone(), DisconnectReason::SignalClose));
                }
                _ => {}
            }
        }
        self.left.forget(now.at);
        if self.batch.is_some_and(|at| now.at >= at) {
            self.batch = None;
            self.changed.append(&mut self.quiet);
        }
        if self.tell_room.is_some_and(|at| now.at >= at) {
            self.tell_room_now(out);
        }
        let speakers = self.speakers.changes(now.at);
        if !speakers.is_empty() {
            self.tell_all(&Message::SpeakersChanged(SpeakersChanged { speakers }), out);
        }
        self.settle(now, out);
        over
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let people = self.participants.values().filter(|p| !p.is_ingress());
        let each = people.map(|p| match p.connection {
            Some(_) => (p.heard + PING_TIMEOUT).min(p.refresh),
            None => p.heard + RESUME,
        });
        let layers = self.participants.values().flat_map(|p| &p.tracks);
        let layers = layers.filter_map(|track| track.demands.due());
        let revoked = self.participants.values().filter_map(|p| p.revoke);
        let connected = self
            .participants
            .values()
            .filter(|p| p.connection.is_some());
        let offers = connected.filter_map(|p| p.offering.due());
        let empty = self.empty_until();
        let changes = self.told.checked_sub(TOLD_AT_ONCE);
        let is_told_all = self.changed.is_empty() && self.stale_handles.is_empty();
        let changes = changes.filter(|_| !is_told_all);
        let layers_again = Some(self.layers.0).filter(|_| self.layers.1);
        let own = [self.batch, self.tell_room, self.speakers.due(), empty];
        let own = own.into_iter().chain([layers_again, changes]);
        each.chain(layers)
            .chain(offers)
            .chain(revoked)
            .chain(own.flatten())
            .min()
    }
}

/// Tells somebody, if it is connected.
fn say(to: Option<Connection>, message: Message, out: &mut Outputs) {
    if let Some(connection) = to {
        out.push_back(Output::Send(connection, Box::new(message)));
    }
}

/// Tells all of these that are connected. Returns how many.
fn tell<'a>(to: impl Iterator<Item = &'a Participant>, message: Message, out: &mut Outputs) -> u32 {
    let to: Vec<_> = to.filter_map(|p| p.connection).collect();
    let told = to.len() as u32;
    if told > 0 {
        out.push_back(Output::Tell(to, Box::new(message)));
    }
    told
}

fn server_info() -> ServerInfo {
    ServerInfo {
        edition: server_info::Edition::Standard.into(),
        version: VERSION.into(),
        protocol: PROTOCOL,
        ..ServerInfo::default()
    }
}
