// SPDX-License-Identifier: MPL-2.0

//! Secures RTP and RTCP (SRTP, RFC 3711 and RFC 7714), with keys from DTLS (RFC 5764).
//!
//! Called by the sender of a viewer: [`Protect`] once for each packet that leaves, [`Unprotect`] once for each report that
//! comes in. Whoever only watches sends no RTP: what opens that, [`UnprotectRtp`], is there for publishers alone.
//!
//! The keys of a session are scheduled when it is made. After that nothing is allocated (a buffer with room for
//! [`Profile::rtp_overhead`] given), locked or scheduled anew: `tests/allocations.rs` counts. A session takes 2.2 to
//! 2.4 kB, of which the larger part is AES key schedules and what GHASH has computed beforehand.
//!
//! All cryptography is that of maintained crates, `aws-lc-rs` before all, which use what the processor has for AES, GHASH
//! and SHA-1.

mod cm;
mod gcm;
mod kdf;
mod protect;
mod receive;
mod replay;
#[cfg(test)]
mod tests;
mod unprotect;

pub use protect::{Protect, ProtectError};
pub use receive::UnprotectRtp;
pub use unprotect::{Unprotect, UnprotectError};

/// The header of RTP without contributing sources and extensions.
const RTP_HEADER: usize = 12;
/// What RTCP keeps in the clear: the first header and the sender's SSRC.
const RTCP_HEADER: usize = 8;
/// The word after an RTCP packet: whether it is encrypted, and its index.
const RTCP_WORD: usize = 4;
/// "Encrypted" in that word.
const ENCRYPTED: u32 = 1 << 31;

/// How packets are secured: RFC 5764 section 4.1.2 and RFC 7714 section 14.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    AeadAes128Gcm,
    AeadAes256Gcm,
    AesCm128HmacSha1_80,
}

impl Profile {
    /// All of them, the preferred first.
    pub const ALL: [Self; 3] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::AesCm128HmacSha1_80,
    ];

    /// Bytes of a master key, and of the session keys for encryption.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AesCm128HmacSha1_80 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of a master salt, and of the session salts.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => gcm::SALT,
            Self::AesCm128HmacSha1_80 => cm::SALT,
        }
    }

    /// Bytes of the authentication tag of a packet.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => gcm::TAG,
            Self::AesCm128HmacSha1_80 => cm::TAG,
        }
    }

    /// By how many bytes an RTP packet grows.
    pub const fn rtp_overhead(self) -> usize {
        self.tag_len()
    }

    /// By how many bytes an RTCP packet grows.
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + RTCP_WORD
    }

    /// Bytes to export from DTLS (RFC 5764 section 4.2).
    pub const fn exporter_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Which side of the DTLS handshake this end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Keys that fit no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("{profile:?} takes {expected} bytes of keying material, not {actual}")]
    Length {
        profile: Profile,
        expected: usize,
        actual: usize,
    },
    #[error("the cipher refused the key")]
    Cipher,
}

/// Both directions of a session, from what DTLS exported: the client's key, the server's, the client's salt, the server's.
pub fn session(
    profile: Profile,
    exported: &[u8],
    role: Role,
) -> Result<(Protect, Unprotect), KeyError> {
    let (ours, theirs) = both(profile, exported, role)?;
    Ok((
        Protect::new(profile, ours.0, ours.1)?,
        Unprotect::new(profile, theirs.0, theirs.1)?,
    ))
}

/// What opens the RTP of a session's peer, from what DTLS exported.
pub fn receiver(profile: Profile, exported: &[u8], role: Role) -> Result<UnprotectRtp, KeyError> {
    let (_, theirs) = both(profile, exported, role)?;
    UnprotectRtp::new(profile, theirs.0, theirs.1)
}

/// A master key and its salt.
type Keys<'a> = (&'a [u8], &'a [u8]);

/// Our keys and the peer's.
fn both(profile: Profile, exported: &[u8], role: Role) -> Result<(Keys<'_>, Keys<'_>), KeyError> {
    check_len(profile, profile.exporter_len(), exported)?;
    let (keys, salts) = exported.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    let (client, server) = ((client_key, client_salt), (server_key, server_salt));
    Ok(match role {
        Role::Client => (client, server),
        Role::Server => (server, client),
    })
}

fn check_len(profile: Profile, expected: usize, bytes: &[u8]) -> Result<(), KeyError> {
    if bytes.len() == expected {
        Ok(())
    } else {
        Err(KeyError::Length {
            profile,
            expected,
            actual: bytes.len(),
        })
    }
}

/// The keys of one direction and one of the two protocols, ready for use.
enum Cipher {
    Gcm(gcm::Gcm),
    /// Boxed: twenty times the size of the other, and needed by few.
    Cm(Box<cm::Cm>),
}

impl Cipher {
    fn new(profile: Profile, kdf: &kdf::Kdf, labels: kdf::Labels) -> Result<Self, KeyError> {
        Ok(match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                Self::Gcm(gcm::Gcm::derive(profile, kdf, labels)?)
            }
            Profile::AesCm128HmacSha1_80 => Self::Cm(Box::new(cm::Cm::derive(kdf, labels)?)),
        })
    }

    /// Opens an RTP packet whose length was checked and whose index is known into a buffer of its payload's length.
    fn open_rtp(
        &self,
        data: &[u8],
        header_len: usize,
        index: u64,
        plain: &mut [u8],
    ) -> Result<(), UnprotectError> {
        match self {
            Self::Gcm(gcm) => gcm.open_rtp(data, header_len, index, plain),
            Self::Cm(cm) => cm.open_rtp(data, header_len, index, plain),
        }
    }
}

/// Four bytes of a packet whose length was checked.
fn u32_at(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn u16_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}
