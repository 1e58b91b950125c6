// SPDX-License-Identifier: MPL-2.0

//! The elements behind a pad, built when its caps are known: encoder where needed, payloader, and the way to the router.

use gst::prelude::*;
use sfu_engine::Codec;

use super::clock::Now;
use super::media::{Form, Media};
use super::sender::Sender;
use super::settings::Settings;

/// A pad's elements.
#[derive(Debug, Default)]
pub(super) struct Branch {
    elements: Vec<gst::Element>,
    /// What mixes raw audio.
    pub(super) mixer: Option<gst::Element>,
    /// The end of each layer.
    pub(super) sinks: Vec<gst::Element>,
}

impl Branch {
    fn make(&mut self, bin: &gst::Bin, factory: &str, from: &str) -> Result<gst::Element, String> {
        let element = gst::ElementFactory::make(factory)
            .build()
            .map_err(|_| format!("element {factory} is missing: install {from}"))?;
        self.add(bin, &element)?;
        Ok(element)
    }

    /// Adds an element that stays as it is until [`start`](Self::start): the bin may just be on its way to PLAYING, and
    /// would take what is half built along.
    fn add(&mut self, bin: &gst::Bin, element: &gst::Element) -> Result<(), String> {
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
        for element in self.elements {
            take_out(bin, &element);
        }
    }

    /// Lets the elements follow the bin's state, the last ones first, so that nothing flows into what is not ready.
    pub(super) fn start(&self) -> Result<(), String> {
        let follow = |element: &gst::Element| {
            let synced = element.sync_state_with_parent();
            synced.map_err(|error| error.to_string())
        };
        for element in self.elements.iter().rev() {
            // What fails stays locked: a bin that is being stopped would fail with it, and not stop.
            follow(element)?;
            element.set_locked_state(false);
            // The bin may have changed its state meanwhile.
            follow(element)?;
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

/// What a branch is built with.
pub(super) struct Plan<'a> {
    pub(super) bin: &'a gst::Bin,
    pub(super) entry: &'a gst::Element,
    pub(super) settings: &'a Settings,
    pub(super) media: Media,
    /// How many layers come of raw video.
    pub(super) layers: usize,
    /// Whether upstream produces in real time.
    pub(super) live: bool,
}

/// Builds what a pad's media needs. `sender` makes the end of a layer, by its number in this branch.
pub(super) fn build(
    plan: &Plan<'_>,
    mut sender: impl FnMut(Codec, usize) -> Sender,
) -> Result<Branch, String> {
    let mut branch = Branch::default();
    match build_into(&mut branch, plan, &mut sender).and_then(|()| branch.start()) {
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
    sender: &mut impl FnMut(Codec, usize) -> Sender,
) -> Result<(), String> {
    match plan.media.form {
        Form::Raw if plan.layers > 0 => {
            let encoder = video_encoder(branch, plan)?;
            for index in 0..plan.layers {
                let codec = match plan.settings.codec {
                    super::Codec::H264 => Codec::H264,
                    super::Codec::Vp8 => Codec::Vp8,
                };
                let pad = encoder
                    .request_pad_simple(&format!("src_{index}"))
                    .ok_or("simulcastenc gives no pad for a layer: see `layers`")?;
                let first = branch.make(plan.bin, "identity", "libgstreamer1.0-0")?;
                link_pad(&pad, &first)?;
                let payloader = payload(branch, plan.bin, &first, codec)?;
                finish(branch, plan, &payloader, sender(codec, index))?;
            }
            plan.entry.link(&encoder).map_err(|e| e.to_string())
        }
        Form::Raw => {
            let last = audio_encoder(branch, plan)?;
            let payloader = payload(branch, plan.bin, &last, Codec::Opus)?;
            finish(branch, plan, &payloader, sender(Codec::Opus, 0))
        }
        Form::Encoded(codec) => {
            let payloader = payload(branch, plan.bin, plan.entry, codec)?;
            finish(branch, plan, &payloader, sender(codec, 0))
        }
        Form::Rtp(codec) => finish(branch, plan, plan.entry, sender(codec, 0)),
    }
}

fn video_encoder(branch: &mut Branch, plan: &Plan<'_>) -> Result<gst::Element, String> {
    let settings = plan.settings;
    let encoder = branch.make(
        plan.bin,
        "simulcastenc",
        "libgstsimulcast.so of this project where GStreamer finds it (GST_PLUGIN_PATH)",
    )?;
    encoder.set_property("layers", &settings.layers);
    if encoder.property::<String>("layers").is_empty() {
        let wrong = &settings.layers;
        return Err(format!(
            "layers={wrong:?} is not HEIGHT:BITRATE,… such as 720:2500k,360:700k"
        ));
    }
    encoder.set_property_from_str("codec", settings.codec.nick());
    encoder.set_property("encoder", &settings.encoder);
    encoder.set_property("keyframe-interval", settings.keyframe_interval_ms);
    encoder.set_property("temporal-layers", settings.temporal_layers);
    Ok(encoder)
}

fn audio_encoder(branch: &mut Branch, plan: &Plan<'_>) -> Result<gst::Element, String> {
    let base = "gstreamer1.0-plugins-base";
    let convert = branch.make(plan.bin, "audioconvert", base)?;
    branch.mixer = Some(convert.clone());
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
    let encoder = branch.make(plan.bin, "opusenc", base)?;
    let bitrate = i32::try_from(plan.settings.audio_bitrate).unwrap_or(i32::MAX);
    encoder.set_property("bitrate", bitrate);
    // A lost packet is filled in from the next one, which comes before the viewer could ask for it again.
    encoder.set_property("inband-fec", true);
    encoder.set_property("packet-loss-percentage", 10i32);
    encoder.set_property_from_str("frame-size", "20");
    gst::Element::link_many([plan.entry, &convert, &resample, &filter, &encoder])
        .map_err(|e| e.to_string())?;
    Ok(encoder)
}

/// Links what turns encoded media into RTP behind `last`, and returns the payloader.
fn payload(
    branch: &mut Branch,
    bin: &gst::Bin,
    last: &gst::Element,
    codec: Codec,
) -> Result<gst::Element, String> {
    let factory = match codec {
        Codec::H264 => "rtph264pay",
        Codec::Vp8 => "rtpvp8pay",
        Codec::Opus => "rtpopuspay",
        _ => return Err(format!("{} can't be payloaded", codec.name())),
    };
    let mut last = last.clone();
    if codec == Codec::H264 {
        let parse = branch.make(bin, "h264parse", "gstreamer1.0-plugins-bad")?;
        // A viewer may join at any IDR picture, so each brings its parameter sets.
        parse.set_property("config-interval", -1i32);
        let filter = branch.make(bin, "capsfilter", "libgstreamer1.0-0")?;
        // As a byte stream the parser would put a delimiter, often a packet of its own, before each frame.
        let avc = gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .build();
        filter.set_property("caps", avc);
        gst::Element::link_many([&last, &parse, &filter]).map_err(|e| e.to_string())?;
        last = filter;
    }
    let payloader = branch.make(bin, factory, "gstreamer1.0-plugins-good")?;
    // Beside it are the header extensions that viewers get.
    payloader.set_property("mtu", sfu_engine::PAYLOADER_MTU as u32);
    // Timestamps are the running time then: the same for all layers.
    payloader.set_property("timestamp-offset", 0u32);
    match codec {
        Codec::H264 => payloader.set_property_from_str("aggregate-mode", "zero-latency"),
        // With picture ids receivers notice a lost frame.
        Codec::Vp8 => payloader.set_property_from_str("picture-id-mode", "15-bit"),
        _ => {}
    }
    last.link(&payloader).map_err(|e| e.to_string())?;
    hide_forced_keyframes(&payloader)?;
    Ok(payloader)
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
    plan: &Plan<'_>,
    last: &gst::Element,
    mut sender: Sender,
) -> Result<(), String> {
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            sender.send(&sample, Now::of(sink));
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    let sink = gst_app::AppSink::builder()
        .buffer_list(true)
        .sync(!plan.live)
        .async_(false)
        .callbacks(callbacks)
        .build();
    let sink: gst::Element = sink.upcast();
    branch.add(plan.bin, &sink)?;
    last.link(&sink).map_err(|e| e.to_string())?;
    branch.sinks.push(sink);
    Ok(())
}

/// Ends a pad that never got caps, so that its EOS counts.
pub(super) fn build_empty(bin: &gst::Bin, entry: &gst::Element) -> Result<Branch, String> {
    let mut branch = Branch::default();
    let sink = branch.make(bin, "fakesink", "libgstreamer1.0-0")?;
    sink.set_property("async", false);
    entry.link(&sink).map_err(|e| e.to_string())?;
    branch.start()?;
    Ok(branch)
}

fn link_pad(pad: &gst::Pad, to: &gst::Element) -> Result<(), String> {
    let sink = to.static_pad("sink").ok_or("a payloader has no sink pad")?;
    pad.link(&sink).map(|_| ()).map_err(|e| e.to_string())
}
