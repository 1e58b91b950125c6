// SPDX-License-Identifier: MPL-2.0

//! The HTTP server: routes, and what all answers have in common.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use sfu_acme::Challenges;
use sfu_engine::{Engine, Router};
use sfu_rooms_host::Host;
use tokio::sync::watch;

use super::address::TrustedProxies;
use super::connections::Connections;
use super::door::Door;
use super::drain::{self, Drain};
use super::events::Listeners;
use super::files::Files;
use super::metrics::Measures;
use super::offered::Waiting;
use super::peers::Live;
use super::problem::{self, Sentence};
use super::recent::Recent;
use super::recordings::Recordings;
use super::tell::{RoomWebhooks, Webhooks};
use super::tls::{self, Tls};
use super::turn::IceServers;
use super::v1::{Pushes, Recorders};
use super::workers::{FRAGMENTS, LISTS, LOOKS, OFFERS, Workers};
use super::{CAT, SfuSignaller, body, routes, twirp};
use crate::properties::lock;

/// What the handlers share.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) engine: Arc<Engine>,
    pub(super) router: Arc<Router>,
    pub(super) router_name: Arc<str>,
    /// Answers by the first digit of their status.
    pub(super) answers: Arc<[AtomicU64; 6]>,
    /// STUN and TURN servers that clients are told of.
    pub(super) ice_servers: Arc<IceServers>,
    /// Where HLS is written to.
    pub(super) hls: Option<Arc<Path>>,
    /// What `/recordings` shows, if anything.
    pub(super) recordings: Option<Arc<Recordings>>,
    /// Who may say for whom a request is.
    pub(super) proxies: Arc<TrustedProxies>,
    /// Who may do what.
    pub(super) door: Arc<Door>,
    /// Those that there are.
    pub(super) connections: Arc<Connections>,
    /// HTTPS, where there is a certificate.
    pub(super) tls: Option<Arc<Tls>>,
    /// What an ACME server asks for, where there is one.
    pub(super) challenges: Option<Challenges>,
    /// Files that are being read.
    pub(super) files: Arc<Files>,
    /// Event streams, by session.
    pub(super) listeners: Arc<Listeners>,
    /// Viewers who have not answered our offer yet.
    pub(super) waiting: Waiting,
    /// Rooms, where there are keys for them.
    pub(super) rooms: Option<Arc<Host>>,
    /// Threads that are kept for offers, for fragments, for looking at everything, and for lists that everybody may ask for.
    pub(super) offers: Workers,
    pub(super) fragments: Workers,
    pub(super) looks: Workers,
    pub(super) lists: Workers,
    /// What listeners of GStreamer's signalling share.
    pub(super) live: Live,
    /// What the door counts.
    pub(super) measures: Arc<Measures>,
    /// Recordings that the API has started.
    pub(super) recorders: Arc<Recorders>,
    /// Streams that it sends on to services.
    pub(super) pushes: Arc<Pushes>,
    /// Sessions that have just ended.
    pub(super) recent: Arc<Recent>,
    /// Who is told of what happens.
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) room_webhooks: Arc<RoomWebhooks>,
    /// Whether it is about to end, and how where nobody says.
    pub(super) drain: Arc<Drain>,
    drain_defaults: Arc<Mutex<drain::Defaults>>,
    /// The element whose server this is.
    pub(super) element: glib::WeakRef<SfuSignaller>,
    /// Turns true when the server is to stop: what streams without end must end.
    pub(super) stopping: watch::Receiver<bool>,
    stop: Arc<watch::Sender<bool>>,
}

/// What the element makes by its properties.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) router_name: Arc<str>,
    pub(super) ice_servers: Arc<IceServers>,
    pub(super) rooms: Option<Arc<Host>>,
    pub(super) room_webhooks: Arc<RoomWebhooks>,
    pub(super) hls: Option<Arc<Path>>,
    pub(super) recordings: Option<Arc<Recordings>>,
    pub(super) proxies: TrustedProxies,
    pub(super) door: Arc<Door>,
    pub(super) connections: Arc<Connections>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) challenges: Option<Challenges>,
    pub(super) recorders: Arc<Recorders>,
    pub(super) pushes: Arc<Pushes>,
    pub(super) recent: Arc<Recent>,
    pub(super) webhooks: Webhooks,
    pub(super) drain_defaults: drain::Defaults,
    pub(super) element: glib::WeakRef<SfuSignaller>,
}

impl App {
    pub(super) fn new(engine: Arc<Engine>, router: Arc<Router>, parts: Parts) -> Self {
        let (stop, stopping) = watch::channel(false);
        Self {
            engine,
            router,
            router_name: parts.router_name,
            answers: Arc::default(),
            files: Arc::new(Files::new(parts.connections.files())),
            listeners: Arc::default(),
            waiting: Waiting::default(),
            ice_servers: parts.ice_servers,
            room_webhooks: parts.room_webhooks,
            rooms: parts.rooms,
            hls: parts.hls,
            recordings: parts.recordings,
            proxies: Arc::new(parts.proxies),
            door: parts.door,
            connections: parts.connections,
            tls: parts.tls,
            challenges: parts.challenges,
            offers: Workers::new(OFFERS),
            fragments: Workers::new(FRAGMENTS),
            looks: Workers::on_disk(LOOKS),
            lists: Workers::on_disk(LISTS),
            live: Live::default(),
            measures: Arc::default(),
            recorders: parts.recorders,
            pushes: parts.pushes,
            recent: parts.recent,
            webhooks: Arc::new(parts.webhooks),
            drain: Arc::default(),
            drain_defaults: Arc::new(Mutex::new(parts.drain_defaults)),
            element: parts.element,
            stopping,
            stop: Arc::new(stop),
        }
    }

    /// How it ends where nobody says.
    pub(super) fn drain_defaults(&self) -> drain::Defaults {
        lock(&self.drain_defaults).clone()
    }

    pub(super) fn set_drain_defaults(&self, defaults: drain::Defaults) {
        *lock(&self.drain_defaults) = defaults;
    }

    /// Tells all that the server stops.
    pub(super) fn stop_sender(&self) -> Arc<watch::Sender<bool>> {
        self.stop.clone()
    }

    /// All routes.
    pub(super) fn routes(self) -> axum::Router {
        let routes = routes::router(&self)
            .layer(middleware::from_fn(body::take_whole))
            .layer(middleware::from_fn_with_state(self.clone(), tls::lead))
            .layer(middleware::from_fn_with_state(self.clone(), finish))
            .with_state(self);
        // Before it is known which route it is.
        axum::Router::new()
            .fallback_service(routes)
            .layer(middleware::map_request(without_slash))
    }
}

/// People write addresses of endpoints with a slash at their end, and clients append one.
async fn without_slash(mut request: Request) -> Request {
    if let Some(uri) = trimmed(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn trimmed(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let is_ours = ["/whip/", "/whep/", "/session/"]
        .iter()
        .any(|start| path.starts_with(start));
    let shorter = path.strip_suffix('/').filter(|_| is_ours)?;
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{shorter}{query}").parse().ok();
    Uri::from_parts(parts).ok()
}

/// Counts each answer and gives it the headers that all have.
async fn finish(State(app): State<App>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), without_ids(request.uri().path()));
    let as_document = problem::is_asked_for(request.headers(), request.uri().path());
    let is_twirp = request.uri().path().starts_with("/twirp/");
    let mut response = next.run(request).await;
    if is_twirp {
        response = twirp::fault(response);
    } else if as_document {
        response = problem::document(response).await;
    }
    let status = response.status();
    gst::debug!(CAT, "{line}: {status}");
    let class = usize::from(status.as_u16() / 100);
    if let Some(counter) = app.answers.get(class) {
        counter.fetch_add(1, Relaxed);
    }
    let headers = response.headers_mut();
    for (name, value) in [
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

/// A path as the log may show it: with the beginnings of sessions' identifiers only, however they are written
/// (percent-encoding of hexadecimal digits has no other characters).
fn without_ids(path: &str) -> String {
    const ID: usize = 32;
    const SHOWN: usize = 8;
    let is_digit = |c: char| c.is_ascii_hexdigit() || c == '%';
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(start) = rest.find(is_digit) {
        let (before, run) = rest.split_at(start);
        let end = run.find(|c| !is_digit(c)).unwrap_or(run.len());
        let (run, after) = run.split_at(end);
        out.push_str(before);
        if run.len() < ID {
            out.push_str(run);
        } else {
            out.push_str(&run[..SHOWN]);
            out.push('…');
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A refusal: a status and a sentence that says what to do.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        response.extensions_mut().insert(Sentence(self.message));
        for (name, value) in self.headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::{trimmed, without_ids};

    #[test]
    fn one_slash_at_the_end_of_an_endpoint_is_nothing() {
        for (given, expected) in [
            ("/whip/cam1/", Some("/whip/cam1")),
            ("/whep/news/cam1/?layer=0", Some("/whep/news/cam1?layer=0")),
            ("/session/0/", Some("/session/0")),
            ("/whip/cam1//", Some("/whip/cam1/")),
            ("/whip/cam1", None),
            ("/cam1/", None),
            ("/", None),
        ] {
            let uri = trimmed(&given.parse().unwrap());
            assert_eq!(
                uri.map(|uri| uri.to_string()).as_deref(),
                expected,
                "{given}"
            );
        }
    }

    #[test]
    fn paths_are_logged_without_sessions_identifiers() {
        let id = "0123456789abcdef0123456789ABCDEF";
        let encoded: String = id.bytes().map(|b| format!("%{b:02x}")).collect();
        for (path, shown) in [
            ("/", "/".to_owned()),
            ("/whep/cam1", "/whep/cam1".to_owned()),
            ("/whep/abc/def", "/whep/abc/def".to_owned()),
            (&format!("/session/{id}"), "/session/01234567…".to_owned()),
            (
                &format!("/session/{id}/sse"),
                "/session/01234567…/sse".to_owned(),
            ),
            (
                &format!("/%73ession/{id}x{id}"),
                "/%73ession/01234567…x01234567…".to_owned(),
            ),
            (
                &format!("/session/{encoded}/sse"),
                "/session/%30%31%3…/sse".to_owned(),
            ),
            (
                &format!("/session/%30{}", &id[1..]),
                "/session/%3012345…".to_owned(),
            ),
            ("/ä%", "/ä%".to_owned()),
        ] {
            assert_eq!(without_ids(path), shown);
            assert!(!without_ids(path).contains(&id[9..]));
        }
    }
}
