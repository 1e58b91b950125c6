// SPDX-License-Identifier: MPL-2.0

//! Files of recordings.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::asked::{Asked, List, Part};
use crate::signaller::problem::Problem;
use crate::signaller::recordings::{Deleted, RecordingFile, of};
use crate::signaller::server::{App, Refusal};

/// Which recordings.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::signaller) struct Which {
    /// Those of this stream alone.
    stream: Option<String>,
}

/// All recordings, by the names of their files.
#[utoipa::path(
    get,
    path = "/api/v1/recordings",
    tag = "recordings",
    params(Which, Part),
    operation_id = "list_recordings",
    responses(
        (status = 200, body = List<RecordingFile>),
        (status = 404, description = "The server has no folder for recordings", body = Problem,
         content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Asked(which): Asked<Which>,
    Asked(part): Asked<Part>,
) -> Result<Json<List<RecordingFile>>, Refusal> {
    let recordings = of(&app)?;
    let list = recordings.look(move |recordings| {
        let mut all = recordings.described();
        all.retain(|r| {
            which
                .stream
                .as_ref()
                .is_none_or(|stream| *stream == r.stream)
        });
        all.sort_by(|a, b| a.file.cmp(&b.file));
        let behind = all.into_iter().filter(|r| part.is_behind(&r.file));
        part.of(behind.map(|r| (r.file.clone(), r)))
    });
    Ok(Json(list.await??))
}

/// Deletes a recording that nobody writes to.
#[utoipa::path(
    delete,
    path = "/api/v1/recordings/{file}",
    tag = "recordings",
    params(("file" = String, Path, description = "As the list names it")),
    operation_id = "delete_recording",
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "It is still being written", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn delete(
    State(app): State<App>,
    Path(file): Path<String>,
) -> Result<StatusCode, Refusal> {
    let recordings = of(&app)?;
    match recordings.look(move |all| all.delete(&file)).await? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Unknown => {
            let message =
                "there is no such recording; GET /api/v1/recordings lists those that there are";
            Err(Refusal::new(StatusCode::NOT_FOUND, message))
        }
        Deleted::Busy => {
            let message = "it is still being written: stop its recorder first";
            Err(Refusal::new(StatusCode::CONFLICT, message))
        }
        Deleted::Failed(error) => {
            let message = format!("the file can't be deleted: {error}");
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message))
        }
    }
}
