// SPDX-License-Identifier: MPL-2.0
//! The listener, the table of connections, and what they share.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_elements::signals::Signals;
use sfu_tls::rustls::ServerConfig;
use sfu_tls::{Certificates, TlsError};

use super::CAT;
use super::access::Door;
use super::client;
use super::imp::lock;
use super::output::Output;
use super::settings::Settings;
use super::stats::{Stats, count};
use super::stream::Stream;
use super::told::{Refusal, Told};

/// The signals of a publisher.
pub(super) const JOINED: &str = "publisher-joined";
pub(super) const LEFT: &str = "publisher-left";
/// Connections at a time. One publishes, the others are on their way in or out.
const MAX_CONNECTIONS: usize = 32;
/// How long a publisher must have been silent for one of the same key to take its place.
const SILENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether the certificate has changed.
const REFRESH: Duration = Duration::from_secs(1);
/// How often the listener looks whether someone came, or it is to stop.
const TICK: Duration = Duration::from_millis(50);

/// With which RTMPS is spoken.
#[derive(Debug)]
pub(super) struct Tls {
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(certificates: Option<Arc<Certificates>>) -> Result<Option<Self>, TlsError> {
        let tls = certificates.map(|certificates| {
            let config = certificates.server(&[])?;
            Ok(Self {
                certificates,
                config,
            })
        });
        tls.transpose()
    }
}

/// What the connections share from one start of the element to its stop.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) element: glib::WeakRef<super::RtmpServerSrc>,
    pub(super) settings: Settings,
    pub(super) door: Door,
    tls: Option<Tls>,
    pub(super) outputs: [Arc<Output>; 2],
    pub(super) stats: Arc<Stats>,
    pub(super) stopping: AtomicBool,
    /// Between PAUSED and PLAYING there is no time that anything could be dated by.
    pub(super) playing: AtomicBool,
    /// The connection that publishes.
    publisher: Mutex<Option<Publisher>>,
    connections: Mutex<BTreeMap<u64, Connection>>,
    /// The connection that the application ends; 0: none. They are counted from 1.
    kicked: AtomicU64,
    signals: Option<Signals>,
    told: Told,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    thread: JoinHandle<()>,
}

/// Who publishes.
#[derive(Debug)]
struct Publisher {
    id: u64,
    key: String,
    last_media: Instant,
}

/// The right to publish, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease(Arc<Shared>);

impl Lease {
    /// Takes it, from a publisher of the same key too if that one sends nothing any more: its network is gone, and it is
    /// back by another way. Waits until that is sure. None if someone else has it.
    pub(super) fn take(shared: &Arc<Shared>, id: u64, key: &str) -> Option<Self> {
        let came = Instant::now();
        let mut ended = false;
        while came.elapsed() < 2 * SILENCE && !shared.stopping.load(Relaxed) {
            let mut publisher = lock(&shared.publisher);
            let Some(other) = publisher.as_ref() else {
                *publisher = Some(Publisher {
                    id,
                    key: key.to_owned(),
                    last_media: Instant::now(),
                });
                return Some(Self(Arc::clone(shared)));
            };
            // Who has just begun may not have sent anything yet.
            if other.key != key || (other.last_media > came && !ended) {
                return None;
            }
            let silent = other.last_media.elapsed() >= SILENCE;
            let other = other.id;
            drop(publisher);
            if silent && !ended {
                ended = true;
                shared.end(other);
            }
            std::thread::sleep(TICK);
        }
        None
    }

    fn with(&self, look: impl FnOnce(&mut Publisher)) {
        if let Some(publisher) = &mut *lock(&self.0.publisher) {
            look(publisher);
        }
    }

    /// Media has come.
    pub(super) fn refresh(&self) {
        self.with(|publisher| publisher.last_media = Instant::now());
    }

    /// How long none has come.
    pub(super) fn silence(&self) -> Duration {
        let mut silence = Duration::ZERO;
        self.with(|publisher| silence = publisher.last_media.elapsed());
        silence
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.0.publisher) = None;
    }
}

impl Shared {
    pub(super) fn new(
        element: &super::RtmpServerSrc,
        settings: Settings,
        (door, tls): (Door, Option<Tls>),
        outputs: [Arc<Output>; 2],
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            element: element.downgrade(),
            settings,
            door,
            tls,
            outputs,
            stats,
            stopping: AtomicBool::new(false),
            playing: AtomicBool::new(false),
            publisher: Mutex::default(),
            connections: Mutex::default(),
            kicked: AtomicU64::new(0),
            signals: Signals::start(element).ok(),
            told: Told::default(),
        }
    }

    pub(super) fn connected(&self) -> bool {
        lock(&self.publisher).is_some()
    }

    pub(super) fn running_time(&self) -> Option<gst::ClockTime> {
        if !self.playing.load(Relaxed) {
            return None;
        }
        self.element.upgrade()?.current_running_time()
    }

    /// Tells the application that a publisher came or went.
    pub(super) fn announce(&self, connected: bool, reason: &str) {
        let Some(element) = self.element.upgrade() else {
            return;
        };
        let details = gst::Structure::builder("rtmp-publisher-changed")
            .field("connected", connected)
            .field("reason", reason)
            .field("running-time", element.current_running_time())
            .build();
        let signal = if connected { JOINED } else { LEFT };
        if let Some(signals) = &self.signals {
            signals.emit(signal, details.clone());
        }
        let message = gst::message::Element::builder(details)
            .src(&element)
            .build();
        let _ = element.post_message(message);
        if connected {
            element.notify("connected");
        }
    }

    /// Tells who listens that the publisher that was announced to be gone has made room.
    pub(super) fn notify(&self) {
        if let Some(element) = self.element.upgrade() {
            element.notify("connected");
        }
    }

    /// Ends whoever publishes, as the application wants it. Returns whether there is somebody. Never waits.
    pub(super) fn kick(&self) -> bool {
        let publisher = lock(&self.publisher).as_ref().map(|publisher| publisher.id);
        self.kicked.store(publisher.unwrap_or(0), Relaxed);
        publisher.is_some()
    }

    pub(super) fn is_kicked(&self, id: u64) -> bool {
        self.kicked.load(Relaxed) == id
    }

    /// Ends a connection that another one takes over from.
    fn end(&self, id: u64) {
        if let Some(connection) = lock(&self.connections).get(&id) {
            gst::info!(CAT, "Client {id} is silent, and comes again as another one");
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
    }

    fn admit(self: &Arc<Self>, id: u64, socket: TcpStream) -> io::Result<()> {
        // What comes out of a listener that does not block may not block either.
        socket.set_nonblocking(false)?;
        let tls = self.tls.as_ref().map(|tls| tls.config.clone());
        let stream = Stream::new(socket.try_clone()?, tls)?;
        let mut connections = lock(&self.connections);
        if connections.len() >= MAX_CONNECTIONS {
            let publisher = lock(&self.publisher).as_ref().map(|publisher| publisher.id);
            let oldest = connections.iter().find(|(id, _)| Some(**id) != publisher);
            if let Some((oldest, connection)) = oldest {
                gst::info!(CAT, "Client {oldest} makes room for client {id}");
                let _ = connection.socket.shutdown(Shutdown::Both);
                let oldest = *oldest;
                connections.remove(&oldest);
                count(&self.stats.cut);
            }
        }
        let shared = Arc::clone(self);
        let serve = move || {
            let served = catch_unwind(AssertUnwindSafe(|| client::serve(id, stream, &shared)));
            if served.is_err() {
                gst::error!(CAT, "Client {id} made us panic, which ends its connection");
                count(&shared.stats.cut);
            }
            lock(&shared.connections).remove(&id);
        };
        // With the lock held, so that it can't end before it is in the table.
        let thread = Builder::new().name("rtmp-client".into()).spawn(serve)?;
        connections.insert(id, Connection { socket, thread });
        Ok(())
    }

    /// A warning on the bus.
    pub(super) fn warn(&self, kind: impl gst::MessageErrorDomain, message: &str) {
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(element, kind, ("{message}"));
        }
    }

    /// A publisher is turned away. The application hears of it, unless it has just heard of another one.
    pub(super) fn refused(&self, refusal: Refusal, from: &str, why: &str) {
        if let Some(warning) = self.told.now(refusal, from, why, Instant::now()) {
            self.warn(gst::StreamError::Failed, &warning);
        }
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        let (mut id, mut looked) = (0, Instant::now());
        while !self.stopping.load(Relaxed) {
            if let Some(tls) = self.tls.as_ref().filter(|_| looked.elapsed() >= REFRESH) {
                looked = Instant::now();
                match tls.certificates.refresh() {
                    Some(Ok(())) => gst::info!(CAT, "The certificate is read again"),
                    Some(Err(why)) => {
                        let why = format!("The certificate stays as it was: {why}");
                        self.warn(gst::ResourceError::Read, &why);
                    }
                    None => {}
                }
            }
            match listener.accept() {
                Ok((socket, address)) => {
                    id += 1;
                    count(&self.stats.connections);
                    gst::debug!(CAT, "Client {id} comes from {address}");
                    if let Err(err) = self.admit(id, socket) {
                        gst::warning!(CAT, "Client {id} can't be served: {err}");
                    }
                }
                Err(err) => {
                    if err.kind() != io::ErrorKind::WouldBlock {
                        gst::warning!(CAT, "A client can't be accepted: {err}");
                    }
                    std::thread::sleep(TICK);
                }
            }
        }
    }
}

/// Listens from its start until it is stopped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) port: u16,
    listener: JoinHandle<()>,
}

impl Server {
    pub(super) fn start(shared: Shared) -> io::Result<Self> {
        let listener = TcpListener::bind(&shared.settings.listen)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(shared);
        let listening = Arc::clone(&shared);
        let thread = Builder::new().name("rtmp-listener".into());
        let listener = thread.spawn(move || listening.listen(&listener))?;
        Ok(Self {
            shared,
            port,
            listener,
        })
    }

    /// Ends all connections, and returns when their threads have ended.
    pub(super) fn stop(self) {
        self.shared.stopping.store(true, Relaxed);
        let _ = self.listener.join();
        let connections = std::mem::take(&mut *lock(&self.shared.connections));
        for connection in connections.values() {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        for connection in connections.into_values() {
            let _ = connection.thread.join();
        }
    }
}
