// SPDX-License-Identifier: MPL-2.0

//! What leaves a forwarder: rewritten packets on their way into its session, and what that puts out.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use super::intake::Gathered;
use super::outbox::Outbox;
use crate::codec::{Codec, TrackKind};
use crate::packet::Packet;
use crate::rewrite::Rewritten;
use crate::transport::{Incoming, Outgoing, SenderClock, Slot, TransportEvent, TransportSink};

/// The payload of a packet that only has a number.
static NOTHING: LazyLock<Arc<[u8]>> = LazyLock::new(Arc::default);

impl Rewritten {
    /// The packet as it leaves.
    pub(super) fn of(self, slot: Slot, codec: Codec, packet: &Packet) -> Outgoing<'_> {
        Outgoing {
            slot,
            codec,
            seq: self.seq,
            timestamp: self.timestamp,
            captured: self.captured,
            marker: packet.marker && !self.empty,
            keyframe_start: packet.keyframe_start && !self.empty,
            vp8: self.vp8,
            descriptor: packet.descriptor.as_ref().zip(self.frame_number),
            payload: match self.empty {
                true => &NOTHING,
                false => &packet.payload,
            },
            red: packet.red.as_ref().filter(|_| !self.empty),
        }
    }
}

/// Datagrams go to the outbox, events to whoever reads them after.
pub(super) struct Sink<'a> {
    outbox: &'a mut Outbox,
    events: &'a mut Vec<TransportEvent>,
    /// What came in, of a peer that publishes, too.
    pub(super) gathered: Option<&'a mut Gathered>,
}

pub(super) fn sink<'a>(outbox: &'a mut Outbox, events: &'a mut Vec<TransportEvent>) -> Sink<'a> {
    Sink {
        outbox,
        events,
        gathered: None,
    }
}

impl TransportSink for Sink<'_> {
    fn compose(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        append: &mut dyn FnMut(&mut Vec<u8>),
    ) {
        self.outbox.compose(source, destination, append);
    }

    fn compose_media(
        &mut self,
        kind: TrackKind,
        source: SocketAddr,
        destination: SocketAddr,
        append: &mut dyn FnMut(&mut Vec<u8>),
    ) {
        self.outbox.compose_media(kind, source, destination, append);
    }

    fn event(&mut self, event: TransportEvent) {
        match (event, &mut self.gathered) {
            (TransportEvent::IngressLoss { pictures, all }, Some(gathered)) => {
                gathered.loss = Some((pictures, all));
            }
            (event, _) => self.events.push(event),
        }
    }

    fn packet(&mut self, packet: Incoming) {
        if let Some(gathered) = &mut self.gathered {
            gathered.packets.push(packet);
        }
    }

    fn sender_clock(&mut self, clock: SenderClock) {
        if let Some(gathered) = &mut self.gathered {
            gathered.clocks.push(clock);
        }
    }
}
