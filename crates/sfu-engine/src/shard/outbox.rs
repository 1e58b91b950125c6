// SPDX-License-Identifier: MPL-2.0

//! Datagrams on their way out, gathered so that one viewer's packets of a frame leave in one system call.
//!
//! UDP segmentation offload takes equal datagrams, of which only the last may be shorter.

use std::net::SocketAddr;
use std::ops::Range;

/// As many as leave in one system call, and about as much as a core's cache holds.
const FULL_SENDS: usize = 64;
const FULL_BYTES: usize = 512 * 1_024;
/// The kernel's limit for one offloaded send.
const MAX_BYTES: usize = 65_000;

/// Datagrams of equal size (the last may be shorter) to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagrams {
    /// The local address to send from.
    pub source: SocketAddr,
    /// The viewer's address.
    pub destination: SocketAddr,
    /// The size of each but the last.
    pub segment: usize,
    range: Range<usize>,
    /// The last one was shorter: nothing may follow it.
    closed: bool,
}

impl Datagrams {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.range.len().div_ceil(self.segment.max(1))
    }
}

/// See the module's description. Its memory is kept from one use to the next.
#[derive(Debug)]
pub struct Outbox {
    arena: Vec<u8>,
    sends: Vec<Datagrams>,
    max_segments: usize,
}

impl Outbox {
    /// An outbox for sends of at most this many datagrams; 1 where there is no offload.
    pub fn new(max_segments: usize) -> Self {
        Self {
            arena: Vec::new(),
            sends: Vec::new(),
            max_segments: max_segments.max(1),
        }
    }

    /// Adds a datagram.
    pub fn push(&mut self, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        self.compose(source, destination, |buffer| buffer.extend_from_slice(data));
    }

    /// Adds a datagram that is written in place. Where nothing is appended, there is none.
    pub fn compose(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        append: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.arena.len();
        append(&mut self.arena);
        let end = self.arena.len();
        let length = end - start;
        if length == 0 {
            return;
        }
        if let Some(last) = self.sends.last_mut() {
            let fits = !last.closed
                && last.destination == destination
                && last.source == source
                && length <= last.segment
                && last.count() < self.max_segments
                && end - last.range.start <= MAX_BYTES;
            if fits {
                last.range.end = end;
                last.closed = length < last.segment;
                return;
            }
        }
        self.sends.push(Datagrams {
            source,
            destination,
            segment: length,
            range: start..end,
            closed: false,
        });
    }

    /// What is to be sent, in order, with its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Datagrams, &[u8])> {
        self.sends
            .iter()
            .map(|send| (send, &self.arena[send.range.clone()]))
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Whether it is better sent than added to.
    pub fn is_full(&self) -> bool {
        self.sends.len() >= FULL_SENDS || self.arena.len() >= FULL_BYTES
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.sends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_datagrams_of_one_viewer_leave_together() {
        let us: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let a: SocketAddr = "127.0.0.1:2".parse().unwrap();
        let b: SocketAddr = "127.0.0.1:3".parse().unwrap();
        let mut outbox = Outbox::new(4);
        for (to, size) in [
            (a, 10),
            (a, 10),
            (a, 4),
            (a, 4),
            (b, 4),
            (b, 5),
            (b, 5),
            (b, 5),
            (b, 5),
            (b, 5),
        ] {
            outbox.push(us, to, &vec![0; size]);
        }
        let sends: Vec<_> = outbox
            .iter()
            .map(|(d, data)| (d.destination, d.segment, d.count(), data.len()))
            .collect();
        assert_eq!(
            sends,
            [
                (a, 10, 3, 24),
                (a, 4, 1, 4),
                (b, 4, 1, 4),
                (b, 5, 4, 20),
                (b, 5, 1, 5)
            ]
        );
        outbox.clear();
        assert!(outbox.is_empty());
    }
}
