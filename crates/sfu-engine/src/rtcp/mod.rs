// SPDX-License-Identifier: MPL-2.0

//! Reads the RTCP of peers and writes ours: RFC 3550, feedback of RFC 4585 and RFC 5104, REMB
//! (draft-alvestrand-rmcat-remb-03) and transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Called by the sender of a viewer and by the receiver of a publisher with what `srtp::Unprotect` opened. `rtc-rtcp` reads the same into boxes and vectors, a
//! dozen allocations a report; the reports of a thousand viewers are tens of thousands a second. So this reader keeps
//! slices of the packet and gives iterators over them, which allocate nothing. Its tests compare it with `rtc-rtcp`.
//!
//! Whatever comes from outside is bounded by its own length: no iterator gives more than the bytes of its packet describe,
//! and that of transport-wide feedback, two octets of which speak of thousands of packets, no more than was sent.
//! Packets are taken alone too, as RFC 5506 has it.

mod feedback;
mod report;
#[cfg(test)]
mod tests;
mod twcc;
mod twcc_write;
mod write;

pub use feedback::{FirEntries, FirEntry, LostPackets};
pub use report::{ReportBlock, ReportBlocks, SenderInfo, Sources};
pub use twcc::{Numbers, REFERENCE_PERIOD_US, TwccPackets, TwccReport};
pub use twcc_write::TwccWriter;
pub use write::{
    Reporter, SenderReport, write_bye, write_fir, write_nack, write_pli, write_receiver_report,
    write_remb, write_sender_report,
};

const HEADER: usize = 4;
const SSRC: usize = 4;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
/// The type of descriptions of sources.
pub const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

const NACK: u8 = 1;
const TWCC: u8 = 15;
const PLI: u8 = 1;
const FIR: u8 = 4;
const APPLICATION: u8 = 15;

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Rtcp<'a> {
    ReceiverReport {
        blocks: ReportBlocks<'a>,
    },
    SenderReport {
        info: SenderInfo,
        blocks: ReportBlocks<'a>,
    },
    Nack {
        media_ssrc: u32,
        lost: LostPackets<'a>,
    },
    Pli {
        media_ssrc: u32,
    },
    Fir {
        entries: FirEntries<'a>,
    },
    /// In bits a second.
    Remb {
        bitrate: u64,
    },
    Twcc(TwccReport<'a>),
    Bye {
        sources: Sources<'a>,
    },
    /// A packet of another type, such as a description or an extended report.
    Other(u8),
}

/// What is no RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// The length of a packet goes beyond the data. Nothing comes after it.
    #[error("truncated")]
    Truncated,
    /// Another version than 2. Nothing comes after it.
    #[error("not RTCP")]
    Version,
    /// A packet of this type holds less than it announces. The next is read all the same.
    #[error("a malformed packet of type {0}")]
    Malformed(u8),
}

/// Reads a compound packet.
pub fn packets(data: &[u8]) -> Packets<'_> {
    Packets { rest: data }
}

/// The packets of a compound, made by [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Rtcp<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (error, rest) = match self.rest.first_chunk::<HEADER>() {
            None => (RtcpError::Truncated, &[][..]),
            Some([first, ..]) if first >> 6 != 2 => (RtcpError::Version, &[][..]),
            Some(&[first, kind, high, low]) => {
                let len = HEADER + 4 * usize::from(u16::from_be_bytes([high, low]));
                match self.rest.split_at_checked(len) {
                    None => (RtcpError::Truncated, &[][..]),
                    Some((packet, rest)) => {
                        let read = unpadded(first, &packet[HEADER..])
                            .and_then(|body| read(kind, first & 0x1f, body));
                        if let Some(packet) = read {
                            self.rest = rest;
                            return Some(Ok(packet));
                        }
                        (RtcpError::Malformed(kind), rest)
                    }
                }
            }
        };
        self.rest = rest;
        Some(Err(error))
    }
}

/// A body without its padding, whose last byte counts it.
fn unpadded(first: u8, body: &[u8]) -> Option<&[u8]> {
    if first & 0x20 == 0 {
        return Some(body);
    }
    let padding = usize::from(*body.last()?);
    if padding == 0 {
        return None;
    }
    body.get(..body.len().checked_sub(padding)?)
}

/// Reads the body of a packet: what comes after the word with type and length.
fn read(kind: u8, count: u8, body: &[u8]) -> Option<Rtcp<'_>> {
    Some(match (kind, count) {
        (SENDER_REPORT, _) => Rtcp::SenderReport {
            info: SenderInfo::read(body)?,
            blocks: ReportBlocks::read(body.get(report::SENDER_INFO..)?, count)?,
        },
        (RECEIVER_REPORT, _) => Rtcp::ReceiverReport {
            blocks: ReportBlocks::read(body.get(SSRC..)?, count)?,
        },
        (BYE, _) => Rtcp::Bye {
            sources: Sources::read(body, count)?,
        },
        (TRANSPORT_FEEDBACK, NACK) => Rtcp::Nack {
            media_ssrc: u32_at(body, SSRC)?,
            lost: LostPackets::read(body.get(2 * SSRC..)?),
        },
        (TRANSPORT_FEEDBACK, TWCC) => Rtcp::Twcc(TwccReport::read(body)?),
        (PAYLOAD_FEEDBACK, PLI) => Rtcp::Pli {
            media_ssrc: u32_at(body, SSRC)?,
        },
        (PAYLOAD_FEEDBACK, FIR) => Rtcp::Fir {
            entries: FirEntries::read(body.get(2 * SSRC..)?),
        },
        (PAYLOAD_FEEDBACK, APPLICATION) => {
            let application = body.get(2 * SSRC..)?;
            if application.starts_with(feedback::REMB) {
                Rtcp::Remb {
                    bitrate: feedback::remb(application)?,
                }
            } else {
                Rtcp::Other(kind)
            }
        }
        _ => Rtcp::Other(kind),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}
