// SPDX-License-Identifier: MPL-2.0

//! RTP packets on their way through the engine: read once when they come in, then shared by all viewers.

use std::sync::Arc;
use std::time::Instant;

use crate::arrival::Arrivals;
use crate::codec::{self, Codec, TemporalMark, TrackKind, Vp8Header};
use crate::temporal::{Temporal, TemporalReader};

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
    /// Who gets it of those that go without the upper temporal layers.
    pub temporal: Temporal,
    /// RTP payload, shared by all viewers.
    pub payload: Arc<[u8]>,
    /// The same sound with older packets before it (RED, RFC 2198), for viewers who take that.
    pub red: Option<Arc<[u8]>>,
}

impl Packet {
    /// Whether a viewer may be sent its layer from here on. Of a keyframe whose start comes late, the rest has passed.
    pub fn begins_layer(&self) -> bool {
        self.keyframe_start && !self.temporal.late
    }
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

/// Turns one layer's incoming packets into [`Packet`]s: extends sequence numbers, finds keyframe starts and temporal
/// layers, and drops what came before.
#[derive(Debug, Default)]
pub(crate) struct LayerReader {
    arrivals: Arrivals,
    /// Timestamp of the frame whose keyframe start was found, so that its later packets are not taken for another.
    keyframe_at: Option<u32>,
    /// The size that the last keyframe told.
    pub(crate) size: Option<(u32, u32)>,
    temporal: TemporalReader,
    /// Kept for its memory: the packets' timestamps and marks.
    marks: Vec<(u32, Option<TemporalMark>)>,
}

impl LayerReader {
    /// Reads packets that came together, and leaves out those that came before, or far too late: it tells how many.
    pub(crate) fn read(
        &mut self,
        codec: Codec,
        packets: impl IntoIterator<Item = RtpIn>,
    ) -> (Vec<Packet>, u64) {
        self.marks.clear();
        let mut packets: Vec<_> = packets
            .into_iter()
            .map(|rtp| self.inspect(codec, rtp))
            .collect();
        let mut index = 0;
        packets.retain_mut(|packet| {
            let marks = &self.marks[index..];
            index += 1;
            let Some((seq, late)) = self
                .arrivals
                .accept(packet.seq as u16, || self.temporal.counted())
            else {
                return false;
            };
            packet.seq = seq;
            match late {
                Some(counted) => self.temporal.place_late(packet, marks[0].1, counted),
                None => self.temporal.place(packet, marks),
            }
            true
        });
        let dropped = index - packets.len();
        (packets, dropped as u64)
    }

    /// The highest temporal layer that was sent lately.
    pub(crate) fn top(&self) -> u8 {
        self.temporal.top()
    }

    /// What the packet says of itself; its number is not yet extended.
    fn inspect(&mut self, codec: Codec, rtp: RtpIn) -> Packet {
        let info = codec::inspect(codec, &rtp.payload);
        let keyframe_start = info.keyframe_start && self.keyframe_at != Some(rtp.timestamp);
        self.size = info.size.or(self.size);
        if info.keyframe_start {
            self.keyframe_at = Some(rtp.timestamp);
        }
        self.marks.push((rtp.timestamp, info.temporal));
        Packet {
            seq: rtp.seq.into(),
            timestamp: rtp.timestamp,
            captured: rtp.captured,
            marker: rtp.marker,
            keyframe_start,
            vp8: info.vp8,
            temporal: Temporal::default(),
            payload: rtp.payload,
            red: rtp.red,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rtp(seq: u16, timestamp: u32, payload: &[u8]) -> RtpIn {
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
    fn a_keyframe_has_one_start() {
        let mut reader = LayerReader::default();
        let sps = rtp(1, 10, &[0x67, 0]);
        let idr = rtp(2, 10, &[0x7c, 0x85, 0]);
        let second_slice = rtp(3, 10, &[0x65, 0]);
        let next = rtp(4, 20, &[0x65, 0]);
        let (packets, _) = reader.read(Codec::H264, [sps, idr, second_slice, next]);
        let starts: Vec<_> = packets.iter().map(|p| p.keyframe_start).collect();
        assert_eq!(starts, [true, false, false, true]);
    }
}
