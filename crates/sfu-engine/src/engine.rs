// SPDX-License-Identifier: MPL-2.0

//! The engine as the rest of the process sees it: shards on their threads, and sessions by their identifier.
//!
//! Called by the signaller. Nothing here is on a packet's way.

mod admission;
mod announce;
mod duplex;
mod error;
mod latency;
mod offered;
mod peers;
mod registry;
mod stun;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use admission::Admitted;
pub use admission::{AddressKey, AdmissionLimits, Full};
pub use announce::{Announce, NotAnnounced};
use announce::{Announced, By};
pub use duplex::DuplexPeer;
pub use error::{EngineError, PublishRefused, SessionError, SubscribeError};
pub use latency::LatencyRefused;
pub use offered::OfferedViewer;
pub use peers::{Grouped, InvitedPeer, Peer, PublishingPeer, Shown};
pub(crate) use registry::Place;
use registry::Registry;

use crate::address;
use crate::driver::{Outgoing, ShardThread, TcpLimits};
use crate::ids::{SessionId, StreamName};
use crate::info::StreamLook;
use crate::interfaces::Interfaces;
use crate::layers::Preference;
use crate::peer::data::DataCommand;
use crate::peer::sdp;
use crate::queue::ShardCommand;
use crate::router::Router;
use crate::session::{SessionInfo, SessionObserver, SessionShared};
use crate::shard::{PeerFeedback, Publication, PublicationId};
use crate::stats::{Counters, CountersSnapshot, ShardInfo};
use crate::stream::{PublishOptions, Stream};
use crate::transport::lean::ice;
use crate::transport::negotiate::{self, Identity, PlayoutDelay};
use crate::transport::patch::{Fragment, PatchError};
use crate::transport::{PatchOutcome, ViewerTransport};
use admission::Admission;

/// How long a shard may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(2);
/// Addresses of an offer that are remembered with its session.
const NAMED: usize = 4;

/// What may wait in the kernel, in octets; it counts twice as many. At 10 Gbit/s that lasts for 1.6 ms, so that the sender
/// is awake in time; at 1 Gbit/s sound waits behind it for 16 ms at the most.
pub const SEND_BUFFER: usize = 1024 * 1024;

/// Where and on how many threads the engine sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// The local address of the UDP ports; unspecified means all interfaces.
    pub udp_address: IpAddr,
    /// The first UDP port: shard *i* listens on `udp_port + i`. 0 lets the kernel choose each.
    pub udp_port: u16,
    /// Threads, each with its own port. 0 is one for each core.
    pub shards: usize,
    /// The send buffer of each UDP port (`SO_SNDBUF`), in octets. The kernel may grant less.
    pub send_buffer: usize,
    /// Mark datagrams for networks that treat sound and pictures apart (RFC 8837).
    pub dscp: bool,
    /// TCP connections of peers that get no UDP through, at most, on the numbers of the UDP ports. 0: none is taken.
    pub tcp_connections: usize,
    /// Addresses to announce instead of the machine's own (behind a NAT).
    pub announce: Vec<Announce>,
    /// The shortest time between two keyframe requests to a publishing peer for one layer.
    pub keyframe_min_interval: Duration,
    /// A publishing peer from which nothing comes for this long is gone, and its stream ends.
    pub publisher_timeout: Duration,
    /// How long viewers may keep pictures back; `None` leaves it to them.
    pub playout_delay: Option<PlayoutDelay>,
    /// How many sessions there may be.
    pub admission: AdmissionLimits,
    /// What a publishing peer may send in all, in bit/s; `None` is no limit.
    pub publisher_max_bitrate: Option<u64>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            udp_address: Ipv4Addr::UNSPECIFIED.into(),
            udp_port: 8189,
            shards: 0,
            send_buffer: SEND_BUFFER,
            dscp: false,
            tcp_connections: 1_000,
            announce: Vec::new(),
            keyframe_min_interval: Duration::from_millis(500),
            publisher_timeout: Duration::from_secs(15),
            playout_delay: Some(PlayoutDelay::AUTO),
            admission: AdmissionLimits::default(),
            publisher_max_bitrate: Some(50_000_000),
        }
    }
}

/// What of its configuration may change while it runs. It holds for those who come from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// [`EngineConfig::admission`].
    pub admission: AdmissionLimits,
    /// [`EngineConfig::publisher_timeout`].
    pub publisher_timeout: Duration,
    /// [`EngineConfig::publisher_max_bitrate`].
    pub publisher_max_bitrate: Option<u64>,
}

impl EngineConfig {
    /// What of it may change.
    pub fn limits(&self) -> EngineLimits {
        EngineLimits {
            admission: self.admission,
            publisher_timeout: self.publisher_timeout,
            publisher_max_bitrate: self.publisher_max_bitrate,
        }
    }
}

/// What a viewer asks for.
#[derive(Debug, Clone)]
pub struct SubscribeRequest<'a> {
    /// The stream to watch.
    pub stream: &'a StreamName,
    /// The SDP offer.
    pub offer: &'a str,
    /// What the viewer wants to see.
    pub preference: Preference,
    /// Where the request came from: a viewer on this machine is also offered the loopback address.
    pub peer: Option<IpAddr>,
}

/// A session that was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// Its identifier.
    pub session: SessionId,
    /// The SDP answer.
    pub answer: String,
    /// WHEP's entity tag of the ICE session, with its quotes.
    pub etag: String,
}

/// What a publishing peer asks for.
#[derive(Debug, Clone)]
pub struct PublishRequest<'a> {
    /// The stream to publish.
    pub stream: &'a StreamName,
    /// The SDP offer.
    pub offer: &'a str,
    /// Step in for another peer that publishes it.
    pub takeover: bool,
    /// Where the request came from: a publisher on this machine is also offered the loopback address.
    pub peer: Option<IpAddr>,
}

/// What a fragment did to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// Candidates were added.
    Trickled,
    /// ICE was restarted: the answer, and the session's new entity tag.
    Restarted {
        /// The answer's fragment.
        fragment: String,
        /// The new entity tag, with its quotes.
        etag: String,
    },
}

/// See the module's description. Stops and joins its threads when dropped, if [`Engine::stop`] has not done so.
#[derive(Debug)]
pub struct Engine {
    router: Arc<Router>,
    config: EngineConfig,
    identity: Identity,
    counters: Arc<Counters>,
    admission: Arc<Admission>,
    limits: Mutex<EngineLimits>,
    announced: Announced,
    shards: Vec<ShardThread>,
    interfaces: Interfaces,
    sessions: Arc<Registry>,
    etags: AtomicU64,
}

impl Engine {
    /// Opens the UDP ports and starts a thread for each.
    pub fn start(router: Arc<Router>, config: EngineConfig) -> Result<Engine, EngineError> {
        let count = match config.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        if let Some(port) = Announced::port_too_high(&config.announce, count) {
            return Err(EngineError::AnnouncedPorts {
                port,
                shards: count,
            });
        }
        let identity = Identity::generate().map_err(EngineError::Certificate)?;
        let counters = Arc::new(Counters::default());
        let mut shards = Vec::with_capacity(count);
        let tcp = config.tcp_connections;
        let tcp = (tcp > 0).then(|| TcpLimits::of(tcp, count));
        for index in 0..count {
            let port = match config.udp_port {
                0 => 0,
                first => {
                    u16::try_from(usize::from(first) + index).map_err(|_| EngineError::Ports {
                        port: first,
                        shards: count,
                    })?
                }
            };
            let address = SocketAddr::new(config.udp_address, port);
            let outgoing = Outgoing {
                send_buffer: config.send_buffer,
                dscp: config.dscp,
            };
            shards.push(ShardThread::start(
                index,
                address,
                outgoing,
                tcp,
                counters.clone(),
            )?);
        }
        Ok(Self {
            router,
            admission: Admission::new(config.admission),
            limits: Mutex::new(config.limits()),
            announced: Announced::new(config.announce.clone()),
            config,
            identity,
            counters,
            shards,
            interfaces: Interfaces::default(),
            sessions: Registry::new(count),
            etags: AtomicU64::new(0),
        })
    }

    /// Ends all sessions and threads and closes the UDP ports, whoever still holds the engine. Returns when that is so.
    pub fn stop(&self) {
        // All shards say goodbye to their viewers at the same time.
        for shard in &self.shards {
            shard.queue().send(ShardCommand::Stop);
        }
        for shard in &self.shards {
            shard.stop();
        }
    }

    /// Where its streams are.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The UDP ports, one a shard.
    pub fn udp_ports(&self) -> Vec<u16> {
        self.shards.iter().map(|s| s.address().port()).collect()
    }

    /// How each shard is.
    pub fn shards(&self) -> Vec<ShardInfo> {
        let info = |shard: &ShardThread| ShardInfo {
            sessions: self.sessions.load(shard.index()),
            network: shard.network(),
            received: shard.traffic().received(),
            sent: shard.traffic().sent(),
            thread: shard.traffic().thread(),
        };
        self.shards.iter().map(info).collect()
    }

    /// From now on this one is told of sessions. There is one at most: `false` where there was one already.
    pub fn observe(&self, observer: Arc<dyn SessionObserver>) -> bool {
        self.sessions.observer.set(observer).is_ok()
    }

    /// All sessions, in the order in which they came. Locks no stream.
    pub fn all_sessions(&self) -> Vec<SessionInfo> {
        let mut all: Vec<_> = self.sessions.all().iter().map(|s| s.info()).collect();
        all.sort_unstable_by_key(|session| session.number);
        all
    }

    /// Answers a viewer's offer. About a millisecond of CPU: call it where that delays nobody.
    pub fn subscribe(&self, request: &SubscribeRequest<'_>) -> Result<Subscribed, SubscribeError> {
        let result = self.try_subscribe(request);
        if let Err(error) = &result {
            self.counters.offers_refused.add(1);
            tracing::debug!(stream = %request.stream, %error, "offer refused");
        }
        result
    }

    fn try_subscribe(&self, request: &SubscribeRequest<'_>) -> Result<Subscribed, SubscribeError> {
        let name = request.stream;
        let stream = self
            .router
            .find(name)
            .ok_or_else(|| SubscribeError::UnknownStream(name.clone()))?;
        let codecs = stream.codecs();
        if codecs.video.is_none() && codecs.audio.is_none() {
            return Err(SubscribeError::NotReady(name.clone()));
        }
        if let Some(layer) = &request.preference.layer {
            let layers = stream.rids();
            if !layers.contains(layer) {
                return Err(SubscribeError::UnknownLayer {
                    stream: name.clone(),
                    layer: layer.clone(),
                    layers,
                });
            }
        }
        let admitted = self.admit(request.peer)?;
        let (shard, addresses) = self.place(request.offer).ok_or(SubscribeError::Busy)?;
        let local = self.local_addresses(shard, request.peer);
        let (transport, answer) = negotiate::accept(
            &self.identity,
            codecs,
            request.offer,
            &local,
            self.config.playout_delay,
            Instant::now(),
        )?;
        let id = SessionId::from_bits(random_bits().ok_or(SubscribeError::Busy)?);
        let etag = self.next_etag();
        let session = SessionShared::new(
            id,
            stream.clone(),
            shard.index(),
            etag.clone(),
            request.preference.clone(),
        );
        let session = session.admitted(admitted).from(request.peer);
        let transport = Box::new(transport);
        self.enter(shard, &stream, transport, (session, addresses))?;
        Ok(Subscribed {
            session: id,
            answer,
            etag,
        })
    }

    /// Answers a publisher's offer (WHIP). About a millisecond of CPU: call it where that delays nobody.
    pub fn publish(&self, request: &PublishRequest<'_>) -> Result<Subscribed, PublishRefused> {
        let result = self.try_publish(request);
        if let Err(error) = &result {
            self.counters.offers_refused.add(1);
            tracing::debug!(stream = %request.stream, %error, "offer refused");
        }
        result
    }

    fn try_publish(&self, request: &PublishRequest<'_>) -> Result<Subscribed, PublishRefused> {
        let admitted = self.admit(request.peer)?;
        let (shard, addresses) = self.place(request.offer).ok_or(PublishRefused::Busy)?;
        let local = self.local_addresses(shard, request.peer);
        let now = Instant::now();
        let (transport, answer, tracks) =
            negotiate::accept_publisher(&self.identity, request.offer, &local, now)?;
        let id = SessionId::from_bits(random_bits().ok_or(PublishRefused::Busy)?);
        let options = PublishOptions {
            keyframe_min_interval: self.config.keyframe_min_interval,
            feedback: Arc::new(PeerFeedback {
                queue: shard.queue().clone(),
                session: id,
                publication: PublicationId(0),
                input: "whip",
            }),
        };
        let name = request.stream;
        let (stream, claim) = self
            .router
            .claim(name, options, request.takeover)
            .ok_or_else(|| PublishRefused::InUse(name.clone()))?;
        let etag = self.next_etag();
        let session = SessionShared::new(
            id,
            stream.clone(),
            shard.index(),
            etag.clone(),
            Preference::default(),
        );
        let session = session.admitted(admitted).from(request.peer);
        let session = self.sessions.enter(session.publishing(), addresses);
        let limits = self.limits();
        let command = ShardCommand::Publish {
            publications: vec![Publication::new(PublicationId(0), Some(claim), &tracks)],
            transport: Box::new(transport),
            session,
            timeout: limits.publisher_timeout,
            max_bitrate: limits.publisher_max_bitrate,
        };
        if !shard.queue().send(command) {
            return Err(PublishRefused::Busy);
        }
        tracing::info!(stream = %name, session = ?id, "published by a peer");
        Ok(Subscribed {
            session: id,
            answer,
            etag,
        })
    }

    /// Other limits, for those who come from now on.
    pub fn set_limits(&self, limits: EngineLimits) {
        self.admission.set_limits(limits.admission);
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits(&self) -> EngineLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a session, before its offer costs anything.
    fn admit(&self, peer: Option<IpAddr>) -> Result<Admitted, Full> {
        self.admission.admit(peer).inspect_err(|full| match full {
            Full::Sessions => self.counters.offers_refused_sessions.add(1),
            Full::Address => self.counters.offers_refused_address.add(1),
        })
    }

    /// Hands a session to its shard.
    fn enter(
        &self,
        shard: &ShardThread,
        stream: &Arc<Stream>,
        transport: Box<dyn ViewerTransport>,
        (session, addresses): (SessionShared, Box<[SocketAddr]>),
    ) -> Result<(), SubscribeError> {
        let viewing = self.router.add_viewer(stream);
        let unknown = || SubscribeError::UnknownStream(stream.name().clone());
        let command = ShardCommand::Subscribe {
            stream: Some(viewing.ok_or_else(unknown)?),
            transport,
            session: self.sessions.enter(session, addresses),
        };
        let sent = shard.queue().send(command);
        sent.then_some(()).ok_or(SubscribeError::Busy)
    }

    /// The shard for a session: the one with the fewest of those that have none at the addresses which the offer names. Where
    /// all have, the one before may be dead: the shard finds that out.
    fn place(&self, offer: &str) -> Option<(&ShardThread, Box<[SocketAddr]>)> {
        let addresses = sdp::named(offer, NAMED);
        let taken = self.sessions.shards_at(&addresses);
        let load = |shard: &&ShardThread| {
            let index = shard.index();
            (taken.contains(&index), self.sessions.load(index))
        };
        Some((self.shards.iter().min_by_key(load)?, addresses))
    }

    /// The addresses at which a viewer can reach a shard, by UDP and by TCP.
    fn local_addresses(&self, shard: &ShardThread, peer: Option<IpAddr>) -> Vec<SocketAddr> {
        let mut all = self.addresses_by(By::Udp, shard, peer);
        if shard.by_tcp() {
            let by_tcp = self.addresses_by(By::Tcp, shard, peer);
            all.extend(by_tcp.into_iter().map(address::tcp));
        }
        all
    }

    fn addresses_by(&self, by: By, shard: &ShardThread, peer: Option<IpAddr>) -> Vec<SocketAddr> {
        let port = shard.address().port();
        let bound = shard.address().ip();
        let now = Instant::now();
        let announced = self.announced.addresses(now, by, shard.index(), port);
        if !announced.is_empty() {
            return announced;
        }
        let mut addresses = self.interfaces.reachable(now, bound, peer);
        addresses.dedup();
        addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }

    fn find(&self, id: SessionId) -> Result<(Arc<SessionShared>, &ShardThread), SessionError> {
        let session = self.sessions.get(id).ok_or(SessionError::Unknown)?;
        let shard = self.shards.get(session.shard());
        Ok((session, shard.ok_or(SessionError::Unknown)?))
    }

    /// A session's figures.
    pub fn session(&self, id: SessionId) -> Option<SessionInfo> {
        Some(self.sessions.get(id)?.info())
    }

    /// A session's figures and what its page is told of its stream. Locks no stream and goes through no other session.
    pub fn look(&self, id: SessionId) -> Option<(SessionInfo, StreamLook)> {
        let session = self.sessions.get(id)?;
        Some((session.info(), session.stream().look(Instant::now())))
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Changes what a viewer wants to see. Another layer begins at a keyframe.
    pub fn set_preference(
        &self,
        id: SessionId,
        preference: Preference,
    ) -> Result<(), SessionError> {
        let (session, shard) = self.find(id)?;
        if let Some(layer) = &preference.layer {
            let layers = session.stream().rids();
            if !layers.contains(layer) {
                return Err(SessionError::UnknownLayer {
                    layer: layer.clone(),
                    layers,
                });
            }
        }
        session.set_preference(preference.clone());
        let command = ShardCommand::SetPreference {
            session: id,
            place: 0,
            preference,
        };
        shard
            .queue()
            .send(command)
            .then_some(())
            .ok_or(SessionError::Stopped)
    }

    /// Applies a trickle ICE fragment (RFC 8840): candidates, or an ICE restart where it has new credentials.
    ///
    /// Waits for the session's shard: call it where waiting is allowed.
    pub fn patch(&self, id: SessionId, sdp_fragment: &str) -> Result<Patched, SessionError> {
        let (session, shard) = self.find(id)?;
        let PatchError::Invalid(why) = match Fragment::parse(sdp_fragment) {
            Ok(fragment) => return self.apply(&session, shard, fragment),
            Err(error) => error,
        };
        Err(SessionError::InvalidFragment(why))
    }

    fn apply(
        &self,
        session: &SessionShared,
        shard: &ShardThread,
        fragment: Fragment,
    ) -> Result<Patched, SessionError> {
        let (reply, answer) = sync_channel(1);
        let command = ShardCommand::Patch {
            session: session.id(),
            fragment,
            reply,
        };
        if !shard.queue().send(command) {
            return Err(SessionError::Stopped);
        }
        let outcome = answer
            .recv_timeout(PATIENCE)
            .map_err(|_| SessionError::Stopped)?;
        match outcome.ok_or(SessionError::Unknown)? {
            Ok(PatchOutcome::Trickled) => Ok(Patched::Trickled),
            Ok(PatchOutcome::Restarted { fragment, .. }) => {
                let etag = self.next_etag();
                session.set_etag(etag.clone());
                Ok(Patched::Restarted { fragment, etag })
            }
            Err(PatchError::Invalid(why)) => Err(SessionError::InvalidFragment(why)),
        }
    }

    /// Has something done with a session's data channels. What comes of it its [`DataObserver`](crate::data::DataObserver) is told.
    /// A message that finds 4,096 others waiting for the session's shard, or 16 MiB, is not taken.
    pub fn data(&self, id: SessionId, command: DataCommand) -> Result<(), SessionError> {
        let (_, shard) = self.find(id)?;
        let command = ShardCommand::Data {
            session: id,
            command,
        };
        let sent = shard.queue().send(command);
        sent.then_some(()).ok_or(SessionError::Busy)
    }

    /// Ends a session.
    pub fn close(&self, id: SessionId) -> Result<(), SessionError> {
        let (_, shard) = self.find(id)?;
        let command = ShardCommand::Close { session: id };
        if !shard.queue().send(command) {
            // It lives on, and is found, so that this can be tried again.
            return Err(SessionError::Busy);
        }
        self.sessions.hide(id);
        Ok(())
    }

    /// What was counted since the start.
    pub fn counters(&self) -> CountersSnapshot {
        let mut snapshot = self.counters.snapshot();
        let stun = ice::dropped_counts();
        snapshot.stun_malformed = stun.malformed;
        snapshot.stun_unnamed = stun.unnamed;
        snapshot.stun_integrity = stun.integrity;
        snapshot.stun_unasked = stun.unasked;
        snapshot.stun_refused = stun.refused;
        snapshot.dtls_records_dropped = sfu_dtls::records_dropped();
        snapshot.frames_dropped += self.shards.iter().map(|s| s.queue().dropped()).sum::<u64>();
        snapshot
    }

    fn next_etag(&self) -> String {
        format!("\"{}\"", self.etags.fetch_add(1, Relaxed) + 1)
    }
}

fn random_bits() -> Option<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(u128::from_ne_bytes(bytes))
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
