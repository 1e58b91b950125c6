// SPDX-License-Identifier: MPL-2.0

//! A stream that is sent on to a service by RTMP while it plays: a thread that waits for a publisher, connects, and does so
//! again when the service fails. What happens there is nobody else's.

mod address;
mod pipeline;

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use sfu_elements::Delay;
use sfu_engine::{Router, StreamName};

pub(crate) use address::Address;
use pipeline::{Connection, Tracks};

use crate::notices::{self, Kind, Notice};
use crate::properties::lock;

/// Between two tries, doubling.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(100);
/// What a publisher has promised is waited for, once anything of it has come. Some services take no other tracks later, so that
/// what comes after this begins the push anew.
const PROMISED: Duration = Duration::from_secs(3);
/// A publisher that was away for less goes on where it was: services take their time with each new connection.
const ABSENT: Duration = Duration::from_secs(8);
/// A service to which nothing went for so long does not answer, or has nothing more to take.
const SILENT: Duration = Duration::from_secs(15);
/// How long the end of what is under way may take.
const ENDS: Duration = Duration::from_millis(500);
/// How long an end may take altogether. What hangs longer is left behind.
const STOPS: Duration = Duration::from_millis(1_300);

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("sfupush", gst::DebugColorFlags::empty(), Some("SFU pushes"))
});

/// What a push is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The stream has no publisher.
    Waiting,
    Connecting,
    Live,
    /// Until the next try.
    Failed,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Waiting, Self::Connecting, Self::Live, Self::Failed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Failed => "failed",
        }
    }
}

/// It at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// Since when.
    pub(crate) since: Instant,
    /// Why it failed last.
    pub(crate) reason: Option<String>,
    /// When it is tried again.
    pub(crate) again: Option<Instant>,
    pub(crate) attempts: u64,
    pub(crate) octets: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) stream: StreamName,
    pub(crate) address: Address,
    status: Arc<Mutex<Status>>,
    /// Dropped, it ends.
    stop: Option<Sender<Infallible>>,
    /// Disconnected when it has.
    done: Mutex<Receiver<Infallible>>,
}

impl Push {
    /// `number` is what it is told as.
    pub(crate) fn start(
        number: u64,
        stream: StreamName,
        address: Address,
        router: &str,
    ) -> std::io::Result<Self> {
        let status = Arc::new(Mutex::new(Status {
            state: State::Waiting,
            since: Instant::now(),
            reason: None,
            again: None,
            attempts: 0,
            octets: 0,
        }));
        let (stop, stopped) = mpsc::channel();
        let (running, done) = mpsc::channel::<Infallible>();
        let pusher = Pusher {
            number,
            told: Cell::default(),
            stream: stream.clone(),
            address: address.clone(),
            router: Router::get(router),
            router_name: router.to_owned(),
            status: status.clone(),
            stopped,
        };
        std::thread::Builder::new()
            .name("sfu-push".into())
            .spawn(move || {
                // Dropped at the end, also by a panic.
                let _running = running;
                pusher.main();
            })?;
        Ok(Self {
            stream,
            address,
            status,
            stop: Some(stop),
            done: Mutex::new(done),
        })
    }

    pub(crate) fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// Ends it, and waits until it has, unless it hangs.
    pub(crate) fn stop(mut self) {
        drop(self.stop.take());
        if lock(&self.done).recv_timeout(STOPS) == Err(RecvTimeoutError::Timeout) {
            gst::warning!(
                CAT,
                "the push of {} to {:?} does not stop; it is left behind",
                self.stream,
                self.address
            );
        }
    }
}

/// How a connection ended.
enum End {
    /// The publisher has gone, or sends other tracks: one that was late, too.
    Published,
    Failed(String),
    Stopped,
}

/// What was told of it last.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// It has failed, and was not live since then.
    failed: bool,
    /// What had been sent when it became live.
    octets: u64,
}

/// The thread's own.
struct Pusher {
    number: u64,
    told: Cell<Told>,
    stream: StreamName,
    address: Address,
    router: Arc<Router>,
    router_name: String,
    status: Arc<Mutex<Status>>,
    stopped: Receiver<Infallible>,
}

impl Pusher {
    fn main(self) {
        let mut delay = Delay::new(AGAIN, AGAIN_MOST);
        let mut since = None;
        loop {
            let (tracks, all) = self.tracks();
            let since_any = match tracks {
                Some(_) => *since.get_or_insert_with(Instant::now),
                None => Instant::now(),
            };
            let settled = tracks == all || since_any.elapsed() >= PROMISED;
            let Some(tracks) = tracks.filter(|_| settled) else {
                if all.is_none() {
                    since = None;
                }
                self.set(State::Waiting, |_| {});
                if !self.wait(Duration::from_millis(250)) {
                    return;
                }
                continue;
            };
            let pause = match self.once(&tracks) {
                End::Stopped => return self.set(State::Waiting, |_| {}),
                // At once, but not in a circle.
                End::Published => Duration::from_millis(500),
                End::Failed(said) => self.failed(&said, delay.after(self.was_live(), false)),
            };
            if !self.wait(pause) {
                return;
            }
        }
    }

    /// For how long it was, up to now.
    fn was_live(&self) -> Duration {
        let status = lock(&self.status);
        match status.state {
            State::Live => status.since.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Tells it, and how long to wait.
    fn failed(&self, said: &str, pause: Duration) -> Duration {
        let reason = self.address.without_secrets(said);
        gst::warning!(
            CAT,
            "the push of {} to {:?} failed: {reason}. It is tried again in {} ms.",
            self.stream,
            self.address,
            pause.as_millis()
        );
        self.set(State::Failed, |status| {
            status.reason = Some(reason);
            status.again = Some(Instant::now() + pause);
        });
        pause
    }

    /// The tracks that have begun, and all that are promised.
    fn tracks(&self) -> (Option<Tracks>, Option<Tracks>) {
        let info = self.router.stream(&self.stream);
        let info = info.as_ref();
        (info.and_then(Tracks::begun), info.and_then(Tracks::of))
    }

    /// `false`: it is to end.
    fn wait(&self, pause: Duration) -> bool {
        self.stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
    }

    fn set(&self, state: State, change: impl FnOnce(&mut Status)) {
        let (before, now) = {
            let mut status = lock(&self.status);
            let before = status.clone();
            if status.state != state {
                status.state = state;
                status.since = Instant::now();
                status.again = None;
            }
            change(&mut status);
            (before, status.clone())
        };
        if before.state != now.state {
            self.tell(&before, &now);
        }
    }

    /// What has become of it, to all who listen.
    fn tell(&self, before: &Status, now: &Status) {
        let told = self.told.get();
        let kind = match (before.state, now.state) {
            (_, State::Live) => Kind::PushStarted,
            (_, State::Failed) if !told.failed => Kind::PushFailed,
            (State::Live, State::Waiting | State::Connecting) => Kind::PushFinished,
            _ => return,
        };
        self.told.set(Told {
            failed: now.state == State::Failed,
            octets: match now.state {
                State::Live => before.octets,
                _ => told.octets,
            },
        });
        let mut notice = Notice::new(kind, self.stream.as_str());
        notice.push = Some(self.number);
        notice.service = Some(self.address.service().to_owned());
        if kind == Kind::PushFailed {
            notice.reason = now.reason.clone();
        }
        if before.state == State::Live {
            notice.seconds = Some(before.since.elapsed().as_secs_f64());
            notice.octets = Some(now.octets.saturating_sub(told.octets));
        }
        notices::tell(&self.router_name, notice);
    }

    /// Connects, and sends until that ends.
    fn once(&self, tracks: &Tracks) -> End {
        self.set(State::Connecting, |status| status.attempts += 1);
        let connection =
            match Connection::open(&self.stream, &self.router_name, tracks, &self.address) {
                Ok(connection) => connection,
                Err(said) => return End::Failed(said),
            };
        let end = self.watch(&connection, tracks);
        let is_live = lock(&self.status).state == State::Live;
        if is_live && !matches!(end, End::Failed(_)) {
            connection.finish();
            let by = Instant::now() + ENDS;
            while Instant::now() < by && connection.ended(LOOK).is_none() {}
        }
        end
    }

    fn watch(&self, connection: &Connection, tracks: &Tracks) -> End {
        let before = lock(&self.status).octets;
        let (mut octets, mut grew) = (0, Instant::now());
        let mut other = None;
        loop {
            if !self.wait(Duration::ZERO) {
                return End::Stopped;
            }
            match connection.ended(LOOK) {
                Some(Ok(())) => return End::Published,
                Some(Err(said)) => return End::Failed(said),
                None => {}
            }
            let now = connection.octets();
            if now != octets {
                (octets, grew) = (now, Instant::now());
            } else if grew.elapsed() >= SILENT {
                let silent = SILENT.as_secs();
                return End::Failed(format!("nothing went to the service for {silent} s"));
            }
            let state = match connection.is_live() {
                true => State::Live,
                false => State::Connecting,
            };
            self.set(state, |status| {
                // One that is closed says 0.
                status.octets = status.octets.max(before + now);
                if state == State::Live {
                    status.reason = None;
                }
            });
            // A publisher that comes back begins with one of its tracks.
            let (begun, all) = self.tracks();
            if begun.as_ref() == Some(tracks) {
                other = None;
                continue;
            }
            let since = *other.get_or_insert_with(Instant::now);
            let is_settled = begun.is_some() && begun == all;
            if is_settled || since.elapsed() >= ABSENT {
                return End::Published;
            }
        }
    }
}
