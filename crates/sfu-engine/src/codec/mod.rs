// SPDX-License-Identifier: MPL-2.0

//! What the engine must know of a codec: where a picture can be joined, and which counters to rewrite.
//!
//! The media itself is never touched. Called once per packet that comes in, never per viewer.

mod h264;
mod vp8;

pub use vp8::Vp8Header;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// A codec that the engine forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264/AVC, RTP payload format of RFC 6184.
    H264,
    /// VP8, RTP payload format of RFC 7741.
    Vp8,
    /// Opus, RTP payload format of RFC 7587.
    Opus,
}

impl Codec {
    /// The encoding name as SDP spells it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::Vp8 => "VP8",
            Codec::Opus => "opus",
        }
    }

    /// The RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::H264 | Codec::Vp8 => 90_000,
            Codec::Opus => 48_000,
        }
    }

    /// Whether this codec carries pictures or sound.
    pub fn kind(self) -> TrackKind {
        match self {
            Codec::H264 | Codec::Vp8 => TrackKind::Video,
            Codec::Opus => TrackKind::Audio,
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
}

/// Reads what forwarding needs from an RTP payload. Never fails: what is not understood is forwarded as it is.
pub fn inspect(codec: Codec, payload: &[u8]) -> PayloadInfo {
    match codec {
        Codec::H264 => PayloadInfo {
            keyframe_start: h264::starts_keyframe(payload),
            vp8: None,
        },
        Codec::Vp8 => vp8::inspect(payload),
        // Every Opus packet can be decoded by itself.
        Codec::Opus => PayloadInfo {
            keyframe_start: true,
            vp8: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_payload_panics_a_parser(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::H264, Codec::Vp8, Codec::Opus] {
                inspect(codec, &payload);
            }
        }
    }
}
