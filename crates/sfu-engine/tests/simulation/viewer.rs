// SPDX-License-Identifier: MPL-2.0

//! A viewer: a `str0m` client that receives, NACKs and checks that what it gets could be decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sfu_engine::{Codec, SessionId};
use str0m::change::SdpAnswer;
use str0m::config::CryptoProvider;
use str0m::format::FormatParams;
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues, RedDecoder, RtpPacket};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::publisher::{Mark, read_mark};
use crate::restart;

/// One received video packet, by its outgoing sequence number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) mark: Mark,
    /// When it came.
    pub(crate) at: Instant,
    pub(crate) timestamp: u64,
    /// When the packet says that it was captured.
    pub(crate) captured: Option<SystemTime>,
    /// How long it lets the viewer keep it back, in ms.
    pub(crate) playout_delay: Option<(u64, u64)>,
}

pub(crate) struct TestViewer {
    pub(crate) rtc: Rtc,
    pub(crate) address: SocketAddr,
    pub(crate) session: Option<SessionId>,
    video: Mid,
    pending: Option<str0m::change::SdpPendingOffer>,
    pub(crate) answer: String,
    /// The newest transport-wide number that came.
    pub(crate) number: Option<u16>,
    pub(crate) next: Instant,
    pub(crate) connected_at: Option<Instant>,
    pub(crate) first_picture_at: Option<Instant>,
    pub(crate) pictures: Pictures,
    pub(crate) audio_packets: u64,
    /// Of each: which track it is of, its sequence number and timestamp.
    pub(crate) sounds: Vec<(u8, u64, u32)>,
    /// Between the arrivals of two packets of sound.
    pub(crate) longest_between_sounds: Duration,
    last_sound: Option<Instant>,
    /// Packets of sound with redundancy, whole and of the agreed types.
    pub(crate) red_packets: u64,
    /// Asks for a keyframe this often, whatever it sees.
    pub(crate) nag: Option<(Duration, Instant)>,
    /// Asks for a keyframe when it can't decode, as browsers do.
    pub(crate) asks: bool,
    /// Has no stream of retransmissions, and asks for what it misses all the same, which `str0m` does not by itself.
    repeats: bool,
    /// The computer was switched off.
    pub(crate) dead: bool,
}

/// What a viewer offers, and what it leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Knows {
    pub(crate) red: bool,
    /// AV1's dependency descriptors.
    pub(crate) descriptors: bool,
    pub(crate) no_rtx: Option<Codec>,
    pub(crate) no_nack: bool,
    pub(crate) no_twcc: bool,
}

impl TestViewer {
    pub(crate) fn new(
        now: Instant,
        index: usize,
        crypto: Option<CryptoProvider>,
        knows: Knows,
    ) -> (Self, String) {
        let Knows {
            red: takes_red,
            descriptors: takes_descriptors,
            no_rtx,
            no_nack,
            no_twcc,
        } = knows;
        let [hi, lo] = (index as u16).to_be_bytes();
        let address = SocketAddr::from(([10, 0, hi, lo], 40_000));
        let mut config = Rtc::builder().set_rtp_mode(true);
        config.codec_config().enable_opus(true, takes_red);
        if let Some(codec) = no_rtx {
            config = config.clear_codecs();
            config.codec_config().enable_opus(true, takes_red);
            let codecs = config.codec_config();
            match codec {
                Codec::Vp8 => codecs.add_config(
                    96.into(),
                    None,
                    str0m::format::Codec::Vp8,
                    Frequency::NINETY_KHZ,
                    None,
                    FormatParams::default(),
                ),
                _ => codecs.add_h264(102.into(), None, true, 0x42_e0_1f),
            }
        }
        let extensions = config.extension_map();
        extensions.set(12, Extension::AbsoluteCaptureTime);
        extensions.set(13, Extension::PlayoutDelay);
        if takes_descriptors {
            extensions.set(
                11,
                Extension::with_serializer(Descriptor::URI, Descriptor::default()),
            );
        }
        if let Some(crypto) = crypto {
            config = config.set_crypto_provider(Arc::new(crypto));
        }
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let mut api = rtc.sdp_api();
        let video = api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let viewer = Self {
            rtc,
            address,
            session: None,
            video,
            pending: Some(pending),
            answer: String::new(),
            number: None,
            next: now,
            connected_at: None,
            first_picture_at: None,
            pictures: Pictures::default(),
            audio_packets: 0,
            sounds: Vec::new(),
            longest_between_sounds: Duration::ZERO,
            last_sound: None,
            red_packets: 0,
            nag: None,
            asks: false,
            repeats: no_rtx.is_some() && !no_nack,
            dead: false,
        };
        let offer = offer.to_sdp_string();
        let is_left_out = |line: &&str| {
            no_twcc && line.contains("transport-") || no_nack && line.trim_end().ends_with(" nack")
        };
        let lines = offer.split_inclusive('\n');
        let offer = lines.filter(|line| !is_left_out(line)).collect();
        (viewer, offer)
    }

    pub(crate) fn accept(&mut self, session: SessionId, answer: &str) {
        answer.clone_into(&mut self.answer);
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        let mut api = self.rtc.direct_api();
        let pictures = api.stream_rx_by_mid(self.video, None);
        if let Some(pictures) = pictures.filter(|_| self.repeats) {
            pictures.suppress_nack(false);
        }
        self.session = Some(session);
    }

    /// Begins an ICE restart, as a browser does whose network changed. Returns the fragment for the server.
    pub(crate) fn restart_ice(&mut self) -> String {
        let (fragment, pending) = restart::begin(&mut self.rtc);
        self.pending = Some(pending);
        fragment
    }

    /// Ends an ICE restart.
    pub(crate) fn restarted(&mut self, fragment: &str) {
        let answer = restart::renewed(&self.answer, fragment);
        self.accept(self.session.unwrap(), &answer);
    }

    pub(crate) fn receive(&mut self, now: Instant, source: SocketAddr, data: &[u8]) {
        if self.dead {
            return;
        }
        let receive = Receive::new(Protocol::Udp, source, self.address, data).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
    }

    /// Puts out what is due.
    pub(crate) fn drain(&mut self, now: Instant, mut transmit: impl FnMut(&[u8])) {
        if self.dead {
            self.next = now + Duration::from_secs(3_600);
            return;
        }
        self.nag(now);
        if self.asks && self.pictures.broken.asks(now) {
            self.request_keyframe();
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.next = at.max(now + Duration::from_millis(1));
                    break;
                }
                Output::Transmit(datagram) => transmit(&datagram.contents),
                Output::Event(Event::Connected) => self.connected_at = Some(now),
                Output::Event(Event::RtpPacket(packet)) => self.packet(now, &packet),
                Output::Event(_) => {}
            }
        }
        if let Some((_, at)) = self.nag {
            self.next = self.next.min(at.max(now + Duration::from_millis(1)));
        }
    }

    fn nag(&mut self, now: Instant) {
        let Some((every, at)) = &mut self.nag else {
            return;
        };
        if *at > now {
            return;
        }
        *at = now + *every;
        self.request_keyframe();
    }

    fn request_keyframe(&mut self) {
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_rx_by_mid(self.video, None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    fn packet(&mut self, now: Instant, packet: &RtpPacket) {
        self.number = packet.header.ext_vals.transport_cc.or(self.number);
        let is_video = self
            .rtc
            .media(self.video)
            .is_some_and(|m| m.remote_pts().contains(&packet.header.payload_type));
        if !is_video {
            self.audio_packets += 1;
            let track = packet.payload.get(1).copied().unwrap_or_default();
            let sound = (track, *packet.seq_no, packet.header.timestamp);
            self.sounds.push(sound);
            let since = self.last_sound.replace(now).map(|last| now - last);
            self.longest_between_sounds =
                self.longest_between_sounds.max(since.unwrap_or_default());
            self.red_packets += u64::from(self.is_red(packet));
            return;
        }
        self.pictures.take(now, packet);
        if self.first_picture_at.is_none() && self.decoded().frames > 0 {
            self.first_picture_at = Some(now);
        }
    }

    fn is_red(&self, packet: &RtpPacket) -> bool {
        let params = self.rtc.codec_config().params();
        let pt = packet.header.payload_type;
        let Some(opus) = params.iter().find(|p| p.red() == Some(pt)) else {
            return false;
        };
        let blocks = RedDecoder::decode(&packet.payload).unwrap();
        assert!(blocks.iter().all(|b| b.pt == *opus.pt()));
        blocks.len() == 2
    }
}

impl std::ops::Deref for TestViewer {
    type Target = Pictures;

    fn deref(&self) -> &Pictures {
        &self.pictures
    }
}

impl std::ops::DerefMut for TestViewer {
    fn deref_mut(&mut self) -> &mut Pictures {
        &mut self.pictures
    }
}

/// What came on an m-line of pictures.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    pub(crate) packets: BTreeMap<u64, Received>,
    /// Numbers of packets with nothing in them.
    pub(crate) empty: BTreeSet<u64>,
    /// The same of parameter sets that came by themselves.
    pub(crate) sets: BTreeSet<u64>,
    pub(crate) broken: Broken,
    /// Where set, packets are kept as they come, by their number, and not read.
    pub(crate) raw: Option<BTreeMap<u64, Raw>>,
}

/// A packet as it came.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) struct Raw {
    pub(crate) timestamp: u64,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
    /// Its dependency descriptor.
    pub(crate) descriptor: Option<Vec<u8>>,
}

/// The header extension as it came, which `str0m` does not know.
#[derive(Debug, Clone, Default)]
struct Descriptor(Vec<u8>);

impl Descriptor {
    const URI: &str =
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
}

impl ExtensionSerializer for Descriptor {
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        0
    }

    fn parse_value(&self, octets: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(Self(octets.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

impl Pictures {
    pub(crate) fn take(&mut self, now: Instant, packet: &RtpPacket) {
        if packet.payload.is_empty() {
            self.empty.insert(*packet.seq_no);
        }
        if let Some(raw) = &mut self.raw {
            let packet_as_it_came = Raw {
                timestamp: packet.time.numer(),
                marker: packet.header.marker,
                payload: packet.payload.to_vec(),
                descriptor: {
                    let values = &packet.header.ext_vals.user_values;
                    values.get().map(|Descriptor(octets)| octets.clone())
                },
            };
            let twice = raw.insert(*packet.seq_no, packet_as_it_came);
            assert!(twice.is_none(), "number {} came twice", packet.seq_no);
            return;
        }
        // Padding and probes carry no mark.
        // Those that say which packet they are, are longer.
        let nal = packet.payload.first().map(|nal| nal & 0x1f);
        if matches!(nal, Some(7 | 8 | 24)) && packet.payload.len() < 20 {
            self.sets.insert(*packet.seq_no);
            return;
        }
        let Some(mark) = read_mark(&packet.payload) else {
            return;
        };
        let values = &packet.header.ext_vals;
        let millis = |time: MediaTime| (time.as_seconds() * 1_000.0).round() as u64;
        let received = Received {
            mark,
            at: now,
            timestamp: packet.time.numer(),
            captured: values.abs_capture_time.map(|t| t.capture_time),
            playout_delay: values
                .play_delay_min
                .zip(values.play_delay_max)
                .map(|(min, max)| (millis(min), millis(max))),
        };
        let twice = self.packets.insert(*packet.seq_no, received);
        self.broken.note(now, *packet.seq_no, &self.packets);
        assert!(
            twice.is_none(),
            "sequence number {} came twice",
            packet.seq_no
        );
    }

    /// Forgets what came before the newest keyframe. Of use in a long day.
    #[allow(dead_code)]
    pub(crate) fn forget(&mut self) {
        let starts = |p: &Received| p.mark.key && p.mark.index == 0;
        let newest = self.packets.iter().rfind(|(_, p)| starts(p));
        if let Some((&seq, _)) = newest {
            self.packets = self.packets.split_off(&seq);
        }
    }

    /// What a decoder makes of the packets so far.
    pub(crate) fn decoded(&self) -> Decoded {
        let mut result = Decoded::default();
        let mut expected = None;
        let mut frame: Vec<Received> = Vec::new();
        let mut last_shown: Option<Mark> = None;
        // What can be referred to, of one layer.
        let mut shown: BTreeSet<u32> = BTreeSet::new();
        for (&seq, &packet) in &self.packets {
            let missing = expected.unwrap_or(seq)..seq;
            let missing = missing
                .filter(|seq| !self.empty.contains(seq) && !self.sets.contains(seq))
                .count();
            if missing > 0 {
                result.gaps += missing as u64;
                frame.clear();
                shown.clear();
                last_shown = None;
            }
            expected = Some(seq + 1);
            if frame
                .last()
                .is_some_and(|l| l.timestamp != packet.timestamp)
            {
                result.broken += u64::from(result.frames > 0);
                frame.clear();
            }
            frame.push(packet);
            let mark = packet.mark;
            if frame.len() < usize::from(mark.count) {
                continue;
            }
            let whole = frame.iter().zip(0u8..).all(|(p, n)| {
                (p.mark.index, p.mark.frame, p.mark.layer) == (n, mark.frame, mark.layer)
            });
            let follows =
                last_shown.is_some_and(|l| l.layer == mark.layer) && shown.contains(&mark.needs);
            if let (Some(before), Some(now)) = (last_shown.and_then(|l| l.counters), mark.counters)
            {
                let lowest = u8::from(mark.temporal == 0);
                let next = ((before.0 + 1) & 0x7fff, before.1.wrapping_add(lowest));
                result.miscounted += u64::from(now != next);
            }
            if whole && (mark.key || follows) {
                let time = packet.timestamp;
                result.time_went_back |= result.last_timestamp.is_some_and(|l| l >= time);
                result.last_timestamp = Some(time);
                result.frames += 1;
                result.last = Some(mark);
                last_shown = Some(mark);
                if mark.key {
                    shown.clear();
                }
                shown.insert(mark.frame);
            } else {
                result.broken += u64::from(result.frames > 0);
                last_shown = None;
                shown.clear();
            }
            frame.clear();
        }
        result
    }
}

/// What keeps a decoder from going on.
#[derive(Debug, Default)]
pub(crate) struct Broken {
    missing: BTreeMap<u64, Instant>,
    highest: Option<u64>,
    is_stuck: bool,
    asked: Option<Instant>,
}

impl Broken {
    /// A missing packet is waited for, and a keyframe that was asked for.
    const PATIENCE: Duration = Duration::from_millis(150);

    fn note(&mut self, now: Instant, seq: u64, packets: &BTreeMap<u64, Received>) {
        let highest = self.highest.unwrap_or(seq);
        self.missing
            .extend((highest + 1..seq).map(|missing| (missing, now)));
        self.missing.remove(&seq);
        self.highest = Some(highest.max(seq));
        let mark = packets[&seq].mark;
        let first = seq.saturating_sub(u64::from(mark.index));
        let range = first..first + u64::from(mark.count);
        if mark.key && packets.range(range).count() == usize::from(mark.count) {
            self.missing.retain(|missing, _| *missing > seq);
            self.is_stuck = false;
        }
    }

    /// Whether to ask for a keyframe now.
    pub(crate) fn asks(&mut self, now: Instant) -> bool {
        let waited = |since: Instant| now.saturating_duration_since(since) >= Self::PATIENCE;
        self.is_stuck |= self.missing.values().any(|since| waited(*since));
        let asks = self.is_stuck && self.asked.is_none_or(waited);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}

/// See [`TestViewer::decoded`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Decoded {
    pub(crate) frames: u64,
    /// Frames after the first decoded one that were not whole, or did not follow what was decoded before.
    pub(crate) broken: u64,
    /// Packets that are missing.
    pub(crate) gaps: u64,
    pub(crate) last: Option<Mark>,
    pub(crate) last_timestamp: Option<u64>,
    pub(crate) time_went_back: bool,
    /// Frames whose picture id or TL0PICIDX (VP8) is not the next one's.
    pub(crate) miscounted: u64,
}
