// SPDX-License-Identifier: MPL-2.0

//! The DTLS handshake (RFC 5764) by which both sides get the media's keys.
//!
//! A DTLS session takes as much memory as all the rest of a viewer, and says nothing more after the handshake but
//! goodbye. So it is let go of once the peer has used the keys, and only the goodbye is kept; but where the session is to have
//! data channels it stays.

use std::time::{Duration, Instant};

use str0m::crypto::dtls::{DtlsInstance, DtlsOutput, DtlsVersion, SrtpProfile};

use super::super::negotiate::Identity;
use super::agreed::Agreed;
use crate::peer::sdp::Fingerprint;

/// A DTLS record fits into this, unless it says otherwise.
const RECORD: usize = 2_048;
/// A peer that lacks the handshake's last messages repeats its own within this time: some do for the fourth time after 15 s.
const LINGER: Duration = Duration::from_secs(20);
/// The type of a record that tells of an end or an error (RFC 6347).
const ALERT: u8 = 21;

/// A sealed alert: 2 octets, and a nonce and a tag, or a vector, padding and a digest.
const GOODBYE_MIN: usize = 13 + 8 + 2 + 16;
const GOODBYE_MAX: usize = 13 + 16 + 2 + 48 + 32;

/// What the handshake found out, once.
pub(crate) enum Secured {
    /// Media may flow, and data.
    Media(Keys),
    /// Data alone: the peer has no SRTP.
    Data,
}

/// The media's keys.
pub(crate) struct Keys {
    /// As RFC 5764 exports it.
    pub(crate) material: Vec<u8>,
    pub(crate) profile: SrtpProfile,
    /// We began the handshake.
    pub(crate) is_client: bool,
}

/// See the module's description.
pub(super) struct Handshake {
    /// Until there is a way to the peer: whose offer never connects holds no DTLS session.
    waits: Option<Identity>,
    dtls: Option<Box<dyn DtlsInstance>>,
    /// Of the certificate that the offer announced.
    fingerprints: Vec<Fingerprint>,
    is_client: bool,
    /// The peer showed that certificate.
    verified: bool,
    secured: Option<Secured>,
    /// It is there for data, too.
    keeps: bool,
    /// The handshake is over, and the peer is the one of its offer.
    is_up: bool,
    due: Option<Instant>,
    /// When the session is let go of.
    let_go: Option<Instant>,
    /// A record that tells the peer of the end.
    goodbye: Vec<u8>,
    /// The peer said something after its session was let go of, most likely goodbye.
    pub(super) farewell: Option<Instant>,
    over: bool,
}

impl Handshake {
    /// `keeps` it for data.
    pub(super) fn new(identity: &Identity, agreed: &Agreed, keeps: bool) -> Self {
        Self {
            waits: Some(identity.clone()),
            dtls: None,
            fingerprints: agreed.fingerprints.clone(),
            is_client: agreed.is_client,
            verified: false,
            secured: None,
            keeps,
            is_up: false,
            due: None,
            let_go: None,
            goodbye: Vec::new(),
            farewell: None,
            over: false,
        }
    }

    /// Whether the session is over.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether DTLS has done its work, and only its goodbye is kept.
    pub(super) fn is_let_go(&self) -> bool {
        self.dtls.is_none() && self.waits.is_none()
    }

    /// Whether data may be sent and come.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// What was found out, once, and only with the peer of the offer.
    pub(super) fn take_secured(&mut self) -> Option<Secured> {
        self.secured.take().filter(|_| self.verified)
    }

    /// Seals data. It leaves with the next [`drain`](Self::drain).
    pub(super) fn send_data(&mut self, data: &[u8]) {
        if let Some(dtls) = &mut self.dtls
            && let Err(error) = dtls.send_application_data(data)
        {
            self.fail(&error);
        }
    }

    /// A record of the peer. Returns whether it may be its goodbye, or anybody's.
    pub(super) fn receive(&mut self, now: Instant, data: &[u8]) -> bool {
        self.begin(now);
        let Some(dtls) = &mut self.dtls else {
            // Sealed, as long as an alert can be, and not told before.
            let may_be_goodbye = matches!(data, [ALERT, 0xfe, 0xfd, 0, 1, ..])
                && (GOODBYE_MIN..=GOODBYE_MAX).contains(&data.len())
                && self.farewell.is_none();
            if may_be_goodbye {
                self.farewell = Some(now);
            }
            return may_be_goodbye;
        };
        if let Err(error) = dtls.handle_packet(data) {
            self.fail(&error);
        }
        false
    }

    /// The peer has used the keys, so it has the handshake's last messages. Returns whether that is news.
    pub(super) fn confirm(&mut self, now: Instant) -> bool {
        let lingers = self.let_go.is_some_and(|at| at > now);
        if lingers {
            self.let_go = Some(now);
        }
        lingers
    }

    fn fail(&mut self, error: &dyn std::fmt::Display) {
        tracing::debug!(%error, "session ended by an error");
        self.over = true;
    }

    /// There is a way to the peer.
    pub(super) fn begin(&mut self, now: Instant) {
        let Some(identity) = self.waits.take() else {
            return;
        };
        let provider = identity.provider().dtls_provider;
        let dtls = provider.new_dtls(identity.certificate(), now, DtlsVersion::Dtls12, None);
        let dtls = match dtls {
            Ok(dtls) => self.dtls.insert(dtls),
            Err(error) => return self.fail(&error),
        };
        dtls.set_active(self.is_client);
        if let Err(error) = dtls.handle_timeout(now) {
            return self.fail(&error);
        }
        if self.is_client {
            // Nothing yet, from which it makes its first message.
            let _ = dtls.handle_packet(&[]);
        }
    }

    /// Puts out what is due, hands over data that has come, and returns when to call again.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        send: &mut dyn FnMut(&[u8]),
        take: &mut dyn FnMut(&[u8]),
    ) -> Option<Instant> {
        if self.waits.is_some() {
            return None;
        }
        if self.let_go.is_some_and(|at| at <= now) {
            self.let_go();
        }
        let due = self.due.is_some_and(|at| at <= now);
        let timed = self.dtls.as_mut().filter(|_| due);
        if let Some(Err(error)) = timed.map(|dtls| dtls.handle_timeout(now)) {
            self.fail(&error);
        }
        self.poll(now, send, take);
        let both = [self.due, self.let_go];
        both.into_iter().flatten().min()
    }

    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8]), take: &mut dyn FnMut(&[u8])) {
        let mut record = [0; RECORD];
        let mut large = Vec::new();
        loop {
            let Some(dtls) = &mut self.dtls else {
                return;
            };
            let buffer = match large.len() {
                0 => &mut record[..],
                _ => &mut large[..],
            };
            match dtls.poll_output(buffer) {
                DtlsOutput::Packet(data) => send(data),
                DtlsOutput::BufferTooSmall { needed } => large.resize(needed, 0),
                DtlsOutput::PeerCert(certificate) => {
                    self.verified = self.fingerprints.iter().any(|f| f.is_of(certificate));
                    if !self.verified {
                        return self.fail(&"the peer's certificate is not the one of its offer");
                    }
                }
                DtlsOutput::KeyingMaterial(material, profile) => {
                    self.secured = Some(Secured::Media(Keys {
                        material: material.to_vec(),
                        profile,
                        is_client: self.is_client,
                    }));
                    self.is_up = true;
                    self.let_go = (!self.keeps).then(|| now + LINGER);
                }
                DtlsOutput::ApplicationData(data) if self.is_up => take(data),
                DtlsOutput::Timeout(at) => {
                    if self.verified && !self.is_up {
                        self.be_up_without_keys();
                    }
                    self.due = Some(at);
                    return;
                }
                DtlsOutput::CloseNotify => {
                    self.over = true;
                    return;
                }
                _ => {}
            }
        }
    }

    /// The handshake is over, and no keys for media came of it.
    fn be_up_without_keys(&mut self) {
        if !self.keeps {
            return self.fail(&"no SRTP profile in common");
        }
        self.is_up = true;
        self.secured = Some(Secured::Data);
    }

    fn let_go(&mut self) {
        self.let_go = None;
        let mut goodbye = Vec::new();
        self.say_goodbye(&mut |data| goodbye.extend_from_slice(data));
        self.goodbye = goodbye;
        self.dtls = None;
        self.due = None;
    }

    fn say_goodbye(&mut self, send: &mut dyn FnMut(&[u8])) {
        let Some(dtls) = &mut self.dtls else {
            return;
        };
        if let Err(error) = dtls.close() {
            tracing::debug!(%error, "a session was not closed");
            return;
        }
        let mut record = [0; RECORD];
        // An end that is not the peer's is no news.
        while let DtlsOutput::Packet(data) = dtls.poll_output(&mut record) {
            send(data);
        }
    }

    /// Tells the peer that it is over.
    pub(super) fn close(&mut self, send: &mut dyn FnMut(&[u8])) {
        if self.dtls.is_some() {
            self.say_goodbye(send);
        } else if !self.goodbye.is_empty() {
            send(&self.goodbye);
        }
        self.over = true;
    }
}
