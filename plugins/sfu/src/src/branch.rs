// SPDX-License-Identifier: MPL-2.0

//! The elements behind a pad: jitter buffer, depayloader and parser, fed with RTP by the element's thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use gst::prelude::*;
use sfu_engine::packet::Packet;
use sfu_engine::{Codec, Language, LocalSubscription, TrackKind};

use super::feed::Passed;
use super::streams::{self, Collected};
use super::{CAT, SfuSrc};
use crate::properties::lock;

const PAYLOAD_TYPE: u8 = 96;
/// What follows is this far behind: it gets nothing more until it has caught up.
const MAX_BACKLOG: u64 = 3_000_000_000;
const CAUGHT_UP: u64 = 500_000_000;

/// What a pad is for.
pub(super) struct Plan<'a> {
    pub(super) element: &'a SfuSrc,
    pub(super) subscription: &'a Arc<LocalSubscription>,
    pub(super) codec: Codec,
    pub(super) number: u32,
    pub(super) latency_ms: u32,
    pub(super) group: gst::GroupId,
    /// The layer's name, where there is a pad for each.
    pub(super) layer: Option<String>,
    pub(super) collected: &'a Arc<Collected>,
}

/// A pad and its elements.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pad: gst::GhostPad,
    pub(super) stream: gst::Stream,
    codec: Codec,
    elements: Vec<gst::Element>,
    source: gst_app::AppSrc,
    jitterbuffer: gst::Element,
    /// What is spoken, and the tags of it that were not sent yet.
    language: Option<Language>,
    tags: Arc<Mutex<Option<gst::TagList>>>,
    /// The layer of which downstream's keyframe requests are.
    layer: Arc<AtomicUsize>,
    pub(super) keyframe_requests: Arc<AtomicU64>,
    pub(super) packets: Arc<AtomicU64>,
    /// Running time of the newest packet that came out of the jitter buffer.
    out: Arc<AtomicU64>,
    newest: u64,
    congested: bool,
}

fn factories(codec: Codec) -> (&'static str, Option<&'static str>) {
    match codec {
        Codec::H264 => ("rtph264depay", Some("h264parse")),
        Codec::H265 => ("rtph265depay", Some("h265parse")),
        Codec::Vp8 => ("rtpvp8depay", None),
        Codec::Vp9 => ("rtpvp9depay", Some("vp9parse")),
        Codec::Av1 => ("rtpav1depay", Some("av1parse")),
        Codec::Opus => ("rtpopusdepay", Some("opusparse")),
    }
}

fn make(factory: &str) -> Result<gst::Element, String> {
    let from = match factory {
        "rtpav1depay" => "gst-plugin-rtp of gst-plugins-rs",
        "h264parse" | "h265parse" | "vp9parse" | "av1parse" | "opusparse" => {
            "gstreamer1.0-plugins-bad"
        }
        _ => "gstreamer1.0-plugins-good",
    };
    gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| format!("element {factory} is missing: install {from}"))
}

fn rtp_caps(codec: Codec) -> gst::Caps {
    let media = match codec.kind() {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
    };
    let caps = gst::Caps::builder("application/x-rtp")
        .field("media", media)
        .field("payload", i32::from(PAYLOAD_TYPE))
        .field("clock-rate", codec.clock_rate() as i32)
        .field("encoding-name", codec.name().to_uppercase());
    match codec {
        // Without it one channel is decoded. A decoder makes two of one where the stream has one.
        Codec::Opus => caps.field("sprop-stereo", "1").build(),
        _ => caps.build(),
    }
}

impl Branch {
    /// Builds the elements and adds the pad. Nothing flows yet.
    pub(super) fn new(plan: &Plan<'_>) -> Result<Self, String> {
        let codec = plan.codec;
        let (depayloader, parser) = factories(codec);
        let source = gst_app::AppSrc::builder()
            .caps(&rtp_caps(codec))
            .format(gst::Format::Time)
            .is_live(true)
            .min_latency(0)
            .max_bytes(0)
            .build();
        let jitterbuffer = jitterbuffer(plan.latency_ms)?;
        let depayloader = make(depayloader)?;
        for property in ["wait-for-keyframe", "request-keyframe"] {
            if depayloader.find_property(property).is_some() {
                depayloader.set_property(property, true);
            }
        }
        let mut elements = vec![source.clone().upcast(), jitterbuffer.clone(), depayloader];
        if let Some(parser) = parser {
            let parser = make(parser)?;
            if parser.find_property("config-interval").is_some() {
                // Segments and recordings may begin at any keyframe.
                parser.set_property("config-interval", -1i32);
            }
            elements.push(parser);
        }
        let prefix = match codec.kind() {
            TrackKind::Video => "video",
            TrackKind::Audio => "audio",
        };
        let name = format!("{prefix}_{}", plan.number);
        let template = plan.element.pad_template(&format!("{prefix}_%u"));
        let template = template.ok_or("the element has no template for its pad")?;
        let pad = gst::GhostPad::builder_from_template(&template)
            .name(&name)
            .build();
        let id = format!("{}/{name}", plan.subscription.name());
        let mut branch = Self {
            pad,
            stream: streams::stream(&id, codec, plan.layer.as_deref()),
            codec,
            elements,
            source,
            jitterbuffer,
            language: None,
            tags: Arc::default(),
            layer: Arc::default(),
            keyframe_requests: Arc::default(),
            packets: Arc::default(),
            out: Arc::default(),
            newest: 0,
            congested: false,
        };
        match branch.assemble(plan) {
            Ok(()) => Ok(branch),
            Err(message) => {
                branch.remove(plan.element);
                Err(message)
            }
        }
    }

    fn assemble(&mut self, plan: &Plan<'_>) -> Result<(), String> {
        let text = |e: glib::BoolError| e.to_string();
        for element in &self.elements {
            element.set_locked_state(true);
            plan.element.add(element).map_err(text)?;
        }
        gst::Element::link_many(&self.elements).map_err(text)?;
        let last = self.elements.last().and_then(|e| e.static_pad("src"));
        let last = last.ok_or("a parser has no source pad")?;
        self.pad.set_target(Some(&last)).map_err(text)?;
        self.watch(plan, &last)?;
        self.pad.set_active(true).map_err(text)?;
        plan.element.add_pad(&self.pad).map_err(text)?;
        for element in self.elements.iter().rev() {
            element.set_locked_state(false);
            element.sync_state_with_parent().map_err(text)?;
        }
        Ok(())
    }

    fn watch(&self, plan: &Plan<'_>, last: &gst::Pad) -> Result<(), String> {
        let first = self.source.static_pad("src").ok_or("appsrc has no pad")?;
        let (stream, group) = (self.stream.clone(), plan.group);
        first.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(event) = info.event_mut()
                && event.type_() == gst::EventType::StreamStart
            {
                let id = stream.stream_id().unwrap_or_default();
                *event = gst::event::StreamStart::builder(&id)
                    .group_id(group)
                    .stream(stream.clone())
                    .build();
            }
            gst::PadProbeReturn::Ok
        });
        let tags = self.tags.clone();
        first.add_probe(gst::PadProbeType::BUFFER, move |first, _| {
            let news = lock(&tags).take();
            if let Some(tags) = news {
                first.push_event(gst::event::Tag::new(tags));
            }
            gst::PadProbeReturn::Ok
        });
        let requests = KeyframeRequests {
            subscription: Arc::downgrade(plan.subscription),
            layer: self.layer.clone(),
            count: self.keyframe_requests.clone(),
            wanted: self.codec.kind() == TrackKind::Video,
        };
        first.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            requests.look(info)
        });
        let out = self.out.clone();
        let depayloader = self.elements.get(2).and_then(|e| e.static_pad("sink"));
        let depayloader = depayloader.ok_or("a depayloader has no sink pad")?;
        depayloader.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) {
                out.store(pts.nseconds(), Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
        let stream = self.stream.clone();
        last.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) {
                stream.set_caps(Some(&caps.caps_owned()));
            }
            gst::PadProbeReturn::Ok
        });
        let pad = self.pad.downgrade();
        let (collected, told) = (plan.collected.clone(), AtomicU64::new(0));
        // A pad that nobody takes must not be an error that ends the others.
        let data = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        last.add_probe(data, move |last, _| {
            if let Some(news) = collected.news(&told) {
                last.push_event(news);
            }
            match pad.upgrade().is_some_and(|pad| pad.is_linked()) {
                true => gst::PadProbeReturn::Ok,
                false => gst::PadProbeReturn::Drop,
            }
        });
        Ok(())
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    pub(super) fn set_layer(&self, layer: usize) {
        self.layer.store(layer, Relaxed);
    }

    /// Tells what is spoken, where that is news.
    pub(super) fn set_language(&mut self, language: Option<&Language>) {
        if self.language.as_ref() == language {
            return;
        }
        self.language = language.cloned();
        let tags = language.map(streams::language).unwrap_or_default();
        let all = self.stream.tags().unwrap_or_default();
        let all = all.merge(&tags, gst::TagMergeMode::Replace);
        self.stream.set_tags(Some(&all));
        *lock(&self.tags) = Some(tags);
    }

    /// Whether somebody takes what comes, and keeps up with it, so that memory stays bounded where nobody does.
    pub(super) fn is_taken(&mut self) -> bool {
        let behind = self.newest.saturating_sub(self.out.load(Relaxed));
        let limit = if self.congested {
            CAUGHT_UP
        } else {
            MAX_BACKLOG
        };
        self.congested = behind > limit;
        !self.congested && self.pad.is_linked()
    }

    /// Sends a packet on its way. `time` is the running time that it stands for.
    pub(super) fn push(&mut self, packet: &Packet, passed: Passed, time: u64) {
        if time > self.newest.saturating_add(CAUGHT_UP) {
            // A pause of the source is no backlog.
            self.out.fetch_max(time, Relaxed);
        }
        self.newest = self.newest.max(time);
        let ticks = u128::from(time) * u128::from(self.codec.clock_rate()) / 1_000_000_000;
        let marker = if packet.marker { 0x80 } else { 0 };
        let mut data = Vec::with_capacity(12 + packet.payload.len());
        data.extend([0x80, marker | PAYLOAD_TYPE]);
        data.extend(passed.seq.to_be_bytes());
        data.extend((ticks as u32).to_be_bytes());
        data.extend([0, 0, 0, 1]);
        data.extend_from_slice(&packet.payload);
        let mut buffer = gst::Buffer::from_mut_slice(data);
        if let Some(buffer) = buffer.get_mut() {
            let time = gst::ClockTime::from_nseconds(time);
            buffer.set_pts(time);
            buffer.set_dts(time);
            if passed.begins {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
        }
        self.packets.fetch_add(1, Relaxed);
        if let Err(error) = self.source.push_buffer(buffer) {
            gst::trace!(CAT, obj = self.pad, "a packet was not taken: {error}");
        }
    }

    /// What came is the end.
    pub(super) fn end(&self) {
        let _ = self.source.end_of_stream();
    }

    /// Ends what follows, and takes the pad and the elements away.
    pub(super) fn retire(&self, element: &SfuSrc) {
        for child in &self.elements {
            crate::sink::take_out(element.upcast_ref(), child);
        }
        self.pad.push_event(gst::event::Eos::new());
        self.remove(element);
    }

    /// Takes the pad and the elements away.
    pub(super) fn remove(&self, element: &SfuSrc) {
        let _ = self.pad.set_active(false);
        if self.pad.parent().as_ref() == Some(element.upcast_ref()) {
            let _ = element.remove_pad(&self.pad);
        }
        for child in &self.elements {
            crate::sink::take_out(element.upcast_ref(), child);
        }
    }

    /// What `stats` says of this pad.
    pub(super) fn stats(&self, layer: &str) -> PadStats {
        PadStats {
            name: self.pad.name().into(),
            codec: self.codec,
            layer: layer.to_owned(),
            packets: self.packets.clone(),
            keyframe_requests: self.keyframe_requests.clone(),
            jitterbuffer: self.jitterbuffer.downgrade(),
        }
    }
}

fn jitterbuffer(latency_ms: u32) -> Result<gst::Element, String> {
    let jitterbuffer = make("rtpjitterbuffer")?;
    // Timestamps are running time already: nothing of them is to be guessed from when packets come. (Mode none would
    // call the first packet's zero, and that after a pause of three seconds as well.)
    jitterbuffer.set_property_from_str("mode", "synced");
    jitterbuffer.set_property("latency", latency_ms);
    jitterbuffer.set_property("do-lost", true);
    jitterbuffer.set_property("faststart-min-packets", 1u32);
    Ok(jitterbuffer)
}

/// Downstream's and the depayloader's keyframe requests, on their way to the arbiter.
struct KeyframeRequests {
    subscription: Weak<LocalSubscription>,
    layer: Arc<AtomicUsize>,
    count: Arc<AtomicU64>,
    wanted: bool,
}

impl KeyframeRequests {
    fn look(&self, info: &gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        let is_request = info
            .event()
            .is_some_and(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok());
        if !is_request {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(subscription) = self.subscription.upgrade().filter(|_| self.wanted) {
            self.count.fetch_add(1, Relaxed);
            subscription.request_keyframe(self.layer.load(Relaxed));
        }
        gst::PadProbeReturn::Handled
    }
}

/// What can be asked of a pad from any thread.
#[derive(Debug, Clone)]
pub(super) struct PadStats {
    name: String,
    codec: Codec,
    layer: String,
    packets: Arc<AtomicU64>,
    pub(super) keyframe_requests: Arc<AtomicU64>,
    jitterbuffer: glib::WeakRef<gst::Element>,
}

impl PadStats {
    pub(super) fn structure(&self) -> gst::Structure {
        let jitterbuffer = self.jitterbuffer.upgrade();
        let stats = jitterbuffer.map(|j| j.property::<gst::Structure>("stats"));
        let number = |field| {
            let value = stats.as_ref().and_then(|s| s.get::<u64>(field).ok());
            value.unwrap_or_default()
        };
        gst::Structure::builder("pad")
            .field("name", &self.name)
            .field("codec", self.codec.name())
            .field("layer", &self.layer)
            .field("packets", self.packets.load(Relaxed))
            .field("lost", number("num-lost"))
            .field("late", number("num-late"))
            .build()
    }
}
