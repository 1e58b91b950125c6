// SPDX-License-Identifier: MPL-2.0

#![doc = "Rooms on an engine: brings together what clients say ([`sfu_rooms`]) and what carries their media ([`sfu_engine`]).\n\n\
One thread for all rooms, on which offers are written and read; media never waits for it. It knows no sockets: whoever has them \
hands over what comes ([`Host::join`], [`Host::say`], [`Host::closed`]) and is handed what is to be sent ([`Client`])."]

mod channels;
mod ingress;
mod joins;
mod late;
mod load;
mod media;
mod mlines;
mod names;
mod preferred;
mod publications;
mod redundancy;
mod share;
mod worker;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use bytes::Bytes;
use sfu_engine::data::ChannelId;
use sfu_engine::{Engine, SessionId, StreamName};
use sfu_rooms::proto::{IceServer, WebhookEvent};
use sfu_rooms::wire::Frame;
use sfu_rooms::{Call, Config, Connection, Fault, Hello, Keys, Permit, Refused, Sid, VideoGrants};

use channels::Lane;
use ingress::Wanted;
use load::{Load, Waiting};

/// What a client's connection is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToClient {
    /// Send this.
    Say(Frame),
    /// Close, after all that was said.
    Close,
}

/// The way to a client. Must return at once; `false`: it takes nothing any more, or not as fast as there is something to be told,
/// and its connection is given up.
pub type Client = Box<dyn FnMut(ToClient) -> bool + Send>;

/// The STUN and TURN servers for a participant of this name, with credentials that are good from now on.
pub type IceServers = Box<dyn Fn(&str) -> Vec<IceServer> + Send>;

/// Told of what happens in rooms. Must return at once.
pub type Events = Box<dyn FnMut(WebhookEvent) + Send>;

/// Gets the answer to a call of an application.
pub type Served = Box<dyn FnOnce(Result<Bytes, Fault>) + Send>;

/// Gets the outcome of a join: the connection's number, or why the client is not let in.
pub type Joined = Box<dyn FnOnce(Result<Connection, Refused>) + Send>;

/// Gets whether somebody would be let in.
pub type Admitted = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// What the thread is told.
pub(crate) enum Input {
    Join(Box<Join>),
    /// Whether who joins by that would get in.
    Ask(Box<(Permit, Admitted)>),
    Say {
        connection: Connection,
        frame: Frame,
        /// Among what waits of all, and of this connection.
        all: Waiting,
        own: Waiting,
    },
    Closed(Connection),
    /// Other streams are to be participants.
    Streams,
    Call(Box<(Call, Served)>),
    /// A session of the engine's is up.
    Up(SessionId),
    /// It is over.
    Over(SessionId),
    /// A channel to a participant is open.
    Opened {
        participant: Sid,
        lane: Lane,
        channel: ChannelId,
    },
    /// A participant has sent that on one of its own.
    Data {
        participant: Sid,
        lane: Lane,
        packet: Arc<[u8]>,
        waiting: [Waiting; 2],
    },
    Stop,
}

pub(crate) struct Join {
    pub(crate) connection: Connection,
    pub(crate) permit: Permit,
    pub(crate) hello: Hello,
    pub(crate) address: Option<IpAddr>,
    pub(crate) client: Client,
    pub(crate) joined: Joined,
}

/// See the crate's description. Stops its thread when dropped, if [`Host::stop`] has not done so.
#[derive(Debug)]
pub struct Host {
    inbox: Sender<Input>,
    waiting: Load,
    /// What of each connection waits.
    own: Arc<Mutex<HashMap<Connection, Load>>>,
    keys: Arc<Keys>,
    config: Config,
    streams: Arc<Wanted>,
    connections: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    /// Begins, with no rooms. Clients are let in by tokens of these keys.
    pub fn start(
        engine: Arc<Engine>,
        keys: Keys,
        config: Config,
        ice_servers: IceServers,
        events: Events,
    ) -> std::io::Result<Self> {
        let (inbox, inputs) = channel();
        let (waiting, keys) = (Load::default(), Arc::new(keys));
        let streams = Arc::<Wanted>::default();
        let mut worker = worker::Worker::new(
            engine,
            keys.clone(),
            config.clone(),
            (ice_servers, events),
            inbox.clone(),
            waiting.clone(),
            streams.clone(),
        );
        let thread = std::thread::Builder::new()
            .name("sfu-rooms".into())
            .spawn(move || worker.run(&inputs))?;
        Ok(Self {
            inbox,
            waiting,
            own: Arc::default(),
            keys,
            config,
            streams,
            connections: AtomicU64::new(0),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What a token allows, if it lets in.
    pub fn permit(&self, token: &str) -> Result<Permit, Refused> {
        self.keys.permit(token, unix_now(), &self.config.limits)
    }

    /// What a client says of itself by v1.
    pub fn hello<'a>(
        &self,
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Hello, Refused> {
        Hello::from_request(query, &self.config.limits)
    }

    /// A token for somebody whom this server itself lets in until then, in seconds of Unix time.
    pub fn invite(&self, who: (&str, &str, &str), publishes: bool, until: u64) -> Option<String> {
        self.keys.invite(who, publishes, until)
    }

    /// The longest name that somebody may have.
    pub fn longest_name(&self) -> usize {
        self.config.limits.name
    }

    /// What a token grants to who calls for an application.
    pub fn grants(&self, token: &str) -> Result<VideoGrants, Refused> {
        Ok(self.keys.claims(token, unix_now())?.video)
    }

    /// A stream of the engine's router is a participant of a room (LiveKit's kind INGRESS) from now on, whenever it has a publisher;
    /// its name is its identity. Returns whether that is new; `None`: there are too many.
    pub fn add_stream(&self, room: &str, stream: &StreamName) -> Option<bool> {
        let is_new = self.streams.add(room, stream);
        self.tell(Input::Streams);
        is_new
    }

    /// It is none any more. Returns whether it was.
    pub fn remove_stream(&self, room: &str, stream: &StreamName) -> bool {
        let was = self.streams.remove(room, stream);
        self.tell(Input::Streams);
        was
    }

    /// The streams that are participants of a room whenever they have a publisher.
    pub fn streams(&self, room: &str) -> Vec<StreamName> {
        self.streams.of(room)
    }

    /// An application calls.
    pub fn call(&self, call: Call, served: Served) {
        self.tell(Input::Call(Box::new((call, served))));
    }

    /// The largest message that a client may send.
    pub fn largest_message(&self) -> usize {
        self.config.limits.message
    }

    /// Somebody joins, or comes back. `address` is where from.
    pub fn join(
        &self,
        permit: Permit,
        hello: Hello,
        address: Option<IpAddr>,
        client: Client,
        joined: Joined,
    ) {
        let connection = Connection(self.connections.fetch_add(1, Relaxed));
        lock(&self.own).insert(connection, Load::default());
        let own = self.own.clone();
        let joined: Joined = Box::new(move |outcome| {
            if outcome.is_err() {
                lock(&own).remove(&connection);
            }
            joined(outcome);
        });
        let join = Join {
            connection,
            permit,
            hello,
            address,
            client,
            joined,
        };
        self.tell(Input::Join(Box::new(join)));
    }

    /// Whether who joins anew by that would be let in now.
    pub fn ask(&self, permit: Permit, admitted: Admitted) {
        self.tell(Input::Ask(Box::new((permit, admitted))));
    }

    /// A client has sent that.
    pub fn say(&self, connection: Connection, frame: Frame) {
        let Some(own) = lock(&self.own).get(&connection).cloned() else {
            return;
        };
        let octets = match &frame {
            Frame::Binary(octets) => octets.len(),
            Frame::Text(text) => text.len(),
        };
        let (all, own) = (self.waiting.add(octets), own.add(octets));
        self.tell(Input::Say {
            connection,
            frame,
            all,
            own,
        });
    }

    /// Whether so much waits already, of all clients or of this one, that who has more of it should wait before reading it.
    pub fn is_behind(&self, connection: Connection) -> bool {
        let own = lock(&self.own);
        self.waiting.is_behind() || own.get(&connection).is_some_and(Load::is_full)
    }

    /// A client's connection is closed. It may come back by another one.
    pub fn closed(&self, connection: Connection) {
        lock(&self.own).remove(&connection);
        self.tell(Input::Closed(connection));
    }

    fn tell(&self, input: Input) {
        // After its end there is nobody to be told.
        let _ = self.inbox.send(input);
    }

    /// Ends the thread. Returns when that is so.
    pub fn stop(&self) {
        self.tell(Input::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
