// SPDX-License-Identifier: MPL-2.0

//! Transport-wide feedback: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.
//!
//! A report is a list of chunks, which say of each packet whether and how it arrived, and a list of times, one for each
//! that did. Both are read as one goes.

use super::{SSRC, u16_at, u32_at};

/// What comes before the chunks: two SSRCs, sequence number, count, reference time, number of the report.
const FIXED: usize = 2 * SSRC + 8;
const CHUNK: usize = 2;

/// The unit of the reference time, and of the differences of arrival.
const REFERENCE_US: i64 = 64_000;
const DELTA_US: i64 = 250;

/// When the reference time begins again: what to add to times that went back by more than half of it.
pub const REFERENCE_PERIOD_US: i64 = REFERENCE_US << 24;

/// What arrived of the packets of a session, and when.
#[derive(Clone, Copy, Debug)]
pub struct TwccReport<'a> {
    base: u16,
    count: u16,
    reference: u32,
    number: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TwccReport<'a> {
    /// Refuses a report whose chunks end before they speak of as many packets as are announced.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = body.split_at_checked(FIXED)?;
        let count = u16_at(fixed, 10)?;
        let reference_and_number = u32_at(fixed, 12)?;
        let mut left = count;
        let mut chunks_len = 0;
        while left > 0 {
            left = left.saturating_sub(Chunk(u16_at(rest, chunks_len)?).len());
            chunks_len += CHUNK;
        }
        let (chunks, deltas) = rest.split_at(chunks_len);
        Some(Self {
            base: u16_at(fixed, 8)?,
            count,
            reference: reference_and_number >> 8,
            number: reference_and_number as u8,
            chunks,
            deltas,
        })
    }

    /// The sequence number of the first packet.
    pub fn base_sequence(&self) -> u16 {
        self.base
    }

    /// Of how many packets the report speaks.
    pub fn status_count(&self) -> u16 {
        self.count
    }

    /// The time from which the arrivals count: 24 bits, in units of 64 ms.
    pub fn reference_time(&self) -> u32 {
        self.reference
    }

    /// The number of the report, which shows whether one was lost.
    pub fn feedback_count(&self) -> u8 {
        self.number
    }

    /// The packets in order: their sequence numbers and, of those that arrived, the time in µs, counted from where the
    /// reference time was zero (see [`REFERENCE_PERIOD_US`]).
    ///
    /// Ends with the report, or where the times end before it. Packets that arrived at a time that isn't told (the
    /// draft's reserved symbol) are left out: they are neither lost nor of use.
    pub fn packets(&self) -> TwccPackets<'a> {
        TwccPackets {
            sequence: self.base,
            left: self.count,
            time: i64::from(self.reference) * REFERENCE_US,
            chunk: Chunk(0),
            at: 0,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Lost,
    SmallDelta,
    LargeDelta,
    NoDelta,
}

/// A run of equal symbols, 14 symbols of one bit, or seven of two.
#[derive(Clone, Copy, Debug)]
struct Chunk(u16);

impl Chunk {
    fn len(self) -> u16 {
        match self.0 >> 14 {
            0 | 1 => self.0 & 0x1fff,
            2 => 14,
            _ => 7,
        }
    }

    fn symbol(self, at: u16) -> Symbol {
        let bits = match self.0 >> 14 {
            0 | 1 => self.0 >> 13,
            2 => self.0 >> (13 - at) & 1,
            _ => self.0 >> (12 - 2 * at) & 3,
        };
        match bits {
            0 => Symbol::Lost,
            1 => Symbol::SmallDelta,
            2 => Symbol::LargeDelta,
            _ => Symbol::NoDelta,
        }
    }
}

/// The packets of a report, made by [`TwccReport::packets`].
#[derive(Clone, Debug)]
pub struct TwccPackets<'a> {
    sequence: u16,
    left: u16,
    time: i64,
    /// The chunk that is read, and how much of it was.
    chunk: Chunk,
    at: u16,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl TwccPackets<'_> {
    fn symbol(&mut self) -> Option<Symbol> {
        while self.at >= self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first_chunk()?;
            self.chunk = Chunk(u16::from_be_bytes(*chunk));
            self.at = 0;
            self.chunks = rest;
        }
        let symbol = self.chunk.symbol(self.at);
        self.at += 1;
        Some(symbol)
    }

    /// The time of the next that arrived.
    fn arrival(&mut self, symbol: Symbol) -> Option<i64> {
        let delta = if symbol == Symbol::SmallDelta {
            let (&delta, rest) = self.deltas.split_first()?;
            self.deltas = rest;
            i64::from(delta)
        } else {
            let (delta, rest) = self.deltas.split_first_chunk()?;
            self.deltas = rest;
            i64::from(i16::from_be_bytes(*delta))
        };
        self.time += delta * DELTA_US;
        Some(self.time)
    }
}

impl Iterator for TwccPackets<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let symbol = self.symbol()?;
            let sequence = self.sequence;
            self.sequence = sequence.wrapping_add(1);
            self.left -= 1;
            match symbol {
                Symbol::NoDelta => {}
                Symbol::Lost => return Some((sequence, None)),
                Symbol::SmallDelta | Symbol::LargeDelta => {
                    let Some(time) = self.arrival(symbol) else {
                        self.left = 0;
                        return None;
                    };
                    return Some((sequence, Some(time)));
                }
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left.into()))
    }
}
