// SPDX-License-Identifier: MPL-2.0

//! Links with delay and loss between the shard and its viewers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// A small random generator (SplitMix64), so that a seed means the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= probability && probability > 0.0
    }
}

/// How a viewer is connected, the same both ways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) loss: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            loss: 0.0,
        }
    }
}

/// Where a datagram is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Shard,
    Viewer,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InFlight {
    pub(crate) at: Instant,
    order: u64,
    pub(crate) to: To,
    pub(crate) viewer: usize,
    pub(crate) data: Vec<u8>,
}

/// All datagrams under way.
#[derive(Debug, Default)]
pub(crate) struct Network {
    queue: BinaryHeap<Reverse<InFlight>>,
    order: u64,
}

impl Network {
    pub(crate) fn send(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        link: Link,
        to: To,
        viewer: usize,
        data: &[u8],
    ) {
        if rng.chance(link.loss) {
            return;
        }
        self.order += 1;
        self.queue.push(Reverse(InFlight {
            at: now + link.delay,
            order: self.order,
            to,
            viewer,
            data: data.to_vec(),
        }));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(d)| d.at)
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<InFlight> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(d)| d)
    }
}
