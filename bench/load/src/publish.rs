// SPDX-License-Identifier: MPL-2.0

//! The WHIP publisher (RFC 9725): sends the test stream on `str0m` in RTP mode, on a thread of its own.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::args::StreamArgs;
use crate::clock;
use crate::generator::{self, AUDIO_PACKET, AUDIO_TICKS, FPS, Layer, TICKS};
use crate::join;

/// The names of the layers, highest first.
const RIDS: [&str; 3] = ["h", "m", "l"];
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Keyframes that are asked for come at most this often.
const KEYFRAME_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connected: AtomicBool,
    packets: AtomicU64,
    error: Mutex<Option<String>>,
}

/// The publishers of a run's streams.
#[derive(Debug, Default)]
pub struct Publishers(Vec<Publisher>);

impl Publishers {
    /// Publishes one after the other.
    pub fn start(url: &str, streams: u16, stream: &StreamArgs) -> Result<Self> {
        let urls = (0..streams).map(|n| join::stream_url(url, streams, n.into()));
        let publishers: Result<Vec<_>> = urls.map(|url| Publisher::start(&url, stream)).collect();
        Ok(Self(publishers?))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Packets sent so far.
    pub fn packets(&self) -> u64 {
        self.0.iter().map(Publisher::packets).sum()
    }

    /// Whether all go on.
    pub fn check(&self) -> Result<()> {
        self.0.iter().try_for_each(Publisher::check)
    }
}

/// A publisher. Leaves when dropped.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// To be deleted at the end (WHIP).
    session: Option<(ureq::Agent, String)>,
}

impl Publisher {
    /// Publishes, and waits until the connection is there.
    fn start(url: &str, stream: &StreamArgs) -> Result<Self> {
        let local = join::local_address(join::server_address(url)?)?;
        let socket = UdpSocket::bind((local, 0)).context("UDP socket")?;
        let address = socket.local_addr().context("UDP socket")?;
        let agent = join::agent();
        let offered = Offered::new(address, stream)?;
        let (answer, session) = join::post_offer(&agent, url, &offered.sdp)?;
        let negotiated = offered.accept(&answer).with_context(|| url.to_owned())?;
        let mut publisher = Self::begin(negotiated, socket, address, stream)?;
        publisher.session = session.map(|url| (agent, url));
        publisher.wait()?;
        Ok(publisher)
    }

    /// Sends what was negotiated as soon as the connection is there.
    pub fn begin(
        negotiated: Negotiated,
        socket: UdpSocket,
        address: SocketAddr,
        stream: &StreamArgs,
    ) -> Result<Self> {
        let Negotiated {
            mut rtc,
            video,
            audio,
        } = negotiated;
        let video = match video {
            Some(mid) => Some((mid, payload_type(&mut rtc, mid, Codec::H264)?)),
            None => None,
        };
        let audio = match audio {
            Some(mid) => Some(Audio {
                mid,
                pt: payload_type(&mut rtc, mid, Codec::Opus)?,
                sent: 0,
            }),
            None => None,
        };
        let shared = Arc::new(Shared::default());
        let session_thread = Sender {
            rtc,
            socket,
            address,
            video,
            tracks: tracks(stream),
            audio,
            frame: 0,
            shared: shared.clone(),
            keyframe_frames: (stream.keyframe_interval.as_secs_f64() * f64::from(FPS)) as u64,
        };
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || session_thread.run())
            .context("thread")?;
        Ok(Self {
            shared,
            thread: Some(thread),
            session: None,
        })
    }

    fn wait(&self) -> Result<()> {
        let until = Instant::now() + CONNECT_WITHIN;
        while !self.shared.connected.load(Ordering::Relaxed) {
            self.check()?;
            if Instant::now() > until {
                bail!("publishing: no connection within {CONNECT_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Packets sent so far.
    fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::Relaxed)
    }

    /// Whether it still goes on.
    pub fn check(&self) -> Result<()> {
        match self.shared.error.lock().map(|e| e.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => bail!("publishing: {error}"),
            Err(_) => bail!("publishing: its thread had panicked"),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("sfu-load: the publisher's thread had panicked");
        }
        if let Some((agent, url)) = &self.session {
            // What fails now does not matter any more.
            let _ = agent.delete(url).call();
        }
    }
}

/// What an offer and its answer came to.
#[derive(Debug)]
pub struct Negotiated {
    rtc: Rtc,
    video: Option<Mid>,
    audio: Option<Mid>,
}

/// An offer of the generated stream.
#[derive(Debug)]
pub struct Offered {
    pub sdp: String,
    pending: SdpPendingOffer,
    negotiated: Negotiated,
}

impl Offered {
    /// Offers it from a socket with this address.
    pub fn new(address: SocketAddr, stream: &StreamArgs) -> Result<Self> {
        let layers = usize::from(stream.layers);
        let mut config = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(stream.has_audio(), false);
        config
            .codec_config()
            .add_h264(102.into(), Some(103.into()), true, 0x42_e0_1f);
        let mut rtc = config.build(Instant::now());
        let candidate = Candidate::host(address, "udp").map_err(|e| anyhow!("{address}: {e}"))?;
        rtc.add_local_candidate(candidate);
        let simulcast = (layers > 1).then(|| {
            let mut simulcast = Simulcast::new();
            for rid in &RIDS[..layers] {
                simulcast.add_send_layer(SimulcastLayer::new(rid));
            }
            simulcast
        });
        let mut changes = rtc.sdp_api();
        let direction = Direction::SendOnly;
        let video = (!stream.sound_only)
            .then(|| changes.add_media(MediaKind::Video, direction, None, None, simulcast));
        let audio = stream
            .has_audio()
            .then(|| changes.add_media(MediaKind::Audio, direction, None, None, None));
        let (offer, pending) = changes.apply().context("no offer was made")?;
        Ok(Self {
            sdp: offer.to_sdp_string(),
            pending,
            negotiated: Negotiated { rtc, video, audio },
        })
    }

    /// Takes the answer to it.
    pub fn accept(self, answer: &str) -> Result<Negotiated> {
        let mut negotiated = self.negotiated;
        let answer = SdpAnswer::from_sdp_string(answer).map_err(|e| anyhow!("the answer: {e}"))?;
        let taken = negotiated.rtc.sdp_api().accept_answer(self.pending, answer);
        taken.map_err(|e| anyhow!("the answer: {e}"))?;
        Ok(negotiated)
    }
}

fn payload_type(rtc: &mut Rtc, mid: Mid, wanted: Codec) -> Result<Pt> {
    let media = rtc.media(mid).context("the server has refused a track")?;
    let numbers: Vec<Pt> = media.remote_pts().to_vec();
    let params = rtc.codec_config().params().to_vec();
    let found = numbers.into_iter().find(|pt| {
        let codec = params
            .iter()
            .find(|p| p.pt() == *pt)
            .map(|p| p.spec().codec);
        codec == Some(wanted)
    });
    found.with_context(|| format!("the server does not take {wanted:?}"))
}

struct Track {
    rid: Option<Rid>,
    layer: Layer,
    seq: u64,
    wants_key: bool,
    key_at: Option<Instant>,
}

fn tracks(stream: &StreamArgs) -> Vec<Track> {
    let layers = generator::layers(stream);
    let simulcast = layers.len() > 1;
    let tracks = layers.into_iter().zip(RIDS).map(|(layer, rid)| Track {
        rid: simulcast.then(|| rid.into()),
        layer,
        seq: 1_000,
        wants_key: true,
        key_at: None,
    });
    tracks.collect()
}

struct Audio {
    mid: Mid,
    pt: Pt,
    /// Packets so far.
    sent: u32,
}

struct Sender {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    video: Option<(Mid, Pt)>,
    tracks: Vec<Track>,
    audio: Option<Audio>,
    frame: u64,
    shared: Arc<Shared>,
    keyframe_frames: u64,
}

impl Sender {
    fn run(mut self) {
        if let Err(error) = self.try_run()
            && let Ok(mut place) = self.shared.error.lock()
        {
            *place = Some(format!("{error:#}"));
        }
    }

    fn try_run(&mut self) -> Result<()> {
        let mut buffer = vec![0; 2_048];
        let start = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let timeout = self.drain()?;
            if !self.rtc.is_alive() {
                bail!("the connection was lost");
            }
            let due = start + Duration::from_secs(self.frame) / FPS;
            let audio_due = self.audio.as_ref().map(|a| start + AUDIO_PACKET * a.sent);
            let now = Instant::now();
            if audio_due.is_some_and(|due| now >= due) {
                self.send_audio(now);
                continue;
            }
            if now >= due {
                self.send_frame(now);
                self.frame += 1;
                continue;
            }
            let next = audio_due.map_or(due, |audio| audio.min(due));
            let wait = timeout.min(next).saturating_duration_since(now);
            self.receive(&mut buffer, wait.max(Duration::from_micros(100)))?;
        }
        Ok(())
    }

    /// Waits for a datagram, and moves the session's time.
    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> Result<()> {
        self.socket
            .set_read_timeout(Some(wait))
            .context("UDP socket")?;
        let received = self.socket.recv_from(buffer);
        let now = Instant::now();
        let input = match received {
            Ok((len, source)) => {
                match Receive::new(Protocol::Udp, source, self.address, &buffer[..len]) {
                    Ok(receive) => Input::Receive(now, receive),
                    Err(_) => return Ok(()),
                }
            }
            Err(error) if is_passing(&error) => Input::Timeout(now),
            Err(error) => return Err(error).context("UDP socket"),
        };
        self.rtc.handle_input(input).map_err(|e| anyhow!("{e}"))
    }

    fn drain(&mut self) -> Result<Instant> {
        loop {
            match self.rtc.poll_output().map_err(|e| anyhow!("{e}"))? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(datagram) => {
                    // What a full buffer loses, the server asks for again.
                    let _ = self
                        .socket
                        .send_to(&datagram.contents, datagram.destination);
                }
                Output::Event(Event::Connected) => {
                    self.shared.connected.store(true, Ordering::Relaxed);
                }
                Output::Event(Event::KeyframeRequest(request)) => {
                    let wanted = self.tracks.iter_mut().filter(|t| t.rid == request.rid);
                    wanted.for_each(|t| t.wants_key = true);
                }
                Output::Event(_) => {}
            }
        }
    }

    fn send_audio(&mut self, now: Instant) {
        let Some(audio) = &mut self.audio else {
            return;
        };
        let number = audio.sent;
        audio.sent += 1;
        if !self.shared.connected.load(Ordering::Relaxed) {
            return;
        }
        let mut payload = generator::audio_packet();
        payload.stamp(clock::now_ns());
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(audio.mid, None) else {
            return;
        };
        let timestamp = number.wrapping_mul(AUDIO_TICKS);
        let data: Arc<[u8]> = payload.data.as_slice().into();
        let sequence = 1_000 + u64::from(number);
        stream.write_rtp(RtpWrite::new(
            audio.pt,
            sequence.into(),
            timestamp,
            now,
            data,
        ));
        self.shared.packets.fetch_add(1, Ordering::Relaxed);
        // Time must move before it leaves; an error shows at the next step.
        let _ = self.rtc.handle_input(Input::Timeout(now));
    }

    fn send_frame(&mut self, now: Instant) {
        let Some((mid, pt)) = self.video else {
            return;
        };
        if !self.shared.connected.load(Ordering::Relaxed) {
            return;
        }
        let timestamp = (self.frame as u32).wrapping_mul(TICKS).wrapping_add(90_000);
        let regular = self.keyframe_frames > 0 && self.frame.is_multiple_of(self.keyframe_frames);
        for track in &mut self.tracks {
            let rested = track.key_at.is_none_or(|at| now - at >= KEYFRAME_PAUSE);
            let key = rested && (track.wants_key || regular);
            if key {
                track.wants_key = false;
                track.key_at = Some(now);
            }
            let mut payloads = track.layer.frame(key);
            let last = payloads.len() - 1;
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(mid, track.rid) else {
                continue;
            };
            for (n, payload) in payloads.iter_mut().enumerate() {
                payload.stamp(clock::now_ns());
                let data: Arc<[u8]> = payload.data.as_slice().into();
                let rtp = RtpWrite::new(pt, track.seq.into(), timestamp, now, data);
                stream.write_rtp(rtp.marker(n == last).nackable(true));
                track.seq += 1;
            }
            self.shared
                .packets
                .fetch_add(payloads.len() as u64, Ordering::Relaxed);
        }
        // Time must move before they leave; an error shows at the next step.
        let _ = self.rtc.handle_input(Input::Timeout(now));
    }
}

/// Nothing came, or an ICMP error of what was sent came back.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
    )
}
