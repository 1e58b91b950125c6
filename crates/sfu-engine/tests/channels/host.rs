// SPDX-License-Identifier: MPL-2.0

//! A shard on a socket, with a session that a peer offers and one that it is offered. On the former everything that comes goes back;
//! on the latter we speak, and everything comes back.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
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
use sfu_engine::{Preference, SessionId};
use sfu_impair::{Conditions, Link};

/// The session that the peer offers, and the other one.
const OFFERED: u128 = 1;
const OURS: u128 = 2;

/// What a session was told since the last look.
#[derive(Debug, Default)]
struct Ears(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    open: Vec<(ChannelId, ChannelConfig)>,
    closed: Vec<ChannelId>,
    messages: VecDeque<(ChannelId, Message)>,
    ended: Option<DataEnd>,
}

impl Ears {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }
}

impl DataObserver for Ears {
    fn opened(&self, channel: ChannelId, config: &ChannelConfig) {
        self.told().open.push((channel, config.clone()));
    }

    fn message(&self, channel: ChannelId, message: &Message) -> bool {
        let mut told = self.told();
        // Now and then there is no room.
        let has_room = told.messages.len() < 200;
        if has_room {
            told.messages.push_back((channel, message.clone()));
        }
        has_room
    }

    fn closed(&self, channel: ChannelId) {
        self.told().closed.push(channel);
    }

    fn ended(&self, why: DataEnd) {
        self.told().ended = Some(why);
    }
}

/// What a channel promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    reliable: bool,
    ordered: bool,
    is_timed: bool,
}

impl Way {
    pub(crate) fn of(label: &str) -> Self {
        Self {
            reliable: matches!(label, "reliable" | "unordered" | "agreed" | "_reliable"),
            ordered: matches!(label, "reliable" | "agreed" | "thrice" | "_reliable"),
            is_timed: label == "timed",
        }
    }

    /// Whether what came there and back, of numbered messages, is what it promises.
    pub(crate) fn check(self, what: &str, got: &[u64], sent: u64) {
        let mut sorted = got.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        println!("{what}: {} of {sent}", got.len());
        assert_eq!(sorted.len(), got.len(), "{what}: twice");
        assert!(!self.ordered || sorted == got, "{what}: not in order");
        if self.reliable {
            assert!(
                sorted.iter().copied().eq(0..sent),
                "{what}: {} of {sent}",
                got.len()
            );
        } else {
            // Large ones are of many packets, each of which may be lost, queues on both sides are bounded, and on a busy machine
            // time passes.
            let least = if self.is_timed { sent / 20 } else { sent / 2 };
            let count = got.len() as u64;
            assert!(count > least, "{what}: {count} of {sent}");
        }
    }
}

pub(crate) struct Host {
    shard: Shard,
    socket: UdpSocket,
    address: SocketAddr,
    identity: Identity,
    ears: [Arc<Ears>; 2],
    negotiation: Option<Negotiation>,
    offers: Option<Offers>,
    /// From peers, and to them.
    links: [Link; 2],
    under_way: [VecDeque<(Instant, SocketAddr, Vec<u8>)>; 2],
    spoken: u64,
    speak_at: Instant,
    /// Numbers that came back on our channels, and when the last one did.
    back: Vec<(ChannelId, u64)>,
    heard_at: Instant,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field(
                "ears",
                &self
                    .ears
                    .each_ref()
                    .map(|ears| format!("{:?}", ears.told().open)),
            )
            .field("ended", &self.ears.each_ref().map(|ears| ears.told().ended))
            .field("spoken", &self.spoken)
            .field("back", &self.back.len())
            .finish_non_exhaustive()
    }
}

fn figures(id: u128) -> Arc<SessionShared> {
    let stream = Arc::new(Stream::new("test".parse().unwrap(), 1));
    let id = SessionId::from_bits(id);
    let session = SessionShared::new(id, stream, 0, "\"1\"".into(), Preference::default());
    Arc::new(session)
}

impl Host {
    pub(crate) fn new(loss: f64, seed: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let (queue, _inbox) = ShardQueue::new(None);
        let conditions = Conditions {
            loss,
            delay: Duration::from_millis(5),
            ..Conditions::default()
        };
        Self {
            shard: Shard::new(queue, Arc::new(Counters::default()), 64),
            socket,
            address,
            identity: Identity::generate().unwrap(),
            ears: Default::default(),
            negotiation: None,
            offers: None,
            links: [seed, seed + 1].map(|seed| Link::new(conditions, seed)),
            under_way: Default::default(),
            spoken: 0,
            speak_at: Instant::now(),
            back: Vec::new(),
            heard_at: Instant::now(),
        }
    }

    /// Answers the peer's offer.
    pub(crate) fn answer(&mut self, offer: &str) -> Result<String, String> {
        let now = Instant::now();
        let session = SessionId::from_bits(OFFERED);
        let (command, sdp) = match &mut self.negotiation {
            Some(negotiation) => {
                let (changed, answered) = negotiation.answer(offer).map_err(|e| e.to_string())?;
                let command = ShardCommand::Republish {
                    session,
                    tracks: changed.tracks,
                    publications: Vec::new(),
                };
                (command, answered.sdp)
            }
            none => {
                let data: Arc<dyn DataObserver> = self.ears[0].clone();
                let local = [self.address];
                let accepted =
                    negotiate::accept_tracks(&self.identity, offer, &local, Some(data), now);
                let (transport, negotiation, answered) = accepted.map_err(|e| e.to_string())?;
                *none = Some(negotiation);
                let command = ShardCommand::Publish {
                    publications: Vec::new(),
                    transport: Box::new(transport),
                    session: figures(OFFERED),
                    timeout: Duration::from_secs(30),
                    max_bitrate: None,
                };
                (command, answered.sdp)
            }
        };
        let is_first = matches!(command, ShardCommand::Publish { .. });
        self.shard.handle(now, command);
        if is_first {
            self.open(
                OFFERED,
                ChannelConfig {
                    label: "agreed".into(),
                    negotiated: Some(ChannelId(100)),
                    ..ChannelConfig::default()
                },
            );
        }
        Ok(sdp)
    }

    fn command(&mut self, session: u128, command: DataCommand) {
        let session = SessionId::from_bits(session);
        let now = Instant::now();
        self.shard
            .handle(now, ShardCommand::Data { session, command });
    }

    fn open(&mut self, session: u128, config: ChannelConfig) {
        self.command(session, DataCommand::Open(config));
    }

    /// Our first offer, of channels alone.
    pub(crate) fn offer(&mut self) -> String {
        let data: Arc<dyn DataObserver> = self.ears[1].clone();
        let offers = Offers::new(&self.identity, &[self.address], None, Some(data));
        self.offers.insert(offers.unwrap()).offer().unwrap()
    }

    /// The answer to that.
    pub(crate) fn take(&mut self, answer: &str) {
        let now = Instant::now();
        let taken = self.offers.as_mut().unwrap().answered(answer, now);
        let AnswerTaken::Begun(transport) = taken.unwrap() else {
            panic!("there was one offer");
        };
        let command = ShardCommand::Subscribe {
            stream: None,
            transport,
            session: figures(OURS),
        };
        self.shard.handle(now, command);
        let lossy = ChannelConfig {
            ordered: false,
            reliability: Reliability::Retransmits(0),
            ..ChannelConfig::default()
        };
        for (label, kind) in [
            ("_reliable", ChannelConfig::default()),
            ("_lossy", lossy.clone()),
            ("_data_track", lossy),
        ] {
            let label = label.into();
            self.open(OURS, ChannelConfig { label, ..kind });
        }
    }

    /// Takes in what has come, and puts out what is due; about a millisecond.
    pub(crate) fn run(&mut self) {
        let mut buffer = [0; 2_000];
        for _ in 0..64 {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else {
                break;
            };
            let now = Instant::now();
            if let Some(at) = self.links[0].pass(now, length) {
                self.under_way[0].push_back((at, from, buffer[..length].to_vec()));
            }
        }
        let now = Instant::now();
        while self.under_way[0].front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, from, data)) = self.under_way[0].pop_front() {
                self.shard.receive(now, from, self.address, &data);
            }
        }
        self.shard.handle_timeout(now);
        self.send_back();
        let outbox = self.shard.outbox();
        let mut progress = Progress::default();
        for (datagrams, data) in outbox.iter() {
            progress.sends += 1;
            for datagram in data.chunks(datagrams.segment) {
                if let Some(at) = self.links[1].pass(now, datagram.len()) {
                    let way = &mut self.under_way[1];
                    way.push_back((at, datagrams.destination, datagram.to_vec()));
                }
            }
        }
        outbox.forget(progress);
        while self.under_way[1].front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, to, data)) = self.under_way[1].pop_front() {
                let _ = self.socket.send_to(&data, to);
            }
        }
    }

    /// What has come on the peer's channels, and on ours.
    fn send_back(&mut self) {
        let came: Vec<_> = self.ears[0].told().messages.drain(..).collect();
        for (channel, message) in came {
            self.command(OFFERED, DataCommand::Send { channel, message });
        }
        let came: Vec<_> = self.ears[1].told().messages.drain(..).collect();
        for (channel, message) in came {
            let number = u64::from_be_bytes(*message.data.first_chunk().unwrap());
            self.back.push((channel, number));
            self.heard_at = Instant::now();
        }
    }

    /// Says the next message on each of our channels, once they are open.
    pub(crate) fn speak(&mut self, messages: u64) {
        let open: Vec<_> = self.ears[1].told().open.iter().map(|(id, _)| *id).collect();
        let now = Instant::now();
        if open.len() < 3 || self.spoken == messages || now < self.speak_at {
            return;
        }
        self.speak_at = now + Duration::from_millis(2);
        let mut data = self.spoken.to_be_bytes().to_vec();
        data.resize(8 + (self.spoken % 500) as usize, 1);
        let data: Arc<[u8]> = data.into();
        for channel in open {
            let (text, data) = (false, data.clone());
            let message = Message { text, data };
            self.command(OURS, DataCommand::Send { channel, message });
        }
        self.spoken += 1;
        self.heard_at = now;
    }

    /// Nothing more comes.
    pub(crate) fn is_done(&self, messages: u64) -> bool {
        self.spoken == messages && self.heard_at.elapsed() > Duration::from_secs(5)
    }

    pub(crate) fn check(&self, what: &str, messages: u64) {
        for ears in &self.ears {
            assert_eq!(ears.told().ended, None, "{what}");
        }
        let mut open = self.ears[1].told().open.clone();
        open.sort_by_key(|(id, _)| *id);
        assert_eq!(
            open.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
            [1, 3, 5],
            "{what}"
        );
        for (id, config) in open {
            let got = self.back.iter().filter(|(of, _)| *of == id);
            let got: Vec<_> = got.map(|(_, number)| *number).collect();
            let what = format!("{what} {}, there and back", config.label);
            Way::of(&config.label).check(&what, &got, messages);
        }
        let offered = self.ears[0].told();
        assert_eq!(offered.open.len(), 7, "{what}: {:?}", offered.open);
        assert_eq!(
            offered.closed.len(),
            1,
            "{what}: the one that the peer closed"
        );
    }
}
