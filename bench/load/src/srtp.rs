// SPDX-License-Identifier: MPL-2.0

//! SRTP and SRTCP of one viewer (RFC 3711, RFC 7714) with the keys that DTLS agreed on (RFC 5764).

use anyhow::{Context as _, Result, bail};
use rtc_srtp::context::Context;
use rtc_srtp::crypto;
use rtc_srtp::protection_profile::ProtectionProfile;
use str0m::crypto::dtls::SrtpProfile;

/// One context for each direction.
pub struct Srtp {
    pub inbound: Context,
    pub outbound: Context,
}

impl std::fmt::Debug for Srtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Srtp")
    }
}

impl Srtp {
    /// Divides keying material: client's key, server's key, client's salt, server's salt.
    pub fn new(material: &[u8], profile: SrtpProfile, client: bool) -> Result<Self> {
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => ProtectionProfile::AeadAes256Gcm,
            other => bail!("the server chose the SRTP profile {other:?}, which is not known"),
        };
        let (key, salt) = (profile.key_len(), profile.salt_len());
        if material.len() < 2 * (key + salt) {
            bail!("DTLS gave {} octets of keys, too few", material.len());
        }
        let provider = crypto::default_provider().context("no SRTP provider")?;
        let make = |side: usize| {
            let key_at = side * key;
            let salt_at = 2 * key + side * salt;
            Context::new(
                &material[key_at..key_at + key],
                &material[salt_at..salt_at + salt],
                profile,
                None,
                None,
                provider.crypto(),
            )
        };
        let (ours, theirs) = if client { (0, 1) } else { (1, 0) };
        Ok(Self {
            inbound: make(theirs).context("SRTP keys were refused")?,
            outbound: make(ours).context("SRTP keys were refused")?,
        })
    }
}
