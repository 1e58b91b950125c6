// SPDX-License-Identifier: MPL-2.0

//! The RTCP that peers are sent: sender and receiver reports with a name (RFC 3550 sections 6.4 and 6.5), goodbyes (6.6), and
//! feedback: NACK and PLI (RFC 4585 sections 6.2.1 and 6.3.1), FIR (RFC 5104 section 4.3.1), REMB
//! (draft-alvestrand-rmcat-remb-03).

use super::feedback::REMB;
use super::{
    APPLICATION, BYE, FIR, NACK, PAYLOAD_FEEDBACK, PLI, RECEIVER_REPORT, ReportBlock,
    SENDER_REPORT, SOURCE_DESCRIPTION, TRANSPORT_FEEDBACK,
};

const VERSION: u8 = 2 << 6;
/// In a source description: the name that joins audio and video.
const CNAME: u8 = 1;
/// A goodbye counts its sources in five bits, a report its blocks.
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

    description(buffer, report.ssrc, cname);
}

/// Appends a receiver report, on 31 streams at most, and the description of who writes it: what a compound begins with.
pub fn write_receiver_report(buffer: &mut Vec<u8>, from: Reporter<'_>, blocks: &[ReportBlock]) {
    let blocks = &blocks[..blocks.len().min(MAX_SOURCES)];
    header(
        buffer,
        blocks.len() as u8,
        RECEIVER_REPORT,
        1 + 6 * blocks.len(),
    );
    buffer.extend_from_slice(&from.ssrc.to_be_bytes());
    for block in blocks {
        buffer.extend_from_slice(&block.ssrc.to_be_bytes());
        buffer.push(block.fraction_lost);
        let [_, lost @ ..] = block.cumulative_lost.to_be_bytes();
        buffer.extend_from_slice(&lost);
        for word in [
            block.highest_sequence,
            block.jitter,
            block.last_sender_report,
            block.delay,
        ] {
            buffer.extend_from_slice(&word.to_be_bytes());
        }
    }
    description(buffer, from.ssrc, from.cname);
}

/// Appends a request for packets again. Numbers that rise share entries. Returns how many of them it asks for: no more
/// than `entries` hold.
pub fn write_nack(
    buffer: &mut Vec<u8>,
    sender: u32,
    media: u32,
    lost: &[u16],
    entries: usize,
) -> usize {
    let start = buffer.len();
    feedback(buffer, NACK, TRANSPORT_FEEDBACK, sender, media);
    let mut taken = 0;
    for _ in 0..entries {
        let Some((first, rest)) = lost[taken..].split_first() else {
            break;
        };
        let bit = |seq: &u16| match seq.wrapping_sub(*first) {
            0 => Some(0),
            away @ 1..=16 => Some(1u16 << (away - 1)),
            _ => None,
        };
        let following = rest.iter().map_while(bit);
        let (count, bits) = following.fold((1, 0), |(count, bits), bit| (count + 1, bits | bit));
        buffer.extend_from_slice(&first.to_be_bytes());
        buffer.extend_from_slice(&bits.to_be_bytes());
        taken += count;
    }
    measure(buffer, start);
    taken
}

/// Appends a request for a keyframe.
pub fn write_pli(buffer: &mut Vec<u8>, sender: u32, media: u32) {
    let start = buffer.len();
    feedback(buffer, PLI, PAYLOAD_FEEDBACK, sender, media);
    measure(buffer, start);
}

/// Appends a command for a keyframe. `number` is another one for each.
pub fn write_fir(buffer: &mut Vec<u8>, sender: u32, media: u32, number: u8) {
    let start = buffer.len();
    // Section 4.3.1.2: the media's SSRC is in the entry.
    feedback(buffer, FIR, PAYLOAD_FEEDBACK, sender, 0);
    buffer.extend_from_slice(&media.to_be_bytes());
    buffer.extend_from_slice(&[number, 0, 0, 0]);
    measure(buffer, start);
}

/// Appends how much may be sent in all of these streams, in bit/s.
pub fn write_remb(buffer: &mut Vec<u8>, sender: u32, bitrate: u64, ssrcs: &[u32]) {
    let start = buffer.len();
    feedback(buffer, APPLICATION, PAYLOAD_FEEDBACK, sender, 0);
    buffer.extend_from_slice(REMB);
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate >> exponent) as u32;
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let word = (ssrcs.len() as u32) << 24 | exponent << 18 | mantissa;
    buffer.extend_from_slice(&word.to_be_bytes());
    for ssrc in ssrcs {
        buffer.extend_from_slice(&ssrc.to_be_bytes());
    }
    measure(buffer, start);
}

/// Who writes a report.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    pub ssrc: u32,
    pub cname: &'a str,
}

/// The description of a source: its name, of which 255 bytes are sent.
fn description(buffer: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let cname = &cname[..cname.floor_char_boundary(255)];
    // At least one zero ends the list of items.
    let items = (2 + cname.len() + 1).next_multiple_of(4);
    header(buffer, 1, SOURCE_DESCRIPTION, 1 + items / 4);
    buffer.extend_from_slice(&ssrc.to_be_bytes());
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

/// What all feedback begins with. Its length is not known yet.
fn feedback(buffer: &mut Vec<u8>, format: u8, kind: u8, sender: u32, media: u32) {
    header(buffer, format, kind, 0);
    buffer.extend_from_slice(&sender.to_be_bytes());
    buffer.extend_from_slice(&media.to_be_bytes());
}

/// Writes the length of the packet that begins there and ends with the buffer.
fn measure(buffer: &mut [u8], start: usize) {
    let words = ((buffer.len() - start) / 4 - 1) as u16;
    buffer[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// `words` are those after the header. All that is written here has few.
fn header(buffer: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    buffer.extend_from_slice(&[VERSION | count, kind]);
    buffer.extend_from_slice(&(words as u16).to_be_bytes());
}
