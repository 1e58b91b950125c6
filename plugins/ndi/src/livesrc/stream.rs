// SPDX-License-Identifier: MPL-2.0
//! The part of a stream that stays from READY up: `fallbackswitch` with one input for the source
//! and one for the slate, and behind it, for audio, `audiorate`.

use std::sync::Arc;

use gst::prelude::*;

use super::pads;
use super::settings::Settings;
use super::shared::{Kind, Shared};

/// An element that is not installed.
#[derive(Debug)]
pub(super) struct Missing(pub(super) &'static str);

/// Why a part can't be put in.
#[derive(Debug)]
pub(super) enum Failure {
    Missing(Missing),
    /// What is there did not go together, now.
    Refused(glib::BoolError),
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl From<glib::BoolError> for Failure {
    fn from(error: glib::BoolError) -> Self {
        Self::Refused(error)
    }
}

impl Missing {
    /// What to install, for the user.
    fn advice(&self) -> &'static str {
        match self.0 {
            "ndisrc" | "ndisrcdemux" => {
                "Install libgstndi.so (gst-plugin-ndi of gst-plugins-rs) where GST_PLUGIN_PATH finds it."
            }
            "fallbackswitch" => {
                "Install libgstfallbackswitch.so (gst-plugin-fallbackswitch of gst-plugins-rs) where GST_PLUGIN_PATH finds it."
            }
            "imagefreeze" | "deinterlace" => {
                "Install GStreamer's good plugins (Debian: gstreamer1.0-plugins-good)."
            }
            _ => "Install GStreamer's base plugins (Debian: gstreamer1.0-plugins-base).",
        }
    }

    /// Posts it as the error of `bin`.
    pub(super) fn report(&self, bin: &super::NdiLiveSrc) {
        gst::element_error!(
            bin,
            gst::CoreError::MissingPlugin,
            ("The element {} is missing. {}", self.0, self.advice())
        );
    }
}

/// Makes an element.
pub(super) fn make(factory: &'static str, name: &str) -> Result<gst::Element, Missing> {
    gst::ElementFactory::make(factory)
        .name(name)
        .build()
        .map_err(|_| Missing(factory))
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) kind: Kind,
    elements: Vec<gst::Element>,
    /// The switch's input for the source.
    pub(super) source: gst::Pad,
    /// The switch's input for the slate.
    pub(super) slate: gst::Pad,
    pub(super) ghost: gst::GhostPad,
}

impl Stream {
    pub(super) fn new(
        bin: &gst::Bin,
        kind: Kind,
        ghost: &gst::GhostPad,
        shared: &Arc<Shared>,
    ) -> Result<Self, Missing> {
        let name = kind.name();
        let switch = make("fallbackswitch", &format!("{name}-switch"))?;
        switch.set_property("immediate-fallback", true);
        let mut elements = vec![switch.clone()];
        if kind == Kind::Audio {
            // Fills the moment between the last sound and the first silence, so that the samples
            // run on without a hole.
            let rate = make("audiorate", "audio-rate")?;
            rate.set_property("skip-to-first", true);
            elements.push(rate);
        }

        // The first pad asked for is the one of the highest priority.
        let pad = || {
            switch
                .request_pad_simple("sink_%u")
                .ok_or(Missing("fallbackswitch"))
        };
        let (source, slate) = (pad()?, pad()?);
        let output = switch.static_pad("src").ok_or(Missing("fallbackswitch"))?;

        let events = Arc::clone(shared);
        output.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
            pads::calm(kind, &events, pad, info)
        });
        let buffers = Arc::clone(shared);
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        source.add_probe(mask, move |_, info| {
            pads::watch_source(kind, &buffers, info)
        });

        let stream = Self {
            kind,
            elements,
            source,
            slate,
            ghost: ghost.clone(),
        };
        stream.add_to(bin)?;
        Ok(stream)
    }

    /// Before it starts: what is set in READY holds, too.
    pub(super) fn set_up(&self, settings: &Settings) {
        if let Some(switch) = self.elements.first() {
            switch.set_property("timeout", u64::from(settings.timeout) * 1_000_000);
        }
    }

    fn add_to(&self, bin: &gst::Bin) -> Result<(), Missing> {
        let missing = |_| Missing("fallbackswitch");
        bin.add_many(&self.elements).map_err(missing)?;
        gst::Element::link_many(&self.elements).map_err(missing)?;
        let last = self
            .elements
            .last()
            .and_then(|element| element.static_pad("src"));
        self.ghost.set_target(last.as_ref()).map_err(missing)
    }
}
