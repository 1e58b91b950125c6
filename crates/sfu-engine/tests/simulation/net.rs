// SPDX-License-Identifier: MPL-2.0

//! The datagrams under way between the shard and its viewers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use sfu_impair::Conditions;

/// A link without loss and limit.
pub(crate) fn good() -> Conditions {
    Conditions {
        delay: Duration::from_millis(5),
        ..Conditions::default()
    }
}

/// What a link does to datagrams besides what a test is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// What is lost is lost in bursts: 1 % at least.
    Bursts,
    /// Some are overtaken by others.
    Disorder,
    Both,
}

impl Trouble {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Bursts, Self::Disorder, Self::Both];

    /// The same link with this trouble.
    pub(crate) fn on(self, mut link: Conditions) -> Conditions {
        if matches!(self, Self::Bursts | Self::Both) {
            link.loss = link.loss.max(0.01);
            link.burst = 4.0;
        }
        if matches!(self, Self::Disorder | Self::Both) {
            link.reorder = 0.01;
            link.reorder_by = Duration::from_millis(15);
        }
        link
    }
}

/// Each seed with each trouble.
pub(crate) fn troubled(seeds: std::ops::Range<u64>) -> impl Iterator<Item = (u64, Trouble)> {
    seeds.flat_map(|seed| Trouble::ALL.map(|trouble| (seed, trouble)))
}

/// Whose link a datagram is on, and in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    FromViewer,
    ToViewer,
    FromPeer,
    ToPeer,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InFlight {
    pub(crate) at: Instant,
    order: u64,
    pub(crate) way: Way,
    pub(crate) index: usize,
    pub(crate) data: Vec<u8>,
}

/// All datagrams under way.
#[derive(Debug, Default)]
pub(crate) struct Network {
    queue: BinaryHeap<Reverse<InFlight>>,
    order: u64,
}

impl Network {
    pub(crate) fn send(&mut self, at: Instant, way: Way, index: usize, data: &[u8]) {
        self.order += 1;
        self.queue.push(Reverse(InFlight {
            at,
            order: self.order,
            way,
            index,
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
