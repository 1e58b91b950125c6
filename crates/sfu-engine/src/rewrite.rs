// SPDX-License-Identifier: MPL-2.0

//! Makes many layers look like one stream: sequence numbers, timestamps and VP8 counters stay continuous
//! when a viewer changes its layer, joins late, or the publisher is replaced.
//!
//! One rewriter a viewer and track, called by the subscriber for each packet: it allocates nothing.

use std::time::{Duration, Instant};

use crate::codec::Vp8Header;
use crate::packet::Packet;

/// The first outgoing sequence number. The rollover counter that SRTP derives from it must begin at zero, and a few
/// reordered packets from before the first must not fall below it.
const FIRST_SEQ: u64 = 1_000;

/// Which encoding the packets come from: the publisher's epoch and the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Counts the publishers of a stream.
    pub epoch: u32,
    /// Index of the layer.
    pub layer: usize,
}

/// How a packet leaves to one viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// Extended sequence number; its upper bits are the SRTP rollover counter.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The moment that the timestamp stands for.
    pub captured: Instant,
    /// VP8 counters, where the packet has them.
    pub vp8: Option<Vp8Header>,
}

/// A frame of a replayed group of pictures, moved close to the live frame.
///
/// A receiver that gets old frames at once takes their age for network delay and keeps it as latency. So replayed frames
/// are dated as if they had been captured just now, a millisecond apart; decoders don't look at timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squeezed {
    /// Timestamp on the track's timeline, before the viewer's own offset.
    pub timestamp: u32,
    /// The moment that it stands for.
    pub captured: Instant,
}

/// See the module's description.
#[derive(Debug)]
pub struct Rewriter {
    clock_rate: u32,
    source: Option<Source>,
    /// Nothing is forwarded until the next [`switch`](Self::switch).
    detached: bool,
    /// The timestamp of the newest packet of the source, before rewriting.
    last_in_timestamp: Option<u32>,
    /// Whether it was the last one of its frame.
    last_marker: bool,
    /// Packets of the source before this one belong to what the viewer had of another source.
    first_in_seq: u64,
    /// Packets of the source up to this one were replayed, and come again from the queue.
    replayed: Option<u64>,
    seq_offset: i64,
    timestamp_offset: u32,
    vp8_offset: Vp8Offset,
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    seq: u64,
    timestamp: u32,
    captured: Instant,
    vp8: Option<Vp8Header>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Vp8Offset {
    picture_id: u16,
    tl0_pic_idx: u8,
}

impl Rewriter {
    /// A rewriter for a track with this RTP clock rate in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            source: None,
            detached: false,
            last_in_timestamp: None,
            last_marker: true,
            first_in_seq: 0,
            replayed: None,
            seq_offset: 0,
            timestamp_offset: 0,
            vp8_offset: Vp8Offset::default(),
            last: None,
        }
    }

    /// What is being forwarded.
    pub fn source(&self) -> Option<Source> {
        self.source.filter(|_| !self.detached)
    }

    /// What was forwarded last, whether or not it still is.
    pub fn last_source(&self) -> Option<Source> {
        self.source
    }

    /// The newest timestamp that left, and the moment that it stands for.
    pub fn last_time(&self) -> Option<(u32, Instant)> {
        self.last.map(|last| (last.timestamp, last.captured))
    }

    /// Whether what was forwarded so far ends with a whole frame, as far as `packet` of the source tells.
    pub fn ended_before(&self, packet: &Packet) -> bool {
        self.last_in_timestamp != Some(packet.timestamp)
    }

    /// Whether the last frame of what is forwarded is still on its way.
    pub fn is_mid_frame(&self) -> bool {
        self.source().is_some() && !self.last_marker
    }

    /// Forwards nothing more of the source. The next one continues where it ended.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// Continues the outgoing stream with `packet`, the first one of another source.
    pub fn switch(&mut self, source: Source, packet: &Packet, squeezed: Option<Squeezed>) {
        let same_timeline = self.source.is_some_and(|s| s.epoch == source.epoch);
        let next_seq = self.last.map_or(FIRST_SEQ, |last| last.seq + 1);
        self.seq_offset = next_seq as i64 - packet.seq as i64;
        self.first_in_seq = packet.seq;
        self.replayed = None;
        if let Some(last) = self.last {
            let (timestamp, captured) = dated(packet, squeezed);
            if !same_timeline {
                let elapsed = captured.saturating_duration_since(last.captured);
                let ticks = self.ticks(elapsed).max(self.step());
                self.timestamp_offset = last.timestamp.wrapping_add(ticks).wrapping_sub(timestamp);
            }
            self.vp8_offset = Vp8Offset::continuing(last.vp8, packet.vp8);
        }
        self.source = Some(source);
        self.detached = false;
    }

    /// Packets up to this incoming sequence number were replayed: the queue's copies of them are skipped.
    pub fn set_replayed(&mut self, seq: u64) {
        self.replayed = Some(seq);
    }

    /// How `packet` of the current source leaves, or `None` where it is not for this viewer.
    pub fn rewrite(&mut self, packet: &Packet, squeezed: Option<Squeezed>) -> Option<Rewritten> {
        if packet.seq < self.first_in_seq {
            return None;
        }
        if squeezed.is_none() && self.replayed.is_some_and(|until| packet.seq <= until) {
            return None;
        }
        let seq = packet.seq.checked_add_signed(self.seq_offset)?;
        let (timestamp, captured) = dated(packet, squeezed);
        let mut timestamp = timestamp.wrapping_add(self.timestamp_offset);
        let newer = self.last.is_none_or(|last| seq > last.seq);
        if let (true, Some(last)) = (newer, self.last) {
            // A frame of the new layer may carry the same instant as the last one of the old: time only moves on.
            let first_of_source = packet.seq == self.first_in_seq;
            if first_of_source && !is_after(timestamp, last.timestamp) {
                let wanted = last.timestamp.wrapping_add(self.step());
                self.timestamp_offset = self
                    .timestamp_offset
                    .wrapping_add(wanted.wrapping_sub(timestamp));
                timestamp = wanted;
            }
        }
        let vp8 = packet.vp8.map(|header| self.vp8_offset.apply(header));
        if newer {
            self.last_in_timestamp = Some(packet.timestamp);
            self.last_marker = packet.marker;
            self.last = Some(Last {
                seq,
                timestamp,
                captured,
                vp8,
            });
        }
        Some(Rewritten {
            seq,
            timestamp,
            captured,
            vp8,
        })
    }

    fn ticks(&self, time: Duration) -> u32 {
        (time.as_nanos() * u128::from(self.clock_rate) / 1_000_000_000) as u32
    }

    /// One millisecond: the smallest distance between two frames.
    fn step(&self) -> u32 {
        self.clock_rate / 1_000
    }
}

fn dated(packet: &Packet, squeezed: Option<Squeezed>) -> (u32, Instant) {
    squeezed.map_or((packet.timestamp, packet.captured), |s| {
        (s.timestamp, s.captured)
    })
}

/// Whether timestamp `a` is later than `b`, over the wrap.
fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

impl Vp8Offset {
    /// Offsets with which the first packet of a source has the counters that follow `last`.
    fn continuing(last: Option<Vp8Header>, first: Option<Vp8Header>) -> Self {
        let (Some(last), Some(first)) = (last, first) else {
            return Self::default();
        };
        let picture_id = match (last.picture_id, first.picture_id) {
            (Some((last, _)), Some((first, _))) => last.wrapping_add(1).wrapping_sub(first),
            _ => 0,
        };
        let tl0_pic_idx = match (last.tl0_pic_idx, first.tl0_pic_idx) {
            (Some(last), Some(first)) => last.wrapping_add(1).wrapping_sub(first),
            _ => 0,
        };
        Self {
            picture_id,
            tl0_pic_idx,
        }
    }

    fn apply(self, header: Vp8Header) -> Vp8Header {
        Vp8Header {
            picture_id: header.picture_id.map(|(id, long)| {
                let mask = if long { 0x7fff } else { 0x7f };
                (id.wrapping_add(self.picture_id) & mask, long)
            }),
            tl0_pic_idx: header
                .tl0_pic_idx
                .map(|index| index.wrapping_add(self.tl0_pic_idx)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(seq: u64, timestamp: u32, captured: Instant) -> Packet {
        Packet {
            seq,
            timestamp,
            captured,
            marker: true,
            keyframe_start: true,
            vp8: Some(Vp8Header {
                picture_id: Some(((seq & 0x7fff) as u16, true)),
                tl0_pic_idx: Some(seq as u8),
            }),
            payload: Vec::new().into(),
            red: None,
        }
    }

    const fn source(epoch: u32, layer: usize) -> Source {
        Source { epoch, layer }
    }

    #[test]
    fn a_layer_switch_at_the_same_instant_moves_time_on() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000);
        rewriter.switch(source(0, 0), &packet(70_000, 9_000, now), None);
        let a = rewriter.rewrite(&packet(70_000, 9_000, now), None).unwrap();
        assert_eq!((a.seq, a.timestamp), (FIRST_SEQ, 9_000));
        rewriter.switch(source(0, 1), &packet(300_000, 9_000, now), None);
        let b = rewriter
            .rewrite(&packet(300_000, 9_000, now), None)
            .unwrap();
        assert_eq!((b.seq, b.timestamp), (FIRST_SEQ + 1, 9_090));
        assert_eq!(rewriter.rewrite(&packet(299_999, 8_000, now), None), None);
    }

    #[test]
    fn a_new_publisher_continues_in_real_time() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000);
        rewriter.switch(source(0, 0), &packet(70_000, 1_000, now), None);
        rewriter.rewrite(&packet(70_000, 1_000, now), None);
        let later = now + Duration::from_secs(2);
        rewriter.switch(source(1, 0), &packet(80_000, 77, later), None);
        let out = rewriter.rewrite(&packet(80_000, 77, later), None).unwrap();
        assert_eq!(out.timestamp, 1_000 + 180_000);
    }

    #[test]
    fn replayed_packets_are_not_sent_twice() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000);
        let squeezed = Some(Squeezed {
            timestamp: 8_910,
            captured: now,
        });
        rewriter.switch(source(0, 0), &packet(70_000, 3_000, now), squeezed);
        let first = rewriter
            .rewrite(&packet(70_000, 3_000, now), squeezed)
            .unwrap();
        assert_eq!(first.timestamp, 8_910);
        rewriter.set_replayed(70_001);
        assert_eq!(rewriter.rewrite(&packet(70_001, 9_000, now), None), None);
        let live = rewriter
            .rewrite(&packet(70_002, 12_000, now), None)
            .unwrap();
        assert_eq!((live.seq, live.timestamp), (FIRST_SEQ + 2, 12_000));
    }

    proptest! {
        /// Whatever the layers, publishers and wraps: numbers rise by one a packet, picture ids too, time moves on.
        #[test]
        fn the_outgoing_stream_is_continuous(
            runs in proptest::collection::vec((0u32..3, 0usize..3, 1u64..40, any::<u32>(), any::<u16>()), 1..20)
        ) {
            let mut rewriter = Rewriter::new(90_000);
            let mut now = Instant::now();
            let mut last: Option<Rewritten> = None;
            for (n, (_, layer, count, timestamp, seq)) in runs.into_iter().enumerate() {
                let first_seq = (1 << 16) + u64::from(seq);
                let source = source(n as u32, layer);
                for i in 0..count {
                    now += Duration::from_millis(33);
                    let packet = packet(first_seq + i, timestamp.wrapping_add(i as u32 * 3_000), now);
                    if i == 0 {
                        rewriter.switch(source, &packet, None);
                    }
                    let out = rewriter.rewrite(&packet, None).expect("packets in order are forwarded");
                    if let Some(last) = last {
                        prop_assert_eq!(out.seq, last.seq + 1);
                        prop_assert!(is_after(out.timestamp, last.timestamp));
                        let id = |r: Rewritten| r.vp8.unwrap().picture_id.unwrap().0;
                        prop_assert_eq!(id(out), (id(last) + 1) & 0x7fff);
                        let tl0 = |r: Rewritten| r.vp8.unwrap().tl0_pic_idx.unwrap();
                        prop_assert_eq!(tl0(out), tl0(last).wrapping_add(1));
                    }
                    last = Some(out);
                }
            }
        }
    }
}
