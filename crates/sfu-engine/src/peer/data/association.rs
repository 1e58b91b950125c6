// SPDX-License-Identifier: MPL-2.0

//! One SCTP association with its channels. Sans-IO, as the library is.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sctp_proto::{
    AssociationError, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ServerConfig, StreamEvent, TransportConfig,
};

use super::bounds::{Bounds, CHANNELS, Verdict};
use super::channel::{Channel, State};
use super::dcep::{self, Dcep};
use super::outgoing::{Handed, WAITING};
use super::{
    COMMANDS, ChannelConfig, ChannelId, DataCommand, DataEnd, DataObserver, MESSAGE_MAX, Message,
    PORT,
};

/// Addresses are DTLS's to know. The library wants one.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
/// Octets of a message in a packet. The library takes packets for full that have 28 octets more, but does not count what chunks are
/// filled up with, nor the last one's header: of messages of an octet each it makes packets of 1,192. With what seals them these
/// are datagrams of 1,229, and any path carries 1,232 (RFC 8200, section 5).
const PIECE: u32 = 972;
/// Octets that wait to be put together, or read.
const RECEIVE_WINDOW: u32 = 2 * MESSAGE_MAX;
/// How long to wait for an answer before what it answers is sent again, in milliseconds: at first, at least and at most. The RFC's
/// (3 s, 1 s, 60 s) are older than calls; Chromium's are 500, 400 and 60,000. After a break all goes on within the last one.
const AGAIN: [u64; 3] = [500, 400, 5_000];
/// What SCTP has to send at a time, in octets and in messages; the rest waits here, where it is shared.
const HANDED: usize = 256 * 1024;
const HANDED_MESSAGES: usize = 1_024;
/// What waits to be sent on all reliable channels, in octets: a message that finds no room is lost, and that is told. The channels go
/// on: else whoever may send something to a peer whose network is slow could end them. Files that participants send one another
/// come as fast as their sender's network is, which has no word of ours to wait.
const RELIABLE: usize = 8 * 1024 * 1024;
/// The same while more than [`RELIABLE_IN_ALL`] wait for all peers of the process.
const FAIR: usize = 2 * 1024 * 1024;
const RELIABLE_IN_ALL: usize = 256 * 1024 * 1024;
/// A message that had no room is given again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How often what has happened may make something else happen in one call.
const ROUNDS: usize = 4;
/// An empty message has an octet that is none (RFC 8831, section 6.6).
const EMPTY: [u8; 1] = [0];

static TRANSPORT: LazyLock<Arc<TransportConfig>> = LazyLock::new(|| Arc::new(transport(PORT)));
static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let mut config = ServerConfig::new();
    config.transport = TRANSPORT.clone();
    Arc::new(config)
});
static ENDPOINT: LazyLock<Arc<EndpointConfig>> = LazyLock::new(|| {
    let mut config = EndpointConfig::new();
    config.max_payload_size(PIECE);
    Arc::new(config)
});

/// ICE knows when a peer is gone: SCTP does not give up by itself.
fn transport(remote_port: u16) -> TransportConfig {
    let [first, least, most] = AGAIN;
    TransportConfig::default()
        .with_max_init_retransmits(None)
        .with_max_data_retransmits(None)
        .with_max_receive_buffer_size(RECEIVE_WINDOW)
        .with_max_receive_message_size(MESSAGE_MAX)
        .with_rto_initial_ms(first)
        .with_rto_min_ms(least)
        .with_rto_max_ms(most)
        .with_remote_port(remote_port)
}

/// See the module's description.
pub(super) struct Association {
    endpoint: Endpoint,
    /// None until the peer begins it, where that is for it to do.
    sctp: Option<sctp_proto::Association>,
    is_up: bool,
    /// DTLS was begun by us, so that our channels have even numbers (RFC 8832, section 6).
    is_client: bool,
    message_max: u32,
    channels: Vec<Channel>,
    /// Channels that are to be opened.
    wanted: VecDeque<ChannelConfig>,
    /// Whose turn it is to send.
    turn: usize,
    handed: Handed,
    bounds: Bounds,
    /// A message that had no room.
    held: Option<(ChannelId, Message)>,
    ask_again: Option<Instant>,
    end: Option<DataEnd>,
}

impl Association {
    pub(super) fn new(remote_port: u16, message_max: u32, is_client: bool) -> Self {
        let mut this = Self {
            endpoint: Endpoint::new(ENDPOINT.clone(), Some(SERVER.clone())),
            sctp: None,
            is_up: false,
            is_client,
            message_max,
            channels: Vec::new(),
            wanted: VecDeque::new(),
            turn: 0,
            handed: Handed::default(),
            bounds: Bounds::default(),
            held: None,
            ask_again: None,
            end: None,
        };
        if is_client {
            this.begin(remote_port);
        }
        this
    }

    fn begin(&mut self, remote_port: u16) {
        let mut config = ClientConfig::new();
        config.transport = match remote_port {
            PORT => TRANSPORT.clone(),
            port => Arc::new(transport(port)),
        };
        match self.endpoint.connect(config, NOWHERE) {
            Ok((_, sctp)) => self.sctp = Some(sctp),
            Err(error) => {
                tracing::debug!(%error, "SCTP does not begin");
                self.end = Some(DataEnd::Failed);
            }
        }
        // Where both begin, the peer answers what is ours.
        self.endpoint.reject_new_associations();
    }

    /// Why it has ended.
    pub(super) fn end(&self) -> Option<DataEnd> {
        self.end
    }

    pub(super) fn command(
        &mut self,
        now: Instant,
        command: DataCommand,
        observer: &dyn DataObserver,
    ) {
        match command {
            DataCommand::Open(config) if self.wanted.len() < COMMANDS => {
                self.wanted.push_back(config);
            }
            DataCommand::Open(_) => {}
            DataCommand::Send { channel, message } => {
                if !self.send(now, channel, message) {
                    observer.lost(channel);
                }
            }
            DataCommand::Close(id) => {
                let mut channels = self.channels.iter_mut();
                let channel = channels.find(|channel| channel.id() == id);
                if let Some(channel) = channel.filter(|c| c.state != State::Closed) {
                    channel.state = State::Closing;
                }
            }
        }
    }

    /// `false`: too much waits for the message to be sent.
    fn send(&mut self, now: Instant, id: ChannelId, message: Message) -> bool {
        let reliable = self.channels.iter().filter(|c| c.is_reliable());
        let waiting: usize = reliable.map(|c| c.outgoing.octets()).sum();
        let mut channels = self.channels.iter_mut();
        let open = channels.find(|c| c.id() == id && c.state == State::Open);
        let Some(channel) = open.filter(|_| message.data.len() <= self.message_max as usize) else {
            tracing::debug!(channel = id.0, "a message can't be sent");
            return true;
        };
        let most = match WAITING.octets() > RELIABLE_IN_ALL {
            true => FAIR,
            false => RELIABLE,
        };
        if channel.is_reliable() && waiting + message.data.len() > most {
            return false;
        }
        let reliability = channel.config.reliability;
        channel.outgoing.push(now, message, reliability)
    }

    pub(super) fn receive(&mut self, now: Instant, packet: &[u8]) {
        match self.bounds.judge(packet) {
            Verdict::Read => {}
            Verdict::Drop => return,
            Verdict::End => {
                self.end = Some(DataEnd::TooManyPieces);
                return;
            }
        }
        let packet = Bytes::copy_from_slice(packet);
        match self.endpoint.handle(now, NOWHERE, None, None, packet) {
            Some((_, DatagramEvent::NewAssociation(sctp))) if self.sctp.is_none() => {
                self.sctp = Some(sctp);
                self.endpoint.reject_new_associations();
            }
            Some((_, DatagramEvent::AssociationEvent(event))) => {
                if let Some(sctp) = &mut self.sctp {
                    sctp.handle_event(event);
                }
            }
            _ => {}
        }
    }

    /// Puts out what is due, tells what has come, and returns when to call again.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        observer: &dyn DataObserver,
        send: &mut dyn FnMut(&[u8]),
    ) -> Option<Instant> {
        self.sctp.as_mut()?.handle_timeout(now);
        for round in 0..ROUNDS {
            if !self.take_events(observer) && round > 0 {
                break;
            }
            if self.is_up {
                self.open_wanted(observer);
                self.read(now, observer);
                self.hand_over(now);
                self.close_those_that_are_done(observer);
            }
        }
        let sctp = self.sctp.as_mut()?;
        while let Some(transmit) = sctp.poll_transmit(now) {
            let Payload::RawEncode(packets) = transmit.payload else {
                continue;
            };
            for packet in packets {
                self.bounds.leaves(&packet);
                send(&packet);
            }
        }
        // An endpoint has one association, and ends with it.
        while sctp.poll_endpoint_event().is_some() {}
        let due = [sctp.poll_timeout(), self.ask_again];
        due.into_iter().flatten().min()
    }

    /// Returns whether there were any.
    fn take_events(&mut self, observer: &dyn DataObserver) -> bool {
        let mut some = false;
        while self.end.is_none()
            && let Some(event) = self.sctp.as_mut().and_then(sctp_proto::Association::poll)
        {
            some = true;
            match event {
                Event::Connected => {
                    self.is_up = true;
                    if let Some(sctp) = &mut self.sctp {
                        sctp.set_max_send_message_size(self.message_max);
                    }
                }
                Event::HandshakeFailed { reason } | Event::AssociationLost { reason } => {
                    tracing::debug!(%reason, "SCTP has ended");
                    self.end = Some(match reason {
                        AssociationError::ReceiveBufferExhausted => DataEnd::TooManyPieces,
                        _ => DataEnd::ByPeer,
                    });
                }
                Event::Stream(StreamEvent::Opened { id } | StreamEvent::Readable { id }) => {
                    self.know(id);
                }
                Event::Stream(
                    StreamEvent::Finished { id } | StreamEvent::ResetFailed { id, .. },
                ) => self.forget(id, observer),
                _ => {}
            }
        }
        some
    }

    /// The peer has said something on a channel.
    fn know(&mut self, id: u16) {
        if self.channels.iter().any(|channel| channel.id == id) {
            return;
        }
        if self.channels.len() == CHANNELS {
            self.end = Some(DataEnd::TooManyChannels);
            return;
        }
        let config = ChannelConfig::default();
        self.channels.push(Channel::new(id, State::Unknown, config));
    }

    /// A channel is closed on both sides.
    fn forget(&mut self, id: u16, observer: &dyn DataObserver) {
        if let Some(at) = self.channels.iter().position(|channel| channel.id == id) {
            let channel = self.channels.swap_remove(at);
            if channel.is_told {
                observer.closed(channel.id());
            }
        }
    }

    fn open_wanted(&mut self, observer: &dyn DataObserver) {
        while let Some(config) = self.wanted.pop_front() {
            if let Err(error) = self.open(config, observer) {
                tracing::debug!(%error, "a data channel was not opened");
            }
        }
    }

    fn open(
        &mut self,
        config: ChannelConfig,
        observer: &dyn DataObserver,
    ) -> Result<(), sctp_proto::Error> {
        let Some(sctp) = &mut self.sctp else {
            return Ok(());
        };
        let known = |id: u16| self.channels.iter().position(|c| c.id == id);
        if let Some(ChannelId(id)) = config.negotiated {
            let at = match known(id) {
                // The peer was the first to use it.
                Some(at) if self.channels[at].state == State::Unknown => at,
                Some(_) => return Err(sctp_proto::Error::ErrStreamAlreadyExist),
                None => {
                    sctp.open_stream(id, Ppid::Binary)?;
                    let channel = Channel::new(id, State::Unknown, ChannelConfig::default());
                    self.channels.push(channel);
                    self.channels.len() - 1
                }
            };
            let channel = &mut self.channels[at];
            channel.config = config;
            channel.configure(&mut sctp.stream(id)?)?;
            return self.tell_open(at, observer);
        }
        let message = dcep::open(&config).ok_or(sctp_proto::Error::ErrOutboundPacketTooLarge)?;
        let mine = (u16::from(!self.is_client)..u16::MAX).step_by(2);
        for id in mine.take(2 * CHANNELS) {
            if known(id).is_some() {
                continue;
            }
            // One that the peer has closed a moment ago is not free yet.
            let Ok(mut stream) = sctp.open_stream(id, Ppid::Binary) else {
                continue;
            };
            let channel = Channel::new(id, State::Offered, config);
            stream.write_with_ppi(&message, Ppid::Dcep)?;
            channel.configure(&mut stream)?;
            self.channels.push(channel);
            return Ok(());
        }
        Err(sctp_proto::Error::ErrStreamCreateFailed)
    }

    fn tell_open(
        &mut self,
        at: usize,
        observer: &dyn DataObserver,
    ) -> Result<(), sctp_proto::Error> {
        let channel = &mut self.channels[at];
        channel.state = State::Open;
        channel.is_told = true;
        observer.opened(channel.id(), &channel.config);
        Ok(())
    }

    /// Reads what has come, until a message has no room.
    fn read(&mut self, now: Instant, observer: &dyn DataObserver) {
        if self.held.is_some() && self.ask_again.is_some_and(|at| at > now) {
            return;
        }
        self.ask_again = None;
        if let Some((id, message)) = self.held.take() {
            self.give(now, id, true, message, observer);
        }
        let mut at = 0;
        while let Some(channel) = self.channels.get(at)
            && self.held.is_none()
        {
            match self.read_one(channel.id) {
                Some((ppid, data)) => self.take(now, at, ppid, data, observer),
                None => at += 1,
            }
        }
    }

    fn read_one(&mut self, id: u16) -> Option<(Ppid, Arc<[u8]>)> {
        let mut stream = self.sctp.as_mut()?.stream(id).ok()?;
        let chunks = stream.read_sctp().ok()??;
        self.bounds.read(chunks.chunks.len());
        let mut data: Arc<[u8]> = std::iter::repeat_n(0, chunks.len()).collect();
        chunks.read(Arc::get_mut(&mut data)?).ok()?;
        Some((chunks.ppi, data))
    }

    /// A message has come on a channel.
    fn take(
        &mut self,
        now: Instant,
        at: usize,
        ppid: Ppid,
        data: Arc<[u8]>,
        observer: &dyn DataObserver,
    ) {
        let (text, is_empty) = match ppid {
            Ppid::Dcep => {
                if let Err(error) = self.take_dcep(at, &data, observer) {
                    tracing::debug!(%error, "a data channel was not opened");
                    self.channels[at].state = State::Closing;
                }
                return;
            }
            Ppid::String => (true, false),
            Ppid::StringEmpty => (true, true),
            Ppid::Binary => (false, false),
            Ppid::BinaryEmpty => (false, true),
            // Pieces of messages as they were sent before there was RFC 8831, and what nobody knows.
            Ppid::Unknown => return,
        };
        if self.channels[at].state == State::Offered {
            // As good as an acknowledgement, which it has overtaken (RFC 8832, section 6).
            let _ = self.tell_open(at, observer);
        }
        let channel = &self.channels[at];
        if channel.state == State::Open {
            let data = if is_empty { Arc::default() } else { data };
            let (id, is_reliable) = (channel.id(), channel.is_reliable());
            self.give(now, id, is_reliable, Message { text, data }, observer);
        }
    }

    fn give(
        &mut self,
        now: Instant,
        id: ChannelId,
        is_reliable: bool,
        message: Message,
        observer: &dyn DataObserver,
    ) {
        if !observer.message(id, &message) && is_reliable {
            self.held = Some((id, message));
            self.ask_again = Some(now + ASK_AGAIN);
        }
    }

    /// What the peer says of a channel itself.
    fn take_dcep(
        &mut self,
        at: usize,
        message: &[u8],
        observer: &dyn DataObserver,
    ) -> Result<(), sctp_proto::Error> {
        let Some(sctp) = &mut self.sctp else {
            return Ok(());
        };
        let channel = &mut self.channels[at];
        match (dcep::read(message), channel.state) {
            (Some(Dcep::Open(config)), State::Unknown) => {
                channel.config = config;
                let mut stream = sctp.stream(channel.id)?;
                stream.write_with_ppi(&dcep::ACKNOWLEDGED, Ppid::Dcep)?;
                channel.configure(&mut stream)?;
                self.tell_open(at, observer)
            }
            (Some(Dcep::Ack), State::Offered) => self.tell_open(at, observer),
            (Some(Dcep::Ack), State::Open) | (_, State::Closing | State::Closed) => Ok(()),
            _ => Err(sctp_proto::Error::ErrStreamCreateFailed),
        }
    }

    /// Hands over to SCTP as much as it can be at, from each channel in turn.
    fn hand_over(&mut self, now: Instant) {
        let Some(sctp) = &mut self.sctp else {
            return;
        };
        if self.channels.iter().all(|c| c.outgoing.is_empty()) {
            return;
        }
        let mut waiting = 0;
        for channel in &self.channels {
            let stream = sctp.stream(channel.id);
            waiting += stream.and_then(|s| s.buffered_amount()).unwrap_or(0);
        }
        let mut messages = self.handed.left(waiting);
        let mut idle = 0;
        while idle < self.channels.len() && waiting < HANDED && messages < HANDED_MESSAGES {
            self.turn = (self.turn + 1) % self.channels.len();
            let channel = &mut self.channels[self.turn];
            let Some(message) = channel.outgoing.pop(now) else {
                idle += 1;
                continue;
            };
            idle = 0;
            let (ppid, data) = match (message.text, message.data.is_empty()) {
                (true, false) => (Ppid::String, &*message.data),
                (false, false) => (Ppid::Binary, &*message.data),
                (true, true) => (Ppid::StringEmpty, &EMPTY[..]),
                (false, true) => (Ppid::BinaryEmpty, &EMPTY[..]),
            };
            let stream = sctp.stream(channel.id);
            match stream.and_then(|mut stream| stream.write_with_ppi(data, ppid)) {
                Ok(_) => {
                    waiting += data.len();
                    messages += 1;
                    self.handed.add(data.len());
                }
                Err(error) => tracing::debug!(%error, "a message was not sent"),
            }
        }
    }

    /// Closes channels of which nothing waits any more.
    fn close_those_that_are_done(&mut self, observer: &dyn DataObserver) {
        let Some(sctp) = &mut self.sctp else {
            return;
        };
        let mut failed = Vec::new();
        for channel in &mut self.channels {
            if channel.state != State::Closing || !channel.outgoing.is_empty() {
                continue;
            }
            channel.state = State::Closed;
            let stream = sctp.stream(channel.id);
            if let Err(error) = stream.and_then(|mut stream| stream.close()) {
                tracing::debug!(%error, "a data channel is not there any more");
                failed.push(channel.id);
            }
        }
        for id in failed {
            self.forget(id, observer);
        }
    }
}
