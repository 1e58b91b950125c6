// SPDX-License-Identifier: MPL-2.0

//! Streams that are sent on to RTMP services by the API's wish. Addresses hold the keys of these services: they come in, and
//! nothing tells more of them than the service's name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sfu_engine::StreamName;
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, List, Named, Part};
use crate::properties::lock;
use crate::push::{self, Address};
use crate::signaller::latency::millis;
use crate::signaller::object::Object;
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// As many as there may be at a time, in all and of one stream.
const MOST: usize = 64;
const MOST_OF_STREAM: usize = 8;

/// See the module's description.
#[derive(Debug)]
pub(in crate::signaller) struct Pushes {
    router: String,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    /// Counts them since the start.
    last: u64,
    pushes: BTreeMap<u64, push::Push>,
}

impl Pushes {
    pub(in crate::signaller) fn new(router: &str) -> Arc<Self> {
        Arc::new(Self {
            router: router.to_owned(),
            running: Mutex::default(),
        })
    }

    pub(in crate::signaller) fn start(
        &self,
        stream: StreamName,
        address: Address,
    ) -> Result<Push, Refusal> {
        let refuse = |status, message: String| Err(Refusal::new(status, message));
        let mut running = lock(&self.running);
        let of_stream = || running.pushes.values().filter(|p| p.stream == stream);
        if of_stream().any(|p| p.address == address) {
            let message = format!("{stream} is pushed there already");
            return refuse(StatusCode::CONFLICT, message);
        }
        for (most, found, what) in [
            (MOST, running.pushes.len(), "there are"),
            (MOST_OF_STREAM, of_stream().count(), "the stream has"),
        ] {
            if found >= most {
                let message = format!("{what} {most} pushes already: delete one of them first");
                return refuse(StatusCode::SERVICE_UNAVAILABLE, message);
            }
        }
        let number = running.last + 1;
        let push = push::Push::start(number, stream, address, &self.router);
        let push = push.map_err(|e| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("no thread: {e}"))
        })?;
        running.last = number;
        let told = told(number, &push);
        running.pushes.insert(number, push);
        Ok(told)
    }

    fn get(&self, number: u64) -> Option<Push> {
        let running = lock(&self.running);
        running.pushes.get(&number).map(|push| told(number, push))
    }

    /// Those behind this number, of a stream where one is named.
    fn all(&self, after: u64, stream: Option<&str>) -> Vec<(String, Push)> {
        let running = lock(&self.running);
        let behind = running.pushes.range(after.saturating_add(1)..);
        let of_it = behind.filter(|(_, p)| stream.is_none_or(|name| p.stream.as_str() == name));
        of_it
            .map(|(number, push)| (number.to_string(), told(*number, push)))
            .collect()
    }

    /// What is counted of all of them.
    pub(in crate::signaller) fn figures(&self) -> Vec<Figures> {
        let running = lock(&self.running);
        let of = |(number, push): (&u64, &push::Push)| {
            let status = push.status();
            Figures {
                number: *number,
                stream: push.stream.as_str().to_owned(),
                service: push.address.service().to_owned(),
                state: status.state.as_str(),
                attempts: status.attempts,
                octets: status.octets,
            }
        };
        running.pushes.iter().map(of).collect()
    }

    /// Takes a second and a half at most. `false`: there is none of this number.
    fn stop(&self, number: u64) -> bool {
        let push = lock(&self.running).pushes.remove(&number);
        push.map(push::Push::stop).is_some()
    }

    /// All of them, at the same time.
    pub(in crate::signaller) fn stop_all(&self) {
        let all = std::mem::take(&mut lock(&self.running).pushes);
        std::thread::scope(|scope| {
            for push in all.into_values() {
                scope.spawn(|| push.stop());
            }
        });
    }
}

/// One of them, for `/metrics`.
#[derive(Debug)]
pub(in crate::signaller) struct Figures {
    pub(in crate::signaller) number: u64,
    pub(in crate::signaller) stream: String,
    pub(in crate::signaller) service: String,
    pub(in crate::signaller) state: &'static str,
    pub(in crate::signaller) attempts: u64,
    pub(in crate::signaller) octets: u64,
}

/// A stream that is sent on to a service.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Push {
    /// Counts the pushes since the start.
    number: u64,
    stream: String,
    /// The service without application and key, such as `rtmps://live.example:443`.
    service: String,
    /// `waiting` (the stream has no publisher), `connecting`, `live` or `failed`, until it is tried again.
    state: &'static str,
    /// For how long it has been so.
    since_ms: u64,
    /// Why it failed last; null since it is live again.
    reason: Option<String>,
    /// Until the next try, where it has failed.
    retry_in_ms: Option<u64>,
    /// How often it has begun to connect.
    attempts: u64,
    /// What was sent, over all connections.
    octets: u64,
}

fn told(number: u64, push: &push::Push) -> Push {
    let (status, now) = (push.status(), Instant::now());
    Push {
        number,
        stream: push.stream.as_str().to_owned(),
        service: push.address.service().to_owned(),
        state: status.state.as_str(),
        since_ms: millis(now.saturating_duration_since(status.since)),
        reason: status.reason,
        retry_in_ms: status
            .again
            .map(|again| millis(again.saturating_duration_since(now))),
        attempts: status.attempts,
        octets: status.octets,
    }
}

/// Where a stream is to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::signaller) struct Wish {
    /// Its name. It may have no publisher yet.
    #[schema(value_type = Named, inline)]
    stream: String,
    /// `rtmp://HOST/APPLICATION/KEY`, or `rtmps`. It is not told again.
    #[schema(
        max_length = 2048,
        // Users and addresses of IPv6 are taken, too, where rtmp2sink takes them.
        pattern = r"^rtmps?://[A-Za-z0-9._-]+(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?/[A-Za-z0-9._~-]+/[A-Za-z0-9._~!$&*+,;=:@/?-]+$",
        examples("rtmps://live.example/app/KEY")
    )]
    url: String,
}

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::signaller) struct Of {
    /// Those of this stream.
    stream: Option<String>,
}

/// Streams that are sent on to services by the API's wish, in the order in which they were added.
#[utoipa::path(
    get,
    path = "/api/v1/pushes",
    tag = "pushes",
    params(
        Of,
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "At most so many: 100 where nothing is said"),
        ("after" = Option<u64>, Query, description = "Those behind this one: `next` of the part before"),
    ),
    operation_id = "list_pushes",
    responses(
        (status = 200, body = List<Push>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Asked(part): Asked<Part>,
    Asked(of): Asked<Of>,
) -> Result<Json<List<Push>>, Refusal> {
    let after = part.after()?.unwrap_or(0);
    let all = app.pushes.all(after, of.stream.as_deref());
    Ok(Json(part.of(all.into_iter())?))
}

/// Sends a stream on to an RTMP service, from now on or from when it has a publisher, until that is deleted or the server
/// ends. H.264 goes as it is, other pictures are encoded anew, sound to AAC. What fails is tried again after 1, 2, 4 … 30 s.
#[utoipa::path(
    post,
    path = "/api/v1/pushes",
    tag = "pushes",
    operation_id = "add_push",
    request_body = Wish,
    responses(
        (status = 201, description = "It is sent on; Location is where to look at it", body = Push),
        (status = 409, description = "It is sent there already", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "So many are sent on already", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn add(
    State(app): State<App>,
    wish: Result<Json<Object<Wish>>, JsonRejection>,
) -> Result<Response, Refusal> {
    // What the parser says might repeat a key.
    let Json(Object(wish)) = wish.map_err(|e| {
        let message =
            "a push is JSON: {\"stream\": NAME, \"url\": \"rtmp://HOST/APPLICATION/KEY\"}";
        Refusal::new(e.status(), message)
    })?;
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let parsed = wish.stream.parse();
    let stream = parsed.map_err(|e: sfu_engine::NameError| bad(e.to_string()))?;
    let address = Address::parse(&wish.url).map_err(|e| bad(e.to_owned()))?;
    let push = app.pushes.start(stream, address)?;
    let location = format!("/api/v1/pushes/{}", push.number);
    let mut response = (StatusCode::CREATED, Json(push)).into_response();
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn unknown() -> Refusal {
    let message = "there is no push of that number; GET /api/v1/pushes lists those that there are";
    Refusal::new(StatusCode::NOT_FOUND, message)
}

/// How one of them is.
#[utoipa::path(
    get,
    path = "/api/v1/pushes/{number}",
    tag = "pushes",
    params(("number" = u64, Path, description = "Its number")),
    operation_id = "get_push",
    responses(
        (status = 200, body = Push),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn get(
    State(app): State<App>,
    Path(number): Path<String>,
) -> Result<Json<Push>, Refusal> {
    let push = number
        .parse()
        .ok()
        .and_then(|number| app.pushes.get(number));
    push.map(Json).ok_or_else(unknown)
}

/// Ends one of them; others of the stream go on.
#[utoipa::path(
    delete,
    path = "/api/v1/pushes/{number}",
    tag = "pushes",
    params(("number" = u64, Path, description = "Its number")),
    operation_id = "delete_push",
    responses(
        (status = 204, description = "It has ended"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn delete(
    State(app): State<App>,
    Path(number): Path<String>,
) -> Result<StatusCode, Refusal> {
    let number = number.parse().map_err(|_| unknown())?;
    let pushes = app.pushes.clone();
    match app.looks.run(move || pushes.stop(number)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown()),
    }
}
