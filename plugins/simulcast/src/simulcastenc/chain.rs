// SPDX-License-Identifier: MPL-2.0

//! What is inside the bin: one conversion for all, then for each layer a queue, a scaler and an encoder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use gst::prelude::*;
use sfu_elements::is_live;

use super::CAT;
use super::encoders::{self, Wanted};
use super::layers::Layer;
use super::settings::{Codec, Settings};

/// The encoders' own keyframe interval is the backstop for the common one, this many times longer.
const BACKSTOP: u32 = 3;
/// Frames a second that the backstop is reckoned with.
const FRAME_RATE: u32 = 60;

/// Everything that was built for one run.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) entry: gst::Pad,
    pub(super) branches: Vec<Branch>,
    pub(super) frames_in: Arc<AtomicU64>,
    pub(super) elements: Vec<gst::Element>,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) encoder: String,
    pub(super) layer: Layer,
    pub(super) exit: gst::Pad,
    pub(super) counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) width: AtomicU32,
    pub(super) height: AtomicU32,
    pub(super) encoded: AtomicU64,
    pub(super) keyframes: AtomicU64,
}

fn make(factory: &str, package: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| format!("element {factory} is missing: install {package}"))
}

fn queue() -> Result<gst::Element, String> {
    let queue = make("queue", "gstreamer1.0-plugins-base")?;
    queue.set_property("max-size-buffers", 2u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    Ok(queue)
}

/// Of a live source the oldest frame goes: what is late already only gets later. Everything else waits, and nothing of it is
/// lost. Which of the two it is is known when the source's caps come.
fn leak_if_live(bin: &gst::Bin, entry: &gst::Pad, queues: &[gst::Element]) {
    // They own the pad, all of them.
    let queues: Vec<_> = queues.iter().map(ObjectExt::downgrade).collect();
    let bin = bin.downgrade();
    entry.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info
            .event()
            .is_some_and(|e| e.type_() == gst::EventType::Caps)
        {
            let sink = bin.upgrade().and_then(|bin| bin.static_pad("sink"));
            let live = sink.is_none_or(|pad| is_live(&pad));
            let leaky = if live { "downstream" } else { "no" };
            for queue in queues.iter().filter_map(glib::WeakRef::upgrade) {
                queue.set_property_from_str("leaky", leaky);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Builds the elements in the bin for the layers that have a pad.
pub(super) fn build(
    bin: &gst::Bin,
    settings: &Settings,
    layers: &[(usize, Layer)],
) -> Result<Chain, String> {
    let base = "gstreamer1.0-plugins-base";
    let input = queue()?;
    let deinterlace = make("deinterlace", "gstreamer1.0-plugins-good")?;
    let convert = make("videoconvert", base)?;
    let filter = make("capsfilter", base)?;
    let tee = make("tee", base)?;
    // All encoders take these two: one conversion serves them all.
    let formats = gst::Caps::builder("video/x-raw")
        .field("format", gst::List::new(["I420", "NV12"]))
        .build();
    filter.set_property("caps", &formats);
    let front = [input, deinterlace, convert, filter, tee.clone()];
    add_and_link(bin, &front)?;
    let mut elements = front.to_vec();
    let mut branches = Vec::new();
    let mut scalers = Vec::new();
    let mut queues = vec![front[0].clone()];
    for (_, layer) in layers {
        let (branch, scaler, own) = build_branch(bin, settings, *layer, &tee)?;
        branches.push(branch);
        scalers.push(scaler);
        queues.extend(own.first().cloned());
        elements.extend(own);
    }
    let frames_in = Arc::new(AtomicU64::new(0));
    let entry = sink_pad(&front[0])?;
    let counter = frames_in.clone();
    entry.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, Relaxed);
        gst::PadProbeReturn::Ok
    });
    leak_if_live(bin, &entry, &queues);
    size_layers(&sink_pad(&tee)?, scalers);
    Ok(Chain {
        entry,
        branches,
        frames_in,
        elements,
    })
}

/// A layer's caps filter and what it is to make of the source's size.
struct Scaler {
    filter: gst::Element,
    layer: Layer,
    counts: Arc<Counts>,
}

fn build_branch(
    bin: &gst::Bin,
    settings: &Settings,
    layer: Layer,
    tee: &gst::Element,
) -> Result<(Branch, Scaler, Vec<gst::Element>), String> {
    let base = "gstreamer1.0-plugins-base";
    let wanted = Wanted {
        bitrate: layer.bitrate,
        max_distance: settings.keyframe_interval_ms * BACKSTOP * FRAME_RATE / 1_000,
        speed: settings.speed,
        temporal_layers: settings.temporal_layers,
    };
    let encoder = encoders::make(settings.codec, settings.encoder.as_deref(), &wanted)?;
    let scale = make("videoscale", base)?;
    // A picture that is a pixel off in shape must not get black bars.
    scale.set_property("add-borders", false);
    let filter = make("capsfilter", base)?;
    let mut own = vec![queue()?, scale, filter.clone(), encoder.clone()];
    let out = make("capsfilter", base)?;
    if settings.codec == Codec::H264 {
        let profile = make("capsfilter", base)?;
        let baseline = gst::Caps::builder("video/x-h264")
            .field("stream-format", "byte-stream")
            .field("profile", "constrained-baseline")
            .build();
        profile.set_property("caps", baseline);
        let parse = make("h264parse", "gstreamer1.0-plugins-bad")?;
        parse.set_property("config-interval", -1i32);
        out.set_property("caps", super::encoded_h264());
        own.extend([profile, parse]);
    }
    own.push(out.clone());
    add_and_link(bin, &own)?;
    tee.link(&own[0]).map_err(|e| e.to_string())?;
    let counts = Arc::new(Counts::default());
    let into = sink_pad(&encoder)?;
    align_keyframes(
        &into,
        gst::ClockTime::from_mseconds(settings.keyframe_interval_ms.into()),
    );
    let exit = out
        .static_pad("src")
        .ok_or("capsfilter has no source pad")?;
    count_frames(&exit, counts.clone());
    let factory = encoder
        .factory()
        .map_or_else(String::new, |f| f.name().to_string());
    gst::info!(
        CAT,
        obj = bin,
        "{}:{} is encoded by {factory}",
        layer.height,
        layer.bitrate
    );
    let branch = Branch {
        encoder: factory,
        layer,
        exit,
        counts: counts.clone(),
    };
    let scaler = Scaler {
        filter,
        layer,
        counts,
    };
    Ok((branch, scaler, own))
}

fn add_and_link(bin: &gst::Bin, elements: &[gst::Element]) -> Result<(), String> {
    bin.add_many(elements).map_err(|e| e.to_string())?;
    gst::Element::link_many(elements).map_err(|e| e.to_string())
}

fn sink_pad(element: &gst::Element) -> Result<gst::Pad, String> {
    element
        .static_pad("sink")
        .ok_or_else(|| format!("{} has no sink pad", element.name()))
}

/// Sets each layer's size when the source's caps come, before they reach the scalers.
fn size_layers(tee: &gst::Pad, scalers: Vec<Scaler>) {
    tee.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Ok(source) = gst_video::VideoInfo::from_caps(caps.caps()) else {
            return gst::PadProbeReturn::Ok;
        };
        for scaler in &scalers {
            let (width, height) = size(&source, scaler.layer.height);
            let caps = gst::Caps::builder("video/x-raw")
                .field("width", width as i32)
                .field("height", height as i32)
                .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
                .build();
            scaler.filter.set_property("caps", caps);
            scaler.counts.width.store(width, Relaxed);
            scaler.counts.height.store(height, Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
}

/// A layer's size in square pixels: the source's shape, never larger, both sides even.
fn size(source: &gst_video::VideoInfo, height: u32) -> (u32, u32) {
    let par = source.par();
    let (numerator, denominator) = (par.numer().max(1) as u64, par.denom().max(1) as u64);
    let height = height.min(source.height()).max(2) & !1;
    let width = u64::from(source.width()) * numerator * u64::from(height)
        / (denominator * u64::from(source.height().max(1)));
    ((width as u32).max(2).next_multiple_of(2), height)
}

/// Forces a keyframe on the first frame of each interval of running time.
///
/// Every layer reckons from the timestamps alone, so all choose the same frame, and one that lost that frame the next.
fn align_keyframes(encoder: &gst::Pad, interval: gst::ClockTime) {
    let last = Arc::new(AtomicU64::new(u64::MAX));
    encoder.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
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

fn running_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = segment.segment().downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(buffer.pts()?)
}

fn count_frames(exit: &gst::Pad, counts: Arc<Counts>) {
    exit.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            counts.encoded.fetch_add(1, Relaxed);
            if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                counts.keyframes.fetch_add(1, Relaxed);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

impl Chain {
    pub(super) fn stats(&self) -> gst::Structure {
        let frames_in = self.frames_in.load(Relaxed);
        let layers = self.branches.iter().map(|branch| {
            let counts = &branch.counts;
            let encoded = counts.encoded.load(Relaxed);
            gst::Structure::builder("layer")
                .field("encoder", branch.encoder.as_str())
                .field("width", counts.width.load(Relaxed))
                .field("height", counts.height.load(Relaxed))
                .field("bitrate", branch.layer.bitrate)
                .field("frames-encoded", encoded)
                // A few may still be on their way.
                .field(
                    "frames-dropped",
                    frames_in.saturating_sub(encoded + IN_FLIGHT),
                )
                .field("keyframes", counts.keyframes.load(Relaxed))
                .build()
                .to_send_value()
        });
        gst::Structure::builder("simulcastenc-stats")
            .field("frames-in", frames_in)
            .field("layers", gst::Array::from_values(layers))
            .build()
    }
}

/// Frames that two queues and an encoder hold without having lost any.
const IN_FLIGHT: u64 = 6;
