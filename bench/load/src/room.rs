// SPDX-License-Identifier: MPL-2.0

//! Participants of a room by LiveKit's protocol (v0, protobuf): some publish the generated stream, all get what there is. Each is a
//! thread with a WebSocket and a `str0m` session; who publishes has one more of each.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use livekit_protocol::signal_request::Message as Ask;
use livekit_protocol::signal_response::Message as Told;
use livekit_protocol::{
    AddTrackRequest, LeaveRequest, ParticipantInfo, Ping, SessionDescription, SignalRequest,
    SignalResponse, SimulcastCodec, TrackSource, TrackType, UpdateTrackSettings, VideoLayer,
    VideoQuality,
};
use prost::Message as _;
use serde::Serialize;
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tungstenite::{Message, WebSocket};

use crate::args::{LoadArgs, Pictures, StreamArgs};
use crate::join;
use crate::process::{self, Usage};
use crate::publish::{Offered, Publisher};

/// A step of a join that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is said by the server is looked at this often while media comes.
const LOOK: Duration = Duration::from_millis(10);
const PING: Duration = Duration::from_secs(5);
/// When all have joined, tracks are still being subscribed to for so long.
const SETTLE: Duration = Duration::from_secs(3);

/// What publishers are called, with a number behind.
const PUBLISHER: &str = "publisher";

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct RoomReport {
    /// All who were to join.
    pub participants: usize,
    pub publishers: usize,
    /// Who could not, or lost its connection.
    pub failed: usize,
    /// Who gets something, of those who can.
    pub receiving: usize,
    /// Streams (SSRCs) that came while it was measured, of all.
    pub streams: usize,
    pub packets_per_second: f64,
    /// That came, while it was measured.
    pub packets: u64,
    pub lost: u64,
    /// From the first word to the connection.
    pub join_ms_p50: Option<u64>,
    pub join_ms_max: Option<u64>,
    /// Of `--pid`.
    pub cpu_percent: Option<f64>,
    /// CPU time for each packet that came.
    pub us_per_packet: Option<f64>,
    pub rss_bytes: Option<u64>,
    /// What memory has grown by, for each participant.
    pub rss_bytes_per_participant: Option<u64>,
    pub errors: Vec<String>,
}

impl RoomReport {
    /// Whether all are there, and get something.
    pub fn is_good(&self) -> bool {
        let able = match self.publishers {
            0 => 0,
            1 => self.participants - 1,
            _ => self.participants,
        };
        self.failed == 0 && self.receiving >= able
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let server = match (self.cpu_percent, self.us_per_packet) {
            (Some(cpu), Some(us)) => format!(", server {cpu:.0} % of a core, {us:.1} us a packet"),
            _ => String::new(),
        };
        format!(
            "{} participants, {} of them publish, {} receive, {} failed: {:.0} packets/s, {} lost{server}\n",
            self.participants,
            self.publishers,
            self.receiving,
            self.failed,
            self.packets_per_second,
            self.lost
        )
    }
}

/// What a participant's thread tells.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// It is measured now.
    steady: AtomicBool,
    packets: AtomicU64,
    lost: AtomicU64,
    streams: AtomicU64,
    joined: Mutex<Option<Duration>>,
    error: Mutex<Option<String>>,
}

struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Lets all join, measures, and lets them leave.
pub fn run(args: &LoadArgs, url: &str) -> Result<RoomReport> {
    let key = args
        .api_key
        .as_deref()
        .context("--room needs --api-key KEY:SECRET")?;
    let (key, secret) = key.split_once(':').context("--api-key is KEY:SECRET")?;
    let count = args.publishers + args.viewers;
    if count == 0 {
        bail!("--publishers and --viewers are both 0");
    }
    process::raise_file_limit(count as u64 * 4 + 256)?;
    let usage = || args.pid.map(process::usage).transpose();
    let before = usage()?;
    let began = Instant::now();
    let mut all: Vec<Running> = Vec::with_capacity(count);
    for n in 0..count {
        let due = began + Duration::from_secs_f64(n as f64 / args.ramp);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let publishes = n < args.publishers;
        let identity = if publishes { PUBLISHER } else { "listener" };
        let identity = format!("{identity}{n}");
        let until = SystemTime::now() + Duration::from_secs(3_600);
        let who = (args.room_name.as_str(), identity.as_str(), "");
        let token = sfu_access::make_room_token((key, secret), who, until);
        let token = token.map_err(|why| anyhow!("--api-key: {why}"))?;
        let shared = Arc::new(Shared::default());
        let (told, url) = (shared.clone(), url.to_owned());
        let name = identity.clone();
        let plan = Plan {
            identity,
            publishes: publishes.then_some(args.stream),
            pictures: args.pictures,
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            if let Err(error) =
                Participant::join(&url, &token, plan, &told).and_then(|p| p.run(&told))
                && let Ok(mut place) = told.error.lock()
            {
                *place = Some(format!("{error:#}"));
            }
        });
        let thread = thread.context("thread")?;
        all.push(Running { shared, thread });
    }
    let end = Instant::now() + PATIENCE;
    let is_done = |one: &Running| {
        let joined = one
            .shared
            .joined
            .lock()
            .is_ok_and(|joined| joined.is_some());
        joined || one.thread.is_finished()
    };
    while !all.iter().all(is_done) && Instant::now() < end {
        std::thread::sleep(LOOK);
    }
    std::thread::sleep(SETTLE);
    all.iter()
        .for_each(|one| one.shared.steady.store(true, Relaxed));
    let (server, start) = (usage()?, Instant::now());
    let packets = || {
        all.iter()
            .map(|one| one.shared.packets.load(Relaxed))
            .sum::<u64>()
    };
    let packets_before = packets();
    std::thread::sleep(args.duration);
    let (server_end, steady) = (usage()?, start.elapsed());
    let packets = packets() - packets_before;
    let mut report = RoomReport {
        participants: count,
        publishers: args.publishers,
        packets,
        packets_per_second: packets as f64 / steady.as_secs_f64(),
        ..RoomReport::default()
    };
    if let (Some(before), Some(began), Some(end)) = (before, server, server_end) {
        report.set_server(&before, &began, &end, steady);
    }
    for one in &all {
        one.shared.stop.store(true, Relaxed);
    }
    report.collect(all);
    Ok(report)
}

impl RoomReport {
    fn set_server(&mut self, before: &Usage, began: &Usage, end: &Usage, steady: Duration) {
        let cpu = end.since(began);
        self.cpu_percent = Some(100.0 * cpu.as_secs_f64() / steady.as_secs_f64());
        self.us_per_packet =
            (self.packets > 0).then(|| cpu.as_secs_f64() * 1e6 / self.packets as f64);
        self.rss_bytes = Some(end.rss_bytes);
        let grown = end.rss_bytes.saturating_sub(before.rss_bytes);
        self.rss_bytes_per_participant = Some(grown / self.participants as u64);
    }

    fn collect(&mut self, all: Vec<Running>) {
        let mut joins = Vec::new();
        for Running { shared, thread } in all {
            if thread.join().is_err() {
                self.errors.push("a thread has panicked".into());
            }
            self.receiving += usize::from(shared.packets.load(Relaxed) > 0);
            self.streams += shared.streams.load(Relaxed) as usize;
            self.lost += shared.lost.load(Relaxed);
            let joined = shared.joined.lock().ok().and_then(|joined| *joined);
            joins.extend(joined.map(|joined| joined.as_millis() as u64));
            let error = shared.error.lock().ok().and_then(|mut error| error.take());
            self.failed += usize::from(joined.is_none() || error.is_some());
            self.errors.extend(error);
        }
        self.errors.sort();
        self.errors.dedup();
        joins.sort_unstable();
        self.join_ms_p50 = joins.get(joins.len() / 2).copied();
        self.join_ms_max = joins.last().copied();
    }
}

/// Of a stream that comes: its first number while it was measured, the highest, and how many came.
#[derive(Debug)]
struct Came {
    first: u64,
    highest: u64,
    count: u64,
}

/// What a participant is to do.
struct Plan {
    identity: String,
    publishes: Option<StreamArgs>,
    pictures: Pictures,
}

struct Participant {
    plan: Plan,
    signal: WebSocket<TcpStream>,
    /// What is published, until it leaves.
    publisher: Option<Publisher>,
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    came: HashMap<u32, Came>,
    /// The tracks whose size has been asked for.
    sized: HashSet<String>,
    asked: Instant,
    ping: Instant,
}

impl Participant {
    fn join(url: &str, token: &str, plan: Plan, shared: &Shared) -> Result<Self> {
        let asked = Instant::now();
        let server = join::server_address(url)?;
        let local = join::local_address(server)?;
        let tcp =
            TcpStream::connect(server).with_context(|| format!("no connection to {server}"))?;
        tcp.set_nodelay(true).context("TCP")?;
        tcp.set_read_timeout(Some(PATIENCE)).context("TCP")?;
        let query = format!("protocol=17&auto_subscribe=1&sdk=rust&access_token={token}");
        let address = url.replacen("http://", "ws://", 1);
        let address = format!("{}/rtc?{query}", address.trim_end_matches('/'));
        // The token is none of what errors show.
        let (signal, _) = tungstenite::client(address, tcp)
            .map_err(|e| anyhow!("joining: {}", e.to_string().replace(token, "…")))?;
        let (socket, own) = bind(local)?;
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .set_rtp_mode(true)
            .build(Instant::now());
        let candidate = Candidate::host(own, "udp").map_err(|e| anyhow!("{own}: {e}"))?;
        rtc.add_local_candidate(candidate);
        let mut this = Self {
            plan,
            signal,
            publisher: None,
            rtc,
            socket,
            address: own,
            came: HashMap::new(),
            sized: HashSet::new(),
            asked,
            ping: asked + PING,
        };
        match this.next()? {
            Some(Told::Join(join)) => this.size(&join.other_participants)?,
            other => bail!("joining: first came {other:?}"),
        }
        if let Some(stream) = this.plan.publishes {
            this.publish(local, &stream, shared)?;
        }
        this.signal.get_mut().set_nonblocking(true).context("TCP")?;
        Ok(this)
    }

    /// Announces the tracks, and offers them. What else the server says meanwhile is heard.
    fn publish(&mut self, local: IpAddr, stream: &StreamArgs, shared: &Shared) -> Result<()> {
        let (socket, address) = bind(local)?;
        let offered = Offered::new(address, stream)?;
        let mut expected = HashSet::new();
        if !stream.sound_only {
            expected.insert("video");
            self.ask(Ask::AddTrack(video(stream)))?;
        }
        if stream.has_audio() {
            expected.insert("audio");
            self.ask(Ask::AddTrack(AddTrackRequest {
                cid: "audio".into(),
                r#type: TrackType::Audio.into(),
                source: TrackSource::Microphone.into(),
                ..AddTrackRequest::default()
            }))?;
        }
        let until = Instant::now() + PATIENCE;
        let in_time = || match Instant::now() < until {
            true => Ok(()),
            false => bail!("publishing: no answer within {PATIENCE:?}"),
        };
        while !expected.is_empty() {
            in_time()?;
            match self.hear(shared)? {
                Some(Told::TrackPublished(published)) => {
                    _ = expected.remove(published.cid.as_str());
                }
                Some(Told::RequestResponse(refused)) => bail!("publishing: {refused:?}"),
                _ => {}
            }
        }
        self.ask(Ask::Offer(SessionDescription {
            r#type: "offer".into(),
            sdp: offered.sdp.clone(),
            id: 1,
            ..SessionDescription::default()
        }))?;
        loop {
            in_time()?;
            if let Some(Told::Answer(answer)) = self.hear(shared)? {
                let negotiated = offered.accept(&answer.sdp)?;
                self.publisher = Some(Publisher::begin(negotiated, socket, address, stream)?);
                return Ok(());
            }
        }
    }

    fn run(mut self, shared: &Shared) -> Result<()> {
        let mut buffer = vec![0; 2_048];
        while !shared.stop.load(Relaxed) {
            while self.hear(shared)?.is_some() {}
            if let Some(publisher) = &self.publisher {
                publisher.check()?;
            }
            if self.ping <= Instant::now() {
                self.ping = Instant::now() + PING;
                self.ask(Ask::PingReq(Ping::default()))?;
            }
            self.media(shared, &mut buffer)?;
        }
        let lost = |came: &Came| (came.highest - came.first + 1).saturating_sub(came.count);
        shared
            .lost
            .store(self.came.values().map(lost).sum(), Relaxed);
        shared.streams.store(self.came.len() as u64, Relaxed);
        let _ = self.ask(Ask::Leave(LeaveRequest::default()));
        let _ = self.signal.close(None);
        let _ = self.signal.flush();
        Ok(())
    }

    fn ask(&mut self, ask: Ask) -> Result<()> {
        let request = SignalRequest { message: Some(ask) };
        let message = Message::Binary(request.encode_to_vec().into());
        match self.signal.send(message) {
            // It is kept, and sent with the next one.
            Err(tungstenite::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.context("the WebSocket"),
        }
    }

    /// What the server says next. `None`: nothing so far, or nothing that we know.
    fn next(&mut self) -> Result<Option<Told>> {
        match self.signal.read() {
            Ok(Message::Binary(octets)) => {
                let response = SignalResponse::decode(octets).context("what the server says")?;
                Ok(response.message)
            }
            Ok(Message::Close(frame)) => bail!("the server has closed: {frame:?}"),
            Ok(_) => Ok(None),
            Err(tungstenite::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("the WebSocket"),
        }
    }

    /// The same; offers are answered.
    fn hear(&mut self, shared: &Shared) -> Result<Option<Told>> {
        let told = self.next()?;
        match &told {
            Some(Told::Offer(offer)) => {
                let parsed = SdpOffer::from_sdp_string(&offer.sdp);
                let parsed = parsed.map_err(|e| anyhow!("the server's offer: {e}"))?;
                let answer = self.rtc.sdp_api().accept_offer(parsed);
                let answer = answer.map_err(|e| anyhow!("the server's offer: {e}"))?;
                self.ask(Ask::Answer(SessionDescription {
                    r#type: "answer".into(),
                    sdp: answer.to_sdp_string(),
                    id: offer.id,
                    ..SessionDescription::default()
                }))?;
                self.drain(shared)?;
            }
            Some(Told::Update(update)) => self.size(&update.participants)?,
            Some(Told::Leave(leave)) => bail!("the server ends it: {:?}", leave.reason()),
            _ => {}
        }
        Ok(told)
    }

    /// Asks for others' pictures as large as they are wanted.
    fn size(&mut self, others: &[ParticipantInfo]) -> Result<()> {
        for other in others {
            if other.identity == self.plan.identity {
                continue;
            }
            let large = match self.plan.pictures {
                Pictures::Full => return Ok(()),
                Pictures::Stage => other.identity == format!("{PUBLISHER}0"),
                Pictures::Small => false,
            };
            let (quality, height) = match large {
                true => (VideoQuality::High, 720),
                false => (VideoQuality::Low, 180),
            };
            let videos = other
                .tracks
                .iter()
                .filter(|t| t.r#type() == TrackType::Video);
            let sids = videos.map(|track| track.sid.clone());
            let new: Vec<_> = sids.filter(|sid| self.sized.insert(sid.clone())).collect();
            if !new.is_empty() {
                self.ask(Ask::TrackSetting(UpdateTrackSettings {
                    track_sids: new,
                    quality: quality.into(),
                    width: height * 16 / 9,
                    height,
                    ..UpdateTrackSettings::default()
                }))?;
            }
        }
        Ok(())
    }

    /// Takes a datagram, or what is due.
    fn media(&mut self, shared: &Shared, buffer: &mut [u8]) -> Result<()> {
        let timeout = self.drain(shared)?;
        if !self.rtc.is_alive() {
            bail!("the connection was lost");
        }
        let now = Instant::now();
        let wait = timeout.saturating_duration_since(now);
        let wait = wait.clamp(Duration::from_micros(100), LOOK);
        self.socket
            .set_read_timeout(Some(wait))
            .context("UDP socket")?;
        let received = self.socket.recv_from(buffer);
        let now = Instant::now();
        let input = match received {
            Ok((length, source)) => {
                match Receive::new(Protocol::Udp, source, self.address, &buffer[..length]) {
                    Ok(receive) => Input::Receive(now, receive),
                    Err(_) => return Ok(()),
                }
            }
            Err(error) if crate::publish::is_passing(&error) => Input::Timeout(now),
            Err(error) => return Err(error).context("UDP socket"),
        };
        self.rtc.handle_input(input).map_err(|e| anyhow!("{e}"))
    }

    fn drain(&mut self, shared: &Shared) -> Result<Instant> {
        loop {
            match self.rtc.poll_output().map_err(|e| anyhow!("{e}"))? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(datagram) => {
                    // What a full buffer loses is asked for again.
                    let _ = self
                        .socket
                        .send_to(&datagram.contents, datagram.destination);
                }
                Output::Event(Event::Connected) => {
                    if let Ok(mut joined) = shared.joined.lock() {
                        joined.get_or_insert_with(|| self.asked.elapsed());
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => {
                    shared.packets.fetch_add(1, Relaxed);
                    if shared.steady.load(Relaxed) {
                        let number: u64 = *packet.seq_no;
                        let came = self.came.entry(*packet.header.ssrc).or_insert(Came {
                            first: number,
                            highest: number,
                            count: 0,
                        });
                        came.first = came.first.min(number);
                        came.highest = came.highest.max(number);
                        came.count += 1;
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}

fn bind(local: IpAddr) -> Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind((local, 0)).context("UDP socket")?;
    let address = socket.local_addr().context("UDP socket")?;
    Ok((socket, address))
}

fn video(stream: &StreamArgs) -> AddTrackRequest {
    let qualities = [VideoQuality::High, VideoQuality::Medium, VideoQuality::Low];
    let (width, height) = (1_280, 720);
    let layer = |n: u8| VideoLayer {
        quality: qualities[usize::from(n)].into(),
        width: width >> n,
        height: height >> n,
        ..VideoLayer::default()
    };
    let layers: Vec<_> = (0..stream.layers).rev().map(layer).collect();
    AddTrackRequest {
        cid: "video".into(),
        r#type: TrackType::Video.into(),
        source: TrackSource::Camera.into(),
        width,
        height,
        layers: layers.clone(),
        simulcast_codecs: vec![SimulcastCodec {
            codec: "h264".into(),
            cid: "video".into(),
            layers,
            ..SimulcastCodec::default()
        }],
        ..AddTrackRequest::default()
    }
}
