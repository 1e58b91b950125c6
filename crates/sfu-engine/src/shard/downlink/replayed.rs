// SPDX-License-Identifier: MPL-2.0

//! The group of pictures that was replayed to a viewer, for as long as it may want parts of it again: most of it is older
//! than what the layer's [`Ring`](super::super::ring) holds.

use std::time::{Duration, Instant};

use crate::gop::Gop;
use crate::packet::Packet;
use crate::rewrite::Source;

/// After its last portion has left; as long as rings hold packets.
const KEPT: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Replayed {
    gop: Gop,
    source: Source,
    until: Instant,
}

impl Replayed {
    pub(super) fn new(now: Instant, gop: Gop, source: Source) -> Self {
        let until = now + KEPT;
        Self { gop, source, until }
    }

    /// Some of it leaves now.
    pub(super) fn keep(&mut self, now: Instant) {
        self.until = now + KEPT;
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// The packet with this number, where it was among those replayed.
    pub(super) fn get(&self, source: Source, seq: u64) -> Option<&Packet> {
        if source != self.source {
            return None;
        }
        // They are in order, and there may be thousands.
        let packets = &self.gop.packets;
        let place = packets.binary_search_by_key(&seq, |kept| kept.packet().seq);
        place.ok().map(|place| packets[place].packet())
    }
}
