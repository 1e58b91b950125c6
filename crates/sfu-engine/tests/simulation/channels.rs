// SPDX-License-Identifier: MPL-2.0

//! Data channels of peers (`str0m`) with the engine, over ICE and DTLS and a network that loses packets: from an offer of these
//! alone on, while tracks come and go, whoever offers and whoever begins DTLS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sfu_engine::data::{
    ChannelConfig, ChannelId, DataCommand, DataEnd, DataObserver, Message, Reliability,
};
use sfu_engine::queue::{ShardCommand, ShardQueue};
use sfu_engine::session::SessionShared;
use sfu_engine::shard::{Progress, Shard};
use sfu_engine::stats::Counters;
use sfu_engine::stream::Stream;
use sfu_engine::transport::negotiate::{self, AnswerTaken, Identity, Negotiation, Offers};
use sfu_engine::{Preference, SessionId, TrackKind};
use sfu_impair::{Conditions, Link};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// What the application is told.
#[derive(Debug, Default)]
struct Ears(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    open: Vec<(ChannelId, ChannelConfig)>,
    messages: Vec<(ChannelId, Message)>,
    closed: Vec<ChannelId>,
    ended: Option<DataEnd>,
}

impl Ears {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap()
    }
}

impl DataObserver for Ears {
    fn opened(&self, channel: ChannelId, config: &ChannelConfig) {
        self.heard().open.push((channel, config.clone()));
    }

    fn message(&self, channel: ChannelId, message: &Message) -> bool {
        self.heard().messages.push((channel, message.clone()));
        true
    }

    fn closed(&self, channel: ChannelId) {
        self.heard().closed.push(channel);
    }

    fn ended(&self, why: DataEnd) {
        self.heard().ended = Some(why);
    }
}

/// How the engine and the peer came together.
enum Talk {
    /// The peer offers.
    Peer(Negotiation),
    Ours(Offers),
}

struct Peer {
    now: Instant,
    shard: Shard,
    server: SocketAddr,
    address: SocketAddr,
    session: SessionId,
    ears: Arc<Ears>,
    talk: Option<Talk>,
    rtc: Rtc,
    next: Instant,
    connected: bool,
    open: Vec<(str0m::channel::ChannelId, String)>,
    got: Vec<(str0m::channel::ChannelId, bool, Vec<u8>)>,
    /// To the server, and from it.
    links: [Link; 2],
    under_way: [VecDeque<(Instant, Vec<u8>)>; 2],
}

const SECOND: Duration = Duration::from_secs(1);

impl Peer {
    fn new(loss: f64, seed: u64) -> Self {
        let now = Instant::now();
        let (queue, _inbox) = ShardQueue::new(None);
        let address: SocketAddr = "10.0.0.7:4000".parse().unwrap();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let conditions = Conditions {
            loss,
            delay: Duration::from_millis(15),
            ..Conditions::default()
        };
        Self {
            now,
            shard: Shard::new(queue, Arc::new(Counters::default()), 64),
            server: "192.0.2.1:8189".parse().unwrap(),
            address,
            session: SessionId::from_bits(7),
            ears: Arc::default(),
            talk: None,
            rtc,
            next: now,
            connected: false,
            open: Vec::new(),
            got: Vec::new(),
            links: [seed, seed + 1].map(|seed| Link::new(conditions, seed)),
            under_way: Default::default(),
        }
    }

    fn figures(&self) -> Arc<SessionShared> {
        let stream = Arc::new(Stream::new("test".parse().unwrap(), 1));
        let preference = Preference::default();
        let session = SessionShared::new(self.session, stream, 0, "\"1\"".into(), preference);
        Arc::new(session)
    }

    /// The peer offers channels with these labels, and nothing else.
    fn offers(&mut self, labels: &[&str], setup: &str) {
        let mut api = self.rtc.sdp_api();
        for label in labels {
            api.add_channel((*label).to_owned());
        }
        let (offer, pending) = api.apply().unwrap();
        let offer = offer.to_sdp_string().replace("a=setup:actpass", setup);
        assert_eq!(offer.matches("m=").count(), 1, "{offer}");
        let identity = Identity::generate().unwrap();
        let data: Arc<dyn DataObserver> = self.ears.clone();
        let local = [self.server];
        let (transport, negotiation, answered) =
            negotiate::accept_tracks(&identity, &offer, &local, Some(data), self.now).unwrap();
        assert!(answered.tracks.is_empty());
        let answer = SdpAnswer::from_sdp_string(&answered.sdp).unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        let command = ShardCommand::Publish {
            publications: Vec::new(),
            transport: Box::new(transport),
            session: self.figures(),
            timeout: Duration::from_secs(15),
            max_bitrate: None,
        };
        self.shard.handle(self.now, command);
        self.talk = Some(Talk::Peer(negotiation));
    }

    /// We offer channels, and nothing else.
    fn is_offered(&mut self) {
        let identity = Identity::generate().unwrap();
        let data: Arc<dyn DataObserver> = self.ears.clone();
        let mut offers = Offers::new(&identity, &[self.server], None, Some(data)).unwrap();
        let answer = self.answer(&offers.offer().unwrap());
        let AnswerTaken::Begun(transport) = offers.answered(&answer, self.now).unwrap() else {
            panic!("the first answer begins the session");
        };
        let command = ShardCommand::Subscribe {
            stream: None,
            transport,
            session: self.figures(),
        };
        self.shard.handle(self.now, command);
        self.talk = Some(Talk::Ours(offers));
    }

    fn answer(&mut self, offer: &str) -> String {
        let offer = SdpOffer::from_sdp_string(offer).unwrap();
        self.rtc
            .sdp_api()
            .accept_offer(offer)
            .unwrap()
            .to_sdp_string()
    }

    /// Another offer, of a track more.
    fn renegotiate(&mut self, round: usize) {
        let kind = [TrackKind::Audio, TrackKind::Video][round % 2];
        let session = self.session;
        let command = match self.talk.take().unwrap() {
            Talk::Peer(mut negotiation) => {
                let mut api = self.rtc.sdp_api();
                let media = match kind {
                    TrackKind::Audio => MediaKind::Audio,
                    TrackKind::Video => MediaKind::Video,
                };
                // There are 16 at most.
                let direction = match round < 16 {
                    true => Direction::SendOnly,
                    false => Direction::Inactive,
                };
                api.add_media(media, direction, None, None, None);
                let (offer, pending) = api.apply().unwrap();
                let (changed, answered) = negotiation.answer(&offer.to_sdp_string()).unwrap();
                let answer = SdpAnswer::from_sdp_string(&answered.sdp).unwrap();
                self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
                self.talk = Some(Talk::Peer(negotiation));
                ShardCommand::Republish {
                    session,
                    tracks: changed.tracks,
                    publications: Vec::new(),
                }
            }
            Talk::Ours(mut offers) => {
                // Line 0 is for the channels.
                let line = offers.add(kind, &format!("PA_{round} TR_{round}")).unwrap();
                assert!(line > 0);
                if round % 3 == 2 {
                    offers.remove(line);
                }
                let answer = self.answer(&offers.offer().unwrap());
                let taken = offers.answered(&answer, self.now).unwrap();
                let AnswerTaken::Changed { slots, .. } = taken else {
                    panic!("the session has begun");
                };
                self.talk = Some(Talk::Ours(offers));
                ShardCommand::Slots { session, slots }
            }
        };
        self.shard.handle(self.now, command);
        self.send_out();
        self.drain();
    }

    fn command(&mut self, command: DataCommand) {
        let session = self.session;
        self.shard
            .handle(self.now, ShardCommand::Data { session, command });
        self.send_out();
    }

    fn say(&mut self, channel: ChannelId, text: bool, data: &[u8]) {
        let data = data.into();
        let message = Message { text, data };
        self.command(DataCommand::Send { channel, message });
    }

    fn send_out(&mut self) {
        let Self {
            shard,
            links,
            under_way,
            now,
            ..
        } = self;
        let outbox = shard.outbox();
        let mut progress = Progress::default();
        for (datagrams, data) in outbox.iter() {
            progress.sends += 1;
            for datagram in data.chunks(datagrams.segment) {
                assert!(datagram.len() <= 1_232, "{} octets", datagram.len());
                if let Some(at) = links[1].pass(*now, datagram.len()) {
                    under_way[1].push_back((at, datagram.to_vec()));
                }
            }
        }
        outbox.forget(progress);
    }

    fn drain(&mut self) {
        let now = self.now;
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.next = at.max(now + Duration::from_millis(1));
                    return;
                }
                Output::Transmit(datagram) => {
                    if let Some(at) = self.links[0].pass(now, datagram.contents.len()) {
                        self.under_way[0].push_back((at, datagram.contents.to_vec()));
                    }
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::ChannelOpen(id, label)) => self.open.push((id, label)),
                Output::Event(Event::ChannelData(data)) => {
                    self.got.push((data.id, data.binary, data.data));
                }
                Output::Event(_) => {}
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.send_out();
        self.drain();
        loop {
            let arrivals = self.under_way.iter();
            let arrivals = arrivals.filter_map(|way| way.front().map(|(at, _)| *at));
            let due = [Some(self.next), self.shard.poll_timeout()];
            let next = arrivals.chain(due.into_iter().flatten()).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(data) = arrived(&mut self.under_way[0], now) {
                self.shard.receive(now, self.address, self.server, &data);
            }
            while let Some(data) = arrived(&mut self.under_way[1], now) {
                let receive =
                    Receive::new(Protocol::Udp, self.server, self.address, &data).unwrap();
                self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
                self.drain();
            }
            self.shard.handle_timeout(now);
            self.send_out();
            if self.next <= now {
                self.drain();
            }
        }
        self.now = end;
    }

    /// Runs until this is so.
    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        for _ in 0..600 {
            if is_so(self) {
                return;
            }
            self.run_for(SECOND / 10);
        }
        panic!("{what}: {:?}", self.ears.heard());
    }
}

fn arrived(way: &mut VecDeque<(Instant, Vec<u8>)>, now: Instant) -> Option<Vec<u8>> {
    way.front().filter(|(at, _)| *at <= now)?;
    way.pop_front().map(|(_, data)| data)
}

/// A hundred negotiations and a thousand messages each way on each channel, while packets are lost.
fn talks(peer: &mut Peer) {
    peer.wait("three channels", |p| {
        p.open.len() == 3 && p.ears.heard().open.len() == 3
    });
    let ours: Vec<_> = peer.ears.heard().open.clone();
    let theirs = peer.open.clone();
    for n in 0..1_000_u32 {
        if n.is_multiple_of(10) {
            peer.renegotiate(n as usize / 10);
        }
        for (id, _) in &ours {
            peer.say(*id, n.is_multiple_of(2), &n.to_be_bytes());
        }
        for (id, _) in &theirs {
            let written = peer.rtc.channel(*id).unwrap().write(true, &n.to_be_bytes());
            assert!(written.unwrap());
        }
        peer.run_for(SECOND / 50);
    }
    peer.run_for(10 * SECOND);
    assert_eq!(peer.ears.heard().ended, None);
    for (id, config) in &ours {
        let (their, _) = theirs.iter().find(|(_, l)| *l == config.label).unwrap();
        let number = |data: &[u8]| u32::from_be_bytes(data.try_into().unwrap());
        let heard = peer.ears.heard();
        let up = heard.messages.iter().filter(|(of, _)| of == id);
        let up: Vec<_> = up.map(|(_, m)| number(&m.data)).collect();
        let down = peer.got.iter().filter(|(of, ..)| of == their);
        let down: Vec<_> = down.map(|(_, _, data)| number(data)).collect();
        for (way, mut got) in [("up", up), ("down", down)] {
            println!("{} {way}: {}", config.label, got.len());
            if config.reliability == Reliability::Reliable {
                assert!(got.iter().copied().eq(0..1_000), "{} {way}", config.label);
            } else {
                let all = got.len();
                got.sort_unstable();
                got.dedup();
                assert_eq!(got.len(), all, "twice");
                assert!((900..1_000).contains(&all), "{} {way}: {all}", config.label);
            }
        }
    }
}

fn three() -> [ChannelConfig; 3] {
    let lossy = ChannelConfig {
        ordered: false,
        reliability: Reliability::Retransmits(0),
        ..ChannelConfig::default()
    };
    let named = |label: &str, of: &ChannelConfig| ChannelConfig {
        label: label.into(),
        ..of.clone()
    };
    [
        named("_reliable", &ChannelConfig::default()),
        named("_lossy", &lossy),
        named("_data_track", &lossy),
    ]
}

#[test]
fn a_peer_that_offers_channels_alone_is_answered_and_adds_tracks_later() {
    for setup in ["a=setup:actpass", "a=setup:passive"] {
        let mut peer = Peer::new(0.02, 11);
        peer.offers(&["chat"], setup);
        peer.wait("connected", |p| p.connected && p.open.len() == 1);
        for config in three() {
            peer.command(DataCommand::Open(config));
        }
        peer.wait("ours, too", |p| p.open.len() == 4);
        // The peer's own is as good as ours.
        let heard = peer.ears.heard().open.clone();
        let chat = heard.iter().find(|(_, c)| c.label == "chat").unwrap().0;
        let parity = u16::from(setup != "a=setup:passive");
        assert!(
            heard
                .iter()
                .all(|(id, _)| *id == chat || id.0 % 2 == parity)
        );
        peer.say(chat, true, "hello".as_bytes());
        peer.wait("a message", |p| p.got.iter().any(|(_, _, d)| d == b"hello"));
        peer.command(DataCommand::Close(chat));
        peer.wait("closed", |p| p.ears.heard().closed == [chat]);
        peer.ears.heard().open.retain(|(id, _)| *id != chat);
        peer.open.retain(|(_, label)| label != "chat");
        peer.got.clear();
        talks(&mut peer);
    }
}

#[test]
fn a_peer_that_is_offered_channels_alone_gets_tracks_later() {
    let mut peer = Peer::new(0.02, 12);
    peer.is_offered();
    for config in three() {
        peer.command(DataCommand::Open(config));
    }
    peer.wait("connected", |p| p.connected);
    talks(&mut peer);
    let ids = peer
        .ears
        .heard()
        .open
        .iter()
        .map(|(id, c)| (id.0, c.label.clone()))
        .collect::<Vec<_>>();
    // The peer has us begin DTLS.
    let expected = [(0, "_reliable"), (2, "_lossy"), (4, "_data_track")];
    assert!(
        ids.iter().map(|(id, l)| (*id, l.as_str())).eq(expected),
        "{ids:?}"
    );
}
