// SPDX-License-Identifier: MPL-2.0

//! Writes transport-wide feedback: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1. Called by the receiver
//! of a publisher some twenty times a second.

use super::twcc::{DELTA_US, REFERENCE_US};
use super::{TRANSPORT_FEEDBACK, TWCC};

const PADDED: u8 = 0x20;
/// The longest run that a chunk can speak of; vectors of symbols of one bit, and of two.
const RUN: usize = 0x1fff;
const ONE_BIT: usize = 14;
const TWO_BITS: usize = 7;

const LOST: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// Keeps its memory from report to report, and counts them.
#[derive(Debug, Default)]
pub struct TwccWriter {
    number: u8,
    symbols: Vec<u8>,
    deltas: Vec<u8>,
}

impl TwccWriter {
    /// Packets of one report: with two octets of time and two bits of status each it stays below 1,000 octets.
    pub const AT_ONCE: usize = 400;

    /// Appends a report on packets from the transport-wide number `base` on: when each arrived, in µs from any moment, or
    /// `None`. Ends before a time that is too far from the one before it. Returns on how many it reports.
    pub fn write(
        &mut self,
        buffer: &mut Vec<u8>,
        sender: u32,
        media: u32,
        base: u16,
        packets: impl Iterator<Item = Option<i64>>,
    ) -> usize {
        self.symbols.clear();
        self.deltas.clear();
        let mut reference = None;
        let mut time = 0;
        for arrival in packets.take(Self::AT_ONCE) {
            let Some(arrival) = arrival else {
                self.symbols.push(LOST);
                continue;
            };
            if reference.is_none() {
                let units = arrival.div_euclid(REFERENCE_US);
                reference = Some(units);
                time = units * REFERENCE_US;
            }
            let delta = (arrival - time).div_euclid(DELTA_US);
            if let Ok(small) = u8::try_from(delta) {
                self.symbols.push(SMALL);
                self.deltas.push(small);
            } else if let Ok(large) = i16::try_from(delta) {
                self.symbols.push(LARGE);
                self.deltas.extend_from_slice(&large.to_be_bytes());
            } else {
                break;
            }
            time += delta * DELTA_US;
        }
        let start = buffer.len();
        buffer.extend_from_slice(&[0x80 | TWCC, TRANSPORT_FEEDBACK, 0, 0]);
        buffer.extend_from_slice(&sender.to_be_bytes());
        buffer.extend_from_slice(&media.to_be_bytes());
        buffer.extend_from_slice(&base.to_be_bytes());
        buffer.extend_from_slice(&(self.symbols.len() as u16).to_be_bytes());
        let reference = reference.unwrap_or(0) as u32;
        buffer.extend_from_slice(&(reference << 8 | u32::from(self.number)).to_be_bytes());
        self.number = self.number.wrapping_add(1);
        write_chunks(buffer, &self.symbols);
        buffer.extend_from_slice(&self.deltas);
        finish(buffer, start);
        self.symbols.len()
    }
}

/// Pads the packet that begins there to whole words, and writes its length.
fn finish(buffer: &mut Vec<u8>, start: usize) {
    let padding = (buffer.len() - start).next_multiple_of(4) - (buffer.len() - start);
    if padding > 0 {
        buffer.resize(buffer.len() + padding - 1, 0);
        buffer.push(padding as u8);
        buffer[start] |= PADDED;
    }
    let words = ((buffer.len() - start) / 4 - 1) as u16;
    buffer[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// The shortest that is found from left to right: a run where one is longer than a vector, else a vector of one bit where
/// that is enough.
fn write_chunks(buffer: &mut Vec<u8>, mut symbols: &[u8]) {
    while let [first, ..] = symbols {
        let run = symbols.iter().take_while(|s| *s == first).count().min(RUN);
        let one_bit = symbols.iter().take(ONE_BIT).all(|s| *s != LARGE);
        let vector = if one_bit { ONE_BIT } else { TWO_BITS };
        let (chunk, taken) = if run >= vector.min(symbols.len()) {
            (u16::from(*first) << 13 | run as u16, run)
        } else if one_bit {
            (0x8000 | bits(symbols, ONE_BIT, 1), ONE_BIT)
        } else {
            (0xc000 | bits(symbols, TWO_BITS, 2), TWO_BITS)
        };
        buffer.extend_from_slice(&chunk.to_be_bytes());
        symbols = &symbols[taken.min(symbols.len())..];
    }
}

/// Symbols side by side, the first one uppermost.
fn bits(symbols: &[u8], count: usize, width: usize) -> u16 {
    let filled = symbols.iter().copied().chain(std::iter::repeat(LOST));
    filled
        .take(count)
        .fold(0, |bits, symbol| bits << width | u16::from(symbol))
}
