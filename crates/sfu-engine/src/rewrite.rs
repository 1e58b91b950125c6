// SPDX-License-Identifier: MPL-2.0

//! Makes many layers look like one stream: sequence numbers, timestamps and VP8 counters stay continuous
//! when a viewer changes its layer, goes without the upper temporal layers, joins late, or the publisher is replaced.
//!
//! One rewriter a viewer and track, called by the forwarder for each packet: it allocates nothing.

use std::time::{Duration, Instant};

use crate::codec::Vp8Header;
use crate::packet::Packet;
use crate::temporal::Limit;

/// The first outgoing sequence number. The rollover counter that SRTP derives from it must begin at zero, and a few
/// reordered packets from before the first must not fall below it.
const FIRST_SEQ: u64 = 1_000;

/// Changes of temporal layers after which a packet may still come late: a way down and the steps of a way up.
const MAPPINGS: usize = 4;

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
    /// The number of its frame, where it has a dependency descriptor.
    pub frame_number: Option<u16>,
    /// The viewer goes without what it holds, but has been promised its number: it leaves with nothing in it.
    pub empty: bool,
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
    /// The newest packet of the source, before rewriting.
    newest_in: Option<NewestIn>,
    /// Packets of the source up to this one were replayed, and come again from the queue.
    replayed: Option<u64>,
    /// Those of them that had not come by then.
    holes: Vec<u64>,
    /// Newest first. The others are for packets that come late.
    mappings: [Option<Mapping>; MAPPINGS],
    /// The temporal layers that the viewer is to get.
    wanted: Limit,
    timestamp_offset: u32,
    frames: FrameNumbers,
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct NewestIn {
    seq: u64,
    timestamp: u32,
    /// Nothing more is to come of its frame for this viewer.
    ends_frame: bool,
}

/// How numbers become the viewer's, from a packet of the source on.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    /// The first packet that it is for.
    from: u64,
    /// The temporal layers that leave.
    limit: Limit,
    seq_offset: i64,
    vp8_offset: Vp8Offset,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    seq: u64,
    timestamp: u32,
    captured: Instant,
    vp8: Option<Vp8Header>,
}

/// The numbers of frames in dependency descriptors.
#[derive(Debug, Clone, Copy, Default)]
struct FrameNumbers {
    offset: u16,
    /// The newest that left.
    newest: Option<u16>,
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
            newest_in: None,
            replayed: None,
            holes: Vec::new(),
            mappings: [None; MAPPINGS],
            wanted: Limit::ALL,
            timestamp_offset: 0,
            frames: FrameNumbers::default(),
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
        self.newest_in
            .is_none_or(|newest| newest.timestamp != packet.timestamp)
    }

    /// Whether the last frame of what is forwarded is still on its way.
    pub fn is_mid_frame(&self) -> bool {
        self.source().is_some() && self.newest_in.is_some_and(|newest| !newest.ends_frame)
    }

    /// The temporal layers that leave.
    pub fn limit(&self) -> Limit {
        self.mappings[0].map_or(Limit::ALL, |mapping| mapping.limit)
    }

    /// From a frame on at which the source lets it, these temporal layers leave and no others.
    pub fn set_limit(&mut self, limit: Limit) {
        self.wanted = limit;
    }

    /// Forwards nothing more of the source. The next one continues where it ended.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// What comes next is of another stream, whose publishers and layers have numbers of their own.
    pub fn forget_source(&mut self) {
        self.source = None;
        self.newest_in = None;
    }

    /// Continues the outgoing stream with `packet`, the first one of another source, and its temporal layers up to `limit`.
    pub fn switch(
        &mut self,
        source: Source,
        packet: &Packet,
        squeezed: Option<Squeezed>,
        limit: Limit,
    ) {
        let same_timeline = self.source.is_some_and(|s| s.epoch == source.epoch);
        let next_seq = self.last.map_or(FIRST_SEQ, |last| last.seq + 1);
        let mut vp8_offset = Vp8Offset::default();
        if let Some(last) = self.last {
            let (timestamp, captured) = dated(packet, squeezed);
            if !same_timeline {
                let elapsed = captured.saturating_duration_since(last.captured);
                let ticks = self.ticks(elapsed).max(self.step());
                self.timestamp_offset = last.timestamp.wrapping_add(ticks).wrapping_sub(timestamp);
            }
            vp8_offset = Vp8Offset::continuing(last.vp8, packet.vp8);
        }
        vp8_offset.add_frames(packet.temporal.frames_above(limit));
        self.mappings = [None; MAPPINGS];
        self.mappings[0] = Some(Mapping {
            from: packet.seq,
            limit,
            seq_offset: next_seq as i64 - position(packet, limit),
            vp8_offset,
        });
        self.wanted = limit;
        self.newest_in = None;
        self.replayed = None;
        self.holes.clear();
        self.source = Some(source);
        self.detached = false;
    }

    /// Packets up to this incoming sequence number were replayed, but for `holes`: the queue's copies of them are skipped.
    pub fn set_replayed(&mut self, seq: u64, holes: Vec<u64>) {
        self.replayed = Some(seq);
        self.holes = holes;
    }

    /// Whether the queue's copy of a packet has left already, by a replay. Called once for each.
    fn was_replayed(&mut self, seq: u64) -> bool {
        if self.replayed.is_none_or(|until| seq > until) {
            return false;
        }
        match self.holes.iter().position(|hole| *hole == seq) {
            Some(index) => {
                self.holes.swap_remove(index);
                false
            }
            None => true,
        }
    }

    /// How `packet` of the current source leaves, or `None` where it is not for this viewer.
    pub fn rewrite(&mut self, packet: &Packet, squeezed: Option<Squeezed>) -> Option<Rewritten> {
        if squeezed.is_none() && self.was_replayed(packet.seq) {
            return None;
        }
        self.approach_limit(packet);
        let is_newest = self.newest_in.is_none_or(|n| packet.seq > n.seq);
        let mut mappings = self.mappings.iter().flatten();
        let mapping = *mappings.find(|mapping| packet.seq >= mapping.from)?;
        let is_wanted = packet.temporal.is_within(mapping.limit);
        if is_newest {
            self.newest_in = Some(NewestIn {
                seq: packet.seq,
                timestamp: packet.timestamp,
                ends_frame: packet.marker || !is_wanted,
            });
        }
        if !is_wanted && !packet.temporal.late {
            return None;
        }
        let seq = u64::try_from(position(packet, mapping.limit) + mapping.seq_offset).ok()?;
        let (timestamp, captured) = dated(packet, squeezed);
        let mut timestamp = timestamp.wrapping_add(self.timestamp_offset);
        if !is_wanted {
            let last = self.last.as_mut()?;
            // Nothing else may get that number, whatever comes next.
            last.seq = last.seq.max(seq);
            return Some(Rewritten {
                seq,
                timestamp,
                captured,
                vp8: None,
                frame_number: None,
                empty: true,
            });
        }
        let newer = self.last.is_none_or(|last| seq > last.seq);
        if let (true, Some(last)) = (newer, self.last) {
            // A frame of the new layer may carry the same instant as the last one of the old: time only moves on.
            let first_of_source = self.mappings[1].is_none() && packet.seq == mapping.from;
            if first_of_source && !is_after(timestamp, last.timestamp) {
                let wanted = last.timestamp.wrapping_add(self.step());
                self.timestamp_offset = self
                    .timestamp_offset
                    .wrapping_add(wanted.wrapping_sub(timestamp));
                timestamp = wanted;
            }
        }
        let frames_above = packet.temporal.frames_above(mapping.limit);
        let vp8 = packet
            .vp8
            .map(|header| mapping.vp8_offset.apply(header, frames_above));
        let frames = &mut self.frames;
        let frame_number = packet
            .descriptor
            .as_ref()
            .map(|descriptor| frames.leaves_as(descriptor.frame_number(), packet.begins_layer()));
        if newer {
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
            frame_number,
            empty: false,
        })
    }

    /// Where a frame begins whose predecessor is known to the end, other temporal layers may leave from there on.
    fn approach_limit(&mut self, packet: &Packet) {
        let (Some(mapping), Some(newest)) = (self.mappings[0], self.newest_in) else {
            return;
        };
        let limit = mapping.limit;
        if limit == self.wanted {
            return;
        }
        if packet.seq != newest.seq + 1 || packet.timestamp == newest.timestamp {
            return;
        }
        let temporal = &packet.temporal;
        let next = temporal.step(limit, self.wanted, packet.keyframe_start);
        if next == limit {
            return;
        }
        let mut mapping = Mapping {
            from: packet.seq,
            limit: next,
            ..mapping
        };
        mapping.seq_offset += position(packet, limit) - position(packet, next);
        let frames = temporal.frames_above(next);
        let frames = frames.wrapping_sub(temporal.frames_above(limit));
        mapping.vp8_offset.add_frames(frames);
        self.mappings.rotate_right(1);
        self.mappings[0] = Some(mapping);
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

/// A packet's number among those of its layer that pass a limit.
fn position(packet: &Packet, limit: Limit) -> i64 {
    packet.seq as i64 - packet.temporal.packets_above(limit) as i64
}

/// Whether timestamp `a` is later than `b`, over the wrap.
fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

impl FrameNumbers {
    /// Layers of one publisher share its numbers, of which a viewer may miss any. Only a keyframe that is not ahead of what has left,
    /// as of the next publisher or another SSRC, moves them: receivers drop it otherwise (`libwebrtc` takes it for one
    /// that comes late).
    fn leaves_as(&mut self, number: u16, begins: bool) -> u16 {
        let number_out = number.wrapping_add(self.offset);
        let Some(newest) = self.newest else {
            self.newest = Some(number_out);
            return number_out;
        };
        let is_ahead = (number_out.wrapping_sub(newest) as i16) > 0;
        if !is_ahead && !begins {
            return number_out;
        }
        let number_out = if is_ahead {
            number_out
        } else {
            newest.wrapping_add(1)
        };
        self.offset = number_out.wrapping_sub(number);
        self.newest = Some(number_out);
        number_out
    }
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

    /// So many frames do not leave from here on.
    fn add_frames(&mut self, frames: u16) {
        self.picture_id = self.picture_id.wrapping_add(frames);
    }

    fn apply(self, header: Vp8Header, frames_above: u16) -> Vp8Header {
        Vp8Header {
            picture_id: header.picture_id.map(|(id, long)| {
                let mask = if long { 0x7fff } else { 0x7f };
                let id = id.wrapping_add(self.picture_id).wrapping_sub(frames_above);
                (id & mask, long)
            }),
            tl0_pic_idx: header
                .tl0_pic_idx
                .map(|index| index.wrapping_add(self.tl0_pic_idx)),
        }
    }
}

#[cfg(test)]
mod tests;
