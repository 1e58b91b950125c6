// SPDX-License-Identifier: MPL-2.0

//! Fragments and aggregates of NAL units: how H.264 (RFC 6184) and H.265 (RFC 7798) put a unit into several RTP packets and
//! several units into one, taken apart and put together anew.
//!
//! Called by [`Fragmenter`](crate::fragment::Fragmenter) for packets that are too large. Both formats differ in the length of their
//! headers and in where the type is, and in nothing else that matters here.

use super::Codec;

/// The start and the end of a unit, in the header of a fragment (RFC 6184, 5.8; RFC 7798, 4.4.3).
const START: u8 = 0x80;
const END: u8 = 0x40;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    H264,
    H265,
}

/// What a payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// One unit, or a fragment of one.
    Part(Part<'a>),
    /// Several units, each behind a 16-bit length (STAP-A, AP).
    Aggregate(&'a [u8]),
    /// What is not understood, or of no interleaved mode (STAP-B, MTAP, FU-B, PACI): it stays as it is.
    Other,
}

/// A unit, or a fragment of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// The unit's own header; H.264 uses the first octet of it.
    pub(crate) header: [u8; 2],
    /// Whether it begins the unit, and whether it ends it.
    pub(crate) start: bool,
    pub(crate) end: bool,
    /// What follows the unit's header.
    pub(crate) data: &'a [u8],
}

impl Format {
    /// `None` where the codec's packets can't be fragmented anew.
    pub(crate) fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::H264 => Some(Self::H264),
            Codec::H265 => Some(Self::H265),
            Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus => None,
        }
    }

    /// Octets of a unit's header.
    fn header(self) -> usize {
        match self {
            Self::H264 => 1,
            Self::H265 => 2,
        }
    }

    /// Octets of a unit that a fragment of this size takes.
    pub(crate) fn room(self, max: usize) -> usize {
        max - self.header() - 1
    }

    pub(crate) fn unit_type(self, header: [u8; 2]) -> u8 {
        match self {
            Self::H264 => header[0] & 0x1f,
            Self::H265 => (header[0] >> 1) & 0x3f,
        }
    }

    fn with_type(self, header: [u8; 2], unit_type: u8) -> [u8; 2] {
        match self {
            Self::H264 => [header[0] & 0xe0 | unit_type, 0],
            Self::H265 => [header[0] & 0x81 | unit_type << 1, header[1]],
        }
    }

    /// The types of aggregates and of fragments.
    fn special(self) -> (u8, u8) {
        match self {
            Self::H264 => (24, 28),
            Self::H265 => (48, 49),
        }
    }

    /// Takes a payload apart.
    pub(crate) fn read(self, payload: &[u8]) -> Content<'_> {
        let Some((first, rest)) = payload.split_at_checked(self.header()) else {
            return Content::Other;
        };
        let mut header = [0; 2];
        header[..first.len()].copy_from_slice(first);
        let (aggregate, fragment) = self.special();
        match self.unit_type(header) {
            of if of == aggregate => Content::Aggregate(rest),
            of if of == fragment => {
                let Some((&fu, data)) = rest.split_first() else {
                    return Content::Other;
                };
                let mask = match self {
                    Self::H264 => 0x1f,
                    Self::H265 => 0x3f,
                };
                Content::Part(Part {
                    header: self.with_type(header, fu & mask),
                    start: fu & START != 0,
                    end: fu & END != 0,
                    data,
                })
            }
            of if of > aggregate || (self == Self::H264 && of == 0) => Content::Other,
            _ => Content::Part(Part {
                header,
                start: true,
                end: true,
                data: rest,
            }),
        }
    }

    /// The units of an aggregate, or `None` where it is not whole: then it is no use to take it apart.
    pub(crate) fn units(self, mut rest: &[u8]) -> Option<Vec<&[u8]>> {
        let mut units = Vec::new();
        while let [hi, lo, behind @ ..] = rest {
            let size = usize::from(u16::from_be_bytes([*hi, *lo]));
            let (unit, behind) = behind.split_at_checked(size)?;
            if unit.len() < self.header() {
                return None;
            }
            units.push(unit);
            rest = behind;
        }
        (rest.is_empty() && !units.is_empty()).then_some(units)
    }

    /// The octets of an aggregate of units that take so many with their lengths.
    pub(crate) fn aggregate_len(self, units: usize) -> usize {
        self.header() + units
    }

    /// An aggregate of units. Its header is as bad and as important as its units' (RFC 6184, 5.7), and of the lowest layers
    /// among them (RFC 7798, 4.4.2).
    pub(crate) fn aggregate(self, units: &[&[u8]]) -> Vec<u8> {
        let forbidden = units.iter().fold(0, |bits, unit| bits | unit[0] & 0x80);
        let size: usize = units.iter().map(|unit| 2 + unit.len()).sum();
        let mut payload = Vec::with_capacity(self.aggregate_len(size));
        match self {
            Self::H264 => {
                let importance = units.iter().map(|unit| unit[0] & 0x60).max();
                payload.push(forbidden | importance.unwrap_or(0) | 24);
            }
            Self::H265 => {
                let layer = units.iter().map(|unit| (unit[0] & 1, unit[1] & 0xf8)).min();
                let temporal = units.iter().map(|unit| unit[1] & 7).min();
                let (high, low) = layer.unwrap_or((0, 0));
                payload.push(forbidden | 48 << 1 | high);
                payload.push(low | temporal.unwrap_or(1));
            }
        }
        for unit in units {
            // Units come out of aggregates, so their lengths fit.
            payload.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            payload.extend_from_slice(unit);
        }
        payload
    }

    /// A fragment of a unit.
    pub(crate) fn fragment(self, part: Part<'_>) -> Vec<u8> {
        let (_, fragment) = self.special();
        let indicator = self.with_type(part.header, fragment);
        let mut payload = Vec::with_capacity(self.header() + 1 + part.data.len());
        payload.extend_from_slice(&indicator[..self.header()]);
        let bits = if part.start { START } else { 0 } | if part.end { END } else { 0 };
        payload.push(bits | self.unit_type(part.header));
        payload.extend_from_slice(part.data);
        payload
    }

    /// A whole unit.
    #[cfg(test)]
    pub(crate) fn unit(self, header: [u8; 2], data: &[u8]) -> Vec<u8> {
        [&header[..self.header()], data].concat()
    }
}
