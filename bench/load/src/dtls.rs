// SPDX-License-Identifier: MPL-2.0

//! DTLS of one viewer by OpenSSL (which takes RSA certificates too), over datagrams that the caller moves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sfu_dtls::OpenSslDtls;
use str0m::crypto::dtls::{
    DtlsCert, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, SrtpProfile,
};

use crate::srtp::Srtp;

/// All that there are; servers choose.
static PROVIDER: OpenSslDtls = OpenSslDtls::new(&[
    SrtpProfile::AEAD_AES_128_GCM,
    SrtpProfile::AEAD_AES_256_GCM,
    SrtpProfile::AES128_CM_SHA1_80,
]);
/// DTLS is asked this often whether something is to be sent again.
const RETRY: Duration = Duration::from_millis(100);
/// The largest flight's record, or certificate.
const BUFFER: usize = 8_192;

/// The certificate that all viewers of a process share.
#[derive(Debug, Clone)]
pub struct Certificate {
    cert: DtlsCert,
    fingerprint: [u8; 32],
}

impl Certificate {
    /// Makes a key pair and a certificate.
    pub fn generate() -> Result<Self> {
        let cert = PROVIDER.generate_certificate();
        let cert = cert.context("OpenSSL could not make a certificate")?;
        let fingerprint = sha256(&cert.certificate);
        Ok(Self { cert, fingerprint })
    }

    /// As an SDP has it.
    pub fn fingerprint(&self) -> String {
        let octets: Vec<_> = self
            .fingerprint
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        octets.join(":")
    }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    str0m::crypto::from_feature_flags()
        .sha256_provider
        .sha256(data)
}

/// One handshake. Dropped when it is over, except for what closing needs.
#[derive(Debug)]
pub struct Dtls {
    instance: Box<dyn DtlsInstance>,
    client: bool,
    /// The SHA-256 of the peer's certificate as its SDP had it, where it was of that kind.
    expected: Option<[u8; 32]>,
    started: bool,
    retry_at: Instant,
    done: bool,
}

/// What came of a step.
#[derive(Debug, Default)]
pub struct Step {
    /// Datagrams to send.
    pub send: Vec<Vec<u8>>,
    /// The handshake is over.
    pub srtp: Option<Box<Srtp>>,
    /// The peer said good-bye.
    pub closed: bool,
}

impl Dtls {
    /// A handshake as client or server.
    pub fn new(
        cert: &Certificate,
        client: bool,
        expected: Option<[u8; 32]>,
        now: Instant,
    ) -> Result<Self> {
        let mut instance = PROVIDER
            .new_dtls(&cert.cert, now, DtlsVersion::Dtls12, None)
            .map_err(|e| anyhow!("DTLS could not be set up: {e}"))?;
        instance.set_active(client);
        Ok(Self {
            instance,
            client,
            expected,
            started: false,
            retry_at: now,
            done: false,
        })
    }

    /// Takes a datagram.
    pub fn receive(&mut self, data: &[u8]) -> Result<Step> {
        self.started = true;
        self.instance
            .handle_packet(data)
            .map_err(|e| anyhow!("DTLS failed: {e}"))?;
        self.collect()
    }

    /// Begins, or sends again what got lost. To be called often until the handshake is over.
    pub fn poll(&mut self, now: Instant) -> Result<Step> {
        if self.done || now < self.retry_at || !(self.client || self.started) {
            return Ok(Step::default());
        }
        self.retry_at = now + RETRY;
        self.instance
            .handle_timeout(now)
            .map_err(|e| anyhow!("DTLS failed: {e}"))?;
        self.receive(&[])
    }

    /// Says good-bye.
    pub fn close(&mut self) -> Result<Step> {
        self.instance
            .close()
            .map_err(|e| anyhow!("DTLS did not close: {e}"))?;
        self.collect()
    }

    fn is_foreign(&self, certificate: &[u8]) -> bool {
        self.expected
            .is_some_and(|expected| expected != sha256(certificate))
    }

    fn collect(&mut self) -> Result<Step> {
        let mut step = Step::default();
        let mut buffer = [0; BUFFER];
        // After a last timeout far away there is nothing more; a near one comes before other things.
        let mut timeouts = 0;
        while timeouts < 2 {
            match self.instance.poll_output(&mut buffer) {
                DtlsOutput::Packet(data) => step.send.push(data.to_vec()),
                DtlsOutput::Timeout(_) => timeouts += 1,
                DtlsOutput::PeerCert(der) if self.is_foreign(der) => {
                    bail!("the server's certificate is not the one of its SDP");
                }
                DtlsOutput::KeyingMaterial(keys, profile) => {
                    self.done = true;
                    step.srtp = Some(Box::new(Srtp::new(keys.as_ref(), profile, self.client)?));
                }
                DtlsOutput::CloseNotify => step.closed = true,
                _ => {}
            }
        }
        Ok(step)
    }
}
