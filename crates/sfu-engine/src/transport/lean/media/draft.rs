// SPDX-License-Identifier: MPL-2.0

//! A packet as it is written into the buffer that it is sent from, and sealed there.

use std::time::Instant;

use super::super::super::TransportSink;
use super::super::connection::Path;
use super::super::header::Header;
use super::super::sealed::{Kept, Sealed};
use super::track::{Track, Values};
use crate::size::{MAX_DATAGRAM, OSN, RTP_HEADER};
use crate::srtp::Protect;

/// A packet that has left, for whoever keeps the books.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Left {
    /// The transport-wide number, where the peer reports arrivals.
    pub(in super::super) number: Option<u16>,
    pub(in super::super) bytes: usize,
}

/// A packet without its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    pub(super) header: Header,
    /// How often the sequence number has wrapped.
    pub(super) rollover: u32,
    pub(super) values: Values<'a>,
}

/// Where a datagram is kept as it leaves.
pub(super) struct Keep<'a> {
    pub(super) sealed: &'a mut Sealed,
    pub(super) now: Instant,
    pub(super) seq: u64,
}

/// What a packet takes beside header, extensions and payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Octets of the seal.
    tag: usize,
    /// It may be sent again, and takes more then.
    again: bool,
}

impl Room {
    pub(super) fn of(protect: &Protect, may_be_sent_again: bool) -> Self {
        Self {
            tag: protect.profile().rtp_overhead(),
            again: may_be_sent_again,
        }
    }

    /// Whether a packet with these header extensions and so many octets of payload is small enough.
    pub(super) fn holds(self, track: &Track, values: &Values<'_>, payload: usize) -> bool {
        let values = Values {
            mid: values.mid || self.again,
            ..*values
        };
        let again = if self.again { OSN } else { 0 };
        RTP_HEADER + values.len(track) + payload + self.tag + again <= MAX_DATAGRAM
    }
}

impl Draft<'_> {
    /// Writes the packet into the buffer that it is sent from, and seals it there.
    pub(super) fn send(
        &self,
        path: Path,
        track: &Track,
        protect: &mut Protect,
        sink: &mut dyn TransportSink,
        mut keep: Option<Keep<'_>>,
        payload: impl Fn(&mut Vec<u8>),
    ) -> Left {
        let number = self.values.number.map(u16::from_be_bytes);
        let mut bytes = 0;
        sink.compose_media(track.kind, path.local, path.remote, &mut |buffer| {
            let start = buffer.len();
            let extensions = track.extensions(&self.values);
            let header = self.header.write(buffer, &extensions);
            payload(buffer);
            bytes = seal(protect, buffer, start, header, self.rollover);
            if let Some(Keep { sealed, now, seq }) = &mut keep {
                let datagram = &buffer[start..];
                sealed.push(*now, *seq, Kept { number, datagram });
            }
        });
        Left { number, bytes }
    }
}

/// Seals what was written since `start`, and returns its length.
fn seal(
    protect: &mut Protect,
    buffer: &mut Vec<u8>,
    start: usize,
    header: usize,
    roc: u32,
) -> usize {
    if let Err(error) = protect.rtp(buffer, start, header, roc) {
        tracing::debug!(%error, "a packet was not sealed");
        buffer.truncate(start);
    }
    buffer.len() - start
}
