// SPDX-License-Identifier: MPL-2.0

//! The graceful end.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::signaller::drain;
use crate::signaller::object::Object;
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// How to end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::signaller) struct Wish {
    /// How long viewers may take to go, in ms; else `drain-timeout` of the element, or a minute.
    #[schema(minimum = 0, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
    /// Another server that newcomers and viewers are sent to, such as `https://other.example.org`; else `drain-redirect`
    /// of the element.
    redirect: Option<String>,
}

/// Takes no newcomers any more, tells viewers to reconnect, and ends when they have gone or the time is over.
#[utoipa::path(
    post,
    path = "/api/v1/drain",
    tag = "server",
    request_body = Wish,
    responses(
        (status = 202, description = "It has begun"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn begin(
    State(app): State<App>,
    wish: Result<Json<Object<Wish>>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(Object(wish)) = wish.map_err(|e| Refusal::new(e.status(), e.body_text()))?;
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let redirect = match &wish.redirect {
        Some(server) => drain::checked(server).map_err(bad)?,
        None => app.drain_defaults().redirect,
    };
    let within = match wish.timeout_ms.map(Duration::from_millis) {
        Some(within) if within > drain::LONGEST => {
            return Err(bad("timeout_ms is a day at most".to_owned()));
        }
        Some(within) => within,
        None => app.drain_defaults().within(),
    };
    drain::begin(&app, within, redirect);
    Ok(StatusCode::ACCEPTED)
}
