// SPDX-License-Identifier: MPL-2.0

//! Report blocks: RFC 3550 section 6.4.

use std::slice::ChunksExact;

use super::{SSRC, u32_at};

const BLOCK: usize = 24;
/// What comes before the blocks in a sender report: SSRC, NTP and RTP time, two counts.
pub(super) const SENDER_INFO: usize = 24;

/// What a sender says of its clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: u32,
    /// Seconds since 1900 in the upper half, their fraction in the lower.
    pub ntp_time: u64,
    /// The same moment on the clock of the stream.
    pub rtp_time: u32,
}

impl SenderInfo {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let ntp_time = u64::from(u32_at(body, 4)?) << 32 | u64::from(u32_at(body, 8)?);
        Some(Self {
            ssrc: u32_at(body, 0)?,
            ntp_time,
            rtp_time: u32_at(body, 12)?,
        })
    }
}

/// The SSRCs of a goodbye.
#[derive(Clone, Debug)]
pub struct Sources<'a>(ChunksExact<'a, u8>);

impl<'a> Sources<'a> {
    pub(super) fn read(body: &'a [u8], count: u8) -> Option<Self> {
        let sources = body.get(..SSRC * usize::from(count))?;
        Some(Self(sources.chunks_exact(SSRC)))
    }
}

impl Iterator for Sources<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        u32_at(self.0.next()?, 0)
    }
}

/// How a stream arrives.
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
