// SPDX-License-Identifier: MPL-2.0

//! `GET /metrics`: everything that is counted, in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use sfu_engine::{LATENCY_BUCKETS, NetworkInfo, StreamInfo};

use super::server::App;

/// Streams with figures of their own, some 1.4 kB each.
const STREAMS: usize = 1_000;

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let mut page = Page::default();
    for (name, help, value) in app.engine.counters().iter() {
        page.family(&format!("sfu_{name}_total"), "counter", help);
        page.sample("", value);
    }
    page.family(
        "sfu_sessions",
        "gauge",
        "Sessions of viewers and publishers.",
    );
    page.sample("", app.engine.sessions() as u64);
    page.family(
        "sfu_http_responses_total",
        "counter",
        "HTTP responses by class of status.",
    );
    for (class, count) in app.answers.iter().enumerate().skip(1) {
        page.sample(&format!("{{class=\"{class}xx\"}}"), count.load(Relaxed));
    }
    page.family("sfu_http_connections", "gauge", "HTTP connections.");
    page.sample("", app.connections.count() as u64);
    for (name, help, value) in app.connections.counts.iter() {
        page.family(&format!("sfu_http_{name}_total"), "counter", help);
        page.sample("", value);
    }
    page.family(
        "sfu_http_files_refused_total",
        "counter",
        "Requests for files refused: too many were being read.",
    );
    page.sample("", app.files.refused.load(Relaxed));
    networks(&mut page, &app.engine.networks());
    let all = app.router.streams();
    page.family(
        "sfu_streams",
        "gauge",
        "Names that somebody publishes or watches.",
    );
    page.sample("", all.len() as u64);
    streams(&mut page, &shown(all));
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, page.text)
}

/// Those with figures of their own: of what nobody has sent anything to there are none, and strangers can make many names.
fn shown(mut all: Vec<StreamInfo>) -> Vec<StreamInfo> {
    all.retain(|s| s.packets_in > 0 || s.viewers > 0 || s.outputs > 0);
    all.truncate(STREAMS);
    all
}

/// What the network takes of each shard.
fn networks(page: &mut Page, networks: &[NetworkInfo]) {
    type Figure = (&'static str, &'static str, fn(&NetworkInfo) -> u64);
    let figures: [Figure; 4] = [
        (
            "sfu_shard_send_buffer_wanted_bytes",
            "The send buffer that was asked for.",
            |n| n.send_buffer_wanted as u64,
        ),
        (
            "sfu_shard_send_buffer_granted_bytes",
            "The send buffer that the kernel granted: below what was asked for, see net.core.wmem_max.",
            |n| n.send_buffer_granted as u64,
        ),
        (
            "sfu_shard_send_buffer_bytes",
            "The send buffer as it is now, smaller than the queue of a device that dropped datagrams.",
            |n| n.send_buffer as u64,
        ),
        (
            "sfu_shard_segmentation",
            "Whether many datagrams leave as one message (UDP segmentation offload).",
            |n| n.segmentation.into(),
        ),
    ];
    for (name, help, value) in figures {
        page.family(name, "gauge", help);
        for (shard, network) in networks.iter().enumerate() {
            page.sample(&format!("{{shard=\"{shard}\"}}"), value(network));
        }
    }
}

/// A figure of a stream: name, kind, help, and how to read it.
type Figure = (
    &'static str,
    &'static str,
    &'static str,
    fn(&StreamInfo) -> u64,
);

fn streams(page: &mut Page, streams: &[StreamInfo]) {
    let figures: [Figure; 10] = [
        (
            "sfu_stream_live",
            "gauge",
            "Whether the stream has a publisher.",
            |s| s.live.into(),
        ),
        (
            "sfu_stream_viewers",
            "gauge",
            "Viewers of the stream.",
            |s| s.viewers as u64,
        ),
        (
            "sfu_stream_outputs",
            "gauge",
            "Consumers of the stream inside this process: sfusrc elements.",
            |s| s.outputs as u64,
        ),
        (
            "sfu_stream_packets_in_total",
            "counter",
            "RTP packets from the publisher.",
            |s| s.packets_in,
        ),
        (
            "sfu_stream_packets_dropped_total",
            "counter",
            "RTP packets from publishers that had come before, or came far too late.",
            |s| s.packets_dropped,
        ),
        (
            "sfu_stream_bytes_in_total",
            "counter",
            "RTP payload bytes from the publisher.",
            |s| s.bytes_in,
        ),
        (
            "sfu_stream_keyframe_requests_received_total",
            "counter",
            "Keyframe requests by viewers and for them, since the publisher came: refused, merged, sent, and those that wait.",
            |s| s.keyframe_requests_received,
        ),
        (
            "sfu_stream_keyframe_requests_refused_total",
            "counter",
            "Keyframe requests that were put off because their viewer had asked too often.",
            |s| s.keyframe_requests_refused,
        ),
        (
            "sfu_stream_keyframe_requests_merged_total",
            "counter",
            "Keyframe requests that another one stood for, or a keyframe that came anyway.",
            |s| s.keyframe_requests_merged,
        ),
        (
            "sfu_stream_keyframe_requests_sent_total",
            "counter",
            "Keyframe requests that the publisher got, since it came.",
            |s| s.keyframe_requests_sent,
        ),
    ];
    for (name, kind, help, value) in figures {
        page.family(name, kind, help);
        for stream in streams {
            page.sample(
                &format!("{{stream=\"{}\"}}", escaped(stream.name.as_str())),
                value(stream),
            );
        }
    }
    latencies(page, streams);
    page.family(
        "sfu_layer_bitrate",
        "gauge",
        "Bitrate of the layer from the publisher, in bit/s.",
    );
    for stream in streams {
        for layer in stream.video.iter().flat_map(|v| &v.layers) {
            let (name, rid) = (escaped(stream.name.as_str()), escaped(layer.rid.as_str()));
            let labels = format!("{{stream=\"{name}\",rid=\"{rid}\"}}");
            page.sample(&labels, layer.bitrate.filter(|_| layer.active).unwrap_or(0));
        }
    }
}

/// The histograms of what viewers' pages report.
fn latencies(page: &mut Page, streams: &[StreamInfo]) {
    page.family(
        "sfu_viewer_latency_seconds",
        "histogram",
        "Time from capture to the viewer's screen, as pages report it every 10 s.",
    );
    for stream in streams {
        let name = escaped(stream.name.as_str());
        let info = &stream.latency;
        let total = info.cumulative.last().copied().unwrap_or(0);
        for (bound, count) in LATENCY_BUCKETS.iter().zip(info.cumulative) {
            page.sample(
                &format!("_bucket{{stream=\"{name}\",le=\"{bound}\"}}"),
                count,
            );
        }
        page.sample(&format!("_bucket{{stream=\"{name}\",le=\"+Inf\"}}"), total);
        page.sample(
            &format!("_sum{{stream=\"{name}\"}}"),
            info.sum.as_secs_f64(),
        );
        page.sample(&format!("_count{{stream=\"{name}\"}}"), total);
    }
}

#[derive(Default)]
struct Page {
    text: String,
    family: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.family);
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `labels` may begin with the rest of the name.
    fn sample(&mut self, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{}{labels} {value}", self.family);
    }
}

/// A label's value. Names can't hold anything that needs it today; this keeps it so that they may.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
