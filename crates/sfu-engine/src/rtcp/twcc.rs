// SPDX-License-Identifier: MPL-2.0

//! Transport-wide feedback: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.
//!
//! A report is a list of chunks, which say of each packet whether and how it arrived, and a list of times, one for each
//! that did. Both are read as one goes.
//!
//! Two octets may speak of 8,191 packets, so what a report says is read against what was sent: the rest of a run is
//! passed over at once, not walked. What reading takes is bounded by the report's octets and by what was sent.

use super::{SSRC, u16_at, u32_at};

/// What comes before the chunks: two SSRCs, sequence number, count, reference time, number of the report.
const FIXED: usize = 2 * SSRC + 8;
const CHUNK: usize = 2;

/// The unit of the reference time, and of the differences of arrival.
pub(super) const REFERENCE_US: i64 = 64_000;
pub(super) const DELTA_US: i64 = 250;

/// When the reference time begins again: what to add to times that went back by more than half of it.
pub const REFERENCE_PERIOD_US: i64 = REFERENCE_US << 24;

/// Transport-wide numbers in sequence: those that a report may speak of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub first: u16,
    pub count: u16,
}

impl Numbers {
    /// Half of all numbers: what is further away is as well behind as ahead.
    pub const MOST: u16 = 1 << 15;
}

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

    /// Packets of one report that are read, the newest: what two octets speak of must not cost more than other datagrams. At
    /// 20 Mbit/s these are what leaves in 0.8 s.
    pub const AT_ONCE: u16 = 2_048;

    /// Whether it speaks of other packets than these.
    pub fn is_beyond(&self, sent: Numbers) -> bool {
        let (begin, end) = self.within(sent);
        self.count > 0 && (begin, end) != (0, self.count)
    }

    /// The packets in order, the newest of those that were sent: their sequence numbers and, of those that arrived, the time in µs,
    /// counted from where the reference time was zero (see [`REFERENCE_PERIOD_US`]).
    ///
    /// Ends with the report, or where the times end before it. Packets that arrived at a time that isn't told (the
    /// draft's reserved symbol) are left out: they are neither lost nor of use.
    pub fn packets(&self, sent: Numbers) -> TwccPackets<'a> {
        let (begin, end) = self.within(sent);
        TwccPackets {
            base: self.base,
            at: 0,
            begin: begin.max(end.saturating_sub(Self::AT_ONCE)),
            end,
            time: i64::from(self.reference) * REFERENCE_US,
            lost: 0,
            chunk: Chunk(0),
            read: 0,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }

    /// The part that speaks of these, counted from its first packet.
    fn within(&self, sent: Numbers) -> (u16, u16) {
        let first = i32::from(sent.first.wrapping_sub(self.base).cast_signed());
        let end = first + i32::from(sent.count.min(Numbers::MOST));
        let clamped = |at: i32| at.clamp(0, self.count.into()) as u16;
        (clamped(first), clamped(end))
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
    fn is_run(self) -> bool {
        self.0 >> 15 == 0
    }

    /// Whether nothing of it has a time.
    fn is_without_times(self) -> bool {
        match self.0 >> 13 {
            0 | 3 => true,
            1 | 2 => false,
            4 | 5 => self.0 & 0x3fff == 0,
            // A symbol has a time if its two bits differ.
            _ => (self.0 ^ self.0 >> 1) & 0x1555 == 0,
        }
    }

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
    base: u16,
    /// The next packet, the first one that is wanted, and where to end; counted from the report's first.
    at: u16,
    begin: u16,
    end: u16,
    time: i64,
    /// How many are lost from here on, by the chunk before.
    lost: u16,
    /// The chunk that is read, and how much of it was.
    chunk: Chunk,
    read: u16,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl TwccPackets<'_> {
    /// Goes to the next chunk that has something to say. `None`: there is none.
    fn chunk(&mut self) -> Option<()> {
        while self.read >= self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first_chunk()?;
            self.chunk = Chunk(u16::from_be_bytes(*chunk));
            self.read = 0;
            self.chunks = rest;
        }
        Some(())
    }

    /// How many packets to pass over at once: those before the first that is wanted, and of a run those without news.
    fn unwanted(&self) -> u16 {
        let left = self.chunk.len() - self.read;
        let before = self.begin.saturating_sub(self.at);
        if self.chunk.is_run() && self.chunk.symbol(0) == Symbol::NoDelta {
            left
        } else if self.chunk.is_without_times() {
            left.min(before)
        } else {
            0
        }
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
        if self.lost > 0 {
            self.lost -= 1;
            let sequence = self.base.wrapping_add(self.at);
            self.at += 1;
            return Some((sequence, None));
        }
        while self.at < self.end {
            self.chunk()?;
            let unwanted = self.unwanted();
            if unwanted > 0 {
                self.read += unwanted;
                self.at = self.at.saturating_add(unwanted);
                continue;
            }
            if self.chunk.is_run() && self.chunk.symbol(0) == Symbol::Lost {
                // At least one: the first that is wanted, or after it.
                let lost = (self.chunk.len() - self.read).min(self.end - self.at);
                self.read += lost;
                self.lost = lost - 1;
                self.at += 1;
                return Some((self.base.wrapping_add(self.at - 1), None));
            }
            let (symbol, at) = (self.chunk.symbol(self.read), self.at);
            self.read += 1;
            self.at += 1;
            let time = match symbol {
                Symbol::NoDelta => continue,
                Symbol::Lost => None,
                Symbol::SmallDelta | Symbol::LargeDelta => match self.arrival(symbol) {
                    Some(time) => Some(time),
                    None => {
                        self.end = 0;
                        return None;
                    }
                },
            };
            if at >= self.begin {
                return Some((self.base.wrapping_add(at), time));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = self.end.saturating_sub(self.at.max(self.begin));
        (0, Some(most.into()))
    }
}
