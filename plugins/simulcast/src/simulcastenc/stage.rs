// SPDX-License-Identifier: MPL-2.0

//! What scales and encodes a layer: one encoder with what it needs before and behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gst::prelude::*;

use super::CAT;
use super::elements::{make, pad, take_out};
use super::encoders::Candidate;
use super::scalers;
use super::settings::{Codec, Settings};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Stage {
    /// What makes pictures smaller, and what it was made for.
    scaler: Vec<gst::Element>,
    fitted: Fitted,
    /// The size.
    filter: gst::Element,
    /// The encoder and what follows it.
    rest: Vec<gst::Element>,
    /// Kinds of memory that the encoder takes.
    memories: Vec<String>,
    entry: gst::Pad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fitted {
    /// In the system's memory.
    Plain,
    /// As it comes, which the encoder takes.
    Through,
    /// In its own memory.
    Within(String),
    /// Brought to the system's memory.
    OutOf(String),
}

impl Stage {
    /// Builds it between the queue and the end of the layer.
    pub(super) fn build(
        bin: &gst::Bin,
        settings: &Settings,
        candidate: &Candidate,
        encoder: gst::Element,
        from: &gst::Pad,
        out: &gst::Element,
    ) -> Result<Self, String> {
        let filter = make("capsfilter", "gstreamer1.0-plugins-base")?;
        let into = pad(&encoder, "sink")?;
        align_keyframes(
            &into,
            gst::ClockTime::from_mseconds(settings.keyframe_interval_ms.into()),
        );
        let mut rest = vec![encoder];
        rest.extend(behind(settings.codec)?);
        let scaler = plain_scaler()?;
        let all = scaler.iter().chain([&filter]).chain(&rest);
        let all: Vec<_> = all.cloned().collect();
        for element in &all {
            element.set_locked_state(true);
            bin.add(element).map_err(|e| e.to_string())?;
        }
        let linked = gst::Element::link_many(all.iter().chain([out]));
        linked.map_err(|e| e.to_string())?;
        let entry = pad(&scaler[0], "sink")?;
        start(&all)?;
        link(from, &entry)?;
        Ok(Self {
            scaler,
            fitted: Fitted::Plain,
            filter,
            rest,
            memories: candidate.memories(),
            entry,
        })
    }

    /// Where frames go in.
    pub(super) fn entry(&self) -> &gst::Pad {
        &self.entry
    }

    /// Takes what scales for the memory that the pictures are in. Returns whether frames go in elsewhere now.
    pub(super) fn fit(
        &mut self,
        bin: &gst::Bin,
        from: &gst::Pad,
        memory: Option<&str>,
        same_size: bool,
    ) -> Result<bool, String> {
        let fitted = self.fitting(memory, same_size)?;
        if fitted == self.fitted {
            return Ok(false);
        }
        let made = |factory: Option<gst::ElementFactory>| {
            let element = factory.and_then(|factory| factory.create().build().ok());
            element.ok_or("what scales in this memory can't be made")
        };
        let mut scaler = match &fitted {
            Fitted::Plain => plain_scaler()?,
            Fitted::Through => vec![make("identity", "libgstreamer1.0-0")?],
            Fitted::Within(memory) => vec![made(scalers::within(memory))?],
            Fitted::OutOf(memory) => vec![made(scalers::out_of(memory))?],
        };
        if matches!(fitted, Fitted::OutOf(_)) {
            scaler.extend(plain_scaler()?);
        }
        // The queue's pad keeps its peer's place free meanwhile: this is its thread.
        let _ = from.unlink(&self.entry);
        if let Some(last) = self.scaler.last() {
            last.unlink(&self.filter);
        }
        take_out(bin, self.scaler.iter());
        for element in &scaler {
            element.set_locked_state(true);
            bin.add(element).map_err(|e| e.to_string())?;
        }
        let linked = gst::Element::link_many(scaler.iter().chain([&self.filter]));
        linked.map_err(|e| e.to_string())?;
        start(&scaler)?;
        self.entry = pad(&scaler[0], "sink")?;
        link(from, &self.entry)?;
        self.scaler = scaler;
        self.fitted = fitted;
        Ok(true)
    }

    fn fitting(&self, memory: Option<&str>, same_size: bool) -> Result<Fitted, String> {
        let Some(memory) = memory else {
            return Ok(Fitted::Plain);
        };
        let taken = self.memories.iter().any(|taken| taken == memory);
        if taken && same_size {
            return Ok(Fitted::Through);
        }
        if taken && scalers::within(memory).is_some() {
            return Ok(Fitted::Within(memory.to_owned()));
        }
        if scalers::out_of(memory).is_some() {
            return Ok(Fitted::OutOf(memory.to_owned()));
        }
        Err(if taken {
            format!(
                "no element is installed that scales pictures in {memory}; scale them before, or ask for layers of their size alone"
            )
        } else {
            format!(
                "it does not take pictures in {memory}, and no element is installed that brings them to the system's memory"
            )
        })
    }

    /// The layer's size, or any where pictures go through as they are.
    pub(super) fn resize(&self, width: u32, height: u32, through: bool) {
        let mut caps = gst::Caps::builder("video/x-raw").any_features();
        if !through {
            caps = caps
                .field("width", width as i32)
                .field("height", height as i32)
                .field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
        }
        let caps = caps.build();
        if self.filter.property::<gst::Caps>("caps") != caps {
            self.filter.set_property("caps", caps);
        }
    }

    pub(super) fn remove(self, bin: &gst::Bin, from: &gst::Pad) {
        let _ = from.unlink(&self.entry);
        let all = self.scaler.iter().chain([&self.filter]).chain(&self.rest);
        let all: Vec<_> = all.collect();
        take_out(bin, all.into_iter());
    }
}

/// Links them whatever caps there are: which ones this takes is told when it is given them.
fn link(from: &gst::Pad, to: &gst::Pad) -> Result<(), String> {
    let linked = from.link_full(to, gst::PadLinkCheck::empty());
    linked.map(|_| ()).map_err(|e| e.to_string())
}

/// Lets elements follow the bin's state, the last ones first, so that nothing flows into what is not ready.
fn start(elements: &[gst::Element]) -> Result<(), String> {
    for element in elements.iter().rev() {
        let name = element.name();
        let failed = |_| format!("{name} does not start");
        element.sync_state_with_parent().map_err(failed)?;
        element.set_locked_state(false);
        // The bin may have changed its state meanwhile.
        element.sync_state_with_parent().map_err(failed)?;
    }
    Ok(())
}

fn plain_scaler() -> Result<Vec<gst::Element>, String> {
    let base = "gstreamer1.0-plugins-base";
    let scale = make("videoscale", base)?;
    // A picture that is a pixel off in shape must not get black bars.
    scale.set_property("add-borders", false);
    // Where the next encoder takes another format.
    Ok(vec![scale, make("videoconvert", base)?])
}

fn behind(codec: Codec) -> Result<Vec<gst::Element>, String> {
    let bad = "gstreamer1.0-plugins-bad";
    let parser = match codec {
        Codec::H264 => "h264parse",
        Codec::H265 => "h265parse",
        Codec::Av1 => "av1parse",
        Codec::Vp8 => return Ok(Vec::new()),
    };
    let parse = make(parser, bad)?;
    if parse.find_property("config-interval").is_some() {
        parse.set_property("config-interval", -1i32);
    }
    if codec != Codec::H264 {
        return Ok(vec![parse]);
    }
    let profile = make("capsfilter", "gstreamer1.0-plugins-base")?;
    let baseline = gst::Caps::builder("video/x-h264")
        .field("stream-format", "byte-stream")
        .field("profile", "constrained-baseline")
        .build();
    profile.set_property("caps", baseline);
    Ok(vec![profile, parse])
}

/// Forces a keyframe on the first frame of each interval of running time.
///
/// Every layer reckons from the timestamps alone, so all choose the same frame, and one that lost that frame the next.
fn align_keyframes(encoder: &gst::Pad, interval: gst::ClockTime) {
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_FLUSH;
    encoder.add_probe(mask, move |pad, info| {
        if info.event().is_some() {
            // What is encoded after a flush needs a keyframe of its own, whenever that is.
            last.store(u64::MAX, Relaxed);
            return gst::PadProbeReturn::Ok;
        }
        let Some(time) = info.buffer().and_then(|b| running_time(pad, b)) else {
            return gst::PadProbeReturn::Ok;
        };
        let slot = time.nseconds() / interval.nseconds();
        if last.swap(slot, Relaxed) != slot {
            // Without a time: the next frame, which is this one.
            let event = gst_video::DownstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            if !pad.send_event(event) {
                gst::warning!(CAT, obj = pad, "the encoder refused to force a keyframe");
            }
        }
        gst::PadProbeReturn::Ok
    });
}

pub(super) fn running_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = segment.segment().downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(buffer.pts()?)
}
