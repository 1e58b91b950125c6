// SPDX-License-Identifier: MPL-2.0

//! A peer that publishes several tracks over one transport: a `str0m` client with a microphone, a camera of three layers, and
//! maybe a screen with its sound, with frames that say what they are. Over the same transport it may be sent others' tracks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sfu_engine::SessionId;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{
    Direction, KeyframeRequestKind, MediaKind, Mid, Rid, Simulcast, SimulcastLayer,
};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::publisher::{FRAME, Frame, LADDER, payload};
use crate::viewer;

/// Their names say which layer they are; highest first.
const RIDS: [&str; 3] = ["0", "1", "2"];
/// Near the wrap.
const FIRST_SOUND: u64 = 65_500;
/// The camera's keyframes.
const KEYFRAME_EVERY: u32 = 60;
/// The screen's frames are a third of the camera's, of so many packets.
const SCREEN_EVERY: u32 = 3;
const SCREEN_PACKETS: u32 = 3;

pub(crate) struct Participant {
    rtc: Rtc,
    pub(crate) address: SocketAddr,
    pub(crate) session: SessionId,
    pub(crate) next: Instant,
    connected: bool,
    pending: Option<SdpPendingOffer>,
    start: Instant,
    next_frame: Instant,
    tick: u32,
    sounds: Vec<Sound>,
    pictures: Vec<Pictures>,
    /// What it is sent.
    pub(crate) received: Received,
}

/// What it is sent.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) lines: Vec<ReceivedLine>,
    /// The m-line of each SSRC that answers ever had.
    by_ssrc: HashMap<u32, usize>,
}

/// An m-line on which it is sent something.
pub(crate) struct ReceivedLine {
    mid: Mid,
    pub(crate) is_sound: bool,
    pub(crate) pictures: viewer::Pictures,
    /// Packets of sound.
    pub(crate) sounds: u64,
}

impl Received {
    /// Which m-line an SSRC is of.
    fn read_sources(&mut self, answer: &str) {
        for section in answer.split("\r\nm=").skip(1) {
            let mid = section.lines().find_map(|l| l.strip_prefix("a=mid:"));
            let mid = Mid::from(mid.unwrap());
            let Some(line) = self.lines.iter().position(|line| line.mid == mid) else {
                continue;
            };
            for source in section.lines().filter_map(|l| l.strip_prefix("a=ssrc:")) {
                let ssrc = source.split(' ').next().unwrap();
                self.by_ssrc.insert(ssrc.parse().unwrap(), line);
            }
        }
    }

    fn take(&mut self, now: Instant, packet: &RtpPacket) {
        let line = self.by_ssrc.get(&packet.header.ssrc);
        let line = line.expect("an SSRC that an answer had");
        let line = &mut self.lines[*line];
        match line.is_sound {
            true => line.sounds += 1,
            false => line.pictures.take(now, packet),
        }
    }

    /// The place of the m-line with this name.
    pub(crate) fn line(&self, mid: &str) -> usize {
        let mid = Mid::from(mid);
        let found = self.lines.iter().position(|line| line.mid == mid);
        found.expect("an m-line on which it only receives")
    }
}

struct Sound {
    mid: Mid,
    seq: u64,
    is_on: bool,
}

struct Pictures {
    mid: Mid,
    is_on: bool,
    /// Ticks from one frame to the next.
    every: u32,
    layers: Vec<Layer>,
}

struct Layer {
    rid: Option<Rid>,
    seq: u64,
    packets: u32,
    wants_key: bool,
    key_at: u32,
}

impl Participant {
    /// In this place, with a screen or without, and its offer.
    pub(crate) fn new(now: Instant, index: usize, screen: bool) -> (Self, String) {
        let mut this = Self::bare(now, index);
        let offer = this.add(true, screen);
        (this, offer)
    }

    /// In this place, with nothing to send at first, and m-lines for so many sounds and pictures; and its offer.
    pub(crate) fn watching(now: Instant, index: usize, lines: usize) -> (Self, String) {
        let mut this = Self::bare(now, index);
        let offer = this.expect(lines, lines);
        (this, offer)
    }

    fn bare(now: Instant, index: usize) -> Self {
        let [hi, lo] = (index as u16).to_be_bytes();
        let address = SocketAddr::from(([10, 1, hi, lo], 40_000));
        let mut config = Rtc::builder().set_rtp_mode(true).clear_codecs();
        config.codec_config().enable_opus(true, false);
        config
            .codec_config()
            .add_h264(102.into(), Some(103.into()), true, 0x42_e0_1f);
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            address,
            session: SessionId::from_bits(1 << 64 | index as u128),
            next: now,
            connected: false,
            pending: None,
            start: now,
            next_frame: now,
            tick: 0,
            sounds: Vec::new(),
            pictures: Vec::new(),
            received: Received::default(),
        }
    }

    /// Adds m-lines for so many more sounds and pictures. Returns the offer.
    pub(crate) fn expect(&mut self, sounds: usize, pictures: usize) -> String {
        let mut api = self.rtc.sdp_api();
        let kinds = [(MediaKind::Audio, sounds), (MediaKind::Video, pictures)];
        for (kind, count) in kinds {
            for _ in 0..count {
                let mid = api.add_media(kind, Direction::RecvOnly, None, None, None);
                self.received.lines.push(ReceivedLine {
                    mid,
                    is_sound: kind == MediaKind::Audio,
                    pictures: viewer::Pictures::default(),
                    sounds: 0,
                });
            }
        }
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// Adds a microphone with a camera, and a screen with its sound. Returns the offer.
    pub(crate) fn add(&mut self, camera: bool, screen: bool) -> String {
        let mut api = self.rtc.sdp_api();
        let mut simulcast = Simulcast::new();
        for rid in RIDS {
            simulcast.add_send_layer(SimulcastLayer::new(rid));
        }
        let send = Direction::SendOnly;
        for (is_wanted, simulcast) in [(camera, Some(simulcast)), (screen, None)] {
            if !is_wanted {
                continue;
            }
            let sound = api.add_media(MediaKind::Audio, send, None, None, None);
            self.sounds.push(Sound {
                mid: sound,
                seq: FIRST_SOUND,
                is_on: true,
            });
            let is_camera = simulcast.is_some();
            let mid = api.add_media(MediaKind::Video, send, None, None, simulcast);
            let layer = |rid: Option<Rid>, packets| Layer {
                rid,
                seq: 65_000,
                packets,
                wants_key: true,
                key_at: 0,
            };
            let camera = RIDS.iter().zip(LADDER);
            let camera = camera.map(|(rid, packets)| layer(Some((*rid).into()), packets));
            self.pictures.push(Pictures {
                mid,
                is_on: true,
                every: if is_camera { 1 } else { SCREEN_EVERY },
                layers: match is_camera {
                    true => camera.collect(),
                    false => vec![layer(None, SCREEN_PACKETS)],
                },
            });
        }
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// An offer that changes next to nothing: `str0m` does not by itself offer again to receive on an m-line that was answered as
    /// inactive, as others do; where there is none it gives up its last one for pictures.
    pub(crate) fn nudge(&mut self) -> String {
        let is_inactive = |mid: &Mid| {
            let media = self.rtc.media(*mid).unwrap();
            media.direction() == Direction::Inactive
        };
        let mids = self.received.lines.iter().map(|line| line.mid);
        let inactive: Vec<_> = mids.filter(is_inactive).collect();
        let mut lines = self.received.lines.iter();
        let last = lines.rfind(|line| !line.is_sound).unwrap().mid;
        let mut api = self.rtc.sdp_api();
        if inactive.is_empty() {
            api.set_direction(last, Direction::Inactive);
        }
        for mid in inactive {
            api.set_direction(mid, Direction::RecvOnly);
        }
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// From now on it sends these of a sound and pictures that belong together. Returns the offer.
    pub(crate) fn set(&mut self, pair: usize, sound: bool, pictures: bool) -> String {
        let mut api = self.rtc.sdp_api();
        let direction = |is_on| match is_on {
            true => Direction::SendOnly,
            false => Direction::Inactive,
        };
        let (own_sound, own_pictures) = (&mut self.sounds[pair], &mut self.pictures[pair]);
        own_sound.is_on = sound;
        own_pictures.is_on = pictures;
        for layer in &mut own_pictures.layers {
            layer.wants_key = true;
        }
        api.set_direction(own_sound.mid, direction(sound));
        api.set_direction(own_pictures.mid, direction(pictures));
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// ICE begins anew. Returns the offer.
    pub(crate) fn restart_ice(&mut self) -> String {
        let mut api = self.rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// The m-lines of each sound and the pictures that belong to it.
    pub(crate) fn pairs(&self) -> Vec<[String; 2]> {
        let name = |mid: Mid| mid.to_string().trim().to_owned();
        let pairs = self.sounds.iter().zip(&self.pictures);
        pairs.map(|(s, p)| [name(s.mid), name(p.mid)]).collect()
    }

    /// Packets of a sound that were sent.
    pub(crate) fn sounds_sent(&self, sound: usize) -> u64 {
        self.sounds[sound].seq - FIRST_SOUND
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        self.received.read_sources(answer);
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    pub(crate) fn receive(&mut self, now: Instant, source: SocketAddr, data: &[u8]) {
        let receive = Receive::new(Protocol::Udp, source, self.address, data).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
    }

    /// Sends the frames that are due, and puts out what else is.
    pub(crate) fn drain(&mut self, now: Instant, mut transmit: impl FnMut(&[u8])) {
        if self.connected && self.next_frame <= now {
            self.send_frames(now);
        }
        for line in self.received.lines.iter_mut().filter(|l| !l.is_sound) {
            let mut api = self.rtc.direct_api();
            if line.pictures.broken.asks(now)
                && let Some(stream) = api.stream_rx_by_mid(line.mid, None)
            {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.next = at.max(now + Duration::from_millis(1));
                    break;
                }
                Output::Transmit(datagram) => transmit(&datagram.contents),
                Output::Event(Event::Connected) => {
                    self.connected = true;
                    self.next_frame = now;
                }
                Output::Event(Event::KeyframeRequest(request)) => {
                    let mut pictures = self.pictures.iter_mut();
                    let pictures = pictures.find(|p| p.mid == request.mid);
                    let layers = pictures.into_iter().flat_map(|p| &mut p.layers);
                    for layer in layers.filter(|l| l.rid == request.rid) {
                        layer.wants_key = true;
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => self.received.take(now, &packet),
                Output::Event(_) => {}
            }
        }
        if self.connected {
            self.next = self.next.min(self.next_frame);
        }
    }

    fn send_frames(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.start);
        for pictures in self.pictures.iter_mut().filter(|p| p.is_on) {
            if !self.tick.is_multiple_of(pictures.every) {
                continue;
            }
            let number = self.tick / pictures.every;
            for (index, layer) in pictures.layers.iter_mut().enumerate() {
                let regular = pictures.every == 1 && number.is_multiple_of(KEYFRAME_EVERY);
                let key = std::mem::take(&mut layer.wants_key) || regular;
                let count = layer.packets * if key { 4 } else { 1 };
                if key {
                    layer.key_at = number;
                }
                let frame = Frame::new(number, layer.key_at, 1);
                // Each layer's clock begins elsewhere.
                let timestamp =
                    (elapsed.as_micros() * 90 / 1_000) as u32 + index as u32 * 1_000_000;
                for packet in 0..count {
                    let data = payload(frame, index, packet, count).to_vec();
                    let pt = self.rtc.media(pictures.mid).unwrap().remote_pts()[0];
                    let write = RtpWrite::new(pt, layer.seq.into(), timestamp, now, data)
                        .marker(packet + 1 == count)
                        .nackable(true);
                    layer.seq += 1;
                    let mut api = self.rtc.direct_api();
                    let stream = api.stream_tx_by_mid(pictures.mid, layer.rid).unwrap();
                    stream.write_rtp(write);
                }
            }
        }
        let timestamp = (elapsed.as_micros() * 48 / 1_000) as u32;
        for sound in self.sounds.iter_mut().filter(|s| s.is_on) {
            let pt = self.rtc.media(sound.mid).unwrap().remote_pts()[0];
            let write = RtpWrite::new(pt, sound.seq.into(), timestamp, now, vec![0x78; 80]);
            sound.seq += 1;
            let mut api = self.rtc.direct_api();
            api.stream_tx_by_mid(sound.mid, None)
                .unwrap()
                .write_rtp(write);
        }
        self.tick += 1;
        self.next_frame += FRAME;
    }
}
