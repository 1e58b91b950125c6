// SPDX-License-Identifier: MPL-2.0
//! The two pads: each an `appsrc` behind a ghost pad, there from the beginning and for all publishers.

use std::sync::atomic::AtomicU64;
use std::sync::{LazyLock, OnceLock};

use gst::prelude::*;

use super::decoder::{self, Decoder};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Video,
    Audio,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Video, Self::Audio];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

pub(super) static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
    let template = |kind: Kind| {
        let (source, always) = (gst::PadDirection::Src, gst::PadPresence::Always);
        gst::PadTemplate::new(kind.name(), source, always, &caps(kind)).ok()
    };
    Kind::ALL.into_iter().filter_map(template).collect()
});

fn caps(kind: Kind) -> gst::Caps {
    match kind {
        Kind::Video => [
            gst::Structure::builder("video/x-h264")
                .field("stream-format", "avc")
                .field("alignment", "au")
                .build(),
            gst::Structure::builder("video/x-h265")
                .field("stream-format", "hvc1")
                .field("alignment", "au")
                .build(),
            gst::Structure::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu")
                .build(),
        ]
        .into_iter()
        .collect(),
        Kind::Audio => [
            gst::Structure::builder("audio/mpeg")
                .field("mpegversion", 4i32)
                .field("stream-format", "raw")
                .build(),
            gst::Structure::builder("audio/x-opus")
                .field("channel-mapping-family", 0i32)
                .field("channels", gst::IntRange::new(1, 2))
                .build(),
            gst::Structure::builder("audio/mpeg")
                .field("mpegversion", 1i32)
                .field("layer", 3i32)
                .build(),
            // With decode-audio.
            gst::Structure::new_empty("audio/x-raw"),
        ]
        .into_iter()
        .collect(),
    }
}

/// One of the pads, and what feeds it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) kind: Kind,
    pub(super) pad: gst::GhostPad,
    pub(super) source: gst_app::AppSrc,
    /// How far its timestamps have got, in running time.
    pub(super) floor: AtomicU64,
    /// There from when it was wanted first.
    decoder: OnceLock<Decoder>,
}

impl Output {
    pub(super) fn new(kind: Kind) -> Self {
        let source = gst_app::AppSrc::builder()
            .name(format!("rtmp-{}", kind.name()))
            .format(gst::Format::Time)
            .is_live(true)
            // `feed.rs` sees to it that nothing piles up: it knows what can be left out.
            .max_bytes(0)
            .max_buffers(0)
            .build();
        let template = TEMPLATES.iter().find(|t| t.name_template() == kind.name());
        let pad = match template {
            Some(template) => gst::GhostPad::builder_from_template(template),
            None => gst::GhostPad::builder(gst::PadDirection::Src),
        };
        Self {
            kind,
            pad: pad.name(kind.name()).build(),
            source,
            floor: AtomicU64::new(0),
            decoder: OnceLock::new(),
        }
    }

    /// Puts it into the element.
    pub(super) fn install(&self, bin: &gst::Bin) -> Result<(), glib::BoolError> {
        bin.add(&self.source)?;
        let inner = self
            .source
            .static_pad("src")
            .ok_or_else(|| glib::bool_error!("appsrc has no pad"))?;
        self.pad.set_target(Some(&inner))?;
        // A pad that nobody wants is no error, and may be linked later.
        let ghost = self.pad.downgrade();
        inner.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            match ghost.upgrade().is_some_and(|pad| pad.is_linked()) {
                true => gst::PadProbeReturn::Ok,
                false => gst::PadProbeReturn::Drop,
            }
        });
        bin.add_pad(&self.pad)
    }

    /// Nothing more comes. From 1.24 on an `appsrc` keeps an event back until it has had caps, which may never be.
    pub(super) fn end(&self, eos: &gst::Event) -> bool {
        let begun = self.source.static_pad("src");
        match begun.is_some_and(|pad| pad.has_current_caps()) {
            true => self.source.send_event(eos.clone()),
            false => self.source.end_of_stream().is_ok(),
        }
    }

    /// Puts a decoder behind the source, or takes it out again. While nothing flows.
    pub(super) fn set_decoded(&self, bin: &gst::Bin, decoded: bool) -> Result<(), glib::BoolError> {
        if self.decoder().is_some() == decoded {
            return Ok(());
        }
        self.pad.set_target(None::<&gst::Pad>)?;
        let end = if decoded {
            if self.decoder.get().is_none() {
                let _ = self.decoder.set(Decoder::new()?);
            }
            let decoder = self.decoder.get().map(|decoder| &decoder.bin);
            let decoder = decoder.ok_or_else(|| glib::bool_error!("there is no decoder"))?;
            bin.add(decoder)?;
            self.source.link(decoder)?;
            decoder.static_pad("src")
        } else {
            if let Some(decoder) = self.decoder() {
                self.source.unlink(&decoder.bin);
                let _ = decoder.bin.set_state(gst::State::Null);
                bin.remove(&decoder.bin)?;
            }
            self.source.static_pad("src")
        };
        self.pad.set_target(end.as_ref())
    }

    /// What is behind the source.
    pub(super) fn decoder(&self) -> Option<&Decoder> {
        let decoder = self.decoder.get();
        decoder.filter(|decoder| decoder.bin.parent().is_some())
    }

    /// Whether what is linked here can do with these caps.
    pub(super) fn takes(&self, caps: &gst::Caps) -> bool {
        match self.decoder() {
            _ if !self.pad.is_linked() => true,
            Some(_) => decoder::decodes(caps),
            None => !self.pad.peer_query_caps(Some(caps)).is_empty(),
        }
    }
}
