// SPDX-License-Identifier: MPL-2.0

//! Derives session keys from a master key and salt: RFC 3711 section 4.3, for 256 bits RFC 6188, for GCM RFC 7714 section 11.
//!
//! The pseudo-random function is AES in counter mode, so a derived key is key stream. The key derivation rate is zero, as
//! RFC 5764 has it: keys are derived once.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::{KeyError, Profile, check_len};

/// Where the label goes: the salt's seventh byte from its end, of 14.
const LABEL_AT: usize = 7;

/// Which keys are derived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    pub(super) encryption: u8,
    pub(super) authentication: u8,
    pub(super) salt: u8,
}

pub(super) const RTP: Labels = Labels {
    encryption: 0,
    authentication: 1,
    salt: 2,
};
pub(super) const RTCP: Labels = Labels {
    encryption: 3,
    authentication: 4,
    salt: 5,
};

pub(super) struct Kdf {
    master: EncryptingKey,
    /// Shifted to where the counter begins. The 12 bytes of GCM are filled up with zeros.
    salt: [u8; 16],
}

impl Kdf {
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        check_len(profile, profile.key_len(), key)?;
        check_len(profile, profile.salt_len(), salt)?;
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let master = UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .map_err(|_| KeyError::Cipher)?;
        let mut shifted = [0; 16];
        shifted[..salt.len()].copy_from_slice(salt);
        Ok(Self {
            master,
            salt: shifted,
        })
    }

    pub(super) fn derive<const N: usize>(&self, label: u8) -> Result<[u8; N], KeyError> {
        let mut iv = self.salt;
        iv[LABEL_AT] ^= label;
        let mut key = [0; N];
        self.master
            .less_safe_encrypt(&mut key, EncryptionContext::Iv128(FixedLength::from(iv)))
            .map_err(|_| KeyError::Cipher)?;
        Ok(key)
    }
}
