// SPDX-License-Identifier: MPL-2.0

//! The RTCP that viewers are sent: sender reports with a name (RFC 3550 sections 6.4.1 and 6.5), and goodbyes (6.6).

use super::{BYE, SENDER_REPORT, SOURCE_DESCRIPTION};

const VERSION: u8 = 2 << 6;
/// In a source description: the name that joins audio and video.
const CNAME: u8 = 1;
/// A goodbye counts its sources in five bits.
const MAX_SOURCES: usize = 31;

/// What a sender says of one of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    pub ssrc: u32,
    /// The time of the report: seconds since 1900 and, below, their fraction.
    pub ntp_time: u64,
    /// The same time on the clock of the stream.
    pub rtp_time: u32,
    pub packets: u32,
    /// Of payload.
    pub octets: u32,
}

/// Appends a sender report and the description of its source: a compound that may stand alone or go on. Of a name, 255
/// bytes are sent.
pub fn write_sender_report(buffer: &mut Vec<u8>, report: &SenderReport, cname: &str) {
    header(buffer, 0, SENDER_REPORT, 6);
    buffer.extend_from_slice(&report.ssrc.to_be_bytes());
    buffer.extend_from_slice(&report.ntp_time.to_be_bytes());
    buffer.extend_from_slice(&report.rtp_time.to_be_bytes());
    buffer.extend_from_slice(&report.packets.to_be_bytes());
    buffer.extend_from_slice(&report.octets.to_be_bytes());

    let cname = &cname[..cname.floor_char_boundary(255)];
    // At least one zero ends the list of items.
    let items = (2 + cname.len() + 1).next_multiple_of(4);
    header(buffer, 1, SOURCE_DESCRIPTION, 1 + items / 4);
    buffer.extend_from_slice(&report.ssrc.to_be_bytes());
    let begin = buffer.len();
    buffer.extend_from_slice(&[CNAME, cname.len() as u8]);
    buffer.extend_from_slice(cname.as_bytes());
    buffer.resize(begin + items, 0);
}

/// Appends the goodbye of some sources. In a compound it comes last, after a report.
pub fn write_bye(buffer: &mut Vec<u8>, ssrcs: &[u32]) {
    for ssrcs in ssrcs.chunks(MAX_SOURCES) {
        header(buffer, ssrcs.len() as u8, BYE, ssrcs.len());
        for ssrc in ssrcs {
            buffer.extend_from_slice(&ssrc.to_be_bytes());
        }
    }
}

/// `words` are those after the header. All that is written here has few.
fn header(buffer: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    buffer.extend_from_slice(&[VERSION | count, kind]);
    buffer.extend_from_slice(&(words as u16).to_be_bytes());
}
