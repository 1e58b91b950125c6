// SPDX-License-Identifier: MPL-2.0

//! By what two peers find and know each other: ICE credentials (RFC 8839, section 5.4), certificate fingerprints
//! (RFC 8122), and who begins the DTLS handshake (RFC 8842).

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use is::IceCreds;

use super::error::OfferError;
use super::lines::word;

/// Fingerprints of one m-line that are kept: a certificate has one for each hash.
const FINGERPRINTS: usize = 8;
/// A user fragment and a password have at most so many characters.
const LONGEST: usize = 256;
/// Characters of ours, of six bits each: 96 and 192 bits.
const FRAGMENT: usize = 16;
const PASSWORD: usize = 32;

/// A hash that certificates are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// What the peer's certificate must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    hash: Hash,
    octets: Box<[u8]>,
}

impl Fingerprint {
    /// `sha-256 0A:FF:…`. Weak hashes, and what is no fingerprint, are none.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (name, octets) = word(value);
        let (hash, length) = match name.to_ascii_lowercase().as_str() {
            "sha-256" => (Hash::Sha256, 32),
            "sha-384" => (Hash::Sha384, 48),
            "sha-512" => (Hash::Sha512, 64),
            _ => return None,
        };
        if octets.len() > length * 3 {
            return None;
        }
        let parsed = octets.split(':').map(|octet| {
            let is_hex = octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
            u8::from_str_radix(octet, 16).ok().filter(|_| is_hex)
        });
        let octets: Box<[u8]> = parsed.collect::<Option<_>>()?;
        (octets.len() == length).then_some(Self { hash, octets })
    }

    /// Whether this is the certificate (DER).
    pub(crate) fn is_of(&self, certificate: &[u8]) -> bool {
        let algorithm = match self.hash {
            Hash::Sha256 => &SHA256,
            Hash::Sha384 => &SHA384,
            Hash::Sha512 => &SHA512,
        };
        digest::digest(algorithm, certificate).as_ref() == &*self.octets
    }
}

/// What an offer says of who begins the handshake. Without a word it is the offerer (RFC 4145, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Setup {
    ActPass,
    #[default]
    Active,
    Passive,
    HoldConn,
}

/// A transport's attributes, of the session or of an m-line, which go before the session's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transport<'a> {
    pub(super) fragment: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) fingerprints: Vec<Fingerprint>,
    /// There was a line, strong or not.
    pub(super) has_fingerprint: bool,
    pub(super) setup: Option<Setup>,
}

impl<'a> Transport<'a> {
    /// Takes an attribute in. `false`: it is no such one.
    pub(super) fn read(&mut self, name: &str, value: &'a str) -> bool {
        match name {
            "ice-ufrag" => self.fragment = self.fragment.or(Some(value)),
            "ice-pwd" => self.password = self.password.or(Some(value)),
            "fingerprint" => {
                self.has_fingerprint = true;
                if self.fingerprints.len() < FINGERPRINTS {
                    self.fingerprints.extend(Fingerprint::parse(value));
                }
            }
            "setup" => {
                let setup = match value {
                    "actpass" => Setup::ActPass,
                    "active" => Setup::Active,
                    "passive" => Setup::Passive,
                    "holdconn" => Setup::HoldConn,
                    _ => return true,
                };
                self.setup = self.setup.or(Some(setup));
            }
            _ => return false,
        }
        true
    }

    /// What is not said here is as it is for the session.
    pub(super) fn inherit(&mut self, session: &Self) {
        self.fragment = self.fragment.or(session.fragment);
        self.password = self.password.or(session.password);
        self.setup = self.setup.or(session.setup);
        if !self.has_fingerprint {
            self.fingerprints.clone_from(&session.fingerprints);
            self.has_fingerprint = session.has_fingerprint;
        }
    }

    /// Whether both can only be one transport.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.fragment.is_some()
            && (self.fragment, self.password) == (other.fragment, other.password)
    }

    /// The peer's credentials, certificate, and whether we begin the handshake.
    pub(super) fn agree(&self) -> Result<(IceCreds, Vec<Fingerprint>, bool), OfferError> {
        let (Some(fragment), Some(password)) = (self.fragment, self.password) else {
            let why = "it has no a=ice-ufrag or no a=ice-pwd line";
            return Err(OfferError::invalid(why));
        };
        let is_good = |text: &str| {
            let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            (1..=LONGEST).contains(&text.len()) && is_plain
        };
        if !is_good(fragment) || !is_good(password) {
            let why = "its a=ice-ufrag or a=ice-pwd is not 1 to 256 letters and digits";
            return Err(OfferError::invalid(why));
        }
        if self.fingerprints.is_empty() {
            return Err(OfferError::invalid(match self.has_fingerprint {
                true => "none of its a=fingerprint lines is of sha-256, sha-384 or sha-512",
                false => "it has no a=fingerprint line",
            }));
        }
        let is_client = match self.setup.unwrap_or_default() {
            Setup::ActPass | Setup::Active => false,
            Setup::Passive => true,
            Setup::HoldConn => {
                let why = "a=setup:holdconn begins no connection; send a=setup:actpass";
                return Err(OfferError::unacceptable(why));
            }
        };
        let remote = IceCreds {
            ufrag: fragment.to_owned(),
            pass: password.to_owned(),
        };
        Ok((remote, self.fingerprints.clone(), is_client))
    }
}

/// So many octets of the system's random source.
pub(super) fn random<const N: usize>() -> Result<[u8; N], OfferError> {
    let mut octets = [0; N];
    let failed = |_| OfferError::invalid("the server has no random numbers");
    getrandom::fill(&mut octets).map_err(failed)?;
    Ok(octets)
}

/// So many characters, of six random bits each, that may stand in any line.
pub(super) fn random_text<const N: usize>() -> Result<String, OfferError> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let octets = random::<N>()?;
    let letters = octets
        .iter()
        .map(|o| char::from(LETTERS[usize::from(o & 63)]));
    Ok(letters.collect())
}

/// New credentials of ours (RFC 8445, section 5.3: at least 24 and 128 bits).
pub(crate) fn credentials() -> Result<IceCreds, OfferError> {
    Ok(IceCreds {
        ufrag: random_text::<FRAGMENT>()?,
        pass: random_text::<PASSWORD>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_of_strong_hashes_and_whole() {
        let octets = |count: usize| vec!["0a"; count].join(":");
        for (value, is_one) in [
            (format!("sha-256 {}", octets(32)), true),
            (format!("SHA-256  {}", octets(32).to_uppercase()), true),
            (format!("sha-384 {}", octets(48)), true),
            (format!("Sha-512 {}", octets(64)), true),
            (format!("sha-1 {}", octets(20)), false),
            (format!("md5 {}", octets(16)), false),
            (format!("sha-256 {}", octets(31)), false),
            (format!("sha-256 {}", octets(20_000)), false),
            (format!("sha-256 {}", octets(32).replace("0a", "+a")), false),
            ("sha-256".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(Fingerprint::parse(&value).is_some(), is_one, "{value:.40}");
        }
    }

    #[test]
    fn a_certificate_is_known_by_each_hash() {
        for (name, algorithm) in [
            ("sha-256", &SHA256),
            ("sha-384", &SHA384),
            ("sha-512", &SHA512),
        ] {
            let octets = digest::digest(algorithm, b"a certificate");
            let text: Vec<_> = octets.as_ref().iter().map(|o| format!("{o:02X}")).collect();
            let fingerprint = Fingerprint::parse(&format!("{name} {}", text.join(":"))).unwrap();
            assert!(fingerprint.is_of(b"a certificate"));
            assert!(!fingerprint.is_of(b"another one"));
        }
    }

    #[test]
    fn who_begins_follows_from_the_offer() {
        for (setup, is_client) in [
            (Some("actpass"), Some(false)),
            (Some("active"), Some(false)),
            (Some("passive"), Some(true)),
            (Some("holdconn"), None),
            (Some("nonsense"), Some(false)),
            (None, Some(false)),
        ] {
            let mut transport = Transport::default();
            let fingerprint = format!("sha-256 {}", vec!["AB"; 32].join(":"));
            for (name, value) in [
                ("ice-ufrag", "u"),
                ("ice-pwd", "p"),
                ("fingerprint", &fingerprint),
            ] {
                assert!(transport.read(name, value));
            }
            if let Some(setup) = setup {
                assert!(transport.read("setup", setup));
            }
            let agreed = transport.agree().ok().map(|(_, _, is_client)| is_client);
            assert_eq!(agreed, is_client, "{setup:?}");
        }
    }

    #[test]
    fn credentials_are_long_and_never_the_same() {
        let all: Vec<_> = (0..100).map(|_| credentials().unwrap()).collect();
        let unique: std::collections::HashSet<_> = all.iter().map(|c| &c.pass).collect();
        assert_eq!(unique.len(), 100);
        for IceCreds { ufrag, pass } in all {
            assert_eq!((ufrag.len(), pass.len()), (16, 32));
            let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
            assert!(ufrag.bytes().chain(pass.bytes()).all(is_letter));
        }
    }
}
