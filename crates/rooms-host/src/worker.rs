// SPDX-License-Identifier: MPL-2.0

//! The thread that all rooms are on: what comes is done in the order in which it comes.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use sfu_engine::{Engine, SessionInfo, SessionObserver};
use sfu_rooms::proto::{signal_request, signal_response};
use sfu_rooms::wire::{self, Encoding, Frame};
use sfu_rooms::{Command, Config, Connection, Keys, Negotiated, Output, Permit, Rooms, Sid};

use crate::channels::Lane;
use crate::ingress::{Ingresses, Wanted};
use crate::joins::{Joins, Who};
use crate::late::AGAIN;
use crate::load::{Load, Waiting};
use crate::media::Media;
use crate::share::Share;
use crate::{Client, Events, IceServers, Input, Join, ToClient, unix_now};

/// So often is listened to who speaks: twice for each time that clients are told.
const LISTEN: Duration = Duration::from_millis(200);
/// So often it is looked at how good connections are, as LiveKit's server does.
const MEASURE: Duration = Duration::from_secs(5);
/// The thread wakes up at least this often.
const AT_LEAST: Duration = Duration::from_secs(1);

/// See the module's description.
pub(crate) struct Worker {
    engine: Arc<Engine>,
    rooms: Rooms,
    media: Media,
    ingresses: Ingresses,
    clients: HashMap<Connection, Held>,
    keys: Arc<Keys>,
    ice_servers: IceServers,
    events: Events,
    joins: Joins,
    /// Whose messages wait, since they have taken their share of the time.
    resting: BTreeSet<(Instant, Connection)>,
    listen: Instant,
    measure: Instant,
}

/// A client's connection.
struct Held {
    client: Client,
    encoding: Encoding,
    permit: Permit,
    share: Share,
}

impl Held {
    fn who(&self) -> Who {
        (self.permit.room.clone(), self.permit.identity.clone())
    }
}

/// Tells the thread of the engine's sessions.
#[derive(Debug)]
struct Observer(Sender<Input>);

impl SessionObserver for Observer {
    fn connected(&self, session: &SessionInfo) {
        // After its end there is nobody to be told.
        let _ = self.0.send(Input::Up(session.id));
    }

    fn ended(&self, session: &SessionInfo) {
        let _ = self.0.send(Input::Over(session.id));
    }
}

impl Worker {
    pub(crate) fn new(
        engine: Arc<Engine>,
        keys: Arc<Keys>,
        config: Config,
        (ice_servers, events): (IceServers, Events),
        inbox: Sender<Input>,
        waiting: Load,
        streams: Arc<Wanted>,
    ) -> Self {
        let now = Instant::now();
        Self {
            engine: engine.clone(),
            rooms: Rooms::new(config, now, SystemTime::now()),
            ingresses: Ingresses::new(streams, now),
            media: Media::new(engine, Arc::new(Observer(inbox.clone())), inbox, waiting),
            clients: HashMap::new(),
            keys,
            ice_servers,
            events,
            joins: Joins::new(now),
            resting: BTreeSet::new(),
            listen: now,
            measure: now,
        }
    }

    /// Until it is told to stop.
    pub(crate) fn run(&mut self, inputs: &Receiver<Input>) {
        loop {
            let input = match inputs.recv_timeout(self.pause()) {
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
            };
            // What one client brings about must not end the rooms of all.
            let done = catch_unwind(AssertUnwindSafe(|| self.step(Instant::now(), input)));
            if done.is_err() {
                tracing::error!("a step of the rooms' thread failed");
            }
        }
    }

    fn pause(&self) -> Duration {
        let due = self.rooms.poll_timeout();
        let listen = self.media.has_sound().then_some(self.listen);
        let measure = self.media.has_parties().then_some(self.measure);
        let resting = self.resting.first().map(|(at, _)| *at);
        let now = Instant::now();
        let late = self.media.is_late().then(|| now + AGAIN);
        let again = self.media.due_again(now);
        let own = [due, listen, measure, resting, late, again];
        let all = own.into_iter().chain([self.ingresses.due()]);
        let next = all.flatten().min();
        next.map_or(AT_LEAST, |at| {
            at.saturating_duration_since(Instant::now()).min(AT_LEAST)
        })
    }

    fn step(&mut self, now: Instant, input: Option<Input>) {
        match input {
            Some(Input::Join(join)) => self.join(now, *join),
            Some(Input::Ask(asked)) => {
                let (permit, admitted) = *asked;
                admitted(self.rooms.admits(&permit));
            }
            Some(Input::Say {
                connection,
                frame,
                all,
                own,
            }) => {
                drop(all);
                self.said(now, connection, frame, own);
            }
            Some(Input::Call(call)) => {
                let (call, served) = *call;
                let answer = self.rooms.serve(now, &call);
                // Done before it is said to be.
                self.settle(now);
                served(answer);
            }
            Some(Input::Closed(connection)) => self.closed(now, connection),
            Some(Input::Streams) => self.ingresses.wake(now),
            Some(Input::Up(session)) => {
                if let Some((participant, publisher)) = self.media.of_session(session) {
                    let up = Negotiated::Connected { publisher };
                    self.rooms.negotiated(now, participant.as_str(), up);
                }
            }
            Some(Input::Over(session)) => {
                if let Some((participant, _)) = self.media.of_session(session) {
                    self.rooms
                        .negotiated(now, participant.as_str(), Negotiated::Lost);
                }
            }
            Some(Input::Opened {
                participant,
                lane,
                channel,
            }) => self.media.opened(&participant, lane, channel),
            Some(Input::Data {
                participant,
                lane,
                packet,
                waiting,
            }) => {
                drop(waiting);
                self.pass_on(now, &participant, lane, &packet);
            }
            Some(Input::Stop) | None => {}
        }
        self.media.send_late(now);
        self.media.try_again(now);
        self.hear_who_has_rested(now);
        if self.ingresses.due().is_some_and(|at| at <= now) {
            let (rooms, media) = (&mut self.rooms, &mut self.media);
            self.ingresses.follow(now, rooms, media, &self.engine);
        }
        if self.listen <= now {
            self.listen = now + LISTEN;
            self.look(now);
        }
        if self.measure <= now {
            self.measure = now + MEASURE;
            for (participant, measured) in self.media.measure(now) {
                self.rooms.measured(participant.as_str(), &measured);
            }
            self.rooms.tell_quality();
        }
        if self.rooms.poll_timeout().is_some_and(|at| at <= now) {
            self.rooms.handle_timeout(now);
        }
        self.settle(now);
    }

    /// A participant has sent that, and pays for what comes of it. What it can't pay for is lost.
    fn pass_on(&mut self, now: Instant, from: &Sid, lane: Lane, packet: &[u8]) {
        if !self.media.may_send(from, now, lane) {
            return;
        }
        match lane {
            Lane::Reliable => self.rooms.data(now, from.as_str(), true, packet),
            Lane::Lossy => self.rooms.data(now, from.as_str(), false, packet),
            Lane::DataTracks => self.rooms.datagram(now, from.as_str(), packet),
        }
        let delivered = self.settle(now);
        self.media.has_sent(from, now, packet.len(), delivered);
    }

    /// What media has come to since the last look.
    fn look(&mut self, now: Instant) {
        for (participant, sound) in self.media.sounds(now) {
            self.rooms.heard(participant.as_str(), sound);
        }
        self.rooms.listened(now);
        for (participant, track, starved) in self.media.starvations() {
            self.rooms
                .starved(now, participant.as_str(), track.as_str(), starved);
        }
    }

    /// Somebody comes. What that takes, with all that follows, is its affair, and that of where it comes from.
    fn join(&mut self, now: Instant, join: Join) {
        let (connection, address) = (join.connection, join.address);
        // Who comes back has a place already, and few tries.
        let is_new = join.hello.resumes.is_none();
        if is_new && let Err(refused) = self.joins.may(now, address) {
            return (join.joined)(Err(refused));
        }
        let who = (join.permit.room.clone(), join.permit.identity.clone());
        let began = Instant::now();
        self.let_in(now, join);
        self.settle(now);
        let took = began.elapsed();
        self.joins.spend(now, address, took);
        // With what it has taken by a connection before, be it one whose place this one has taken just now.
        let mut share = Share::new(self.joins.debt(now, &who));
        share.spend(now, took);
        match self.clients.get_mut(&connection) {
            Some(held) => held.share.owe(share.even()),
            // It has gone again, or was not let in.
            None => self.joins.owe(now, who, share.even()),
        }
    }

    fn let_in(&mut self, now: Instant, join: Join) {
        let Join {
            connection,
            permit,
            hello,
            address,
            client,
            joined,
        } = join;
        let held = Held {
            client,
            encoding: match hello.json {
                true => Encoding::Json,
                false => Encoding::default(),
            },
            permit: permit.clone(),
            share: Share::new(now),
        };
        let (room, identity) = held.who();
        match self.rooms.join(now, connection, permit, hello) {
            Ok(participant) => {
                if let Some(participant) = participant {
                    self.media
                        .enter(now, &participant, &room, &identity, address);
                }
                self.clients.insert(connection, held);
                joined(Ok(connection));
            }
            Err(refused) => joined(Err(refused)),
        }
    }

    /// A client has said something: heard at once, if it has not had its share of the time.
    fn said(&mut self, now: Instant, connection: Connection, frame: Frame, own: Waiting) {
        let Some(held) = self.clients.get_mut(&connection) else {
            return;
        };
        match held.share.put_off(now, frame, own) {
            Some(frame) => self.take_time(now, connection, &frame),
            None => self.rest(now, connection),
        }
    }

    fn hear_who_has_rested(&mut self, now: Instant) {
        while let Some(&(at, connection)) = self.resting.first()
            && at <= now
        {
            self.resting.pop_first();
            let held = self.clients.get_mut(&connection);
            if let Some(frame) = held.and_then(|held| held.share.next()) {
                self.take_time(now, connection, &frame);
                self.rest(now, connection);
            }
        }
    }

    fn rest(&mut self, now: Instant, connection: Connection) {
        let held = self.clients.get(&connection);
        if let Some(at) = held.and_then(|held| held.share.due(now)) {
            self.resting.insert((at, connection));
        }
    }

    /// Does what a client wants, with all that follows, which is its affair.
    fn take_time(&mut self, now: Instant, connection: Connection, frame: &Frame) {
        let began = Instant::now();
        self.hear(now, connection, frame);
        self.settle(now);
        if let Some(held) = self.clients.get_mut(&connection) {
            held.share.spend(now, began.elapsed());
        }
    }

    fn hear(&mut self, now: Instant, connection: Connection, frame: &Frame) {
        let Some(held) = self.clients.get_mut(&connection) else {
            return;
        };
        if matches!(frame, Frame::Text(_)) {
            held.encoding = Encoding::Json;
        }
        match wire::read(frame) {
            Ok(Some(message)) => self.receive(now, connection, message),
            Ok(None) => tracing::debug!(?connection, "a message of a kind that is not known"),
            Err(error) => tracing::debug!(?connection, %error, "not understood"),
        }
    }

    fn receive(&mut self, now: Instant, from: Connection, message: signal_request::Message) {
        tracing::trace!(connection = from.0, ?message, "a client says");
        self.rooms.receive(now, from, message);
    }

    fn closed(&mut self, now: Instant, connection: Connection) {
        if let Some(held) = self.clients.remove(&connection) {
            self.joins.owe(now, held.who(), held.share.even());
            self.rooms.closed(now, connection);
        }
    }

    /// Everything that follows at once. Returns how many packets of data were sent.
    fn settle(&mut self, now: Instant) -> usize {
        let mut delivered = 0;
        while let Some(output) = self.rooms.poll() {
            match output {
                Output::Send(connection, message) => self.say(now, connection, *message),
                Output::Tell(to, message) => self.tell(now, &to, &message),
                Output::Refresh(connection) => {
                    if let Some(token) = self.renewed(connection) {
                        let message = signal_response::Message::RefreshToken(token);
                        self.say(now, connection, message);
                    }
                }
                Output::Event(event) => (self.events)(*event),
                Output::Close(connection) => {
                    if let Some(mut held) = self.clients.remove(&connection) {
                        (held.client)(ToClient::Close);
                        self.joins.owe(now, held.who(), held.share.even());
                    }
                    self.rooms.closed(now, connection);
                }
                Output::Media(command) => {
                    let is_data =
                        matches!(command, Command::Data { .. } | Command::Datagram { .. });
                    delivered += usize::from(is_data);
                    if let Some((participant, outcome)) = self.media.obey(command) {
                        self.rooms.negotiated(now, participant.as_str(), outcome);
                    }
                }
            }
        }
        delivered
    }

    /// A client's next token, with what it may do by now.
    fn renewed(&mut self, connection: Connection) -> Option<String> {
        let held = self.clients.get_mut(&connection)?;
        if let Some(permission) = self.rooms.permission(connection) {
            held.permit.allow(permission);
        }
        self.keys.renew(&held.permit, unix_now())
    }

    fn say(&mut self, now: Instant, to: Connection, mut message: signal_response::Message) {
        let Some(held) = self.clients.get_mut(&to) else {
            return;
        };
        let identity = &held.permit.identity;
        match &mut message {
            signal_response::Message::Join(join) => {
                join.ice_servers = (self.ice_servers)(identity);
            }
            signal_response::Message::Reconnect(reconnect) => {
                reconnect.ice_servers = (self.ice_servers)(identity);
            }
            _ => {}
        }
        let frame = written(message, held.encoding);
        self.hand(now, to, frame);
    }

    /// The same to many: it is written once.
    fn tell(&mut self, now: Instant, to: &[Connection], message: &signal_response::Message) {
        let mut frames = [None, None];
        for connection in to {
            let Some(held) = self.clients.get(connection) else {
                continue;
            };
            let encoding = held.encoding;
            let frame = &mut frames[usize::from(encoding == Encoding::Json)];
            let frame = frame.get_or_insert_with(|| written(message.clone(), encoding));
            self.hand(now, *connection, frame.clone());
        }
    }

    fn hand(&mut self, now: Instant, to: Connection, frame: Option<Frame>) {
        let client = self.clients.get_mut(&to).map(|held| &mut held.client);
        if let (Some(client), Some(frame)) = (client, frame)
            && !client(ToClient::Say(frame))
        {
            // It may come back, and is told anew then.
            self.closed(now, to);
        }
    }
}

fn written(message: signal_response::Message, encoding: Encoding) -> Option<Frame> {
    let written = wire::write(message, encoding);
    written
        .inspect_err(|error| tracing::error!(%error, "a message can't be written"))
        .ok()
}
