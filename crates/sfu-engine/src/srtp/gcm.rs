// SPDX-License-Identifier: MPL-2.0

//! AES-GCM for SRTP and SRTCP: RFC 7714.
//!
//! RTP is `header | sealed payload | tag`, the header authenticated. RTCP is `header | sealed rest | tag | index`, header
//! and index authenticated.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::kdf::{Kdf, Labels};
use super::{
    ENCRYPTED, KeyError, Profile, ProtectError, RTCP_HEADER, RTCP_WORD, UnprotectError, u16_at,
    u32_at,
};

pub(super) const SALT: usize = 12;
pub(super) const TAG: usize = 16;

pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; SALT],
}

impl Gcm {
    pub(super) fn derive(profile: Profile, kdf: &Kdf, labels: Labels) -> Result<Self, KeyError> {
        let salt = kdf.derive(labels.salt)?;
        if profile.key_len() == 32 {
            Self::new(&kdf.derive::<32>(labels.encryption)?, salt)
        } else {
            Self::new(&kdf.derive::<16>(labels.encryption)?, salt)
        }
    }

    /// With the keys of the session.
    pub(super) fn new(key: &[u8], salt: [u8; SALT]) -> Result<Self, KeyError> {
        let algorithm = if key.len() == 32 {
            &AES_256_GCM
        } else {
            &AES_128_GCM
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyError::Cipher)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            salt,
        })
    }

    /// Section 8.1: two zero bytes, SSRC, rollover counter, sequence number; mixed with the salt.
    fn rtp_nonce(&self, ssrc: u32, roc: u32, sequence: u16) -> [u8; SALT] {
        let mut nonce = [0; SALT];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..10].copy_from_slice(&roc.to_be_bytes());
        nonce[10..].copy_from_slice(&sequence.to_be_bytes());
        self.mix(nonce)
    }

    /// Section 9.1: two zero bytes, SSRC, two zero bytes, index; mixed with the salt.
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> [u8; SALT] {
        let mut nonce = [0; SALT];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[8..].copy_from_slice(&index.to_be_bytes());
        self.mix(nonce)
    }

    fn mix(&self, mut nonce: [u8; SALT]) -> [u8; SALT] {
        for (byte, salt) in nonce.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        nonce
    }

    pub(super) fn seal(
        &self,
        nonce: [u8; SALT],
        clear: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG], ProtectError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(clear), text)
            .map_err(|_| ProtectError::Cipher)?;
        tag.as_ref().try_into().map_err(|_| ProtectError::Cipher)
    }

    pub(super) fn seal_rtp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        roc: u32,
    ) -> Result<(), ProtectError> {
        let (header, payload) = buffer[start..].split_at_mut(header_len);
        let nonce = self.rtp_nonce(u32_at(header, 8), roc, u16_at(header, 2));
        let tag = self.seal(nonce, header, payload)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    pub(super) fn seal_rtcp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        index: u32,
    ) -> Result<(), ProtectError> {
        let (header, rest) = buffer[start..].split_at_mut(RTCP_HEADER);
        let word = (index | ENCRYPTED).to_be_bytes();
        let nonce = self.rtcp_nonce(u32_at(header, 4), index);
        let tag = self.seal(nonce, &rtcp_clear(header, word), rest)?;
        buffer.extend_from_slice(&tag);
        buffer.extend_from_slice(&word);
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
        let (header, sealed) = data.split_at(header_len);
        let (text, tag) = sealed.split_at(plain.len());
        let roc = (index >> 16) as u32;
        let nonce = self.rtp_nonce(u32_at(header, 8), roc, index as u16);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .open_separate_gather(nonce, Aad::from(header), text, tag, plain)
            .map_err(|_| UnprotectError::Forged)
    }

    /// Opens a packet whose length was checked, of which the index is known.
    pub(super) fn open_rtcp<'a>(
        &self,
        data: &'a mut [u8],
        index: u32,
    ) -> Result<&'a [u8], UnprotectError> {
        let (sealed, word) = data.split_at_mut(data.len() - RTCP_WORD);
        let (header, rest) = sealed.split_at_mut(RTCP_HEADER);
        let word = [word[0], word[1], word[2], word[3]];
        let nonce = Nonce::assume_unique_for_key(self.rtcp_nonce(u32_at(header, 4), index));
        self.key
            .open_in_place(nonce, Aad::from(rtcp_clear(header, word)), rest)
            .map_err(|_| UnprotectError::Forged)?;
        Ok(&sealed[..sealed.len() - TAG])
    }
}

/// What of an RTCP packet is authenticated, but not encrypted: section 9.2.
fn rtcp_clear(header: &[u8], word: [u8; RTCP_WORD]) -> [u8; RTCP_HEADER + RTCP_WORD] {
    let mut clear = [0; RTCP_HEADER + RTCP_WORD];
    clear[..RTCP_HEADER].copy_from_slice(&header[..RTCP_HEADER]);
    clear[RTCP_HEADER..].copy_from_slice(&word);
    clear
}
