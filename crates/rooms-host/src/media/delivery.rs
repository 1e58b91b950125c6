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

    /// Whether what a participant has sent so far leaves it room for more.
    pub(crate) fn may_send(&self, sid: &Sid, now: Instant) -> bool {
        let party = self.parties.get(sid);
        party.is_some_and(|party| party.paid <= now + AT_ONCE)
    }

    /// It has sent so many octets to so many others.
    pub(crate) fn has_sent(&mut self, sid: &Sid, now: Instant, octets: usize, deliveries: usize) {
        if let Some(party) = self.parties.get_mut(sid) {
            let units = 1 + octets / READ + deliveries * (1 + octets / LARGE);
            let price = DELIVERY.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
            party.paid = party.paid.max(now) + price;
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
