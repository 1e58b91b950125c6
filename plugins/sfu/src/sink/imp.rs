// SPDX-License-Identifier: MPL-2.0

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::is_live;
use sfu_engine::{
    Codec, LayerInfo, PublishOptions, Publisher, Rid, Router, StreamInfo, StreamName, TrackKind,
};

use super::CAT;
use super::branch::{self, Branch, Plan};
use super::clock::{Now, Wallclock};
use super::feedback::ForceKeyUnit;
use super::media::{self, Form, Media};
use super::sender::Sender;
use super::settings::{PROPERTIES, Settings};
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

impl BinImpl for SfuSink {}

impl SfuSink {
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
        let pad = gst::GhostPad::builder_from_template_with_target(templ, &target)
            .map_err(|e| e.to_string())?
            .name(format!("{prefix}{number}"))
            .build();
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
                    info.flow_res = Err(if refused {
                        gst::FlowError::NotNegotiated
                    } else {
                        gst::FlowError::Flushing
                    });
                    return gst::PadProbeReturn::Handled;
                }
            };
            refused.store(result.is_err(), Relaxed);
            if let Err(message) = result {
                let name = pad.name();
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
            None => self.build(pad, kind, number, media)?,
        }
        self.declare(kind)
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
        let (codec, layers) = video_track(&settings, &medias)?;
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

/// The codec and the layers, from what the video pads carry and what raw video is encoded to.
fn video_track(
    settings: &Settings,
    medias: &[Option<Media>],
) -> Result<(Codec, Vec<LayerInfo>), String> {
    let layer = |index, size: Option<(u32, u32)>, target_bitrate| LayerInfo {
        rid: Rid::from_index(index),
        width: size.map(|s| s.0),
        height: size.map(|s| s.1),
        target_bitrate,
    };
    if let [
        Some(Media {
            form: Form::Raw, ..
        }),
    ] = medias
    {
        let codec = match settings.codec {
            super::Codec::H264 => Codec::H264,
            super::Codec::Vp8 => Codec::Vp8,
        };
        // The sizes follow from the keyframes: a layer may be smaller than asked for.
        let count = settings.layers.split(',').count();
        return Ok((
            codec,
            (0..count).map(|index| layer(index, None, None)).collect(),
        ));
    }
    let mut codecs = medias.iter().flatten().filter_map(|m| match m.form {
        Form::Encoded(codec) | Form::Rtp(codec) => Some(codec),
        Form::Raw => None,
    });
    let codec = codecs.next().ok_or("there is no encoded video")?;
    if codecs.any(|other| other != codec) {
        return Err("all layers of a stream have the same codec".into());
    }
    let layers = medias.iter().enumerate();
    let layers = layers.map(|(index, media)| layer(index, media.and_then(|m| m.size), None));
    Ok((codec, layers.collect()))
}

fn stats(info: Option<StreamInfo>, steps: u64) -> gst::Structure {
    let structure = gst::Structure::builder("sfusink-stats");
    let Some(info) = info else {
        return structure.build();
    };
    let layers = info
        .video
        .iter()
        .flat_map(|video| &video.layers)
        .map(|layer| {
            gst::Structure::builder("layer")
                .field("rid", layer.rid.as_str())
                .field("width", layer.width.unwrap_or(0))
                .field("height", layer.height.unwrap_or(0))
                .field("bitrate", layer.bitrate.unwrap_or(0))
                .field("active", layer.active)
                .build()
                .to_send_value()
        });
    structure
        .field("viewers", info.viewers as u64)
        .field("packets", info.packets_in)
        .field("bytes", info.bytes_in)
        .field("timestamp-steps", steps)
        .field(
            "keyframe-requests-received",
            info.keyframe_requests_received,
        )
        .field("keyframe-requests-refused", info.keyframe_requests_refused)
        .field("keyframe-requests-merged", info.keyframe_requests_merged)
        .field("keyframe-requests-sent", info.keyframe_requests_sent)
        .field("layers", gst::Array::from_values(layers))
        .build()
}
