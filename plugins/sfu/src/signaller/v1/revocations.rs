// SPDX-License-Identifier: MPL-2.0

//! Tokens that are taken back before their time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, List, Part};
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// The last second of the year 9999.
const LATEST: u64 = 253_402_300_799;
/// Characters of a `jti`: what makes tokens writes UUIDs and the like.
const ID_MAX: usize = 512;

/// A token that was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Revocation {
    /// Its `jti`.
    id: String,
    /// Until when that is known, in seconds of Unix time.
    until: u64,
}

/// How long a token is to be refused.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::signaller) struct Until {
    /// When it ends by itself (`exp`), in seconds of Unix time; else it is refused for 400 days.
    #[param(maximum = 253_402_300_799_i64)]
    until: Option<u64>,
}

/// All of them, in the order of their names.
#[utoipa::path(
    get,
    path = "/api/v1/revocations",
    tag = "access",
    params(Part),
    responses(
        (status = 200, body = List<Revocation>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Asked(part): Asked<Part>,
) -> Result<Json<List<Revocation>>, Refusal> {
    let mut all = app.door.access.revoked();
    all.retain(|(id, _)| part.is_behind(id));
    all.sort();
    let told = all.into_iter().map(|(id, until)| {
        let until = until
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let revocation = Revocation {
            id: id.clone(),
            until,
        };
        (id, revocation)
    });
    Ok(Json(part.of(told)?))
}

/// Takes a token back by its `jti`: it is refused from now on, and what it let in ends within seconds, also by RTMP, RTSP and SRT.
/// With an access file that is kept beside it (`.revoked`), for the next start and all others who go by the same file; without one
/// it is known as long as the server runs.
#[utoipa::path(
    put,
    path = "/api/v1/revocations/{id}",
    tag = "access",
    params(("id" = String, Path, description = "The token's jti", max_length = 512), Until),
    responses(
        (status = 204, description = "It is taken back"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn add(
    State(app): State<App>,
    Path(id): Path<String>,
    Asked(Until { until }): Asked<Until>,
) -> Result<StatusCode, Refusal> {
    let until = match until {
        None => None,
        Some(seconds) if seconds > LATEST => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "until is before the year 10,000",
            ));
        }
        Some(seconds) => Some(UNIX_EPOCH + Duration::from_secs(seconds)),
    };
    if id.chars().count() > ID_MAX {
        let message = format!(
            "a jti of more than {ID_MAX} characters can't be taken back: sign with another key"
        );
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    // That waits for the disk.
    let door = app.door.clone();
    let revoke = move || door.access.revoke(&id, until, SystemTime::now());
    if tokio::task::spawn_blocking(revoke).await.unwrap_or(false) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = "10,000 tokens are taken back already: sign with another key";
    Err(Refusal::new(StatusCode::CONFLICT, message))
}

/// Takes a revocation away again: the token is good as before, unless the file of rules names it, too. What it had let in does not
/// come back by itself.
#[utoipa::path(
    delete,
    path = "/api/v1/revocations/{id}",
    tag = "access",
    params(("id" = String, Path, description = "The token's jti")),
    responses(
        (status = 204, description = "It is taken away"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let door = app.door.clone();
    let restore = move || door.access.restore(&id);
    if tokio::task::spawn_blocking(restore).await.unwrap_or(false) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = "no such token was taken back by the API";
    Err(Refusal::new(StatusCode::NOT_FOUND, message))
}
