// SPDX-License-Identifier: MPL-2.0

//! The pipeline of a stream's players: `sfusrc`, and a payloader for each track.

use std::sync::{Arc, OnceLock};

use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::subclass::prelude::*;
use gst_rtsp_server::{RTSPMedia, RTSPMediaFactory};

use super::CAT;
use super::location::Location;
use super::server::Shared;
use super::shared_media::{SharedMedia, WeakMedia};
use super::stream::{self, Audio};
use super::users::ROLE;

/// Payload types, as they are counted up from the first dynamic one.
const FIRST_TYPE: u32 = 96;

#[derive(Debug)]
struct Plan {
    shared: Arc<Shared>,
    location: Location,
}

#[derive(Debug, Default)]
pub struct Factory {
    plan: OnceLock<Plan>,
    media: SharedMedia,
}

#[glib::object_subclass]
impl ObjectSubclass for Factory {
    const NAME: &'static str = "GstSfuRtspStreamFactory";
    type Type = StreamFactory;
    type ParentType = RTSPMediaFactory;
}

impl ObjectImpl for Factory {}

impl RTSPMediaFactoryImpl for Factory {
    /// All players share one pipeline, whichever way they wrote the address.
    fn gen_key(&self, _url: &gst_rtsp::RTSPUrl) -> Option<glib::GString> {
        Some(self.media.key().into())
    }

    fn create_element(&self, _url: &gst_rtsp::RTSPUrl) -> Option<gst::Element> {
        let plan = self.plan.get()?;
        let built = plan.build(&self.media);
        let failed = |message: &String| {
            gst::warning!(CAT, "{}: {message}", plan.location.shown());
        };
        built.inspect_err(failed).ok()
    }

    fn media_configure(&self, media: &RTSPMedia) {
        self.parent_media_configure(media);
        self.media.set(media);
    }
}

glib::wrapper! {
    pub struct StreamFactory(ObjectSubclass<Factory>)
        @extends RTSPMediaFactory;
}

impl StreamFactory {
    pub(super) fn new(shared: &Arc<Shared>, location: &Location) -> Self {
        let factory: Self = glib::Object::new();
        factory.set_shared(true);
        factory.set_protocols(shared.settings.protocols);
        factory.set_address_pool(shared.ports.as_ref());
        let role = gst::Structure::builder(ROLE)
            .field("media.factory.access", true)
            .field("media.factory.construct", true)
            .build();
        factory.add_role_from_structure(&role);
        let plan = Plan {
            shared: Arc::clone(shared),
            location: location.clone(),
        };
        let _ = factory.imp().plan.set(plan);
        factory
    }

    /// Whether somebody plays it.
    pub(super) fn is_in_use(&self) -> bool {
        self.imp().media.is_in_use()
    }

    /// Lets go of what is kept for those who may come, where nobody came for a while, or at once.
    pub(super) fn release(&self, at_once: bool) {
        self.imp().media.release(at_once);
    }
}

fn payloader(codec: &str) -> Result<gst::Element, String> {
    let factory = match codec {
        "H264" => "rtph264pay",
        "H265" => "rtph265pay",
        "VP8" => "rtpvp8pay",
        "VP9" => "rtpvp9pay",
        "opus" => "rtpopuspay",
        _ => return Err(format!("{codec} can't be sent by RTSP")),
    };
    let payloader = gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| format!("element {factory} is missing: install gstreamer1.0-plugins-good"))?;
    // No config-interval: sfusrc's parser repeats parameter sets at keyframes, and the payloader would put them between the
    // slices of a keyframe as well, for which decoders take it for several.
    if payloader.find_property("aggregate-mode").is_some() {
        payloader.set_property_from_str("aggregate-mode", "zero-latency");
    }
    Ok(payloader)
}

/// A track that no player has set up leads nowhere, which must not be the end of the others.
fn guard() -> Result<gst::Element, String> {
    gst::ElementFactory::make("errorignore")
        .property("ignore-error", false)
        .property("ignore-notnegotiated", false)
        .property("ignore-notlinked", true)
        .property_from_str("convert-to", "ok")
        .build()
        .map_err(|_| "element errorignore is missing: install gstreamer1.0-plugins-bad".to_owned())
}

impl Plan {
    fn build(&self, media: &SharedMedia) -> Result<gst::Element, String> {
        let Self { shared, location } = self;
        let settings = &shared.settings;
        let tracks = stream::tracks(&settings.router, location);
        let tracks = tracks.ok_or("the stream is gone")?;
        let source = stream::source(&settings.router, &location.stream)?;
        let layer = location.layer.as_ref().unwrap_or(&settings.layer);
        source.set_property("layer", layer);
        source.set_property("latency", settings.latency_ms);
        let bin = gst::Bin::new();
        bin.add(&source).map_err(|e| e.to_string())?;
        let video = tracks.video.as_ref();
        let video = video.map(|codec| ("video_0".to_owned(), codec.as_str(), None));
        let audio = tracks.audio.iter();
        let audio =
            audio.map(|audio| (audio.pad(), audio.codec.as_str(), audio.language.as_deref()));
        let (mut inputs, mut refused) = (Vec::new(), Vec::new());
        for (pad, codec, language) in video.into_iter().chain(audio) {
            let payloader = match payloader(codec) {
                Ok(payloader) => payloader,
                Err(message) => {
                    gst::warning!(CAT, "{}: {message}", location.shown());
                    refused.push(pad);
                    continue;
                }
            };
            let number = inputs.len() as u32;
            payloader.set_property("name", format!("pay{number}"));
            payloader.set_property("pt", FIRST_TYPE + number);
            if let Some(language) = language {
                tell_language(&payloader, language);
            }
            let guard = guard()?;
            let elements = [&guard, &payloader];
            bin.add_many(elements).map_err(|e| e.to_string())?;
            gst::Element::link_many(elements).map_err(|e| e.to_string())?;
            inputs.push((pad, guard));
        }
        if inputs.is_empty() {
            return Err("there is nothing that can be sent by RTSP".into());
        }
        link((shared, location, media), &bin, &source, (inputs, refused));
        Ok(bin.upcast())
    }
}

/// Has the language in the track's description (`a=lang`, RFC 8866, section 6.12).
fn tell_language(payloader: &gst::Element, language: &str) {
    let Some(pad) = payloader.static_pad("src") else {
        return;
    };
    let language = language.to_owned();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(event) = info.event_mut()
            && let gst::EventView::Caps(caps) = event.view()
        {
            let mut caps = caps.caps_owned();
            caps.make_mut().set("a-lang", &language);
            *event = gst::event::Caps::new(&caps);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Links each pad to what leads to its payloader when it comes. One that comes with another codec than before is the end.
/// What was silent, or was not there, has no payloader.
fn link(
    (shared, location, media): (&Arc<Shared>, &Location, &SharedMedia),
    bin: &gst::Bin,
    source: &gst::Element,
    (inputs, refused): (Vec<(String, gst::Element)>, Vec<String>),
) {
    let weak: Vec<_> = inputs
        .into_iter()
        .map(|(pad, input)| (pad, input.downgrade()))
        .collect();
    let (bin, path) = (bin.downgrade(), location.shown());
    let (shared, media) = (Arc::downgrade(shared), media.downgrade());
    source.connect_pad_added(move |_, pad| {
        let name = pad.name();
        let wanted = weak.iter().find(|(wanted, _)| *wanted == name.as_str());
        let Some(input) = wanted.and_then(|(_, input)| input.upgrade()) else {
            let would_be_taken = name == "video_0" || Audio::is_taken(&name);
            if would_be_taken && !refused.iter().any(|pad| *pad == name.as_str()) {
                renew_when_it_begins(pad, &media);
            }
            return;
        };
        if fits(pad, &input)
            && input
                .static_pad("sink")
                .is_some_and(|sink| pad.link(&sink).is_ok())
        {
            return;
        }
        gst::info!(
            CAT,
            "{path}: the codec changed, its players must come again"
        );
        media.renew();
        if let (Some(shared), Some(bin)) = (shared.upgrade(), bin.upgrade()) {
            shared.disconnect(bin.upcast());
        }
    });
}

/// Who comes when a track that was silent has begun gets that, too.
fn renew_when_it_begins(pad: &gst::Pad, media: &WeakMedia) {
    let media = media.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        media.renew();
        gst::PadProbeReturn::Remove
    });
}

/// Whether a pad's codec is the payloader's that follows the guard.
fn fits(pad: &gst::Pad, guard: &gst::Element) -> bool {
    let payloader = guard.static_pad("src").and_then(|pad| pad.peer());
    payloader.is_some_and(|sink| sink.query_caps(None).can_intersect(&pad.query_caps(None)))
}

/// Asks for keyframes of what plays, for a player that has just begun.
pub(super) fn request_keyframe(media: &RTSPMedia) {
    let Ok(bin) = media.element().downcast::<gst::Bin>() else {
        return;
    };
    for number in 0.. {
        let Some(payloader) = bin.by_name(&format!("pay{number}")) else {
            return;
        };
        let request = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        if let Some(pad) = payloader.static_pad("src") {
            pad.send_event(request);
        }
    }
}
