// SPDX-License-Identifier: MPL-2.0

//! RTP packets on their way through the engine: read once when they come in, then shared by all viewers.

use std::sync::Arc;
use std::time::Instant;

use crate::codec::{self, Codec, TrackKind, Vp8Header};

/// One RTP packet as a publisher hands it over.
#[derive(Debug, Clone)]
pub struct RtpIn {
    /// Sequence number as the payloader or the publisher's peer wrote it.
    pub seq: u16,
    /// RTP timestamp on the track's timeline, the same for all layers of a track; wraps.
    pub timestamp: u32,
    /// The moment that `timestamp` stands for. One mapping for audio and video gives lip sync.
    pub captured: Instant,
    /// The marker bit: the last packet of a frame (video).
    pub marker: bool,
    /// RTP payload without header, extensions and padding.
    pub payload: Arc<[u8]>,
    /// The same sound with older packets before it (RED, RFC 2198), for viewers who take that.
    pub red: Option<Arc<[u8]>>,
}

/// One RTP packet inside the engine.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Extended sequence number in its layer: never wraps, gaps are packets that never came.
    pub seq: u64,
    /// RTP timestamp on the track's timeline; wraps.
    pub timestamp: u32,
    /// The moment that `timestamp` stands for.
    pub captured: Instant,
    /// The last packet of a frame.
    pub marker: bool,
    /// The first packet of a frame that a decoder can begin with.
    pub keyframe_start: bool,
    /// VP8 counters that a layer switch rewrites.
    pub vp8: Option<Vp8Header>,
    /// RTP payload, shared by all viewers.
    pub payload: Arc<[u8]>,
    /// The same sound with older packets before it (RED, RFC 2198), for viewers who take that.
    pub red: Option<Arc<[u8]>>,
}

/// Packets of one track and layer that came together, normally one frame.
#[derive(Debug)]
pub struct Batch {
    /// Audio or video.
    pub kind: TrackKind,
    /// Index of the layer, highest first; 0 for audio.
    pub layer: usize,
    /// Which publisher, counted over the stream's life: timestamps of different ones are not comparable.
    pub epoch: u32,
    /// The packets in the order of their arrival.
    pub packets: Vec<Packet>,
}

impl Batch {
    /// The RTP payload bytes in it.
    pub fn bytes(&self) -> usize {
        self.packets.iter().map(|p| p.payload.len()).sum()
    }
}

/// Turns one layer's incoming packets into [`Packet`]s: extends sequence numbers, finds keyframe starts.
#[derive(Debug, Default)]
pub(crate) struct LayerReader {
    last_seq: Option<u64>,
    /// Timestamp of the frame whose keyframe start was found, so that its later packets are not taken for another.
    keyframe_at: Option<u32>,
    /// The size that the last keyframe told.
    pub(crate) size: Option<(u32, u32)>,
}

impl LayerReader {
    pub(crate) fn read(&mut self, codec: Codec, rtp: RtpIn) -> Packet {
        let seq = extend(self.last_seq, rtp.seq);
        self.last_seq = Some(self.last_seq.map_or(seq, |last| last.max(seq)));
        let info = codec::inspect(codec, &rtp.payload);
        let keyframe_start = info.keyframe_start && self.keyframe_at != Some(rtp.timestamp);
        self.size = info.size.or(self.size);
        if info.keyframe_start {
            self.keyframe_at = Some(rtp.timestamp);
        }
        Packet {
            seq,
            timestamp: rtp.timestamp,
            captured: rtp.captured,
            marker: rtp.marker,
            keyframe_start,
            vp8: info.vp8,
            payload: rtp.payload,
            red: rtp.red,
        }
    }
}

/// The extended number nearest to the highest one so far (RFC 3711, section 3.3.1, for the same reason).
///
/// Counting starts one turn up, so that a packet from before the first one does not fall below zero.
fn extend(highest: Option<u64>, seq: u16) -> u64 {
    let Some(highest) = highest else {
        return (1 << 16) | u64::from(seq);
    };
    let step = seq.wrapping_sub(highest as u16) as i16;
    highest.saturating_add_signed(i64::from(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(seq: u16, timestamp: u32, payload: &[u8]) -> RtpIn {
        RtpIn {
            seq,
            timestamp,
            captured: Instant::now(),
            marker: false,
            payload: payload.into(),
            red: None,
        }
    }

    #[test]
    fn sequence_numbers_are_extended_over_wraps_and_reordering() {
        let mut reader = LayerReader::default();
        let base = (1 << 16) | 65_534;
        for (seq, expected) in [
            (65_534, base),
            (65_535, base + 1),
            (1, base + 3),
            (0, base + 2),
            (65_535, base + 1),
            (2, base + 4),
        ] {
            assert_eq!(reader.read(Codec::Opus, rtp(seq, 0, &[0])).seq, expected);
        }
    }

    #[test]
    fn a_keyframe_has_one_start() {
        let mut reader = LayerReader::default();
        let sps = reader.read(Codec::H264, rtp(1, 10, &[0x67, 0]));
        let idr = reader.read(Codec::H264, rtp(2, 10, &[0x7c, 0x85, 0]));
        let second_slice = reader.read(Codec::H264, rtp(3, 10, &[0x65, 0]));
        let next = reader.read(Codec::H264, rtp(4, 20, &[0x65, 0]));
        let starts = [&sps, &idr, &second_slice, &next].map(|p| p.keyframe_start);
        assert_eq!(starts, [true, false, false, true]);
    }
}
