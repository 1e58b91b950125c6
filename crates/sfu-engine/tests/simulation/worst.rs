// SPDX-License-Identifier: MPL-2.0

//! The datagrams of 1,500 octets that might cost most, a row a kind. The bench `inbound` times the same.

use sfu_engine::srtp::Protect;
use sfu_impair::Rng;
use str0m::ice::{StunMessage, TransId};

use crate::viewer::TestViewer;

/// Octets of a compound that is sealed and sent by UDP over Ethernet.
const ROOM: usize = 1_452;
/// Feedback of whoever; it is not looked at.
const SENDER: u32 = 0xdead;

/// What is known of a viewer by whoever writes in its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The video's SSRC.
    pub(crate) video: u32,
    /// The newest sequence number that left.
    pub(crate) newest: u16,
    /// The next transport-wide number to be reported, and how many have left since.
    pub(crate) unreported: u16,
    pub(crate) under_way: u16,
}

/// A kind of datagram, as a compound of RTCP.
pub(crate) type Kind = (&'static str, fn(Target) -> Vec<u8>);

pub(crate) const KINDS: &[Kind] = &[
    ("TWCC: 34 reports of 65,535 lost", |_| {
        filled(|out| run_lengths(out, 0, 65_535, 0))
    }),
    ("TWCC: all that left, lost", |t| {
        let mut out = Vec::new();
        run_lengths(&mut out, t.unreported, t.under_way, 0);
        out
    }),
    ("TWCC: all that left, lost, 34 times", |t| {
        filled(|out| run_lengths(out, t.unreported, t.under_way, 0))
    }),
    ("TWCC: as many arrived as fit", |t| {
        let count = (ROOM as u16 - 40).min(t.under_way);
        let deltas = vec![2; count.into()];
        twcc(t.unreported, count, &[0x2000 | count], &deltas)
    }),
    ("TWCC: a clock that jumps with each", |t| {
        let count = ((ROOM as u16 - 40) / 2).min(t.under_way);
        let deltas: Vec<u8> = (0..count)
            .flat_map(|n| if n % 2 == 0 { [0x7f, 0xff] } else { [0x80, 0] })
            .collect();
        twcc(t.unreported, count, &[0x4000 | count], &deltas)
    }),
    ("TWCC: a report a packet", |t| {
        let mut seq = t.unreported;
        filled(|out| {
            out.extend(twcc(seq, 1, &[0x2001], &[1]));
            seq = seq.wrapping_add(1);
        })
    }),
    ("TWCC: vectors of nothing", |t| {
        let chunks = [0x8000; (ROOM - 20) / 2];
        twcc(t.unreported.wrapping_sub(9_000), 9_800, &chunks, &[])
    }),
    ("TWCC: vectors without times", |t| {
        let chunks = [0xffff; (ROOM - 20) / 2];
        twcc(t.unreported, 4_900, &chunks, &[])
    }),
    ("TWCC: empty chunks and reports", |t| {
        filled(|out| out.extend(twcc(t.unreported, 1, &[0, 0, 0, 1], &[])))
    }),
    ("TWCC: what never left, arrived", |t| {
        let first = t.unreported.wrapping_add(t.under_way);
        twcc(first, 1_400, &[0x2000 | 1_400], &[1; 1_400])
    }),
    ("NACK: all numbers that fit, never sent", |t| {
        nack(t.video, (1..340).map(|n| t.newest.wrapping_add(n * 17)))
    }),
    ("NACK: all numbers that fit, long ago", |t| {
        let first = t.newest.wrapping_sub(8_190);
        nack(t.video, (0..340).map(|n| first.wrapping_add(n * 8)))
    }),
    ("NACK: the same numbers again and again", |t| {
        nack(t.video, (0..340).map(|_| t.newest.wrapping_sub(16)))
    }),
    ("NACK: the newest 5,780", |t| {
        nack(
            t.video,
            (1..=340).map(|n| t.newest.wrapping_sub(n * 17 - 1)),
        )
    }),
    ("NACK: of other streams", |t| {
        nack(t.video ^ 1, (0..340).map(|n| t.newest.wrapping_sub(n)))
    }),
    ("PLI, again and again", |t| {
        filled(|out| {
            out.extend([0x81, 206, 0, 2]);
            out.extend(SENDER.to_be_bytes());
            out.extend(t.video.to_be_bytes());
        })
    }),
    ("FIR, all different", |t| {
        let mut out = vec![0x84, 206, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        for number in 0..179 {
            out.extend(t.video.to_be_bytes());
            out.extend([number, 0, 0, 0]);
        }
        measured(out)
    }),
    ("receiver reports, full of blocks", |t| {
        filled(|out| {
            let mut report = vec![0x80 | 29, 201, 0, 0, 0, 0, 0, 1];
            for n in 0..29 {
                report.extend(t.video.to_be_bytes());
                report.extend([n * 8; 20]);
            }
            out.extend(measured(report));
        })
    }),
    ("REMB, again and again", |t| {
        filled(|out| {
            out.extend(b"\x8f\xce\x00\x05\0\0\0\x01\0\0\0\0REMB\x01\x0b\xff\xff");
            out.extend(t.video.to_be_bytes());
        })
    }),
    ("packets of four octets", |_| {
        let mut kind = 191;
        filled(|out| {
            kind = if kind == 223 { 192 } else { kind + 1 };
            out.extend([0x80, kind, 0, 0]);
        })
    }),
    ("descriptions, goodbyes and extended reports", |_| {
        filled(|out| {
            out.extend([0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'x', 0]);
            out.extend([0x81, 203, 0, 1, 0, 0, 0, 1]);
            out.extend([0x80, 207, 0, 4, 0, 0, 0, 1, 4, 0, 0, 2]);
            out.extend([7; 8]);
        })
    }),
    ("sender reports", |t| {
        filled(|out| {
            out.extend([0x80, 200, 0, 6]);
            out.extend(t.video.to_be_bytes());
            out.extend([9; 20]);
        })
    }),
    ("receiver reports without blocks", |_| {
        filled(|out| out.extend([0x80, 201, 0, 1, 0, 0, 0, 1]))
    }),
    ("goodbyes of nobody", |_| {
        filled(|out| out.extend([0x80, 203, 0, 1, 0, 0, 0, 1]))
    }),
    ("descriptions of one source", |_| {
        filled(|out| out.extend([0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'x', 0]))
    }),
    ("descriptions of 31 sources", |_| {
        filled(|out| {
            let mut packet = vec![0x80 | 31, 202, 0, 0];
            for n in 0..31 {
                packet.extend([0, 0, 0, n, 1, 1, b'x', 0]);
            }
            out.extend(measured(packet));
        })
    }),
    ("extended reports that ask for answers", |t| {
        let mut source = u32::from(t.newest) << 8;
        filled(|out| {
            source += 1;
            out.extend([0x80, 207, 0, 4]);
            out.extend(source.to_be_bytes());
            out.extend([4, 0, 0, 2, 7, 7, 7, 7, 7, 7, 7, 7]);
        })
    }),
    ("extended reports that answer", |t| {
        filled(|out| {
            let mut packet = vec![0x80, 207, 0, 0, 0, 0, 0, 1, 5, 0, 0, 90];
            for n in 0..30 {
                packet.extend(t.video.to_be_bytes());
                packet.extend([n; 8]);
            }
            out.extend(measured(packet));
        })
    }),
];

/// A compound of one thing, as often as it fits.
fn filled(mut one: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let before = out.len();
        one(&mut out);
        if out.len() > ROOM {
            out.truncate(before);
            return out;
        }
    }
}

/// Writes a packet's length into it.
fn measured(mut packet: Vec<u8>) -> Vec<u8> {
    packet.resize(packet.len().next_multiple_of(4), 0);
    let words = (packet.len() / 4 - 1) as u16;
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    packet
}

fn twcc(base: u16, count: u16, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
    let mut out = vec![0x8f, 205, 0, 0];
    out.extend(SENDER.to_be_bytes());
    out.extend(1u32.to_be_bytes());
    out.extend(base.to_be_bytes());
    out.extend(count.to_be_bytes());
    out.extend([0, 0, 1, 0]);
    out.extend(chunks.iter().flat_map(|c| c.to_be_bytes()));
    out.extend(deltas);
    measured(out)
}

/// A report of runs of one symbol.
fn run_lengths(out: &mut Vec<u8>, base: u16, count: u16, symbol: u16) {
    let mut chunks = vec![symbol << 13 | 0x1fff; (count / 0x1fff).into()];
    chunks.push((symbol << 13) | (count % 0x1fff));
    out.extend(twcc(base, count, &chunks, &[]));
}

/// A NACK of these numbers and the sixteen after each.
fn nack(media: u32, firsts: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut out = vec![0x81, 205, 0, 0];
    out.extend(SENDER.to_be_bytes());
    out.extend(media.to_be_bytes());
    for first in firsts {
        out.extend(first.to_be_bytes());
        out.extend([0xff, 0xff]);
    }
    measured(out)
}

/// A compound of anything at all.
pub(crate) fn anything(rng: &mut Rng, target: Target) -> Vec<u8> {
    let mut out = Vec::new();
    let mut word = || rng.next_u64();
    while out.len() < ROOM - 64 && word() % 40 != 0 {
        let (_, kind) = KINDS[word() as usize % KINDS.len()];
        let mut part = kind(target);
        // A piece of it, with some octets changed and its length set right, or not.
        part.truncate(4 * (1 + word() as usize % (part.len() / 4)));
        part.truncate(ROOM - out.len());
        for _ in 0..word() % 4 {
            let at = word() as usize % part.len();
            part[at] = word() as u8;
        }
        if word() % 8 != 0 && part.len() >= 4 {
            part = measured(part);
        }
        out.extend(part);
    }
    out.truncate(ROOM / 4 * 4);
    out
}

/// Seals it in the viewer's name.
pub(crate) fn sealed(protect: &mut Protect, mut compound: Vec<u8>) -> Option<Vec<u8>> {
    protect.rtcp(&mut compound, 0).ok()?;
    assert!(compound.len() <= 1_500, "{} octets", compound.len());
    Some(compound)
}

/// A connectivity check of the viewer, or of whoever does not know the password.
pub(crate) fn check(viewer: &mut TestViewer, knows_password: bool) -> Vec<u8> {
    let answer = viewer.answer.clone();
    let value = |key: &str| {
        let mut lines = answer.lines();
        let value = lines.find_map(|line| line.strip_prefix(key));
        value.expect("in the answer").trim().to_owned()
    };
    let theirs = viewer.rtc.direct_api().local_ice_credentials().ufrag;
    let name = format!("{}:{theirs}", value("a=ice-ufrag:"));
    let password = match knows_password {
        true => value("a=ice-pwd:"),
        false => "another".to_owned(),
    };
    let message = StunMessage::binding_request(&name, TransId::new(), true, 1, 7, false);
    let hmac = str0m::crypto::from_feature_flags().sha1_hmac_provider;
    let mut data = vec![0; 500];
    let len = message
        .to_bytes(Some(password.as_bytes()), &mut data, |key, parts| {
            hmac.sha1_hmac(key, parts)
        })
        .expect("written");
    data.truncate(len);
    data
}

/// A message of nothing but empty attributes.
pub(crate) fn attributes() -> Vec<u8> {
    let mut data = vec![0, 1, 5, 0xa8, 0x21, 0x12, 0xa4, 0x42];
    data.resize(20 + 1_448, 0);
    data
}
