// SPDX-License-Identifier: MPL-2.0

//! The server as a whole.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::signaller::metrics::{encoders, shard_seconds};
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// About when the process began: the first request that asks is later than the plugin.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The server now.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Server {
    version: &'static str,
    /// It takes no newcomers.
    draining: bool,
    streams: usize,
    viewers: usize,
    publishers: usize,
    /// HTTP connections.
    connections: usize,
    shards: Vec<Shard>,
    /// Requests that the door did not let in, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Offers that were refused.
    offers_refused: u64,
    encoders: Vec<Encoder>,
    /// What `announce-address` names and has no address, and why.
    not_announced: Vec<String>,
    /// Recordings can be started.
    recording: bool,
    /// Grows with the server's time, so that figures that only rise can be told as rates.
    clock_ms: u64,
}

/// A thread of media.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Shard {
    sessions: usize,
    /// Time of a core that it took so far: in one second one at most.
    cpu_seconds: Option<f64>,
    sent_bytes: u64,
    sent_datagrams: u64,
    received_bytes: u64,
    received_datagrams: u64,
}

/// A layer of an encoder in the server's pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Encoder {
    stream: String,
    layer: usize,
    encoder: String,
    frames: u64,
    /// Frames that it did not keep up with.
    frames_dropped: u64,
}

fn look(app: &App) -> Server {
    let sessions = app.engine.all_sessions();
    let publishers = sessions.iter().filter(|s| s.publishes).count();
    let shards = app.engine.shards();
    Server {
        version: env!("CARGO_PKG_VERSION"),
        draining: app.drain.is_on(),
        streams: app.router.streams().len(),
        viewers: sessions.len() - publishers,
        publishers,
        connections: app.connections.count(),
        shards: shards
            .iter()
            .map(|shard| Shard {
                sessions: shard.sessions,
                cpu_seconds: shard_seconds(shard),
                sent_bytes: shard.sent.octets,
                sent_datagrams: shard.sent.datagrams,
                received_bytes: shard.received.octets,
                received_datagrams: shard.received.datagrams,
            })
            .collect(),
        refused: app.measures.refusals().collect(),
        offers_refused: app.engine.counters().offers_refused,
        encoders: encoders(&app.element)
            .into_iter()
            .map(|encoder| Encoder {
                stream: encoder.stream,
                layer: encoder.layer,
                encoder: encoder.encoder,
                frames: encoder.encoded,
                frames_dropped: encoder.dropped,
            })
            .collect(),
        not_announced: app
            .engine
            .not_announced()
            .into_iter()
            .map(|missing| format!("{}: {}", missing.host, missing.why))
            .collect(),
        recording: app.recordings.is_some(),
        clock_ms: BEGAN.elapsed().as_millis() as u64,
    }
}

/// The server as a whole.
#[utoipa::path(
    get,
    path = "/api/v1/server",
    tag = "server",
    responses(
        (status = 200, body = Server),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn server(State(app): State<App>) -> Result<Json<Server>, Refusal> {
    let looks = app.looks.clone();
    Ok(Json(looks.run(move || look(&app)).await?))
}
