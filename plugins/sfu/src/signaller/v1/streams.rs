// SPDX-License-Identifier: MPL-2.0

//! Streams, with how they are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use sfu_engine::{AudioStatus, LayerStatus, StreamInfo, StreamName, TrackHealth};
use utoipa::ToSchema;

use super::asked::{Asked, List, Named, Part};
use crate::signaller::api::sends;
use crate::signaller::kick::{self, Kicked};
use crate::signaller::latency::millis;
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// A stream: a name that somebody publishes or watches.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Stream {
    name: String,
    /// It has a publisher.
    live: bool,
    /// Something comes from it: an ingest is a publisher also while no encoder sends to it.
    sends: bool,
    /// How the publisher's media comes: `whip`, `room`, a participant of one, or `element`, a pipeline of this process.
    input: Option<&'static str>,
    viewers: usize,
    /// Consumers inside this process.
    outputs: usize,
    /// Since the publisher came.
    uptime_ms: u64,
    /// It is recorded by the API's wish.
    recorded: bool,
    packets_in: u64,
    /// Packets that had come before, or came far too late.
    packets_dropped: u64,
    bytes_in: u64,
    keyframe_requests: KeyframeRequests,
    video: Option<Video>,
    /// The first audio track.
    audio: Option<Audio>,
    /// All of them: those of several languages, mostly.
    audio_tracks: Vec<Audio>,
    latency: Option<Latency>,
}

/// Since the publisher came.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct KeyframeRequests {
    /// By viewers and for them.
    received: u64,
    /// Put off, since their viewer had asked too often.
    refused: u64,
    /// Another one stood for them, or a keyframe that came anyway.
    merged: u64,
    /// The publisher got these.
    sent: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Video {
    codec: &'static str,
    /// The highest first.
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Layer {
    rid: String,
    width: Option<u32>,
    height: Option<u32>,
    /// In bit/s, over the last second.
    bitrate: Option<u64>,
    /// It is being sent.
    active: bool,
    temporal_layers: u8,
    /// Frames a second; 0 where none came lately.
    frame_rate: Option<f64>,
    frames: u64,
    keyframes: u64,
    /// Between the last two keyframes.
    keyframe_interval_ms: Option<u64>,
    since_keyframe_ms: Option<u64>,
    /// Pictures come in another order than they are shown in, which browsers get wrong.
    b_frames: bool,
    /// How often timestamps went on elsewhere than time did.
    timestamp_jumps: u64,
    /// Profile and level of H.264 as RFC 6381 writes them, such as `avc1.42e01f`.
    profile: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Audio {
    id: String,
    /// By its tag (BCP 47), where the publisher tells it.
    language: Option<String>,
    codec: &'static str,
    channels: Option<u8>,
    /// How loud it was at most within the last second or two, in dBov (RFC 6464): 0 is the loudest that there can be, -127
    /// silence. Null where the publisher doesn't tell: browsers do by WHIP, `sfusink` does not.
    #[schema(minimum = -127, maximum = 0)]
    level_dbov: Option<i8>,
    packets_per_second: Option<f64>,
    timestamp_jumps: u64,
}

/// From capture to screen, as viewers' pages reported it in the last minute.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Latency {
    p50_ms: u64,
    p95_ms: u64,
    reports: usize,
}

fn layer((layer, health): (&LayerStatus, &TrackHealth)) -> Layer {
    Layer {
        rid: layer.rid.as_str().to_owned(),
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate,
        active: layer.active,
        temporal_layers: layer.temporal_layers,
        frame_rate: health.frame_rate.map(tenths),
        frames: health.frames,
        keyframes: health.keyframes,
        keyframe_interval_ms: health.keyframe_interval.map(millis),
        since_keyframe_ms: health.since_keyframe.map(millis),
        b_frames: health.b_frames,
        timestamp_jumps: health.timestamp_jumps,
        profile: health.profile.clone(),
    }
}

fn audio(AudioStatus { track, health }: &AudioStatus) -> Audio {
    Audio {
        id: track.number.to_string(),
        language: track.language.as_ref().map(ToString::to_string),
        codec: track.codec.name(),
        channels: health.channels,
        level_dbov: health
            .level
            .and_then(|below| Some(-i8::try_from(below).ok()?)),
        packets_per_second: health.frame_rate.map(tenths),
        timestamp_jumps: health.timestamp_jumps,
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn told(app: &App, info: &StreamInfo) -> Stream {
    let latency = &info.latency;
    Stream {
        name: info.name.as_str().to_owned(),
        live: info.live,
        sends: sends(info),
        input: info.input,
        viewers: info.viewers,
        outputs: info.outputs,
        uptime_ms: info.uptime.as_millis() as u64,
        recorded: app.recorders.has(&info.name),
        packets_in: info.packets_in,
        packets_dropped: info.packets_dropped,
        bytes_in: info.bytes_in,
        keyframe_requests: KeyframeRequests {
            received: info.keyframe_requests_received,
            refused: info.keyframe_requests_refused,
            merged: info.keyframe_requests_merged,
            sent: info.keyframe_requests_sent,
        },
        video: info.video.as_ref().map(|video| Video {
            codec: video.codec.name(),
            layers: video.layers.iter().zip(&video.health).map(layer).collect(),
        }),
        audio: info.audio.first().map(audio),
        audio_tracks: info.audio.iter().map(audio).collect(),
        latency: latency.p50.zip(latency.p95).map(|(p50, p95)| Latency {
            p50_ms: millis(p50),
            p95_ms: millis(p95),
            reports: latency.recent,
        }),
    }
}

/// All streams, by name.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    tag = "streams",
    params(Part),
    responses(
        (status = 200, body = List<Stream>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Asked(part): Asked<Part>,
) -> Result<Json<List<Stream>>, Refusal> {
    let looks = app.looks.clone();
    let list = looks.run(move || {
        let streams = app.router.streams();
        let behind = streams.iter().filter(|s| part.is_behind(s.name.as_str()));
        part.of(behind.map(|s| (s.name.as_str().to_owned(), told(&app, s))))
    });
    Ok(Json(list.await??))
}

fn unknown(name: &StreamName) -> Refusal {
    let message =
        format!("there is no stream {name}; GET /api/v1/streams lists those that there are");
    Refusal::new(StatusCode::NOT_FOUND, message)
}

/// One stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{stream}",
    tag = "streams",
    params(("stream" = inline(Named), Path, description = "Its name")),
    responses(
        (status = 200, body = Stream),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn get(
    State(app): State<App>,
    Named(name): Named,
) -> Result<Json<Stream>, Refusal> {
    let info = app.router.stream(&name).ok_or_else(|| unknown(&name))?;
    Ok(Json(told(&app, &info)))
}

/// Ends the stream's publisher, where it came by WHIP, RTMP, SRT or a room. It may come again: revoke its token, too.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{stream}",
    tag = "streams",
    params(("stream" = inline(Named), Path, description = "Its name")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 409, description = "Its publisher is a pipeline of this process", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "Its shard is too far behind to be told", body = Problem,
         content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn kick(
    State(app): State<App>,
    Named(name): Named,
) -> Result<StatusCode, Refusal> {
    app.router.stream(&name).ok_or_else(|| unknown(&name))?;
    let looks = app.looks.clone();
    let kicked = looks.run(move || kick::publisher(&app.engine, &app.router, &name));
    match kicked.await? {
        Kicked::Ended => return Ok(StatusCode::NO_CONTENT),
        Kicked::Busy => return Err(kick::busy()),
        Kicked::Nobody => {}
    }
    let message = "this stream's publisher is a pipeline of this process: end that, or what it takes the media from";
    Err(Refusal::new(StatusCode::CONFLICT, message))
}
