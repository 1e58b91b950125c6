// SPDX-License-Identifier: MPL-2.0

//! RTP packets on their way through the engine: read once when they come in, then shared by all viewers.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::arrival::{Arrival, Arrivals};
use crate::codec::dependency::{self, Descriptor};
use crate::codec::nal::Format;
use crate::codec::sets::{self, ParameterSets};
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
    /// RTP payload without header, extensions and padding. Empty where only the number was used, which then leaves no gap.
    pub payload: Arc<[u8]>,
    /// The same sound with older packets before it (RED, RFC 2198), for viewers who take that.
    pub red: Option<Arc<[u8]>>,
    /// What is told of its place among layers that share an SSRC.
    pub layering: Layering,
}

/// What is known of a packet's place among layers, beside its payload.
#[derive(Debug, Clone, Default)]
pub struct Layering {
    /// Whoever has all of one of so many layers above the packet's may go on with its layer from here.
    pub(crate) from_above: u8,
    /// Its dependency descriptor, where the codec's layers are told apart by that.
    pub(crate) descriptor: Option<Arc<Descriptor>>,
    /// Parameter sets that were told of what begins with this packet.
    pub(crate) sets: Option<sets::Told>,
}

impl Layering {
    /// Of a packet that came with this dependency descriptor, the next one of the reader's SSRC.
    pub fn described(reader: &mut dependency::Reader, descriptor: &[u8]) -> Self {
        Self {
            descriptor: Descriptor::read(descriptor, reader).map(Arc::new),
            ..Self::default()
        }
    }

    fn temporal(&self) -> Option<TemporalMark> {
        Some(self.descriptor.as_ref()?.says?.temporal)
    }
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
    /// Whoever has all of one of so many spatial layers above its own may go on with its layer from here.
    pub from_above: u8,
    /// What it is predicted from, for viewers who are told that.
    pub descriptor: Option<Arc<Descriptor>>,
    /// RTP payload, shared by all viewers. Empty where a number was left for a packet that had nothing in it.
    pub payload: Arc<[u8]>,
    /// The same sound with older packets before it (RED, RFC 2198), for viewers who take that.
    pub red: Option<Arc<[u8]>>,
}

impl Packet {
    /// Whether a viewer may be sent its layer from here on. Of a keyframe whose start comes late, the rest has passed.
    pub fn begins_layer(&self) -> bool {
        self.keyframe_start && !self.temporal.late
    }

    /// Whether a viewer who has all of the layer `above` so far may be sent its layer, `below`, from here on.
    pub fn goes_on_from(&self, above: usize, below: usize) -> bool {
        let steps = below.saturating_sub(above);
        (1..=usize::from(self.from_above)).contains(&steps) && !self.temporal.late
    }
}

/// Packets of one track and layer that came together, normally one frame.
#[derive(Debug)]
pub struct Batch {
    /// Audio or video.
    pub kind: TrackKind,
    /// Index of the layer, highest first; of audio the number of its track.
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
/// layers, drops what came before, makes several of what is too large, and gives each keyframe its parameter sets.
#[derive(Debug, Default)]
pub(crate) struct LayerReader {
    arrivals: Arrivals,
    /// Timestamp of the frame whose keyframe start was found, so that its later packets are not taken for another.
    keyframe_at: Option<u32>,
    /// The size that the last keyframe told.
    pub(crate) size: Option<(u32, u32)>,
    temporal: TemporalReader,
    fragmenter: Fragmenter,
    sets: ParameterSets,
    /// Some were told before anything came.
    has_told: bool,
    /// The frame, by its timestamp, before one of whose packets one is missing: that may hold its parameter sets, and newer ones.
    gap: Option<u32>,
    /// The newest packet's timestamp and marker, and whether any had one.
    newest: Option<(u32, bool)>,
    has_markers: bool,
    /// Kept for its memory: which of the packets begin a picture without its parameter sets.
    bare: Vec<usize>,
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
        self.bare.clear();
        let format = Format::of(codec);
        let mut packets: Vec<_> = packets
            .into_iter()
            .map(|rtp| {
                if let Some((format, sets)) = format.zip(rtp.layering.sets.as_ref()) {
                    self.sets.told(format, sets);
                    self.has_told |= self.newest.is_none();
                }
                self.inspect(codec, rtp)
            })
            .collect();
        if let Some(format) = format {
            for (index, packet) in packets.iter().enumerate() {
                if self.sets.look(format, packet.timestamp, &packet.payload) {
                    self.bare.push(index);
                }
            }
        }
        if let Some(format) = format
            .filter(|_| !self.bare.is_empty() || !packets.iter().all(|p| self.fragmenter.passes(p)))
        {
            return self.fragment_all(format, packets);
        }
        let (mut index, mut dropped) = (0, 0);
        packets.retain_mut(|packet| {
            index += 1;
            match self.arrivals.accept(packet.seq as u16) {
                Some(arrival) => self.place(format, arrival, packet, index - 1),
                None => {
                    dropped += 1;
                    false
                }
            }
        });
        (packets, dropped)
    }

    /// Comes in order, but for what is missing before it.
    fn advance(&mut self, missed: Range<u64>, packet: &Packet) {
        let timestamp = packet.timestamp;
        let newest = self.newest.replace((timestamp, packet.marker));
        self.has_markers |= packet.marker;
        // What is missing alone behind a frame without an end is that.
        let is_end = newest.is_some_and(|(t, marker)| t != timestamp && !marker)
            && self.has_markers
            && missed.clone().count() == 1;
        // Before the very first one anything may be, unless all that there is was told.
        if newest.is_none() && !self.has_told || !missed.is_empty() && !is_end {
            self.gap = Some(timestamp);
        }
        self.arrivals.miss(missed, self.temporal.counted());
    }

    /// Finds out whether a viewer may begin with a packet that looks like the start of a keyframe: once a frame, and not where
    /// what is missing before it may hold the parameter sets. A viewer who begins behind them never gets them: they would be
    /// numbers from before its first one, which it does not miss. When they come late, the keyframe has its start there.
    fn begin_keyframe(&mut self, format: Option<Format>, packet: &mut Packet) {
        let at = Some(packet.timestamp);
        let lacks_sets = |format| self.gap == at && !sets::come_first(format, &packet.payload);
        packet.keyframe_start &= self.keyframe_at != at && !format.is_some_and(lacks_sets);
        if packet.keyframe_start {
            self.keyframe_at = at;
        }
    }

    /// Numbers a packet that leaves as it is. `false`: it does not, for there is nothing in it.
    fn place(
        &mut self,
        format: Option<Format>,
        arrival: Arrival,
        packet: &mut Packet,
        index: usize,
    ) -> bool {
        match arrival {
            Arrival::Next { missed, .. } if packet.payload.is_empty() => {
                self.advance(missed, packet);
                self.arrivals.leave_out();
                return false;
            }
            Arrival::Next { seq, missed } => {
                self.advance(missed, packet);
                packet.seq = self.arrivals.leaves_as(seq);
                self.temporal.place(packet, &self.marks[index..]);
            }
            Arrival::Late { seq, counted } => {
                packet.seq = seq;
                let (_, mark) = self.marks[index];
                self.temporal.place_late(packet, mark, counted);
            }
        }
        self.begin_keyframe(format, packet);
        true
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
                    self.advance(missed, &packet);
                    if packet.payload.is_empty() {
                        self.arrivals.leave_out();
                    } else {
                        self.begin_keyframe(Some(format), &mut packet);
                        if self.bare.contains(&index) && self.gap != Some(packet.timestamp) {
                            self.put_sets(format, seq, &mut packet, index, &mut read);
                        }
                        self.fragment(format, seq, &packet, index, &mut read);
                    }
                }
                Some(late) => {
                    if self.place(Some(format), late, &mut packet, index) {
                        read.push(packet);
                    }
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

    /// What a decoder needs to begin with this packet leaves before it.
    fn put_sets(
        &mut self,
        format: Format,
        seq: u64,
        packet: &mut Packet,
        index: usize,
        read: &mut Vec<Packet>,
    ) {
        let mut sets = Packet {
            seq: self.arrivals.leaves_as(seq),
            marker: false,
            payload: self.sets.payload(format).into(),
            ..packet.clone()
        };
        packet.keyframe_start = false;
        self.temporal.place(&mut sets, &self.marks[index..]);
        read.push(sets);
        self.arrivals.add_extra(1);
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
        self.size = info.size.or(self.size);
        let temporal = rtp.layering.temporal().or(info.temporal);
        let format = Format::of(codec).filter(|_| rtp.marker);
        let is_before = format.is_some_and(|f| sets::are_before_pictures(f, &rtp.payload));
        self.marks.push((rtp.timestamp, temporal));
        Packet {
            seq: rtp.seq.into(),
            timestamp: rtp.timestamp,
            captured: rtp.captured,
            marker: rtp.marker && !is_before,
            keyframe_start: info.keyframe_start,
            from_above: rtp.layering.from_above,
            // A number alone is of no frame.
            descriptor: rtp.layering.descriptor.filter(|_| !rtp.payload.is_empty()),
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
            layering: Layering::default(),
        }
    }

    #[test]
    fn parameter_sets_that_came_once_are_put_before_each_keyframe() {
        const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 1];
        const PPS: &[u8] = &[0x68, 0xce];
        let mut reader = LayerReader::default();
        let (packets, _) = reader.read(
            Codec::H264,
            [
                rtp(1, 10, SPS),
                rtp(2, 10, PPS),
                rtp(3, 10, &[0x65, 1]),
                rtp(4, 20, &[0x41, 1]),
                rtp(5, 30, &[0x7c, 0x85, 1]),
                rtp(6, 30, &[0x7c, 0x45, 1]),
                rtp(7, 40, &[0x41, 1]),
            ],
        );
        let seqs: Vec<_> = packets.iter().map(|p| p.seq - packets[0].seq).collect();
        assert_eq!(seqs, (0..8).collect::<Vec<_>>(), "without a gap");
        let starts: Vec<_> = packets.iter().map(|p| p.keyframe_start).collect();
        assert_eq!(
            starts,
            [true, false, false, false, true, false, false, false]
        );
        assert_eq!(*packets[4].payload, *Format::H264.aggregate(&[SPS, PPS]));
        assert_eq!((packets[4].timestamp, packets[4].marker), (30, false));
        // One whose first packets are missing, or come late, leaves without them: they may hold newer ones.
        let (packets, _) = reader.read(
            Codec::H264,
            [rtp(9, 50, &[0x41, 1]), rtp(8, 45, &[0x65, 1])],
        );
        assert_eq!(packets.len(), 2);
        let (packets, _) = reader.read(Codec::H264, [rtp(11, 55, &[0x65, 1])]);
        assert_eq!((packets.len(), packets[0].keyframe_start), (1, false));
        let (packets, _) = reader.read(Codec::H264, [rtp(12, 60, &[0x65, 1])]);
        assert_eq!(packets.len(), 2, "but not the next one");
    }

    /// Whoever begins a keyframe behind its sets never gets them, and no number tells that they are missing.
    #[test]
    fn a_keyframe_begins_where_nothing_is_missing_that_decoders_need_before() {
        const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 1];
        const PPS: &[u8] = &[0x68, 0xce];
        const IDR: &[u8] = &[0x7c, 0x85, 1];
        const REST: &[u8] = &[0x7c, 0x45, 1];
        const VPS: &[u8] = &[0x40, 1, 0x0c];
        const SPS_265: &[u8] = &[0x42, 1, 1];
        const IRAP: &[u8] = &[0x26, 1, 0xaf];
        let (h264, h265) = (Codec::H264, Codec::H265);
        let separate = &[SPS, PPS, IDR, REST][..];
        let newer = &[VPS, SPS_265, IRAP][..];
        // The frame before, whose last packet has the marker and the number 1; the keyframe from number 2 on, as it comes; and
        // where it starts.
        for (what, codec, units, comes, start) in [
            ("whole", h264, separate, &[1, 2, 3, 4, 5][..], Some(2)),
            (
                "the end of the one before is missing",
                h264,
                separate,
                &[2, 3, 4, 5],
                Some(2),
            ),
            ("the set is lost", h264, separate, &[1, 3, 4, 5], None),
            ("all sets are", h264, separate, &[1, 4, 5], None),
            ("the set is late", h264, separate, &[1, 3, 4, 5, 2], Some(2)),
            ("reordered", h264, separate, &[1, 3, 2, 4, 5], Some(2)),
            (
                "the other set is late",
                h264,
                separate,
                &[1, 2, 4, 5, 3],
                Some(2),
            ),
            (
                "the start of the picture is",
                h264,
                separate,
                &[1, 2, 3, 5, 4],
                Some(2),
            ),
            (
                "all that decoders begin with",
                h264,
                separate,
                &[1, 5, 4, 3, 2],
                Some(2),
            ),
            (
                "no sets, and none known",
                h264,
                &[IDR, REST],
                &[1, 2, 3],
                Some(2),
            ),
            (
                "no sets, behind the end of another",
                h264,
                &[IDR, REST],
                &[2, 3],
                Some(2),
            ),
            ("a set before the first", h265, newer, &[1, 3, 4], None),
            ("late", h265, newer, &[1, 3, 4, 2], Some(2)),
            ("nothing lost", h265, newer, &[1, 2, 3, 4], Some(2)),
        ] {
            for at_once in [false, true] {
                let mut reader = LayerReader::default();
                let marked = |seq, timestamp, payload: &[u8]| RtpIn {
                    marker: seq == 1 || usize::from(seq) == units.len() + 1,
                    ..rtp(seq, timestamp, payload)
                };
                let other: &[u8] = if codec == h264 {
                    &[0x41, 1]
                } else {
                    &[2, 1, 1]
                };
                let mut packets = vec![
                    RtpIn {
                        marker: true,
                        ..rtp(65_535, 5, other)
                    },
                    rtp(0, 10, other),
                ];
                packets.extend(comes.iter().map(|seq| match seq {
                    1 => marked(1, 10, other),
                    _ => marked(*seq, 20, units[usize::from(*seq) - 2]),
                }));
                let read: Vec<_> = match at_once {
                    true => reader.read(codec, packets).0,
                    false => packets
                        .into_iter()
                        .flat_map(|packet| reader.read(codec, [packet]).0)
                        .collect(),
                };
                let first = read[0].seq - 65_535;
                let starts = read.iter().filter(|p| p.keyframe_start);
                let starts: Vec<_> = starts.map(|p| p.seq - first - 65_536).collect();
                assert_eq!(starts, Vec::from_iter(start), "{what}, at once: {at_once}");
            }
        }
    }

    #[test]
    fn packets_with_nothing_in_them_leave_no_gap() {
        // Numbers from the first, in the order in which they come; those in `nothing` have no payload.
        for (what, came, nothing, leave, goes_on) in [
            (
                "in order",
                &[0, 1, 2, 3, 4][..],
                &[1, 2][..],
                &[0, 1, 2][..],
                3,
            ),
            ("a packet is lost before it", &[0, 2, 3], &[2], &[0, 2], 4),
            ("and comes later", &[0, 2, 3, 1], &[2], &[0, 2, 1], 4),
            (
                "late itself: its number was left for it",
                &[0, 2, 1, 3],
                &[1],
                &[0, 2, 1, 3],
                5,
            ),
            ("all of them", &[0, 1, 2], &[0, 1, 2], &[], 2),
            ("twice", &[0, 1, 1, 2], &[1], &[0, 1], 4),
        ] {
            for codec in [Codec::H264, Codec::Vp8] {
                for size in [20, 1_500] {
                    let mut reader = LayerReader::default();
                    let first = reader.read(codec, [rtp(99, 0, &[0x41; 20])]).0[0].seq + 1;
                    let mut left = Vec::new();
                    for n in came {
                        let payload = if nothing.contains(n) { 0 } else { size };
                        let (packets, _) =
                            reader.read(codec, [rtp(100 + n, 9, &vec![0x41; payload])]);
                        left.extend(packets.iter().map(|p| p.seq - first));
                    }
                    let last = reader.read(codec, [rtp(99 + 6, 10, &[0x41; 20])]).0[0].seq - first;
                    let mut all = left.clone();
                    all.sort_unstable();
                    all.dedup();
                    assert_eq!(all.len(), left.len(), "{what}: no number twice");
                    if codec == Codec::Vp8 || size == 20 {
                        assert_eq!(left, leave, "{what}");
                        assert_eq!(last, goes_on, "{what}");
                    }
                }
            }
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
        // The set leaves again before the next one, which begins there.
        assert_eq!(starts, [true, false, false, true, false]);
    }
}
