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
