// SPDX-License-Identifier: MPL-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;
use sfu_elements::refusal;
use sfu_engine::{Language, Publisher, TrackKind};

use super::CAT;
use super::audio::MixMatrix;
use super::begins::Begins;
use super::branch::{Branch, Work, set_audio_bitrate};
use super::clock::Wallclock;
use super::media::{self, Media};
use super::settings::{PROPERTIES, Settings};
use super::stats::stats;
use super::timeline::Timeline;
use crate::notices::{Kind, ViewerSignals};
use crate::properties::{lock, number_of, text_of};

/// Warnings of elements inside reach the application this far apart: broken media makes one for each of its parts.
const WARNINGS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct SfuSink {
    pub(super) settings: Mutex<Settings>,
    /// A pad's elements are no longer being changed.
    pub(super) settled: Condvar,
    /// When an element inside warned last.
    warned: Mutex<Option<Instant>>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) publisher: Option<Arc<Publisher>>,
    pub(super) signals: Option<ViewerSignals>,
    pub(super) wallclock: Arc<Wallclock>,
    /// Of what comes in, and of the RTP that goes out, which goes on where running time begins anew.
    pub(super) timeline: Arc<Timeline>,
    pub(super) sent: Arc<Timeline>,
    /// Pictures that came encoded and out of order.
    pub(super) out_of_order: Arc<AtomicU64>,
    /// Tells that it is taken out of its bin, or that out of another one.
    pub(super) removals: Vec<(glib::WeakRef<gst::Bin>, glib::SignalHandlerId)>,
    /// By kind and number.
    pub(super) inputs: BTreeMap<(bool, u32), Input>,
    /// Those that are being requested: several threads may ask at once.
    pub(super) coming: BTreeSet<(bool, u32)>,
}

#[derive(Debug)]
pub(super) struct Input {
    pub(super) pad: gst::GhostPad,
    pub(super) entry: gst::Element,
    pub(super) media: Option<Media>,
    /// What is done with that.
    pub(super) work: Work,
    pub(super) branch: Option<Branch>,
    /// A thread has its elements, to build or change them.
    pub(super) busy: bool,
    /// The layer that it is, or the audio track, as long as it is there: what comes later is another one.
    pub(super) layer: Option<usize>,
    /// It says of raw sound that it takes any.
    pub(super) takes_any_raw: bool,
    /// What is spoken, where upstream tells it.
    pub(super) language: Option<Language>,
    /// Before this timestamp nothing that is decoded is to be seen.
    pub(super) hidden: Arc<AtomicU64>,
    /// Its pictures come in the order in which they are shown, as their parameter sets say.
    pub(super) in_order: Arc<AtomicBool>,
    /// Of video that comes encoded.
    pub(super) begins: Arc<Begins>,
}

impl State {
    pub(super) fn has_video(&self) -> bool {
        self.videos().next().is_some()
    }

    pub(super) fn videos(&self) -> impl Iterator<Item = &Input> {
        let inputs = self.inputs.iter().filter(|((audio, _), _)| !audio);
        inputs.map(|(_, input)| input)
    }

    pub(super) fn audios(&self) -> impl Iterator<Item = &Input> {
        let inputs = self.inputs.iter().filter(|((audio, _), _)| *audio);
        inputs.map(|(_, input)| input)
    }

    /// Gives the pads that have none their layers and tracks: in the order of their numbers where they are there from the start.
    pub(super) fn number_layers(&mut self) {
        for is_audio in [false, true] {
            let of_kind = |((audio, _), _): &(&(bool, u32), &mut Input)| *audio == is_audio;
            let mut inputs: Vec<_> = self.inputs.iter_mut().filter(of_kind).collect();
            let mut free: Vec<usize> = (0..=inputs.len()).collect();
            free.retain(|layer| inputs.iter().all(|(_, i)| i.layer != Some(*layer)));
            let without = inputs.iter_mut().filter(|(_, i)| i.layer.is_none());
            for ((_, input), layer) in without.zip(free) {
                input.layer = Some(layer);
            }
        }
    }
}

/// Video pads sort before audio pads.
pub(super) fn key(kind: TrackKind, number: u32) -> (bool, u32) {
    (kind == TrackKind::Audio, number)
}

#[glib::object_subclass]
impl ObjectSubclass for SfuSink {
    const NAME: &'static str = "GstSfuSink";
    type Type = super::SfuSink;
    type ParentType = gst::Bin;
}

impl ObjectImpl for SfuSink {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let (text, element) = (String::static_type(), gst::Element::static_type());
            let setup = glib::subclass::Signal::builder("encoder-setup")
                .param_types([text, text, element])
                .return_type::<bool>()
                .accumulator(|_, _, value| match value.get::<bool>() {
                    Ok(true) => ControlFlow::Break(value.clone()),
                    _ => ControlFlow::Continue(value.clone()),
                })
                .build();
            let viewers = ViewerSignals::KINDS.map(Kind::signal);
            [setup].into_iter().chain(viewers).collect()
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        if pspec.name() == "layers" {
            return self.set_layers(&text_of(value));
        }
        let text = || text_of(value);
        let number = || number_of(value);
        if pspec.name() == "audio-bitrate" {
            let bitrate = number();
            lock(&self.settings).audio_bitrate = bitrate;
            let encoders: Vec<_> = {
                let state = lock(&self.state);
                let branches = state.inputs.values().filter_map(|i| i.branch.as_ref());
                branches.flat_map(Branch::audio_encoders).collect()
            };
            encoders.iter().for_each(|e| set_audio_bitrate(e, bitrate));
            return;
        }
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "stream" => settings.stream = text(),
            "router" => settings.router = text(),
            "encode" => settings.encode = value.get().unwrap_or_default(),
            "codec" => settings.codec = value.get().unwrap_or_default(),
            "encoder" => settings.encoder = Some(text()).filter(|name| !name.is_empty()),
            "encoder-properties" => settings.encoder_properties = value.get().unwrap_or_default(),
            "deinterlace" => settings.deinterlace = value.get().unwrap_or_default(),
            "deinterlace-fields" => settings.deinterlace_fields = value.get().unwrap_or_default(),
            "keyframe-interval" => settings.keyframe_interval_ms = number(),
            "temporal-layers" => settings.temporal_layers = number(),
            "keyframe-min-interval" => settings.keyframe_min_interval_ms = number(),
            "mix-matrix" => match MixMatrix::from_value(value) {
                Ok(matrix) => settings.mix_matrix = matrix,
                Err(reason) => gst::warning!(CAT, imp = self, "kept as it was: {reason}"),
            },
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "stream" => settings.stream.to_value(),
            "router" => settings.router.to_value(),
            "layers" => settings.layers.to_string().to_value(),
            "encode" => settings.encode.to_value(),
            "codec" => settings.codec.to_value(),
            "encoder" => settings.encoder.to_value(),
            "encoder-properties" => settings.encoder_properties.to_value(),
            "deinterlace" => settings.deinterlace.to_value(),
            "deinterlace-fields" => settings.deinterlace_fields.to_value(),
            "keyframe-interval" => settings.keyframe_interval_ms.to_value(),
            "temporal-layers" => settings.temporal_layers.to_value(),
            "keyframe-min-interval" => settings.keyframe_min_interval_ms.to_value(),
            "audio-bitrate" => settings.audio_bitrate.to_value(),
            "mix-matrix" => settings.mix_matrix.to_value(),
            "viewers" => {
                let viewers = self.info().map_or(0, |info| info.viewers);
                u32::try_from(viewers).unwrap_or(u32::MAX).to_value()
            }
            "stats" => {
                let info = self.info();
                stats(info, &lock(&self.state)).to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // It is a sink from the start, also while no pad has its elements yet.
        self.obj().set_element_flags(gst::ElementFlags::SINK);
    }
}

impl GstObjectImpl for SfuSink {}

impl ElementImpl for SfuSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU fan-out sink",
                "Sink/Network/WebRTC",
                "Publishes one stream to any number of WebRTC viewers, encoded and payloaded once. \
                 Example: gst-launch-1.0 sfusignaller  videotestsrc is-live=true ! sfusink stream=test",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, kind| {
                let caps = media::template_caps(kind);
                let (sink, request) = (gst::PadDirection::Sink, gst::PadPresence::Request);
                gst::PadTemplate::new(name, sink, request, &caps).ok()
            };
            let video = template("video_%u", TrackKind::Video);
            let audio = template("audio_%u", TrackKind::Audio);
            video.into_iter().chain(audio).collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        templ: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        match self.add_input(templ, name) {
            Ok(pad) => Some(pad),
            Err(reason) => {
                gst::warning!(CAT, imp = self, "pad {name:?} can't be had: {reason}");
                None
            }
        }
    }

    fn release_pad(&self, pad: &gst::Pad) {
        self.release(pad);
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.publish().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
                gst::StateChangeError
            })?;
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::PausedToReady
            || (transition == gst::StateChange::ReadyToPaused && result.is_err())
        {
            self.unpublish();
        }
        result
    }
}

impl SfuSink {
    /// Whether a warning comes from inside, and so soon after another one that the application needn't hear it.
    fn is_one_of_many(&self, message: &gst::Message) -> bool {
        // What this project's elements say they say once.
        let source = message
            .src()
            .and_then(|source| source.downcast_ref::<gst::Element>());
        let factory = source.and_then(ElementExt::factory);
        let ours =
            factory.is_some_and(|f| ["sfusink", "simulcastenc"].contains(&f.name().as_str()));
        if ours {
            return false;
        }
        let mut warned = lock(&self.warned);
        let is_soon = warned.is_some_and(|at| at.elapsed() < WARNINGS);
        if is_soon {
            gst::info!(CAT, imp = self, "not passed on: {message:?}");
        } else {
            *warned = Some(Instant::now());
        }
        is_soon
    }
}

impl BinImpl for SfuSink {
    /// What fails in the audio's elements does not end the picture.
    fn handle_message(&self, message: gst::Message) {
        if message.type_() == gst::MessageType::Warning && self.is_one_of_many(&message) {
            return;
        }
        let gst::MessageView::Error(error) = message.view() else {
            return self.parent_handle_message(message);
        };
        if !message
            .src()
            .is_some_and(|source| self.is_beside_video(source))
        {
            if !refusal::tell(self.obj().upcast_ref(), &message) {
                self.parent_handle_message(message);
            }
            return;
        }
        let (error, debug) = (error.error(), error.debug());
        let debug = debug.unwrap_or_default();
        gst::element_imp_warning!(
            self,
            gst::StreamError::Failed,
            ("the audio failed, the picture goes on without it: {error}"),
            ["{debug}"]
        );
    }
}
