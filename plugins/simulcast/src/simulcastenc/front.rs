// SPDX-License-Identifier: MPL-2.0

//! What all layers have in common: whatever comes becomes progressive pictures in a format that encoders take, once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use sfu_elements::is_live;
use sfu_elements::refusal::is_foreign;

use super::elements::{add_and_link, make, pad, queue};
use super::encoders::Candidate;
use super::lock;
use super::settings::Settings;
use super::weave::{Weave, Woven};
use super::whole::Whole;

/// The elements in front of the layers.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) entry: gst::Pad,
    pub(super) tee: gst::Element,
    /// Whether the source is live, as it said when its caps came.
    pub(super) live: Arc<AtomicBool>,
    /// Frames or fields that came.
    pub(super) frames_in: Arc<AtomicU64>,
    /// Those that had less than a frame in them.
    pub(super) broken: Arc<AtomicU64>,
    /// Those of them that were not late already.
    pub(super) taken: Arc<AtomicU64>,
    /// Frames that reached the layers.
    pub(super) offered: Arc<AtomicU64>,
}

/// The system's memory, in the formats that the best encoder takes first.
pub(super) fn plain_formats(candidate: Option<&Candidate>) -> gst::Caps {
    let mut formats = ["I420", "NV12"];
    if candidate.is_some_and(|one| !one.takes("I420") && one.takes("NV12")) {
        formats.reverse();
    }
    gst::Caps::builder("video/x-raw")
        .field("format", gst::List::new(formats))
        .build()
}

/// Pictures in a memory of another kind.
pub(super) fn in_memory(memory: &str) -> gst::Caps {
    gst::Caps::builder("video/x-raw").features([memory]).build()
}

/// The kind of memory that caps name, if it is not the system's.
pub(super) fn memory_of(caps: &gst::CapsRef) -> Option<String> {
    let features = caps.features(0)?;
    let named = features.iter().filter(|f| f.starts_with("memory:"));
    let mut own = named.filter(|f| *f != gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY);
    own.next().map(ToString::to_string)
}

pub(super) fn build(
    bin: &gst::Bin,
    settings: &Settings,
    best: Option<&Candidate>,
) -> Result<Front, String> {
    let base = "gstreamer1.0-plugins-base";
    let input = queue()?;
    // First to what the deinterlacer knows: 10 bits it does not.
    let convert = make("videoconvert", base)?;
    let deinterlace = make("deinterlace", "gstreamer1.0-plugins-good")?;
    deinterlace.set_property_from_str("mode", settings.deinterlace.mode());
    deinterlace.set_property_from_str("fields", settings.deinterlace_fields.nick());
    let filter = make("capsfilter", base)?;
    let tee = make("tee", base)?;
    // Also where no layer is left, or none is linked.
    tee.set_property("allow-not-linked", true);
    let plain = plain_formats(best);
    filter.set_property("caps", &plain);
    add_and_link(bin, &[&input, &convert, &deinterlace, &filter, &tee])?;
    let entry = pad(&input, "sink")?;
    let front = Front {
        entry: entry.clone(),
        live: Arc::new(AtomicBool::new(true)),
        frames_in: Arc::default(),
        broken: Arc::default(),
        taken: Arc::default(),
        offered: Arc::default(),
        tee: tee.clone(),
    };
    watch_source(bin, &entry, &input, &front);
    refuse_parts(bin, &entry, front.broken.clone());
    weave_and_filter(&pad(&input, "src")?, &filter, plain, front.taken.clone());
    let offered = front.offered.clone();
    pad(&tee, "sink")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        offered.fetch_add(1, Relaxed);
        gst::PadProbeReturn::Ok
    });
    Ok(front)
}

/// Of a live source the oldest frame goes: what is late already only gets later. Everything else waits, and nothing of it is
/// lost. Which of the two it is is known when the source's caps come.
fn watch_source(bin: &gst::Bin, entry: &gst::Pad, input: &gst::Element, front: &Front) {
    let (live, frames_in) = (front.live.clone(), front.frames_in.clone());
    let (bin, input) = (bin.downgrade(), input.downgrade());
    let mask = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    entry.add_probe(mask, move |_, info| {
        let Some(event) = info.event() else {
            frames_in.fetch_add(1, Relaxed);
            return gst::PadProbeReturn::Ok;
        };
        if event.type_() == gst::EventType::Caps {
            let sink = bin.upgrade().and_then(|bin| bin.static_pad("sink"));
            let is_live = sink.is_none_or(|pad| is_live(&pad));
            live.store(is_live, Relaxed);
            if let Some(input) = input.upgrade() {
                leak(&input, is_live);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// What is less than a frame goes no further.
fn refuse_parts(bin: &gst::Bin, entry: &gst::Pad, broken: Arc<AtomicU64>) {
    let whole = Mutex::new(Whole::default());
    let bin = bin.downgrade();
    let mask = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    entry.add_probe(mask, move |_, info| {
        let lacks = match &info.data {
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    lock(&whole).caps(caps.caps());
                }
                None
            }
            Some(gst::PadProbeData::Buffer(buffer)) => lock(&whole).lacks(buffer),
            _ => None,
        };
        let Some(lacks) = lacks else {
            return gst::PadProbeReturn::Ok;
        };
        if broken.fetch_add(1, Relaxed) == 0
            && let Some(bin) = bin.upgrade()
        {
            gst::element_warning!(bin, gst::StreamError::Format, ("{lacks}"));
        }
        gst::PadProbeReturn::Drop
    });
}

/// Whether a queue that is full drops the oldest frame.
pub(super) fn leak(queue: &gst::Element, live: bool) {
    queue.set_property_from_str("leaky", if live { "downstream" } else { "no" });
}

/// Before the converter: fields become frames, and pictures in a memory of another kind are let through as they are.
fn weave_and_filter(
    pad: &gst::Pad,
    filter: &gst::Element,
    plain: gst::Caps,
    taken: Arc<AtomicU64>,
) {
    let weave = Mutex::new(Weave::default());
    let filter = filter.downgrade();
    let mask = gst::PadProbeType::EVENT_DOWNSTREAM
        | gst::PadProbeType::EVENT_FLUSH
        | gst::PadProbeType::BUFFER;
    pad.add_probe(mask, move |_, info| {
        let mut weave = lock(&weave);
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => {
                let woven = match event.view() {
                    gst::EventView::FlushStop(_) => {
                        weave.flush();
                        None
                    }
                    gst::EventView::Caps(caps) => {
                        let formats = memory_of(caps.caps());
                        let formats =
                            formats.map_or_else(|| plain.clone(), |memory| in_memory(&memory));
                        if let Some(filter) = filter.upgrade()
                            && filter.property::<gst::Caps>("caps") != formats
                        {
                            filter.set_property("caps", formats);
                        }
                        weave.caps(caps.caps())
                    }
                    _ => None,
                };
                if let Some(woven) = woven {
                    *event = gst::event::Caps::builder(&woven)
                        .seqnum(event.seqnum())
                        .build();
                }
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                taken.fetch_add(1, Relaxed);
                match weave.buffer(buffer) {
                    Woven::AsItIs => {}
                    Woven::Waits => return gst::PadProbeReturn::Drop,
                    Woven::Frame(frame) => *buffer = frame,
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Answers what the element takes: behind the pad that depends on what came last.
pub(super) fn answer_caps(sink: &gst::Pad, takes: Arc<Mutex<gst::Caps>>) {
    let mask = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH;
    sink.add_probe(mask, move |_, info| {
        match info.query_mut().map(|query| query.view_mut()) {
            Some(gst::QueryViewMut::Caps(query)) => {
                let takes = lock(&takes).clone();
                let caps = match query.filter_owned() {
                    Some(filter) if is_foreign(&filter, &takes) => filter,
                    Some(filter) => {
                        takes.intersect_with_mode(&filter, gst::CapsIntersectMode::First)
                    }
                    None => takes,
                };
                query.set_result(&caps);
            }
            Some(gst::QueryViewMut::AcceptCaps(query)) => {
                let takes = lock(&takes);
                let accepted =
                    query.caps().can_intersect(&takes) || is_foreign(query.caps(), &takes);
                query.set_result(accepted);
            }
            _ => return gst::PadProbeReturn::Ok,
        }
        gst::PadProbeReturn::Handled
    });
}

/// What needs no conversion first, so that sources choose it.
pub(super) fn taken_caps(candidates: &[Candidate]) -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    let best = candidates.first();
    {
        let caps = caps.make_mut();
        for memory in best.map(Candidate::memories).unwrap_or_default() {
            caps.append(in_memory(&memory));
        }
        caps.append(plain_formats(best));
        caps.append(gst::Caps::new_empty_simple("video/x-raw"));
        caps.append(fields());
        // An encoder in reserve, or what brings pictures into the system's memory.
        let reserve = candidates.iter().skip(1).flat_map(Candidate::memories);
        for memory in reserve.chain(super::scalers::readable()) {
            caps.append(in_memory(&memory));
        }
    }
    caps
}

/// One field a buffer.
fn fields() -> gst::Caps {
    gst::Caps::builder("video/x-raw")
        .features(["format:Interlaced"])
        .field("interlace-mode", "alternate")
        .build()
}

/// What the sink pad's template has.
pub(super) fn template_caps() -> gst::Caps {
    let mut caps = gst::Caps::new_empty_simple("video/x-raw");
    let any = gst::Caps::builder("video/x-raw").any_features().build();
    caps.merge(any);
    caps
}
