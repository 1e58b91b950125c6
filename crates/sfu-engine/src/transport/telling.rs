// SPDX-License-Identifier: MPL-2.0

//! DTLS that tells the keys of a publishing peer's reports, so that they can be looked at before `str0m` reads them.
//! Used by [`super::rtc`].
//!
//! `str0m` keeps the keys to itself, and takes up to 6 ms for a report of 121 descriptions: it makes a list of 31 lists of
//! 31 for each. It asks for them within a call, so they are handed over through the thread that made it.

use std::cell::Cell;
use std::time::Instant;

use sfu_dtls::OpenSslDtls;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};

use super::lean;
use crate::srtp::{self, Role, Unprotect};

thread_local! {
    static TOLD: Cell<Option<Unprotect>> = const { Cell::new(None) };
}

/// The keys that were agreed on in the call before, once.
pub(super) fn told() -> Option<Unprotect> {
    TOLD.take()
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct TellingDtls(pub(super) &'static OpenSslDtls);

impl DtlsProvider for TellingDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let instance = self.0.new_dtls(cert, now, version, mtu)?;
        Ok(Box::new(Telling(instance)))
    }
}

#[derive(Debug)]
struct Telling(Box<dyn DtlsInstance>);

impl DtlsInstance for Telling {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let role = match self.0.is_active() {
            true => Role::Client,
            false => Role::Server,
        };
        let output = self.0.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let session = lean::profile(*profile).map(|p| srtp::session(p, material, role));
            TOLD.set(session.and_then(Result::ok).map(|(_, unprotect)| unprotect));
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
