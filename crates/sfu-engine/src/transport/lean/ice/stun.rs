// SPDX-License-Identifier: MPL-2.0

//! STUN messages as connectivity checks have them (RFC 8489, RFC 8445 section 7). Called by the agent.
//!
//! Not `is::stun`: that takes no request without PRIORITY (FFmpeg 8.0 sends none), and does not tell which attributes it
//! did not know.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING: u16 = 1;
const USERNAME: u16 = 0x0006;
const INTEGRITY: u16 = 0x0008;
const INTEGRITY_LEN: usize = 20;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const CONTROLLED: u16 = 0x8029;
const CONTROLLING: u16 = 0x802a;
/// What must be understood, and is, or may be passed over where it stands: MAPPED-ADDRESS, REALM, NONCE,
/// MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH.
const PASSED_OVER: [u16; 6] = [0x0001, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e];
/// Unknown attributes that an answer names.
const UNKNOWN_MAX: usize = 4;

/// A transaction: nobody guesses it.
pub(super) type Id = [u8; 12];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Request,
    Indication,
    Success,
    Failure,
}

/// What an agent says of its role, with its tie-breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Controlling(u64),
    Controlled(u64),
}

/// A message that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    data: &'a [u8],
    pub(super) class: Class,
    pub(super) id: Id,
    /// Our user fragment, the first half of USERNAME.
    pub(super) ufrag: Option<&'a str>,
    /// The sender's, the second half.
    pub(super) theirs: &'a str,
    pub(super) use_candidate: bool,
    pub(super) role: Option<Role>,
    pub(super) error: Option<u16>,
    integrity_at: Option<usize>,
    unknown: [u16; UNKNOWN_MAX],
}

impl<'a> Message<'a> {
    /// A Binding message; or what is wrong with it.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, &'static str> {
        let (header, attributes) = data.split_at_checked(HEADER).ok_or("too short")?;
        let [high, low, len_high, len_low, c0, c1, c2, c3, id @ ..] = header else {
            return Err("too short");
        };
        let kind = u16::from_be_bytes([*high, *low]);
        if kind & !0x0110 != BINDING {
            return Err("no Binding");
        }
        if [*c0, *c1, *c2, *c3] != COOKIE {
            return Err("no magic cookie");
        }
        if usize::from(u16::from_be_bytes([*len_high, *len_low])) != attributes.len() {
            return Err("another length than it says");
        }
        let mut message = Self {
            data,
            class: match kind & 0x0110 {
                0 => Class::Request,
                0x0010 => Class::Indication,
                0x0100 => Class::Success,
                _ => Class::Failure,
            },
            id: id.try_into().map_err(|_| "too short")?,
            ufrag: None,
            theirs: "",
            use_candidate: false,
            role: None,
            error: None,
            integrity_at: None,
            unknown: [0; UNKNOWN_MAX],
        };
        message.read_attributes(attributes)?;
        Ok(message)
    }

    fn read_attributes(&mut self, attributes: &'a [u8]) -> Result<(), &'static str> {
        let mut rest = attributes;
        while let Some((&[high, low, len_high, len_low], after)) = rest.split_first_chunk() {
            let at = self.data.len() - rest.len();
            let kind = u16::from_be_bytes([high, low]);
            let len = usize::from(u16::from_be_bytes([len_high, len_low]));
            let value = after.get(..len).ok_or("an attribute beyond its end")?;
            if kind == FINGERPRINT {
                if value != fingerprint(&self.data[..at]) {
                    return Err("a wrong FINGERPRINT");
                }
            } else if self.integrity_at.is_none() {
                // What stands after the integrity is not covered by it.
                self.read_attribute(at, kind, value)?;
            }
            rest = after
                .get(len.next_multiple_of(4)..)
                .ok_or("an attribute without padding")?;
        }
        rest.is_empty().then_some(()).ok_or("half an attribute")
    }

    fn read_attribute(
        &mut self,
        at: usize,
        kind: u16,
        value: &'a [u8],
    ) -> Result<(), &'static str> {
        let number = || value.try_into().map(u64::from_be_bytes);
        match kind {
            USERNAME => {
                let name = std::str::from_utf8(value).map_err(|_| "a USERNAME that is no text")?;
                let (ours, theirs) = name.split_once(':').ok_or("a USERNAME of one half")?;
                (self.ufrag, self.theirs) = (Some(ours), theirs);
            }
            INTEGRITY if value.len() == INTEGRITY_LEN => self.integrity_at = Some(at),
            INTEGRITY => return Err("an integrity of another length"),
            USE_CANDIDATE => self.use_candidate = true,
            CONTROLLED => self.role = number().ok().map(Role::Controlled),
            CONTROLLING => self.role = number().ok().map(Role::Controlling),
            ERROR_CODE => {
                let [_, _, class, number, ..] = value else {
                    return Err("half an ERROR-CODE");
                };
                self.error = Some(u16::from(class & 7) * 100 + u16::from(*number));
            }
            PRIORITY | XOR_MAPPED_ADDRESS | UNKNOWN_ATTRIBUTES => {}
            kind if kind < 0x8000 && !PASSED_OVER.contains(&kind) => {
                if let Some(room) = self.unknown.iter_mut().find(|known| **known == 0) {
                    *room = kind;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether who wrote it knows the password.
    pub(super) fn is_authentic(&self, password: &str) -> bool {
        let Some(at) = self.integrity_at else {
            return false;
        };
        let (Some(before), Some(value)) = (
            self.data.get(4..at),
            self.data.get(at + 4..at + 4 + INTEGRITY_LEN),
        ) else {
            return false;
        };
        let length = (at + 4 + INTEGRITY_LEN - HEADER) as u16;
        let mut hmac = keyed(password);
        hmac.update(&self.data[..2]);
        hmac.update(&length.to_be_bytes());
        hmac.update(before);
        hmac.verify_slice(value).is_ok()
    }

    /// What it says that must be understood, and is not.
    pub(super) fn unknown(&self) -> impl Iterator<Item = u16> {
        self.unknown.into_iter().filter(|kind| *kind != 0)
    }
}

/// A message to be sent.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A message in a buffer that may have been used before.
    pub(super) fn new(mut data: Vec<u8>, class: Class, id: &Id) -> Self {
        let class = match class {
            Class::Request => 0,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Failure => 0x0110,
        };
        data.clear();
        data.extend((BINDING | class).to_be_bytes());
        data.extend([0, 0]);
        data.extend(COOKIE);
        data.extend(id);
        Self(data)
    }

    pub(super) fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.parts(kind, &[value])
    }

    fn parts(mut self, kind: u16, parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.0.extend(kind.to_be_bytes());
        self.0.extend((length as u16).to_be_bytes());
        for part in parts {
            self.0.extend(*part);
        }
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn username(self, theirs: &str, ours: &str) -> Self {
        self.parts(USERNAME, &[theirs.as_bytes(), b":", ours.as_bytes()])
    }

    pub(super) fn priority(self, priority: u32) -> Self {
        self.attribute(PRIORITY, &priority.to_be_bytes())
    }

    pub(super) fn use_candidate(self) -> Self {
        self.attribute(USE_CANDIDATE, &[])
    }

    pub(super) fn role(self, role: Role) -> Self {
        match role {
            Role::Controlling(tie) => self.attribute(CONTROLLING, &tie.to_be_bytes()),
            Role::Controlled(tie) => self.attribute(CONTROLLED, &tie.to_be_bytes()),
        }
    }

    pub(super) fn error(self, code: u16, reason: &str) -> Self {
        let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend(reason.as_bytes());
        self.attribute(ERROR_CODE, &value)
    }

    pub(super) fn unknown(self, kinds: impl Iterator<Item = u16>) -> Self {
        let value: Vec<u8> = kinds.flat_map(u16::to_be_bytes).collect();
        self.attribute(UNKNOWN_ATTRIBUTES, &value)
    }

    /// The address as its owner knows it: an IPv4 one is never told in its IPv6 form.
    pub(super) fn mapped(self, address: SocketAddr) -> Self {
        let mut mask = COOKIE.to_vec();
        mask.extend(&self.0[8..HEADER]);
        let (family, octets) = match address.ip().to_canonical() {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, v6.octets().to_vec()),
        };
        let mut value = vec![0, family];
        value.extend((address.port() ^ 0x2112).to_be_bytes());
        value.extend(octets.iter().zip(&mask).map(|(octet, mask)| octet ^ mask));
        self.attribute(XOR_MAPPED_ADDRESS, &value)
    }

    /// Sealed with the password, and with a fingerprint, which libwebrtc wants.
    pub(super) fn finish(mut self, password: &str) -> Vec<u8> {
        self.set_length(4 + INTEGRITY_LEN);
        let mut hmac = keyed(password);
        hmac.update(&self.0);
        let integrity = hmac.finalize().into_bytes();
        let mut this = self.attribute(INTEGRITY, &integrity);
        this.set_length(8);
        let check = fingerprint(&this.0);
        this.attribute(FINGERPRINT, &check).0
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.0.len() - HEADER + more) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

fn keyed(password: &str) -> Hmac<Sha1> {
    // A key of any length is taken.
    Hmac::new_from_slice(password.as_bytes()).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

/// RFC 8489, section 14.7: CRC-32 as ITU V.42 has it.
fn fingerprint(data: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for octet in data {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    (!crc ^ 0x5354_554e).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use str0m::ice::StunMessage;

    use super::*;

    const ID: Id = [7; 12];

    #[test]
    fn others_read_what_is_written() {
        let hmac = str0m::crypto::from_feature_flags().sha1_hmac_provider;
        let request = Writer::new(Vec::new(), Class::Request, &ID)
            .username("theirs", "ours")
            .priority(77)
            .use_candidate()
            .role(Role::Controlling(99))
            .finish("secret");
        let read = StunMessage::parse(&request).unwrap();
        assert_eq!(read.split_username(), Some(("theirs", "ours")));
        assert_eq!((read.prio(), read.use_candidate()), (Some(77), true));
        assert_eq!(read.ice_controlling(), Some(99));
        assert!(read.verify(b"secret", |key, parts| hmac.sha1_hmac(key, parts)));
        for (address, told) in [
            ("192.0.2.7:50000", "192.0.2.7:50000"),
            ("[2001:db8::7]:1", "[2001:db8::7]:1"),
            ("[::ffff:192.0.2.7]:65535", "192.0.2.7:65535"),
        ] {
            let answer =
                Writer::new(Vec::new(), Class::Success, &ID).mapped(address.parse().unwrap());
            let answer = answer.finish("secret");
            let read = StunMessage::parse(&answer).unwrap();
            assert_eq!(read.mapped_address(), Some(told.parse().unwrap()));
            let own = Message::read(&answer).unwrap();
            assert!(own.is_authentic("secret") && !own.is_authentic("secreT"));
        }
    }

    #[test]
    fn each_octet_counts() {
        let whole = Writer::new(Vec::new(), Class::Request, &ID)
            .username("a", "b")
            .finish("secret");
        assert!(Message::read(&whole).unwrap().is_authentic("secret"));
        // All but the fingerprint, whose kind may be another, which says nothing.
        for at in 0..whole.len() - 8 {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            let read = Message::read(&changed);
            assert!(!read.is_ok_and(|m| m.is_authentic("secret")), "octet {at}");
        }
    }

    #[test]
    fn fuzz_checks() {
        let check = |id: &Id| {
            Writer::new(Vec::new(), Class::Request, id)
                .username("ours", "theirs")
                .priority(7)
                .role(Role::Controlling(9))
                .use_candidate()
        };
        let answer = Writer::new(Vec::new(), Class::Success, &ID)
            .mapped("[2001:db8::1]:9".parse().unwrap())
            .finish("secret");
        let failure = Writer::new(Vec::new(), Class::Failure, &ID)
            .error(420, "Unknown")
            .unknown([1, 2, 3].into_iter());
        let known = [
            check(&ID).finish("secret"),
            answer,
            failure.finish("secret"),
        ];
        sfu_fuzz::fuzz("connectivity checks", &known, |data| {
            let Ok(message) = Message::read(data) else {
                return;
            };
            assert!(message.unknown().count() <= UNKNOWN_MAX);
            // The end, behind the seal, may be another fingerprint's or none.
            let same = |k: &Vec<u8>| data.get(4..k.len() - 8) == k.get(4..k.len() - 8);
            let is_known = || known.iter().any(same);
            assert!(!message.is_authentic("secret") || is_known());
        });
    }

    proptest! {
        #[test]
        fn no_octets_panic(data in vec(any::<u8>(), 0..200), kind in 0..4u8) {
            let _ = Message::read(&data);
            let mut message = vec![kind & 1, 1 | (kind & 2) << 3];
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(COOKIE);
            message.extend(ID);
            message.extend(&data);
            if let Ok(read) = Message::read(&message) {
                prop_assert!(!read.is_authentic("secret"));
            }
        }
    }
}
