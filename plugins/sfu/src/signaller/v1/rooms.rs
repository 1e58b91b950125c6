// SPDX-License-Identifier: MPL-2.0

//! Streams of this server that take part in rooms (LiveKit's ingress).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use sfu_engine::StreamName;
use sfu_rooms_host::Host;
use utoipa::ToSchema;

use super::asked::{Asked, List, Named, Part};
use crate::signaller::problem::Problem;
use crate::signaller::rooms::no_rooms;
use crate::signaller::server::{App, Refusal};

/// A stream that is a participant whenever it has a publisher.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct RoomStream {
    room: String,
    /// Its name is its identity in the room.
    stream: String,
}

fn told(room: &str, stream: &StreamName) -> RoomStream {
    RoomStream {
        room: room.to_owned(),
        stream: stream.as_str().to_owned(),
    }
}

fn host(app: &App) -> Result<&Arc<Host>, Refusal> {
    let none = || Refusal::new(StatusCode::CONFLICT, no_rooms().reason);
    app.rooms.as_ref().ok_or_else(none)
}

/// What the path names. What can be no name is no stream's.
fn named(stream: &str) -> Result<StreamName, Refusal> {
    let refuse = |e: sfu_engine::NameError| Refusal::new(StatusCode::NOT_FOUND, e.to_string());
    stream.parse().map_err(refuse)
}

/// The streams of this server that are participants of a room whenever they have a publisher.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{room}/streams",
    tag = "rooms",
    params(("room" = String, Path, description = "The room's name"), Part),
    operation_id = "list_room_streams",
    responses(
        (status = 200, body = List<RoomStream>),
        (status = 409, description = "The server has no rooms", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Path(room): Path<String>,
    Asked(part): Asked<Part>,
) -> Result<Json<List<RoomStream>>, Refusal> {
    let streams = host(&app)?.streams(&room);
    let behind = streams.iter().filter(|name| part.is_behind(name.as_str()));
    Ok(Json(part.of(behind.map(|name| {
        (name.as_str().to_owned(), told(&room, name))
    }))?))
}

/// Makes a stream of this server a participant of a room (of LiveKit's kind INGRESS, its name is its identity), from now on or from
/// when it has a publisher, until that is deleted, it is removed from the room, or the server ends.
#[utoipa::path(
    put,
    path = "/api/v1/rooms/{room}/streams/{stream}",
    tag = "rooms",
    params(
        ("room" = String, Path, description = "The room's name"),
        ("stream" = inline(Named), Path, description = "The stream's name"),
    ),
    operation_id = "add_room_stream",
    responses(
        (status = 200, description = "It was one already", body = RoomStream),
        (status = 201, description = "It is one", body = RoomStream),
        (status = 409, description = "The server has no rooms", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "So many are already", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn add(
    State(app): State<App>,
    Path((room, stream)): Path<(String, String)>,
) -> Result<(StatusCode, Json<RoomStream>), Refusal> {
    let (host, stream) = (host(&app)?, named(&stream)?);
    let most = host.longest_name();
    if room.len() > most {
        let message = format!("a room's name has at most {most} octets");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let status = match host.add_stream(&room, &stream) {
        Some(true) => StatusCode::CREATED,
        Some(false) => StatusCode::OK,
        None => {
            let message = "so many streams take part in rooms already: delete one of them first";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
    };
    Ok((status, Json(told(&room, &stream))))
}

/// The stream leaves the room. It goes on everywhere else.
#[utoipa::path(
    delete,
    path = "/api/v1/rooms/{room}/streams/{stream}",
    tag = "rooms",
    params(
        ("room" = String, Path, description = "The room's name"),
        ("stream" = inline(Named), Path, description = "The stream's name"),
    ),
    operation_id = "delete_room_stream",
    responses(
        (status = 204, description = "It takes part no more"),
        (status = 409, description = "The server has no rooms", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn delete(
    State(app): State<App>,
    Path((room, stream)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let (host, stream) = (host(&app)?, named(&stream)?);
    if host.remove_stream(&room, &stream) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = format!("{stream} takes no part in that room");
    Err(Refusal::new(StatusCode::NOT_FOUND, message))
}
