// SPDX-License-Identifier: MPL-2.0

//! Lets callers in: who may send which stream, and a thread for each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_access::{Action, Door, Knock, Pass, Refused, Visitor};
use sfu_elements::signals::Signals;

use super::name::Asked;
use super::settings::{Keys, Settings};
use super::stats::{Stats, count};
use super::told::Told;
use super::{CAT, SrtServer, caller, name};
use crate::libsrt::{Gate, Listener, Reject, Socket};
use crate::lock;

/// The signals of a caller.
pub(super) const JOINED: &str = "caller-joined";
pub(super) const LEFT: &str = "caller-left";
/// Callers at a time.
const MAX_CALLERS: usize = 32;
/// Who has sent nothing for so long makes room for another caller of the same stream.
const SILENCE: Duration = Duration::from_secs(1);
/// How long who takes over waits for the pipeline before it.
const MAKES_ROOM: Duration = Duration::from_secs(2);
/// How long a message is waited for at once, which is how soon a caller's thread notices that it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long all pipelines together may take to stop.
const STOPS: Duration = Duration::from_millis(1_500);

/// A caller as the others see it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) stream: String,
    pub(super) from: String,
    /// It is to end.
    pub(super) ends: AtomicBool,
    /// Because the application wants it.
    pub(super) kicked: AtomicBool,
    last: Mutex<Instant>,
}

impl Entry {
    /// The application ends it.
    pub(super) fn kick(&self) {
        self.kicked.store(true, Relaxed);
    }

    /// A message has come.
    pub(super) fn refresh(&self) {
        *lock(&self.last) = Instant::now();
    }

    pub(super) fn silence(&self) -> Duration {
        lock(&self.last).elapsed()
    }
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    element: glib::WeakRef<SrtServer>,
    pub(super) settings: Settings,
    keys: Keys,
    pub(super) stats: Arc<Stats>,
    pub(super) stopping: AtomicBool,
    door: Option<Door>,
    callers: Mutex<Callers>,
    /// Those of whom it is not known yet whether they may.
    waiting: AtomicUsize,
    told: Told,
    signals: Option<Signals>,
}

type Callers = BTreeMap<u64, Arc<Entry>>;
/// By what a caller was let in, unless that was a passphrase.
type Admitted = Option<Pass>;

fn visitor<'a>(asked: &Asked<'a>, from: Option<SocketAddr>) -> Visitor<'a> {
    let address = from.map(|from| from.ip());
    Visitor {
        address,
        local: address.is_some_and(|address| address.to_canonical().is_loopback()),
        named: true,
        credential: asked.credential,
        protocol: "srt",
    }
}

fn reject(why: Refused) -> Reject {
    match why {
        Refused::NotThis => Reject::Forbidden,
        Refused::Later(_) | Refused::Busy | Refused::Silent => Reject::Overload,
        Refused::Nothing | Refused::Token(_) | Refused::Revoked | Refused::Unknown => {
            Reject::Unauthorized
        }
    }
}

impl Shared {
    /// What a caller must know, in its handshake. What takes a while is looked at when it has called ([`Self::admit`]).
    fn let_in(&self, id: &str, from: Option<SocketAddr>) -> Result<String, Reject> {
        let asked = name::of(id, &self.settings.stream)?;
        let passphrase = self.keys.of(&asked.stream)?;
        if let Some(door) = &self.door {
            let visitor = visitor(&asked, from);
            if let Knock::Refused(why) = door.knock(&visitor, Action::Publish, &asked.stream) {
                return Err(reject(why));
            }
        }
        let callers = lock(&self.callers);
        self.is_free(&callers, &asked.stream).map(|()| passphrase)
    }

    fn is_free(&self, callers: &Callers, stream: &str) -> Result<(), Reject> {
        if callers.len() >= MAX_CALLERS {
            return Err(Reject::Overload);
        }
        let taken = |entry: &Arc<Entry>| entry.stream == stream && entry.silence() < SILENCE;
        match callers.values().any(taken) {
            true => Err(Reject::Conflict),
            false => Ok(()),
        }
    }

    /// Whether a caller may publish, by which it is one of them. Waits where it must: on the caller's own thread, before
    /// anybody makes room for it.
    fn admit(
        &self,
        id: &str,
        entry: &Arc<Entry>,
        from: Option<SocketAddr>,
    ) -> Result<Admitted, (Reject, String)> {
        let by_its_kind = |why: Reject| (why, format!("{why:?}"));
        let asked = name::of(id, &self.settings.stream).map_err(by_its_kind)?;
        let admit =
            |door: &Door| door.admit(&visitor(&asked, from), Action::Publish, &asked.stream);
        let pass = self.door.as_ref().map(admit).transpose();
        let pass = pass.map_err(|why| (reject(why), why.to_string()))?;
        if self.stopping.load(Relaxed) {
            return Err((Reject::Failed, "the element stops".into()));
        }
        let mut callers = lock(&self.callers);
        let free = self.is_free(&callers, &entry.stream);
        free.map_err(by_its_kind)?;
        callers.insert(entry.id, entry.clone());
        Ok(pass)
    }

    /// Whether it still may.
    pub(super) fn still(&self, pass: &mut Pass) -> Result<(), Refused> {
        self.door.as_ref().map_or(Ok(()), |door| door.still(pass))
    }

    pub(super) fn callers(&self) -> usize {
        lock(&self.callers).len()
    }

    /// Tells the application that a caller came or went.
    fn announce(&self, entry: &Entry, connected: bool, reason: &str) {
        let callers = u32::try_from(self.callers()).unwrap_or(u32::MAX);
        gst::info!(CAT, "{}: {reason} ({callers} callers)", entry.stream);
        let Some(element) = self.element.upgrade() else {
            return;
        };
        let details = gst::Structure::builder("srt-caller-changed")
            .field("stream", &entry.stream)
            .field("connected", connected)
            .field("callers", callers)
            .field("reason", reason)
            .build();
        let signal = if connected { JOINED } else { LEFT };
        if let Some(signals) = &self.signals {
            signals.emit(signal, details.clone());
        }
        let message = gst::message::Element::builder(details).src(&element);
        let _ = element.post_message(message.build());
    }

    /// Ends whoever sends a stream, as the application wants it. Returns whether there is somebody. Never waits.
    pub(super) fn kick(&self, stream: &str) -> bool {
        let callers = lock(&self.callers);
        let of_it = callers.values().filter(|entry| entry.stream == stream);
        of_it.inspect(|entry| entry.kick()).count() > 0
    }

    /// A warning on the bus.
    pub(super) fn warn(&self, message: &str) {
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(element, gst::StreamError::Failed, ("{message}"));
        }
    }

    /// A caller is turned away. The application hears of the first one of a kind, on another thread: libsrt's does not wait for who
    /// listens to the bus.
    fn refuse(&self, why: Reject, because: &str, id: &str, from: &str) {
        count(&self.stats.refused);
        // Not all of its stream id, which may have a token in it.
        let shown = name::shown(id);
        gst::info!(
            CAT,
            "A caller from {from} with the stream id {shown:?} is refused: {because}"
        );
        let warning = self.told.first(why, id, from);
        if let (Some(warning), Some(element)) = (warning, self.element.upgrade()) {
            element.call_async(move |element| {
                gst::element_warning!(element, gst::StreamError::Failed, ("{warning}"));
            });
        }
    }

    /// Waits until nobody before this caller sends its stream. Whoever does is to end.
    fn takes_over(&self, entry: &Entry) -> bool {
        let until = Instant::now() + MAKES_ROOM;
        loop {
            let before: Vec<_> = lock(&self.callers)
                .range(..entry.id)
                .filter(|(_, other)| other.stream == entry.stream)
                .map(|(_, other)| other.clone())
                .collect();
            if before.is_empty() {
                return true;
            }
            for other in before {
                other.ends.store(true, Relaxed);
            }
            if Instant::now() >= until || self.stopping.load(Relaxed) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn serve(self: &Arc<Self>, entry: &Arc<Entry>, socket: &Socket, pass: Admitted) {
        self.announce(entry, true, &format!("called from {}", entry.from));
        let end = match self.takes_over(entry) {
            true => caller::run(self, entry, socket, pass),
            false => caller::End::Cut("the caller before it does not end".into()),
        };
        socket.close();
        lock(&self.callers).remove(&entry.id);
        if let caller::End::Cut(why) = &end {
            count(&self.stats.cut);
            lock(&self.stats.last_cut).clone_from(why);
            self.warn(&format!(
                "The SRT caller {} of stream {} is cut: {why}",
                entry.from, entry.stream
            ));
        }
        self.announce(entry, false, &end.to_string());
    }

    /// A caller that has got through its handshake, on a thread of its own from now on.
    fn begin(
        self: &Arc<Self>,
        id: u64,
        socket: Socket,
        from: Option<SocketAddr>,
    ) -> Option<Thread> {
        let asks = socket.stream_id().ok()?;
        let stream = name::of(&asks, &self.settings.stream).ok()?.stream;
        let entry = Arc::new(Entry {
            id,
            stream,
            from: from.map_or_else(|| "?".into(), |from| from.to_string()),
            ends: AtomicBool::new(false),
            kicked: AtomicBool::new(false),
            last: Mutex::new(Instant::now()),
        });
        let waiting = Waiting::begin(self)?;
        let (running, done) = mpsc::channel::<Infallible>();
        let shared = self.clone();
        let caller = entry.clone();
        let serve = move || {
            // Dropped at the end, also by a panic.
            let _running = running;
            let admitted = shared.admit(&asks, &caller, from);
            drop(waiting);
            match admitted {
                Ok(pass) => {
                    count(&shared.stats.accepted);
                    shared.serve(&caller, &socket, pass);
                }
                Err((why, because)) => shared.refuse(why, &because, &asks, &caller.from),
            }
        };
        let name = format!("srt-{id}");
        match Builder::new().name(name).spawn(serve) {
            Ok(_) => Some(Thread { done }),
            Err(error) => {
                gst::warning!(CAT, "{} can't be served: {error}", entry.from);
                None
            }
        }
    }
}

/// One who waits to be known.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let waiting = Self(shared.clone());
        let before = shared.waiting.fetch_add(1, Relaxed);
        (before < MAX_CALLERS).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// A caller's thread.
#[derive(Debug)]
struct Thread {
    done: Receiver<Infallible>,
}

impl Thread {
    /// Whether it has ended, by then.
    fn ends_within(&self, patience: Duration) -> bool {
        self.done.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

/// Listens from its start until it is stopped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) port: u16,
    listener: Arc<Listener>,
    accepts: JoinHandle<Vec<Thread>>,
}

impl Server {
    pub(super) fn start(
        element: &SrtServer,
        settings: Settings,
        stats: Arc<Stats>,
    ) -> Result<Self, String> {
        let address = settings.address()?;
        let latency = settings.latency();
        let door = settings.door()?;
        let shared = Arc::new(Shared {
            element: element.downgrade(),
            keys: settings.keys()?,
            settings,
            stats,
            stopping: AtomicBool::new(false),
            door,
            callers: Mutex::default(),
            waiting: AtomicUsize::new(0),
            told: Told::default(),
            signals: Signals::start(element).ok(),
        });
        let asked = Arc::downgrade(&shared);
        let gate: Box<Gate> = Box::new(move |id, from| {
            let shared = asked.upgrade().ok_or(Reject::Failed)?;
            let answer = shared.let_in(id, from);
            if let Err(why) = &answer {
                let from = from.map_or_else(|| "?".into(), |from| from.to_string());
                shared.refuse(*why, &format!("{why:?}"), id, &from);
            }
            answer
        });
        let listener = Listener::open(address, latency, PATIENCE, gate);
        let listener = Arc::new(listener.map_err(|e| e.to_string())?);
        let port = listener.port().map_err(|e| e.to_string())?;
        let (accepting, serving) = (listener.clone(), shared.clone());
        let accepts = Builder::new()
            .name("srt-listener".into())
            .spawn(move || accept(&accepting, &serving))
            .map_err(|e| e.to_string())?;
        Ok(Self {
            shared,
            port,
            listener,
            accepts,
        })
    }

    /// Ends all callers, and returns when their pipelines have stopped, or hang.
    pub(super) fn stop(self) {
        self.shared.stopping.store(true, Relaxed);
        self.listener.close();
        let until = Instant::now() + STOPS;
        let threads = self.accepts.join().unwrap_or_default();
        let left = threads.iter().filter(|thread| {
            let patience = until.saturating_duration_since(Instant::now());
            !thread.ends_within(patience)
        });
        let left = left.count();
        if left > 0 {
            gst::warning!(CAT, "{left} pipelines do not stop; they are left behind");
        }
    }
}

fn accept(listener: &Listener, shared: &Arc<Shared>) -> Vec<Thread> {
    let mut threads: Vec<Thread> = Vec::new();
    let mut id = 0;
    while !shared.stopping.load(Relaxed) {
        match listener.accept() {
            Ok((socket, from)) => {
                id += 1;
                threads.retain(|thread| !thread.ends_within(Duration::ZERO));
                threads.extend(shared.begin(id, socket, from));
            }
            Err(error) => {
                if !shared.stopping.load(Relaxed) {
                    gst::warning!(CAT, "A caller can't be accepted: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }
    threads
}
