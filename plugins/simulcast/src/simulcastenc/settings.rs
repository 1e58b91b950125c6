// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use sfu_elements::layers::Layers;

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
    #[enum_value(name = "H.265", nick = "h265")]
    H265,
    #[enum_value(name = "AV1", nick = "av1")]
    Av1,
}

impl Codec {
    pub(super) fn nick(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Vp8 => "vp8",
            Self::H265 => "h265",
            Self::Av1 => "av1",
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::H264 => "video/x-h264",
            Self::Vp8 => "video/x-vp8",
            Self::H265 => "video/x-h265",
            Self::Av1 => "video/x-av1",
        }
    }

    /// What comes out. Of H.264 and H.265 length-prefixed first: as a byte stream every frame would get a delimiter.
    pub(super) fn encoded(self) -> gst::Caps {
        let caps = gst::Caps::builder(self.media_type());
        let (formats, alignment) = match self {
            Self::H264 => (vec!["avc", "byte-stream"], "au"),
            Self::H265 => (vec!["hvc1", "byte-stream"], "au"),
            Self::Av1 => (vec!["obu-stream"], "tu"),
            Self::Vp8 => return caps.build(),
        };
        caps.field("stream-format", gst::List::new(formats))
            .field("alignment", alignment)
            .build()
    }
}

sfu_elements::deinterlacing!("GstSimulcastEncDeinterlace", "GstSimulcastEncFields", "");

impl Deinterlace {
    /// As the element `deinterlace` calls it.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::All => "interlaced",
            Self::Off => "disabled",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) layers: Layers,
    /// Why the last value of `layers` was refused: nothing is started that was not asked for.
    pub(super) refused: Option<String>,
    pub(super) codec: Codec,
    pub(super) encoder: Option<String>,
    pub(super) encoder_properties: Option<gst::Structure>,
    pub(super) deinterlace: Deinterlace,
    pub(super) deinterlace_fields: Fields,
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
            layers: Layers::default(),
            refused: None,
            codec: Codec::default(),
            encoder: None,
            encoder_properties: None,
            deinterlace: Deinterlace::default(),
            deinterlace_fields: Fields::default(),
            keyframe_interval_ms: 2_000,
            temporal_layers: 1,
            speed: Speed::default(),
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let layers = Layers::default().to_string();
    let [deinterlace, fields] = deinterlacing(defaults.deinterlace, defaults.deinterlace_fields);
    vec![
        glib::ParamSpecString::builder("layers")
            .nick("Layers")
            .blurb("Layers as HEIGHT:BITRATE@FPS,… in lines, bit/s (k and M multiply) and, if not all, frames a second, highest first")
            .default_value(Some(layers.as_str()))
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("codec", defaults.codec)
            .nick("Codec")
            .blurb("What to encode to")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("encoder")
            .nick("Encoder")
            .blurb("Factory name of the encoder to use (unset: the best one installed, hardware first, as GST_PLUGIN_FEATURE_RANK has it)")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("encoder-properties")
            .nick("Encoder properties")
            .blurb("Properties of the encoders, as props,bframes=0,layer-1=[props,speed-preset=faster],x264enc=[props,threads=2]: of all, of a layer, of a factory")
            .mutable_ready()
            .build(),
        deinterlace,
        fields,
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
            .blurb("frames-in, frames-broken (smaller than their caps say, left out), and for each layer encoder, width, height, bitrate (bit/s), frames-encoded, frames-dropped, frames-thinned (by @FPS), keyframes")
            .read_only()
            .build(),
    ]
});
