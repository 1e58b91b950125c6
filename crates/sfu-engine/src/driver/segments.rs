// SPDX-License-Identifier: MPL-2.0

//! Where many datagrams can leave in one message (UDP segmentation offload, Linux 4.18), and where the kernel refuses.
//!
//! It refuses by route (a device without checksums, a tunnel with an odd size), so that it is learnt by destination, and
//! forgotten after a while: routes change. Called by [`super::socket`] for each message.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What was learnt is tried again after this long. One refused message each minute and destination costs nothing.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// So many refusals without one success: it is the whole machine.
const EVERYWHERE: usize = 16;
/// Destinations that are remembered; at one more, all are tried anew.
const MOST: usize = 4_096;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Segments {
    /// The kernel knows of it at all.
    known: bool,
    refused: HashSet<SocketAddr>,
    /// A message went through once: then no number of destinations is the whole machine.
    works: bool,
    since: Option<Instant>,
}

impl Segments {
    pub(super) fn new(known: bool) -> Self {
        Self {
            known,
            refused: HashSet::new(),
            works: false,
            since: None,
        }
    }

    /// Whether it is used at all.
    pub(super) fn is_on(&self) -> bool {
        self.known && (self.works || self.refused.len() < EVERYWHERE)
    }

    /// Whether several datagrams to this destination can leave as one message.
    pub(super) fn takes(&self, destination: SocketAddr) -> bool {
        self.is_on() && (self.refused.is_empty() || !self.refused.contains(&destination))
    }

    /// A message of several datagrams went through.
    pub(super) fn took(&mut self) {
        self.works = true;
    }

    /// A message of several datagrams was refused for what it was.
    pub(super) fn refuse(&mut self, now: Instant, destination: SocketAddr) {
        if self.refused.is_empty() {
            self.since = Some(now);
        }
        if self.refused.len() >= MOST {
            self.refused.clear();
        }
        self.refused.insert(destination);
        if self.refused.len() == EVERYWHERE && !self.works {
            tracing::warn!(
                "the network refuses UDP segmentation offload: each datagram leaves by itself, which costs more CPU"
            );
        }
    }

    /// The destination refuses single datagrams, too: it was not the segmentation.
    pub(super) fn acquit(&mut self, destination: SocketAddr) {
        self.refused.remove(&destination);
    }

    /// Forgets what was learnt long ago.
    pub(super) fn renew(&mut self, now: Instant) {
        let old = |since| now.saturating_duration_since(since) >= FORGET_AFTER;
        if self.since.is_some_and(old) {
            self.refused.clear();
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn one_destination_costs_nobody_else_the_offload() {
        let now = Instant::now();
        let mut segments = Segments::new(true);
        segments.took();
        for port in 1..1_000 {
            segments.refuse(now, address(port));
        }
        assert!(!segments.takes(address(1)));
        assert!(segments.takes(address(2_000)));
        for port in 1..60_000 {
            segments.refuse(now, address(port));
        }
        assert!(segments.refused.len() <= MOST);
        segments.refuse(now, address(1));
        segments.renew(now + FORGET_AFTER / 2);
        assert!(!segments.takes(address(1)));
        let later = now + FORGET_AFTER;
        segments.renew(later);
        assert!(segments.takes(address(1)), "routes change");
        for port in 1..=EVERYWHERE as u16 {
            segments.refuse(later, address(port));
        }
        assert!(segments.takes(address(9_999)), "who else came first");
    }

    #[test]
    fn a_machine_without_it_is_recognised_and_tried_again() {
        let now = Instant::now();
        let mut segments = Segments::new(true);
        for port in 1..=EVERYWHERE as u16 {
            assert!(segments.takes(address(9_999)));
            segments.refuse(now, address(port));
        }
        assert!(!segments.takes(address(9_999)));
        segments.renew(now + FORGET_AFTER);
        assert!(segments.takes(address(9_999)));
        assert!(!Segments::new(false).takes(address(1)));
    }
}
