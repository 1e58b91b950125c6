// SPDX-License-Identifier: MPL-2.0

//! AES in counter mode with HMAC-SHA1 cut to 80 bits: RFC 3711, for peers that know nothing else.
//!
//! RTP is `header | encrypted payload | tag`, RTCP `header | encrypted rest | index | tag`. All before the tag is
//! authenticated, with RTP the rollover counter too.
//!
//! HMAC-SHA1 is that of RustCrypto: the state after the key is less than 200 bytes, to be copied for each packet, where that of
//! `aws-lc-rs` is 1,200. Both use the processor's SHA-1.

use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::kdf::{Kdf, Labels};
use super::{
    ENCRYPTED, KeyError, ProtectError, RTCP_HEADER, RTCP_WORD, UnprotectError, u16_at, u32_at,
};

pub(super) const SALT: usize = 14;
pub(super) const TAG: usize = 10;
const KEY: usize = 16;
const AUTHENTICATION_KEY: usize = 20;

pub(super) struct Cm {
    key: EncryptingKey,
    /// Holds the state after the key, which is copied for each packet.
    authentication: Hmac<Sha1>,
    salt: [u8; SALT],
}

impl Cm {
    pub(super) fn derive(kdf: &Kdf, labels: Labels) -> Result<Self, KeyError> {
        Self::new(
            &kdf.derive(labels.encryption)?,
            &kdf.derive(labels.authentication)?,
            kdf.derive(labels.salt)?,
        )
    }

    /// With the keys of the session.
    pub(super) fn new(
        key: &[u8; KEY],
        authentication: &[u8; AUTHENTICATION_KEY],
        salt: [u8; SALT],
    ) -> Result<Self, KeyError> {
        let key = UnboundCipherKey::new(&AES_128, key)
            .and_then(EncryptingKey::ctr)
            .map_err(|_| KeyError::Cipher)?;
        let authentication = Hmac::new_from_slice(authentication).map_err(|_| KeyError::Cipher)?;
        Ok(Self {
            key,
            authentication,
            salt,
        })
    }

    /// Section 4.1.1: salt, SSRC and index, each at its place; the last two bytes count the blocks. Encrypts and decrypts.
    pub(super) fn crypt(
        &self,
        ssrc: u32,
        index: u64,
        text: &mut [u8],
    ) -> Result<(), aws_lc_rs::error::Unspecified> {
        let mut iv = [0; 16];
        iv[4..8].copy_from_slice(&ssrc.to_be_bytes());
        iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
        for (byte, salt) in iv.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        let iv = EncryptionContext::Iv128(FixedLength::from(iv));
        self.key.less_safe_encrypt(text, iv).map(drop)
    }

    fn authenticated(&self, packet: &[u8], roc: &[u8]) -> Hmac<Sha1> {
        let mut hmac = self.authentication.clone();
        hmac.update(packet);
        hmac.update(roc);
        hmac
    }

    pub(super) fn seal_rtp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        roc: u32,
    ) -> Result<(), ProtectError> {
        let (header, payload) = buffer[start..].split_at_mut(header_len);
        let index = u64::from(roc) << 16 | u64::from(u16_at(header, 2));
        self.crypt(u32_at(header, 8), index, payload)
            .map_err(|_| ProtectError::Cipher)?;
        let hmac = self.authenticated(&buffer[start..], &roc.to_be_bytes());
        buffer.extend_from_slice(&hmac.finalize().into_bytes()[..TAG]);
        Ok(())
    }

    pub(super) fn seal_rtcp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        index: u32,
    ) -> Result<(), ProtectError> {
        let (header, rest) = buffer[start..].split_at_mut(RTCP_HEADER);
        self.crypt(u32_at(header, 4), index.into(), rest)
            .map_err(|_| ProtectError::Cipher)?;
        buffer.extend_from_slice(&(index | ENCRYPTED).to_be_bytes());
        let hmac = self.authenticated(&buffer[start..], &[]);
        buffer.extend_from_slice(&hmac.finalize().into_bytes()[..TAG]);
        Ok(())
    }

    /// Opens a packet whose length was checked, of which the index is known, into a buffer of its payload's length.
    pub(super) fn open_rtp(
        &self,
        data: &[u8],
        header_len: usize,
        index: u64,
        plain: &mut [u8],
    ) -> Result<(), UnprotectError> {
        let (packet, tag) = data.split_at(header_len + plain.len());
        let roc = (index >> 16) as u32;
        self.authenticated(packet, &roc.to_be_bytes())
            .verify_truncated_left(tag)
            .map_err(|_| UnprotectError::Forged)?;
        plain.copy_from_slice(&packet[header_len..]);
        self.crypt(u32_at(packet, 8), index, plain)
            .map_err(|_| UnprotectError::Forged)
    }

    /// Opens a packet whose length was checked, of which the index is known.
    pub(super) fn open_rtcp<'a>(
        &self,
        data: &'a mut [u8],
        index: u32,
    ) -> Result<&'a [u8], UnprotectError> {
        let (packet, tag) = data.split_at_mut(data.len() - TAG);
        self.authenticated(packet, &[])
            .verify_truncated_left(tag)
            .map_err(|_| UnprotectError::Forged)?;
        let plain_len = packet.len() - RTCP_WORD;
        let plain = &mut packet[..plain_len];
        let (header, rest) = plain.split_at_mut(RTCP_HEADER);
        self.crypt(u32_at(header, 4), index.into(), rest)
            .map_err(|_| UnprotectError::Forged)?;
        Ok(plain)
    }
}
