// SPDX-License-Identifier: MPL-2.0

//! Data to participants: part of [`Media`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_engine::data::{ChannelId, DataCommand, Message};
use sfu_engine::{Engine, SessionError};
use sfu_rooms::Sid;

use super::Media;
use crate::channels::Lane;
use crate::late::Packet;

/// A participant's data reaches 20,000 others a second in the long run (a packet for 1,000 is 1,000), and as many at once: a
/// packet is a few microseconds of the rooms' thread. Each 16 KiB of it count as another one, and to read 4 KiB as one. Not tuned.
const DELIVERY: Duration = Duration::from_micros(50);
const LARGE: usize = 16 * 1_024;
const READ: usize = 4 * 1_024;
const AT_ONCE: Duration = Duration::from_secs(1);
/// So much of that is for datagrams of data tracks, which come as fast as their publisher likes: the rest is left for other data.
const DATAGRAMS_AT_ONCE: Duration = Duration::from_millis(500);

/// What a participant's data may cost.
#[derive(Debug)]
pub(super) struct Budget {
    /// What it has sent is paid for until then.
    paid: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { paid: now }
    }

    /// Whether what it has sent so far leaves it room for more on this lane.
    fn has_room(&self, now: Instant, lane: Lane) -> bool {
        let at_once = match lane {
            Lane::Reliable | Lane::Lossy => AT_ONCE,
            Lane::DataTracks => DATAGRAMS_AT_ONCE,
        };
        self.paid <= now + at_once
    }

    /// It has sent so many octets to so many others.
    fn spend(&mut self, now: Instant, octets: usize, deliveries: usize) {
        let units = 1 + octets / READ + deliveries * (1 + octets / LARGE);
        let price = DELIVERY.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
        self.paid = self.paid.max(now) + price;
    }
}

impl Media {
    /// A channel to a participant is open.
    pub(crate) fn opened(&mut self, sid: &Sid, lane: Lane, channel: ChannelId) {
        let party = self.parties.get_mut(sid);
        let early = party.map(|party| party.outgoing.opened(lane, channel));
        for packet in early.unwrap_or_default() {
            self.send(sid, lane, &packet);
        }
    }

    pub(super) fn send(&mut self, sid: &Sid, lane: Lane, packet: &Arc<[u8]>) {
        let Some(party) = self.parties.get_mut(sid) else {
            return;
        };
        let channel = party.outgoing.channel(lane, packet);
        if let Some((channel, session)) = channel.zip(party.to()) {
            let packet = Packet {
                session,
                channel,
                data: packet.clone(),
            };
            let hand = |packet: &Packet| has_room(&self.engine, packet);
            match lane {
                Lane::Reliable => self.late.send(Instant::now(), packet, hand),
                Lane::Lossy | Lane::DataTracks => _ = hand(&packet),
            }
        }
    }

    /// Sends what found no room before.
    pub(crate) fn send_late(&mut self, now: Instant) {
        if !self.late.is_empty() {
            self.late
                .again(now, |packet| has_room(&self.engine, packet));
        }
    }

    /// Whether something waits for [`send_late`](Self::send_late).
    pub(crate) fn is_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Whether what a participant has sent so far leaves it room for more on this lane.
    pub(crate) fn may_send(&self, sid: &Sid, now: Instant, lane: Lane) -> bool {
        let party = self.parties.get(sid);
        party.is_some_and(|party| party.budget.has_room(now, lane))
    }

    /// It has sent so many octets to so many others.
    pub(crate) fn has_sent(&mut self, sid: &Sid, now: Instant, octets: usize, deliveries: usize) {
        if let Some(party) = self.parties.get_mut(sid) {
            party.budget.spend(now, octets, deliveries);
        }
    }
}

/// Hands a packet over. A session that is over is told of otherwise.
fn has_room(engine: &Engine, packet: &Packet) -> bool {
    let message = Message {
        text: false,
        data: packet.data.clone(),
    };
    let channel = packet.channel;
    let sent = engine.data(packet.session, DataCommand::Send { channel, message });
    sent != Err(SessionError::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A publisher of datagrams sends all that it may to a thousand others, and says something to them now and then.
    #[test]
    fn datagrams_leave_room_for_other_data_and_for_no_more_than_there_is() {
        let began = Instant::now();
        let (mut now, mut budget) = (began, Budget::new(began));
        let step = Duration::from_millis(10);
        let (mut sent, mut n) = (0, 0);
        while now < began + Duration::from_secs(60) {
            while budget.has_room(now, Lane::DataTracks) {
                budget.spend(now, 1_000, 1_000);
                sent += 1_000;
            }
            n += 1;
            if n % 50 == 0 {
                for lane in [Lane::Reliable, Lane::Lossy] {
                    assert!(budget.has_room(now, lane), "{n}");
                    budget.spend(now, 1_000, 1_000);
                    sent += 1_000;
                }
            }
            now += step;
        }
        let most = 20_000 * 61;
        assert!(sent <= most && sent > most * 9 / 10, "{sent}");
    }

    #[test]
    fn who_sends_no_datagrams_has_all_of_it() {
        let now = Instant::now();
        for (lane, most) in [
            (Lane::Reliable, 20_000),
            (Lane::Lossy, 20_000),
            (Lane::DataTracks, 10_000),
        ] {
            let (mut budget, mut sent) = (Budget::new(now), 0);
            while budget.has_room(now, lane) {
                budget.spend(now, 100, 99);
                sent += 100;
            }
            assert_eq!(sent, most + 100, "{lane:?}");
        }
    }
}
