// SPDX-License-Identifier: MPL-2.0

//! The receiving side of a session, for RTCP. Called for each report of a viewer.

use std::fmt;

use super::kdf::{self, Kdf};
use super::replay::Replay;
use super::{Cipher, ENCRYPTED, KeyError, Profile, RTCP_HEADER, RTCP_WORD, u32_at};

/// Why a packet is dropped; each is counted for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnprotectError {
    /// Too short to hold a header, a tag and an index.
    #[error("truncated")]
    Truncated,
    /// Not encrypted, which RFC 8827 section 6.5 forbids.
    #[error("not encrypted")]
    Clear,
    /// Came before, or is older than the window.
    #[error("replayed")]
    Replayed,
    /// Changed on its way, or made with other keys.
    #[error("not authentic")]
    Forged,
}

/// Opens what comes in: one for each session, for all of the peer's SSRCs.
pub struct Unprotect {
    profile: Profile,
    rtcp: Cipher,
    replay: Replay,
}

impl Unprotect {
    /// With the master key and salt of this direction. [`session`](super::session) makes both directions.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        let kdf = Kdf::new(profile, key, salt)?;
        Ok(Self {
            profile,
            rtcp: Cipher::new(profile, &kdf, kdf::RTCP)?,
            replay: Replay::default(),
        })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens an RTCP packet in place, and returns the compound packet that was sealed. What is not authentic is not
    /// remembered, and its bytes are worth nothing afterwards.
    pub fn rtcp<'a>(&mut self, data: &'a mut [u8]) -> Result<&'a [u8], UnprotectError> {
        if data.len() < RTCP_HEADER + self.profile.rtcp_overhead() {
            return Err(UnprotectError::Truncated);
        }
        let word_at = match self.rtcp {
            Cipher::Gcm(_) => data.len() - RTCP_WORD,
            Cipher::Cm(_) => data.len() - RTCP_WORD - self.profile.tag_len(),
        };
        let word = u32_at(data, word_at);
        if word & ENCRYPTED == 0 {
            return Err(UnprotectError::Clear);
        }
        let (ssrc, index) = (u32_at(data, 4), word & !ENCRYPTED);
        if self.replay.seen(ssrc, index) {
            return Err(UnprotectError::Replayed);
        }
        let plain = match &self.rtcp {
            Cipher::Gcm(gcm) => gcm.open_rtcp(data, index)?,
            Cipher::Cm(cm) => cm.open_rtcp(data, index)?,
        };
        self.replay.record(ssrc, index);
        Ok(plain)
    }
}

impl fmt::Debug for Unprotect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unprotect")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}
