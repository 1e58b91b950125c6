// SPDX-License-Identifier: MPL-2.0

//! What is between a pad of the room and a mixer: a decoder, made when the pad comes and gone when it goes.

use gst::prelude::*;

use super::CAT;

/// A picture that is older than this is none any more.
const KEPT: gst::ClockTime = gst::ClockTime::from_seconds(3);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Input {
    elements: Vec<gst::Element>,
    mixer: gst::Element,
    /// The mixer's pad.
    pub(super) pad: gst::Pad,
    /// The stream that it shows, where it is a picture.
    pub(super) picture: Option<String>,
}

pub(super) fn make(factory: &str) -> Result<gst::Element, String> {
    let from = match factory {
        "opusdec" | "videotestsrc" | "audiotestsrc" | "decodebin" => "gstreamer1.0-plugins-base",
        _ => "gstreamer1.0-plugins-base, or gstreamer1.0-plugins-bad",
    };
    gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| format!("element {factory} is missing: install {from}"))
}

impl Input {
    pub(super) fn new(
        bin: &gst::Bin,
        source: &gst::Pad,
        mixer: &gst::Element,
    ) -> Result<Self, String> {
        let is_video = source.name().starts_with("video");
        // Each decodes on a thread of its own.
        let names: &[&str] = match is_video {
            true => &["queue", "decodebin"],
            false => &["queue", "opusdec", "audioconvert", "audioresample"],
        };
        let elements: Vec<_> = names
            .iter()
            .map(|name| make(name))
            .collect::<Result<_, _>>()?;
        let pad = mixer.request_pad_simple("sink_%u");
        let pad = pad.ok_or("the mixer has no pad for it")?;
        let input = Self {
            elements,
            mixer: mixer.clone(),
            pad,
            picture: is_video.then(|| source.property("stream")),
        };
        match input.assemble(bin, source) {
            Ok(()) => Ok(input),
            Err(why) => {
                input.remove(bin);
                Err(why)
            }
        }
    }

    fn assemble(&self, bin: &gst::Bin, source: &gst::Pad) -> Result<(), String> {
        let text = |e: glib::BoolError| e.to_string();
        bin.add_many(&self.elements).map_err(text)?;
        gst::Element::link_many(&self.elements).map_err(text)?;
        let (Some(first), Some(last)) = (self.elements.first(), self.elements.last()) else {
            return Ok(());
        };
        if self.picture.is_some() {
            // It has no place yet.
            self.pad.set_property("alpha", 0.0);
            self.pad
                .set_property_from_str("sizing-policy", "keep-aspect-ratio");
            self.pad
                .set_property("max-last-buffer-repeat", KEPT.nseconds());
            let target = self.pad.downgrade();
            last.connect_pad_added(move |_, decoded| {
                let linked = target.upgrade().map(|target| decoded.link(&target));
                if let Some(Err(error)) = linked {
                    gst::warning!(CAT, obj = decoded, "a picture can't be mixed: {error}");
                }
            });
        } else {
            let out = last.static_pad("src").ok_or("audioresample has no pad")?;
            out.link(&self.pad).map_err(|e| e.to_string())?;
        }
        for element in self.elements.iter().rev() {
            element.sync_state_with_parent().map_err(text)?;
        }
        let target = first.static_pad("sink").ok_or("a queue has no pad")?;
        source.link(&target).map_err(|e| e.to_string())?;
        Ok(())
    }

    pub(super) fn remove(&self, bin: &gst::Bin) {
        // Whatever waits for the mixer waits no longer.
        let first = self.elements.first().and_then(|e| e.static_pad("sink"));
        if let Some(first) = first {
            first.send_event(gst::event::FlushStart::new());
        }
        for element in &self.elements {
            crate::sink::take_out(bin, element);
        }
        self.mixer.release_request_pad(&self.pad);
    }
}
