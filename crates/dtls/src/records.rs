// SPDX-License-Identifier: MPL-2.0

//! Which records reach OpenSSL, and under which numbers ours leave (RFC 6347, sections 4.1 and 4.2).
//!
//! Anybody who knows two addresses can send records in a peer's name. OpenSSL takes a plain one that makes no sense for the
//! end of a session (an alert of two octets is enough), where RFC 6347 4.1.2.7 says: invalid records SHOULD be silently
//! discarded. So what can't be a step of the handshake is dropped before it is read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const HEADER: usize = 13;
/// The content types (RFC 5246, section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// A handshake message's header (RFC 6347, section 4.2.2), and the longest that is taken: chains of certificates are not.
const MESSAGE_HEADER: usize = 12;
const MESSAGE_MAX: usize = 16_384;
/// What a server is told without encryption: ClientHello, Certificate, ClientKeyExchange, CertificateVerify.
const TO_SERVER: [u8; 4] = [1, 11, 16, 15];
/// What a client is told: ServerHello, HelloVerifyRequest, Certificate, ServerKeyExchange, CertificateRequest,
/// ServerHelloDone, CertificateStatus.
const TO_CLIENT: [u8; 7] = [2, 3, 11, 12, 13, 14, 22];
/// OpenSSL keeps records of the epoch to come until it can read them, 17 kB each. A peer sends one after it has changed to
/// that epoch, and repeats both.
const EARLY: u8 = 64;
/// The longest of them: a Finished, or an alert.
const EARLY_OCTETS: usize = 256;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Records of all sessions of the process that were dropped before they were read.
pub fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// What is let through of what comes.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    early: u8,
    /// The peer, so it seems, has changed to the next epoch.
    changed: bool,
    /// Plain records are numbered anew: a forged number would make a replay of the peer's own.
    numbers: Numbers,
}

impl Gate {
    /// The records of a datagram that may be read; the others are counted.
    pub(crate) fn admit(&mut self, datagram: &[u8], is_client: bool, connected: bool) -> Vec<u8> {
        let mut admitted = Vec::new();
        let mut rest = datagram;
        while !rest.is_empty() {
            let Some((record, after)) = split(rest) else {
                DROPPED.fetch_add(1, Relaxed);
                break;
            };
            rest = after;
            if self.takes(record, is_client, connected) {
                admitted.extend_from_slice(record);
            } else {
                DROPPED.fetch_add(1, Relaxed);
            }
        }
        self.numbers.renew(&mut admitted);
        admitted
    }

    fn takes(&mut self, record: &[u8], is_client: bool, connected: bool) -> bool {
        let (header, content) = record.split_at(HEADER);
        match (epoch(header), header[0]) {
            // A plain alert is anybody's: the handshake has a time of its own.
            (0, CHANGE_CIPHER_SPEC) => {
                self.changed |= content == [1];
                content == [1]
            }
            (0, HANDSHAKE) => {
                let known: &[u8] = match is_client {
                    true => &TO_CLIENT,
                    false => &TO_SERVER,
                };
                messages_are_sound(content, known)
            }
            (1, _) if connected => true,
            (1, ALERT | HANDSHAKE) if self.changed => {
                self.early = self.early.saturating_add(1);
                self.early <= EARLY && content.len() <= EARLY_OCTETS
            }
            _ => false,
        }
    }
}

/// Whether one of these records is a ChangeCipherSpec, of which each of a peer's last flights has one.
pub(crate) fn changes_cipher(mut records: &[u8]) -> bool {
    while let Some((record, rest)) = split(records) {
        if record[0] == CHANGE_CIPHER_SPEC {
            return true;
        }
        records = rest;
    }
    false
}

fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = data.get(..HEADER)?;
    let known = matches!(header[0], CHANGE_CIPHER_SPEC..=APPLICATION_DATA) && header[1] == 0xfe;
    let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
    (known && length > 0)
        .then(|| data.split_at_checked(HEADER + length))
        .flatten()
}

fn epoch(header: &[u8]) -> u16 {
    u16::from_be_bytes([header[3], header[4]])
}

/// Whole messages, or pieces of them that lie within.
fn messages_are_sound(mut content: &[u8], known: &[u8]) -> bool {
    while let Some((header, rest)) = content.split_at_checked(MESSAGE_HEADER) {
        let number = |at: usize| {
            usize::from(header[at]) << 16
                | usize::from(header[at + 1]) << 8
                | usize::from(header[at + 2])
        };
        let (length, offset, piece) = (number(1), number(6), number(9));
        let sound = known.contains(&header[0]) && length <= MESSAGE_MAX && offset + piece <= length;
        let Some(rest) = rest.get(piece..).filter(|_| sound) else {
            return false;
        };
        if rest.is_empty() {
            return true;
        }
        content = rest;
    }
    false
}

/// The numbers of plain records. What is sent again is a new record (RFC 6347, section 4.2.4): a peer drops what has a
/// number that it has seen.
#[derive(Debug, Default)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Gives each plain record of a datagram the next number. Those of later epochs are sealed with theirs.
    pub(crate) fn renew(&mut self, datagram: &mut [u8]) {
        let mut rest = datagram;
        while let Some(length) = split(rest).map(|(record, _)| record.len()) {
            let (record, after) = rest.split_at_mut(length);
            if epoch(record) == 0 {
                record[5..11].copy_from_slice(&self.0.to_be_bytes()[2..]);
                self.0 += 1;
            }
            rest = after;
        }
    }
}
