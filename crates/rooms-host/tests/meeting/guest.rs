// SPDX-License-Identifier: MPL-2.0

//! A client of rooms over a real engine: what it says as JSON, and two `str0m` connections with a socket each, as v0 has it, or one,
//! as v1 has it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use serde_json::Value;
use sfu_rooms::proto::{
    AddTrackRequest, ConnectionSettings, DataPacket, JoinRequest, SessionDescription,
    SignalRequest, SignalResponse, TrackSource, TrackType, UserPacket, WrappedJoinRequest,
    data_packet, signal_request, signal_response,
};
use sfu_rooms::wire::Frame;
use sfu_rooms::{Connection, Hello, Refused};
use sfu_rooms_host::{Host, ToClient};
use str0m::change::{SdpAnswer, SdpApi, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::KEYS;

/// What there is to wait for comes within this time, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two packets of a sound.
const FRAME: Duration = Duration::from_millis(20);

/// One of a guest's connections.
pub(crate) struct Leg {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    pending: Option<SdpPendingOffer>,
    pub(crate) connected: bool,
    /// Packets that have come, and whose.
    pub(crate) packets: usize,
    whose: HashMap<u8, usize>,
    channels: Vec<(ChannelId, String)>,
    /// By label.
    pub(crate) data: Vec<(String, Vec<u8>)>,
}

impl Leg {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            socket,
            address,
            pending: None,
            connected: false,
            packets: 0,
            whose: HashMap::new(),
            channels: Vec::new(),
            data: Vec::new(),
        }
    }

    fn turn(&mut self) {
        let mut octets = [0; 2_000];
        while let Ok((length, source)) = self.socket.recv_from(&mut octets) {
            let data = &octets[..length];
            let receive = Receive::new(Protocol::Udp, source, self.address, data).unwrap();
            let input = Input::Receive(Instant::now(), receive);
            self.rtc.handle_input(input).unwrap();
            self.poll();
        }
        self.rtc
            .handle_input(Input::Timeout(Instant::now()))
            .unwrap();
        self.poll();
    }

    fn poll(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(datagram) => {
                    let _ = self
                        .socket
                        .send_to(&datagram.contents, datagram.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    self.packets += 1;
                    let mark = packet.payload.get(1).copied().unwrap_or_default();
                    *self.whose.entry(mark).or_default() += 1;
                }
                Output::Event(Event::ChannelOpen(id, label)) => self.channels.push((id, label)),
                Output::Event(Event::ChannelData(data)) => {
                    let known = self.channels.iter().find(|(id, _)| *id == data.id);
                    let label = known.map(|(_, label)| label.clone()).unwrap_or_default();
                    self.data.push((label, data.data));
                }
                Output::Event(_) => {}
            }
        }
    }
}

pub(crate) struct Guest<'a> {
    host: &'a Host,
    pub(crate) connection: Connection,
    inbox: Receiver<ToClient>,
    /// All that it was told, as JSON.
    pub(crate) told: Vec<Value>,
    pub(crate) closed: bool,
    pub(crate) publisher: Leg,
    pub(crate) subscriber: Leg,
    sounds: Vec<(Mid, u64)>,
    next: Instant,
    /// It speaks.
    pub(crate) loud: bool,
    /// In each of its packets.
    mark: u8,
    /// It has one connection, `publisher`, and makes all offers.
    single: bool,
    /// M-lines for so many more sounds and pictures are to be in its next offer.
    required: Option<[u32; 2]>,
}

pub(crate) fn token(identity: &str) -> String {
    let (key, secret) = KEYS.split_once(':').unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = serde_json::json!({
        "iss": key, "sub": identity, "nbf": 0, "exp": now + 600,
        "video": { "room": "meeting", "roomJoin": true },
    });
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

impl<'a> Guest<'a> {
    pub(crate) fn join(host: &'a Host, identity: &str) -> Result<Self, Refused> {
        Self::connect(host, identity, &[])
    }

    pub(crate) fn connect(
        host: &'a Host,
        identity: &str,
        query: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let hello = Hello::from_query(query.iter().copied())?;
        Self::enter(host, identity, hello, Leg::new())
    }

    /// By v1: its first offer has m-lines for three sounds and three pictures, and data channels.
    pub(crate) fn join_single(host: &'a Host, identity: &str) -> Result<Self, Refused> {
        let mut leg = Leg::new();
        let mut api = leg.rtc.sdp_api();
        for kind in [MediaKind::Audio, MediaKind::Video] {
            for _ in 0..3 {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        }
        add_channels(&mut api);
        let (offer, pending) = api.apply().unwrap();
        leg.pending = Some(pending);
        let request = JoinRequest {
            connection_settings: Some(ConnectionSettings {
                auto_subscribe: true,
                ..ConnectionSettings::default()
            }),
            publisher_offer: Some(description(&offer)),
            ..JoinRequest::default()
        };
        let wrapped = WrappedJoinRequest {
            join_request: request.encode_to_vec(),
            ..WrappedJoinRequest::default()
        };
        let text = URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec());
        let hello = host.hello([("join_request", text.as_str()), ("json", "1")])?;
        let mut guest = Self::enter(host, identity, hello, leg)?;
        guest.single = true;
        Ok(guest)
    }

    pub(crate) fn enter(
        host: &'a Host,
        identity: &str,
        hello: Hello,
        publisher: Leg,
    ) -> Result<Self, Refused> {
        let permit = host.permit(&token(identity))?;
        let (said, inbox) = sync_channel(256);
        let (done, joined) = sync_channel(1);
        let client = Box::new(move |what| said.try_send(what).is_ok());
        let tell = Box::new(move |outcome| done.send(outcome).unwrap());
        let here = Some(Ipv4Addr::LOCALHOST.into());
        host.join(permit, hello, here, client, tell);
        let connection = joined.recv_timeout(PATIENCE).unwrap()?;
        let mut guest = Self {
            host,
            connection,
            inbox,
            told: Vec::new(),
            closed: false,
            publisher,
            subscriber: Leg::new(),
            sounds: Vec::new(),
            next: Instant::now(),
            loud: false,
            mark: identity.as_bytes()[0],
            single: false,
            required: None,
        };
        // Text from the first word on, so that all that is told can be read.
        guest.say(signal_request::Message::Ping(1));
        Ok(guest)
    }

    pub(crate) fn say(&mut self, message: signal_request::Message) {
        let request = SignalRequest {
            message: Some(message),
        };
        let text = serde_json::to_string(&request).unwrap();
        self.host.say(self.connection, Frame::Text(text));
    }

    /// Announces a sound, and offers it. A client's data channels are in its first offer.
    pub(crate) fn publish(&mut self, cid: &str, source: TrackSource) {
        self.say(signal_request::Message::AddTrack(AddTrackRequest {
            cid: cid.into(),
            r#type: TrackType::Audio.into(),
            source: source.into(),
            ..AddTrackRequest::default()
        }));
        let is_first = self.sounds.is_empty() && !self.single;
        let mut api = self.publisher.rtc.sdp_api();
        if is_first {
            add_channels(&mut api);
        }
        let mid = api.add_media(
            MediaKind::Audio,
            Direction::SendOnly,
            None,
            Some(cid.into()),
            None,
        );
        self.sounds.push((mid, 1_000));
        let change = api.apply().unwrap();
        self.offer(change);
    }

    /// Nothing is published, and data may be sent.
    pub(crate) fn open_channels(&mut self) {
        let mut api = self.publisher.rtc.sdp_api();
        add_channels(&mut api);
        let change = api.apply().unwrap();
        self.offer(change);
    }

    pub(crate) fn unpublish(&mut self) {
        let (mid, _) = self.sounds.remove(0);
        let mut api = self.publisher.rtc.sdp_api();
        api.set_direction(mid, Direction::Inactive);
        let change = api.apply().unwrap();
        self.offer(change);
    }

    fn offer(&mut self, (offer, pending): (SdpOffer, SdpPendingOffer)) {
        self.publisher.pending = Some(pending);
        self.say(signal_request::Message::Offer(description(&offer)));
    }

    /// No offer of its own is on its way, or to be made.
    pub(crate) fn is_calm(&self) -> bool {
        self.publisher.pending.is_none() && self.required.is_none()
    }

    /// Offers what the server has asked for, once the offer before has been answered.
    fn offer_what_is_required(&mut self) {
        if self.publisher.pending.is_some() {
            return;
        }
        let Some([sounds, pictures]) = self.required.take() else {
            return;
        };
        let mut api = self.publisher.rtc.sdp_api();
        // Where nothing is missing, too, there has to be something new in the offer.
        let pictures = pictures.max(u32::from(sounds == 0));
        for (kind, count) in [(MediaKind::Audio, sounds), (MediaKind::Video, pictures)] {
            for _ in 0..count {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        }
        let change = api.apply().unwrap();
        self.offer(change);
    }

    /// Sends data to all. `false`: its channel is not open yet.
    pub(crate) fn send(&mut self, text: &str) -> bool {
        let packet = DataPacket {
            value: Some(data_packet::Value::User(UserPacket {
                payload: text.into(),
                ..UserPacket::default()
            })),
            ..DataPacket::default()
        };
        let octets = sfu_rooms::wire::data(&packet);
        self.write("_reliable", &octets)
    }

    /// Sends that on the channel with this label. `false`: it is not open yet, or full.
    pub(crate) fn write(&mut self, label: &str, octets: &[u8]) -> bool {
        let mut channels = self.publisher.channels.iter();
        let open = channels.find(|(_, known)| known == label);
        let channel = open.and_then(|(id, _)| self.publisher.rtc.channel(*id));
        channel.is_some_and(|mut channel| channel.write(true, octets).unwrap())
    }

    /// What has come on the channels with this label.
    pub(crate) fn came(&self, label: &str) -> Vec<&[u8]> {
        let leg = if self.single {
            &self.publisher
        } else {
            &self.subscriber
        };
        let of_label = leg.data.iter().filter(|(known, _)| known == label);
        of_label.map(|(_, octets)| octets.as_slice()).collect()
    }

    fn turn(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(ToClient::Say(Frame::Text(text))) => self.read(&text),
                Ok(ToClient::Say(Frame::Binary(octets))) => {
                    let message = sfu_rooms::wire::read_response(&octets);
                    self.read(&serde_json::to_string(&message).unwrap());
                }
                Ok(ToClient::Close) => self.closed = true,
                Err(_) => break,
            }
        }
        self.offer_what_is_required();
        self.publisher.turn();
        self.subscriber.turn();
        if self.publisher.connected && self.next <= Instant::now() {
            self.next += FRAME;
            self.send_sound();
        }
    }

    /// How many packets of somebody's have come.
    pub(crate) fn heard(&self, whom: &Guest<'_>) -> usize {
        let leg = if self.single {
            &self.publisher
        } else {
            &self.subscriber
        };
        leg.whose.get(&whom.mark).copied().unwrap_or(0)
    }

    fn send_sound(&mut self) {
        let level = if self.loud { -10 } else { -127 };
        let mut payload = vec![0x78; 80];
        payload[1] = self.mark;
        let rtc = &mut self.publisher.rtc;
        for (mid, seq) in &mut self.sounds {
            let Some(pt) = rtc
                .media(*mid)
                .and_then(|m| m.remote_pts().first().copied())
            else {
                continue;
            };
            *seq += 1;
            let timestamp = *seq as u32 * 960;
            let levels = ExtensionValues {
                audio_level: Some(level),
                voice_activity: Some(self.loud),
                ..ExtensionValues::default()
            };
            let write = RtpWrite::new(
                pt,
                (*seq).into(),
                timestamp,
                Instant::now(),
                payload.clone(),
            )
            .ext_vals(levels);
            let mut api = rtc.direct_api();
            if let Some(stream) = api.stream_tx_by_mid(*mid, None) {
                stream.write_rtp(write);
            }
        }
    }

    fn read(&mut self, text: &str) {
        self.told.push(serde_json::from_str(text).unwrap());
        let response: SignalResponse = serde_json::from_str(text).unwrap();
        match response.message.unwrap() {
            signal_response::Message::Offer(offer) => {
                let parsed = SdpOffer::from_sdp_string(&offer.sdp).unwrap();
                let answer = self.subscriber.rtc.sdp_api().accept_offer(parsed).unwrap();
                self.say(signal_request::Message::Answer(SessionDescription {
                    r#type: "answer".into(),
                    sdp: answer.to_sdp_string(),
                    id: offer.id,
                    ..SessionDescription::default()
                }));
            }
            signal_response::Message::Answer(answer) => {
                assert_eq!(answer.id, 7, "the offer's");
                // One that is written by hand has nobody behind it.
                let Some(pending) = self.publisher.pending.take() else {
                    return;
                };
                let answer = SdpAnswer::from_sdp_string(&answer.sdp).unwrap();
                let api = self.publisher.rtc.sdp_api();
                api.accept_answer(pending, answer).unwrap();
            }
            signal_response::Message::MediaSectionsRequirement(required) => {
                let [sounds, pictures] = self.required.unwrap_or_default();
                let sounds = sounds.max(required.num_audios);
                self.required = Some([sounds, pictures.max(required.num_videos)]);
            }
            _ => {}
        }
    }

    /// The messages of a kind, in order.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.told.iter().filter_map(|m| m.get(kind)).collect()
    }

    /// What it was told last of somebody.
    pub(crate) fn last_of(&self, identity: &str) -> Option<&Value> {
        let updates = self.told.iter().rev();
        let lists = updates.filter_map(|m| match m.get("join") {
            Some(join) => join["otherParticipants"].as_array(),
            None => m.get("update")?["participants"].as_array(),
        });
        lists
            .flat_map(|list| list.iter().rev())
            .find(|p| p["identity"] == identity)
    }
}

/// For packets of which none is to be lost, and for data tracks.
fn add_channels(api: &mut SdpApi<'_>) {
    api.add_channel("_reliable".into());
    api.add_channel_with_config(ChannelConfig {
        label: "_data_track".into(),
        ordered: false,
        reliability: Reliability::MaxRetransmits { retransmits: 0 },
        ..ChannelConfig::default()
    });
}

fn description(offer: &SdpOffer) -> SessionDescription {
    SessionDescription {
        r#type: "offer".into(),
        sdp: offer.to_sdp_string(),
        id: 7,
        ..SessionDescription::default()
    }
}

/// Until that is so.
pub(crate) fn until<'a, const N: usize>(
    mut guests: [&mut Guest<'a>; N],
    what: &str,
    mut is_so: impl FnMut(&mut [&mut Guest<'a>; N]) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    loop {
        guests.iter_mut().for_each(|guest| guest.turn());
        if is_so(&mut guests) {
            return;
        }
        if Instant::now() > end {
            let told = guests.iter().map(|g| format!("{:#?}", g.told));
            panic!("waited in vain for {what}: {}", told.collect::<String>());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
