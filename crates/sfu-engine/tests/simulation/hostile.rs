// SPDX-License-Identifier: MPL-2.0

//! A viewer whose reports are written by somebody who means no good.

use std::net::SocketAddr;
use std::time::Duration;

use sfu_engine::srtp::Protect;

use crate::keys;
use crate::net::good;
use crate::world::World;
use crate::worst::{Target, sealed};

/// Packets of a frame: 2,400 a second, of 20 Mbit/s.
const PACKETS: u32 = 80;

/// Viewer 0 is the hostile one, and says nothing of its own any more.
pub(crate) struct Hostile {
    pub(crate) world: World,
    protect: Protect,
    video: u32,
    unreported: u16,
}

/// What a datagram did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) price: Duration,
    pub(crate) keyframe_requests: u64,
    pub(crate) beyond: u64,
    pub(crate) invalid: u64,
    pub(crate) over_budget: u64,
    pub(crate) failed: u64,
}

impl Hostile {
    /// With so many others, who mean well. What was sent in the last seconds was not reported.
    pub(crate) fn new(others: usize) -> Self {
        Self::in_world(World::new(1, 1), others)
    }

    pub(crate) fn in_world(mut world: World, others: usize) -> Self {
        world.publisher.delta_packets = PACKETS;
        let (crypto, told) = keys::told();
        world.viewers_crypto = Some(crypto);
        world.join(good(), None);
        world.viewers_crypto = None;
        for _ in 0..others {
            world.join(good(), None);
        }
        world.run_for(Duration::from_secs(3));
        let agreed = told.lock().unwrap()[0].clone();
        let viewer = &world.viewers[0].0;
        let video = viewer.answer.split("m=video").nth(1).unwrap();
        let video = video.lines().find_map(|l| l.strip_prefix("a=ssrc:"));
        let video = video.and_then(|l| l.split(' ').next()?.parse().ok());
        let unreported = viewer.number.unwrap().wrapping_add(1);
        world.mute(0);
        world.run_for(Duration::from_secs(2));
        Self {
            world,
            protect: agreed.protect(),
            video: video.expect("an SSRC"),
            unreported,
        }
    }

    pub(crate) fn target(&self) -> Target {
        let viewer = &self.world.viewers[0].0;
        let next = viewer.number.unwrap().wrapping_add(1);
        Target {
            video: self.video,
            newest: *viewer.packets.keys().last().unwrap() as u16,
            unreported: self.unreported,
            under_way: next.wrapping_sub(self.unreported),
        }
    }

    pub(crate) fn seal(&mut self, compound: Vec<u8>) -> Option<Vec<u8>> {
        sealed(&mut self.protect, compound)
    }

    /// A datagram comes from the viewer's address.
    pub(crate) fn deliver(&mut self, data: &[u8]) -> Done {
        let source = self.world.viewers[0].0.address;
        self.deliver_from(source, data)
    }

    pub(crate) fn deliver_from(&mut self, source: SocketAddr, data: &[u8]) -> Done {
        let world = &mut self.world;
        let before = world.counters.snapshot();
        let server = "192.0.2.1:8189".parse().unwrap();
        world.shard.receive(world.now, source, server, data);
        let after = world.counters.snapshot();
        Done {
            price: Duration::from_nanos(after.work_nanoseconds - before.work_nanoseconds),
            keyframe_requests: after.keyframe_requests - before.keyframe_requests,
            beyond: after.reports_beyond - before.reports_beyond,
            invalid: after.datagrams_invalid - before.datagrams_invalid,
            over_budget: after.datagrams_over_budget - before.datagrams_over_budget,
            failed: after.sessions_failed - before.sessions_failed,
        }
    }
}
