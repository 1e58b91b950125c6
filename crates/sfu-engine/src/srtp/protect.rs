// SPDX-License-Identifier: MPL-2.0

//! The sending side of a session. Called for each packet that leaves.

use std::fmt;

use super::kdf::{self, Kdf};
use super::{Cipher, ENCRYPTED, KeyError, Profile, RTCP_HEADER, RTP_HEADER};

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectError {
    /// The caller's mistake: `start` and `header_len` are no header in the buffer.
    #[error("the buffer holds no such packet")]
    Header,
    /// 2³¹ RTCP packets were sealed: RFC 3711 section 9.2 wants new keys.
    #[error("the keys are used up")]
    Exhausted,
    #[error("the cipher failed")]
    Cipher,
}

/// Seals what leaves: one for each session, for all of its SSRCs.
pub struct Protect {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// Of the next RTCP packet. One count for all SSRCs: none of them uses an index twice.
    index: u32,
}

impl Protect {
    /// With the master key and salt of this direction. [`session`](super::session) makes both directions.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        let kdf = Kdf::new(profile, key, salt)?;
        Ok(Self {
            profile,
            rtp: Cipher::new(profile, &kdf, kdf::RTP)?,
            rtcp: Cipher::new(profile, &kdf, kdf::RTCP)?,
            index: 0,
        })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Seals the RTP packet that is `buffer[start..]` in place and appends the tag. The header is `header_len` bytes, with
    /// contributing sources and extension; the rest is payload. `roc` is how often the sequence number of this SSRC wrapped.
    ///
    /// No two packets of an SSRC may have the same rollover counter and sequence number: their difference would be open,
    /// and with GCM the key that authenticates too. What is sent again is sent sealed as it was, or as RTX with its own.
    ///
    /// Once per packet and viewer: allocates nothing if the buffer has room for [`Profile::rtp_overhead`], locks nothing.
    pub fn rtp(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        roc: u32,
    ) -> Result<(), ProtectError> {
        let len = buffer.len().checked_sub(start);
        if header_len < RTP_HEADER || len.is_none_or(|len| len < header_len) {
            return Err(ProtectError::Header);
        }
        match &self.rtp {
            Cipher::Gcm(gcm) => gcm.seal_rtp(buffer, start, header_len, roc),
            Cipher::Cm(cm) => cm.seal_rtp(buffer, start, header_len, roc),
        }
    }

    /// Seals the compound RTCP packet that is `buffer[start..]` in place, and appends tag and index.
    pub fn rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), ProtectError> {
        let len = buffer.len().checked_sub(start);
        if len.is_none_or(|len| len < RTCP_HEADER) {
            return Err(ProtectError::Header);
        }
        if self.index >= ENCRYPTED {
            return Err(ProtectError::Exhausted);
        }
        let index = self.index;
        self.index += 1;
        match &self.rtcp {
            Cipher::Gcm(gcm) => gcm.seal_rtcp(buffer, start, index),
            Cipher::Cm(cm) => cm.seal_rtcp(buffer, start, index),
        }
    }

    #[cfg(test)]
    pub(super) fn set_rtcp_index(&mut self, index: u32) {
        self.index = index;
    }
}

impl fmt::Debug for Protect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protect")
            .field("profile", &self.profile)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
