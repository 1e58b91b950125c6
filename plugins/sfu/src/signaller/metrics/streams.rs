// SPDX-License-Identifier: MPL-2.0

//! What each stream is like, and each layer of it.

use std::fmt;

use sfu_engine::{LATENCY_BUCKETS, LayerStatus, StreamInfo, TrackHealth};

use super::page::Page;
use crate::signaller::api::sends;

/// Streams with figures of their own, some 3 kB each.
const STREAMS: usize = 1_000;

/// Those with figures of their own: of what nobody has sent anything to there are none, and strangers can make many names.
pub(super) fn shown(mut all: Vec<StreamInfo>) -> Vec<StreamInfo> {
    all.retain(|s| s.packets_in > 0 || s.viewers > 0 || s.outputs > 0);
    all.truncate(STREAMS);
    all
}

type Figure = (&'static str, &'static str, fn(&StreamInfo) -> i64);
type Sum = (&'static str, &'static str, fn(&StreamInfo) -> u64);

const GAUGES: [Figure; 4] = [
    (
        "sfu_stream_live",
        "Whether the stream has a publisher.",
        |s| s.live.into(),
    ),
    (
        "sfu_stream_sends",
        "Whether something comes from its publisher.",
        |s| sends(s).into(),
    ),
    ("sfu_stream_viewers", "Viewers of the stream.", |s| {
        s.viewers as i64
    }),
    (
        "sfu_stream_outputs",
        "Consumers of the stream inside this process: sfusrc elements.",
        |s| s.outputs as i64,
    ),
];

const COUNTERS: [Sum; 7] = [
    (
        "sfu_stream_packets_in",
        "RTP packets from the publisher.",
        |s| s.packets_in,
    ),
    (
        "sfu_stream_packets_dropped",
        "RTP packets from publishers that had come before, or came far too late.",
        |s| s.packets_dropped,
    ),
    (
        "sfu_stream_bytes_in",
        "RTP payload bytes from the publisher.",
        |s| s.bytes_in,
    ),
    (
        "sfu_stream_keyframe_requests_received",
        "Keyframe requests by viewers and for them, since the publisher came: refused, merged, sent, and those that wait.",
        |s| s.keyframe_requests_received,
    ),
    (
        "sfu_stream_keyframe_requests_refused",
        "Keyframe requests that were put off because their viewer had asked too often.",
        |s| s.keyframe_requests_refused,
    ),
    (
        "sfu_stream_keyframe_requests_merged",
        "Keyframe requests that another one stood for, or a keyframe that came anyway.",
        |s| s.keyframe_requests_merged,
    ),
    (
        "sfu_stream_keyframe_requests_sent",
        "Keyframe requests that the publisher got, since it came.",
        |s| s.keyframe_requests_sent,
    ),
];

pub(super) fn write(page: &mut Page<'_>, streams: &[StreamInfo]) -> fmt::Result {
    for (name, help, value) in GAUGES {
        let mut family = page.gauges(name, help)?;
        for stream in streams {
            family.add(&[("stream", stream.name.as_str())], value(stream))?;
        }
    }
    for (name, help, value) in COUNTERS {
        let mut family = page.counters(name, help)?;
        for stream in streams {
            family.add(&[("stream", stream.name.as_str())], value(stream))?;
        }
    }
    latencies(page, streams)?;
    layers(page, streams)
}

/// The histograms of what viewers' pages report.
fn latencies(page: &mut Page<'_>, streams: &[StreamInfo]) -> fmt::Result {
    let mut family = page.histograms(
        "sfu_viewer_latency_seconds",
        "Time from capture to the viewer's screen, as pages report it every 10 s.",
    )?;
    for stream in streams {
        let latency = &stream.latency;
        let mut before = 0;
        let alone = latency
            .cumulative
            .map(|count| count - std::mem::replace(&mut before, count));
        // The library's word for what has no upper bound.
        let bounds = LATENCY_BUCKETS.into_iter().chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(alone).collect();
        let labels = [("stream", stream.name.as_str())];
        family.add(&labels, latency.sum.as_secs_f64(), &buckets)?;
    }
    Ok(())
}

/// A layer, as it is sent and how it is.
type Layer<'a> = (&'a LayerStatus, &'a TrackHealth);

fn layers(page: &mut Page<'_>, streams: &[StreamInfo]) -> fmt::Result {
    let all = || {
        streams.iter().flat_map(|stream| {
            let layers = stream
                .video
                .iter()
                .flat_map(|v| v.layers.iter().zip(&v.health));
            layers.map(|layer| (stream.name.as_str(), layer))
        })
    };
    type Figure = (&'static str, &'static str, fn(Layer<'_>) -> Option<f64>);
    type Whole = (&'static str, &'static str, fn(Layer<'_>) -> i64);
    type Sum = (&'static str, &'static str, fn(&TrackHealth) -> u64);
    let whole: [Whole; 3] = [
        (
            "sfu_layer_bitrate",
            "Bitrate of the layer from the publisher, in bit/s.",
            |(layer, _)| layer.bitrate.filter(|_| layer.active).unwrap_or(0) as i64,
        ),
        (
            "sfu_layer_height",
            "Height of the layer's pictures in pixels; 0 while nobody knows.",
            |(layer, _)| layer.height.unwrap_or(0).into(),
        ),
        (
            "sfu_layer_b_frames",
            "Whether the layer has pictures in another order than they are shown in, which browsers get wrong.",
            |(_, health)| health.b_frames.into(),
        ),
    ];
    for (name, help, value) in whole {
        let mut family = page.gauges(name, help)?;
        for (stream, layer) in all() {
            let labels = [("stream", stream), ("rid", layer.0.rid.as_str())];
            family.add(&labels, value(layer))?;
        }
    }
    let parts: [Figure; 2] = [
        (
            "sfu_layer_frame_rate",
            "Frames a second from the publisher.",
            |(_, health)| health.frame_rate,
        ),
        (
            "sfu_layer_keyframe_interval_seconds",
            "Between the last two keyframes.",
            |(_, health)| health.keyframe_interval.map(|d| d.as_secs_f64()),
        ),
    ];
    for (name, help, value) in parts {
        let mut family = page.gauges(name, help)?;
        for (stream, layer) in all() {
            if let Some(value) = value(layer) {
                let labels = [("stream", stream), ("rid", layer.0.rid.as_str())];
                family.add(&labels, value)?;
            }
        }
    }
    let sums: [Sum; 3] = [
        (
            "sfu_layer_frames",
            "Frames of the layer since its publisher came.",
            |health| health.frames,
        ),
        (
            "sfu_layer_keyframes",
            "Keyframes of the layer since its publisher came.",
            |health| health.keyframes,
        ),
        (
            "sfu_layer_timestamp_jumps",
            "How often the layer's timestamps went on elsewhere than time did.",
            |health| health.timestamp_jumps,
        ),
    ];
    for (name, help, value) in sums {
        let mut family = page.counters(name, help)?;
        for (stream, layer) in all() {
            let labels = [("stream", stream), ("rid", layer.0.rid.as_str())];
            family.add(&labels, value(layer.1))?;
        }
    }
    Ok(())
}
