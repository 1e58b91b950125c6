// SPDX-License-Identifier: MPL-2.0

//! External account binding (RFC 8555, section 7.3.4): some authorities, such as ZeroSSL and Google, ask whose customer a new account is.

use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use instant_acme::ExternalAccountKey;

/// As authorities show it, with or without `=` at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// A file that holds more is none.
const LARGEST: u64 = 4 * 1024;
/// As many octets as HMAC-SHA256 has (RFC 7518, section 3.2: MUST).
const SHORTEST: usize = 32;

/// The authority's name of the customer, and the key that is shared with it.
pub(crate) struct Binding {
    kid: String,
    key: Vec<u8>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Binding({})", self.kid)
    }
}

impl Binding {
    /// The key is read from a file. `None` where neither is named.
    pub(crate) fn open(kid: &str, file: &Path) -> Result<Option<Self>, String> {
        match (kid.is_empty(), file.as_os_str().is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => {}
            _ => return Err("one needs the other".into()),
        }
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(|e| failed(&e))?;
        let read = opened.take(LARGEST).read_to_string(&mut text);
        read.map_err(|e| failed(&e))?;
        // Windows' editors begin what they write with a byte order mark.
        let key = BASE64
            .decode(text.trim_start_matches('\u{feff}').trim())
            .ok();
        let key = key.filter(|key| key.len() >= SHORTEST);
        let key = key.ok_or_else(|| {
            failed(&format!(
                "it holds no key of {SHORTEST} octets as base64url"
            ))
        })?;
        let kid = kid.to_owned();
        Ok(Some(Self { kid, key }))
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }
}

impl From<&Binding> for ExternalAccountKey {
    fn from(binding: &Binding) -> Self {
        Self::new(binding.kid.clone(), &binding.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_has_a_name_and_a_key() {
        let file = std::env::temp_dir().join(format!("sfu-acme-eab-{}", std::process::id()));
        let none = Path::new("");
        assert!(Binding::open("", none).unwrap().is_none());
        for key in [
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
            "_-NDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wE\n",
            "_-NDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wE=",
            "\u{feff}_-NDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wE\r\n",
        ] {
            std::fs::write(&file, key).unwrap();
            let binding = Binding::open("me", &file).unwrap().unwrap();
            assert_eq!(binding.kid(), "me");
            assert!(!format!("{binding:?}").contains(&key[..8]));
        }
        assert!(Binding::open("", &file).is_err());
        assert!(Binding::open("me", none).is_err());
        for wrong in [
            "",
            "c2hvcnQ",
            "no base64 at all, but a good deal of text that is long",
        ] {
            std::fs::write(&file, wrong).unwrap();
            assert!(Binding::open("me", &file).is_err(), "{wrong}");
        }
        let _ = std::fs::remove_file(&file);
        assert!(Binding::open("me", &file).is_err());
    }
}
