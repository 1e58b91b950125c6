// SPDX-License-Identifier: MPL-2.0

//! RTP packets on their way through the engine: read once when they come in, then shared by all viewers.

use std::sync::Arc;
use std::time::Instant;

use crate::arrival::{Arrival, Arrivals};
use crate::codec::nal::Format;
use crate::codec::{self, Codec, TemporalMark, TrackKind, Vp8Header};
use crate::fragment::Fragmenter;
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
/// layers, drops what came before, and makes several of what is too large.
#[derive(Debug, Default)]
pub(crate) struct LayerReader {
    arrivals: Arrivals,
    /// Timestamp of the frame whose keyframe start was found, so that its later packets are not taken for another.
    keyframe_at: Option<u32>,
    /// The size that the last keyframe told.
    pub(crate) size: Option<(u32, u32)>,
    temporal: TemporalReader,
    fragmenter: Fragmenter,
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
        let format = Format::of(codec);
        if let Some(format) = format.filter(|_| !packets.iter().all(|p| self.fragmenter.passes(p)))
        {
            return self.fragment_all(format, packets);
        }
        let came = packets.len();
        let mut index = 0;
        packets.retain_mut(|packet| {
            index += 1;
            let arrival = self.arrivals.accept(packet.seq as u16);
            let passes = arrival.map(|arrival| self.place(arrival, packet, index - 1));
            passes.is_some()
        });
        let dropped = came - packets.len();
        (packets, dropped as u64)
    }

    /// Numbers a packet that leaves as it is.
    fn place(&mut self, arrival: Arrival, packet: &mut Packet, index: usize) {
        match arrival {
            Arrival::Next { seq, missed } => {
                self.arrivals.miss(missed, self.temporal.counted());
                packet.seq = self.arrivals.leaves_as(seq);
                self.temporal.place(packet, &self.marks[index..]);
            }
            Arrival::Late { seq, counted } => {
                packet.seq = seq;
                let (_, mark) = self.marks[index];
                self.temporal.place_late(packet, mark, counted);
            }
        }
    }

    /// The same of packets some of which are too large, or go on with one that was.
    ///
    /// What comes late leaves as it is: others have left around the one number that it has.
    fn fragment_all(&mut self, format: Format, packets: Vec<Packet>) -> (Vec<Packet>, u64) {
        let mut dropped = 0;
        let mut read = Vec::with_capacity(2 * packets.len());
        for (index, mut packet) in packets.into_iter().enumerate() {
            match self.arrivals.accept(packet.seq as u16) {
                Some(Arrival::Next { seq, missed }) => {
                    self.release(seq, missed.start, &packet, &mut read);
                    self.arrivals.miss(missed, self.temporal.counted());
                    self.fragment(format, seq, &packet, index, &mut read);
                }
                Some(late) => {
                    self.place(late, &mut packet, index);
                    read.push(packet);
                }
                None => dropped += 1,
            }
        }
        (read, dropped)
    }

    /// What was kept back leaves, where this packet does not go on with it, and before what is missing.
    fn release(&mut self, seq: u64, next: u64, packet: &Packet, read: &mut Vec<Packet>) {
        if let Some(mut rest) = self.fragmenter.release(seq, packet) {
            rest.seq = self.arrivals.leaves_as(next);
            self.temporal.place(&mut rest, &[]);
            read.push(rest);
            self.arrivals.add_extra(1);
        }
    }

    fn fragment(
        &mut self,
        format: Format,
        seq: u64,
        packet: &Packet,
        index: usize,
        read: &mut Vec<Packet>,
    ) {
        let first = self.arrivals.leaves_as(seq);
        let mut next = first;
        let (temporal, marks) = (&mut self.temporal, &self.marks[index..]);
        let mut leave = |mut piece: Packet| {
            piece.seq = next;
            next += 1;
            temporal.place(&mut piece, marks);
            read.push(piece);
        };
        self.fragmenter.cut(format, seq, packet, &mut leave);
        self.arrivals.add_extra(next - first - 1);
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
