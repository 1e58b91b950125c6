// SPDX-License-Identifier: MPL-2.0

//! Report blocks: RFC 3550 section 6.4.

use std::slice::ChunksExact;

const BLOCK: usize = 24;
/// What comes before the blocks in a sender report: SSRC, NTP and RTP time, two counts.
pub(super) const SENDER_INFO: usize = 24;

/// How one of our streams arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Less than zero where more came than was sent, which duplicates do.
    pub cumulative_lost: i32,
    /// Extended by how often the sequence number wrapped.
    pub highest_sequence: u32,
    /// In units of the RTP time.
    pub jitter: u32,
    /// The middle of the NTP time of the last sender report, zero where none came.
    pub last_sender_report: u32,
    /// Since that report came, in 65,536ths of a second.
    pub delay: u32,
}

/// The blocks of a report.
#[derive(Clone, Debug)]
pub struct ReportBlocks<'a>(ChunksExact<'a, u8>);

impl<'a> ReportBlocks<'a> {
    pub(super) fn read(blocks: &'a [u8], count: u8) -> Option<Self> {
        let blocks = blocks.get(..BLOCK * usize::from(count))?;
        Some(Self(blocks.chunks_exact(BLOCK)))
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let block = self.0.next()?;
        let word =
            |at| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        Some(ReportBlock {
            ssrc: word(0),
            fraction_lost: block[4],
            // The sign is that of 24 bits.
            cumulative_lost: (word(4) << 8) as i32 >> 8,
            highest_sequence: word(8),
            jitter: word(12),
            last_sender_report: word(16),
            delay: word(20),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for ReportBlocks<'_> {}
