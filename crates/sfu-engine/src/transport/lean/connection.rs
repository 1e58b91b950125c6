// SPDX-License-Identifier: MPL-2.0

//! The way to a peer: ICE, the handshake over it, and data channels over that. Nothing here is on a packet's way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use is::{Candidate, IceCreds, Protocol};

use super::super::negotiate::Identity;
use super::super::{TransportSink, Work};
use super::agreed::Agreed;
use super::handshake::{Handshake, Secured};
use super::ice::Agent;
pub(crate) use super::ice::Path;
use crate::peer::data::{AgreedData, Data, DataCommand, DataObserver};

/// What was dropped is told once in this time.
const COMPLAINT: Duration = Duration::from_secs(1);
/// With nothing to do, it looks around this often.
const IDLE: Duration = Duration::from_secs(30);
/// Records that wait for the first path to the viewer.
const MAX_WAITING: usize = 16;
/// A viewer that seems to have said goodbye, and says nothing else for so long, is gone.
const FAREWELL: Duration = Duration::from_secs(3);

/// See the module's description.
pub(crate) struct Connection {
    ice: Agent,
    handshake: Handshake,
    /// Of a session that is to have channels.
    data: Option<Box<Data>>,
    /// Records from before there was a path.
    waiting: Vec<Vec<u8>>,
    /// When it was last told what was dropped.
    complained: Option<Instant>,
    closing: bool,
    over: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        agreed: &Agreed,
        observer: Option<Arc<dyn DataObserver>>,
    ) -> Self {
        let (local, remote) = (agreed.local.clone(), agreed.remote.clone());
        let mut ice = Agent::new(local, remote, agreed.peer_is_lite);
        for remote in &agreed.remote_candidates {
            ice.add_remote(now, *remote);
        }
        let data = observer
            .map(|observer| Box::new(Data::new(now, observer, agreed.is_client, agreed.data)));
        Self {
            ice,
            handshake: Handshake::new(identity, agreed, data.is_some()),
            data,
            waiting: Vec::new(),
            complained: None,
            closing: false,
            over: false,
        }
    }

    /// Where media goes, once there is a way, and as long as the peer consents.
    pub(crate) fn path(&self) -> Option<Path> {
        self.ice.path()
    }

    /// By which the shard finds the session of an answer.
    pub(crate) fn set_tag(&mut self, tag: u32) {
        self.ice.set_tag(tag);
    }

    /// Asks the peer at once whether it is still at this address.
    pub(crate) fn ask(&mut self, now: Instant, remote: SocketAddr) {
        self.ice.ask(now, Some(remote));
    }

    /// Whether the session is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over || self.handshake.is_over()
    }

    /// What the handshake found out, once.
    pub(crate) fn take_secured(&mut self) -> Option<Secured> {
        self.handshake.take_secured()
    }

    /// Channels were agreed on, if they were not before.
    pub(crate) fn agree_on_data(&mut self, agreed: Option<AgreedData>) {
        if let Some(data) = &mut self.data {
            data.agree(agreed);
        }
    }

    /// Something is to be done with the channels.
    pub(crate) fn command(&mut self, now: Instant, command: DataCommand) {
        if let Some(data) = &mut self.data {
            data.command(now, command);
        }
    }

    /// A STUN message. `false`: it is not the peer's.
    pub(crate) fn stun(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> bool {
        let path = Path {
            local: destination,
            remote: source,
        };
        if let Err(reason) = self.ice.receive(now, path, data) {
            reason.count();
            if self.complained.is_none_or(|at| now >= at + COMPLAINT) {
                self.complained = Some(now);
                let reason = reason.as_str();
                tracing::debug!(%source, reason, "a STUN message was dropped");
            }
            return false;
        }
        self.handshake.farewell = None;
        true
    }

    /// A DTLS record. Costs next to nothing once DTLS is let go, when anybody may have sent it. What data costs is reckoned apart:
    /// it stops neither media nor reports. `None`: that was too much, and it was not read.
    pub(crate) fn dtls(&mut self, now: Instant, data: &[u8]) -> Option<Work> {
        let is_over = match &mut self.data {
            Some(channels) if self.handshake.is_up() => Some(channels.is_over_budget(now)),
            _ => None,
        };
        let work = match is_over {
            Some(true) => return None,
            Some(false) => Work::default(),
            None if self.handshake.is_let_go() => Work::default(),
            None => Work::RECORD,
        };
        if self.handshake.receive(now, data) {
            // Anybody may have said it: who answers is still there.
            self.ice.ask(now, None);
        }
        Some(work)
    }

    /// The viewer has said something with the keys: it is there. Returns whether to be drained.
    pub(crate) fn heard(&mut self, now: Instant) -> bool {
        self.handshake.farewell = None;
        self.handshake.confirm(now)
    }

    /// Puts out what is due and returns when to call again.
    pub(crate) fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        self.ice.handle_timeout(now);
        while let Some((path, data)) = self.ice.poll_transmit() {
            sink.transmit(path.local, path.remote, &data);
            self.ice.reuse(data);
        }
        let path = self.ice.path();
        if path.is_some() {
            self.handshake.begin(now);
        }
        let waiting = &mut self.waiting;
        let mut send = |data: &[u8]| match path {
            Some(path) => sink.transmit(path.local, path.remote, data),
            None if waiting.len() < MAX_WAITING => waiting.push(data.to_vec()),
            None => {}
        };
        let data = &mut self.data;
        let mut take = |packet: &[u8]| {
            if let Some(data) = data {
                data.receive(now, packet);
            }
        };
        let mut handshake = self.handshake.drain(now, &mut send, &mut take);
        let mut data_due = None;
        if let Some(data) = &mut self.data
            && self.handshake.is_up()
        {
            data_due = data.drain(now, &mut |packet| self.handshake.send_data(packet));
            handshake = self.handshake.drain(now, &mut send, &mut |_| {});
        }
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
        let others = [handshake, farewell, data_due].into_iter().flatten();
        others.fold(ice, Instant::min)
    }

    /// New candidates of the peer.
    pub(crate) fn add_remote(&mut self, now: Instant, candidate: &Candidate) {
        if candidate.proto() == Protocol::Udp {
            self.ice.add_remote(now, candidate.addr());
        }
    }

    /// An ICE restart: new credentials on both sides, the same addresses of ours.
    pub(crate) fn restart(&mut self, local: IceCreds, remote: IceCreds) {
        self.ice.restart(local, remote);
    }

    /// The peer is told in the next [`drain`](Self::drain) that it is over.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }
}
