// SPDX-License-Identifier: MPL-2.0

//! DTLS by OpenSSL (RFC 6347, RFC 5764) behind `str0m`'s interface: for the engine's viewers and publishers, and for the
//! viewers of the load tool.
//!
//! `str0m`'s own DTLS takes no RSA certificates, and `webrtcbin` has one. `str0m-openssl` makes a context for each session,
//! which is most of a handshake's memory, and prefers AES-256-GCM; here one context serves all sessions, and the
//! preference is ours.

mod records;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::srtp::{SrtpProfileId, SrtpProtectionProfileRef};
use openssl::ssl::{
    ErrorCode, ShutdownState, Ssl, SslContext, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslStream, SslVerifyMode,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};

pub use records::dropped as records_dropped;
use records::{Gate, Numbers};

/// The label of the exported keying material: RFC 5764 section 4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";
/// All that WebRTC's peers have in common, and no more.
const CIPHERS: &str = "ECDHE+AESGCM:DHE+AESGCM:ECDHE+AES256:DHE+AES256";
/// Curves of key agreement and of peers' certificates, the preferred first. GnuTLS, and so FFmpeg, makes ones on P-224.
const GROUPS: &str = "X25519:P-256:P-384:P-521:P-224";
/// Attempts at a handshake: somebody else's plain messages may spoil each.
const ATTEMPTS: u8 = 8;
/// The largest datagram of a handshake.
const MTU: u32 = 1_150;
/// What has found no answer after this time is sent again, and after twice that time, and so on (RFC 6347, 4.2.4).
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(4);
/// How often a server's last messages are said again, each [`AGAIN`], or when the client repeats its own, until the session is let go
/// of. Media is on its way by then, which a narrow link is full of: of 2,400 joins through 1.6 Mbit/s some took more than 10 s to get them, by
/// the client's repeats alone.
const LAST_AGAIN: u8 = 12;
const NEVER: Duration = Duration::from_secs(3_600);
const CERTIFICATE_DAYS: u32 = 365;
/// The longest record that is read after the handshake. What SCTP makes of data fits (RFC 8261, section 5).
const RECORD: usize = 2_048;
/// Data that waits for whoever asks for it after each datagram, in records. What does not fit is lost, as on the way.
const WAITING: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub struct OpenSslDtls {
    /// In the order of preference.
    profiles: &'static [SrtpProfile],
    /// What all sessions with one certificate share.
    context: Mutex<Option<(DtlsCert, SslContext)>>,
}

impl OpenSslDtls {
    /// DTLS that agrees on one of these profiles. As the server's, ours is the order that counts.
    pub const fn new(profiles: &'static [SrtpProfile]) -> Self {
        Self {
            profiles,
            context: Mutex::new(None),
        }
    }

    fn context(&self, cert: &DtlsCert) -> Result<SslContext, ErrorStack> {
        let mut kept = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, context)) = &*kept
            && of.certificate == cert.certificate
        {
            return Ok(context.clone());
        }
        let context = context(self.profiles, cert)?;
        *kept = Some((cert.clone(), context.clone()));
        Ok(context)
    }
}

fn context(profiles: &[SrtpProfile], cert: &DtlsCert) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls())?;
    context.set_cipher_list(CIPHERS)?;
    context.set_groups_list(GROUPS)?;
    let names: Vec<_> = profiles.iter().filter_map(|p| name(*p)).collect();
    if !names.is_empty() {
        context.set_tlsext_use_srtp(&names.join(":"))?;
    }
    // Any certificate: it is compared with the fingerprint of the offer afterwards.
    let verify = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
    context.set_verify_callback(verify, |_, _| true);
    context.set_private_key(PKey::private_key_from_der(&cert.private_key)?.as_ref())?;
    context.set_certificate(X509::from_der(&cert.certificate)?.as_ref())?;
    context.set_options(
        SslOptions::SINGLE_ECDH_USE
            | SslOptions::NO_DTLSV1
            | SslOptions::NO_QUERY_MTU
            | SslOptions::NO_TICKET,
    );
    // Nobody resumes a session, and each one would be kept.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(context.build())
}

/// As OpenSSL calls it.
fn name(profile: SrtpProfile) -> Option<&'static str> {
    match profile {
        SrtpProfile::AEAD_AES_128_GCM => Some("SRTP_AEAD_AES_128_GCM"),
        SrtpProfile::AEAD_AES_256_GCM => Some("SRTP_AEAD_AES_256_GCM"),
        SrtpProfile::AES128_CM_SHA1_80 => Some("SRTP_AES128_CM_SHA1_80"),
        _ => None,
    }
}

impl DtlsProvider for OpenSslDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        let made = generate_certificate();
        made.inspect_err(|error| tracing::warn!(%error, "no certificate"))
            .ok()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let start = || {
            let context = self.context(cert)?;
            let stream = stream(&context, Datagrams::default())?;
            Ok((context, stream))
        };
        let (context, stream) =
            start().map_err(|e: ErrorStack| CryptoError::Other(e.to_string()))?;
        Ok(Box::new(Session {
            context,
            stream,
            gate: Gate::default(),
            failures: 0,
            active: false,
            connected: None,
            received: VecDeque::new(),
            ended: false,
            closed: false,
            now,
            again: None,
            wait: AGAIN,
            last_again: LAST_AGAIN,
        }))
    }
}

fn stream(context: &SslContext, datagrams: Datagrams) -> Result<SslStream<Datagrams>, ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    ssl.set_mtu(MTU)?;
    SslStream::new(ssl, datagrams)
}

/// A key pair on P-256, and a certificate signed by itself.
fn generate_certificate() -> Result<DtlsCert, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    self_signed(&PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn self_signed(key: &PKey<Private>) -> Result<DtlsCert, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "WebRTC")?;
    let name = name.build();
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(CERTIFICATE_DAYS)?.as_ref())?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(key)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(DtlsCert {
        certificate: builder.build().to_der()?,
        private_key: key.private_key_to_der()?,
    })
}

/// The datagrams of one session on their way in and out of OpenSSL.
#[derive(Debug, Default)]
struct Datagrams {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    /// What we said last. OpenSSL would send it again, too, but by a clock of its own.
    flight: Vec<Vec<u8>>,
    /// Something has come since.
    answered: bool,
    /// What is written is data: nobody says that again but SCTP.
    is_data: bool,
    numbers: Numbers,
}

impl Datagrams {
    /// Says again what was said last, in new records.
    fn repeat(&mut self) {
        for datagram in &self.flight {
            let mut datagram = datagram.clone();
            self.numbers.renew(&mut datagram);
            self.outgoing.push_back(datagram);
        }
    }
}

impl Read for Datagrams {
    /// A datagram at a time. What does not fit is no DTLS.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        self.answered = true;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Datagrams {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.is_data {
            self.outgoing.push_back(data.to_vec());
            return Ok(data.len());
        }
        if std::mem::take(&mut self.answered) {
            self.flight.clear();
        }
        let mut datagram = data.to_vec();
        self.numbers.renew(&mut datagram);
        self.flight.push(datagram.clone());
        self.outgoing.push_back(datagram);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a handshake has found out, and how much of it was told.
#[derive(Debug)]
struct Outcome {
    /// None where the peer has no SRTP, but data alone.
    keys: Option<(Vec<u8>, SrtpProfile)>,
    certificate: Vec<u8>,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Connected,
    Certificate,
    Keys,
    End,
}

#[derive(Debug)]
struct Session {
    context: SslContext,
    stream: SslStream<Datagrams>,
    gate: Gate,
    /// Attempts that failed.
    failures: u8,
    active: bool,
    connected: Option<Outcome>,
    /// Data that nobody has asked for yet.
    received: VecDeque<Vec<u8>>,
    /// The peer said goodbye; we did.
    ended: bool,
    closed: bool,
    now: Instant,
    /// When to send again what was said last, and how long to wait after that.
    again: Option<Instant>,
    wait: Duration,
    /// How often the last messages may still be said again.
    last_again: u8,
}

impl Session {
    fn handshake(&mut self) -> Result<(), DtlsImplError> {
        let said = self.stream.get_ref().outgoing.len();
        let result = match self.active {
            true => self.stream.connect(),
            false => self.stream.accept(),
        };
        match result {
            Ok(()) => {
                self.connected = Some(self.outcome().map_err(|e| failed(&e))?);
                // A server has said the last word, and must say it again if it was lost.
                if self.active {
                    self.stream.get_mut().flight = Vec::new();
                }
                Ok(())
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(()),
            // A record that OpenSSL has dropped: of datagrams there is no end.
            Err(error) if error.code() == ErrorCode::SYSCALL => Ok(()),
            // Plain alerts are not let in, so this one was the peer's own.
            Err(error) if self.is_told_of_end() => Err(failed(&error)),
            Err(error) => self.begin_anew(said, &error),
        }
    }

    /// What has spoiled the handshake need not have been the peer's. So nobody is told, and the handshake begins once more;
    /// it ends by its own time.
    fn begin_anew(
        &mut self,
        said: usize,
        error: &dyn std::fmt::Display,
    ) -> Result<(), DtlsImplError> {
        self.failures = self.failures.saturating_add(1);
        tracing::info!(%error, attempt = self.failures, "a DTLS handshake failed, and waits for the peer to begin anew");
        let Datagrams {
            mut outgoing,
            numbers,
            ..
        } = std::mem::take(self.stream.get_mut());
        outgoing.truncate(said);
        let datagrams = Datagrams {
            outgoing,
            numbers,
            ..Datagrams::default()
        };
        self.stream = stream(&self.context, datagrams).map_err(|e| failed(&e))?;
        self.gate = Gate::default();
        match self.active && self.failures < ATTEMPTS {
            true => self.handshake(),
            false => Ok(()),
        }
    }

    /// Whether the client may not have our last messages.
    fn may_lack_the_last(&self) -> bool {
        self.connected.is_some() && !self.active && self.last_again > 0 && !self.is_closing()
    }

    /// Whether a goodbye or a fatal alert has come.
    fn is_told_of_end(&mut self) -> bool {
        self.stream.get_shutdown().contains(ShutdownState::RECEIVED)
    }

    fn outcome(&self) -> Result<Outcome, Box<dyn std::error::Error>> {
        let ssl = self.stream.ssl();
        let profile = match ssl
            .selected_srtp_profile()
            .map(SrtpProtectionProfileRef::id)
        {
            Some(SrtpProfileId::SRTP_AEAD_AES_128_GCM) => Some(SrtpProfile::AEAD_AES_128_GCM),
            Some(SrtpProfileId::SRTP_AEAD_AES_256_GCM) => Some(SrtpProfile::AEAD_AES_256_GCM),
            Some(SrtpProfileId::SRTP_AES128_CM_SHA1_80) => Some(SrtpProfile::AES128_CM_SHA1_80),
            Some(_) => return Err("another SRTP profile than was offered".into()),
            None => None,
        };
        let keys = match profile {
            Some(profile) => {
                let mut keys = vec![0; profile.keying_material_len()];
                ssl.export_keying_material(&mut keys, EXPORTER_LABEL, None)?;
                Some((keys, profile))
            }
            None => None,
        };
        let certificate = ssl.peer_certificate().ok_or("no certificate")?;
        Ok(Outcome {
            keys,
            certificate: certificate.to_der()?,
            told: Told::Nothing,
        })
    }

    /// Reads what there is to read: data, and goodbye.
    fn read(&mut self) -> Result<(), DtlsImplError> {
        let mut record = [0; RECORD];
        loop {
            match self.stream.ssl_read(&mut record) {
                Ok(length) => {
                    // Who sends data has our last messages.
                    if !self.active && self.last_again > 0 {
                        self.last_again = 0;
                        self.stream.get_mut().flight = Vec::new();
                    }
                    if self.received.len() < WAITING {
                        self.received.push_back(record[..length].to_vec());
                    }
                }
                Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(()),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    self.ended = true;
                    // Answered in kind (RFC 5246, section 7.2.1).
                    return self.close();
                }
                Err(error) if self.is_told_of_end() => return Err(failed(&error)),
                // Both have their keys: what else can't be read is no reason to end.
                Err(error) => {
                    tracing::debug!(%error, "a DTLS record was dropped");
                    return Ok(());
                }
            }
        }
    }
}

impl Session {
    /// The next record of data.
    fn tell_received<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let needed = self.received.front().map_or(0, Vec::len);
        let Some(room) = buffer.get_mut(..needed) else {
            return DtlsOutput::BufferTooSmall { needed };
        };
        room.copy_from_slice(&self.received.pop_front().unwrap_or_default());
        DtlsOutput::ApplicationData(room)
    }
}

impl DtlsInstance for Session {
    fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        let connected = self.connected.is_some();
        let admitted = self.gate.admit(packet, self.active, connected);
        if admitted.is_empty() && !packet.is_empty() || self.failures >= ATTEMPTS {
            return Ok(());
        }
        let repeats = connected && !self.active && records::changes_cipher(&admitted);
        self.stream.get_mut().incoming = (!admitted.is_empty()).then_some(admitted);
        let waiting = self.stream.get_ref().outgoing.len();
        if self.connected.is_none() {
            self.handshake()?;
            if self.stream.get_ref().outgoing.len() > waiting {
                // Another step, with times of its own.
                (self.again, self.wait) = (None, AGAIN);
            }
        }
        if self.connected.is_none() {
            return Ok(());
        }
        self.read()?;
        // OpenSSL repeats them by itself, but not where the client's Finished has a number that it has seen.
        let is_silent = self.stream.get_ref().outgoing.len() == waiting;
        if repeats && is_silent && self.may_lack_the_last() {
            self.last_again -= 1;
            self.stream.get_mut().repeat();
        }
        Ok(())
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        if let Some(packet) = self.stream.get_mut().outgoing.pop_front() {
            let Some(room) = buf.get_mut(..packet.len()) else {
                let needed = packet.len();
                self.stream.get_mut().outgoing.push_front(packet);
                return DtlsOutput::BufferTooSmall { needed };
            };
            room.copy_from_slice(&packet);
            return DtlsOutput::Packet(room);
        }
        let next = self.again.unwrap_or(self.now + AGAIN);
        let is_last = self.may_lack_the_last();
        let Some(outcome) = &mut self.connected else {
            return DtlsOutput::Timeout(next);
        };
        match outcome.told {
            Told::Nothing => {
                outcome.told = Told::Connected;
                DtlsOutput::Connected
            }
            Told::Connected => {
                let needed = outcome.certificate.len();
                let Some(room) = buf.get_mut(..needed) else {
                    return DtlsOutput::BufferTooSmall { needed };
                };
                outcome.told = Told::Certificate;
                room.copy_from_slice(&std::mem::take(&mut outcome.certificate));
                DtlsOutput::PeerCert(room)
            }
            Told::Certificate => {
                outcome.told = Told::Keys;
                match outcome.keys.take() {
                    Some((keys, profile)) => {
                        DtlsOutput::KeyingMaterial(KeyingMaterial::new(&keys), profile)
                    }
                    None => self.poll_output(buf),
                }
            }
            Told::Keys if !self.received.is_empty() => self.tell_received(buf),
            Told::Keys if self.ended => {
                outcome.told = Told::End;
                DtlsOutput::CloseNotify
            }
            Told::Keys if is_last => DtlsOutput::Timeout(next),
            Told::Keys | Told::End => DtlsOutput::Timeout(self.now + NEVER),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        match self.again {
            _ if self.connected.is_some() && !self.may_lack_the_last() => {}
            None => self.again = Some(now + AGAIN),
            Some(at) if at <= now && self.connected.is_some() => {
                self.again = Some(now + AGAIN);
                self.last_again -= 1;
                self.stream.get_mut().repeat();
            }
            Some(at) if at <= now => {
                self.wait = (self.wait * 2).min(AGAIN_MAX);
                self.again = Some(now + self.wait);
                // OpenSSL repeats a Finished, too, which only it can number anew, but by the system's clock.
                self.stream.get_mut().answered = true;
                let waiting = self.stream.get_ref().outgoing.len();
                if self.failures < ATTEMPTS {
                    self.handshake()?;
                }
                if self.stream.get_ref().outgoing.len() == waiting {
                    self.stream.get_mut().repeat();
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        if self.connected.is_none() || self.is_closing() || data.is_empty() {
            return Ok(0);
        }
        self.stream.get_mut().is_data = true;
        let written = self.stream.ssl_write(data);
        self.stream.get_mut().is_data = false;
        // What is not sent is lost, as on the way.
        Ok(written.unwrap_or(0))
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        Some(ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.closed || self.ended
    }

    fn is_closed(&self) -> bool {
        self.closed && self.stream.get_ref().outgoing.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        if self.connected.is_some() && !self.closed {
            // A peer that is gone already is told nothing.
            let _ = self.stream.shutdown();
        }
        self.closed = true;
        Ok(())
    }
}

/// All that is done with an error is to end the session; what it was goes to the log.
fn failed(error: &dyn std::fmt::Display) -> DtlsImplError {
    tracing::debug!(%error, "DTLS failed");
    DtlsImplError::ConnectionClosed
}
