// SPDX-License-Identifier: MPL-2.0

//! Many streams, and peers that get many of them each, over one transport: what rooms are made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_engine::queue::{ShardCommand, ShardInbox, ShardQueue};
use sfu_engine::session::SessionShared;
use sfu_engine::shard::{Outbox, Progress, Shard};
use sfu_engine::stats::Counters;
use sfu_engine::stream::{Stream, Viewing};
use sfu_engine::transport::negotiate::{self, Identity};
use sfu_engine::{Preference, SessionId};
use sfu_impair::{Conditions, Link, Rng};

use crate::net::{InFlight, Network, Way};
use crate::party::Party;
use crate::publisher::TestPublisher;

/// A peer, its links, and what it is to get.
pub(crate) struct Guest {
    pub(crate) party: Party,
    down: Link,
    up: Link,
    pub(crate) session: Arc<SessionShared>,
    /// For each place the stream that it carries, and what is known of that.
    pub(crate) places: Vec<Option<(usize, Arc<SessionShared>)>>,
}

pub(crate) struct Room {
    pub(crate) now: Instant,
    shard: Shard,
    inbox: ShardInbox,
    identity: Identity,
    server: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    pub(crate) publishers: Vec<TestPublisher>,
    pub(crate) guests: Vec<Guest>,
    network: Network,
    rng: Rng,
    /// Peers that there ever were.
    joined: usize,
}

impl Room {
    /// With so many publishers of three layers and sound.
    pub(crate) fn new(seed: u64, publishers: usize) -> Self {
        let now = Instant::now();
        let (queue, inbox) = ShardQueue::new(None);
        let counters = Arc::new(Counters::default());
        let mut room = Self {
            now,
            shard: Shard::new(queue, counters.clone(), 64),
            inbox,
            identity: Identity::generate().unwrap(),
            server: "192.0.2.1:8189".parse().unwrap(),
            counters,
            publishers: Vec::new(),
            guests: Vec::new(),
            network: Network::default(),
            rng: Rng::new(seed),
            joined: 0,
        };
        for index in 0..publishers {
            let name = format!("p{index}").parse().unwrap();
            let stream = Arc::new(Stream::new(name, index as u64 + 1));
            // Not all at the same moment.
            let first = now + Duration::from_millis(index as u64 * 7 % 33);
            let mut publisher = TestPublisher::new(stream, first, 3);
            publisher.use_ladder();
            room.publishers.push(publisher);
        }
        room
    }

    /// A number below this.
    pub(crate) fn draw(&mut self, below: usize) -> usize {
        (self.rng.next_u64() % below as u64) as usize
    }

    /// A peer joins with so many m-lines of each kind, and gets these streams on the first ones.
    pub(crate) fn join(&mut self, link: Conditions, lines: usize, streams: &[usize]) -> usize {
        let index = self.guests.len();
        let guest = self.admit(index, link, lines, streams[0]);
        self.guests.push(guest);
        self.begin(index, streams);
        index
    }

    /// A peer leaves, and another one takes its place.
    pub(crate) fn replace(
        &mut self,
        index: usize,
        link: Conditions,
        lines: usize,
        streams: &[usize],
    ) {
        let session = self.guests[index].party.session;
        self.shard.handle(self.now, ShardCommand::Close { session });
        self.send_out();
        self.guests[index] = self.admit(index, link, lines, streams[0]);
        self.begin(index, streams);
    }

    fn begin(&mut self, index: usize, streams: &[usize]) {
        for (place, &stream) in streams.iter().enumerate().skip(1) {
            self.watch(index, place, Some(stream));
        }
        self.drain_guest(index);
    }

    fn admit(&mut self, index: usize, link: Conditions, lines: usize, stream: usize) -> Guest {
        self.joined += 1;
        let (mut party, offer) = Party::new(self.now, index, self.joined, lines);
        let local = [self.server];
        let (transport, answer) =
            negotiate::accept_many(&self.identity, &offer, &local, None, self.now).unwrap();
        party.accept(&answer);
        let first = self.publishers[stream].stream.clone();
        let session = figures(party.session, &first, Preference::default());
        let command = ShardCommand::Subscribe {
            stream: Viewing::new(first),
            transport: Box::new(transport),
            session: session.clone(),
        };
        self.shard.handle(self.now, command);
        let mut places = vec![None; lines];
        places[0] = Some((stream, session.clone()));
        Guest {
            party,
            down: Link::new(link, self.rng.next_u64()),
            up: Link::new(Conditions { rate: None, ..link }, self.rng.next_u64()),
            session,
            places,
        }
    }

    /// A peer's m-lines with this place carry something else from now on.
    pub(crate) fn watch(&mut self, guest: usize, place: usize, stream: Option<usize>) {
        self.watch_with(guest, place, stream, Preference::default());
    }

    pub(crate) fn watch_with(
        &mut self,
        guest: usize,
        place: usize,
        publisher: Option<usize>,
        preference: Preference,
    ) {
        let session = self.guests[guest].party.session;
        let stream = publisher.map(|publisher| self.publishers[publisher].stream.clone());
        let of = stream.clone().unwrap_or(self.publishers[0].stream.clone());
        let figures = figures(session, &of, preference);
        self.guests[guest].places[place] = publisher.map(|p| (p, figures.clone()));
        let command = ShardCommand::Watch {
            session,
            place,
            stream: stream.map(Viewing::new),
            figures,
        };
        self.shard.handle(self.now, command);
        self.send_out();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn next_event(&mut self) -> Option<Instant> {
        let frame = self.publishers.iter().map(|p| p.next_frame).min();
        let guest = self.guests.iter().map(|guest| guest.party.next).min();
        [frame, guest, self.network.next(), self.shard.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn step(&mut self) {
        let now = self.now;
        for publisher in &mut self.publishers {
            if publisher.next_frame <= now {
                publisher.produce(now);
            }
        }
        while let Some(command) = self.inbox.try_recv() {
            let Self {
                shard,
                guests,
                network,
                ..
            } = self;
            let mut send = |outbox: &mut Outbox| {
                deliver(outbox, guests, network, now);
                now
            };
            shard.handle_sending(now, command, &mut send);
        }
        self.send_out();
        while let Some(InFlight {
            way, index, data, ..
        }) = self.network.pop_due(now)
        {
            if way == Way::FromViewer {
                let source = self.guests[index].party.address;
                self.shard.receive(now, source, self.server, &data);
            } else {
                self.guests[index].party.receive(now, self.server, &data);
                self.drain_guest(index);
            }
        }
        self.shard.handle_timeout(now);
        self.send_out();
        for index in 0..self.guests.len() {
            if self.guests[index].party.next <= now {
                self.drain_guest(index);
            }
        }
    }

    fn drain_guest(&mut self, index: usize) {
        let Guest { party, up, .. } = &mut self.guests[index];
        let (network, now) = (&mut self.network, self.now);
        party.drain(now, |data| {
            if let Some(at) = up.pass(now, data.len()) {
                network.send(at, Way::FromViewer, index, data);
            }
        });
    }

    fn send_out(&mut self) {
        let outbox = self.shard.outbox();
        deliver(outbox, &mut self.guests, &mut self.network, self.now);
    }
}

fn figures(session: SessionId, stream: &Arc<Stream>, preference: Preference) -> Arc<SessionShared> {
    let tag = "\"1\"".into();
    Arc::new(SessionShared::new(
        session,
        stream.clone(),
        0,
        tag,
        preference,
    ))
}

/// Puts what a shard sends on the peers' links.
fn deliver(outbox: &mut Outbox, guests: &mut [Guest], network: &mut Network, now: Instant) {
    let mut progress = Progress::default();
    for (datagrams, data) in outbox.iter() {
        let SocketAddr::V4(to) = datagrams.destination else {
            panic!("peers have IPv4 addresses");
        };
        let [_, _, hi, lo] = to.ip().octets();
        let index = usize::from(u16::from_be_bytes([hi, lo]));
        let guest = &mut guests[index];
        progress.sends += 1;
        if guest.party.address != datagrams.destination {
            // Who had its place before.
            continue;
        }
        for datagram in data.chunks(datagrams.segment) {
            if let Some(at) = guest.down.pass(now, datagram.len()) {
                network.send(at, Way::ToViewer, index, datagram);
            }
        }
    }
    outbox.forget(progress);
}
