// SPDX-License-Identifier: MPL-2.0

//! Sessions of viewers and publishers, by numbers: with their addresses in `/session/` anybody could change them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sfu_engine::{Rid, SessionInfo};
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, List, Part};
use crate::signaller::kick::{self, Kicked};
use crate::signaller::latency::millis;
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// A session of WebRTC.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Session {
    /// Counts the sessions since the start.
    number: u64,
    /// `viewer` or `publisher`.
    kind: &'static str,
    stream: String,
    /// ICE and DTLS are up.
    connected: bool,
    age_ms: u64,
    /// Who showed a password.
    user: Option<String>,
    /// Where its offer came from.
    address: Option<String>,
    path: Option<IcePair>,
    /// The thread that runs it.
    shard: usize,
    layer: Option<LayerNow>,
    /// What its network is taken to carry, in bit/s.
    estimate: Option<u64>,
    /// The share of packets that it last reported as lost.
    loss: Option<f32>,
    rtt_ms: Option<f64>,
    /// From capture to screen, as its page last reported it.
    latency_ms: Option<u64>,
    packets_sent: u64,
    bytes_sent: u64,
    retransmitted: u64,
    keyframe_requests: u64,
    /// Octets of a datagram that its path carries, where that is little.
    path_mtu: Option<u32>,
}

/// The pair of addresses that ICE chose.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct IcePair {
    local: String,
    remote: String,
    /// `udp` or `tcp`.
    protocol: &'static str,
}

/// What a viewer gets.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct LayerNow {
    /// The one that it keeps to.
    wanted: Option<String>,
    /// The one that it is to get.
    target: Option<String>,
    /// The one that it gets.
    current: Option<String>,
    /// Why it gets no better one.
    why: &'static str,
}

fn told(app: &App, info: &SessionInfo) -> Session {
    let rid = |rid: &Option<Rid>| rid.as_ref().map(|rid| rid.as_str().to_owned());
    Session {
        number: info.number,
        kind: if info.publishes {
            "publisher"
        } else {
            "viewer"
        },
        stream: info.stream.as_str().to_owned(),
        connected: info.connected,
        age_ms: info.since.elapsed().as_millis() as u64,
        user: app.door.user_of(info.id),
        address: info.peer.map(|peer| peer.to_canonical().to_string()),
        path: info.path.map(|path| IcePair {
            local: path.local.to_string(),
            remote: path.remote.to_string(),
            protocol: if path.tcp { "tcp" } else { "udp" },
        }),
        shard: info.shard,
        layer: (!info.publishes).then(|| LayerNow {
            wanted: rid(&info.preference.layer),
            target: rid(&info.target),
            current: rid(&info.current),
            why: info.why.as_str(),
        }),
        estimate: info.estimate,
        loss: info.loss,
        rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        latency_ms: info.latency.map(millis),
        packets_sent: info.packets_sent,
        bytes_sent: info.bytes_sent,
        retransmitted: info.retransmitted,
        keyframe_requests: info.keyframe_requests,
        path_mtu: info.path_mtu,
    }
}

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::signaller) struct Which {
    /// Those of this stream alone.
    stream: Option<String>,
}

/// All sessions, in the order in which they came.
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    tag = "sessions",
    params(
        Which,
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "At most so many: 100 where nothing is said"),
        ("after" = Option<u64>, Query, description = "Those behind this one: `next` of the part before"),
    ),
    responses(
        (status = 200, body = List<Session>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Asked(which): Asked<Which>,
    Asked(part): Asked<Part>,
) -> Result<Json<List<Session>>, Refusal> {
    let after = part.after()?;
    let looks = app.looks.clone();
    let list = looks.run(move || {
        let all = app.engine.all_sessions();
        let behind = all.iter().filter(|s| {
            let is_of = which
                .stream
                .as_deref()
                .is_none_or(|name| name == s.stream.as_str());
            is_of && after.is_none_or(|after| s.number > after)
        });
        part.of(behind.map(|s| (s.number.to_string(), told(&app, s))))
    });
    Ok(Json(list.await??))
}

async fn find(app: &App, number: u64) -> Result<SessionInfo, Refusal> {
    let engine = app.engine.clone();
    let find = move || {
        engine
            .all_sessions()
            .into_iter()
            .find(|s| s.number == number)
    };
    app.looks.run(find).await?.ok_or_else(unknown)
}

fn unknown() -> Refusal {
    let message = "there is no such session; it may have ended";
    Refusal::new(StatusCode::NOT_FOUND, message)
}

/// The number in a path.
fn numbered(path: &str) -> Result<u64, Refusal> {
    path.parse().map_err(|_| {
        let message = "sessions are named by their numbers here";
        Refusal::new(StatusCode::BAD_REQUEST, message)
    })
}

/// One session.
#[utoipa::path(
    get,
    path = "/api/v1/sessions/{number}",
    tag = "sessions",
    params(("number" = u64, Path, description = "Its number")),
    responses(
        (status = 200, body = Session),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn get(
    State(app): State<App>,
    Path(number): Path<String>,
) -> Result<Json<Session>, Refusal> {
    let info = find(&app, numbered(&number)?).await?;
    Ok(Json(told(&app, &info)))
}

/// Ends a session. Who had it may come again: revoke its token, too.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{number}",
    tag = "sessions",
    params(("number" = u64, Path, description = "Its number")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 503, description = "Its shard is too far behind to be told", body = Problem,
         content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn kick(
    State(app): State<App>,
    Path(number): Path<String>,
) -> Result<StatusCode, Refusal> {
    let number = numbered(&number)?;
    let engine = app.engine.clone();
    let kicked = app.looks.run(move || kick::session(&engine, number));
    match kicked.await? {
        Kicked::Ended => Ok(StatusCode::NO_CONTENT),
        Kicked::Nobody => Err(unknown()),
        Kicked::Busy => Err(kick::busy()),
    }
}
