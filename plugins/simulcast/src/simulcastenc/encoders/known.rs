// SPDX-License-Identifier: MPL-2.0

//! The encoders that are known, best first, and what makes each one fast to answer.
//!
//! A property is set only where the installed version has it, so that an older or newer plugin doesn't matter.

use gst::prelude::*;

use super::super::CAT;
use super::super::settings::{Codec, Speed};
use super::super::temporal;
use super::Wanted;

/// An encoder that is known.
pub(super) struct Known {
    pub(super) factory: &'static str,
    pub(super) codec: Codec,
    pub(super) configure: fn(&gst::Element, &Wanted),
    /// Ranks that it has had in GStreamer's versions: another one was set by the user.
    pub(super) stock: &'static [i32],
}

const fn known(
    factory: &'static str,
    codec: Codec,
    configure: fn(&gst::Element, &Wanted),
    stock: &'static [i32],
) -> Known {
    Known {
        factory,
        codec,
        configure,
        stock,
    }
}

/// As `GstRank` has them.
const NONE: i32 = 0;
const MARGINAL: i32 = 64;
const SECONDARY: i32 = 128;
const PRIMARY: i32 = 256;
/// Of the VA, Quick Sync and AMF encoders.
const NEW: &[i32] = &[NONE, MARGINAL, PRIMARY, PRIMARY + 1, PRIMARY + 2];

/// Hardware first: it leaves the CPU to the viewers.
pub(super) const KNOWN: &[Known] = &[
    known("nvh264enc", Codec::H264, nvidia, NEW),
    known("qsvh264enc", Codec::H264, quick_sync, NEW),
    known("vah264enc", Codec::H264, va, NEW),
    known("vah264lpenc", Codec::H264, va, NEW),
    known("vaapih264enc", Codec::H264, vaapi, NEW),
    known("amfh264enc", Codec::H264, amf, NEW),
    known("v4l2h264enc", Codec::H264, v4l2, NEW),
    known("x264enc", Codec::H264, x264, &[PRIMARY]),
    known("openh264enc", Codec::H264, openh264, &[NONE, MARGINAL]),
    known("vavp8enc", Codec::Vp8, va, NEW),
    known("vaapivp8enc", Codec::Vp8, vaapi, NEW),
    known("vp8enc", Codec::Vp8, vp8, &[PRIMARY]),
    known("nvh265enc", Codec::H265, nvidia, NEW),
    known("qsvh265enc", Codec::H265, quick_sync, NEW),
    known("vah265enc", Codec::H265, va, NEW),
    known("vah265lpenc", Codec::H265, va, NEW),
    known("vaapih265enc", Codec::H265, vaapi, NEW),
    known("amfh265enc", Codec::H265, amf, NEW),
    known("x265enc", Codec::H265, x265, &[PRIMARY]),
    known("nvav1enc", Codec::Av1, nvidia, NEW),
    known("qsvav1enc", Codec::Av1, quick_sync, NEW),
    known("vaav1enc", Codec::Av1, va, NEW),
    known("amfav1enc", Codec::Av1, amf, NEW),
    known(
        "svtav1enc",
        Codec::Av1,
        svtav1,
        &[MARGINAL, SECONDARY, PRIMARY],
    ),
    known("av1enc", Codec::Av1, av1, &[PRIMARY]),
    known("rav1enc", Codec::Av1, rav1, &[MARGINAL, PRIMARY]),
];

pub(super) fn set(encoder: &gst::Element, properties: &[(&str, &str)]) {
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

/// One that is not known: what encoders usually call it.
pub(super) fn unknown(encoder: &gst::Element, wanted: &Wanted) {
    let distance = wanted.max_distance.to_string();
    set_bitrate(encoder, wanted);
    for name in ["bframes", "b-frames", "max-bframes"] {
        set(encoder, &[(name, "0")]);
    }
    for name in [
        "gop-size",
        "key-int-max",
        "keyframe-max-dist",
        "keyframe-period",
    ] {
        set(encoder, &[(name, &distance)]);
    }
}

/// Sets the bitrate alone, by whatever name and unit it has there. Returns false where it can't change while playing.
pub(super) fn set_bitrate(encoder: &gst::Element, wanted: &Wanted) -> bool {
    let name = ["target-bitrate", "bitrate"]
        .into_iter()
        .find(|name| encoder.find_property(name).is_some());
    let Some((name, spec)) = name.and_then(|name| Some((name, encoder.find_property(name)?)))
    else {
        return false;
    };
    let blurb = spec.blurb().unwrap_or_default().to_lowercase();
    let in_kilobits = ["kbit", "kilobit", "kb/s", "kbps"];
    let value = if in_kilobits.iter().any(|unit| blurb.contains(unit)) {
        kilobits(wanted)
    } else {
        wanted.bitrate.to_string()
    };
    let factory = encoder.factory();
    // Its flags don't tell.
    let is_vpx = factory.is_some_and(|factory| factory.name() == "vp8enc");
    let changes = is_vpx || spec.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING);
    if !changes && encoder.current_state() > gst::State::Ready {
        return false;
    }
    if encoder.find_property("max-bitrate").is_some() && name == "bitrate" {
        // The lower one of the two must never be above the other.
        let raised = (u64::from(wanted.bitrate) * 5 / 4)
            .min(u64::from(u32::MAX))
            .to_string();
        set(
            encoder,
            &[
                ("max-bitrate", &raised),
                ("bitrate", &value),
                ("max-bitrate", &raised),
            ],
        );
        return true;
    }
    set(encoder, &[(name, &value)]);
    true
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
            // Whatever comes, the bitrate is kept: without it noise came at 3,481 kbit/s instead of 300.
            ("enable-frame-skip", "true"),
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
            ("overshoot", "15"),
            ("min-quantizer", "4"),
            // Whatever comes, the bitrate is kept: coarse pictures first, then fewer. With 56 and all frames noise came at
            // 1,754 kbit/s instead of 300.
            ("max-quantizer", "63"),
            ("dropframe-threshold", "30"),
            ("max-intra-bitrate", "300"),
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

fn x265(encoder: &gst::Element, wanted: &Wanted) {
    let speed = match wanted.speed {
        Speed::Ultrafast | Speed::Superfast => "ultrafast",
        Speed::Veryfast => "superfast",
        Speed::Faster => "veryfast",
    };
    let kbit = wanted.bitrate / 1_000;
    let options = format!(
        "bframes=0:scenecut=0:rc-lookahead=0:open-gop=0:repeat-headers=1:aud=0:vbv-maxrate={kbit}:vbv-bufsize={}",
        kbit / 2
    );
    set(
        encoder,
        &[
            ("tune", "zerolatency"),
            ("speed-preset", speed),
            ("bitrate", &kbit.to_string()),
            ("key-int-max", &wanted.max_distance.to_string()),
            ("option-string", &options),
        ],
    );
}

fn av1(encoder: &gst::Element, wanted: &Wanted) {
    let cpu_used = match wanted.speed {
        Speed::Ultrafast => "10",
        Speed::Superfast => "9",
        Speed::Veryfast => "8",
        Speed::Faster => "7",
    };
    set(
        encoder,
        &[
            ("usage-profile", "realtime"),
            ("end-usage", "cbr"),
            ("cpu-used", cpu_used),
            ("target-bitrate", &kilobits(wanted)),
            ("lag-in-frames", "0"),
            ("keyframe-max-dist", &wanted.max_distance.to_string()),
            ("buf-sz", "1000"),
            ("buf-initial-sz", "300"),
            ("buf-optimal-sz", "500"),
            ("min-quantizer", "4"),
            ("max-quantizer", "63"),
            ("row-mt", "true"),
            ("threads", "2"),
        ],
    );
}

fn svtav1(encoder: &gst::Element, wanted: &Wanted) {
    let preset = match wanted.speed {
        Speed::Ultrafast | Speed::Superfast => "12",
        Speed::Veryfast => "11",
        Speed::Faster => "10",
    };
    set(
        encoder,
        &[
            ("preset", preset),
            ("target-bitrate", &kilobits(wanted)),
            ("intra-period-length", &wanted.max_distance.to_string()),
            // Low delay, at a constant bitrate.
            ("parameters-string", "pred-struct=1:rc=2:lookahead=0"),
        ],
    );
}

fn rav1(encoder: &gst::Element, wanted: &Wanted) {
    set(
        encoder,
        &[
            ("low-latency", "true"),
            ("speed-preset", "10"),
            ("bitrate", &wanted.bitrate.to_string()),
            ("max-key-frame-interval", &wanted.max_distance.to_string()),
            ("rdo-lookahead-frames", "1"),
        ],
    );
}
