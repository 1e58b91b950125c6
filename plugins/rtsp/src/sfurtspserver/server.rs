// SPDX-License-Identifier: MPL-2.0

//! The RTSP server: one thread that takes connections, one for each of them, and one for each stream that is played.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{
    RTSPAddressPool, RTSPAuth, RTSPClient, RTSPContext, RTSPFilterResult, RTSPMedia, RTSPServer,
    RTSPSession, RTSPThreadPool,
};

use super::CAT;
use super::arrivals::Listener;
use super::callers::{self, Callers};
use super::factory::request_keyframe;
use super::guard::{Gate, RulesAuth};
use super::mounts::Mounts;
use super::settings::Settings;
use super::users;

/// What has timed out or is gone is looked for once in this time.
const TIDY: Duration = Duration::from_secs(5);
/// How often it is looked whether players still may.
const LOOK: Duration = Duration::from_secs(1);
/// The largest body of a request, which has a few parameters at most.
const BODY_MAX: u32 = 16 * 1024;
/// How long what plays may take to end when the element stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What the server's parts share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) auth: RTSPAuth,
    pub(super) ports: Option<RTSPAddressPool>,
    server: glib::WeakRef<RTSPServer>,
    context: glib::MainContext,
    connections: AtomicU64,
    refused: AtomicU64,
    callers: Arc<Callers>,
}

impl Shared {
    /// Ends the connections of those who play what this element gives: soon, since it is one of the element's own threads
    /// that finds it out, and the element may end with them.
    pub(super) fn disconnect(&self, element: gst::Element) {
        let server = self.server.clone();
        self.context.invoke(move || {
            let Some(server) = server.upgrade() else {
                return;
            };
            for client in server.client_filter(None) {
                if medias(&client)
                    .iter()
                    .any(|media| media.element() == element)
                {
                    client.close();
                }
            }
        });
    }
}

/// What a client has set up.
fn medias(client: &RTSPClient) -> Vec<RTSPMedia> {
    let sessions = client.session_filter(None);
    sessions.iter().flat_map(of_session).collect()
}

fn of_session(session: &RTSPSession) -> Vec<RTSPMedia> {
    let medias = session.filter(None).into_iter();
    medias.filter_map(|media| media.media()).collect()
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    server: Listener,
    port: u16,
    shared: Arc<Shared>,
    mounts: Mounts,
    sources: Vec<glib::Source>,
    /// Ends the looks at the rules when it is dropped.
    looks: Option<Sender<()>>,
    main_loop: glib::MainLoop,
    thread: JoinHandle<()>,
}

impl Server {
    pub(super) fn start(settings: Settings) -> Result<Self, String> {
        let listen = settings.listen_address()?;
        let callers = Arc::<Callers>::default();
        // Users of the element's own are a rule of their own, as a stream key of RTMP is.
        let (auth, gate) = match users::auth(&settings)? {
            Some(auth) => (auth, None),
            None => {
                let gate = Gate::open(&settings, &callers)?;
                (RulesAuth::new(&gate).upcast(), Some(gate))
            }
        };
        let server = Listener::new(&callers);
        let shared = Arc::new(Shared {
            auth,
            ports: settings.ports()?,
            settings,
            server: server.upcast_ref::<RTSPServer>().downgrade(),
            context: glib::MainContext::new(),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            callers,
        });
        super::stream::source(&shared.settings.router, "any")?;
        let mounts = Mounts::new(&shared);
        server.set_address(&listen.ip().to_string());
        server.set_service(&listen.port().to_string());
        server.set_auth(Some(&shared.auth));
        server.set_mount_points(Some(&mounts));
        server.set_content_length_limit(BODY_MAX);
        // A thread for each connection: one that waits for a stream to begin must not make others wait.
        let threads = RTSPThreadPool::new();
        threads.set_max_threads(-1);
        server.set_thread_pool(Some(&threads));
        let context = shared.context.clone();
        watch_clients(&server, &shared);
        let (source, port) = server.listen().map_err(|error| {
            format!("RTSP port {listen} can't be used: {error}. Choose another listen, or stop what uses it")
        })?;
        let sources = vec![
            source,
            tidy(server.upcast_ref(), &mounts),
            release(&mounts),
            cut(&shared),
        ];
        let looks = gate.map(look).transpose()?;
        for source in &sources {
            source.attach(Some(&context));
        }
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::Builder::new()
            .name("sfurtspserver".into())
            .spawn(move || {
                let ran = context.with_thread_default(|| running.run());
                if let Err(error) = ran {
                    gst::error!(CAT, "the server's thread has no context: {error}");
                }
            })
            .map_err(|e| no_thread(&e))?;
        Ok(Self {
            server,
            port,
            shared,
            mounts,
            sources,
            looks,
            main_loop,
            thread,
        })
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> u32 {
        self.port.into()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            server: self.server.clone(),
            shared: Arc::clone(&self.shared),
            mounts: self.mounts.clone(),
        }
    }

    /// Ends all connections, and returns when what played has ended.
    pub(super) fn stop(self) {
        for source in &self.sources {
            source.destroy();
        }
        drop(self.looks);
        let close = &mut |_: &RTSPServer, _: &RTSPClient| RTSPFilterResult::Remove;
        self.server.client_filter(Some(close));
        self.mounts.release(true);
        let end = Instant::now() + STOP_PATIENCE;
        while self.mounts.in_use() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.mounts.in_use() > 0 {
            gst::warning!(CAT, "what plays did not end within {STOP_PATIENCE:?}");
        }
        // On its own thread: one that has not begun to run yet would begin after that, and run for ever.
        let main_loop = self.main_loop.clone();
        let quit = glib::idle_source_new(None, glib::Priority::DEFAULT, move || {
            main_loop.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.shared.context));
        if self.thread.join().is_err() {
            gst::error!(CAT, "the server's thread has panicked");
        }
    }
}

/// Counts clients, and begins with a keyframe whenever one plays.
fn watch_clients(server: &Listener, shared: &Arc<Shared>) {
    let known = Arc::clone(shared);
    server.admit_by(move |address| {
        known.connections.fetch_add(1, Relaxed);
        let max = known.settings.max_clients as usize;
        // So that one address keeps nobody else out.
        let most = (3 * max).div_ceil(4);
        let [all, own] = known.callers.count(address);
        let has_place = all < max && own < most;
        if !has_place {
            known.refused.fetch_add(1, Relaxed);
            gst::warning!(
                CAT,
                "a connection too many: there may be {max}, {most} of them of one address"
            );
        }
        has_place
    });
    server.connect_client_connected(|_, client| {
        client.connect_play_request(|_, context: &RTSPContext| {
            for media in context.session().map(of_session).unwrap_or_default() {
                request_keyframe(&media);
            }
        });
    });
}

/// Looks for sessions that timed out, and for streams that are gone.
fn tidy(server: &RTSPServer, mounts: &Mounts) -> glib::Source {
    let (server, mounts) = (server.downgrade(), mounts.downgrade());
    glib::timeout_source_new(
        TIDY,
        Some("sfurtspserver"),
        glib::Priority::DEFAULT,
        move || {
            if let Some(pool) = server.upgrade().and_then(|server| server.session_pool()) {
                pool.cleanup();
            }
            if let Some(mounts) = mounts.upgrade() {
                mounts.tidy();
            }
            glib::ControlFlow::Continue
        },
    )
}

/// Ends connections on which more comes than there can be to say.
fn cut(shared: &Arc<Shared>) -> glib::Source {
    let shared = Arc::downgrade(shared);
    glib::timeout_source_new(
        callers::EVERY,
        Some("sfurtspserver"),
        glib::Priority::DEFAULT,
        move || {
            if let Some(shared) = shared.upgrade() {
                for (client, address) in shared.callers.too_long() {
                    shared.refused.fetch_add(1, Relaxed);
                    gst::warning!(
                        CAT,
                        "{address} sends a request without an end: its connection is closed"
                    );
                    client.close();
                }
            }
            glib::ControlFlow::Continue
        },
    )
}

/// Lets go of what is kept for players who may come.
fn release(mounts: &Mounts) -> glib::Source {
    let mounts = mounts.downgrade();
    glib::timeout_source_new(
        LOOK,
        Some("sfurtspserver"),
        glib::Priority::DEFAULT,
        move || {
            if let Some(mounts) = mounts.upgrade() {
                mounts.release(false);
            }
            glib::ControlFlow::Continue
        },
    )
}

/// Looks whether all that are there still may be, until what this returns is dropped. On a thread of its own: the rules are files, and a
/// disk that hangs keeps nobody from coming.
fn look(gate: Arc<Gate>) -> Result<Sender<()>, String> {
    let (until, over) = channel::<()>();
    let looks = move || {
        while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            gate.look();
        }
    };
    let thread = std::thread::Builder::new().name("sfurtsp-rules".into());
    thread.spawn(looks).map_err(|e| no_thread(&e))?;
    Ok(until)
}

fn no_thread(error: &std::io::Error) -> String {
    format!("no thread could be started: {error}")
}

/// What can be asked without a lock on the server.
pub(super) struct Stats {
    server: Listener,
    shared: Arc<Shared>,
    mounts: Mounts,
}

impl Stats {
    pub(super) fn structure(&self) -> gst::Structure {
        let sessions = self
            .server
            .session_pool()
            .map_or(0, |pool| pool.n_sessions());
        gst::Structure::builder("sfurtspserver-stats")
            .field("clients", self.server.client_filter(None).len() as u64)
            .field("sessions", u64::from(sessions))
            .field("streams", self.mounts.in_use() as u64)
            .field("connections", self.shared.connections.load(Relaxed))
            .field("refused", self.shared.refused.load(Relaxed))
            .build()
    }
}
