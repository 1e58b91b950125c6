// SPDX-License-Identifier: MPL-2.0

//! What a peer may make of SCTP (RFC 9260): what its packets cost, and what of them may wait to be put together.
//!
//! The library bounds the octets that wait, but the smallest piece takes as much of memory as two hundred octets, or as all of the
//! packet that it came in. Pieces wait behind one that is missing, and in a message whose end has not come. Of the former there are
//! no more than there are numbers in between; of the latter, only such count that no sender makes.

use crate::transport::work::Work;

/// Channels of a session.
pub(super) const CHANNELS: usize = 64;
/// Numbers (TSN) after the last one that has come in order: what has a higher one is dropped, and comes again. A second of
/// 16 Mbit/s in full packets is 1,700.
const AHEAD: i32 = 4_096;
/// Pieces that are no message's last one, and tiny, which may wait.
const TINY_PIECES: usize = 4_096;
/// Octets of those. A sender splits what fits into no packet.
const TINY: usize = 128;

/// The header that all packets have, and that of each chunk (sections 3.1 and 3.2).
const HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA: u8 = 0;
const SACK: u8 = 3;
/// What of DATA stands before the message's piece, and the flag of the last one (section 3.3.1).
const DATA_HEADER: usize = 12;
const LAST: u8 = 1;

/// A chunk of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk<'a> {
    kind: u8,
    flags: u8,
    content: &'a [u8],
}

fn chunks(packet: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = packet.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [kind, flags, high, low, ..] = *rest else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low])).max(CHUNK_HEADER);
        let (chunk, after) = rest.split_at_checked(length)?;
        // Filled up to a multiple of four.
        let padding = length.next_multiple_of(4) - length;
        rest = after.get(padding..).unwrap_or_default();
        let content = &chunk[CHUNK_HEADER..];
        Some(Chunk {
            kind,
            flags,
            content,
        })
    })
}

impl Chunk<'_> {
    /// Of DATA its number; of SACK the last one that has come in order.
    fn tsn(&self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.content.first_chunk()?))
    }

    fn is_tiny_piece(&self) -> bool {
        self.flags & LAST == 0 && self.content.len() < DATA_HEADER + TINY
    }
}

/// What it costs to read a packet.
pub(super) fn price(packet: &[u8]) -> Work {
    let mut work = Work::DATA;
    work.add(Work::DATA_CHUNK.times(chunks(packet).count()));
    work
}

/// What becomes of a packet that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Read,
    Drop,
    /// The peer makes too much wait.
    End,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// The last number that has come in order, as it was told.
    in_order: Option<u32>,
    tiny: usize,
}

impl Bounds {
    /// A packet has come.
    pub(super) fn judge(&mut self, packet: &[u8]) -> Verdict {
        for chunk in chunks(packet).filter(|chunk| chunk.kind == DATA) {
            let Some(tsn) = chunk.tsn() else {
                continue;
            };
            let in_order = *self.in_order.get_or_insert(tsn.wrapping_sub(1));
            if tsn.wrapping_sub(in_order) as i32 > AHEAD {
                return Verdict::Drop;
            }
            self.tiny += usize::from(chunk.is_tiny_piece());
        }
        match self.tiny > TINY_PIECES {
            true => Verdict::End,
            false => Verdict::Read,
        }
    }

    /// A message was read, of so many pieces.
    pub(super) fn read(&mut self, pieces: usize) {
        self.tiny = self.tiny.saturating_sub(pieces.saturating_sub(1));
    }

    /// A packet leaves, which may tell what has come in order.
    pub(super) fn leaves(&mut self, packet: &[u8]) {
        let mut sacks = chunks(packet).filter(|chunk| chunk.kind == SACK);
        self.in_order = sacks.find_map(|sack| sack.tsn()).or(self.in_order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[Chunk<'_>]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        for chunk in chunks {
            let length = CHUNK_HEADER + chunk.content.len();
            packet.extend([chunk.kind, chunk.flags, (length >> 8) as u8, length as u8]);
            packet.extend(chunk.content);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn one(kind: u8, flags: u8, content: &[u8]) -> Chunk<'_> {
        Chunk {
            kind,
            flags,
            content,
        }
    }

    /// Of a message, so large.
    fn data(tsn: u32, flags: u8, octets: usize) -> Vec<u8> {
        let mut content = tsn.to_be_bytes().to_vec();
        content.resize(DATA_HEADER + octets, 0);
        packet(&[one(DATA, flags, &content)])
    }

    #[test]
    fn chunks_are_told_apart_whatever_they_hold() {
        let all = [
            one(0, 3, &[1; 13]),
            one(3, 0, &[2; 12]),
            one(0, 1, &[]),
            one(200, 255, &[3; 5]),
        ];
        let whole = packet(&all);
        assert!(chunks(&whole).eq(all));
        for length in 0..whole.len() {
            assert!(chunks(&whole[..length]).count() <= all.len());
        }
        // Lengths that can't be.
        for length in 0..8 {
            let broken = [&[0; HEADER][..], &[0, 0, 0, length, 9, 9, 9, 9]].concat();
            assert!(chunks(&broken).count() <= 2, "{length}");
        }
    }

    #[test]
    fn what_is_far_ahead_is_dropped_until_what_is_missing_has_come() {
        for first in [1_u32, u32::MAX - 100] {
            let mut bounds = Bounds::default();
            let ahead = AHEAD as u32;
            let at = |n: u32| data(first.wrapping_add(n), 3, 1);
            assert_eq!(bounds.judge(&at(0)), Verdict::Read);
            assert_eq!(bounds.judge(&at(ahead - 1)), Verdict::Read);
            for far in [ahead, ahead + 1, 1 << 30] {
                assert_eq!(bounds.judge(&at(far)), Verdict::Drop, "{far}");
            }
            let mut sack = first.wrapping_add(9).to_be_bytes().to_vec();
            sack.extend([0; 8]);
            bounds.leaves(&packet(&[one(SACK, 0, &sack)]));
            assert_eq!(bounds.judge(&at(ahead + 9)), Verdict::Read);
            assert_eq!(bounds.judge(&at(ahead + 10)), Verdict::Drop);
            assert_eq!(bounds.judge(&at(0)), Verdict::Read, "again");
        }
    }

    #[test]
    fn tiny_pieces_that_make_no_message_are_bounded() {
        let mut bounds = Bounds::default();
        for _ in 0..TINY_PIECES {
            assert_eq!(bounds.judge(&data(1, 0, 1)), Verdict::Read);
            // Neither whole messages nor large pieces count.
            assert_eq!(bounds.judge(&data(1, 3, 1)), Verdict::Read);
            assert_eq!(bounds.judge(&data(1, 2, 1_000)), Verdict::Read);
            bounds.read(1);
        }
        assert_eq!(bounds.judge(&data(1, 0, 1)), Verdict::End);
        let mut bounds = Bounds::default();
        for _ in 0..3 * TINY_PIECES {
            assert_eq!(bounds.judge(&data(1, 2, 1)), Verdict::Read);
            bounds.read(2);
        }
    }
}
