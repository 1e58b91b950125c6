// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::layers::Layers;

/// What is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSimulcastEncCodec")]
#[repr(u32)]
pub(crate) enum Codec {
    #[default]
    #[enum_value(name = "H.264, constrained baseline profile", nick = "h264")]
    H264,
    #[enum_value(name = "VP8", nick = "vp8")]
    Vp8,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Or why the last value was refused.
    pub(super) layers: Result<Layers, String>,
    pub(super) codec: Codec,
    pub(super) encoder: Option<String>,
    pub(super) keyframe_interval_ms: u32,
    pub(super) temporal_layers: u32,
    pub(super) speed: Speed,
}

/// How much CPU a software encoder may spend on a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSimulcastEncSpeed")]
#[repr(u32)]
pub(crate) enum Speed {
    #[enum_value(name = "Least CPU, lowest quality", nick = "ultrafast")]
    Ultrafast,
    #[default]
    #[enum_value(name = "Little CPU", nick = "superfast")]
    Superfast,
    #[enum_value(name = "About twice the CPU of superfast", nick = "veryfast")]
    Veryfast,
    #[enum_value(name = "Best quality for live video", nick = "faster")]
    Faster,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            layers: Ok(Layers::default()),
            codec: Codec::default(),
            encoder: None,
            keyframe_interval_ms: 2_000,
            temporal_layers: 1,
            speed: Speed::default(),
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let layers = Layers::default().to_string();
    vec![
        glib::ParamSpecString::builder("layers")
            .nick("Layers")
            .blurb("Layers as HEIGHT:BITRATE,… in lines and bit/s (k and M multiply), highest first")
            .default_value(Some(layers.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("codec", defaults.codec)
            .nick("Codec")
            .blurb("What to encode to")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("encoder")
            .nick("Encoder")
            .blurb("Factory name of the encoder to use (unset: the best one installed, hardware first)")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("keyframe-interval")
            .nick("Keyframe interval")
            .blurb("Time between the keyframes that all layers have in common, in ms")
            .minimum(100)
            .maximum(60_000)
            .default_value(defaults.keyframe_interval_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("temporal-layers")
            .nick("Temporal layers")
            .blurb("Frame rates that each layer can be had in, each half of the next; more than 1 with codec=vp8 only")
            .minimum(1)
            .maximum(3)
            .default_value(defaults.temporal_layers)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("speed", defaults.speed)
            .nick("Speed")
            .blurb("How much CPU a software encoder may spend")
            .mutable_ready()
            .build(),
        gst::ParamSpecArray::builder("encoders")
            .nick("Encoders")
            .blurb("Factory name of the encoder of each layer, highest first; empty in the NULL state")
            .element_spec(&glib::ParamSpecString::builder("encoder").build())
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("frames-in, and for each layer encoder, width, height, bitrate (bit/s), frames-encoded, frames-dropped, keyframes")
            .read_only()
            .build(),
    ]
});
