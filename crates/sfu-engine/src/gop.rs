// SPDX-License-Identifier: MPL-2.0

//! The current group of pictures of a layer, kept so that a viewer who joins sees a picture at once.
//!
//! Filled by the publisher's side for each batch, copied (references only) for each viewer who joins. Packets that come late,
//! reordered or sent again, take their place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::held::{Held, Total};
use crate::packet::{Batch, Packet};

/// What a layer's group of pictures may take: 2 s of 20 Mbit/s (2160p) with what each packet takes besides, and a third more;
/// eight seconds of 6 Mbit/s (OBS makes a keyframe each 250 frames by default). A larger one is not replayed.
const MAX_OCTETS: usize = 8 << 20;
/// A packet takes so much besides its payload.
const PACKET: usize = 200;
/// A decoder must be through soon: some make no more than 150 frames a second.
const MAX_FRAMES: u32 = 300;
const MAX_AGE: Duration = Duration::from_secs(10);
/// What those of all layers in the process may take, beyond [`FAIR`] for each.
const MAX_OCTETS_IN_ALL: usize = 256 << 20;
const FAIR: usize = 512 << 10;
/// A group of pictures whose newest packet is older is a layer that stopped.
const MAX_SILENCE: Duration = Duration::from_secs(1);
/// Packets that may be missing at a time, and for how long: repair takes a few round trips (see [`crate::loss`]). After that
/// it is of no use to a decoder.
const MAX_HOLES: usize = 64;
const PATIENCE: Duration = Duration::from_millis(400);
/// A keyframe's first packets that came after others of it are so near.
const NEAR: u64 = 16;
/// Who joins a publisher that makes keyframes when it is asked had better have one than catch up with more than this.
const YOUNG: Duration = Duration::from_secs(4);

/// What all groups of pictures of the process take.
static HELD: Total = Total::new();

/// A packet by reference.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The batch that it came in.
    pub batch: Arc<Batch>,
    /// Its place there.
    pub index: usize,
}

impl Kept {
    /// The packet.
    pub fn packet(&self) -> &Packet {
        &self.batch.packets[self.index]
    }
}

/// The packets since the last keyframe of a layer.
#[derive(Debug)]
pub struct GopCache {
    /// By sequence number from `first` on. Empty until a keyframe comes, and when it is of no use any more.
    slots: Vec<Option<Kept>>,
    first: u64,
    began: Option<Instant>,
    frames: u32,
    held: Held,
    /// What is missing, and since when. Oldest first.
    holes: Vec<(u64, Instant)>,
    last_arrival: Option<Instant>,
}

impl Default for GopCache {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            first: 0,
            began: None,
            frames: 0,
            held: Held::of(&HELD),
            holes: Vec::new(),
            last_arrival: None,
        }
    }
}

/// What a joiner is sent first.
#[derive(Debug, Clone)]
pub struct Gop {
    /// Its packets in order, beginning with a keyframe.
    pub packets: Vec<Kept>,
    /// Sequence numbers of those that have not come yet, in order.
    pub holes: Vec<u64>,
    /// RTP payload in it.
    pub octets: usize,
    /// What its layer takes in bit/s, where that is known.
    pub rate: Option<u64>,
    /// The publisher makes no keyframe when it is asked.
    pub deaf: bool,
}

impl Gop {
    /// The time from its first picture to its last.
    pub fn span(&self) -> Duration {
        let captured = |kept: &Kept| kept.packet().captured;
        let ends = self.packets.first().zip(self.packets.last());
        ends.map_or(Duration::ZERO, |(first, last)| {
            captured(last).saturating_duration_since(captured(first))
        })
    }

    /// Whether replaying it is better than a new keyframe.
    pub fn is_young(&self) -> bool {
        self.span() <= YOUNG
    }
}

impl GopCache {
    /// Takes in a batch that was just forwarded.
    pub fn push(&mut self, now: Instant, batch: &Arc<Batch>) {
        self.last_arrival = Some(now);
        for (index, packet) in batch.packets.iter().enumerate() {
            let kept = Kept {
                batch: batch.clone(),
                index,
            };
            if packet.keyframe_start {
                self.begin(now, packet.seq);
            }
            if self.began.is_some() {
                self.place(now, packet.seq, kept);
            }
        }
        if self.is_useless(now) {
            // Nothing of it will be replayed: don't hold the memory until the next keyframe.
            self.clear();
        }
    }

    /// The group of pictures to replay, where it is whole but for what may still come, small and fresh.
    pub fn get(&self, now: Instant) -> Option<Gop> {
        let fresh = self
            .last_arrival
            .is_some_and(|at| now.saturating_duration_since(at) < MAX_SILENCE);
        if !fresh || self.slots.is_empty() || self.lacks(now) {
            return None;
        }
        let packets: Vec<Kept> = self.slots.iter().flatten().cloned().collect();
        Some(Gop {
            octets: packets.iter().map(|k| k.packet().payload.len()).sum(),
            packets,
            holes: self.holes.iter().map(|(seq, _)| *seq).collect(),
            rate: None,
            deaf: false,
        })
    }

    /// When its keyframe came.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Forgets everything: the publisher has changed.
    pub fn clear(&mut self) {
        self.slots = Vec::new();
        self.holes.clear();
        self.held.set(0);
        self.frames = 0;
        self.began = None;
    }

    /// A keyframe begins. What came of it already, out of order, stays.
    fn begin(&mut self, now: Instant, seq: u64) {
        let is_old = !self.slots.is_empty() && seq < self.first;
        if is_old {
            return;
        }
        let before = seq.saturating_sub(self.first);
        let before = before.min(self.slots.len() as u64) as usize;
        let stays = self.began.is_some() && before < self.slots.len();
        if stays {
            self.slots.drain(..before);
            self.holes.retain(|(hole, _)| *hole >= seq);
        } else {
            self.slots.clear();
            self.holes.clear();
        }
        self.first = seq;
        self.began = Some(now);
        let octets = self.slots.iter().flatten().map(weight).sum();
        self.held.set(octets);
        let timestamps = self.slots.iter().flatten().map(|k| k.packet().timestamp);
        let mut timestamps: Vec<u32> = timestamps.collect();
        timestamps.dedup();
        self.frames = timestamps.len() as u32;
    }

    fn place(&mut self, now: Instant, seq: u64, kept: Kept) {
        let octets = weight(&kept);
        if seq < self.first {
            return self.place_in_front(now, seq, kept);
        }
        let place = (seq - self.first) as usize;
        if let Some(slot) = self.slots.get_mut(place) {
            if slot.is_some() {
                return;
            }
            *slot = Some(kept);
            self.holes.retain(|(hole, _)| *hole != seq);
        } else {
            let end = self.first + self.slots.len() as u64;
            if seq - end > MAX_HOLES as u64 {
                return self.clear();
            }
            self.holes.extend((end..seq).map(|hole| (hole, now)));
            self.slots.resize(place, None);
            let last = self.slots.iter().rev().flatten().next();
            let timestamp = kept.packet().timestamp;
            self.frames += u32::from(last.is_none_or(|l| l.packet().timestamp != timestamp));
            self.slots.push(Some(kept));
        }
        self.held.set(self.held.octets() + octets);
    }

    /// Packets of the keyframe that belong before the one that was taken for its first.
    fn place_in_front(&mut self, now: Instant, seq: u64, kept: Kept) {
        let first = self.slots.first().and_then(Option::as_ref);
        let same = first.is_some_and(|f| f.packet().timestamp == kept.packet().timestamp);
        if !same || self.first - seq > NEAR {
            return;
        }
        let octets = weight(&kept);
        let missing = (self.first - seq - 1) as usize;
        let new = std::iter::once(Some(kept)).chain(std::iter::repeat_n(None, missing));
        self.slots.splice(0..0, new);
        let holes = (seq + 1..self.first).map(|hole| (hole, now));
        self.holes.splice(0..0, holes);
        self.first = seq;
        self.held.set(self.held.octets() + octets);
    }

    /// Something has been missing for too long.
    fn lacks(&self, now: Instant) -> bool {
        let old = |(_, since): &(u64, Instant)| now.saturating_duration_since(*since) >= PATIENCE;
        self.holes.len() > MAX_HOLES || self.holes.iter().any(old)
    }

    fn is_useless(&self, now: Instant) -> bool {
        let old = self
            .began
            .is_some_and(|at| now.saturating_duration_since(at) > MAX_AGE);
        let crowded = self.held.octets() > FAIR && HELD.octets() > MAX_OCTETS_IN_ALL;
        let large = self.held.octets() > MAX_OCTETS || self.frames > MAX_FRAMES;
        old || crowded || large || self.lacks(now)
    }
}

fn weight(kept: &Kept) -> usize {
    let descriptor = kept.packet().descriptor.as_ref();
    kept.packet().payload.len() + PACKET + descriptor.map_or(0, |d| d.weight())
}

#[cfg(test)]
mod tests;
