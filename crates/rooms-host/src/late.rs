// SPDX-License-Identifier: MPL-2.0

//! Packets that must not be lost and found no room at a shard that is behind: they wait here, in order, and whoever sends more waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_engine::SessionId;
use sfu_engine::data::ChannelId;

use crate::load::{Load, Waiting};

/// So often it is tried again.
pub(crate) const AGAIN: Duration = Duration::from_millis(5);
/// Packets, and octets of them: one for a thousand, twenty times. One that goes to many in a row counts once.
const PACKETS: usize = 20_000;
const OCTETS: usize = 16 * 1_024 * 1_024;
/// A shard that takes nothing for so long does not get them.
const PATIENCE: Duration = Duration::from_secs(2);

/// A packet, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) session: SessionId,
    pub(crate) channel: ChannelId,
    pub(crate) data: Arc<[u8]>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Late {
    packets: VecDeque<Packet>,
    octets: usize,
    /// When one was taken last.
    taken: Option<Instant>,
    /// What tells that something waits here.
    load: Load,
    waiting: Option<Waiting>,
}

impl Late {
    /// Full as long as something waits here.
    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Hands a packet over, or keeps it. `hand` returns whether there was room.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        packet: Packet,
        hand: impl FnOnce(&Packet) -> bool,
    ) {
        if self.is_empty() && hand(&packet) {
            return;
        }
        let cost = self.cost(&packet);
        if self.packets.len() >= PACKETS || self.octets + cost > OCTETS {
            tracing::debug!("a packet is lost: the shards are far behind");
            return;
        }
        self.octets += cost;
        self.taken.get_or_insert(now);
        self.packets.push_back(packet);
        self.waiting.get_or_insert_with(|| self.load.fill());
    }

    /// Hands over what waits, as far as there is room.
    pub(crate) fn again(&mut self, now: Instant, mut hand: impl FnMut(&Packet) -> bool) {
        while let Some(first) = self.packets.front()
            && hand(first)
        {
            let first = self.packets.pop_front().map(|first| first.data);
            let next = self.packets.front().map(|next| &next.data);
            if let Some(first) = first
                && next.is_none_or(|next| !Arc::ptr_eq(next, &first))
            {
                self.octets -= first.len();
            }
            self.taken = Some(now);
        }
        if self.taken.is_some_and(|taken| now >= taken + PATIENCE) {
            tracing::warn!(packets = self.packets.len(), "lost: a shard takes nothing");
            self.packets.clear();
        }
        if self.is_empty() {
            (self.octets, self.taken, self.waiting) = (0, None, None);
        }
    }

    fn cost(&self, packet: &Packet) -> usize {
        let last = self.packets.back();
        match last.is_some_and(|last| Arc::ptr_eq(&last.data, &packet.data)) {
            true => 0,
            false => packet.data.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: usize, octets: usize) -> Packet {
        let mut data = n.to_be_bytes().to_vec();
        data.resize(octets.max(8), 0);
        Packet {
            session: SessionId::from_bits(1),
            channel: ChannelId(0),
            data: data.into(),
        }
    }

    fn number(packet: &Packet) -> usize {
        usize::from_be_bytes(*packet.data.first_chunk().unwrap())
    }

    #[test]
    fn nothing_is_lost_or_overtaken_while_a_shard_is_behind_and_who_sends_waits() {
        let (mut now, mut late, mut taken) = (Instant::now(), Late::default(), Vec::new());
        for round in 0..100 {
            // Room for one of two.
            let mut room = 50;
            let mut hand = |packet: &Packet| {
                let has_room = room > 0;
                if has_room {
                    room -= 1;
                    taken.push(number(packet));
                }
                has_room
            };
            late.again(now, &mut hand);
            for n in 0..100 {
                late.send(now, packet(round * 100 + n, 8), &mut hand);
            }
            assert!(late.load().is_full(), "who sends is to wait");
            now += AGAIN;
        }
        late.again(now, |packet| {
            taken.push(number(packet));
            true
        });
        assert!(taken.iter().copied().eq(0..10_000));
        assert!(late.is_empty() && !late.load().is_full());
    }

    #[test]
    fn what_waits_is_bounded_and_a_shard_that_takes_nothing_is_given_up() {
        for (octets, most) in [(8, PACKETS), (256 * 1_024, OCTETS / (256 * 1_024))] {
            let (now, mut late) = (Instant::now(), Late::default());
            for n in 0..2 * PACKETS.min(200 * most) {
                late.send(now, packet(n, octets), |_| false);
            }
            assert_eq!(late.packets.len(), most);
            late.again(now + PATIENCE / 2, |_| false);
            assert_eq!(late.packets.len(), most);
            late.again(now + PATIENCE, |_| false);
            assert!(late.is_empty() && !late.load().is_full());
        }
    }
}
