// SPDX-License-Identifier: MPL-2.0

//! The true latency: what a page needs to measure it, what it reports, and what there is to say of all reports.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sfu_engine::{LatencyInfo, LatencyRefused, SessionId};

use super::object::Object;
use super::server::{App, Refusal};

/// The body of `POST /session/{id}/latency`.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    ms: f64,
}

/// `GET /session/{id}/clock`
pub(super) async fn clock(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let clock = app.engine.media_clock(session_id(&id)?);
    let clock = clock.ok_or_else(|| refusal(LatencyRefused::Unknown))?;
    let now = clock.now.duration_since(SystemTime::UNIX_EPOCH);
    Ok(Json(json!({
        "now": now.unwrap_or_default().as_secs_f64() * 1e3,
        "video": clock.video,
    })))
}

/// `POST /session/{id}/latency`
pub(super) async fn report(
    State(app): State<App>,
    Path(id): Path<String>,
    body: Result<Json<Object<Report>>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let id = session_id(&id)?;
    let Json(Object(Report { ms })) = body.map_err(|rejection| {
        let message = "send application/json such as {\"ms\": 180}";
        Refusal::new(rejection.status(), message)
    })?;
    let latency = Duration::try_from_secs_f64(ms / 1e3).map_err(|_| {
        let message = "ms is the time from capture to screen: it can't be below 0";
        Refusal::new(StatusCode::BAD_REQUEST, message)
    })?;
    app.engine.report_latency(id, latency).map_err(refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

fn session_id(id: &str) -> Result<SessionId, Refusal> {
    id.parse().map_err(|_| refusal(LatencyRefused::Unknown))
}

fn refusal(error: LatencyRefused) -> Refusal {
    let status = match error {
        LatencyRefused::Unknown => StatusCode::NOT_FOUND,
        LatencyRefused::TooLong => StatusCode::BAD_REQUEST,
        LatencyRefused::TooOften => StatusCode::TOO_MANY_REQUESTS,
    };
    let refusal = Refusal::new(status, error.to_string());
    match error {
        LatencyRefused::TooOften => refusal.with(header::RETRY_AFTER, "10"),
        _ => refusal,
    }
}

/// The latency of a stream's viewers; null where none has reported for a minute.
pub(super) fn json(latency: &LatencyInfo) -> Value {
    let (Some(p50), Some(p95)) = (latency.p50, latency.p95) else {
        return Value::Null;
    };
    json!({
        "p50_ms": millis(p50),
        "p95_ms": millis(p95),
        "reports": latency.recent,
    })
}

/// Whole milliseconds.
pub(super) fn millis(latency: Duration) -> u64 {
    (latency.as_secs_f64() * 1e3).round() as u64
}
