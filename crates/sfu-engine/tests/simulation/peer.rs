// SPDX-License-Identifier: MPL-2.0

//! A publishing peer: a `str0m` client that sends simulcast over WHIP, with frames that say what they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_engine::SessionId;
use str0m::bwe::BweKind;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::CryptoProvider;
use str0m::media::{Direction, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap, RedEncoder, RedundantBlock, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::publisher::{FRAME, Frame, payload};
use crate::restart;

const RIDS: [&str; 3] = ["h", "m", "l"];
/// Packets of a frame, and of a keyframe.
const PACKETS: u32 = 2;
const KEY_PACKETS: u32 = 6;

pub(crate) struct TestPeer {
    pub(crate) rtc: Rtc,
    pub(crate) address: SocketAddr,
    pub(crate) session: SessionId,
    pub(crate) next: Instant,
    pub(crate) connected: bool,
    /// The computer was switched off.
    pub(crate) dead: bool,
    /// Layers that are not sent.
    pub(crate) silent: Vec<usize>,
    /// 2: every other picture is no reference for others.
    pub(crate) temporal_layers: u8,
    /// Its sound carries the last packet again (RED).
    pub(crate) red: bool,
    /// Keyframe requests, with their layer.
    pub(crate) asked: Vec<(Instant, usize)>,
    /// What the server's feedback makes of the network: by TWCC, and by REMB.
    pub(crate) twcc: Option<u64>,
    pub(crate) remb: Option<u64>,
    start: Instant,
    next_frame: Instant,
    frame: u32,
    mid: Mid,
    /// In different languages, where there are several.
    audio: Vec<Mid>,
    pending: Option<SdpPendingOffer>,
    answer: String,
    layers: Vec<Layer>,
    audio_seq: Vec<u64>,
}

struct Layer {
    rid: Option<Rid>,
    seq: u64,
    wants_key: bool,
    key_at: u32,
}

impl TestPeer {
    /// A peer with so many simulcast layers, and its offer. Without `twcc` it does not offer arrival reports. Its sound is in these
    /// languages, or one that it does not tell.
    pub(crate) fn new(
        now: Instant,
        index: usize,
        layers: usize,
        twcc: bool,
        languages: &[&str],
        crypto: Option<CryptoProvider>,
    ) -> (Self, String) {
        let [hi, lo] = (index as u16).to_be_bytes();
        let address = SocketAddr::from(([10, 1, hi, lo], 40_000));
        let mut config = Rtc::builder().set_rtp_mode(true).clear_codecs();
        if let Some(crypto) = crypto {
            config = config.set_crypto_provider(Arc::new(crypto));
        }
        config.codec_config().enable_opus(true, true);
        config
            .codec_config()
            .add_h264(102.into(), Some(103.into()), true, 0x42_e0_1f);
        if twcc {
            config = config.enable_bwe(Some(1_000_000.into()));
        } else {
            let mut extensions = ExtensionMap::empty();
            for (id, extension) in [
                (4, Extension::RtpMid),
                (10, Extension::RtpStreamId),
                (11, Extension::RepairedRtpStreamId),
            ] {
                extensions.set(id, extension);
            }
            config = config.set_extension_map(extensions);
        }
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let simulcast = (layers > 1).then(|| {
            let mut simulcast = Simulcast::new();
            for rid in &RIDS[..layers] {
                simulcast.add_send_layer(SimulcastLayer::new(rid));
            }
            simulcast
        });
        let mut api = rtc.sdp_api();
        let mid = api.add_media(MediaKind::Video, Direction::SendOnly, None, None, simulcast);
        let mut sound = || api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        let audio: Vec<_> = (0..languages.len().max(1)).map(|_| sound()).collect();
        let (offer, pending) = api.apply().unwrap();
        let offer = with_languages(&offer.to_sdp_string(), languages);
        let layers = RIDS.iter().take(layers).map(|rid| Layer {
            rid: (layers > 1).then(|| (*rid).into()),
            seq: 64_000,
            wants_key: true,
            key_at: 0,
        });
        let peer = Self {
            rtc,
            address,
            session: SessionId::from_bits(1 << 64 | index as u128),
            next: now,
            connected: false,
            dead: false,
            silent: Vec::new(),
            temporal_layers: 1,
            red: false,
            asked: Vec::new(),
            twcc: None,
            remb: None,
            start: now,
            next_frame: now,
            frame: 0,
            mid,
            audio_seq: (1..).map(|n| n * 1_000).take(audio.len()).collect(),
            audio,
            pending: Some(pending),
            answer: String::new(),
            layers: layers.collect(),
        };
        (peer, offer)
    }

    /// The name of its m-line for pictures.
    pub(crate) fn video_mid(&self) -> String {
        self.mid.to_string().trim().to_owned()
    }

    /// Begins an ICE restart after a cut. Returns the fragment for the server.
    pub(crate) fn restart_ice(&mut self) -> String {
        let (fragment, pending) = restart::begin(&mut self.rtc);
        self.pending = Some(pending);
        fragment
    }

    /// Ends an ICE restart.
    pub(crate) fn restarted(&mut self, fragment: &str) {
        let answer = restart::renewed(&self.answer, fragment);
        self.accept(&answer);
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        answer.clone_into(&mut self.answer);
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    pub(crate) fn receive(&mut self, now: Instant, source: SocketAddr, data: &[u8]) {
        if self.dead {
            return;
        }
        let receive = Receive::new(Protocol::Udp, source, self.address, data).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
    }

    /// Sends the frame that is due, and puts out what else is.
    pub(crate) fn drain(&mut self, now: Instant, mut transmit: impl FnMut(&[u8])) {
        if self.dead {
            self.next = now + Duration::from_secs(3_600);
            return;
        }
        if self.connected && self.next_frame <= now {
            self.send_frame(now);
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.next = at.max(now + Duration::from_millis(1));
                    break;
                }
                Output::Transmit(datagram) => transmit(&datagram.contents),
                Output::Event(event) => self.on_event(now, &event),
            }
        }
        if self.connected {
            self.next = self.next.min(self.next_frame);
        }
    }

    fn on_event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.next_frame = now;
            }
            Event::KeyframeRequest(request) => {
                let layer = self.layers.iter().position(|l| l.rid == request.rid);
                let layer = layer.expect("a layer that there is");
                self.layers[layer].wants_key = true;
                self.asked.push((now, layer));
            }
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) => {
                self.twcc = Some(estimate.as_u64());
            }
            Event::EgressBitrateEstimate(BweKind::Remb { estimate, .. }) => {
                self.remb = Some(estimate.as_u64());
            }
            _ => {}
        }
    }

    fn send_frame(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.start);
        let pt = |rtc: &Rtc, mid: Mid| -> Pt { rtc.media(mid).unwrap().remote_pts()[0] };
        let video_pt = pt(&self.rtc, self.mid);
        for (index, layer) in self.layers.iter_mut().enumerate() {
            if self.silent.contains(&index) {
                continue;
            }
            let key = std::mem::take(&mut layer.wants_key);
            let count = if key { KEY_PACKETS } else { PACKETS };
            if key {
                layer.key_at = self.frame;
            }
            let frame = Frame::new(self.frame, layer.key_at, self.temporal_layers);
            // Each layer's clock begins elsewhere.
            let timestamp = (elapsed.as_micros() * 90 / 1_000) as u32 + index as u32 * 1_000_000;
            for packet in 0..count {
                let data = payload(frame, index, packet, count);
                let marker = packet + 1 == count;
                let write = RtpWrite::new(video_pt, layer.seq.into(), timestamp, now, data)
                    .marker(marker)
                    .nackable(true);
                layer.seq += 1;
                let mut api = self.rtc.direct_api();
                let stream = api.stream_tx_by_mid(self.mid, layer.rid).unwrap();
                stream.write_rtp(write);
            }
        }
        for number in 0..self.audio.len() {
            self.send_sound(now, number);
        }
        self.frame += 1;
        self.next_frame += FRAME;
    }

    fn send_sound(&mut self, now: Instant, number: usize) {
        let elapsed = now.duration_since(self.start);
        let timestamp = (elapsed.as_micros() * 48 / 1_000) as u32;
        let mid = self.audio[number];
        let audio_pt = self.rtc.media(mid).unwrap().remote_pts()[0];
        let mut sound = vec![0x78; 80];
        sound[1] = number as u8;
        let mut pt = audio_pt;
        if self.red {
            let older = RedundantBlock {
                pt: *audio_pt,
                timestamp_offset: 1_584,
                payload: sound.clone(),
            };
            sound = RedEncoder::encode(*audio_pt, &sound, &[older]);
            let params = self.rtc.codec_config().params();
            let opus = params.iter().find(|p| p.pt() == audio_pt);
            pt = opus
                .and_then(str0m::format::PayloadParams::red)
                .expect("RED was agreed on");
        }
        let seq = &mut self.audio_seq[number];
        let write = RtpWrite::new(pt, (*seq).into(), timestamp, now, sound);
        *seq += 1;
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).unwrap();
        stream.write_rtp(write);
    }
}

/// An offer that says what is spoken on its m-lines of sound.
fn with_languages(offer: &str, languages: &[&str]) -> String {
    let mut languages = languages.iter();
    let mut told = String::new();
    let mut is_sound = false;
    for line in offer.lines() {
        told += line;
        told += "\r\n";
        if line.starts_with("m=") {
            is_sound = line.starts_with("m=audio");
        }
        if is_sound
            && line.starts_with("a=mid:")
            && let Some(language) = languages.next()
        {
            told += &format!("a=lang:{language}\r\n");
        }
    }
    told
}
