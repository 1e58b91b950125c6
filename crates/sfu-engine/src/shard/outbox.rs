// SPDX-License-Identifier: MPL-2.0

//! Datagrams on their way out, gathered so that one viewer's packets of a frame leave in one system call.
//!
//! UDP segmentation offload takes equal datagrams, of which only the last may be shorter. What the kernel does not take
//! stays, in order, until it does: the driver says how far it came ([`Outbox::forget`]).

use std::net::SocketAddr;
use std::ops::Range;

use crate::codec::TrackKind;

/// As many as leave in one system call, and about as much as a core's cache holds.
const FULL_SENDS: usize = 64;
const FULL_BYTES: usize = 512 * 1_024;
/// The same while the network holds us up. What is sealed already waits before sound and retransmissions, and for a
/// network of 100 Mbit/s this is 5 ms.
const FULL_BYTES_HELD: usize = 64 * 1_024;
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
    /// Whether it is sound, which networks that look at that carry first.
    pub is_audio: bool,
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
    /// Those of `sends` that have left.
    gone: usize,
    max_segments: usize,
    full_bytes: usize,
}

/// How far sending came: whole sends, and datagrams of the one after them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sends that are over.
    pub sends: usize,
    /// Datagrams of the next one that are over.
    pub datagrams: usize,
}

impl Outbox {
    /// An outbox for sends of at most this many datagrams; 1 where there is no offload.
    pub fn new(max_segments: usize) -> Self {
        Self {
            arena: Vec::new(),
            sends: Vec::new(),
            gone: 0,
            max_segments: max_segments.max(1),
            full_bytes: FULL_BYTES,
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
        self.compose_media(TrackKind::Video, source, destination, append);
    }

    /// The same for media of this kind.
    pub fn compose_media(
        &mut self,
        kind: TrackKind,
        source: SocketAddr,
        destination: SocketAddr,
        append: impl FnOnce(&mut Vec<u8>),
    ) {
        let is_audio = kind == TrackKind::Audio;
        let start = self.arena.len();
        append(&mut self.arena);
        let end = self.arena.len();
        let length = end - start;
        if length == 0 {
            return;
        }
        if let Some(last) = self.sends[self.gone..].last_mut() {
            let fits = !last.closed
                && last.destination == destination
                && last.source == source
                && last.is_audio == is_audio
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
            is_audio,
            range: start..end,
            closed: false,
        });
    }

    /// What is to be sent, in order, with its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Datagrams, &[u8])> {
        self.waiting()
            .iter()
            .map(|send| (send, self.bytes_of(send)))
    }

    /// One of what is to be sent, counted from the first, with its bytes.
    pub fn get(&self, index: usize) -> Option<(&Datagrams, &[u8])> {
        let send = self.waiting().get(index)?;
        Some((send, self.bytes_of(send)))
    }

    fn waiting(&self) -> &[Datagrams] {
        &self.sends[self.gone..]
    }

    fn bytes_of(&self, send: &Datagrams) -> &[u8] {
        &self.arena[send.range.clone()]
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// How many octets wait.
    pub fn octets(&self) -> usize {
        self.arena.len() - self.start()
    }

    /// Where in the arena what waits begins.
    fn start(&self) -> usize {
        let first = self.waiting().first();
        first.map_or(self.arena.len(), |send| send.range.start)
    }

    /// Whether it is better sent than added to.
    pub fn is_full(&self) -> bool {
        self.waiting().len() >= FULL_SENDS || self.octets() >= self.full_bytes
    }

    /// Whether even what is sent again must stay out: the network takes far less than there is.
    pub fn is_overfull(&self) -> bool {
        self.octets() >= 2 * self.full_bytes
    }

    /// Whether the network holds us up: then less is gathered at a time.
    pub fn set_held_up(&mut self, held_up: bool) {
        self.full_bytes = match held_up {
            true => FULL_BYTES_HELD,
            false => FULL_BYTES,
        };
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.sends.clear();
        self.gone = 0;
    }

    /// Forgets what was sent of what waits; the rest stays.
    pub fn forget(&mut self, progress: Progress) {
        self.gone = (self.gone + progress.sends).min(self.sends.len());
        if let Some(first) = self.sends.get_mut(self.gone) {
            let octets = progress.datagrams * first.segment;
            first.range.start = (first.range.start + octets).min(first.range.end);
            if first.range.is_empty() {
                self.gone += 1;
            }
        }
        if self.is_empty() {
            self.clear();
        } else if self.start() * 2 > self.arena.len() {
            self.compact();
        }
    }

    /// Moves what waits to the front, so that nothing grows however long the kernel takes it in pieces.
    fn compact(&mut self) {
        let start = self.start();
        self.arena.drain(..start);
        self.sends.drain(..self.gone);
        self.gone = 0;
        for send in &mut self.sends {
            send.range.start -= start;
            send.range.end -= start;
        }
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

    #[test]
    fn what_is_not_taken_stays_in_order_and_memory_does_not_grow() {
        let us: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut outbox = Outbox::new(8);
        let (mut pushed, mut taken) = (0u32, 0u32);
        let mut room = 0;
        for round in 0..10_000u16 {
            // Eight a round to two viewers, of which a bit less than all is taken, in odd pieces; then all.
            for n in 0..8 {
                let to = SocketAddr::new(us.ip(), 2 + n / 4);
                outbox.push(us, to, &pushed.to_be_bytes());
                pushed += 1;
            }
            let mut want = match round % 100 {
                99 => usize::MAX,
                _ => 7 + usize::from(round % 2),
            };
            while !outbox.is_empty() && want > 0 {
                let (send, data) = outbox.get(0).unwrap();
                let count = want.min(send.count());
                for data in data.chunks(4).take(count) {
                    assert_eq!(data, taken.to_be_bytes(), "round {round}");
                    taken += 1;
                }
                let whole = count == send.count();
                outbox.forget(Progress {
                    sends: usize::from(whole),
                    datagrams: if whole { 0 } else { count },
                });
                want = want.saturating_sub(count);
            }
            room = room.max(outbox.arena.capacity());
        }
        assert!(outbox.is_empty() || outbox.octets() <= 400);
        assert!(room < 4_096, "{room}");
    }
}
