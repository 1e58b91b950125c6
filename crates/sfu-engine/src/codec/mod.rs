// SPDX-License-Identifier: MPL-2.0

//! What the engine must know of a codec: where a picture can be joined, and which counters to rewrite.
//!
//! The media itself is never touched, only put into other packets where some are too large ([`nal`]). Called once per packet that comes in, never per viewer.

mod av1;
pub(crate) mod dependency;
mod h264;
mod h265;
pub(crate) mod nal;
pub(crate) mod profile;
pub(crate) mod red;
pub(crate) mod sets;
pub(crate) mod svc;
pub(crate) mod vp8;
pub(crate) mod vp9;

pub(crate) use h264::sequence as h264_sequence;
pub use vp8::Vp8Header;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl TrackKind {
    /// As it stands in SDP.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// A codec that the engine forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264/AVC, RTP payload format of RFC 6184.
    H264,
    /// VP8, RTP payload format of RFC 7741.
    Vp8,
    /// VP9, RTP payload format of RFC 9628.
    Vp9,
    /// AV1, RTP payload format of the Alliance for Open Media.
    Av1,
    /// H.265/HEVC, RTP payload format of RFC 7798.
    H265,
    /// Opus, RTP payload format of RFC 7587.
    Opus,
}

/// All video codecs.
pub(crate) const VIDEO_CODECS: [Codec; 5] =
    [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H265];

impl Codec {
    /// The encoding name as SDP spells it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::H265 => "H265",
            Codec::Opus => "opus",
        }
    }

    /// The RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            _ => 90_000,
        }
    }

    /// Whether this codec carries pictures or sound.
    pub fn kind(self) -> TrackKind {
        match self {
            Codec::Opus => TrackKind::Audio,
            _ => TrackKind::Video,
        }
    }
}

/// What one RTP payload says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PayloadInfo {
    /// A decoder that knows nothing yet can begin with this packet.
    pub keyframe_start: bool,
    /// The VP8 payload descriptor's counters, where there are any.
    pub vp8: Option<Vp8Header>,
    /// Width and height of the picture in pixels, where a keyframe's start tells them.
    pub size: Option<(u32, u32)>,
    /// The temporal layer of the packet's frame, where the packet tells it.
    pub temporal: Option<TemporalMark>,
}

/// What a stream says of a frame's place among the temporal layers. Frames without a mark are needed by all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TemporalMark {
    /// Its temporal layer: frames of lower ones do not need it.
    pub id: u8,
    /// It and those that follow in its temporal layer need nothing of that layer from before it.
    pub switches_up: bool,
}

/// Reads what forwarding needs from an RTP payload. Never fails: what is not understood is forwarded as it is.
pub fn inspect(codec: Codec, payload: &[u8]) -> PayloadInfo {
    let (keyframe_start, temporal) = match codec {
        Codec::Vp8 => return vp8::inspect(payload),
        Codec::Vp9 => return vp9::inspect(payload),
        Codec::H264 => (h264::starts_keyframe(payload), h264::temporal(payload)),
        Codec::H265 => (h265::starts_keyframe(payload), None),
        Codec::Av1 => (av1::starts_keyframe(payload), av1::temporal(payload)),
        // Every Opus packet can be decoded by itself.
        Codec::Opus => (true, None),
    };
    let size = match codec {
        Codec::H264 if keyframe_start => h264::picture_size(payload),
        Codec::Av1 if keyframe_start => av1::picture_size(payload),
        _ => None,
    };
    PayloadInfo {
        keyframe_start,
        vp8: None,
        size,
        temporal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_payload_panics_a_parser(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in VIDEO_CODECS {
                inspect(codec, &payload);
            }
        }
    }
}
