// SPDX-License-Identifier: MPL-2.0

//! The HTTP server: routes, what all answers have in common, start and stop.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sfu_engine::{Engine, Router};
use tokio::sync::{oneshot, watch};

use super::recordings::{self, Recordings};
use super::{CAT, api, events, hls, latency, metrics, pages, sessions};
use crate::runtime;

/// The largest request body: an offer of a browser has about 8 KiB.
const BODY_MAX: usize = 64 * 1024;
/// How long requests under way may take when the element stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) engine: Arc<Engine>,
    pub(super) router: Arc<Router>,
    /// Answers by the first digit of their status.
    pub(super) answers: Arc<[AtomicU64; 6]>,
    /// `Link` headers that name the ICE servers.
    pub(super) ice_servers: Arc<[HeaderValue]>,
    /// Where HLS is written to.
    pub(super) hls: Option<Arc<Path>>,
    /// What `/recordings` shows, if anything.
    pub(super) recordings: Option<Arc<Recordings>>,
    /// Turns true when the server is to stop: what streams without end must end.
    pub(super) stopping: watch::Receiver<bool>,
    stop: Arc<watch::Sender<bool>>,
}

impl App {
    pub(super) fn new(
        engine: Arc<Engine>,
        router: Arc<Router>,
        ice_servers: Vec<HeaderValue>,
        hls: Option<Arc<Path>>,
        recordings: Option<Arc<Recordings>>,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        Self {
            engine,
            router,
            answers: Arc::default(),
            ice_servers: ice_servers.into(),
            hls,
            recordings,
            stopping,
            stop: Arc::new(stop),
        }
    }

    /// All routes.
    pub(super) fn routes(self) -> axum::Router {
        axum::Router::new()
            .route("/", get(pages::index))
            .route("/healthz", get(api::health))
            .route("/metrics", get(metrics::metrics))
            .route("/assets/{file}", get(pages::asset))
            .route("/publish/{*stream}", get(pages::publisher))
            .route("/studio/{*stream}", get(pages::studio))
            .route("/hls/{*path}", get(hls::file).options(hls::options))
            .route("/api/streams", get(api::streams))
            .route("/api/streams/{*stream}", get(api::stream))
            .route(
                "/whep/{*stream}",
                post(sessions::watch).options(sessions::options),
            )
            .route(
                "/whip/{*stream}",
                post(sessions::publish).options(sessions::options),
            )
            .route(
                "/session/{id}",
                get(api::session)
                    .patch(sessions::patch)
                    .delete(sessions::delete)
                    .options(sessions::options),
            )
            .route("/session/{id}/clock", get(latency::clock))
            .route(
                "/session/{id}/latency",
                post(latency::report).options(sessions::options),
            )
            .route(
                "/session/{id}/layer",
                post(sessions::layer).options(sessions::options),
            )
            .route(
                "/session/{id}/sse",
                get(events::events)
                    .post(events::create)
                    .options(sessions::options),
            )
            .route("/recordings", get(recordings::page))
            .route("/recordings/play/{*file}", get(recordings::page))
            .route("/recordings/files/{*file}", get(recordings::file))
            .route("/api/recordings", get(recordings::list))
            .fallback(pages::player)
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), finish))
            .with_state(self)
    }
}

/// Counts each answer and gives it the headers that all have.
async fn finish(State(app): State<App>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let mut response = next.run(request).await;
    let status = response.status();
    gst::debug!(CAT, "{line}: {status}");
    let class = usize::from(status.as_u16() / 100);
    if let Some(counter) = app.answers.get(class) {
        counter.fetch_add(1, Relaxed);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A refusal: a status and a sentence that says what to do.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            header: None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        if let Some((name, value)) = self.header {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    shutdown: oneshot::Sender<()>,
    task: tokio::task::AbortHandle,
    ended: mpsc::Receiver<()>,
}

impl Server {
    /// Serves on a socket that is bound already.
    pub(super) fn start(listener: TcpListener, app: App) -> Result<Self, String> {
        let runtime = runtime::get().map_err(|e| format!("no threads for signalling: {e}"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| e.to_string())?;
        let (shutdown, stopped) = oneshot::channel();
        let stop = app.stop.clone();
        let (end, ended) = mpsc::channel();
        let service = app
            .routes()
            .into_make_service_with_connect_info::<SocketAddr>();
        let task = runtime.spawn(async move {
            // Dropped when the task is over, however it ends: that is what `stop` waits for.
            let _end: mpsc::Sender<()> = end;
            let signal = async move {
                // A sender that was dropped means stop as well.
                let _ = stopped.await;
                stop.send_replace(true);
            };
            let served = axum::serve(listener, service)
                .with_graceful_shutdown(signal)
                .await;
            if let Err(error) = served {
                gst::error!(CAT, "the HTTP server ended: {error}");
            }
        });
        Ok(Self {
            port: address.port(),
            shutdown,
            task: task.abort_handle(),
            ended,
        })
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets requests under way finish for a moment, then ends them, and returns when all is over.
    pub(super) fn stop(self) {
        let _ = self.shutdown.send(());
        let timed_out = Err(mpsc::RecvTimeoutError::Timeout);
        if self.ended.recv_timeout(STOP_PATIENCE) == timed_out {
            self.task.abort();
            let _ = self.ended.recv_timeout(STOP_PATIENCE);
        }
    }
}
