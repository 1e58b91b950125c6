// SPDX-License-Identifier: MPL-2.0

//! What a pad carries: its caps, parsed into what cannot be wrong, or refused with a reason.

use sfu_elements::mixer::MAX_CHANNELS;
use sfu_engine::{Codec, LayerInfo, Rid, TrackKind};

use super::branch::Work;
use super::settings::Settings;

/// How the media of a pad comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// To be encoded.
    Raw,
    /// To be payloaded.
    Encoded(Codec),
    /// To be sent as it is.
    Rtp(Codec),
}

/// What a pad carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Media {
    pub(super) form: Form,
    /// Picture size in pixels, where the caps tell.
    pub(super) size: Option<(u32, u32)>,
    /// H.264 comes by units, not by pictures.
    pub(super) in_units: bool,
}

const VIDEO: &str = "video/x-raw, video/x-h264, video/x-vp8, video/x-vp9, video/x-h265, video/x-av1, or application/x-rtp with encoding-name H264, VP8, VP9, H265 or AV1";
const AUDIO: &str = "audio/x-raw, audio/x-opus of one or two channels, or application/x-rtp with encoding-name OPUS";

/// The caps that a kind of pad takes. The formats that need no conversion come first, so that sources choose them.
pub(super) fn template_caps(kind: TrackKind) -> gst::Caps {
    let text = match kind {
        TrackKind::Video => {
            "video/x-raw, format=(string){ I420, NV12 }; video/x-raw; video/x-raw(ANY); \
             video/x-h264, stream-format=(string){ byte-stream, avc }; video/x-vp8; video/x-vp9; \
             video/x-h265, stream-format=(string){ byte-stream, hvc1, hev1 }; video/x-av1; \
             application/x-rtp, media=(string)video, clock-rate=(int)90000, encoding-name=(string){ H264, VP8, VP9, H265, AV1 }"
        }
        TrackKind::Audio => {
            "audio/x-raw; audio/x-opus; \
             application/x-rtp, media=(string)audio, clock-rate=(int)48000, encoding-name=(string){ OPUS, X-GST-OPUS-DRAFT-SPITTKA-00 }"
        }
    };
    // A constant: `templates_parse` in the tests keeps it right.
    text.parse().unwrap_or_else(|_| gst::Caps::new_any())
}

/// Reads a pad's caps, or says what else it takes.
pub(super) fn parse(kind: TrackKind, caps: &gst::CapsRef) -> Result<Media, String> {
    let expected = match kind {
        TrackKind::Video => VIDEO,
        TrackKind::Audio => AUDIO,
    };
    let structure = caps.structure(0).ok_or("the caps are empty")?;
    let refused = |why: &str| format!("{why}; this pad takes {expected}. Got {caps}");
    let form = match (kind, structure.name().as_str()) {
        (TrackKind::Video, "video/x-raw") => Form::Raw,
        (TrackKind::Audio, "audio/x-raw") => {
            let channels = structure.get::<i32>("channels").unwrap_or(1);
            if usize::try_from(channels).is_ok_and(|n| n > MAX_CHANNELS) {
                return Err(refused("more than 63 channels can't be mixed"));
            }
            Form::Raw
        }
        (TrackKind::Video, "video/x-h264") => Form::Encoded(Codec::H264),
        (TrackKind::Video, "video/x-vp8") => Form::Encoded(Codec::Vp8),
        (TrackKind::Video, "video/x-vp9") => Form::Encoded(Codec::Vp9),
        (TrackKind::Video, "video/x-h265") => Form::Encoded(Codec::H265),
        (TrackKind::Video, "video/x-av1") => Form::Encoded(Codec::Av1),
        (TrackKind::Audio, "audio/x-opus") => {
            let channels = structure.get::<i32>("channels").unwrap_or(2);
            let family = structure.get::<i32>("channel-mapping-family").unwrap_or(0);
            if channels > 2 || family != 0 {
                return Err(refused("browsers play Opus of one or two channels only"));
            }
            Form::Encoded(Codec::Opus)
        }
        (_, "application/x-rtp") => Form::Rtp(
            rtp_codec(kind, structure).ok_or_else(|| refused("this RTP can't be served"))?,
        ),
        _ => return Err(refused("this can't be served")),
    };
    if let Some(lacks) = lacks(form, structure) {
        return Err(refused(lacks));
    }
    let side = |name| {
        structure
            .get::<i32>(name)
            .ok()
            .and_then(|v| u32::try_from(v).ok())
    };
    Ok(Media {
        form,
        size: side("width").zip(side("height")),
        in_units: form == Form::Encoded(Codec::H264)
            && structure.get::<&str>("alignment") == Ok("nal"),
    })
}

/// What caps must say besides. Upstream would only hear "not-negotiated" of it.
fn lacks(form: Form, structure: &gst::StructureRef) -> Option<&'static str> {
    if !matches!(form, Form::Encoded(Codec::H264 | Codec::H265)) {
        return None;
    }
    if !structure.has_field("stream-format") {
        return Some("stream-format is missing, which h264parse and h265parse set");
    }
    // Where it is still to be chosen there are several.
    match structure.get::<&str>("stream-format").ok()? {
        "byte-stream" | "hev1" => None,
        "avc" | "hvc1" if structure.has_field("codec_data") => None,
        "avc" | "hvc1" => {
            Some("codec_data is missing: with this stream-format parameter sets are there")
        }
        _ => Some("this stream-format is not taken, unless through h264parse or h265parse"),
    }
}

fn rtp_codec(kind: TrackKind, structure: &gst::StructureRef) -> Option<Codec> {
    let codec = match structure.get::<&str>("encoding-name").ok()? {
        "H264" => Codec::H264,
        "VP8" => Codec::Vp8,
        "VP9" => Codec::Vp9,
        "H265" => Codec::H265,
        "AV1" => Codec::Av1,
        "OPUS" | "X-GST-OPUS-DRAFT-SPITTKA-00" => Codec::Opus,
        _ => return None,
    };
    let rate = structure.get::<i32>("clock-rate").ok()?;
    (codec.kind() == kind && u32::try_from(rate) == Ok(codec.clock_rate())).then_some(codec)
}

/// The codec and the layers, from what the video pads carry and what is encoded. None: it is not decided yet.
pub(super) fn video_track(
    settings: &Settings,
    medias: &[Option<(Media, Work)>],
) -> Result<Option<(Codec, Vec<LayerInfo>)>, String> {
    let layer = |index, size: Option<(u32, u32)>, target_bitrate| LayerInfo {
        rid: Rid::from_index(index),
        width: size.map(|s| s.0),
        height: size.map(|s| s.1),
        target_bitrate,
    };
    if medias.iter().flatten().any(|(_, work)| *work == Work::Wait) {
        return Ok(None);
    }
    if let [Some((_, Work::Encode(_)))] = medias {
        let codec = settings.codec.engine();
        // The sizes follow from the keyframes: a layer may be smaller than asked for.
        let count = settings.layers.as_slice().len();
        let layers = (0..count).map(|index| layer(index, None, None));
        return Ok(Some((codec, layers.collect())));
    }
    let mut codecs = medias.iter().flatten().filter_map(|(m, _)| match m.form {
        Form::Encoded(codec) | Form::Rtp(codec) => Some(codec),
        Form::Raw => None,
    });
    let codec = codecs.next().ok_or("there is no encoded video")?;
    if codecs.any(|other| other != codec) {
        return Err("all layers of a stream have the same codec".into());
    }
    let layers = medias.iter().enumerate();
    let layers = layers.map(|(index, media)| layer(index, media.and_then(|(m, _)| m.size), None));
    Ok(Some((codec, layers.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        gst::init().unwrap();
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert!(!template_caps(kind).is_any());
        }
    }

    #[test]
    fn caps_are_read_or_refused_with_a_reason() {
        gst::init().unwrap();
        use TrackKind::{Audio, Video};
        for (kind, caps, expected) in [
            (
                Video,
                "video/x-raw,width=640,height=360",
                Ok((Form::Raw, Some((640, 360)))),
            ),
            (
                Video,
                "video/x-h264,stream-format=byte-stream",
                Ok((Form::Encoded(Codec::H264), None)),
            ),
            (Video, "video/x-vp8", Ok((Form::Encoded(Codec::Vp8), None))),
            (
                Video,
                "video/x-h265,stream-format=hev1",
                Ok((Form::Encoded(Codec::H265), None)),
            ),
            (Video, "video/x-h264", Err("stream-format is missing")),
            (
                Video,
                "video/x-h264,stream-format=avc",
                Err("codec_data is missing"),
            ),
            (Video, "video/x-av1", Ok((Form::Encoded(Codec::Av1), None))),
            (Video, "video/x-vp9", Ok((Form::Encoded(Codec::Vp9), None))),
            (Video, "video/x-theora", Err("video/x-h264")),
            (
                Video,
                "application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8",
                Ok((Form::Rtp(Codec::Vp8), None)),
            ),
            (
                Video,
                "application/x-rtp,media=video,clock-rate=90000,encoding-name=H263",
                Err("encoding-name"),
            ),
            (
                Video,
                "application/x-rtp,media=audio,clock-rate=48000,encoding-name=OPUS",
                Err("encoding-name"),
            ),
            (
                Audio,
                "audio/x-opus,channels=2",
                Ok((Form::Encoded(Codec::Opus), None)),
            ),
            (
                Audio,
                "audio/x-opus,channels=6,channel-mapping-family=1",
                Err("one or two channels"),
            ),
            (Audio, "audio/x-raw,channels=63", Ok((Form::Raw, None))),
            (Audio, "audio/x-raw,channels=64", Err("63 channels")),
            (Audio, "audio/mpeg", Err("audio/x-opus")),
        ] {
            let caps: gst::Caps = caps.parse().unwrap();
            match (parse(kind, &caps), expected) {
                (Ok(media), Ok(expected)) => assert_eq!((media.form, media.size), expected),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (got, expected) => panic!("{caps}: {got:?} instead of {expected:?}"),
            }
        }
    }
}
