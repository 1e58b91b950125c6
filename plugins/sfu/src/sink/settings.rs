// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;

use sfu_elements::layers::Layers;

use super::audio::MixMatrix;
use crate::properties::{live_number, number, text};

/// To what raw video is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSfuSinkCodec")]
#[repr(u32)]
pub(crate) enum Codec {
    #[default]
    #[enum_value(name = "H.264, constrained baseline profile", nick = "h264")]
    H264,
    #[enum_value(name = "VP8", nick = "vp8")]
    Vp8,
    #[enum_value(name = "H.265, for viewers who know it", nick = "h265")]
    H265,
    #[enum_value(name = "AV1, for viewers who know it", nick = "av1")]
    Av1,
}

impl Codec {
    pub(super) fn nick(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::Vp8 => "vp8",
            Codec::H265 => "h265",
            Codec::Av1 => "av1",
        }
    }

    /// As the router has it.
    pub(super) fn engine(self) -> sfu_engine::Codec {
        match self {
            Codec::H264 => sfu_engine::Codec::H264,
            Codec::Vp8 => sfu_engine::Codec::Vp8,
            Codec::H265 => sfu_engine::Codec::H265,
            Codec::Av1 => sfu_engine::Codec::Av1,
        }
    }
}

/// What becomes of video that comes encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSfuSinkEncode")]
#[repr(u32)]
pub(crate) enum Encode {
    #[default]
    #[enum_value(
        name = "It goes on as it is, unless browsers could not show it (B-frames, no keyframes, 10 bits) or no payloader is there: then it is encoded anew to the layers",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "It is encoded anew to the layers", nick = "always")]
    Always,
    #[enum_value(name = "It goes on as it is", nick = "never")]
    Never,
}

sfu_elements::deinterlacing!(
    "GstSfuSinkDeinterlace",
    "GstSfuSinkFields",
    "Video that is encoded here: "
);

impl Deinterlace {
    pub(super) fn nick(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::All => "all",
            Self::Off => "off",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) stream: String,
    pub(super) router: String,
    pub(super) layers: Layers,
    /// Why the last value of `layers` was refused: nothing is started that was not asked for.
    pub(super) refused: Option<String>,
    pub(super) encode: Encode,
    pub(super) codec: Codec,
    pub(super) encoder: Option<String>,
    pub(super) encoder_properties: Option<gst::Structure>,
    pub(super) deinterlace: Deinterlace,
    pub(super) deinterlace_fields: Fields,
    pub(super) keyframe_interval_ms: u32,
    pub(super) temporal_layers: u32,
    pub(super) keyframe_min_interval_ms: u32,
    pub(super) audio_bitrate: u32,
    pub(super) mix_matrix: MixMatrix,
}

impl Settings {
    pub(super) fn keyframe_min_interval(&self) -> Duration {
        Duration::from_millis(self.keyframe_min_interval_ms.into())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream: "live".into(),
            router: "default".into(),
            layers: Layers::default(),
            refused: None,
            encode: Encode::default(),
            codec: Codec::default(),
            encoder: None,
            encoder_properties: None,
            deinterlace: Deinterlace::default(),
            deinterlace_fields: Fields::default(),
            keyframe_interval_ms: 2_000,
            temporal_layers: 1,
            keyframe_min_interval_ms: 500,
            audio_bitrate: 96_000,
            mix_matrix: MixMatrix::default(),
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let [deinterlace, fields] = deinterlacing(defaults.deinterlace, defaults.deinterlace_fields);
    vec![
        text(
            "stream",
            "Stream",
            "Name to publish under: parts of A-Z a-z 0-9 . _ - joined by /",
            &defaults.stream,
        ),
        text(
            "router",
            "Router",
            "Name of the process-wide router to publish to",
            &defaults.router,
        ),
        glib::ParamSpecString::builder("layers")
            .nick("Layers")
            .blurb("Video that is encoded here: layers as HEIGHT:BITRATE@FPS,… in lines, bit/s (k and M multiply) and, if not all, frames a second")
            .default_value(Some(defaults.layers.to_string().as_str()))
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("encode", defaults.encode)
            .nick("Encode")
            .blurb("Video that comes encoded, on the only video pad: whether it is encoded anew")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("codec", defaults.codec)
            .nick("Codec")
            .blurb("Video that is encoded here: what to encode to")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("encoder")
            .nick("Encoder")
            .blurb("Video that is encoded here: factory name of the encoder (unset: the best one installed)")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("encoder-properties")
            .nick("Encoder properties")
            .blurb("Video that is encoded here: properties of the encoders, as props,bframes=0,layer-1=[props,speed-preset=faster],x264enc=[props,threads=2]: of all, of a layer, of a factory")
            .mutable_ready()
            .build(),
        deinterlace,
        fields,
        number(
            "keyframe-interval",
            "Keyframe interval",
            "Video that is encoded here: time between the keyframes that all layers have in common, in ms",
            100..=60_000,
            defaults.keyframe_interval_ms,
        ),
        number(
            "temporal-layers",
            "Temporal layers",
            "Video that is encoded here, with codec=vp8: frame rates that each layer can be had in, each half of the next",
            1..=3,
            defaults.temporal_layers,
        ),
        number(
            "keyframe-min-interval",
            "Minimum keyframe interval",
            "Shortest time between two keyframe requests upstream for one layer, in ms",
            100..=60_000,
            defaults.keyframe_min_interval_ms,
        ),
        live_number(
            "audio-bitrate",
            "Audio bitrate",
            "Raw audio only: bitrate of the Opus stream, in bit/s",
            6_000..=510_000,
            defaults.audio_bitrate,
        ),
        gst::ParamSpecArray::builder("mix-matrix")
            .nick("Mix matrix")
            .blurb("Raw audio only: for each of 1 or 2 output channels the shares of the input channels, as <<0.0,0.0,1.0>,<0.0,1.0,0.0>> (empty: by their positions, or the first two of channels without)")
            .element_spec(
                &gst::ParamSpecArray::builder("row")
                    .nick("Row")
                    .blurb("Shares of the input channels")
                    .element_spec(
                        &glib::ParamSpecFloat::builder("share")
                            .nick("Share")
                            .blurb("Factor of an input channel")
                            .minimum(f32::MIN)
                            .maximum(f32::MAX)
                            .build(),
                    )
                    .build(),
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("viewers")
            .nick("Viewers")
            .blurb("Viewers' sessions of this stream")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("viewers, packets, bytes, timestamp-steps (forward or back, made up for), pictures-out-of-order (of B-frames that came encoded), encoded-anew (whether what comes encoded is), keyframe-requests-received, keyframe-requests-refused, keyframe-requests-merged, keyframe-requests-sent, and for each layer rid, width, height, bitrate (bit/s), active")
            .read_only()
            .build(),
    ]
});
