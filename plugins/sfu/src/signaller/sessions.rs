// SPDX-License-Identifier: MPL-2.0

//! WHEP and WHIP (RFC 9725): offers become sessions, which are changed and ended by their URL.

use std::time::{Instant, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sfu_engine::{
    Full, Patched, Preference, PublishRefused, PublishRequest, SessionError, SessionId, StreamName,
    SubscribeError, SubscribeRequest, Subscribed,
};

use super::address::Client;
use super::conditions;
use super::door::Pass;
use super::links;
use super::object::Object;
use super::offered;
use super::server::{App, Refusal};

pub(super) const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// The parameters of `POST /whep/{stream}`.
#[derive(Debug, Deserialize)]
pub(super) struct WatchQuery {
    layer: Option<String>,
    audio: Option<String>,
}

/// The parameters of `POST /whip/{stream}`.
#[derive(Debug, Deserialize)]
pub(super) struct PublishQuery {
    takeover: Option<String>,
}

impl PublishQuery {
    pub(super) fn is_takeover(&self) -> bool {
        matches!(self.takeover.as_deref(), Some("1" | "true"))
    }
}

/// The body of `POST /session/{id}/layer`: all that the viewer wants. What is left out is not asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerChoice {
    #[serde(default)]
    encoding_id: Option<String>,
    #[serde(default)]
    max_height: Option<u32>,
    #[serde(default)]
    max_bitrate: Option<u64>,
    #[serde(default)]
    max_temporal_layer_id: Option<u8>,
    #[serde(default = "yes")]
    video: bool,
    #[serde(default)]
    audio: Option<String>,
}

fn yes() -> bool {
    true
}

/// `POST /whep/{stream}`
pub(super) async fn watch(
    State(app): State<App>,
    Client(peer): Client,
    pass: Pass,
    Path(stream): Path<String>,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    if body.as_ref().is_ok_and(Bytes::is_empty) && media_type(&headers) == Some(SDP) {
        return watch_by_our_offer(app, peer, pass, &stream).await;
    }
    let offer = offer(&headers, body)?;
    let stream = stream_name(&stream)?;
    let layer = query.layer.filter(|l| !l.is_empty());
    let layer = layer.map(|l| l.parse()).transpose().map_err(bad_request)?;
    let audio = query.audio.filter(|a| !a.is_empty());
    let audio = audio.map(|a| a.parse()).transpose().map_err(bad_request)?;
    let engine = app.engine.clone();
    let answered = app.offers.run(move || {
        engine.subscribe(&SubscribeRequest {
            stream: &stream,
            offer: &offer,
            preference: Preference {
                layer,
                audio,
                ..Preference::default()
            },
            peer,
        })
    });
    let answered = answered.await?.map_err(|e| not_subscribed(&e))?;
    let mut response = created(&app, &answered, &pass);
    app.door.hold(answered.session, pass);
    links::extensions(response.headers_mut(), answered.session);
    Ok(response)
}

/// See `offered.rs`.
async fn watch_by_our_offer(
    app: App,
    peer: Option<std::net::IpAddr>,
    pass: Pass,
    stream: &str,
) -> Result<Response, Refusal> {
    let stream = stream_name(stream)?;
    let engine = app.engine.clone();
    let offered = app.offers.run(move || engine.offer(&stream, peer));
    let viewer = offered.await?.map_err(|e| not_subscribed(&e))?;
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, format!("/session/{}", viewer.session())),
        (
            header::HeaderName::from_static("accept-patch"),
            SDP.to_owned(),
        ),
    ];
    let mut response = (StatusCode::CREATED, headers, viewer.offer().to_owned()).into_response();
    told_ice_servers(&app, response.headers_mut(), viewer.session(), &pass);
    app.waiting.add(viewer, pass);
    Ok(response)
}

/// `POST /whip/{stream}`
pub(super) async fn publish(
    State(app): State<App>,
    Client(peer): Client,
    pass: Pass,
    Path(stream): Path<String>,
    Query(query): Query<PublishQuery>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let offer = offer(&headers, body)?;
    let stream = stream_name(&stream)?;
    let takeover = query.is_takeover();
    let engine = app.engine.clone();
    let answered = app.offers.run(move || {
        engine.publish(&PublishRequest {
            stream: &stream,
            offer: &offer,
            takeover,
            peer,
        })
    });
    let answered = answered.await?.map_err(|e| not_published(&e))?;
    let response = created(&app, &answered, &pass);
    app.door.hold(answered.session, pass);
    Ok(response)
}

fn offer(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<String, Refusal> {
    sdp_body(headers, body, SDP)
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    content_type.split(';').next().map(str::trim)
}

fn sdp_body(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    expected: &str,
) -> Result<String, Refusal> {
    let media_type = media_type(headers).unwrap_or_default();
    if !media_type.eq_ignore_ascii_case(expected) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Content-Type {media_type:?} is not taken here: send {expected}"),
        ));
    }
    let body = body.map_err(|_| bad_request("the body did not arrive whole"))?;
    let text = String::from_utf8(body.to_vec()).map_err(|_| bad_request("the body is not text"))?;
    if text.trim().is_empty() {
        let what = match expected {
            FRAGMENT => "a fragment of SDP (RFC 8840) with candidates, or with new credentials",
            _ => "an SDP",
        };
        return Err(bad_request(format!("the body is empty: send {what}")));
    }
    Ok(text)
}

fn stream_name(name: &str) -> Result<StreamName, Refusal> {
    name.parse().map_err(bad_request)
}

fn session_id(id: &str) -> Result<SessionId, Refusal> {
    id.parse()
        .map_err(|_| session_refusal(&SessionError::Unknown))
}

fn bad_request(message: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message.to_string())
}

fn created(app: &App, answered: &Subscribed, pass: &Pass) -> Response {
    let location = format!("/session/{}", answered.session);
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, location),
        (header::ETAG, answered.etag.clone()),
        (
            header::HeaderName::from_static("accept-patch"),
            FRAGMENT.to_owned(),
        ),
    ];
    let mut response = (StatusCode::CREATED, headers, answered.answer.clone()).into_response();
    told_ice_servers(app, response.headers_mut(), answered.session, pass);
    response
}

fn told_ice_servers(app: &App, headers: &mut HeaderMap, session: SessionId, pass: &Pass) {
    // As much of the identifier as the log shows.
    let session = session.to_string();
    let session = session.get(..8).unwrap_or_default();
    let (until, now) = (pass.proof.ends(), SystemTime::now());
    app.ice_servers.append(headers, session, until, now);
}

pub(super) fn not_subscribed(error: &SubscribeError) -> Refusal {
    let status = match error {
        SubscribeError::UnknownStream(_) => StatusCode::NOT_FOUND,
        // draft-ietf-wish-whep-03, section 4.2: where a live publisher is needed.
        SubscribeError::NotReady(_) => StatusCode::CONFLICT,
        SubscribeError::UnknownLayer { .. } | SubscribeError::InvalidOffer(_) => {
            StatusCode::BAD_REQUEST
        }
        SubscribeError::UnacceptableOffer(_) => StatusCode::UNPROCESSABLE_ENTITY,
        SubscribeError::NoCommonCodec(_) => StatusCode::NOT_ACCEPTABLE,
        SubscribeError::Busy | SubscribeError::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let refusal = Refusal::new(status, error.to_string());
    match error {
        SubscribeError::NotReady(_) | SubscribeError::Busy => {
            refusal.with(header::RETRY_AFTER, "1")
        }
        SubscribeError::Full(full) => refusal.with(header::RETRY_AFTER, retry_after(*full)),
        _ => refusal,
    }
}

/// When to come again, in s: unconnected sessions time out within 20 s, others may stay for long.
fn retry_after(full: Full) -> &'static str {
    match full {
        Full::Sessions => "10",
        Full::Address => "5",
    }
}

fn not_published(error: &PublishRefused) -> Refusal {
    let status = match error {
        PublishRefused::InUse(_) => StatusCode::CONFLICT,
        PublishRefused::InvalidOffer(_) => StatusCode::BAD_REQUEST,
        PublishRefused::UnacceptableOffer(_) => StatusCode::UNPROCESSABLE_ENTITY,
        PublishRefused::NoCommonCodec(_) => StatusCode::NOT_ACCEPTABLE,
        PublishRefused::Busy | PublishRefused::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let refusal = Refusal::new(status, error.to_string());
    match error {
        PublishRefused::Busy => refusal.with(header::RETRY_AFTER, "1"),
        PublishRefused::Full(full) => refusal.with(header::RETRY_AFTER, retry_after(*full)),
        _ => refusal,
    }
}

fn session_refusal(error: &SessionError) -> Refusal {
    let status = match error {
        SessionError::Unknown => StatusCode::NOT_FOUND,
        SessionError::UnknownLayer { .. } | SessionError::InvalidFragment(_) => {
            StatusCode::BAD_REQUEST
        }
        SessionError::Stopped | SessionError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let refusal = Refusal::new(status, error.to_string());
    match error {
        SessionError::Stopped | SessionError::Busy => refusal.with(header::RETRY_AFTER, "1"),
        _ => refusal,
    }
}

/// `PATCH /session/{id}`: candidates (204), or an ICE restart (200 with the answer's fragment and a new `ETag`).
///
/// An ICE restart names the session's state by `If-Match`; so may candidates (RFC 9725, section 4.3).
pub(super) async fn patch(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let id = session_id(&id)?;
    if media_type(&headers) == Some(SDP) && app.waiting.has(id) {
        let answer = sdp_body(&headers, body, SDP)?;
        offered::answer(app, id, answer).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let fragment = sdp_body(&headers, body, FRAGMENT)?;
    let session = app
        .engine
        .session(id)
        .ok_or_else(|| session_refusal(&SessionError::Unknown))?;
    conditions::names_state(&headers, &session.etag)?;
    let fragments = app.fragments.clone();
    let patched = fragments.run(move || app.engine.patch(id, &fragment));
    let patched = patched.await?;
    Ok(match patched.map_err(|e| session_refusal(&e))? {
        Patched::Trickled => StatusCode::NO_CONTENT.into_response(),
        Patched::Restarted { fragment, etag } => {
            let headers = [
                (header::CONTENT_TYPE, FRAGMENT.to_owned()),
                (header::ETAG, etag),
            ];
            (StatusCode::OK, headers, fragment).into_response()
        }
    })
}

/// `DELETE /session/{id}`
pub(super) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let id = session_id(&id)?;
    match app.engine.close(id) {
        Err(SessionError::Unknown) if app.waiting.remove(id) => {}
        Err(SessionError::Unknown) if app.recent.has(Instant::now(), id) => {}
        closed => closed.map_err(|e| session_refusal(&e))?,
    }
    app.recent.add(Instant::now(), id);
    Ok(StatusCode::OK)
}

/// `POST /session/{id}/layer`
pub(super) async fn layer(
    State(app): State<App>,
    Path(id): Path<String>,
    body: Result<Json<Object<LayerChoice>>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let id = session_id(&id)?;
    let Json(Object(choice)) = body.map_err(|rejection| {
        let message = "send application/json such as {\"encodingId\": \"0\"} (null for automatic), \
                       {\"maxHeight\": 540}, {\"maxBitrate\": 1000000}, {\"maxTemporalLayerId\": 0}, \
                       {\"video\": false} or {\"audio\": \"en\"}";
        Refusal::new(rejection.status(), message)
    })?;
    let layer = choice
        .encoding_id
        .map(|l| l.parse())
        .transpose()
        .map_err(bad_request)?;
    let audio = choice.audio.map(|a| a.parse()).transpose();
    let preference = Preference {
        layer,
        audio: audio.map_err(bad_request)?,
        max_height: choice.max_height,
        max_bitrate: choice.max_bitrate,
        max_temporal: choice.max_temporal_layer_id,
        video_paused: !choice.video,
        priority: 0,
    };
    app.engine
        .set_preference(id, preference)
        .map_err(|e| session_refusal(&e))?;
    Ok(StatusCode::OK)
}
