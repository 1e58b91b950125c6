// SPDX-License-Identifier: MPL-2.0

//! H.264 and H.265 packets that are too large for some paths become several that fit ([`MAX_PAYLOAD`]): units become
//! fragments, fragments shorter ones, and aggregates are taken apart. One [`Fragmenter`] a layer, called by
//! [`LayerReader`](crate::packet) once for each packet that comes in, never per viewer.
//!
//! What is left of a fragment when full ones are cut from it goes into the next, so that a publisher's packets of 1,220
//! octets become 7 % more and not twice as many. It never waits for longer than until the layer's next packet: that takes it
//! along, or comes after it.

use std::sync::Arc;

use crate::codec::nal::{Content, Format, Part};
use crate::packet::Packet;
use crate::size::MAX_PAYLOAD;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Fragmenter {
    held: Option<Held>,
    /// Kept for its memory.
    joined: Vec<u8>,
}

/// The rest of a fragment.
#[derive(Debug)]
struct Held {
    format: Format,
    /// The number of the packet that goes on with the unit, as the publisher counts.
    next: u64,
    header: [u8; 2],
    data: Vec<u8>,
    /// The packet that it came with, without payload.
    packet: Packet,
}

impl Held {
    /// Whether the packet, with its number as the publisher counts, goes on where this ends.
    fn goes_on(&self, seq: u64, packet: &Packet) -> bool {
        if seq != self.next || packet.timestamp != self.packet.timestamp {
            return false;
        }
        let content = self.format.read(&packet.payload);
        matches!(content, Content::Part(part) if !part.start && part.header == self.header)
    }
}

impl Fragmenter {
    /// Whether a packet passes as it is. The usual case, and all that packets cost where it is so.
    pub(crate) fn passes(&self, packet: &Packet) -> bool {
        self.held.is_none() && packet.payload.len() <= MAX_PAYLOAD
    }

    /// What was kept back, where this packet, the next one in order, does not go on with it.
    pub(crate) fn release(&mut self, seq: u64, packet: &Packet) -> Option<Packet> {
        let held = self.held.take_if(|held| !held.goes_on(seq, packet))?;
        let payload = held.format.fragment(Part {
            header: held.header,
            start: false,
            end: false,
            data: &held.data,
        });
        Some(Packet {
            payload: payload.into(),
            ..held.packet
        })
    }

    /// Makes packets that fit of one that came in order. At least one leaves.
    pub(crate) fn cut(
        &mut self,
        format: Format,
        seq: u64,
        packet: &Packet,
        leave: &mut impl FnMut(Packet),
    ) {
        if self.held.is_none() && packet.payload.len() <= MAX_PAYLOAD {
            return leave(packet.clone());
        }
        let mut pieces = Pieces::of(packet, leave);
        match format.read(&packet.payload) {
            Content::Part(part) => self.cut_part(format, seq, packet, part, &mut pieces),
            Content::Aggregate(rest) => match format.units(rest) {
                Some(units) => take_apart(format, &units, &mut pieces),
                None => pieces.add(packet.payload.clone()),
            },
            Content::Other => pieces.add(packet.payload.clone()),
        }
        pieces.end(packet.marker);
    }

    fn cut_part(
        &mut self,
        format: Format,
        seq: u64,
        packet: &Packet,
        part: Part<'_>,
        pieces: &mut Pieces<'_, impl FnMut(Packet)>,
    ) {
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        let held = self.held.take();
        if let Some(held) = &held {
            joined.extend_from_slice(&held.data);
            joined.extend_from_slice(part.data);
        }
        let part = Part {
            data: if held.is_some() { &joined } else { part.data },
            ..part
        };
        let room = format.room(MAX_PAYLOAD);
        let full = part.data.len() / room * room;
        let ends = part.end || packet.marker || full == 0;
        let (now, later) = part
            .data
            .split_at(if ends { part.data.len() } else { full });
        fragment(format, Part { data: now, ..part }, pieces);
        if !later.is_empty() {
            self.held = Some(Held {
                format,
                next: seq + 1,
                header: part.header,
                data: later.to_vec(),
                packet: Packet {
                    marker: false,
                    keyframe_start: false,
                    payload: Arc::default(),
                    ..packet.clone()
                },
            });
        }
        self.joined = joined;
    }
}

/// The fragments of a unit, or of a part of one.
fn fragment(format: Format, part: Part<'_>, pieces: &mut Pieces<'_, impl FnMut(Packet)>) {
    let room = format.room(MAX_PAYLOAD);
    let count = part.data.len().div_ceil(room);
    for (index, data) in part.data.chunks(room).enumerate() {
        let payload = format.fragment(Part {
            start: part.start && index == 0,
            end: part.end && index + 1 == count,
            data,
            ..part
        });
        pieces.add(payload.into());
    }
}

/// An aggregate's units in smaller ones, alone, or in fragments.
fn take_apart(format: Format, units: &[&[u8]], pieces: &mut Pieces<'_, impl FnMut(Packet)>) {
    let mut rest = units;
    while let [first, ..] = rest {
        let mut size = 0;
        let together = rest.iter().take_while(|unit| {
            size += 2 + unit.len();
            format.aggregate_len(size) <= MAX_PAYLOAD
        });
        let (group, behind) = rest.split_at(together.count().max(1));
        rest = behind;
        match format.read(first) {
            _ if group.len() > 1 => pieces.add(format.aggregate(group).into()),
            Content::Part(part) if first.len() > MAX_PAYLOAD => fragment(format, part, pieces),
            _ => pieces.add((*first).into()),
        }
    }
}

/// The packets that leave for one that came: the first one begins what it began, and the last one has its marker.
struct Pieces<'a, F> {
    template: Packet,
    last: Option<Packet>,
    leave: &'a mut F,
}

impl<'a, F: FnMut(Packet)> Pieces<'a, F> {
    fn of(packet: &Packet, leave: &'a mut F) -> Self {
        Self {
            template: Packet {
                marker: false,
                ..packet.clone()
            },
            last: None,
            leave,
        }
    }

    fn add(&mut self, payload: Arc<[u8]>) {
        let piece = Packet {
            payload,
            ..self.template.clone()
        };
        self.template.keyframe_start = false;
        if let Some(before) = self.last.replace(piece) {
            (self.leave)(before);
        }
    }

    fn end(self, marker: bool) {
        if let Some(last) = self.last {
            (self.leave)(Packet { marker, ..last });
        }
    }
}

#[cfg(test)]
mod tests;
