// SPDX-License-Identifier: MPL-2.0

//! `POST /twirp/livekit.RoomService/METHOD`: rooms as LiveKit's server SDKs administer them, by tokens of the rooms' keys.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sfu_rooms::{Call, Fault, Form, VideoGrants};
use sfu_rooms_host::Host;
use tokio::sync::oneshot;

use super::problem::Sentence;
use super::rooms;
use super::server::App;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
/// Twirp's word for what is nowhere.
const BAD_ROUTE: &str = "bad_route";

pub(super) async fn call(
    State(app): State<App>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(host) = app.rooms.clone() else {
        return rooms::refusal(&rooms::no_rooms());
    };
    let written = headers.get(header::CONTENT_TYPE);
    let written = written
        .and_then(|line| line.to_str().ok())
        .unwrap_or_default();
    let form = match written.split(';').next().unwrap_or_default().trim() {
        JSON => Form::Json,
        PROTOBUF => Form::Protobuf,
        other => {
            return answer(
                Err(Fault {
                    status: 404,
                    code: BAD_ROUTE,
                    reason: format!("unexpected Content-Type: {other:?}"),
                }),
                Form::Json,
            );
        }
    };
    let grants = match rooms::bearer(&headers).map(|token| host.grants(token)) {
        None => VideoGrants::default(),
        Some(Ok(grants)) => grants,
        Some(Err(refused)) => {
            // As LiveKit's server puts it: before the service, in plain words.
            app.measures.refused("credential");
            return rooms::refusal(&refused);
        }
    };
    if !(grants.room_create || grants.room_list || grants.room_admin) {
        // Whoever may only join takes none of the rooms' thread's time.
        app.measures.refused("nothing");
        return answer(Err(Fault::denied()), form);
    }
    let call = Call {
        method,
        form,
        body: body.into(),
        grants,
    };
    let outcome = ask(&host, call).await;
    if outcome.as_ref().is_err_and(|fault| fault.status == 401) {
        app.measures.refused("credential");
    }
    answer(outcome, form)
}

/// `POST /twirp/…` of LiveKit's other services, and of what is none.
pub(super) async fn unknown(Path(path): Path<String>) -> Response {
    let service = path.split('/').next().unwrap_or_default();
    let reason = format!(
        "there is no service {service:?} here: livekit.RoomService is the one that there is, at /twirp/livekit.RoomService/METHOD"
    );
    let fault = Fault {
        status: 404,
        code: BAD_ROUTE,
        reason,
    };
    answer(Err(fault), Form::Json)
}

/// A refusal from before the service, as Twirp's clients read it.
pub(super) fn fault(response: Response) -> Response {
    let Some(Sentence(reason)) = response.extensions().get() else {
        return response;
    };
    let status = response.status().as_u16();
    let (status, code) = match status {
        404 | 405 => (404, BAD_ROUTE),
        401 => (status, "unauthenticated"),
        403 => (status, "permission_denied"),
        408 => (status, "deadline_exceeded"),
        413 => (status, "invalid_argument"),
        429 => (status, "resource_exhausted"),
        503 => (status, "unavailable"),
        400..500 => (status, "malformed"),
        _ => (status, "internal"),
    };
    let reason = reason.clone();
    let told = Fault {
        status,
        code,
        reason,
    };
    let (told, body) = answer(Err(told), Form::Json).into_parts();
    let (mut parts, _) = response.into_parts();
    parts.status = told.status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(told.headers);
    Response::from_parts(parts, body)
}

/// Has the rooms' thread do it.
pub(super) async fn ask(host: &Host, call: Call) -> Result<Bytes, Fault> {
    let (done, served) = oneshot::channel();
    // Who has given up meanwhile needs no answer.
    host.call(call, Box::new(move |outcome| _ = done.send(outcome)));
    served.await.unwrap_or_else(|_| Err(Fault::unavailable()))
}

fn answer(outcome: Result<Bytes, Fault>, form: Form) -> Response {
    let (status, written, body) = match (outcome, form) {
        (Ok(body), Form::Json) => (StatusCode::OK, JSON, body),
        (Ok(body), Form::Protobuf) => (StatusCode::OK, PROTOBUF, body),
        (Err(fault), _) => {
            let status = StatusCode::from_u16(fault.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, JSON, fault.json().into())
        }
    };
    (status, [(header::CONTENT_TYPE, written)], body).into_response()
}
