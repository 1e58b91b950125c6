// SPDX-License-Identifier: MPL-2.0

//! What leaves a subscriber: rewritten packets on their way into its session, and what that puts out.

use std::net::SocketAddr;

use super::outbox::Outbox;
use crate::codec::Codec;
use crate::packet::Packet;
use crate::rewrite::Rewritten;
use crate::transport::{Outgoing, TransportEvent, TransportSink};

impl Rewritten {
    /// The packet as it leaves.
    pub(super) fn of(self, codec: Codec, packet: &Packet) -> Outgoing<'_> {
        Outgoing {
            codec,
            seq: self.seq,
            timestamp: self.timestamp,
            captured: self.captured,
            marker: packet.marker,
            keyframe_start: packet.keyframe_start,
            vp8: self.vp8,
            payload: &packet.payload,
            red: packet.red.as_ref(),
        }
    }
}

/// Datagrams go to the outbox, events to whoever reads them after.
pub(super) struct Sink<'a> {
    outbox: &'a mut Outbox,
    events: &'a mut Vec<TransportEvent>,
}

pub(super) fn sink<'a>(outbox: &'a mut Outbox, events: &'a mut Vec<TransportEvent>) -> Sink<'a> {
    Sink { outbox, events }
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

    fn event(&mut self, event: TransportEvent) {
        self.events.push(event);
    }
}
