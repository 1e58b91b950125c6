// SPDX-License-Identifier: MPL-2.0

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::is_live;
use sfu_engine::{Codec, PublishOptions, Publisher, Router, StreamInfo, StreamName, TrackKind};

use super::CAT;
use super::audio::{self, MixMatrix};
use super::branch::{self, Branch, Plan};
use super::clock::{Now, Wallclock};
use super::feedback::ForceKeyUnit;
use super::media::{self, Form, Media};
use super::sender::Sender;
use super::settings::{PROPERTIES, Settings};
use super::stats::stats;
use super::timeline::Timeline;
use super::way::Way;
use crate::properties::{lock, number_of, text_of};

/// Layers that `layers` may have.
const MAX_LAYERS: usize = 8;

#[derive(Debug, Default)]
pub struct SfuSink {
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    publisher: Option<Arc<Publisher>>,
    wallclock: Arc<Wallclock>,
    /// Of what comes in, and of the RTP that goes out, which goes on where running time begins anew.
    timeline: Arc<Timeline>,
    sent: Arc<Timeline>,
    /// By kind and number: the order of the layers.
    inputs: BTreeMap<(bool, u32), Input>,
}

#[derive(Debug)]
struct Input {
    pad: gst::GhostPad,
    entry: gst::Element,
    media: Option<Media>,
    branch: Option<Branch>,
}

impl State {
    fn has_video(&self) -> bool {
        self.inputs.keys().any(|(audio, _)| !audio)
    }
}

/// Video pads sort before audio pads.
fn key(kind: TrackKind, number: u32) -> (bool, u32) {
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

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = || text_of(value);
        let number = || number_of(value);
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "stream" => settings.stream = text(),
            "router" => settings.router = text(),
            "layers" => settings.layers = text(),
            "codec" => settings.codec = value.get().unwrap_or_default(),
            "encoder" => settings.encoder = Some(text()).filter(|name| !name.is_empty()),
            "keyframe-interval" => settings.keyframe_interval_ms = number(),
            "temporal-layers" => settings.temporal_layers = number(),
            "keyframe-min-interval" => settings.keyframe_min_interval_ms = number(),
            "audio-bitrate" => settings.audio_bitrate = number(),
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
            "layers" => settings.layers.to_value(),
            "codec" => settings.codec.to_value(),
            "encoder" => settings.encoder.to_value(),
            "keyframe-interval" => settings.keyframe_interval_ms.to_value(),
            "temporal-layers" => settings.temporal_layers.to_value(),
            "keyframe-min-interval" => settings.keyframe_min_interval_ms.to_value(),
            "audio-bitrate" => settings.audio_bitrate.to_value(),
            "mix-matrix" => settings.mix_matrix.to_value(),
            "viewers" => {
                let viewers = self.info().map_or(0, |info| info.viewers);
                u32::try_from(viewers).unwrap_or(u32::MAX).to_value()
            }
            "stats" => stats(self.info(), lock(&self.state).timeline.steps()).to_value(),
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
        let input = {
            let mut state = lock(&self.state);
            let key = state
                .inputs
                .iter()
                .find(|(_, i)| i.pad == *pad)
                .map(|(key, _)| *key);
            key.and_then(|key| state.inputs.remove(&key))
        };
        let Some(Input {
            pad, entry, branch, ..
        }) = input
        else {
            return;
        };
        let obj = self.obj();
        // Nothing may flow any more when the elements go.
        let _ = pad.set_active(false);
        let _ = obj.remove_pad(&pad);
        let bin = obj.upcast_ref::<gst::Bin>();
        if let Some(branch) = branch {
            branch.remove(bin);
        }
        branch::take_out(bin, &entry);
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

impl BinImpl for SfuSink {
    /// What fails in the audio's elements does not end the picture.
    fn handle_message(&self, message: gst::Message) {
        let gst::MessageView::Error(error) = message.view() else {
            return self.parent_handle_message(message);
        };
        if !message
            .src()
            .is_some_and(|source| self.is_beside_video(source))
        {
            return self.parent_handle_message(message);
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

impl SfuSink {
    /// Whether this is an element of the audio, and there is a picture.
    fn is_beside_video(&self, source: &gst::Object) -> bool {
        let state = lock(&self.state);
        let in_audio = |input: &Input| input.branch.as_ref().is_some_and(|b| b.has(source));
        let mut audios = state.inputs.iter().filter(|((audio, _), _)| *audio);
        audios.any(|(_, input)| in_audio(input)) && state.has_video()
    }

    /// The last element of a layer's branch, from where events go upstream.
    pub(super) fn branch_sink(&self, layer: usize) -> Option<gst::Element> {
        let state = lock(&self.state);
        let videos = state.inputs.iter().filter(|((audio, _), _)| !audio);
        let mut sinks = videos.flat_map(|(_, i)| i.branch.iter().flat_map(|b| &b.sinks));
        sinks.nth(layer).cloned()
    }

    fn info(&self) -> Option<StreamInfo> {
        let publisher = lock(&self.state).publisher.clone()?;
        Some(publisher.stats())
    }

    fn add_input(&self, templ: &gst::PadTemplate, name: Option<&str>) -> Result<gst::Pad, String> {
        let prefix = templ.name_template().trim_end_matches("%u");
        let kind = if prefix == "audio_" {
            TrackKind::Audio
        } else {
            TrackKind::Video
        };
        let number = {
            let state = lock(&self.state);
            let free = |n: &u32| !state.inputs.contains_key(&key(kind, *n));
            match name.and_then(|n| n.strip_prefix(prefix)).map(str::parse) {
                Some(Ok(number)) if free(&number) => number,
                Some(Ok(_)) => return Err("it was requested already".into()),
                Some(Err(_)) => return Err(format!("a number is expected behind {prefix}")),
                None => (0..).find(free).unwrap_or_default(),
            }
        };
        let audios = || {
            lock(&self.state)
                .inputs
                .keys()
                .filter(|(audio, _)| *audio)
                .count()
        };
        if kind == TrackKind::Audio && audios() > 0 {
            return Err("a stream has one audio track".into());
        }
        if number as usize >= MAX_LAYERS {
            return Err(format!("a stream has at most {MAX_LAYERS} layers"));
        }
        let entry = gst::ElementFactory::make("capsfilter")
            .property("caps", media::template_caps(kind))
            .build()
            .map_err(|_| "element capsfilter is missing: install libgstreamer1.0-0")?;
        let obj = self.obj();
        obj.add(&entry).map_err(|e| e.to_string())?;
        let target = entry
            .static_pad("sink")
            .ok_or("capsfilter has no sink pad")?;
        let mut pad = gst::GhostPad::builder_from_template_with_target(templ, &target)
            .map_err(|e| e.to_string())?
            .name(format!("{prefix}{number}"));
        if kind == TrackKind::Audio {
            pad = pad.chain_function(|pad, parent, buffer| {
                let result = gst::ProxyPad::chain_default(pad, parent, buffer);
                Self::without_audio(pad, result)
            });
        }
        let pad = pad.build();
        self.watch(&pad, &entry, kind, number);
        let input = Input {
            pad: pad.clone(),
            entry: entry.clone(),
            media: None,
            branch: None,
        };
        lock(&self.state).inputs.insert(key(kind, number), input);
        pad.set_active(true).map_err(|e| e.to_string())?;
        obj.add_pad(&pad).map_err(|e| e.to_string())?;
        entry.sync_state_with_parent().map_err(|e| e.to_string())?;
        Ok(pad.upcast())
    }

    /// Builds the pad's elements when its caps come, before they go further.
    fn watch(&self, pad: &gst::GhostPad, entry: &gst::Element, kind: TrackKind, number: u32) {
        let weak = self.obj().downgrade();
        let negotiated = entry.static_pad("src").map(|pad| pad.downgrade());
        let refused = AtomicBool::new(false);
        let way = Mutex::new(Way::new(Arc::default(), kind == TrackKind::Audio));
        let mask = gst::PadProbeType::DATA_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(mask, move |pad, info| {
            let Some(obj) = weak.upgrade() else {
                return gst::PadProbeReturn::Ok;
            };
            let imp = obj.imp();
            if !imp.in_time(&way, pad.upcast_ref(), kind, info) {
                return gst::PadProbeReturn::Drop;
            }
            let result = match info.event().map(|e| e.view()) {
                Some(gst::EventView::Caps(caps)) => {
                    imp.caps_came(pad.upcast_ref(), kind, number, caps.caps())
                }
                Some(gst::EventView::Eos(_)) => imp.eos_came(kind, number),
                Some(_) => return gst::PadProbeReturn::Ok,
                None => {
                    let refused = refused.load(Relaxed);
                    let through = negotiated.as_ref().and_then(glib::WeakRef::upgrade);
                    if !refused && through.is_some_and(|pad| pad.has_current_caps()) {
                        if let (TrackKind::Video, Some(buffer)) = (kind, info.buffer()) {
                            imp.observe(buffer, pad.upcast_ref());
                        }
                        return gst::PadProbeReturn::Ok;
                    }
                    // Or the caps did not get through, because everything is being stopped.
                    info.flow_res = if !refused {
                        Err(gst::FlowError::Flushing)
                    } else if imp.may_lack(kind) {
                        Ok(gst::FlowSuccess::Ok)
                    } else {
                        Err(gst::FlowError::NotNegotiated)
                    };
                    return gst::PadProbeReturn::Handled;
                }
            };
            refused.store(result.is_err(), Relaxed);
            if let Err(message) = result {
                let name = pad.name();
                if imp.may_lack(kind) {
                    gst::element_imp_warning!(
                        imp,
                        gst::StreamError::WrongType,
                        ("{name}: {message}")
                    );
                    return gst::PadProbeReturn::Handled;
                }
                gst::element_imp_error!(imp, gst::StreamError::WrongType, ("{name}: {message}"));
                info.flow_res = Err(gst::FlowError::NotNegotiated);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Gives what comes its time. Returns false where it is not to be shown.
    fn in_time(
        &self,
        way: &Mutex<Way>,
        pad: &gst::Pad,
        kind: TrackKind,
        info: &mut gst::PadProbeInfo<'_>,
    ) -> bool {
        let mut way = lock(way);
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    let media = media::parse(kind, caps.caps());
                    way.raw = media.is_ok_and(|media| media.form == Form::Raw);
                    way.live = is_live(pad);
                    way.begin(&lock(&self.state).timeline);
                }
                way.event(event);
                true
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                way.buffer(buffer, self.obj().current_running_time())
            }
            Some(gst::PadProbeData::BufferList(list)) => {
                way.list(list, self.obj().current_running_time());
                true
            }
            _ => true,
        }
    }

    /// Video that knows when it was captured tells it for all pads.
    fn observe(&self, buffer: &gst::BufferRef, pad: &gst::Pad) {
        if buffer.meta::<gst::ReferenceTimestampMeta>().is_some() {
            let wallclock = lock(&self.state).wallclock.clone();
            wallclock.observe(buffer, pad, Now::of(&*self.obj()));
        }
    }

    fn caps_came(
        &self,
        pad: &gst::Pad,
        kind: TrackKind,
        number: u32,
        caps: &gst::CapsRef,
    ) -> Result<(), String> {
        let media = media::parse(kind, caps)?;
        let before = {
            let mut state = lock(&self.state);
            let input = state
                .inputs
                .get_mut(&key(kind, number))
                .ok_or("the pad was released")?;
            input.media.replace(media)
        };
        match before {
            Some(before) if before.form != media.form => {
                return Err(
                    "the format changed while running; restart the pipeline to change it".into(),
                );
            }
            Some(_) => {}
            None => {
                self.build(pad, kind, number, media)?;
                if (kind, media.form) == (TrackKind::Audio, Form::Raw) {
                    audio::take_any_raw(pad);
                }
            }
        }
        self.mix(kind, number, caps);
        self.declare(kind)
    }

    /// Has raw audio mixed as its channels need it.
    fn mix(&self, kind: TrackKind, number: u32, caps: &gst::CapsRef) {
        let mixer = {
            let state = lock(&self.state);
            let input = state.inputs.get(&key(kind, number));
            input.and_then(|input| input.branch.as_ref()?.mixer.clone())
        };
        if let Some(mixer) = mixer {
            let matrix = lock(&self.settings).mix_matrix.clone();
            audio::set_mix(&mixer, &matrix, caps);
        }
    }

    /// Whether the stream goes on without this: audio beside video.
    fn may_lack(&self, kind: TrackKind) -> bool {
        kind == TrackKind::Audio && lock(&self.state).has_video()
    }

    /// Keeps audio that fails from ending upstream, which often is the picture's source, too.
    fn without_audio(
        pad: &gst::GhostPad,
        result: Result<gst::FlowSuccess, gst::FlowError>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let failed = matches!(
            result,
            Err(gst::FlowError::NotNegotiated | gst::FlowError::Error | gst::FlowError::NotLinked)
        );
        let sink = pad.parent().and_downcast::<super::SfuSink>();
        match sink.filter(|sink| failed && sink.imp().may_lack(TrackKind::Audio)) {
            Some(sink) => {
                gst::debug!(CAT, obj = sink, "audio is discarded: {result:?}");
                Ok(gst::FlowSuccess::Ok)
            }
            None => result,
        }
    }

    fn build(
        &self,
        pad: &gst::Pad,
        kind: TrackKind,
        number: u32,
        media: Media,
    ) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let (publisher, wallclock, sent, entry, rank, videos) = {
            let state = lock(&self.state);
            let publisher = state
                .publisher
                .clone()
                .ok_or("the element is not running")?;
            let videos = state.inputs.keys().filter(|(audio, _)| !audio).count();
            let rank = state.inputs.range(key(kind, 0)..key(kind, number)).count();
            let input = state
                .inputs
                .get(&key(kind, number))
                .ok_or("the pad was released")?;
            (
                publisher,
                state.wallclock.clone(),
                state.sent.clone(),
                input.entry.clone(),
                rank,
                videos,
            )
        };
        let raw_video = kind == TrackKind::Video && media.form == Form::Raw;
        if raw_video && videos > 1 {
            return Err(
                "raw video makes all layers by itself and must be the only video pad; \
                        link encoded video for one layer a pad"
                    .into(),
            );
        }
        let obj = self.obj();
        let plan = Plan {
            bin: obj.upcast_ref(),
            entry: &entry,
            settings: &settings,
            media,
            layers: if raw_video {
                settings.layers.split(',').count()
            } else {
                0
            },
            live: is_live(pad),
        };
        let foreign = matches!(media.form, Form::Rtp(_));
        let branch = branch::build(&plan, |codec, index| {
            Sender::new(
                publisher.clone(),
                wallclock.clone(),
                sent.clone(),
                codec,
                rank + index,
                foreign,
            )
        })?;
        if let Some(input) = lock(&self.state).inputs.get_mut(&key(kind, number)) {
            input.branch = Some(branch);
        }
        Ok(())
    }

    /// Tells the router what the stream consists of.
    fn declare(&self, kind: TrackKind) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let (publisher, medias) = {
            let state = lock(&self.state);
            let videos = state.inputs.iter().filter(|((audio, _), _)| !audio);
            let medias: Vec<_> = videos.map(|(_, input)| input.media).collect();
            (
                state
                    .publisher
                    .clone()
                    .ok_or("the element is not running")?,
                medias,
            )
        };
        if kind == TrackKind::Audio {
            publisher.set_audio(Codec::Opus);
            return Ok(());
        }
        let (codec, layers) = media::video_track(&settings, &medias)?;
        publisher.set_video(codec, layers);
        Ok(())
    }

    fn eos_came(&self, kind: TrackKind, number: u32) -> Result<(), String> {
        let entry = {
            let state = lock(&self.state);
            let input = state
                .inputs
                .get(&key(kind, number))
                .ok_or("the pad was released")?;
            if input.branch.is_some() {
                return Ok(());
            }
            input.entry.clone()
        };
        let branch = branch::build_empty(self.obj().upcast_ref(), &entry)?;
        if let Some(input) = lock(&self.state).inputs.get_mut(&key(kind, number)) {
            input.branch = Some(branch);
        }
        Ok(())
    }

    fn publish(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let name: StreamName = settings
            .stream
            .parse()
            .map_err(|e| format!("stream: {e}"))?;
        let options = PublishOptions {
            keyframe_min_interval: settings.keyframe_min_interval(),
            feedback: Arc::new(ForceKeyUnit(self.obj().downgrade())),
        };
        let router = Router::get(&settings.router);
        let publisher = router.publish(name, options).map_err(|e| e.to_string())?;
        let mut state = lock(&self.state);
        state.publisher = Some(Arc::new(publisher));
        state.wallclock = Arc::default();
        state.timeline = Arc::default();
        state.sent = Arc::default();
        Ok(())
    }

    fn unpublish(&self) {
        let (publisher, branches) = {
            let mut state = lock(&self.state);
            let branches: Vec<_> = state
                .inputs
                .values_mut()
                .filter_map(|input| {
                    input.media = None;
                    input.branch.take()
                })
                .collect();
            (state.publisher.take(), branches)
        };
        for branch in branches {
            branch.remove(self.obj().upcast_ref());
        }
        drop(publisher);
    }
}
