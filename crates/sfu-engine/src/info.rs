// SPDX-License-Identifier: MPL-2.0

//! What there is to say of a stream: read by the list page, the metrics and the elements' `stats`.

use std::time::Duration;

use crate::audio::AudioTrack;
use crate::codec::Codec;
use crate::health::TrackHealth;
use crate::ids::{Rid, StreamName};
use crate::latency::LatencyInfo;

/// What there is to say of a stream.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// Whether a publisher is there.
    pub live: bool,
    /// How the publisher's media comes: `element`, `whip` or `room`.
    pub input: Option<&'static str>,
    /// Viewers' sessions.
    pub viewers: usize,
    /// Consumers inside this process.
    pub outputs: usize,
    /// Since the present publisher came.
    pub uptime: Duration,
    /// The video track, where there is one.
    pub video: Option<VideoInfo>,
    /// The audio tracks, in the order of their numbers.
    pub audio: Vec<AudioStatus>,
    /// Keyframe requests that viewers made, and the server for them, since the publisher came: the sum of the other three,
    /// and of those that wait.
    pub keyframe_requests_received: u64,
    /// Those that were put off because the viewer had asked too often.
    pub keyframe_requests_refused: u64,
    /// Those that another one stood for, or a keyframe that came anyway.
    pub keyframe_requests_merged: u64,
    /// Keyframe requests that the publisher got.
    pub keyframe_requests_sent: u64,
    /// RTP packets from the publisher.
    pub packets_in: u64,
    /// RTP packets from publishers that were left out: they had come before, or came far too late.
    pub packets_dropped: u64,
    /// RTP payload bytes from the publisher.
    pub bytes_in: u64,
    /// From capture to screen, as viewers' pages report it.
    pub latency: LatencyInfo,
}

/// What a viewer's page is told of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLook {
    /// Whether a publisher is there.
    pub live: bool,
    /// Viewers' sessions.
    pub viewers: usize,
    /// The video's layers, highest first.
    pub layers: Vec<LayerStatus>,
    /// The audio tracks, in the order of their numbers.
    pub audio: Vec<AudioTrack>,
}

/// One audio track as it is now.
#[derive(Debug, Clone)]
pub struct AudioStatus {
    /// What its publisher declared.
    pub track: AudioTrack,
    /// How it is.
    pub health: TrackHealth,
}

/// The video track of a stream.
#[derive(Debug, Clone)]
pub struct VideoInfo {
    /// Its codec.
    pub codec: Codec,
    /// Its layers, highest first.
    pub layers: Vec<LayerStatus>,
    /// How each of them is, in the same order.
    pub health: Vec<TrackHealth>,
}

/// One layer as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerStatus {
    /// Its name.
    pub rid: Rid,
    /// Picture width in pixels, where known.
    pub width: Option<u32>,
    /// Picture height in pixels, where known.
    pub height: Option<u32>,
    /// Bit/s: measured over the last second, else what the encoder aims at.
    pub bitrate: Option<u64>,
    /// Whether it is being sent.
    pub active: bool,
    /// How many temporal layers it has; 1 where the stream marks none.
    pub temporal_layers: u8,
}
