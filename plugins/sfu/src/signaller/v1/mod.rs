// SPDX-License-Identifier: MPL-2.0

//! API v1: what there is, and what may be done with it, for who may (`api`). Its description is made from the handlers.

mod asked;
mod drain;
mod pushes;
mod recorders;
mod recordings;
mod revocations;
mod rooms;
mod server;
mod sessions;
mod streams;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;

pub(super) use drain::begin as drain_begin;
pub(super) use pushes::Figures;
pub(super) use pushes::{
    Pushes, add as push_add, delete as push_delete, get as push, list as pushes_list,
};
pub(super) use recorders::{
    Recorders, list as recorders_list, start as recorder_start, stop as recorder_stop,
};
pub(super) use recordings::{delete as recording_delete, list as recordings_list};
pub(super) use revocations::{
    add as revocation_add, delete as revocation_delete, list as revocations_list,
};
pub(super) use rooms::{
    add as room_stream_add, delete as room_stream_delete, list as room_streams_list,
};
pub(super) use server::server;
pub(super) use sessions::{get as session, kick as session_kick, list as sessions_list};
pub(super) use streams::{get as stream, kick as stream_kick, list as streams_list};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "gst-sfu",
        description = "Streams, sessions, recordings, pushes and streams in rooms of a server. Names of streams stand in paths with their slashes \
                       as %2F. Every refusal is a problem document (RFC 9457).",
        license(name = "MPL-2.0", identifier = "MPL-2.0")
    ),
    paths(
        document,
        server::server,
        drain::begin,
        streams::list,
        streams::get,
        streams::kick,
        sessions::list,
        sessions::get,
        sessions::kick,
        pushes::list,
        pushes::add,
        pushes::get,
        pushes::delete,
        recorders::list,
        recorders::start,
        recorders::stop,
        recordings::list,
        recordings::delete,
        rooms::list,
        rooms::add,
        rooms::delete,
        revocations::list,
        revocations::add,
        revocations::delete,
    )
)]
struct Description;

static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

/// This description.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn document() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, DOCUMENT.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::signaller::routes::ROUTES;

    /// Each route is in the document with its methods, and nothing else is.
    #[test]
    fn the_document_is_the_table_of_routes() {
        let document: Value = serde_json::from_str(&DOCUMENT).unwrap();
        let mut told = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                told.insert((path.clone(), method.to_uppercase()));
            }
        }
        let mut served = BTreeSet::new();
        for route in ROUTES.iter().filter(|r| r.path.starts_with("/api/v1/")) {
            let path = route.path.replace("{*", "{");
            let methods = route.methods.split(", ");
            for method in methods.filter(|m| !matches!(*m, "HEAD" | "OPTIONS")) {
                served.insert((path.clone(), method.to_owned()));
            }
        }
        assert_eq!(told, served);
    }
}
