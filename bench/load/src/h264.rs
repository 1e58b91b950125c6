// SPDX-License-Identifier: MPL-2.0

//! H.264 for a stream that is small to make: real parameter sets and slices of a grey picture, and what a packet holds
//! (RFC 6184). Used by the generator and by viewers that decrypt.

/// What a packet's payload has of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holds {
    pub sps: bool,
    pub pps: bool,
    pub idr: bool,
}

const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

impl Holds {
    fn add(&mut self, nal_type: u8) {
        self.sps |= nal_type == SPS;
        self.pps |= nal_type == PPS;
        self.idr |= nal_type == IDR;
    }
}

/// Looks into a packet. `None`: it breaks the format.
pub fn inspect(payload: &[u8]) -> Option<Holds> {
    let mut holds = Holds::default();
    match payload.first()? & 0x1f {
        STAP_A => {
            let mut rest = &payload[1..];
            while let [hi, lo, nal @ ..] = rest {
                let size = usize::from(u16::from_be_bytes([*hi, *lo]));
                let unit = nal.get(..size)?;
                holds.add(unit.first()? & 0x1f);
                rest = &nal[size..];
            }
        }
        FU_A => {
            let fu = *payload.get(1)?;
            if fu & 0x80 != 0 {
                holds.add(fu & 0x1f);
            }
        }
        nal_type @ 1..=23 => holds.add(nal_type),
        _ => return None,
    }
    Some(holds)
}

#[derive(Debug, Default)]
struct Bits {
    data: Vec<u8>,
    used: u8,
}

impl Bits {
    fn put(&mut self, value: u32, count: u8) {
        for n in (0..count).rev() {
            if self.used == 0 {
                self.data.push(0);
            }
            if let Some(last) = self.data.last_mut() {
                *last |= ((value >> n & 1) as u8) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// An unsigned Exp-Golomb number.
    fn ue(&mut self, value: u32) {
        let bits = 32 - (value + 1).leading_zeros() as u8;
        self.put(0, bits - 1);
        self.put(value + 1, bits);
    }

    /// Ends a NAL unit, which begins with `header`, and keeps start codes out of it.
    fn nal(mut self, header: u8) -> Vec<u8> {
        self.put(1, 1);
        let mut nal = vec![header];
        let mut zeros = 0;
        for byte in self.data {
            if zeros >= 2 && byte <= 3 {
                nal.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            nal.push(byte);
        }
        nal
    }
}

/// A picture's size, in macroblocks of 16 and cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    fn macroblocks(self) -> (u32, u32) {
        (self.width.div_ceil(16), self.height.div_ceil(16))
    }

    fn count(self) -> u32 {
        let (columns, rows) = self.macroblocks();
        columns * rows
    }
}

/// A sequence parameter set, constrained baseline.
pub fn sps(size: Size) -> Vec<u8> {
    let (columns, rows) = size.macroblocks();
    let mut bits = Bits::default();
    // Level 3.1 holds 3,600 macroblocks; 4.0 holds 8,192.
    let level = if columns * rows <= 3_600 { 31 } else { 40 };
    for (value, count) in [(66, 8), (0xe0, 8), (level, 8)] {
        bits.put(value, count);
    }
    // Its number, 4 bits of frame number, pictures in order of their output, one reference.
    for value in [0, 0, 2, 1] {
        bits.ue(value);
    }
    bits.put(0, 1);
    bits.ue(columns - 1);
    bits.ue(rows - 1);
    bits.put(0b11, 2);
    let (right, bottom) = (columns * 16 - size.width, rows * 16 - size.height);
    bits.put(u32::from(right + bottom > 0), 1);
    if right + bottom > 0 {
        for value in [0, right / 2, 0, bottom / 2] {
            bits.ue(value);
        }
    }
    bits.put(0, 1);
    bits.nal(0x67)
}

/// The picture parameter set that goes with it: everything plain.
pub fn pps() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.ue(0);
    bits.ue(0);
    bits.put(0, 2);
    for value in [0, 0, 0] {
        bits.ue(value);
    }
    bits.put(0, 3);
    for value in [0, 0, 0] {
        bits.ue(value);
    }
    bits.put(0, 3);
    bits.nal(0x68)
}

/// A key picture, all grey: each macroblock predicted flat, with nothing left over.
pub fn idr_slice(size: Size, id: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    for value in [0, 7, 0] {
        bits.ue(value);
    }
    bits.put(0, 4);
    bits.ue(id % 2);
    bits.put(0, 2);
    bits.ue(0);
    for _ in 0..size.count() {
        // Intra 16x16, flat prediction, no residual; flat chroma; no quantiser change; no coefficients.
        bits.ue(3);
        bits.put(0b111, 3);
    }
    bits.nal(0x65)
}

/// A picture that is as the one before.
pub fn skip_slice(size: Size, frame_number: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    for value in [0, 5, 0] {
        bits.ue(value);
    }
    bits.put(frame_number % 16, 4);
    bits.put(0, 3);
    bits.ue(0);
    bits.ue(size.count());
    bits.nal(0x61)
}

/// Supplemental data of any content without zeros: what makes pictures as big as real ones. `body` is its size.
pub fn filler_sei(body: usize) -> Vec<u8> {
    let size = body.max(16);
    let mut nal = vec![0x06, 5];
    nal.extend(std::iter::repeat_n(0xff, size / 255));
    nal.push((size % 255) as u8);
    nal.extend(std::iter::repeat_n(0xa5, size));
    nal.push(0x80);
    nal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_looked_into() {
        let (sps, pps) = (true, true);
        let stap = [24, 0, 2, 0x67, 1, 0, 1, 0x68];
        assert_eq!(
            inspect(&stap),
            Some(Holds {
                sps,
                pps,
                idr: false
            })
        );
        assert_eq!(inspect(&[24, 0, 9, 0x67]), None);
        assert!(inspect(&[0x7c, 0x85, 1]).is_some_and(|h| h.idr));
        assert!(
            inspect(&[0x7c, 0x05, 1]).is_some_and(|h| !h.idr),
            "no first fragment"
        );
        assert!(inspect(&[0x7c]).is_none() && inspect(&[]).is_none());
    }

    #[test]
    fn exp_golomb_numbers_and_start_codes() {
        let mut bits = Bits::default();
        for value in [0, 1, 2, 3, 7] {
            bits.ue(value);
        }
        assert_eq!(bits.data, [0b1010_0110, 0b0100_0001, 0b0000_0000]);
        let mut zeros = Bits::default();
        zeros.put(0, 32);
        assert_eq!(zeros.nal(9), [9, 0, 0, 3, 0, 0, 0x80]);
    }
}
