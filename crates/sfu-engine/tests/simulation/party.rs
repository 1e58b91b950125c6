// SPDX-License-Identifier: MPL-2.0

//! A peer that gets many streams: a `str0m` client with an m-line for each, that checks each by itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sfu_engine::SessionId;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};

use crate::viewer::Pictures;

/// What comes on an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Pictures(usize),
    Sound(usize),
}

pub(crate) struct Party {
    rtc: Rtc,
    pub(crate) address: SocketAddr,
    pub(crate) session: SessionId,
    pending: Option<SdpPendingOffer>,
    video: Vec<Mid>,
    lines: HashMap<u32, Line>,
    joined: Instant,
    /// It could not go on.
    pub(crate) failed: Option<RtcError>,
    pub(crate) next: Instant,
    pub(crate) pictures: Vec<Pictures>,
    /// Packets on each m-line of sound.
    pub(crate) sounds: Vec<u64>,
}

impl Party {
    /// In this place, as the nth that there ever was, with so many m-lines of each kind. Returns its offer, too.
    pub(crate) fn new(now: Instant, index: usize, nth: usize, lines: usize) -> (Self, String) {
        let mut party = Self::invited(now, index, nth);
        let mut api = party.rtc.sdp_api();
        let mut add = |kind| api.add_media(kind, Direction::RecvOnly, None, None, None);
        let video = (0..lines).map(|_| add(MediaKind::Video)).collect();
        for _ in 0..lines {
            add(MediaKind::Audio);
        }
        let (offer, pending) = api.apply().unwrap();
        party.video = video;
        party.pending = Some(pending);
        (party, offer.to_sdp_string())
    }

    /// The same without m-lines: it waits for our offer.
    pub(crate) fn invited(now: Instant, index: usize, nth: usize) -> Self {
        let [hi, lo] = (index as u16).to_be_bytes();
        let port = 10_000 + (nth % 50_000) as u16;
        let address = SocketAddr::from(([10, 0, hi, lo], port));
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            address,
            session: SessionId::from_bits(nth as u128 + 1),
            pending: None,
            video: Vec::new(),
            lines: HashMap::new(),
            joined: now,
            failed: None,
            next: now,
            pictures: Vec::new(),
            sounds: Vec::new(),
        }
    }

    /// Answers an offer of the server's.
    pub(crate) fn answer(&mut self, offer: &str) -> String {
        self.read_sources(offer);
        let parsed = SdpOffer::from_sdp_string(offer).unwrap();
        let answer = self.rtc.sdp_api().accept_offer(parsed).unwrap();
        let videos = offer.split("\r\nm=").filter(|s| s.starts_with("video"));
        let mids = videos.map(|s| {
            let mid = s.lines().find_map(|l| l.strip_prefix("a=mid:"));
            Mid::from(mid.unwrap())
        });
        self.video = mids.collect();
        answer.to_sdp_string()
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        self.read_sources(answer);
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    /// Which m-line an SSRC is of, in the answer's order.
    fn read_sources(&mut self, answer: &str) {
        let (mut videos, mut audios) = (0, 0);
        let mut line = None;
        for text in answer.lines() {
            if text.starts_with("m=video") {
                line = Some(Line::Pictures(videos));
                videos += 1;
            } else if text.starts_with("m=audio") {
                line = Some(Line::Sound(audios));
                audios += 1;
            } else if let Some(source) = text.strip_prefix("a=ssrc:")
                && let Some(ssrc) = source.split(' ').next()
                && let Some(line) = line
            {
                self.lines.insert(ssrc.parse().unwrap(), line);
            }
        }
        self.pictures.resize_with(videos, Pictures::default);
        self.sounds.resize(audios, 0);
    }

    pub(crate) fn receive(&mut self, now: Instant, source: SocketAddr, data: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let receive = Receive::new(Protocol::Udp, source, self.address, data).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
    }

    /// Puts out what is due. Asks for keyframes where it can't decode, as browsers do.
    pub(crate) fn drain(&mut self, now: Instant, mut transmit: impl FnMut(&[u8])) {
        if self.failed.is_some() {
            self.next = now + Duration::from_secs(3_600);
            return;
        }
        for (pictures, mid) in self.pictures.iter_mut().zip(&self.video) {
            let mut api = self.rtc.direct_api();
            if pictures.broken.asks(now)
                && let Some(stream) = api.stream_rx_by_mid(*mid, None)
            {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        loop {
            let output = match self.rtc.poll_output() {
                Ok(output) => output,
                Err(error) => {
                    let joined = now.saturating_duration_since(self.joined);
                    println!("{error} {joined:?} after {} joined", self.address);
                    self.failed = Some(error);
                    self.next = now + Duration::from_secs(3_600);
                    return;
                }
            };
            match output {
                Output::Timeout(at) => {
                    self.next = at.max(now + Duration::from_millis(1));
                    break;
                }
                Output::Transmit(datagram) => transmit(&datagram.contents),
                Output::Event(Event::RtpPacket(packet)) => {
                    match self.lines.get(&packet.header.ssrc) {
                        Some(Line::Pictures(line)) => self.pictures[*line].take(now, &packet),
                        Some(Line::Sound(line)) => self.sounds[*line] += 1,
                        None => panic!("an SSRC that the answer does not have"),
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}
