// SPDX-License-Identifier: MPL-2.0

//! Many streams, and peers that get many of them each, over one transport: what rooms are made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use sfu_engine::queue::{ShardCommand, ShardInbox, ShardQueue};
use sfu_engine::session::SessionShared;
use sfu_engine::shard::{Outbox, PeerFeedback, Progress, Publication, PublicationId, Shard};
use sfu_engine::stats::Counters;
use sfu_engine::stream::{Stream, Viewing};
use sfu_engine::transport::PatchOutcome;
use sfu_engine::transport::negotiate::{
    self, AnswerTaken, Carried, CarriedOn, DuplexNegotiation, Identity, Negotiation, Offers,
    PublisherTrack,
};
use sfu_engine::transport::patch::Fragment;
use sfu_engine::{Preference, PublishOptions, SessionId, TrackKind};
use sfu_impair::{Conditions, Link, Rng};

use crate::net::{InFlight, Network, Way};
use crate::participant::Participant;
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
    /// Of a peer that is offered what it gets.
    offers: Option<Offers>,
}

/// A peer that publishes, and its links.
struct Publishing {
    participant: Participant,
    negotiation: Agreed,
    /// For each pair of a sound and pictures its stream, and whether it is published.
    published: Vec<(usize, bool)>,
    up: Link,
    down: Link,
}

pub(crate) struct Room {
    pub(crate) now: Instant,
    shard: Shard,
    queue: ShardQueue,
    inbox: ShardInbox,
    identity: Identity,
    server: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    /// What can be watched: the publishers' streams first, then those of participants.
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) publishers: Vec<TestPublisher>,
    participants: Vec<Publishing>,
    pub(crate) guests: Vec<Guest>,
    network: Network,
    rng: Rng,
    /// Peers that there ever were.
    joined: usize,
}

/// What was agreed on with a peer that publishes.
enum Agreed {
    Up(Negotiation),
    /// It is sent these tracks of the streams, too, each by its msid, and where each is carried.
    Both(DuplexNegotiation, Vec<Sent>),
}

/// A track that a peer which publishes is sent.
struct Sent {
    track: Carried,
    stream: usize,
    on: Option<CarriedOn>,
}

impl Room {
    /// With so many publishers of three layers and sound.
    pub(crate) fn new(seed: u64, publishers: usize) -> Self {
        let now = Instant::now();
        let (queue, inbox) = ShardQueue::new(None);
        let counters = Arc::new(Counters::default());
        let mut room = Self {
            now,
            shard: Shard::new(queue.clone(), counters.clone(), 64),
            queue,
            inbox,
            identity: Identity::generate().unwrap(),
            server: "192.0.2.1:8189".parse().unwrap(),
            counters,
            streams: Vec::new(),
            publishers: Vec::new(),
            participants: Vec::new(),
            guests: Vec::new(),
            network: Network::default(),
            rng: Rng::new(seed),
            joined: 0,
        };
        for index in 0..publishers {
            let stream = room.add_stream();
            // Not all at the same moment.
            let first = now + Duration::from_millis(index as u64 * 7 % 33);
            let mut publisher = TestPublisher::new(stream, first, 3);
            publisher.use_ladder();
            room.publishers.push(publisher);
        }
        room
    }

    fn add_stream(&mut self) -> Arc<Stream> {
        let index = self.streams.len();
        let name = format!("p{index}").parse().unwrap();
        let stream = Arc::new(Stream::new(name, index as u64 + 1));
        self.streams.push(stream.clone());
        stream
    }

    /// A peer publishes a sound and a camera of three layers as one stream, and maybe its screen and the sound of that as
    /// another one, all over one transport. Returns the streams.
    pub(crate) fn publish(&mut self, link: Conditions, screen: bool) -> Vec<usize> {
        let index = self.participants.len();
        let (participant, offer) = Participant::new(self.now, index, screen);
        let local = [self.server];
        let (transport, negotiation, answered) =
            negotiate::accept_tracks(&self.identity, &offer, &local, None, self.now).unwrap();
        let first = self.streams.len();
        self.participants.push(Publishing {
            participant,
            negotiation: Agreed::Up(negotiation),
            published: Vec::new(),
            up: Link::new(link, self.rng.next_u64()),
            down: Link::new(link, self.rng.next_u64()),
        });
        let publications = self.publications(index, &answered.tracks);
        let participant = &mut self.participants[index].participant;
        let of = &self.streams[first];
        let command = ShardCommand::Publish {
            publications,
            transport: Box::new(transport),
            session: figures(participant.session, of, Preference::default()),
            timeout: Duration::from_secs(5),
            max_bitrate: None,
        };
        participant.accept(&answered.sdp);
        self.shard.handle(self.now, command);
        (first..self.streams.len()).collect()
    }

    /// What a participant publishes: each pair of a sound and pictures, of which there may be one alone, under its own name.
    fn publications(&mut self, index: usize, tracks: &[PublisherTrack]) -> Vec<Publication> {
        let mut publications = Vec::new();
        for (pair, mids) in self.participants[index]
            .participant
            .pairs()
            .iter()
            .enumerate()
        {
            if self.participants[index].published.len() == pair {
                self.add_stream();
                let stream = self.streams.len() - 1;
                self.participants[index].published.push((stream, false));
            }
            let publishing = &mut self.participants[index];
            let tracks = tracks.iter().filter(|t| mids.contains(&t.mid));
            let tracks: Vec<_> = tracks.cloned().collect();
            let (stream, was_published) = publishing.published[pair];
            publishing.published[pair].1 = !tracks.is_empty();
            if tracks.is_empty() {
                continue;
            }
            let publication = PublicationId(pair as u32);
            let options = PublishOptions {
                keyframe_min_interval: Duration::from_millis(500),
                feedback: Arc::new(PeerFeedback {
                    queue: self.queue.clone(),
                    session: publishing.participant.session,
                    publication,
                    input: "room",
                }),
            };
            let stream = &self.streams[stream];
            let claim = (!was_published)
                .then(|| stream.claim(options, false, self.now).expect("it is free"));
            publications.push(Publication::new(publication, claim, &tracks));
        }
        publications
    }

    /// A participant makes another offer.
    pub(crate) fn renegotiate(
        &mut self,
        index: usize,
        offer: impl FnOnce(&mut Participant) -> String,
    ) {
        let publishing = &mut self.participants[index];
        let session = publishing.participant.session;
        let offer = offer(&mut publishing.participant);
        let Agreed::Up(negotiation) = &mut publishing.negotiation else {
            panic!("it is sent something, too");
        };
        let (changed, answered) = negotiation.answer(&offer).unwrap();
        publishing.participant.accept(&answered.sdp);
        let publications = self.publications(index, &answered.tracks);
        let command = ShardCommand::Republish {
            session,
            tracks: changed.tracks,
            publications,
        };
        self.shard.handle(self.now, command);
        if let Some(fragment) = changed.restart {
            self.patch(session, fragment);
        }
        self.send_out();
        self.drain_participant(index);
    }

    /// A peer comes with so many m-lines of each kind on which it receives, and nothing to publish so far.
    pub(crate) fn converse(&mut self, link: Conditions, lines: usize) -> usize {
        let index = self.participants.len();
        let (mut participant, offer) = Participant::watching(self.now, index, lines);
        let local = [self.server];
        let (transport, negotiation, answered) =
            negotiate::accept_both(&self.identity, &offer, &[], &local, None, None, self.now)
                .unwrap();
        participant.accept(&answered.sdp);
        let own = Arc::new(Stream::new("own".parse().unwrap(), 0));
        let command = ShardCommand::Converse {
            publications: Vec::new(),
            transport: Box::new(transport),
            session: figures(participant.session, &own, Preference::default()),
            timeout: Duration::from_secs(5),
            max_bitrate: None,
        };
        self.participants.push(Publishing {
            participant,
            negotiation: Agreed::Both(negotiation, Vec::new()),
            published: Vec::new(),
            up: Link::new(link, self.rng.next_u64()),
            down: Link::new(link, self.rng.next_u64()),
        });
        self.shard.handle(self.now, command);
        self.send_out();
        self.drain_participant(index);
        index
    }

    /// Such a peer is to be sent a track of a stream, as this name says, or that no more: with its next offer.
    pub(crate) fn send(&mut self, index: usize, kind: TrackKind, stream: usize, name: &str) {
        self.sent(index).push(Sent {
            track: Carried {
                kind,
                msid: format!("PA_{stream} {name}"),
            },
            stream,
            on: None,
        });
    }

    pub(crate) fn send_no_more(&mut self, index: usize, name: &str) {
        let sent = self.sent(index);
        let is_it = |sent: &Sent| sent.track.msid.ends_with(&format!(" {name}"));
        let at = sent.iter().position(is_it).unwrap();
        let on = sent.remove(at).on;
        if let Some(on) = on {
            self.put(index, on.place, None);
        }
    }

    fn sent(&mut self, index: usize) -> &mut Vec<Sent> {
        match &mut self.participants[index].negotiation {
            Agreed::Both(_, sent) => sent,
            Agreed::Up(_) => panic!("it only publishes"),
        }
    }

    /// The m-line, among those on which it receives, of each track that such a peer is sent.
    pub(crate) fn carried(&mut self, index: usize) -> Vec<Option<usize>> {
        let on: Vec<_> = self
            .sent(index)
            .iter()
            .map(|sent| sent.on.clone())
            .collect();
        let received = &self.participants[index].participant.received;
        let lines = on.iter().map(|on| Some(received.line(&on.as_ref()?.mid)));
        lines.collect()
    }

    /// Such a peer makes another offer.
    pub(crate) fn converse_again(
        &mut self,
        index: usize,
        offer: impl FnOnce(&mut Participant) -> String,
    ) {
        let publishing = &mut self.participants[index];
        let session = publishing.participant.session;
        let offer = offer(&mut publishing.participant);
        let Agreed::Both(negotiation, sent) = &mut publishing.negotiation else {
            panic!("it only publishes");
        };
        let wanted: Vec<_> = sent.iter().map(|sent| sent.track.clone()).collect();
        let (changed, answered) = negotiation.answer(&offer, &wanted).unwrap();
        publishing.participant.accept(&answered.sdp);
        let mut new = Vec::new();
        for (sent, on) in sent.iter_mut().zip(answered.carried) {
            if sent.on.is_none()
                && let Some(on) = &on
            {
                new.push((on.place, sent.stream));
            }
            sent.on = on;
        }
        let publications = self.publications(index, &answered.tracks);
        let commands = [
            ShardCommand::Republish {
                session,
                tracks: changed.tracks,
                publications,
            },
            ShardCommand::Slots {
                session,
                slots: changed.slots,
            },
        ];
        for command in commands {
            self.shard.handle(self.now, command);
        }
        if let Some(fragment) = changed.restart {
            self.patch(session, fragment);
        }
        for (place, stream) in new {
            self.put(index, place, Some(stream));
        }
        self.send_out();
        self.drain_participant(index);
    }

    fn put(&mut self, index: usize, place: usize, stream: Option<usize>) {
        let session = self.participants[index].participant.session;
        let stream = stream.map(|stream| self.streams[stream].clone());
        let of = stream.clone().unwrap_or(self.streams[0].clone());
        let command = ShardCommand::Watch {
            session,
            place,
            stream: stream.map(Viewing::new),
            figures: figures(session, &of, Preference::default()),
        };
        self.shard.handle(self.now, command);
        self.send_out();
    }

    pub(crate) fn participant(&mut self, index: usize) -> &mut Participant {
        &mut self.participants[index].participant
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
        let first = self.streams[stream].clone();
        let session = figures(party.session, &first, Preference::default());
        let command = ShardCommand::Subscribe {
            stream: Some(Viewing::new(first)),
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
            offers: None,
        }
    }

    /// A peer joins that is offered streams: m-lines for pictures and sound of each.
    pub(crate) fn invite(&mut self, link: Conditions, streams: &[usize]) -> usize {
        let index = self.guests.len();
        self.joined += 1;
        let mut party = Party::invited(self.now, index, self.joined);
        let mut offers = Offers::new(&self.identity, &[self.server], None, None).unwrap();
        let lines = streams.iter().flat_map(|stream| add(&mut offers, *stream));
        let lines: Vec<_> = lines.collect();
        let answer = party.answer(&offers.offer().unwrap());
        let AnswerTaken::Begun(transport) = offers.answered(&answer, self.now).unwrap() else {
            panic!("the first answer begins the session");
        };
        let first = &self.streams[streams[0]];
        let session = figures(party.session, first, Preference::default());
        self.guests.push(Guest {
            party,
            down: Link::new(link, self.rng.next_u64()),
            up: Link::new(Conditions { rate: None, ..link }, self.rng.next_u64()),
            session: session.clone(),
            places: vec![None; lines.len()],
            offers: Some(offers),
        });
        let command = ShardCommand::Subscribe {
            stream: None,
            transport,
            session,
        };
        self.shard.handle(self.now, command);
        for (at, line) in lines.into_iter().enumerate() {
            self.carry(index, line, Some(streams[at / 2]));
        }
        self.drain_guest(index);
        index
    }

    /// A peer that was invited is offered something else.
    pub(crate) fn offer(&mut self, index: usize, change: impl FnOnce(&mut Offers)) {
        let guest = &mut self.guests[index];
        let offers = guest.offers.as_mut().unwrap();
        change(offers);
        let answer = guest.party.answer(&offers.offer().unwrap());
        let AnswerTaken::Changed { slots, restart } = offers.answered(&answer, self.now).unwrap()
        else {
            panic!("the session has begun");
        };
        let session = guest.party.session;
        self.shard
            .handle(self.now, ShardCommand::Slots { session, slots });
        if let Some(fragment) = restart {
            self.patch(session, fragment);
        }
        self.send_out();
        self.drain_guest(index);
    }

    /// A peer that was invited gets one more stream. Returns its m-lines.
    pub(crate) fn subscribe(&mut self, index: usize, stream: usize) -> [usize; 2] {
        let mut lines = [0; 2];
        self.offer(index, |offers| lines = add(offers, stream));
        for line in lines {
            self.carry(index, line, Some(stream));
        }
        lines
    }

    /// A peer that was invited gets a stream no more.
    pub(crate) fn unsubscribe(&mut self, index: usize, lines: [usize; 2]) {
        for line in lines {
            self.carry(index, line, None);
        }
        self.offer(index, |offers| {
            for line in lines {
                offers.remove(line);
            }
        });
    }

    /// An m-line of a peer that was invited carries something else.
    pub(crate) fn carry(&mut self, index: usize, line: usize, stream: Option<usize>) {
        let guest = &mut self.guests[index];
        let place = guest.offers.as_ref().unwrap().place(line).unwrap();
        if guest.places.len() <= place {
            guest.places.resize(place + 1, None);
        }
        self.watch(index, place, stream);
    }

    fn patch(&mut self, session: SessionId, fragment: Fragment) {
        let (reply, outcome) = sync_channel(1);
        let command = ShardCommand::Patch {
            session,
            fragment,
            reply,
        };
        self.shard.handle(self.now, command);
        let outcome = outcome.try_recv().unwrap().unwrap();
        assert!(matches!(outcome, Ok(PatchOutcome::Restarted { .. })));
    }

    /// A peer's m-lines with this place carry something else from now on.
    pub(crate) fn watch(&mut self, guest: usize, place: usize, stream: Option<usize>) {
        self.watch_with(guest, place, stream, Preference::default());
    }

    pub(crate) fn watch_with(
        &mut self,
        guest: usize,
        place: usize,
        watched: Option<usize>,
        preference: Preference,
    ) {
        let session = self.guests[guest].party.session;
        let stream = watched.map(|stream| self.streams[stream].clone());
        let of = stream.clone().unwrap_or(self.streams[0].clone());
        let figures = figures(session, &of, preference);
        self.guests[guest].places[place] = watched.map(|stream| (stream, figures.clone()));
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
        let frame = self
            .publishers
            .iter()
            .map(|p| p.next_late().map_or(p.next_frame, |l| l.min(p.next_frame)))
            .min();
        let guest = self.guests.iter().map(|guest| guest.party.next).min();
        let participant = self.participants.iter().map(|p| p.participant.next).min();
        let network = self.network.next();
        [
            frame,
            guest,
            participant,
            network,
            self.shard.poll_timeout(),
        ]
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
            if publisher.next_late().is_some_and(|at| at <= now) {
                publisher.produce_late(now);
            }
        }
        while let Some(command) = self.inbox.try_recv() {
            let Self {
                shard,
                guests,
                participants,
                network,
                ..
            } = self;
            let mut send = |outbox: &mut Outbox| {
                deliver(outbox, guests, participants, network, now);
                now
            };
            shard.handle_sending(now, command, &mut send);
        }
        self.send_out();
        while let Some(InFlight {
            way, index, data, ..
        }) = self.network.pop_due(now)
        {
            match way {
                Way::FromViewer => {
                    let source = self.guests[index].party.address;
                    self.shard.receive(now, source, self.server, &data);
                }
                Way::ToViewer => {
                    self.guests[index].party.receive(now, self.server, &data);
                    self.drain_guest(index);
                }
                Way::FromPeer => {
                    let source = self.participants[index].participant.address;
                    self.shard.receive(now, source, self.server, &data);
                }
                Way::ToPeer => {
                    let participant = &mut self.participants[index].participant;
                    participant.receive(now, self.server, &data);
                    self.drain_participant(index);
                }
            }
        }
        self.shard.handle_timeout(now);
        self.send_out();
        for index in 0..self.guests.len() {
            if self.guests[index].party.next <= now {
                self.drain_guest(index);
            }
        }
        for index in 0..self.participants.len() {
            if self.participants[index].participant.next <= now {
                self.drain_participant(index);
            }
        }
    }

    fn drain_participant(&mut self, index: usize) {
        let publishing = &mut self.participants[index];
        let (network, now) = (&mut self.network, self.now);
        publishing.participant.drain(now, |data| {
            if let Some(at) = publishing.up.pass(now, data.len()) {
                network.send(at, Way::FromPeer, index, data);
            }
        });
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
        let (guests, participants) = (&mut self.guests, &mut self.participants);
        deliver(outbox, guests, participants, &mut self.network, self.now);
    }
}

/// Offers a stream's pictures and sound.
fn add(offers: &mut Offers, stream: usize) -> [usize; 2] {
    let kinds = [TrackKind::Video, TrackKind::Audio];
    kinds.map(|kind| {
        let msid = format!("PA_{stream} TR_{stream}{kind:?}");
        offers.add(kind, &msid).unwrap()
    })
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
fn deliver(
    outbox: &mut Outbox,
    guests: &mut [Guest],
    participants: &mut [Publishing],
    network: &mut Network,
    now: Instant,
) {
    let mut progress = Progress::default();
    for (datagrams, data) in outbox.iter() {
        let SocketAddr::V4(to) = datagrams.destination else {
            panic!("peers have IPv4 addresses");
        };
        let [_, kind, hi, lo] = to.ip().octets();
        let index = usize::from(u16::from_be_bytes([hi, lo]));
        progress.sends += 1;
        if kind == 1 {
            for datagram in data.chunks(datagrams.segment) {
                if let Some(at) = participants[index].down.pass(now, datagram.len()) {
                    network.send(at, Way::ToPeer, index, datagram);
                }
            }
            continue;
        }
        let guest = &mut guests[index];
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
