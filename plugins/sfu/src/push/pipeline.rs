// SPDX-License-Identifier: MPL-2.0

//! The elements between a stream and a service: a pipeline of its own for each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gst::prelude::*;
use sfu_engine::{Codec, StreamInfo, StreamName, TrackHealth};

use super::address::Address;
use crate::aac;

/// What services ask for, in ms.
const KEYFRAMES: u32 = 2_000;
/// What pictures are encoded to that FLV does not carry.
const LAYER: &str = "720:2500k";
const AUDIO_BITRATE: u32 = 160_000;
/// How long the muxer waits for a track that is late.
const MUXER_LATENCY: u64 = 500_000_000;

/// What a publisher sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracks {
    video: Option<Codec>,
    audio: Option<Codec>,
}

impl Tracks {
    /// What there is of a stream, if it has a publisher.
    pub(super) fn of(info: &StreamInfo) -> Option<Self> {
        let video = info.video.as_ref().map(|video| video.codec);
        let audio = info.audio.first().map(|first| first.track.codec);
        let is_any = video.is_some() || audio.is_some();
        (info.live && is_any).then_some(Self { video, audio })
    }

    /// What of it has begun, if anything has. What is only promised the muxer would wait for.
    pub(super) fn begun(info: &StreamInfo) -> Option<Self> {
        let tracks = Self::of(info)?;
        let has = |health: &TrackHealth| health.frames > 0;
        let pictures = info.video.iter().flat_map(|video| &video.health).any(has);
        let sound = info.audio.first().is_some_and(|first| has(&first.health));
        let begun = Self {
            video: tracks.video.filter(|_| pictures),
            audio: tracks.audio.filter(|_| sound),
        };
        (begun.video.is_some() || begun.audio.is_some()).then_some(begun)
    }

    /// The pipeline's description: nothing that comes from outside is in it.
    fn description(&self) -> Result<String, &'static str> {
        let mut line = format!(
            "sfusrc name=in keyframe-interval={KEYFRAMES} \
             flvmux name=mux streamable=true latency={MUXER_LATENCY} ! rtmp2sink name=out async-connect=false sync=false"
        );
        match self.video {
            None => {}
            Some(Codec::H264) => line += " queue name=video ! h264parse ! mux.video",
            Some(_) => {
                line += " queue name=video ! decodebin ! videoconvert ! simulcastenc name=encoder layers=";
                line += LAYER;
                line += " encoder.src_0 ! h264parse ! mux.video";
            }
        }
        if self.audio.is_some() {
            let encoder = aac::encoder()?;
            line += &format!(
                " queue name=audio ! opusdec plc=true ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=2 \
                 ! {encoder} bitrate={AUDIO_BITRATE} ! aacparse ! mux.audio"
            );
        }
        Ok(line)
    }
}

/// See the module's description. It ends when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pipeline: gst::Pipeline,
    sink: gst::Element,
    /// Buffers that have come to the sink. It takes the second one when it has connected and sent the first.
    came: Arc<AtomicU64>,
}

impl Connection {
    pub(super) fn open(
        stream: &StreamName,
        router: &str,
        tracks: &Tracks,
        address: &Address,
    ) -> Result<Self, String> {
        let pipeline = gst::parse::launch(&tracks.description()?).map_err(|e| e.to_string())?;
        let pipeline = pipeline.downcast::<gst::Pipeline>();
        let pipeline = pipeline.map_err(|_| "the description is no pipeline")?;
        let child = |name: &str| {
            let child = pipeline.by_name(name);
            child.ok_or_else(|| format!("the pipeline has no {name}"))
        };
        let (source, sink) = (child("in")?, child("out")?);
        source.set_property("stream", stream.as_str());
        source.set_property("router", router);
        if !address.give_to(&sink) {
            return Err("its address is none".to_owned());
        }
        let weak = pipeline.downgrade();
        source.connect_pad_added(move |_, pad| {
            let name = pad.name();
            let kind = name.split('_').next().unwrap_or_default();
            let queue = weak.upgrade().and_then(|pipeline| pipeline.by_name(kind));
            // What had not begun when the tracks were looked at is not linked: the next pipeline has it.
            if let Some(sink) = queue.and_then(|queue| queue.static_pad("sink")) {
                let _ = pad.link(&sink);
            }
        });
        let came = Arc::<AtomicU64>::default();
        let counted = came.clone();
        let pad = sink.static_pad("sink").ok_or("the sink has no pad")?;
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counted.fetch_add(1, Relaxed);
            gst::PadProbeReturn::Ok
        });
        let this = Self {
            pipeline,
            sink,
            came,
        };
        let started = this.pipeline.set_state(gst::State::Playing);
        started
            .map_err(|e| crate::ending::failure(&this.pipeline).unwrap_or_else(|| e.to_string()))?;
        Ok(this)
    }

    /// The service has taken something.
    pub(super) fn is_live(&self) -> bool {
        self.came.load(Relaxed) > 1
    }

    /// Octets that have left, with those of the protocol.
    pub(super) fn octets(&self) -> u64 {
        let stats = self.sink.property::<Option<gst::Structure>>("stats");
        stats.map_or(0, |stats| stats.get("out-bytes-total").unwrap_or(0))
    }

    /// How it has ended, if it has: by the publisher, or with what failed.
    pub(super) fn ended(&self, patience: gst::ClockTime) -> Option<Result<(), String>> {
        let types = [
            gst::MessageType::Error,
            gst::MessageType::Eos,
            gst::MessageType::Latency,
        ];
        let message = self.pipeline.bus()?.timed_pop_filtered(patience, &types)?;
        match message.view() {
            gst::MessageView::Error(error) => Some(Err(error.error().message().to_owned())),
            gst::MessageView::Eos(_) => Some(Ok(())),
            _ => {
                let _ = self.pipeline.recalculate_latency();
                None
            }
        }
    }

    /// Lets what is under way come to its end, and the service know.
    pub(super) fn finish(&self) {
        if let Some(source) = self.pipeline.by_name("in") {
            source.send_event(gst::event::Eos::new());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
