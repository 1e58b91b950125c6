// SPDX-License-Identifier: MPL-2.0

//! Which encoders there are, best first, and what makes each one fast to answer.
//!
//! A property is set only where the installed version has it, so that an older or newer plugin doesn't matter.

use gst::prelude::*;

use super::CAT;
use super::settings::{Codec, Speed};
use super::temporal;

/// What an encoder is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Bit/s.
    pub(super) bitrate: u32,
    /// The longest distance between keyframes, in frames. The element forces them earlier than that.
    pub(super) max_distance: u32,
    pub(super) speed: Speed,
    /// 1 where there is no choice of frame rates.
    pub(super) temporal_layers: u32,
}

struct Choice {
    factory: &'static str,
    codec: Codec,
    configure: fn(&gst::Element, &Wanted),
}

const fn choice(
    factory: &'static str,
    codec: Codec,
    configure: fn(&gst::Element, &Wanted),
) -> Choice {
    Choice {
        factory,
        codec,
        configure,
    }
}

/// The one that makes temporal layers.
const WITH_TEMPORAL_LAYERS: &str = "vp8enc";

/// Hardware first: it leaves the CPU to the viewers.
const CHOICES: &[Choice] = &[
    choice("nvh264enc", Codec::H264, nvidia),
    choice("qsvh264enc", Codec::H264, quick_sync),
    choice("vah264enc", Codec::H264, va),
    choice("vah264lpenc", Codec::H264, va),
    choice("vaapih264enc", Codec::H264, vaapi),
    choice("amfh264enc", Codec::H264, amf),
    choice("v4l2h264enc", Codec::H264, v4l2),
    choice("x264enc", Codec::H264, x264),
    choice("openh264enc", Codec::H264, openh264),
    choice("vavp8enc", Codec::Vp8, va),
    choice("vaapivp8enc", Codec::Vp8, vaapi),
    choice("vp8enc", Codec::Vp8, vp8),
];

/// An encoder that starts, set up; `forced` is a factory name that the user insists on.
pub(super) fn make(
    codec: Codec,
    forced: Option<&str>,
    wanted: &Wanted,
) -> Result<gst::Element, String> {
    let forced = match forced {
        None if wanted.temporal_layers > 1 => Some(WITH_TEMPORAL_LAYERS),
        forced => forced,
    };
    if wanted.temporal_layers > 1 && (codec, forced) != (Codec::Vp8, Some(WITH_TEMPORAL_LAYERS)) {
        return Err(format!(
            "temporal-layers={} needs codec=vp8, and no other encoder than {WITH_TEMPORAL_LAYERS}; set temporal-layers=1 \
             for others",
            wanted.temporal_layers
        ));
    }
    match forced {
        Some(factory) => make_this(factory, codec, wanted),
        None => make_best(codec, wanted),
    }
}

fn make_this(factory: &str, codec: Codec, wanted: &Wanted) -> Result<gst::Element, String> {
    let known = CHOICES.iter().find(|c| c.factory == factory);
    let Some(choice) = known else {
        let names = names(None).join(", ");
        return Err(format!(
            "encoder {factory:?} is not known here; set encoder to one of {names}, or leave it unset"
        ));
    };
    if choice.codec != codec {
        return Err(format!(
            "encoder {factory:?} does not encode codec={}",
            nick(codec)
        ));
    }
    start(choice, wanted)
        .ok_or_else(|| format!("encoder {factory:?} is not installed, or its device is missing"))
}

fn make_best(codec: Codec, wanted: &Wanted) -> Result<gst::Element, String> {
    let of_codec = CHOICES.iter().filter(|c| c.codec == codec);
    of_codec
        .into_iter()
        .find_map(|c| start(c, wanted))
        .ok_or_else(|| {
            let package = match codec {
                Codec::H264 => {
                    "gstreamer1.0-plugins-ugly (x264enc) or gstreamer1.0-plugins-bad (openh264enc)"
                }
                Codec::Vp8 => "gstreamer1.0-plugins-good (vp8enc)",
            };
            let tried = names(Some(codec)).join(", ");
            format!(
                "no encoder for codec={} was found (tried {tried}): install {package}",
                nick(codec)
            )
        })
}

fn names(codec: Option<Codec>) -> Vec<&'static str> {
    let wanted = CHOICES
        .iter()
        .filter(|c| codec.is_none_or(|codec| c.codec == codec));
    wanted.map(|c| c.factory).collect()
}

fn nick(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::Vp8 => "vp8",
    }
}

/// Only an encoder that reaches READY counts as there: a factory may be installed without its device.
fn start(choice: &Choice, wanted: &Wanted) -> Option<gst::Element> {
    let encoder = gst::ElementFactory::find(choice.factory)?
        .create()
        .build()
        .ok()?;
    (choice.configure)(&encoder, wanted);
    let ready = encoder.set_state(gst::State::Ready).is_ok();
    // Back to NULL: the bin takes it up with everything else.
    let back = encoder.set_state(gst::State::Null).is_ok();
    if !(ready && back) {
        gst::info!(CAT, "{} is installed but does not start", choice.factory);
        return None;
    }
    Some(encoder)
}

fn set(encoder: &gst::Element, properties: &[(&str, &str)]) {
    for (name, value) in properties {
        let Some(spec) = encoder.find_property(name) else {
            gst::debug!(CAT, obj = encoder, "has no property {name}");
            continue;
        };
        match glib::Value::deserialize_with_pspec(value, &spec) {
            Ok(value) => encoder.set_property_from_value(name, &value),
            Err(_) => gst::warning!(CAT, obj = encoder, "property {name} does not take {value}"),
        }
    }
}

fn kilobits(wanted: &Wanted) -> String {
    (wanted.bitrate / 1_000).to_string()
}

fn x264(encoder: &gst::Element, wanted: &Wanted) {
    let speed = match wanted.speed {
        Speed::Ultrafast => "ultrafast",
        Speed::Superfast => "superfast",
        Speed::Veryfast => "veryfast",
        Speed::Faster => "faster",
    };
    set(
        encoder,
        &[
            ("tune", "zerolatency"),
            ("speed-preset", speed),
            ("bitrate", &kilobits(wanted)),
            ("vbv-buf-capacity", "500"),
            ("key-int-max", &wanted.max_distance.to_string()),
            ("bframes", "0"),
            ("b-adapt", "false"),
            ("rc-lookahead", "0"),
            ("aud", "false"),
            // Scene cuts would put keyframes on one layer and not on the others.
            ("option-string", "scenecut=0:open-gop=0:repeat-headers=1"),
        ],
    );
}

fn openh264(encoder: &gst::Element, wanted: &Wanted) {
    let complexity = match wanted.speed {
        Speed::Ultrafast | Speed::Superfast => "low",
        Speed::Veryfast => "medium",
        Speed::Faster => "high",
    };
    set(
        encoder,
        &[
            ("bitrate", &wanted.bitrate.to_string()),
            ("max-bitrate", &(wanted.bitrate / 4 * 5).to_string()),
            ("rate-control", "bitrate"),
            ("gop-size", &wanted.max_distance.to_string()),
            ("complexity", complexity),
            ("scene-change-detection", "false"),
            ("enable-frame-skip", "false"),
        ],
    );
}

fn vp8(encoder: &gst::Element, wanted: &Wanted) {
    let cpu_used = match wanted.speed {
        Speed::Ultrafast => "12",
        Speed::Superfast => "8",
        Speed::Veryfast => "6",
        Speed::Faster => "4",
    };
    set(
        encoder,
        &[
            ("deadline", "1"),
            ("cpu-used", cpu_used),
            ("target-bitrate", &wanted.bitrate.to_string()),
            ("end-usage", "cbr"),
            ("lag-in-frames", "0"),
            ("auto-alt-ref", "false"),
            ("keyframe-max-dist", &wanted.max_distance.to_string()),
            ("error-resilient", "default"),
            ("buffer-size", "1000"),
            ("buffer-initial-size", "300"),
            ("buffer-optimal-size", "500"),
            ("undershoot", "95"),
            ("min-quantizer", "4"),
            ("max-quantizer", "56"),
            ("static-threshold", "1"),
            ("threads", "2"),
        ],
    );
    if let Err(reason) = temporal::set(encoder, wanted.temporal_layers, wanted.bitrate) {
        gst::warning!(CAT, obj = encoder, "no temporal layers: {reason}");
    }
}

fn nvidia(encoder: &gst::Element, wanted: &Wanted) {
    set(
        encoder,
        &[
            ("preset", "low-latency-hq"),
            ("zerolatency", "true"),
            ("rc-mode", "cbr"),
            ("bitrate", &kilobits(wanted)),
            ("vbv-buffer-size", &(wanted.bitrate / 2_000).to_string()),
            ("gop-size", &wanted.max_distance.to_string()),
            ("bframes", "0"),
            ("rc-lookahead", "0"),
            ("aud", "false"),
        ],
    );
}

fn va(encoder: &gst::Element, wanted: &Wanted) {
    set(
        encoder,
        &[
            ("rate-control", "cbr"),
            ("bitrate", &kilobits(wanted)),
            ("cpb-size", &(wanted.bitrate / 2_000).to_string()),
            ("key-int-max", &wanted.max_distance.to_string()),
            ("b-frames", "0"),
            ("ref-frames", "1"),
            ("target-usage", "6"),
            ("aud", "false"),
        ],
    );
}

fn vaapi(encoder: &gst::Element, wanted: &Wanted) {
    set(
        encoder,
        &[
            ("rate-control", "cbr"),
            ("bitrate", &kilobits(wanted)),
            ("cpb-length", "500"),
            ("keyframe-period", &wanted.max_distance.to_string()),
            ("max-bframes", "0"),
            ("quality-level", "7"),
            ("aud", "false"),
        ],
    );
}

fn quick_sync(encoder: &gst::Element, wanted: &Wanted) {
    set(
        encoder,
        &[
            ("low-latency", "true"),
            ("rate-control", "cbr"),
            ("bitrate", &kilobits(wanted)),
            ("gop-size", &wanted.max_distance.to_string()),
            ("b-frames", "0"),
            ("ref-frames", "1"),
            ("target-usage", "7"),
        ],
    );
}

fn amf(encoder: &gst::Element, wanted: &Wanted) {
    set(
        encoder,
        &[
            ("usage", "ultra-low-latency"),
            ("rate-control", "cbr"),
            ("bitrate", &kilobits(wanted)),
            ("gop-size", &wanted.max_distance.to_string()),
            ("b-frames", "0"),
            ("aud", "false"),
        ],
    );
}

fn v4l2(encoder: &gst::Element, wanted: &Wanted) {
    let controls = format!(
        "controls,video_bitrate={},video_bitrate_mode=1,h264_i_frame_period={},video_b_frames=0,repeat_sequence_header=1",
        wanted.bitrate, wanted.max_distance
    );
    set(encoder, &[("extra-controls", &controls)]);
}
