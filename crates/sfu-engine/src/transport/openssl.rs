// SPDX-License-Identifier: MPL-2.0

//! DTLS by OpenSSL for `str0m` 0.25: translates between its types and those of the version that `str0m-openssl` 0.6 was
//! made for.
//!
//! `str0m`'s own DTLS takes no RSA certificates, and `webrtcbin` of GStreamer has one. To be dropped for
//! `str0m-openssl` itself when it is released for the `str0m` that we use.

use std::time::Instant;

use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};
use str0m_proto_07::crypto::DtlsVersion as OldVersion;
use str0m_proto_07::crypto::dtls as old;

/// See the module's description.
#[derive(Debug)]
pub(super) struct OpenSslDtls;

#[derive(Debug)]
struct Instance(Box<dyn old::DtlsInstance>);

fn provider() -> &'static dyn old::DtlsProvider {
    str0m_openssl::default_provider().dtls_provider
}

impl DtlsProvider for OpenSslDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        let cert = provider().generate_certificate()?;
        Some(DtlsCert {
            certificate: cert.certificate,
            private_key: cert.private_key,
        })
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let cert = old::DtlsCert {
            certificate: cert.certificate.clone(),
            private_key: cert.private_key.clone(),
        };
        // OpenSSL speaks DTLS 1.2, as all browsers do.
        let instance = provider().new_dtls(&cert, now, OldVersion::Dtls12, mtu);
        let instance = instance.map_err(|e| CryptoError::Other(e.to_string()))?;
        Ok(Box::new(Instance(instance)))
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet).map_err(|e| translated(&e))
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.0.poll_output(buf) {
            old::DtlsOutput::Packet(data) => DtlsOutput::Packet(data),
            old::DtlsOutput::BufferTooSmall { needed } => DtlsOutput::BufferTooSmall { needed },
            old::DtlsOutput::Timeout(at) => DtlsOutput::Timeout(at),
            old::DtlsOutput::Connected => DtlsOutput::Connected,
            old::DtlsOutput::PeerCert(cert) => DtlsOutput::PeerCert(cert),
            old::DtlsOutput::KeyingMaterial(keys, profile) => match profile_of(profile) {
                Some(profile) => DtlsOutput::KeyingMaterial(KeyingMaterial::new(&keys), profile),
                None => DtlsOutput::CloseNotify,
            },
            old::DtlsOutput::ApplicationData(data) => DtlsOutput::ApplicationData(data),
            // What a later release of the old version might add concerns nothing that we use.
            _ => DtlsOutput::CloseNotify,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now).map_err(|e| translated(&e))
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        match self.0.send_application_data(data) {
            Ok(()) => Ok(data.len()),
            Err(old::DtlsImplError::HandshakePending) => Ok(0),
            Err(error) => Err(translated(&error)),
        }
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version().map(|_| ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close().map_err(|e| translated(&e))
    }
}

fn profile_of(profile: old::SrtpProfile) -> Option<SrtpProfile> {
    match profile {
        old::SrtpProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::AES128_CM_SHA1_80),
        old::SrtpProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AEAD_AES_128_GCM),
        old::SrtpProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AEAD_AES_256_GCM),
        _ => None,
    }
}

/// All that `str0m` does with an error is to end the session; what it was goes to the log.
fn translated(error: &old::DtlsImplError) -> DtlsImplError {
    tracing::debug!(%error, "DTLS failed");
    DtlsImplError::ConnectionClosed
}
