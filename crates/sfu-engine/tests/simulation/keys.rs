// SPDX-License-Identifier: MPL-2.0

//! DTLS that tells what was agreed on, so that a test can seal what a peer would never send.

use std::sync::Mutex;
use std::time::Instant;

use sfu_dtls::OpenSslDtls;
use sfu_engine::srtp::{Profile, Protect, Role, Unprotect, session};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
    SrtpProfile,
};

/// What a handshake agreed on, by the peer.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) profile: SrtpProfile,
    material: Vec<u8>,
    is_client: bool,
}

/// What handshakes agreed on, in their order.
pub(crate) type Told = &'static Mutex<Vec<Agreed>>;

/// Cryptography of peers that offer these profiles.
pub(crate) fn offering(profiles: &'static [SrtpProfile]) -> (CryptoProvider, Told) {
    let told: Told = Box::leak(Box::default());
    let offers = Offers {
        dtls: OpenSslDtls::new(profiles),
        told,
    };
    let crypto = CryptoProvider {
        dtls_provider: Box::leak(Box::new(offers)),
        ..str0m::crypto::from_feature_flags()
    };
    (crypto, told)
}

/// The same with the profile that browsers prefer.
pub(crate) fn told() -> (CryptoProvider, Told) {
    offering(&[SrtpProfile::AEAD_AES_128_GCM])
}

impl Agreed {
    /// Seals in the peer's name, with an index that none of its own packets reaches.
    pub(crate) fn protect(&self) -> Protect {
        self.both().0
    }

    /// Opens what the peer is told.
    #[allow(dead_code)]
    pub(crate) fn unprotect(&self) -> Unprotect {
        self.both().1
    }

    fn both(&self) -> (Protect, Unprotect) {
        let role = match self.is_client {
            true => Role::Client,
            false => Role::Server,
        };
        let keys = session(Profile::AeadAes128Gcm, &self.material, role);
        keys.expect("the keys fit")
    }
}

#[derive(Debug)]
struct Offers {
    dtls: OpenSslDtls,
    told: Told,
}

impl DtlsProvider for Offers {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.dtls.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let instance = self.dtls.new_dtls(cert, now, version, mtu)?;
        Ok(Box::new(Handshake {
            instance,
            told: self.told,
        }))
    }
}

#[derive(Debug)]
struct Handshake {
    instance: Box<dyn DtlsInstance>,
    told: Told,
}

impl DtlsInstance for Handshake {
    fn set_active(&mut self, active: bool) {
        self.instance.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.instance.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.instance.is_active();
        let output = self.instance.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            self.told.lock().unwrap().push(Agreed {
                profile: *profile,
                material: material.to_vec(),
                is_client,
            });
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.instance.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.instance.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.instance.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.instance.protocol_version()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.instance.close()
    }
}
