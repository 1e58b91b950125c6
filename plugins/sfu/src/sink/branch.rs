// SPDX-License-Identifier: MPL-2.0

//! The elements behind a pad, built when its caps are known: encoder where needed, payloader, and the way to the router.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use sfu_elements::layers::Layers;
use sfu_engine::Codec;

use super::audio::{self, MixMatrix};
use super::clock::Now;
use super::decoder;
use super::media::{Form, Media};
use super::sender::Sender;
use super::settings::Settings;
use crate::properties::lock;

/// A pad's elements.
#[derive(Debug, Default)]
pub(super) struct Branch {
    /// What they are for.
    pub(super) form: Option<Form>,
    elements: Vec<gst::Element>,
    /// The end of each layer.
    pub(super) sinks: Vec<gst::Element>,
    /// What makes the layers of raw video, and the elements of each one behind it.
    encoder: Option<gst::Element>,
    layers: Vec<(gst::Pad, Vec<gst::Element>)>,
    /// How many elements, the parser of what comes encoded, stay when it is decided otherwise what becomes of it.
    head: usize,
}

/// What comes in pieces is no larger.
const LARGEST_PICTURE: usize = 8 * 1024 * 1024;
/// The encoder of sound.
const OPUS: &str = "opusenc";

impl Branch {
    pub(super) fn make(
        &mut self,
        bin: &gst::Bin,
        factory: &str,
        from: &str,
    ) -> Result<gst::Element, String> {
        let element = gst::ElementFactory::make(factory)
            .build()
            .map_err(|_| format!("element {factory} is missing: install {from}"))?;
        self.add(bin, &element)?;
        Ok(element)
    }

    /// Those of the sound that is encoded here, if any.
    pub(super) fn audio_encoders(&self) -> impl Iterator<Item = gst::Element> {
        let is_opus = |e: &&gst::Element| e.factory().is_some_and(|f| f.name() == OPUS);
        self.elements.iter().filter(is_opus).cloned()
    }

    /// The element behind which it is decided what becomes of what comes encoded.
    pub(super) fn point(&self) -> Option<&gst::Element> {
        self.elements.get(self.head.checked_sub(1)?)
    }

    /// Takes out what stands behind that, and puts in what the plan says.
    pub(super) fn decide(
        &mut self,
        plan: &Plan<'_>,
        sender: impl FnMut(Codec, usize) -> Sender,
    ) -> Result<(), String> {
        let point = self.point().ok_or("there is nothing to be decided")?;
        let point = point.clone();
        self.behead(plan.bin);
        let built = behind(self, plan, &point, sender).and_then(|()| self.start(self.head));
        if built.is_err() {
            self.behead(plan.bin);
        }
        built
    }

    /// Ends the head where nothing ever came, so that its EOS counts.
    pub(super) fn close(&mut self, bin: &gst::Bin) -> Result<(), String> {
        let point = self.point().ok_or("there is nothing to be closed")?.clone();
        self.behead(bin);
        let sink = self.make(bin, "fakesink", "libgstreamer1.0-0")?;
        sink.set_property("async", false);
        point.link(&sink).map_err(|e| e.to_string())?;
        self.start(self.head)
    }

    fn behead(&mut self, bin: &gst::Bin) {
        self.sinks.clear();
        self.layers.clear();
        self.encoder = None;
        for element in self.elements.drain(self.head..).rev() {
            take_out(bin, &element);
        }
    }

    /// Adds an element that stays as it is until [`start`](Self::start): the bin may just be on its way to PLAYING, and
    /// would take what is half built along.
    pub(super) fn add(&mut self, bin: &gst::Bin, element: &gst::Element) -> Result<(), String> {
        element.set_locked_state(true);
        bin.add(element).map_err(|e| e.to_string())?;
        self.elements.push(element.clone());
        Ok(())
    }

    /// Whether a message came from within.
    pub(super) fn has(&self, source: &gst::Object) -> bool {
        let is_it = |element: &gst::Element| {
            let element: &gst::Object = element.upcast_ref();
            source == element || source.has_as_ancestor(element)
        };
        self.elements.iter().any(is_it)
    }

    /// Takes the elements out of the bin again.
    pub(super) fn remove(self, bin: &gst::Bin) {
        // The ends first: a thread may be held up there.
        for element in self.elements.into_iter().rev() {
            take_out(bin, &element);
        }
    }

    /// Lets the elements from this one on follow the bin's state, the last ones first, so that nothing flows into what is not
    /// ready. Those before it may be the ones that this thread comes through: who stops them waits for it, and it must not wait
    /// for them.
    fn start(&self, from: usize) -> Result<(), String> {
        let follow = |element: &gst::Element| {
            let synced = element.sync_state_with_parent();
            synced.map_err(|error| error.to_string())
        };
        for element in self.elements[from..].iter().rev() {
            // What fails stays locked: a bin that is being stopped would fail with it, and not stop.
            follow(element)?;
            element.set_locked_state(false);
            // The bin may have changed its state meanwhile.
            follow(element)?;
        }
        Ok(())
    }
}

impl Branch {
    /// A flush begins. The ends of what is not live then have the pipeline begin its running time anew, as all sinks do, since
    /// that is what the timestamps behind the flush count from. Before they don't: one that is added while the others play would
    /// set those back.
    pub(super) fn flush(&self) {
        let paced = self.sinks.iter().filter(|sink| sink.property("sync"));
        paced.for_each(|sink| sink.set_property("async", true));
    }

    pub(super) fn has_encoder(&self) -> bool {
        self.encoder.is_some()
    }

    /// Makes one more layer, which starts before anything flows into it.
    fn add_layer(
        &mut self,
        bin: &gst::Bin,
        live: bool,
        codec: Codec,
        sender: Sender,
    ) -> Result<(), String> {
        let index = self.layers.len();
        let encoder = self.encoder.clone().ok_or("there is no encoder")?;
        let before = self.elements.len();
        let first = self.make(bin, "identity", "libgstreamer1.0-0")?;
        let parsed = parse(self, bin, &first, codec)?;
        let payloader = payload(self, bin, &parsed, codec)?;
        finish(self, bin, live, &payloader, sender)?;
        self.start(before)?;
        let pad = encoder
            .request_pad_simple(&format!("src_{index}"))
            .ok_or("simulcastenc gives no pad for a layer: see `layers`")?;
        link_pad(&pad, &first)?;
        let own = self.elements[before..].to_vec();
        self.layers.push((pad, own));
        Ok(())
    }

    /// Other layers while running.
    pub(super) fn set_layers(
        &mut self,
        bin: &gst::Bin,
        layers: &Layers,
        live: bool,
        sender: impl Fn(usize) -> Sender,
    ) -> Result<(), String> {
        let encoder = self.encoder.clone().ok_or("there is no encoder")?;
        let count = layers.as_slice().len();
        while self.layers.len() > count {
            let Some((pad, own)) = self.layers.pop() else {
                break;
            };
            encoder.release_request_pad(&pad);
            for element in own.iter().rev() {
                self.sinks.retain(|sink| sink != element);
                self.elements.retain(|one| one != element);
                take_out(bin, element);
            }
        }
        encoder.set_property("layers", layers.to_string());
        for index in self.layers.len()..count {
            let sender = sender(index);
            self.add_layer(bin, live, sender.codec(), sender)?;
        }
        Ok(())
    }
}

/// Takes an element out of the bin, unless the bin is being disposed of and has let go of it.
pub(crate) fn take_out(bin: &gst::Bin, element: &gst::Element) {
    if element.parent().as_ref() == Some(bin.upcast_ref()) {
        // Out of the bin first, so that nobody brings it up again.
        let _ = bin.remove(element);
    }
    let _ = element.set_state(gst::State::Null);
}

/// What is done with what a pad carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// It goes on in the codec that it has.
    Pass,
    /// Video becomes so many layers, decoded before where it came encoded.
    Encode(usize),
    /// That is decided when it is known what comes.
    Wait,
}

/// What a branch is built with.
pub(super) struct Plan<'a> {
    pub(super) bin: &'a gst::Bin,
    /// The pad's name.
    pub(super) pad: glib::GString,
    pub(super) entry: &'a gst::Element,
    pub(super) settings: &'a Settings,
    pub(super) media: Media,
    pub(super) work: Work,
    /// Whether upstream produces in real time.
    pub(super) live: bool,
    /// Before this timestamp nothing that is decoded is to be seen.
    pub(super) hidden: Arc<AtomicU64>,
}

/// Builds what a pad's media needs. `sender` makes the end of a layer, by its number in this branch.
pub(super) fn build(
    plan: &Plan<'_>,
    sender: impl FnMut(Codec, usize) -> Sender,
) -> Result<Branch, String> {
    let mut branch = Branch {
        form: Some(plan.media.form),
        ..Branch::default()
    };
    match build_into(&mut branch, plan, sender).and_then(|()| branch.start(0)) {
        Ok(()) => Ok(branch),
        Err(message) => {
            branch.remove(plan.bin);
            Err(message)
        }
    }
}

fn build_into(
    branch: &mut Branch,
    plan: &Plan<'_>,
    sender: impl FnMut(Codec, usize) -> Sender,
) -> Result<(), String> {
    let mut last = plan.entry.clone();
    if let Form::Encoded(codec) = plan.media.form {
        if plan.media.in_units {
            last = join(branch, plan.bin, &last)?;
        }
        last = parse(branch, plan.bin, &last, codec)?;
        branch.head = branch.elements.len();
    }
    behind(branch, plan, &last, sender)
}

/// Builds what comes behind `last`.
fn behind(
    branch: &mut Branch,
    plan: &Plan<'_>,
    last: &gst::Element,
    mut sender: impl FnMut(Codec, usize) -> Sender,
) -> Result<(), String> {
    let (bin, live) = (plan.bin, plan.live);
    let (last, codec) = match (plan.work, plan.media.form) {
        (Work::Wait, _) => return Ok(()),
        (Work::Encode(layers), form) => {
            let mut last = last.clone();
            if let Form::Encoded(codec) = form {
                last = decoder::put(branch, bin, &last, (codec, &plan.hidden))?;
            }
            let encoder = video_encoder(branch, plan)?;
            branch.encoder = Some(encoder.clone());
            let codec = plan.settings.codec.engine();
            for index in 0..layers {
                branch.add_layer(bin, live, codec, sender(codec, index))?;
            }
            return last.link(&encoder).map_err(|e| e.to_string());
        }
        (Work::Pass, Form::Raw) => {
            let last = audio_encoder(branch, plan)?;
            (payload(branch, bin, &last, Codec::Opus)?, Codec::Opus)
        }
        (Work::Pass, Form::Encoded(codec)) => (payload(branch, bin, last, codec)?, codec),
        (Work::Pass, Form::Rtp(codec)) => (last.clone(), codec),
    };
    finish(branch, bin, live, &last, sender(codec, 0))
}

fn video_encoder(branch: &mut Branch, plan: &Plan<'_>) -> Result<gst::Element, String> {
    let settings = plan.settings;
    let encoder = branch.make(
        plan.bin,
        "simulcastenc",
        "libgstsimulcast.so of this project where GStreamer finds it (GST_PLUGIN_PATH)",
    )?;
    encoder.set_property("layers", settings.layers.to_string());
    encoder.set_property_from_str("codec", settings.codec.nick());
    encoder.set_property("encoder", &settings.encoder);
    encoder.set_property("keyframe-interval", settings.keyframe_interval_ms);
    encoder.set_property("temporal-layers", settings.temporal_layers);
    encoder.set_property("encoder-properties", &settings.encoder_properties);
    encoder.set_property_from_str("deinterlace", settings.deinterlace.nick());
    encoder.set_property_from_str("deinterlace-fields", settings.deinterlace_fields.nick());
    let (sink, pad) = (plan.bin.downgrade(), plan.pad.to_string());
    encoder.connect("encoder-setup", false, move |args| {
        let (consumer, encoder) = (args[1].get::<String>(), args[3].get::<gst::Element>());
        let (consumer, encoder) = consumer.ok().zip(encoder.ok())?;
        let sink = sink.upgrade()?;
        let is_set = sink.emit_by_name::<bool>("encoder-setup", &[&consumer, &pad, &encoder]);
        Some(is_set.to_value())
    });
    Ok(encoder)
}

fn audio_encoder(branch: &mut Branch, plan: &Plan<'_>) -> Result<gst::Element, String> {
    let base = "gstreamer1.0-plugins-base";
    let sink = plan.bin.downgrade();
    let convert = audio::mixer(move || {
        let sink = sink.upgrade();
        let matrix = sink.map(|sink| MixMatrix::from_value(&sink.property_value("mix-matrix")));
        matrix.and_then(Result::ok).unwrap_or_default()
    })?;
    branch.add(plan.bin, &convert)?;
    // Where a seek asked for another speed.
    let tempo = branch.make(plan.bin, "scaletempo", "gstreamer1.0-plugins-good")?;
    let resample = branch.make(plan.bin, "audioresample", base)?;
    let filter = branch.make(plan.bin, "capsfilter", base)?;
    // With its positions: of two channels without, opusenc makes a mapping that browsers don't play.
    let caps = |channels: i32| {
        gst::Structure::builder("audio/x-raw")
            .field("rate", 48_000i32)
            .field("channels", channels)
    };
    let stereo = caps(2).field("channel-mask", gst::Bitmask(0x3)).build();
    let caps: gst::Caps = [stereo, caps(1).build()].into_iter().collect();
    filter.set_property("caps", &caps);
    let encoder = branch.make(plan.bin, OPUS, base)?;
    set_audio_bitrate(&encoder, plan.settings.audio_bitrate);
    // A lost packet is filled in from the next one, which comes before the viewer could ask for it again.
    encoder.set_property("inband-fec", true);
    encoder.set_property("packet-loss-percentage", 10i32);
    encoder.set_property_from_str("frame-size", "20");
    gst::Element::link_many([plan.entry, &convert, &tempo, &resample, &filter, &encoder])
        .map_err(|e| e.to_string())?;
    Ok(encoder)
}

/// While it plays, too.
pub(super) fn set_audio_bitrate(encoder: &gst::Element, bitrate: u32) {
    let bitrate = i32::try_from(bitrate).unwrap_or(i32::MAX);
    encoder.set_property("bitrate", bitrate);
}

/// Links what brings encoded media into the form that payloaders and decoders take, and returns the last element of it.
fn parse(
    branch: &mut Branch,
    bin: &gst::Bin,
    last: &gst::Element,
    codec: Codec,
) -> Result<gst::Element, String> {
    let (parser, media_type, format, alignment) = match codec {
        // As a byte stream the parser would put a delimiter, often a packet of its own, before each frame.
        Codec::H264 => ("h264parse", "video/x-h264", "avc", "au"),
        Codec::H265 => ("h265parse", "video/x-h265", "hvc1", "au"),
        Codec::Av1 => ("av1parse", "video/x-av1", "obu-stream", "tu"),
        _ => return Ok(last.clone()),
    };
    let parse = branch.make(bin, parser, "gstreamer1.0-plugins-bad")?;
    if parse.find_property("config-interval").is_some() {
        // A viewer may join at any IDR picture, so each brings its parameter sets.
        parse.set_property("config-interval", -1i32);
    }
    let filter = branch.make(bin, "capsfilter", "libgstreamer1.0-0")?;
    let caps = gst::Caps::builder(media_type)
        .field("stream-format", format)
        .field("alignment", alignment)
        .build();
    filter.set_property("caps", caps);
    gst::Element::link_many([last, &parse, &filter]).map_err(|e| e.to_string())?;
    Ok(filter)
}

/// Has units that come one by one (`alignment=nal`) become pictures. `h264parse` (1.22) hands the first picture on in pieces, of which
/// the first one has a time, and then whole ones; and its caps never have the parameter sets then, by which payloaders know how long
/// lengths are: `rtph264pay` reads on for ever. So the pieces are joined, and parsed once more.
fn join(branch: &mut Branch, bin: &gst::Bin, last: &gst::Element) -> Result<gst::Element, String> {
    let parse = branch.make(bin, "h264parse", "gstreamer1.0-plugins-bad")?;
    parse.set_property("config-interval", -1i32);
    let filter = branch.make(bin, "capsfilter", "libgstreamer1.0-0")?;
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "byte-stream")
        .field("alignment", "au");
    filter.set_property("caps", caps.build());
    gst::Element::link_many([last, &parse, &filter]).map_err(|e| e.to_string())?;
    let first = Mutex::new(None::<gst::Buffer>);
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    if let Some(out) = filter.static_pad("src") {
        out.add_probe(mask, move |pad, info| {
            if let Some(event) = info.event() {
                let ends = event.type_() == gst::EventType::Eos;
                if let Some(first) = lock(&first).take_if(|_| ends) {
                    let _ = pad.push(first);
                }
                return gst::PadProbeReturn::Ok;
            }
            let Some(buffer) = info.buffer() else {
                return gst::PadProbeReturn::Ok;
            };
            let mut held = lock(&first);
            match held.take() {
                None => *held = Some(buffer.clone()),
                Some(mut whole) if buffer.pts().is_none() && whole.size() < LARGEST_PICTURE => {
                    whole.make_mut().unset_flags(gst::BufferFlags::DELTA_UNIT);
                    whole.append(buffer.clone());
                    *held = Some(whole);
                }
                Some(whole) => {
                    drop(held);
                    info.flow_res = pad.push(whole);
                    return match info.flow_res {
                        Ok(_) => gst::PadProbeReturn::Remove,
                        Err(_) => gst::PadProbeReturn::Handled,
                    };
                }
            }
            gst::PadProbeReturn::Drop
        });
    }
    Ok(filter)
}

fn payloader(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "rtph264pay",
        Codec::H265 => "rtph265pay",
        Codec::Av1 => "rtpav1pay",
        Codec::Vp8 => "rtpvp8pay",
        Codec::Vp9 => "rtpvp9pay",
        Codec::Opus => "rtpopuspay",
    }
}

/// Whether it can go on as it is.
pub(super) fn can_pass(codec: Codec) -> bool {
    gst::ElementFactory::find(payloader(codec)).is_some()
}

/// Links what turns parsed media into RTP behind `last`, and returns the payloader.
fn payload(
    branch: &mut Branch,
    bin: &gst::Bin,
    last: &gst::Element,
    codec: Codec,
) -> Result<gst::Element, String> {
    let factory = payloader(codec);
    let package = match codec {
        Codec::Av1 => "gst-plugin-rtp of gst-plugins-rs (libgstrsrtp.so)",
        _ => "gstreamer1.0-plugins-good",
    };
    let payloader = branch.make(bin, factory, package)?;
    // Beside it are the header extensions that viewers get.
    payloader.set_property("mtu", sfu_engine::PAYLOADER_MTU as u32);
    // Timestamps are the running time then: the same for all layers.
    payloader.set_property("timestamp-offset", 0u32);
    match codec {
        Codec::H264 | Codec::H265 => {
            payloader.set_property_from_str("aggregate-mode", "zero-latency");
        }
        // With picture ids receivers notice a lost frame.
        Codec::Vp8 | Codec::Vp9 => {
            payloader.set_property_from_str("picture-id-mode", "15-bit");
        }
        _ => {}
    }
    last.link(&payloader).map_err(|e| e.to_string())?;
    hide_forced_keyframes(&payloader)?;
    if codec == Codec::Vp9 {
        pad_short_frames(&payloader)?;
    }
    Ok(payloader)
}

/// Makes VP9's frames long enough: `rtpvp9pay` fails at less than three octets, and one that shows an earlier frame has one. What
/// decoders find behind a frame are zeros, which they pass over.
fn pad_short_frames(payloader: &gst::Element) -> Result<(), String> {
    const SHORTEST: usize = 3;
    let pad = payloader.static_pad("sink");
    let pad = pad.ok_or("a payloader has no sink pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && buffer.size() < SHORTEST
        {
            let zeros = gst::Memory::from_slice([0; SHORTEST]);
            buffer.make_mut().append_memory(zeros);
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// Keeps encoders' announcements of forced keyframes from the payloader.
///
/// It would answer one by sending the parameter sets ahead, as a frame of their own with a marker bit. Browsers take
/// that for a broken frame and ask for another keyframe, again and again.
fn hide_forced_keyframes(payloader: &gst::Element) -> Result<(), String> {
    let pad = payloader
        .static_pad("sink")
        .ok_or("a payloader has no sink pad")?;
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        let forced = info
            .event()
            .is_some_and(|event| gst_video::DownstreamForceKeyUnitEvent::parse(event).is_ok());
        if forced {
            gst::PadProbeReturn::Handled
        } else {
            gst::PadProbeReturn::Ok
        }
    });
    Ok(())
}

/// Ends a layer: what comes out of `last` goes to the router.
fn finish(
    branch: &mut Branch,
    bin: &gst::Bin,
    live: bool,
    last: &gst::Element,
    mut sender: Sender,
) -> Result<(), String> {
    let flushed = sender.flushed();
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            sender.send(&sample, Now::of(sink));
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    let sink = gst_app::AppSink::builder()
        .buffer_list(true)
        .sync(!live)
        .async_(false)
        .callbacks(callbacks)
        .build();
    let sink: gst::Element = sink.upcast();
    let end = sink.static_pad("sink").ok_or("appsink has no sink pad")?;
    end.add_probe(gst::PadProbeType::EVENT_FLUSH, move |_, info| {
        let event = info.event().map(|event| event.type_());
        if event == Some(gst::EventType::FlushStop) {
            flushed.store(true, Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    branch.add(bin, &sink)?;
    last.link(&sink).map_err(|e| e.to_string())?;
    branch.sinks.push(sink);
    Ok(())
}

/// Ends a pad that never got caps, so that its EOS counts.
pub(super) fn build_empty(bin: &gst::Bin, entry: &gst::Element) -> Result<Branch, String> {
    let mut branch = Branch::default();
    let sink = branch.make(bin, "fakesink", "libgstreamer1.0-0")?;
    sink.set_property("async", false);
    let linked = entry.link(&sink).map_err(|e| e.to_string());
    match linked.and_then(|()| branch.start(0)) {
        Ok(()) => Ok(branch),
        Err(message) => {
            branch.remove(bin);
            Err(message)
        }
    }
}

fn link_pad(pad: &gst::Pad, to: &gst::Element) -> Result<(), String> {
    let sink = to.static_pad("sink").ok_or("a payloader has no sink pad")?;
    pad.link(&sink).map(|_| ()).map_err(|e| e.to_string())
}
