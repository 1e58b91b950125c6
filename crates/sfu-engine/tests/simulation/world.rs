// SPDX-License-Identifier: MPL-2.0

//! One shard, one publisher, any number of viewers, and the time that passes for all of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sfu_engine::queue::{ShardCommand, ShardInbox, ShardQueue};
use sfu_engine::session::SessionShared;
use sfu_engine::shard::{Outbox, PeerFeedback, Progress, Publication, PublicationId, Shard};
use sfu_engine::stats::Counters;
use sfu_engine::stream::{Stream, Viewing};
use sfu_engine::transport::PatchOutcome;
use sfu_engine::transport::negotiate::{self, Identity};
use sfu_engine::transport::patch::Fragment;
use sfu_engine::{Codec, PlayoutDelay, Preference, PublishOptions, SessionId};

use str0m::config::CryptoProvider;

use sfu_impair::{Conditions, Link, Rng};

use crate::device::Device;
use crate::net::{InFlight, Network, Trouble, Way, good};
use crate::peer::TestPeer;
use crate::publisher::TestPublisher;
use crate::viewer::{Knows, TestViewer};

/// The two directions of a viewer's link.
pub(crate) struct Links {
    down: Link,
    up: Link,
    /// The viewer whose way down it is, too.
    shared_with: Option<usize>,
}

/// Allocations, and how often they might have been made.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) media: (usize, usize),
    pub(crate) reports: (usize, usize),
    pub(crate) others: (usize, usize),
    pub(crate) timers: (usize, usize),
}

/// The server's own network.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// What takes not everything at once, where it is not perfect.
    pub(crate) device: Option<Device>,
    /// Octets that left.
    pub(crate) octets: u64,
    /// The most octets that waited, sealed, for the device.
    pub(crate) most_held: usize,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) publisher: TestPublisher,
    /// What the links of all viewers do besides.
    pub(crate) trouble: Trouble,
    /// No frames while this is set.
    pub(crate) publisher_paused: bool,
    /// Who joins from now on takes sound with redundancy.
    pub(crate) viewers_take_red: bool,
    /// Who joins from now on has this cryptography.
    pub(crate) viewers_crypto: Option<CryptoProvider>,
    /// The same of peers that publish.
    peers_crypto: Option<CryptoProvider>,
    /// They send no pictures.
    peers_are_silent: bool,
    /// What peers that publish from now on say.
    pub(crate) peers_languages: &'static [&'static str],
    /// Who joins from now on takes pictures of this codec alone, and no stream of retransmissions.
    pub(crate) viewers_lack_rtx: Option<Codec>,
    /// Who joins from now on asks for no packet again.
    pub(crate) viewers_lack_nack: bool,
    /// Who joins from now on reports no arrivals.
    pub(crate) viewers_lack_twcc: bool,
    /// They take the dependency descriptor.
    pub(crate) viewers_take_descriptors: bool,
    /// Where reports of viewers are kept, too.
    pub(crate) overheard: Option<Vec<Vec<u8>>>,
    /// Where what publishers by WHIP are sent is kept, too.
    pub(crate) told: Option<Vec<Vec<u8>>>,
    pub(crate) viewers: Vec<(TestViewer, Links)>,
    /// What publishers by WHIP that come from now on may send, in bit/s.
    pub(crate) peer_max_bitrate: Option<u64>,
    /// Publishers that came by WHIP.
    pub(crate) peers: Vec<(TestPeer, Links)>,
    /// The number of allocations so far, where they are counted, and what the shard took of them.
    pub(crate) allocations: fn() -> usize,
    pub(crate) taken: Taken,
    /// The server's own network.
    pub(crate) out: Out,
    /// When the encoder was asked for keyframes.
    pub(crate) asked_at: Vec<Instant>,
    pub(crate) sessions: Vec<Arc<SessionShared>>,
    pub(crate) stream: Arc<Stream>,
    queue: ShardQueue,
    inbox: ShardInbox,
    identity: Identity,
    network: Network,
    rng: Rng,
    seed: u64,
    server: SocketAddr,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl World {
    pub(crate) fn new(seed: u64, layers: usize) -> Self {
        let seed = std::env::var("SFU_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(seed);
        let now = Instant::now();
        let (queue, inbox) = ShardQueue::new(None);
        let counters = Arc::new(Counters::default());
        let stream = Arc::new(Stream::new("test".parse().unwrap(), 1));
        Self {
            now,
            start: now,
            shard: Shard::new(queue.clone(), counters.clone(), 64),
            queue,
            counters,
            publisher: TestPublisher::new(stream.clone(), now, layers),
            trouble: Trouble::None,
            publisher_paused: false,
            viewers_take_red: false,
            viewers_crypto: None,
            peers_crypto: None,
            peers_are_silent: false,
            peers_languages: &[],
            viewers_lack_rtx: None,
            viewers_lack_nack: false,
            viewers_lack_twcc: false,
            viewers_take_descriptors: false,
            overheard: None,
            told: None,
            viewers: Vec::new(),
            peer_max_bitrate: None,
            peers: Vec::new(),
            allocations: || 0,
            taken: Taken::default(),
            out: Out::default(),
            asked_at: Vec::new(),
            sessions: Vec::new(),
            stream,
            inbox,
            identity: Identity::generate().unwrap(),
            network: Network::default(),
            rng: Rng::new(seed),
            seed,
            server: "192.0.2.1:8189".parse().unwrap(),
            due: BinaryHeap::new(),
        }
    }

    /// A stream that a peer publishes by WHIP instead, and has connected.
    pub(crate) fn with_peer(seed: u64, link: Conditions, layers: usize) -> Self {
        Self::with_this_peer(Self::new(seed, layers), link, layers, true)
    }

    /// The same, of a peer that knows no arrival reports.
    pub(crate) fn with_peer_without_twcc(seed: u64, link: Conditions) -> Self {
        Self::with_this_peer(Self::new(seed, 1), link, 1, false)
    }

    /// The same, of a peer with this cryptography.
    pub(crate) fn with_peer_of(seed: u64, layers: usize, crypto: CryptoProvider) -> Self {
        let mut world = Self::new(seed, layers);
        world.peers_crypto = Some(crypto);
        Self::with_this_peer(world, good(), layers, true)
    }

    /// The same, that sends sound and no pictures.
    pub(crate) fn with_silent_peer_of(seed: u64, layers: usize, crypto: CryptoProvider) -> Self {
        let mut world = Self::new(seed, layers);
        world.peers_crypto = Some(crypto);
        world.peers_are_silent = true;
        Self::with_this_peer(world, good(), layers, true)
    }

    /// Instead of the test's own publisher, one who came by WHIP and may not send more than this.
    pub(crate) fn with_limited_peer(seed: u64, twcc: bool, max_bitrate: u64) -> Self {
        let layers = if twcc { 3 } else { 1 };
        let mut world = Self::new(seed, layers);
        world.peer_max_bitrate = Some(max_bitrate);
        Self::with_this_peer(world, good(), layers, twcc)
    }

    /// A datagram seems to come from a publisher. Returns whether it was dropped as invalid.
    pub(crate) fn inject_from_peer(&mut self, peer: usize, data: &[u8]) -> bool {
        let before = self.counters.snapshot().datagrams_invalid;
        let source = self.peers[peer].0.address;
        self.shard.receive(self.now, source, self.server, data);
        self.obey(self.now);
        self.send_out();
        self.counters.snapshot().datagrams_invalid > before
    }

    fn with_this_peer(mut world: Self, link: Conditions, layers: usize, twcc: bool) -> Self {
        world.publisher_paused = true;
        world.stream.stop(world.publisher.lease);
        world.publish_with(link, layers, true, twcc).unwrap();
        let limit = Duration::from_secs(3);
        world.run_until("the peer publishes", limit, |w| {
            w.stream.info(w.now).packets_in > 0
        });
        world
    }

    /// A peer publishes the stream, with a timeout of five seconds. `None`: somebody else does.
    pub(crate) fn publish(
        &mut self,
        link: Conditions,
        layers: usize,
        takeover: bool,
    ) -> Option<usize> {
        self.publish_with(link, layers, takeover, true)
    }

    fn publish_with(
        &mut self,
        link: Conditions,
        layers: usize,
        takeover: bool,
        twcc: bool,
    ) -> Option<usize> {
        let index = self.peers.len();
        let crypto = self.peers_crypto.clone();
        let (mut peer, offer) =
            TestPeer::new(self.now, index, layers, twcc, self.peers_languages, crypto);
        if self.peers_are_silent {
            peer.silent = (0..layers).collect();
        }
        let (transport, answer, tracks) =
            negotiate::accept_publisher(&self.identity, &offer, &[self.server], self.now).unwrap();
        let feedback = PeerFeedback {
            queue: self.queue.clone(),
            session: peer.session,
            publication: PublicationId(0),
            input: "whip",
        };
        let options = PublishOptions {
            keyframe_min_interval: Duration::from_millis(500),
            feedback: Arc::new(feedback),
        };
        let claim = self.stream.claim(options, takeover, self.now)?;
        let tag = "\"1\"".into();
        let none = Preference::default();
        let session = SessionShared::new(peer.session, self.stream.clone(), 0, tag, none);
        let command = ShardCommand::Publish {
            publications: vec![Publication::new(PublicationId(0), Some(claim), &tracks)],
            transport: Box::new(transport),
            session: Arc::new(session),
            timeout: Duration::from_secs(5),
            max_bitrate: self.peer_max_bitrate,
        };
        self.shard.handle(self.now, command);
        peer.accept(&answer);
        let links = self.links(link);
        self.peers.push((peer, links));
        Some(index)
    }

    /// A peer's link becomes another one.
    pub(crate) fn set_peer_link(&mut self, peer: usize, link: Conditions) {
        let links = &mut self.peers[peer].1;
        links.down.set(link);
        links.up.set(link);
    }

    fn links(&mut self, link: Conditions) -> Links {
        Links {
            down: Link::new(link, self.rng.next_u64()),
            up: Link::new(link, self.rng.next_u64()),
            shared_with: None,
        }
    }

    /// A viewer joins now, and its request has reached the server without delay.
    pub(crate) fn join(&mut self, link: Conditions, layer: Option<&str>) -> usize {
        let layer = layer.map(|l| l.parse().unwrap());
        self.join_with(
            link,
            Preference {
                layer,
                ..Preference::default()
            },
        )
    }

    /// A viewer joins with a wish of its own.
    pub(crate) fn join_with(&mut self, link: Conditions, preference: Preference) -> usize {
        let index = self.viewers.len();
        let knows = Knows {
            red: self.viewers_take_red,
            descriptors: self.viewers_take_descriptors,
            no_rtx: self.viewers_lack_rtx,
            no_nack: self.viewers_lack_nack,
            no_twcc: self.viewers_lack_twcc,
        };
        let (mut viewer, offer) =
            TestViewer::new(self.now, index, self.viewers_crypto.clone(), knows);
        let codecs = self.stream.codecs();
        let delay = PlayoutDelay::from_millis(0, 200);
        let (transport, answer) = negotiate::accept(
            &self.identity,
            codecs,
            &offer,
            &[self.server],
            delay,
            self.now,
        )
        .unwrap();
        let id = SessionId::from_bits(index as u128);
        let session = SessionShared::new(id, self.stream.clone(), 0, "\"1\"".into(), preference);
        let session = Arc::new(session);
        self.sessions.push(session.clone());
        let command = ShardCommand::Subscribe {
            stream: Some(Viewing::new(self.stream.clone())),
            transport: Box::new(transport),
            session,
        };
        self.shard.handle(self.now, command);
        viewer.accept(id, &answer);
        let link = self.trouble.on(link);
        // The way up is as long and lossy, and wide enough for feedback.
        let up = Conditions { rate: None, ..link };
        let mut links = self.links(link);
        links.up.set(up);
        self.viewers.push((viewer, links));
        self.due.push(Reverse((self.now, index)));
        index
    }

    /// A moment on the clock of the server's sender reports.
    pub(crate) fn wall(&self, at: Instant) -> SystemTime {
        self.identity.wall_clock().at(at)
    }

    /// A viewer's way down is another one's from now on.
    pub(crate) fn share_link(&mut self, viewer: usize, with: usize) {
        self.viewers[viewer].1.shared_with = Some(with);
    }

    /// A datagram that seems to come from a viewer. Returns whether it was dropped as invalid.
    pub(crate) fn inject(&mut self, viewer: usize, data: &[u8]) -> bool {
        let before = self.counters.snapshot().datagrams_invalid;
        let source = self.viewers[viewer].0.address;
        self.shard.receive(self.now, source, self.server, data);
        self.send_out();
        self.counters.snapshot().datagrams_invalid > before
    }

    /// Nothing that a viewer sends arrives any more.
    pub(crate) fn mute(&mut self, viewer: usize) {
        self.viewers[viewer].1.up.set(Conditions {
            loss: 1.0,
            ..Conditions::default()
        });
    }

    /// A viewer's link becomes another one.
    pub(crate) fn set_link(&mut self, viewer: usize, link: Conditions) {
        let link = self.trouble.on(link);
        let links = &mut self.viewers[viewer].1;
        links.down.set(link);
        links.up.set(Conditions { rate: None, ..link });
    }

    pub(crate) fn set_layer(&mut self, viewer: usize, layer: Option<&str>) {
        let layer = layer.map(|l| l.parse().unwrap());
        self.set_preference(
            viewer,
            Preference {
                layer,
                ..Preference::default()
            },
        );
    }

    pub(crate) fn set_preference(&mut self, viewer: usize, preference: Preference) {
        let command = ShardCommand::SetPreference {
            session: self.viewers[viewer].0.session.unwrap(),
            place: 0,
            preference,
        };
        self.shard.handle(self.now, command);
        self.send_out();
    }

    /// Sends a fragment to a viewer's session, as the signaller's `PATCH` does.
    pub(crate) fn patch(&mut self, viewer: usize, fragment: &str) -> PatchOutcome {
        let session = self.viewers[viewer].0.session.unwrap();
        self.patch_session(session, fragment)
    }

    /// The same for any session.
    pub(crate) fn patch_session(&mut self, session: SessionId, fragment: &str) -> PatchOutcome {
        let (reply, outcome) = std::sync::mpsc::sync_channel(1);
        let fragment = Fragment::parse(fragment).unwrap();
        let command = ShardCommand::Patch {
            session,
            fragment,
            reply,
        };
        self.shard.handle(self.now, command);
        self.send_out();
        outcome.try_recv().unwrap().unwrap().unwrap()
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    /// Runs until the condition holds, or panics after `limit`.
    pub(crate) fn run_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) {
        let end = self.now + limit;
        while !done(self) {
            assert!(
                self.now < end,
                "{what}: not within {limit:?} (SFU_SEED={})",
                self.seed
            );
            self.run_for(Duration::from_millis(10));
        }
    }

    /// Lets the newest viewer connect, which takes longer where something is lost.
    pub(crate) fn connect(&mut self) {
        let newest = self.viewers.len() - 1;
        let limit = Duration::from_secs(15);
        self.run_until("is connected", limit, |w| {
            w.sessions[newest].info().connected && w.viewers[newest].0.connected_at.is_some()
        });
    }

    fn next_event(&mut self) -> Option<Instant> {
        let frame = (!self.publisher_paused).then_some(self.publisher.next_frame);
        let viewer = self.due.peek().map(|Reverse((at, _))| *at);
        let peer = self.peers.iter().map(|(p, _)| p.next).min();
        // Nothing of the shard's can be done before the device takes something.
        let shard = match self.shard.outbox().is_empty() {
            true if self.shard.is_held_up() => Some(self.now),
            true => self.shard.poll_timeout(),
            false => self.out.device.as_ref().and_then(Device::next),
        };
        let late = self.publisher.next_late();
        [frame, late, viewer, peer, self.network.next(), shard]
            .into_iter()
            .flatten()
            .min()
    }

    fn step(&mut self) {
        let now = self.now;
        if !self.publisher_paused && self.publisher.next_frame <= now {
            self.publisher.produce(now);
        }
        self.publisher.produce_late(now);
        self.obey(now);
        self.go_on(now);
        while let Some(InFlight {
            way, index, data, ..
        }) = self.network.pop_due(now)
        {
            match way {
                Way::FromViewer => {
                    if let Some(overheard) = &mut self.overheard
                        && matches!(data.first(), Some(128..=191))
                    {
                        overheard.push(data.clone());
                    }
                    let source = self.viewers[index].0.address;
                    let before = (self.allocations)();
                    self.shard.receive(now, source, self.server, &data);
                    let taken = (self.allocations)() - before;
                    let place = match data.first() {
                        Some(128..=191) => &mut self.taken.reports,
                        _ => &mut self.taken.others,
                    };
                    *place = (place.0 + taken, place.1 + 1);
                }
                Way::FromPeer => {
                    let source = self.peers[index].0.address;
                    self.shard.receive(now, source, self.server, &data);
                }
                Way::ToViewer => {
                    self.viewers[index].0.receive(now, self.server, &data);
                    self.drain_viewer(index);
                }
                Way::ToPeer => {
                    if let Some(told) = &mut self.told {
                        told.push(data.clone());
                    }
                    self.peers[index].0.receive(now, self.server, &data);
                    self.drain_peer(index);
                }
            }
        }
        for index in 0..self.peers.len() {
            if self.peers[index].0.next <= now {
                self.drain_peer(index);
            }
        }
        // What peers asked to be told comes through the queue.
        self.obey(now);
        let mut sending = 0;
        let mut send = |outbox: &mut Outbox| {
            let before = (self.allocations)();
            let (viewers, peers) = (&mut self.viewers, &mut self.peers);
            deliver(
                outbox,
                viewers,
                peers,
                &mut self.network,
                &mut self.out,
                now,
            );
            sending += (self.allocations)() - before;
            now
        };
        let before = (self.allocations)();
        self.shard.handle_timeout_sending(now, &mut send);
        self.taken.timers.0 += (self.allocations)() - before - sending;
        while let Some(Reverse((at, viewer))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            if self.viewers[viewer].0.next <= now {
                self.drain_viewer(viewer);
            }
        }
        self.send_out();
        let asked = self.publisher.encoder.requests.lock().unwrap().len();
        self.asked_at.resize(asked, now);
    }

    /// What the device did not take before goes on.
    fn go_on(&mut self, now: Instant) {
        if self.shard.outbox().is_empty() && !self.shard.is_held_up() {
            return;
        }
        self.send_out();
        if self.shard.outbox().is_full() {
            return;
        }
        let mut send = |outbox: &mut Outbox| {
            let (viewers, peers) = (&mut self.viewers, &mut self.peers);
            deliver(
                outbox,
                viewers,
                peers,
                &mut self.network,
                &mut self.out,
                now,
            );
            now
        };
        self.shard.go_on(now, &mut send);
    }

    /// A viewer leaves, as by DELETE.
    pub(crate) fn leave(&mut self, viewer: usize) {
        let session = self.viewers[viewer].0.session.unwrap();
        self.shard.handle(self.now, ShardCommand::Close { session });
        self.send_out();
        self.viewers[viewer].0.dead = true;
    }

    /// Hands the shard what is in its queue.
    fn obey(&mut self, now: Instant) {
        while let Some(command) = self.inbox.try_recv() {
            let mut sending = 0;
            let mut send = |outbox: &mut Outbox| {
                let before = (self.allocations)();
                let (viewers, peers) = (&mut self.viewers, &mut self.peers);
                deliver(
                    outbox,
                    viewers,
                    peers,
                    &mut self.network,
                    &mut self.out,
                    now,
                );
                sending += (self.allocations)() - before;
                now
            };
            let before = (self.allocations)();
            self.shard.handle_sending(now, command, &mut send);
            let taken = (self.allocations)() - before - sending;
            self.taken.media = (self.taken.media.0 + taken, self.taken.media.1 + 1);
        }
    }

    fn drain_viewer(&mut self, index: usize) {
        let (viewer, links) = &mut self.viewers[index];
        let (network, now) = (&mut self.network, self.now);
        viewer.drain(now, |data| {
            if let Some(at) = links.up.pass(now, data.len()) {
                network.send(at, Way::FromViewer, index, data);
            }
        });
        self.due.push(Reverse((viewer.next, index)));
    }

    fn drain_peer(&mut self, index: usize) {
        let (peer, links) = &mut self.peers[index];
        let (network, now) = (&mut self.network, self.now);
        peer.drain(now, |data| {
            if let Some(at) = links.up.pass(now, data.len()) {
                network.send(at, Way::FromPeer, index, data);
            }
        });
    }

    fn send_out(&mut self) {
        let outbox = self.shard.outbox();
        let (viewers, peers) = (&mut self.viewers, &mut self.peers);
        deliver(
            outbox,
            viewers,
            peers,
            &mut self.network,
            &mut self.out,
            self.now,
        );
    }

    /// All memory of the viewers' own side is given back. Nothing can run after this.
    #[allow(dead_code)]
    pub(crate) fn forget_viewers(&mut self) {
        self.viewers = Vec::new();
        self.network = Network::default();
        self.due = BinaryHeap::new();
    }

    /// Asserts for every viewer, naming the seed.
    pub(crate) fn check(&self, what: &str, mut holds: impl FnMut(&TestViewer) -> bool) {
        for (index, (viewer, _)) in self.viewers.iter().enumerate() {
            assert!(
                holds(viewer),
                "{what}: viewer {index}: {:?} (SFU_SEED={})",
                viewer.decoded(),
                self.seed
            );
        }
    }
}

/// Puts what a shard sends on the viewers' and the peers' links.
fn deliver(
    outbox: &mut Outbox,
    viewers: &mut [(TestViewer, Links)],
    peers: &mut [(TestPeer, Links)],
    network: &mut Network,
    out: &mut Out,
    now: Instant,
) {
    let mut progress = Progress::default();
    out.most_held = out.most_held.max(outbox.octets());
    'all: for (datagrams, data) in outbox.iter() {
        let SocketAddr::V4(to) = datagrams.destination else {
            panic!("viewers have IPv4 addresses");
        };
        let [_, kind, hi, lo] = to.ip().octets();
        let index = usize::from(u16::from_be_bytes([hi, lo]));
        let (way, link) = match kind {
            0 => {
                let link = viewers[index].1.shared_with.unwrap_or(index);
                (Way::ToViewer, &mut viewers[link].1.down)
            }
            _ => (Way::ToPeer, &mut peers[index].1.down),
        };
        for datagram in data.chunks(datagrams.segment) {
            let device = out.device.as_mut();
            if device.is_some_and(|device| !device.takes(now, datagram.len())) {
                break 'all;
            }
            out.octets += datagram.len() as u64;
            progress.datagrams += 1;
            if let Some(at) = link.pass(now, datagram.len()) {
                network.send(at, way, index, datagram);
            }
        }
        progress = Progress {
            sends: progress.sends + 1,
            datagrams: 0,
        };
    }
    outbox.forget(progress);
    outbox.set_held_up(out.device.is_some());
}
