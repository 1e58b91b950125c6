// SPDX-License-Identifier: MPL-2.0

//! The way to a viewer: ICE lite (RFC 8445) by `is`, and the handshake over it. Nothing here is on a packet's way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use str0m::crypto::CryptoError;

use super::super::negotiate::Identity;
use super::super::{TransportSink, Work};
use super::agreed::Agreed;
use super::handshake::{Handshake, Keys};

/// With nothing to do, ICE looks around this often.
const IDLE: Duration = Duration::from_secs(3);
/// Records that wait for the first path to the viewer.
const MAX_WAITING: usize = 16;
/// A viewer that seems to have said goodbye, and says nothing else for so long, is gone.
const FAREWELL: Duration = Duration::from_secs(3);

/// The addresses between which media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// See the module's description.
pub(crate) struct Connection {
    ice: IceAgent,
    handshake: Handshake,
    /// Records from before there was a path.
    waiting: Vec<Vec<u8>>,
    path: Option<Path>,
    closing: bool,
    over: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        agreed: &Agreed,
    ) -> Result<Self, CryptoError> {
        let hmac = identity.provider().sha1_hmac_provider;
        let mut ice = IceAgent::with_hmac(agreed.local.clone(), hmac);
        ice.set_ice_lite(true);
        ice.set_remote_credentials(agreed.remote.clone());
        for candidate in &agreed.candidates {
            ice.add_local_candidate(candidate.clone());
        }
        ice.handle_timeout(now);
        Ok(Self {
            ice,
            handshake: Handshake::new(now, identity, agreed)?,
            waiting: Vec::new(),
            path: None,
            closing: false,
            over: false,
        })
    }

    /// Where media goes, once there is a way.
    pub(crate) fn path(&self) -> Option<Path> {
        self.path
    }

    /// Whether the session is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over || self.handshake.is_over()
    }

    /// The media's keys, once.
    pub(crate) fn take_keys(&mut self) -> Option<Keys> {
        self.handshake.take_keys()
    }

    /// A STUN message. `false`: it is not the viewer's.
    pub(crate) fn stun(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> bool {
        let Ok(message) = StunMessage::parse(data) else {
            return false;
        };
        let packet = StunPacket {
            proto: Protocol::Udp,
            source,
            destination,
            message,
        };
        let ours = self.ice.handle_packet(now, packet);
        if ours {
            self.handshake.farewell = None;
        }
        ours
    }

    /// A DTLS record. Costs next to nothing once DTLS is let go, when anybody may have sent it.
    pub(crate) fn dtls(&mut self, now: Instant, data: &[u8]) -> Work {
        let work = match self.handshake.is_let_go() {
            true => Work::default(),
            false => Work::RECORD,
        };
        self.handshake.receive(now, data);
        work
    }

    /// The viewer has said something with the keys: it is there. Returns whether to be drained.
    pub(crate) fn heard(&mut self, now: Instant) -> bool {
        self.handshake.farewell = None;
        self.handshake.confirm(now)
    }

    /// Puts out what is due and returns when to call again.
    pub(crate) fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        self.ice.handle_timeout(now);
        while let Some(transmit) = self.ice.poll_transmit() {
            sink.transmit(transmit.source, transmit.destination, &transmit.contents);
        }
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend {
                source,
                destination,
                ..
            } = event
            {
                self.path = Some(Path {
                    local: source,
                    remote: destination,
                });
                self.handshake.begin(now);
            }
        }
        let path = self.path;
        let waiting = &mut self.waiting;
        let mut send = |data: &[u8]| match path {
            Some(path) => sink.transmit(path.local, path.remote, data),
            None if waiting.len() < MAX_WAITING => waiting.push(data.to_vec()),
            None => {}
        };
        let handshake = self.handshake.drain(now, &mut send);
        if self.closing {
            self.handshake.close(&mut send);
        }
        if let Some(path) = path {
            for data in self.waiting.drain(..) {
                sink.transmit(path.local, path.remote, &data);
            }
        }
        let farewell = self.handshake.farewell.map(|at| at + FAREWELL);
        self.over |= farewell.is_some_and(|at| at <= now);
        let ice = self.ice.poll_timeout().unwrap_or(now + IDLE);
        let others = [handshake, farewell].into_iter().flatten();
        others.fold(ice, Instant::min)
    }

    /// New candidates of the peer.
    pub(crate) fn add_remote(&mut self, candidate: Candidate) {
        self.ice.add_remote_candidate(candidate);
    }

    /// An ICE restart: new credentials on both sides, the same addresses of ours.
    pub(crate) fn restart(&mut self, remote: IceCreds) -> IceCreds {
        let local = IceCreds::new();
        self.ice.ice_restart(local.clone(), true);
        self.ice.set_remote_credentials(remote);
        local
    }

    /// The peer is told in the next [`drain`](Self::drain) that it is over.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }
}
