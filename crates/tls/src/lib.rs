// SPDX-License-Identifier: MPL-2.0
#![doc = "Certificates for whoever serves TLS (HTTPS, RTMPS): from PEM files that are read again when they change.\n\n\
TLS 1.2 and 1.3 by rustls. Which name a client asks for (SNI) changes nothing: there is one certificate. Time and threads \
are the caller's: he asks [`Certificates::refresh`] once a second or so, and bounds the handshakes."]

mod files;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
pub use rustls;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use files::Stamp;

/// A chain has three or four; a client takes no more than some.
const CHAIN_MAX: usize = 16;

/// What is wrong with a certificate or its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file that can't be read.
    #[error("{0} can't be read: {1}")]
    File(PathBuf, String),
    /// No certificate in it.
    #[error("{0}: {1}")]
    Certificate(PathBuf, String),
    /// No private key in it.
    #[error("{0}: {1}")]
    Key(PathBuf, String),
    /// Two files of different pairs.
    #[error("the private key in {1} is not that of the certificate in {0}")]
    Pair(PathBuf, PathBuf),
    /// Only one of them was named.
    #[error(
        "a certificate and a private key belong together: one of them is named, the other is not"
    )]
    Half,
    /// The provider lacks something; it can't happen with ours.
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

/// A certificate with its chain and its private key, as two PEM files hold them.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    seen: Mutex<[Option<Stamp>; 2]>,
}

/// What handshakes take.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificates {
    /// From two files, of which the second may be the first. `None` where neither is named: there is no TLS then.
    pub fn open(certificate: &str, key: &str) -> Result<Option<Arc<Self>>, TlsError> {
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Self::load(certificate.into(), key.into()).map(|c| Some(Arc::new(c))),
            _ => Err(TlsError::Half),
        }
    }

    fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        // Before they are read: what changes meanwhile is read again.
        let seen = [files::stamp(&certificate), files::stamp(&key)];
        let pair = read(&certificate, &key, &provider)?;
        Ok(Self {
            certificate,
            key,
            provider,
            current: Arc::new(Current(ArcSwap::from_pointee(pair))),
            seen: Mutex::new(seen),
        })
    }

    /// Reads the files again where one has changed: `None` where none has. What is wrong with new ones leaves the old ones
    /// in use, and is told once for each change.
    pub fn refresh(&self) -> Option<Result<(), TlsError>> {
        let now = [files::stamp(&self.certificate), files::stamp(&self.key)];
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        *seen = now;
        drop(seen);
        let read = read(&self.certificate, &self.key, &self.provider);
        Some(read.map(|pair| self.current.0.store(Arc::new(pair))))
    }

    /// For a server that speaks these protocols (ALPN), the one that it likes best first. Each handshake takes the newest
    /// certificate; none takes anything that comes before it is over (no early data, which could be said again by others).
    pub fn server(&self, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The chain in use, the server's own certificate first, in DER.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.0.load().cert.clone()
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = chain(certificate)?;
    let wrong = |what: &str| TlsError::Key(key.to_owned(), what.to_owned());
    let octets = files::read(key).map_err(|e| TlsError::File(key.to_owned(), e))?;
    let private = PrivateKeyDer::from_pem_slice(&octets)
        .map_err(|_| wrong("there is no private key as PEM (-----BEGIN PRIVATE KEY-----) in it, or it is encrypted"))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Pair(certificate.to_owned(), key.to_owned())
        }
        rustls::Error::InvalidCertificate(_) => {
            let what = format!("the certificate can't be read ({error})");
            TlsError::Certificate(certificate.to_owned(), what)
        }
        _ => wrong("the private key is none of RSA, P-256, P-384, P-521 or Ed25519"),
    })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |what: &str| TlsError::Certificate(path.to_owned(), what.to_owned());
    let octets = files::read(path).map_err(|e| TlsError::File(path.to_owned(), e))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let chain = chain.map_err(|_| wrong("what is in it is broken off, or not PEM"))?;
    match chain.len() {
        0 => Err(wrong(
            "there is no certificate as PEM (-----BEGIN CERTIFICATE-----) in it",
        )),
        1..=CHAIN_MAX => Ok(chain),
        _ => Err(wrong("there are more than 16 certificates in it")),
    }
}

#[cfg(test)]
mod tests;
