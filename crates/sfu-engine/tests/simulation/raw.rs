// SPDX-License-Identifier: MPL-2.0

//! A publisher of which a test writes each octet: a `str0m` peer connects, and what comes afterwards is sealed with its keys.

use std::collections::BTreeMap;
use std::time::Duration;

use sfu_engine::rtcp::{Rtcp, packets};
use sfu_engine::srtp::{Protect, Unprotect};

use crate::keys;
use crate::publisher::{FRAME, Frame, payload};
use crate::world::World;

/// What the peer has offered: H.264, its retransmissions, Opus.
pub(crate) const VIDEO: u8 = 102;
pub(crate) const RTX: u8 = 103;

/// A packet as it is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Rtp {
    pub(crate) ssrc: u32,
    /// Its number, which never wraps.
    pub(crate) index: u64,
    pub(crate) pt: u8,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// Profile and elements.
    pub(crate) extension: Option<(u16, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
    /// Octets of padding behind it.
    pub(crate) padding: u8,
}

impl Default for Rtp {
    fn default() -> Self {
        Self {
            ssrc: 0x1234,
            index: 1_000,
            pt: VIDEO,
            timestamp: 0,
            marker: false,
            extension: None,
            payload: Vec::new(),
            padding: 0,
        }
    }
}

impl Rtp {
    /// The packet in the clear, and how much of it is header.
    pub(crate) fn clear(&self) -> (Vec<u8>, usize) {
        let mut first = 0x80;
        if self.extension.is_some() {
            first |= 0x10;
        }
        if self.padding > 0 {
            first |= 0x20;
        }
        let mut data = vec![first, u8::from(self.marker) << 7 | self.pt];
        data.extend((self.index as u16).to_be_bytes());
        data.extend(self.timestamp.to_be_bytes());
        data.extend(self.ssrc.to_be_bytes());
        if let Some((profile, elements)) = &self.extension {
            let words = elements.len().div_ceil(4);
            data.extend(profile.to_be_bytes());
            data.extend((words as u16).to_be_bytes());
            data.extend(elements);
            data.resize(data.len() + words * 4 - elements.len(), 0);
        }
        let header = data.len();
        data.extend(&self.payload);
        if self.padding > 0 {
            data.resize(data.len() + usize::from(self.padding) - 1, 0);
            data.push(self.padding);
        }
        (data, header)
    }
}

/// See the module's description. Its next packet is `next`.
pub(crate) struct Raw {
    protect: Protect,
    unprotect: Unprotect,
    pub(crate) next: Rtp,
    frame: u32,
    key_at: u32,
    /// Makes a keyframe next.
    pub(crate) key: bool,
    /// Its keyframes have no parameter sets.
    pub(crate) is_bare: bool,
    /// What has been sent, by SSRC and number, so that it can be sent again.
    pub(crate) sent: BTreeMap<(u32, u16), Vec<u8>>,
}

/// What the publisher was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// SSRC and numbers that were asked for again.
    pub(crate) lost: Vec<(u32, u16)>,
    /// SSRCs of which a keyframe was wanted.
    pub(crate) keyframes: Vec<u32>,
    /// SSRC, fraction lost and in all.
    pub(crate) blocks: Vec<(u32, u8, i32)>,
    pub(crate) datagrams: usize,
    pub(crate) largest: usize,
}

impl Raw {
    /// A world with such a publisher, that has sent no pictures yet.
    pub(crate) fn world(seed: u64) -> (World, Self) {
        Self::world_of(seed, 1)
    }

    /// The same with so many layers.
    pub(crate) fn world_of(seed: u64, layers: usize) -> (World, Self) {
        let (crypto, told) = keys::told();
        let mut world = World::with_silent_peer_of(seed, layers, crypto);
        let agreed = told.lock().unwrap()[0].clone();
        world.told = Some(Vec::new());
        let raw = Self {
            protect: agreed.protect(),
            unprotect: agreed.unprotect(),
            next: Rtp::default(),
            frame: 0,
            key_at: 0,
            key: true,
            is_bare: false,
            sent: BTreeMap::new(),
        };
        (world, raw)
    }

    pub(crate) fn seal(&mut self, packet: &Rtp) -> Vec<u8> {
        let (mut data, header) = packet.clear();
        let roc = (packet.index >> 16) as u32;
        self.protect.rtp(&mut data, 0, header, roc).unwrap();
        data
    }

    /// The same of octets that are no packet of ours.
    pub(crate) fn seal_clear(&mut self, data: &mut Vec<u8>, header: usize, index: u64) {
        let roc = (index >> 16) as u32;
        self.protect.rtp(data, 0, header, roc).unwrap();
    }

    pub(crate) fn seal_report(&mut self, mut compound: Vec<u8>) -> Vec<u8> {
        self.protect.rtcp(&mut compound, 0).unwrap();
        compound
    }

    /// The next packet with this payload, sealed.
    pub(crate) fn sealed(&mut self, payload: &[u8]) -> Vec<u8> {
        let packet = Rtp {
            payload: payload.to_vec(),
            ..self.next.clone()
        };
        self.next.index += 1;
        let data = self.seal(&packet);
        self.sent
            .insert((packet.ssrc, packet.index as u16), data.clone());
        data
    }

    /// A frame's packets, sealed.
    pub(crate) fn frame(&mut self) -> Vec<Vec<u8>> {
        let key = std::mem::take(&mut self.key);
        if key {
            self.key_at = self.frame;
        }
        let count = if key { 6 } else { 3 };
        let frame = Frame::new(self.frame, self.key_at, 1);
        self.frame += 1;
        let packets = (0..count).map(|index| {
            self.next.marker = index + 1 == count;
            let mut payload = payload(frame, 0, index, count).to_vec();
            if self.is_bare && key {
                payload[0] = 0x65;
            }
            self.sealed(&payload)
        });
        let packets = packets.collect();
        self.next.timestamp = self.next.timestamp.wrapping_add(33 * 90);
        packets
    }

    /// Sends a frame, and lets its time pass.
    pub(crate) fn send_frame(&mut self, world: &mut World) {
        for data in self.frame() {
            assert!(!world.inject_from_peer(0, &data), "it is authentic");
        }
        world.run_for(FRAME);
    }

    pub(crate) fn send_frames(&mut self, world: &mut World, count: usize) {
        for _ in 0..count {
            self.send_frame(world);
        }
    }

    /// What the publisher was told since the last call.
    pub(crate) fn told(&mut self, world: &mut World) -> Told {
        let mut told = Told::default();
        for mut data in world.told.as_mut().unwrap().drain(..) {
            if !matches!(data[..], [128..=191, 192..=223, ..]) {
                continue;
            }
            told.datagrams += 1;
            told.largest = told.largest.max(data.len());
            let compound = self.unprotect.rtcp(&mut data).expect("authentic");
            for (n, packet) in packets(compound).enumerate() {
                let packet = packet.expect("well-formed");
                let is_report = matches!(packet, Rtcp::ReceiverReport { .. });
                assert!(is_report || n > 0, "a compound begins with a report");
                match packet {
                    Rtcp::Nack { media_ssrc, lost } => {
                        told.lost.extend(lost.map(|seq| (media_ssrc, seq)));
                    }
                    Rtcp::Pli { media_ssrc } => told.keyframes.push(media_ssrc),
                    Rtcp::ReceiverReport { blocks } => told
                        .blocks
                        .extend(blocks.map(|b| (b.ssrc, b.fraction_lost, b.cumulative_lost))),
                    _ => {}
                }
            }
        }
        told
    }

    /// Obeys requests for keyframes and, later, those for packets.
    pub(crate) fn obey(
        &mut self,
        world: &mut World,
        trip: Duration,
        later: &mut Vec<(std::time::Instant, Vec<u8>)>,
    ) -> Told {
        let told = self.told(world);
        self.key |= !told.keyframes.is_empty();
        let again = told.lost.iter().filter_map(|lost| self.sent.get(lost));
        later.extend(again.map(|data| (world.now + trip, data.clone())));
        told
    }
}
