// SPDX-License-Identifier: MPL-2.0

//! All routes, each with the rule by which it lets in: there is no other way to add one.

use axum::http::{StatusCode, header};
use axum::middleware;
use axum::routing::{MethodRouter, delete, get, post};

use super::door::{Rule, gate};
use super::recordings;
use super::server::{App, Refusal};
use super::{
    acme, api, events, guests, hls, latency, metrics, pages, peers, rooms, sessions, twirp, v1,
};

/// One of them.
pub(super) struct Route {
    /// As axum takes it; empty is all that no other takes.
    pub(super) path: &'static str,
    /// For `Allow`, and for browsers that ask first.
    pub(super) methods: &'static str,
    pub(super) rule: Rule,
    handlers: fn() -> MethodRouter<App>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({:?}, {:?})", self.path, self.rule)
    }
}

const GET: &str = "GET, HEAD, OPTIONS";
const POST: &str = "POST, OPTIONS";
const GET_DELETE: &str = "GET, HEAD, DELETE, OPTIONS";

const fn route(
    path: &'static str,
    methods: &'static str,
    rule: Rule,
    handlers: fn() -> MethodRouter<App>,
) -> Route {
    Route {
        path,
        methods,
        rule,
        handlers,
    }
}

/// The table. A rule can't be left out, and `door/matrix/` asks for each of them.
pub(super) static ROUTES: &[Route] = &[
    route("/", GET, Rule::Open, || get(pages::index)),
    route("/healthz", GET, Rule::Health, || get(api::health)),
    route(
        "/.well-known/acme-challenge/{token}",
        GET,
        Rule::Open,
        || get(acme::challenge),
    ),
    route("/metrics", GET, Rule::Metrics, || get(metrics::metrics)),
    route("/robots.txt", GET, Rule::Open, || get(pages::robots)),
    route("/assets/{file}", GET, Rule::Open, || get(pages::asset)),
    route("/publish/{*stream}", GET, Rule::Open, || {
        get(pages::publisher)
    }),
    route("/studio/{*stream}", GET, Rule::Open, || get(pages::studio)),
    route("/room/{*stream}", GET, Rule::Open, || get(pages::room)),
    route("/hls/{*path}", GET, Rule::Hls, || get(hls::file)),
    route("/api/streams", GET, Rule::Streams, || get(api::streams)),
    route("/api/streams/{*stream}", GET, Rule::Stream, || {
        get(api::stream)
    }),
    route("/whep/{*stream}", POST, Rule::Watch, || {
        post(sessions::watch)
    }),
    route("/whip/{*stream}", POST, Rule::Publish, || {
        post(sessions::publish)
    }),
    route(
        "/session/{id}",
        "GET, HEAD, PATCH, DELETE, OPTIONS",
        Rule::Session,
        || {
            get(api::session)
                .patch(sessions::patch)
                .delete(sessions::delete)
        },
    ),
    route("/session/{id}/clock", GET, Rule::Session, || {
        get(latency::clock)
    }),
    route("/session/{id}/latency", POST, Rule::Session, || {
        post(latency::report)
    }),
    route("/session/{id}/layer", POST, Rule::Session, || {
        post(sessions::layer)
    }),
    route(
        "/session/{id}/sse",
        "GET, HEAD, POST, OPTIONS",
        Rule::Session,
        || get(events::events).post(events::create),
    ),
    route("/rtc", GET, Rule::Room, || get(rooms::join)),
    route("/rtc/validate", GET, Rule::Room, || get(rooms::validate)),
    route("/rtc/guest/{*stream}", POST, Rule::Enter, || {
        post(guests::enter)
    }),
    route("/rtc/v1", GET, Rule::Room, || get(rooms::join_v1)),
    route("/rtc/v1/validate", GET, Rule::Room, || {
        get(rooms::validate_v1)
    }),
    route("/gst-webrtc", GET, Rule::Peers, || get(peers::join)),
    route("/gst-webrtc/{*stream}", GET, Rule::Peers, || {
        get(peers::join_as)
    }),
    route(
        "/twirp/livekit.RoomService/{method}",
        POST,
        Rule::Room,
        || post(twirp::call),
    ),
    route("/twirp/{*path}", POST, Rule::Room, || post(twirp::unknown)),
    route("/recordings", GET, Rule::Open, || get(recordings::page)),
    route("/recordings/play/{*file}", GET, Rule::Open, || {
        get(recordings::page)
    }),
    route("/recordings/files/{*file}", GET, Rule::Recording, || {
        get(recordings::file)
    }),
    route("/api/recordings", GET, Rule::Recordings, || {
        get(recordings::list)
    }),
    route("/api/v1/openapi.json", GET, Rule::Open, || {
        get(v1::document)
    }),
    route("/api/v1/server", GET, Rule::Api, || get(v1::server)),
    route("/api/v1/streams", GET, Rule::Api, || get(v1::streams_list)),
    route("/api/v1/streams/{*stream}", GET_DELETE, Rule::Api, || {
        get(v1::stream).delete(v1::stream_kick)
    }),
    route("/api/v1/sessions", GET, Rule::Api, || {
        get(v1::sessions_list)
    }),
    route("/api/v1/sessions/{number}", GET_DELETE, Rule::Api, || {
        get(v1::session).delete(v1::session_kick)
    }),
    route(
        "/api/v1/pushes",
        "GET, HEAD, POST, OPTIONS",
        Rule::Api,
        || get(v1::pushes_list).post(v1::push_add),
    ),
    route("/api/v1/pushes/{number}", GET_DELETE, Rule::Api, || {
        get(v1::push).delete(v1::push_delete)
    }),
    route("/api/v1/recorders", GET, Rule::Api, || {
        get(v1::recorders_list)
    }),
    route(
        "/api/v1/recorders/{*stream}",
        "PUT, DELETE, OPTIONS",
        Rule::Api,
        || axum::routing::put(v1::recorder_start).delete(v1::recorder_stop),
    ),
    route("/api/v1/recordings", GET, Rule::Api, || {
        get(v1::recordings_list)
    }),
    route(
        "/api/v1/recordings/{*file}",
        "DELETE, OPTIONS",
        Rule::Api,
        || delete(v1::recording_delete),
    ),
    route("/api/v1/rooms/{room}/streams", GET, Rule::Api, || {
        get(v1::room_streams_list)
    }),
    route(
        "/api/v1/rooms/{room}/streams/{*stream}",
        "PUT, DELETE, OPTIONS",
        Rule::Api,
        || axum::routing::put(v1::room_stream_add).delete(v1::room_stream_delete),
    ),
    route("/api/v1/revocations", GET, Rule::Api, || {
        get(v1::revocations_list)
    }),
    route(
        "/api/v1/revocations/{id}",
        "PUT, DELETE, OPTIONS",
        Rule::Api,
        || axum::routing::put(v1::revocation_add).delete(v1::revocation_delete),
    ),
    route("/api/v1/drain", POST, Rule::Api, || post(v1::drain_begin)),
    route("/admin", GET, Rule::Open, || get(pages::admin)),
    route("", GET, Rule::Player, || axum::routing::any(pages::player)),
];

/// All of them, each behind the gate.
pub(super) fn router(app: &App) -> axum::Router<App> {
    ROUTES.iter().fold(axum::Router::new(), |router, route| {
        let gate = middleware::from_fn_with_state((app.clone(), route), gate);
        let handlers = (route.handlers)();
        match route.path {
            "" => router.fallback_service(handlers.layer(gate).with_state(app.clone())),
            path => {
                let methods = route.methods;
                let others = move || async move { other_method(methods) };
                router.route(path, handlers.fallback(others).layer(gate))
            }
        }
    })
}

/// What a method is told that a path does not take.
fn other_method(methods: &'static str) -> Refusal {
    let message = format!("this address only answers {methods}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message).with(header::ALLOW, methods)
}
