// SPDX-License-Identifier: MPL-2.0

//! Feedback about packets and pictures: NACK (RFC 4585 section 6.2.1), FIR (RFC 5104 section 4.3.1) and REMB
//! (draft-alvestrand-rmcat-remb-03 section 2.2).

use std::slice::ChunksExact;

use super::{SSRC, u32_at};

/// What a REMB begins with.
pub(super) const REMB: &[u8] = b"REMB";

const NACK_ENTRY: usize = 4;
const FIR_ENTRY: usize = 8;

/// The sequence numbers of a NACK, as they come: at most 17 for each four bytes.
#[derive(Clone, Debug)]
pub struct LostPackets<'a> {
    entries: ChunksExact<'a, u8>,
    /// The number of the lowest bit of those that follow.
    next: u16,
    following: u16,
}

impl<'a> LostPackets<'a> {
    pub(super) fn read(entries: &'a [u8]) -> Self {
        Self {
            entries: entries.chunks_exact(NACK_ENTRY),
            next: 0,
            following: 0,
        }
    }
}

impl Iterator for LostPackets<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.following == 0 {
            let entry = self.entries.next()?;
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            self.next = first.wrapping_add(1);
            self.following = u16::from_be_bytes([entry[2], entry[3]]);
            return Some(first);
        }
        let skipped = self.following.trailing_zeros() as u16;
        let lost = self.next.wrapping_add(skipped);
        self.next = lost.wrapping_add(1);
        // In two steps: all sixteen at once would be an overflow.
        self.following = self.following >> skipped >> 1;
        Some(lost)
    }
}

/// A request for a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    pub ssrc: u32,
    /// The same for a request that is repeated.
    pub sequence: u8,
}

/// The entries of a FIR.
#[derive(Clone, Debug)]
pub struct FirEntries<'a>(ChunksExact<'a, u8>);

impl<'a> FirEntries<'a> {
    pub(super) fn read(entries: &'a [u8]) -> Self {
        Self(entries.chunks_exact(FIR_ENTRY))
    }
}

impl Iterator for FirEntries<'_> {
    type Item = FirEntry;

    fn next(&mut self) -> Option<FirEntry> {
        let entry = self.0.next()?;
        Some(FirEntry {
            ssrc: u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]),
            sequence: entry[4],
        })
    }
}

/// The bitrate of a REMB: six bits of exponent, 18 of mantissa. More than 64 bits hold is all that they hold.
pub(super) fn remb(application: &[u8]) -> Option<u64> {
    let word = u32_at(application, REMB.len())?;
    let sources = application.len() - REMB.len() - 4;
    if sources < SSRC * (word >> 24) as usize {
        return None;
    }
    let (exponent, mantissa) = (word >> 18 & 0x3f, u64::from(word & 0x3_ffff));
    if mantissa.leading_zeros() < exponent {
        return Some(u64::MAX);
    }
    Some(mantissa << exponent)
}
