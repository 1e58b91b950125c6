// SPDX-License-Identifier: MPL-2.0

//! No DTLS, for where `str0m` only reads an offer, and its session is thrown away. Used by [`super::negotiate`].

use std::time::Instant;

use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};

/// See the module's description.
#[derive(Debug)]
pub(super) struct NoDtls;

impl DtlsProvider for NoDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        None
    }

    fn new_dtls(
        &self,
        _cert: &DtlsCert,
        _now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(Box::new(Self))
    }
}

impl DtlsInstance for NoDtls {
    fn set_active(&mut self, _active: bool) {}

    fn handle_packet(&mut self, _packet: &[u8]) -> Result<(), DtlsImplError> {
        Err(DtlsImplError::ConnectionClosed)
    }

    fn poll_output<'a>(&mut self, _buf: &'a mut [u8]) -> DtlsOutput<'a> {
        DtlsOutput::CloseNotify
    }

    fn handle_timeout(&mut self, _now: Instant) -> Result<(), DtlsImplError> {
        Ok(())
    }

    fn send_application_data(&mut self, _data: &[u8]) -> Result<usize, DtlsImplError> {
        Ok(0)
    }

    fn is_active(&self) -> bool {
        false
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        None
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        Ok(())
    }
}
