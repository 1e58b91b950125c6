// SPDX-License-Identifier: MPL-2.0

//! One layer: a queue, and behind it on the queue's thread a [`Stage`] that scales and encodes. What fails there is replaced
//! by the next encoder, before anybody notices.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use sfu_elements::layers::Layer;

use super::CAT;
use super::elements::{make, pad, queue};
use super::encoders::{self, Candidate, Wanted};
use super::front::{leak, memory_of};
use super::lock;
use super::rate::{Thinner, limited};
use super::settings::Settings;
use super::stage::{Stage, running_time};

/// The encoders' own keyframe interval is the backstop for the common one, this many times longer.
const BACKSTOP: u32 = 3;
/// Frames a second that the backstop is reckoned with.
const FRAME_RATE: u32 = 60;

/// What the element keeps of a layer.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) index: usize,
    pub(super) bin: gst::Bin,
    pub(super) shared: Arc<Shared>,
}

/// What the layer's thread and others know of it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// None where `layers` has it no more: it rests.
    wanted: Mutex<Option<Layer>>,
    changed: AtomicBool,
    flushed: AtomicBool,
    /// The one that encodes now, and where it comes from.
    encoder: Mutex<Option<gst::Element>>,
    /// What it complained of.
    complaint: Mutex<Option<String>>,
    pub(super) width: AtomicU32,
    pub(super) height: AtomicU32,
    pub(super) encoded: AtomicU64,
    pub(super) keyframes: AtomicU64,
    /// Frames left out on purpose.
    pub(super) thinned: AtomicU64,
}

impl Shared {
    /// Another size, bitrate or frame rate, from the next frame on.
    pub(super) fn change(&self, layer: Option<Layer>) {
        *lock(&self.wanted) = layer;
        self.changed.store(true, Relaxed);
    }

    pub(super) fn bitrate(&self) -> u32 {
        lock(&self.wanted).map_or(0, |layer| layer.bitrate)
    }

    pub(super) fn encoder_name(&self) -> String {
        let encoder = lock(&self.encoder).clone();
        let factory = encoder.and_then(|encoder| encoder.factory());
        factory.map_or_else(String::new, |factory| factory.name().to_string())
    }

    /// Takes an encoder's error, for which another one is tried. Returns false where it is not this layer's.
    pub(super) fn complain(&self, source: &gst::Object, reason: &str) -> bool {
        let encoder = lock(&self.encoder).clone();
        let is_it = encoder.is_some_and(|encoder| {
            source == encoder.upcast_ref::<gst::Object>() || source.has_as_ancestor(&encoder)
        });
        if is_it {
            lock(&self.complaint).get_or_insert_with(|| reason.to_owned());
        }
        is_it
    }
}

/// What all layers have in common.
pub(super) struct Common<'a> {
    pub(super) obj: &'a super::SimulcastEnc,
    pub(super) settings: &'a Settings,
    pub(super) candidates: &'a [Candidate],
    pub(super) live: &'a Arc<AtomicBool>,
}

/// Builds a layer that ends at one of the element's pads.
pub(super) fn build(
    common: &Common<'_>,
    (index, layer): (usize, Layer),
    ghost: &gst::GhostPad,
) -> Result<Branch, String> {
    let bin = gst::Bin::with_name(&format!("layer-{index}"));
    let queue = queue()?;
    let out = make("capsfilter", "gstreamer1.0-plugins-base")?;
    out.set_property("caps", common.settings.codec.encoded());
    bin.add_many([&queue, &out]).map_err(|e| e.to_string())?;
    let shared = Arc::new(Shared::default());
    *lock(&shared.wanted) = Some(layer);
    let (from, exit) = (pad(&queue, "src")?, pad(&out, "src")?);
    let mut gate = Gate {
        obj: common.obj.downgrade(),
        bin: bin.downgrade(),
        queue: queue.downgrade(),
        live: common.live.clone(),
        index,
        settings: common.settings.clone(),
        candidates: common.candidates.to_vec(),
        failures: Vec::new(),
        out: out.clone(),
        stage: None,
        source: None,
        given: None,
        thinner: Thinner::default(),
        shared: shared.clone(),
    };
    gate.next_stage(&from)?;
    let gate = Mutex::new(gate);
    let mask = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    // The lock is this thread's alone.
    from.add_probe(mask, move |pad, info| lock(&gate).pass(pad, info));
    let flushed = shared.clone();
    from.add_probe(gst::PadProbeType::EVENT_FLUSH, move |_, _| {
        // By whoever flushes: the gate may be held by the layer's thread just then.
        flushed.flushed.store(true, Relaxed);
        gst::PadProbeReturn::Ok
    });
    count(&exit, shared.clone(), ghost);
    for (name, inner) in [("sink", pad(&queue, "sink")?), ("src", exit)] {
        let outer = gst::GhostPad::builder_with_target(&inner).map_err(|e| e.to_string())?;
        bin.add_pad(&outer.name(name).build())
            .map_err(|e| e.to_string())?;
    }
    Ok(Branch { index, bin, shared })
}

/// Counts what comes out. What nobody takes is dropped, and who takes it later begins with a keyframe.
fn count(exit: &gst::Pad, shared: Arc<Shared>, ghost: &gst::GhostPad) {
    let ghost = ghost.downgrade();
    let waits = AtomicBool::new(false);
    exit.add_probe(gst::PadProbeType::BUFFER, move |exit, info| {
        let Some(buffer) = info.buffer() else {
            return gst::PadProbeReturn::Ok;
        };
        let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        shared.encoded.fetch_add(1, Relaxed);
        shared.keyframes.fetch_add(u64::from(is_key), Relaxed);
        if !ghost.upgrade().is_some_and(|pad| pad.is_linked()) {
            waits.store(true, Relaxed);
            return gst::PadProbeReturn::Drop;
        }
        if waits.load(Relaxed) {
            if !is_key {
                let event = gst_video::UpstreamForceKeyUnitEvent::builder();
                exit.send_event(event.all_headers(true).build());
                return gst::PadProbeReturn::Drop;
            }
            waits.store(false, Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Lets frames into the stage, and sees to it that there is one that works.
struct Gate {
    obj: glib::WeakRef<super::SimulcastEnc>,
    /// The layer's own.
    bin: glib::WeakRef<gst::Bin>,
    queue: glib::WeakRef<gst::Element>,
    live: Arc<AtomicBool>,
    index: usize,
    settings: Settings,
    /// Those that are left to try, the first one being used.
    candidates: Vec<Candidate>,
    failures: Vec<String>,
    out: gst::Element,
    stage: Option<Stage>,
    source: Option<Source>,
    /// The caps that the stage was given.
    given: Option<gst::Caps>,
    thinner: Thinner,
    shared: Arc<Shared>,
}

struct Source {
    info: gst_video::VideoInfo,
    caps: gst::Caps,
    memory: Option<String>,
}

impl Gate {
    fn pass(&mut self, pad: &gst::Pad, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        match &info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(caps) => {
                    info.flow_res = self.caps_came(pad, caps.caps());
                    gst::PadProbeReturn::Handled
                }
                _ => gst::PadProbeReturn::Ok,
            },
            Some(gst::PadProbeData::Buffer(_)) => {
                let Some(gst::PadProbeData::Buffer(buffer)) = info.data.take() else {
                    return gst::PadProbeReturn::Ok;
                };
                info.flow_res = self.frame(pad, &buffer);
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        }
    }

    fn layer(&self) -> Option<Layer> {
        *lock(&self.shared.wanted)
    }

    fn wanted(&self) -> Wanted {
        let settings = &self.settings;
        Wanted {
            bitrate: self.layer().map_or(10_000, |layer| layer.bitrate),
            max_distance: settings.keyframe_interval_ms * BACKSTOP * FRAME_RATE / 1_000,
            speed: settings.speed,
            temporal_layers: settings.temporal_layers,
        }
    }

    fn caps_came(
        &mut self,
        pad: &gst::Pad,
        caps: &gst::CapsRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let info = gst_video::VideoInfo::from_caps(caps);
        let info = info.map_err(|_| gst::FlowError::NotNegotiated)?;
        if let Some(queue) = self.queue.upgrade() {
            leak(&queue, self.live.load(Relaxed));
        }
        self.source = Some(Source {
            info,
            caps: caps.to_owned(),
            memory: memory_of(caps),
        });
        self.apply(pad)
    }

    /// Fits the stage to the source and to what is wanted of the layer.
    fn apply(&mut self, pad: &gst::Pad) -> Result<gst::FlowSuccess, gst::FlowError> {
        loop {
            let Some(reason) = self.try_apply(pad) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            self.replace(pad, &reason)?;
        }
    }

    /// Returns why the encoder does not take it.
    fn try_apply(&mut self, pad: &gst::Pad) -> Option<String> {
        let (Some(layer), Some(source), Some(stage)) =
            (self.layer(), &self.source, &mut self.stage)
        else {
            return None;
        };
        let (width, height) = size(&source.info, layer.height);
        self.shared.width.store(width, Relaxed);
        self.shared.height.store(height, Relaxed);
        self.thinner.set(layer.rate);
        let same = (width, height) == (source.info.width(), source.info.height());
        let bin = self.bin.upgrade()?;
        match stage.fit(&bin, pad, source.memory.as_deref(), same) {
            Ok(true) => self.given = None,
            Ok(false) => {}
            Err(reason) => return Some(reason),
        }
        stage.resize(width, height, source.memory.is_some() && same);
        let mut caps = source.caps.clone();
        let rate = limited(source.info.fps(), layer.rate);
        if let Some(structure) = caps.make_mut().structure_mut(0) {
            structure.set("framerate", rate);
        }
        if self.given.as_ref() == Some(&caps) {
            return None;
        }
        for event in sticky_before_caps(pad) {
            stage.entry().send_event(event);
        }
        let accepted = stage.entry().send_event(gst::event::Caps::new(&caps));
        let complaint = lock(&self.shared.complaint).take();
        if !accepted || complaint.is_some() {
            let refused = || format!("it does not take {caps}");
            return Some(complaint.unwrap_or_else(refused));
        }
        if let Some(segment) = pad.sticky_event::<gst::event::Segment>(0) {
            stage.entry().send_event(segment);
        }
        self.given = Some(caps);
        None
    }

    /// Goes on with the next encoder, or says that there is none.
    fn replace(&mut self, pad: &gst::Pad, reason: &str) -> Result<(), gst::FlowError> {
        let obj = self.obj.upgrade().ok_or(gst::FlowError::Flushing)?;
        let name = self
            .candidates
            .first()
            .map_or_else(String::new, Candidate::name);
        gst::warning!(
            CAT,
            obj = obj,
            "layer {}: {name} fails: {reason}",
            self.index
        );
        self.fail(reason);
        self.drop_stage(pad);
        let Err(message) = self.next_stage(pad) else {
            return Ok(());
        };
        gst::element_error!(obj, gst::StreamError::Encode, ("{message}"));
        Err(gst::FlowError::Error)
    }

    fn fail(&mut self, reason: &str) {
        if !self.candidates.is_empty() {
            let name = self.candidates.remove(0).name();
            self.failures.push(format!("{name}: {reason}"));
        }
    }

    fn drop_stage(&mut self, pad: &gst::Pad) {
        *lock(&self.shared.encoder) = None;
        *lock(&self.shared.complaint) = None;
        self.given = None;
        if let (Some(stage), Some(bin)) = (self.stage.take(), self.bin.upgrade()) {
            stage.remove(&bin, pad);
        }
    }

    /// Builds a stage with the first encoder that starts.
    fn next_stage(&mut self, pad: &gst::Pad) -> Result<(), String> {
        let obj = self.obj.upgrade().ok_or("the element is gone")?;
        let bin = self.bin.upgrade().ok_or("the layer is gone")?;
        while let Some(candidate) = self.candidates.first() {
            let encoder = match candidate.make(&self.wanted()) {
                Ok(encoder) => encoder,
                Err(reason) => {
                    self.fail(&reason);
                    continue;
                }
            };
            obj.set_up(
                &encoder,
                self.index,
                self.settings.encoder_properties.as_ref(),
            );
            // From here on its complaints are this layer's.
            *lock(&self.shared.encoder) = Some(encoder.clone());
            let stage = Stage::build(&bin, &self.settings, candidate, encoder, pad, &self.out)?;
            gst::info!(
                CAT,
                obj = obj,
                "layer {} is encoded by {}",
                self.index,
                candidate.name()
            );
            self.stage = Some(stage);
            return Ok(());
        }
        let none = encoders::none_found(self.settings.codec, &self.failures.join("; "));
        Err(match &self.settings.encoder_properties {
            Some(_) => format!("{none}. It may be encoder-properties, which were set on them"),
            None => none,
        })
    }

    fn frame(
        &mut self,
        pad: &gst::Pad,
        buffer: &gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if self.shared.changed.swap(false, Relaxed) {
            self.change(pad)?;
        }
        if self.shared.flushed.swap(false, Relaxed) {
            self.thinner.flush();
        }
        let time = running_time(pad, buffer);
        let keeps = time.is_none_or(|time| {
            let slot = time.mseconds() / u64::from(self.settings.keyframe_interval_ms.max(1));
            self.thinner.keeps(time, slot)
        });
        if self.layer().is_none() || !keeps {
            self.shared.thinned.fetch_add(1, Relaxed);
            return Ok(gst::FlowSuccess::Ok);
        }
        loop {
            let Some(stage) = &self.stage else {
                return Err(gst::FlowError::Error);
            };
            let result = stage.entry().chain(buffer.clone());
            let complaint = lock(&self.shared.complaint).take();
            let is_downstreams = || self.out_failed();
            let reason = match (result, complaint) {
                (_, Some(complaint)) => complaint,
                (Err(error), None)
                    if !matches!(error, gst::FlowError::Flushing | gst::FlowError::Eos)
                        && !is_downstreams() =>
                {
                    format!("it ends with {error:?}")
                }
                (result, None) => return result,
            };
            self.replace(pad, &reason)?;
            self.apply(pad)?;
        }
    }

    /// Whether the failure came from behind the element.
    fn out_failed(&self) -> bool {
        let out = self.out.static_pad("src");
        out.is_some_and(|pad| pad.last_flow_result().is_err())
    }

    /// The layer changes while playing.
    fn change(&mut self, pad: &gst::Pad) -> Result<(), gst::FlowError> {
        let encoder = lock(&self.shared.encoder).clone();
        let wanted = self.wanted();
        if self.layer().is_none() {
            return Ok(());
        }
        if !encoder.is_some_and(|encoder| encoders::set_bitrate(&encoder, &wanted)) {
            // A new one of the same kind.
            self.drop_stage(pad);
            if let Err(message) = self.next_stage(pad) {
                if let Some(obj) = self.obj.upgrade() {
                    gst::element_error!(obj, gst::StreamError::Encode, ("{message}"));
                }
                return Err(gst::FlowError::Error);
            }
        }
        self.apply(pad).map(|_| ())
    }
}

fn sticky_before_caps(pad: &gst::Pad) -> impl Iterator<Item = gst::Event> {
    let start = pad.sticky_event::<gst::event::StreamStart>(0);
    start.map(Into::into).into_iter()
}

/// A layer's size in square pixels: the source's shape, never larger, both sides even.
fn size(source: &gst_video::VideoInfo, height: u32) -> (u32, u32) {
    let par = source.par();
    let (numerator, denominator) = (par.numer().max(1) as u64, par.denom().max(1) as u64);
    let height = height.min(source.height()).max(2) & !1;
    let width = u64::from(source.width()) * numerator * u64::from(height)
        / (denominator * u64::from(source.height().max(1)));
    let width = u32::try_from(width).unwrap_or(MAX_SIDE);
    (width.clamp(2, MAX_SIDE).next_multiple_of(2), height)
}

/// Of pictures of 1 line and many columns.
const MAX_SIDE: u32 = 16_384;
