// SPDX-License-Identifier: MPL-2.0

//! What the pages and monitoring ask: streams and sessions as JSON.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sfu_access::Action;
use sfu_engine::{AudioTrack, Language, Rid, SessionId, SessionInfo, StreamInfo, StreamName};

use super::door::{Pass, may_play};
use super::hls;
use super::latency;
use super::server::{App, Refusal};

/// The parameters of `GET /healthz`.
#[derive(Debug, Deserialize)]
pub(super) struct HealthQuery {
    pub(super) stream: Option<String>,
}

/// `GET /healthz`: that the server runs, and with a stream, that something comes from it.
pub(super) async fn health(
    State(app): State<App>,
    Query(query): Query<HealthQuery>,
) -> Result<&'static str, Refusal> {
    let Some(name) = query.stream else {
        return Ok("ok\n");
    };
    let bad = |e: sfu_engine::NameError| Refusal::new(StatusCode::BAD_REQUEST, e.to_string());
    let name: StreamName = name.parse().map_err(bad)?;
    let info = app.router.stream(&name);
    if info.is_some_and(|info| sends(&info)) {
        return Ok("ok\n");
    }
    let message = format!("nothing comes from the stream {name}");
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message))
}

/// Whether it has a publisher who sends. Sound alone is not looked at: it may be silent for long.
pub(super) fn sends(info: &StreamInfo) -> bool {
    let sends = match &info.video {
        Some(video) => video.layers.iter().any(|layer| layer.active),
        None => !info.audio.is_empty(),
    };
    info.live && sends
}

/// The streams that are listed.
const LISTED: usize = 1_000;

/// `GET /api/streams`: those that may be played by who asks.
pub(super) async fn streams(State(app): State<App>, pass: Pass) -> Result<Json<Value>, Refusal> {
    let rights = pass.rights(&app);
    let lists = app.lists.clone();
    let listed = lists.run(move || {
        let streams = app.router.streams();
        let shown = streams.iter().filter(|s| may_play(&rights, &s.name));
        let shown = shown.take(LISTED);
        let streams: Vec<_> = shown.map(|s| stream_json(&app, s)).collect();
        let recordings = app.recordings.is_some() && rights.has(Action::Record);
        json!({ "streams": streams, "recordings": recordings })
    });
    Ok(Json(listed.await?))
}

/// `GET /api/streams/{stream}`
pub(super) async fn stream(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let bad = |e: sfu_engine::NameError| Refusal::new(StatusCode::BAD_REQUEST, e.to_string());
    let name: StreamName = name.parse().map_err(bad)?;
    let unknown = || {
        let message = format!("there is no stream {name}; the live ones are listed at /");
        Refusal::new(StatusCode::NOT_FOUND, message)
    };
    let info = app.router.stream(&name).ok_or_else(unknown)?;
    let lists = app.lists.clone();
    Ok(Json(lists.run(move || stream_json(&app, &info)).await?))
}

fn stream_json(app: &App, info: &StreamInfo) -> Value {
    let video = info.video.as_ref().map(|video| {
        let layers = video.layers.iter().map(|layer| {
            json!({
                "rid": layer.rid.as_str(),
                "width": layer.width,
                "height": layer.height,
                "bitrate": layer.bitrate,
                "active": layer.active,
                "temporal_layers": layer.temporal_layers,
            })
        });
        json!({ "codec": video.codec.name(), "layers": layers.collect::<Vec<_>>() })
    });
    json!({
        "name": info.name.as_str(),
        "live": info.live,
        "sends": sends(info),
        "input": info.input,
        "viewers": info.viewers,
        "outputs": info.outputs,
        "uptime_ms": info.uptime.as_millis() as u64,
        "video": video,
        "hls": hls::address(app, &info.name),
        "audio": info.audio.first().map(|first| json!({
            "codec": first.track.codec.name(),
            "tracks": audio_json(info.audio.iter().map(|status| &status.track)),
        })),
        "latency": latency::json(&info.latency),
    })
}

/// The audio tracks that there are to choose from.
pub(super) fn audio_json<'a>(tracks: impl Iterator<Item = &'a AudioTrack>) -> Value {
    let told = |track: &AudioTrack| {
        json!({
            "id": track.number.to_string(),
            "language": track.language.as_ref().map(Language::as_str),
        })
    };
    tracks.map(told).collect()
}

/// Which layer a viewer wants, is to get and gets, and why.
pub(super) fn layer_json(info: &SessionInfo) -> Value {
    let rid = |rid: &Option<Rid>| rid.as_ref().map(|rid| rid.as_str().to_owned());
    json!({
        "wanted": rid(&info.preference.layer),
        "max_height": info.preference.max_height,
        "max_bitrate": info.preference.max_bitrate,
        "max_temporal": info.preference.max_temporal,
        "video": !info.preference.video_paused,
        "target": rid(&info.target),
        "current": rid(&info.current),
        "target_temporal": info.target_limit.id(),
        "current_temporal": info.current_limit.id(),
        "why": info.why.as_str(),
        "audio_wanted": info.preference.audio.as_ref().map(ToString::to_string),
        "audio": info.audio.map(|number| number.to_string()),
    })
}

/// `GET /session/{id}`
pub(super) async fn session(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let info = id
        .parse::<SessionId>()
        .ok()
        .and_then(|id| app.engine.session(id));
    let unknown = || {
        let message = "there is no such session; it may have ended";
        Refusal::new(StatusCode::NOT_FOUND, message)
    };
    let info = info.ok_or_else(unknown)?;
    Ok(Json(json!({
        "id": info.id.to_string(),
        "stream": info.stream.as_str(),
        "connected": info.connected,
        "layer": layer_json(&info),
        "estimate": info.estimate,
        "loss": info.loss,
        "packets_sent": info.packets_sent,
        "bytes_sent": info.bytes_sent,
        "retransmitted": info.retransmitted,
        "keyframe_requests": info.keyframe_requests,
        "rtt_ms": info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        "latency_ms": info.latency.map(latency::millis),
        "too_large": info.too_large,
        "path_mtu": info.path_mtu,
    })))
}
