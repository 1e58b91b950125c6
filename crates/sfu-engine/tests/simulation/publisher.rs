// SPDX-License-Identifier: MPL-2.0

//! An encoder without pictures: H.264 packets whose payload says which frame and packet they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sfu_engine::stream::{Lease, Stream};
use sfu_impair::Rng;

use sfu_engine::{AudioTrack, Codec, Feedback, LayerInfo, PublishOptions, Rid, RtpIn, TrackKind};

pub(crate) const FRAME: Duration = Duration::from_millis(33);
/// Octets of a packet.
const PACKET: usize = 1_100;
/// Packets of a keyframe, at least.
const KEY_PACKETS: u32 = 8;
/// Packets of a frame on each layer of the ladder: about 2.4 Mbit/s, 800 and 270 kbit/s.
pub(crate) const LADDER: [u32; 3] = [9, 3, 1];

/// Keyframe requests as the encoder gets them.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    wanted: Vec<AtomicBool>,
    pub(crate) requests: Mutex<Vec<usize>>,
}

impl Feedback for Encoder {
    fn keyframe_request(&self, layer: usize) {
        self.wanted[layer].store(true, Ordering::Relaxed);
        self.requests.lock().unwrap().push(layer);
    }
}

pub(crate) struct TestPublisher {
    pub(crate) stream: Arc<Stream>,
    pub(crate) lease: Lease,
    pub(crate) encoder: Arc<Encoder>,
    pub(crate) next_frame: Instant,
    start: Instant,
    frame: u32,
    seq: Vec<u16>,
    /// Frames between regular keyframes.
    pub(crate) keyframe_every: u32,
    /// Packets of a frame that is no keyframe.
    pub(crate) delta_packets: u32,
    /// Octets of a packet.
    pub(crate) packet_size: usize,
    /// Packets of a keyframe.
    pub(crate) key_packets: u32,
    /// It makes no keyframe when it is asked, as OBS.
    pub(crate) deaf: bool,
    /// What its packets come over.
    pub(crate) uplink: Option<Uplink>,
    /// Three layers of different rates instead, and a keyframe every two seconds.
    ladder: bool,
    /// VP8, whose frames are counted in the packets, or VP9 instead of H.264.
    codec: Codec,
    /// Temporal layers: up to three with VP8, two with H.264.
    temporal_layers: u8,
    /// Each layer's last keyframe, with which the pattern of temporal layers begins, and frames of the lowest one.
    key_at: Vec<u32>,
    lowest: Vec<u8>,
    /// From one frame to the next.
    pub(crate) every: Duration,
    /// Sound comes with every frame.
    pub(crate) with_sound: bool,
    /// A layer that sends nothing.
    pub(crate) silent: Option<usize>,
    /// By audio track.
    audio_seq: Vec<u16>,
}

impl TestPublisher {
    pub(crate) fn new(stream: Arc<Stream>, now: Instant, layers: usize) -> Self {
        let encoder = Arc::new(Encoder {
            wanted: (0..layers).map(|_| AtomicBool::new(false)).collect(),
            requests: Mutex::default(),
        });
        let options = PublishOptions {
            keyframe_min_interval: Duration::from_millis(500),
            feedback: encoder.clone(),
        };
        let lease = stream
            .start(options, false, now)
            .expect("the stream is free");
        let infos = (0..layers).map(layer_info);
        stream.set_video(lease, Codec::H264, infos.collect());
        stream.set_audio(lease, audio_track(0, None));
        Self {
            stream,
            lease,
            encoder,
            next_frame: now,
            start: now,
            frame: 0,
            // Near the wrap, so that every test crosses it.
            seq: vec![65_000; layers],
            keyframe_every: u32::MAX,
            delta_packets: 3,
            packet_size: PACKET,
            key_packets: KEY_PACKETS,
            deaf: false,
            uplink: None,
            ladder: false,
            codec: Codec::H264,
            temporal_layers: 1,
            key_at: vec![0; layers],
            lowest: (0..layers).map(|layer| 77 * layer as u8).collect(),
            every: FRAME,
            with_sound: true,
            silent: None,
            audio_seq: vec![65_500],
        }
    }

    /// Three layers of different rates, with a keyframe every two seconds.
    pub(crate) fn use_ladder(&mut self) {
        self.ladder = true;
        self.keyframe_every = 60;
    }

    /// So many Mbit/s, with keyframes of three times a frame's size.
    #[allow(dead_code)]
    pub(crate) fn use_rate(&mut self, mbit: u32, keyframe_every: Duration) {
        let octets = mbit * 125 * FRAME.as_millis() as u32;
        self.delta_packets = octets.div_ceil(PACKET as u32);
        self.key_packets = self.delta_packets * 3;
        self.keyframe_every = (keyframe_every.as_millis() / FRAME.as_millis()) as u32;
    }

    /// The stream becomes VP8.
    pub(crate) fn use_vp8(&mut self) {
        self.use_codec(Codec::Vp8);
    }

    /// The stream becomes one of H.264, VP8 or VP9.
    pub(crate) fn use_codec(&mut self, codec: Codec) {
        self.codec = codec;
        let layers = (0..self.seq.len()).map(layer_info);
        self.stream.set_video(self.lease, codec, layers.collect());
    }

    /// Its encoders begin anew, with other numbers and a keyframe.
    #[allow(dead_code)]
    pub(crate) fn begin_anew(&mut self) {
        for seq in &mut self.seq {
            *seq = seq.wrapping_sub(21_000);
        }
        self.make_keyframes();
    }

    /// Its next pictures are keyframes.
    pub(crate) fn make_keyframes(&mut self) {
        for wanted in &self.encoder.wanted {
            wanted.store(true, Ordering::Relaxed);
        }
    }

    /// To viewers it is another publisher from now on, of the same codec and layers.
    #[allow(dead_code)]
    pub(crate) fn become_another(&mut self) {
        self.stream.set_video(self.lease, self.codec, Vec::new());
        self.use_codec(self.codec);
        self.begin_anew();
    }

    /// From now on it has audio tracks in these languages.
    pub(crate) fn use_languages(&mut self, languages: &[&str]) {
        for (number, language) in languages.iter().enumerate() {
            let track = audio_track(number, Some(language));
            self.stream.set_audio(self.lease, track);
        }
        self.audio_seq.resize(languages.len(), 65_530);
    }

    /// From now on frames have temporal layers.
    pub(crate) fn use_temporal_layers(&mut self, count: u8) {
        self.temporal_layers = count;
    }

    fn payload(&self, frame: Frame, layer: usize, index: u32, count: u32) -> Arc<[u8]> {
        let mut plain = payload(frame, layer, index, count);
        if self.packet_size < PACKET {
            plain = plain[..self.packet_size].into();
        }
        match (self.codec, self.temporal_layers) {
            (Codec::Vp8, 1) => vp8_payload(&plain, frame, layer, index),
            (Codec::Vp8, _) => {
                vp8_temporal_payload(&plain, frame, self.lowest[layer], layer, index)
            }
            (Codec::Vp9, _) => vp9_payload(&plain, frame, index, count),
            _ => plain,
        }
    }

    fn packets_of(&self, layer: usize, key: bool) -> u32 {
        match (self.ladder, key) {
            (true, false) => LADDER[layer],
            (true, true) => LADDER[layer] * 4,
            (false, false) => self.delta_packets,
            (false, true) => self.key_packets,
        }
    }

    /// Sends the frame that is due on every layer, and its sound.
    pub(crate) fn produce(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.start);
        let timestamp = (elapsed.as_micros() * 90 / 1_000) as u32;
        for layer in 0..self.seq.len() {
            if self.silent == Some(layer) {
                continue;
            }
            let mut packets = self.packets(now, timestamp, layer);
            if let Some(uplink) = &mut self.uplink {
                packets = uplink.pass(now, layer, packets);
            }
            self.stream
                .push(now, self.lease, TrackKind::Video, layer, packets);
        }
        if self.with_sound {
            self.produce_sound(now, elapsed);
        }
        self.frame += 1;
        self.next_frame += self.every;
    }

    /// When a packet comes late.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        let late = self.uplink.iter().flat_map(|uplink| &uplink.late);
        late.map(|(at, ..)| *at).min()
    }

    /// Sends what comes late.
    pub(crate) fn produce_late(&mut self, now: Instant) {
        let Some(uplink) = &mut self.uplink else {
            return;
        };
        let due = uplink.late.extract_if(.., |(at, ..)| *at <= now);
        for (_, layer, packet) in due.collect::<Vec<_>>() {
            self.stream
                .push(now, self.lease, TrackKind::Video, layer, [packet]);
        }
    }

    /// The packets of a layer's frame that is due, for who counts what they take.
    #[allow(dead_code)]
    pub(crate) fn next_packets(&mut self, layer: usize) -> Vec<RtpIn> {
        let now = self.next_frame;
        let elapsed = now.duration_since(self.start);
        let timestamp = (elapsed.as_micros() * 90 / 1_000) as u32;
        self.packets(now, timestamp, layer)
    }

    fn packets(&mut self, now: Instant, timestamp: u32, layer: usize) -> Vec<RtpIn> {
        let asked = self.encoder.wanted[layer].swap(false, Ordering::Relaxed) && !self.deaf;
        let key = asked || self.frame.is_multiple_of(self.keyframe_every);
        let count = self.packets_of(layer, key);
        if key {
            self.key_at[layer] = self.frame;
        }
        let frame = Frame::new(self.frame, self.key_at[layer], self.temporal_layers);
        if frame.temporal == 0 {
            self.lowest[layer] = self.lowest[layer].wrapping_add(1);
        }
        let packets = (0..count).map(|index| {
            let seq = self.seq[layer];
            self.seq[layer] = seq.wrapping_add(1);
            RtpIn {
                seq,
                timestamp,
                captured: now,
                marker: index + 1 == count,
                payload: self.payload(frame, layer, index, count),
                red: None,
                layering: sfu_engine::Layering::default(),
            }
        });
        packets.collect()
    }

    fn produce_sound(&mut self, now: Instant, elapsed: Duration) {
        for (number, seq) in self.audio_seq.iter_mut().enumerate() {
            *seq = seq.wrapping_add(1);
            let mut payload = vec![0x78; 80];
            payload[1] = number as u8;
            let sound = RtpIn {
                seq: *seq,
                timestamp: (elapsed.as_micros() * 48 / 1_000) as u32,
                captured: now,
                marker: false,
                payload: payload.into(),
                red: None,
                layering: sfu_engine::Layering::default(),
            };
            self.stream
                .push(now, self.lease, TrackKind::Audio, number, [sound]);
        }
    }
}

fn audio_track(number: usize, language: Option<&str>) -> AudioTrack {
    AudioTrack {
        number,
        codec: Codec::Opus,
        language: language.map(|tag| tag.parse().unwrap()),
    }
}

/// A publisher's network: some packets come a little later than the next ones, and lost ones when they were sent again.
pub(crate) struct Uplink {
    pub(crate) loss: f64,
    pub(crate) reordered: f64,
    /// The time until a lost packet comes by RTX.
    repair: Duration,
    rng: Rng,
    late: Vec<(Instant, usize, RtpIn)>,
    /// What becomes of one packet of each layer's next keyframe.
    keyframe: Option<(Part, Fate)>,
    /// By layer: it has become of it, of the frame with this timestamp.
    met: Vec<Option<u32>>,
}

/// Which packet of a keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Part {
    First,
    Second,
    Middle,
    Last,
    /// The first two.
    Begin,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Fate {
    Repaired,
    Reordered,
    Lost,
}

impl Part {
    fn has(self, mark: Mark) -> bool {
        match self {
            Self::First => mark.index == 0,
            Self::Second => mark.index == 1,
            Self::Middle => mark.index == mark.count / 2,
            Self::Last => mark.index + 1 == mark.count,
            Self::Begin => mark.index < 2,
        }
    }
}

impl Uplink {
    /// How late others come that are out of order.
    const REORDERED: Duration = Duration::from_millis(4);

    #[allow(dead_code)]
    pub(crate) fn new(seed: u64, loss: f64, reordered: f64, repair: Duration) -> Self {
        Self {
            loss,
            reordered,
            repair,
            rng: Rng::new(seed),
            late: Vec::new(),
            keyframe: None,
            met: Vec::new(),
        }
    }

    /// From now on the next keyframe of each layer comes like this, and all else whole.
    #[allow(dead_code)]
    pub(crate) fn spoil(&mut self, keyframe: Option<(Part, Fate)>) {
        self.keyframe = keyframe;
        self.met.clear();
    }

    /// What becomes of a packet of a keyframe.
    fn fate(&mut self, layer: usize, packet: &RtpIn) -> Option<Fate> {
        let (part, fate) = self.keyframe?;
        let mark = read_mark(&packet.payload).filter(|m| m.key && part.has(*m))?;
        self.met.resize(self.met.len().max(layer + 1), None);
        let met = self.met[layer].get_or_insert(packet.timestamp);
        (*met == packet.timestamp && mark.key).then_some(fate)
    }

    fn pass(&mut self, now: Instant, layer: usize, packets: Vec<RtpIn>) -> Vec<RtpIn> {
        let mut passed = Vec::new();
        for packet in packets {
            match self.fate(layer, &packet) {
                Some(Fate::Repaired) => self.late.push((now + self.repair, layer, packet)),
                Some(Fate::Reordered) => {
                    self.late.push((now + Self::REORDERED, layer, packet));
                }
                Some(Fate::Lost) => {}
                None if self.rng.chance(self.loss) => {
                    self.late.push((now + self.repair, layer, packet));
                }
                None if self.rng.chance(self.reordered) => {
                    self.late.push((now + Self::REORDERED, layer, packet));
                }
                None => passed.push(packet),
            }
        }
        passed
    }
}

/// A picture, and which one it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    number: u32,
    /// Frames since the keyframe.
    position: u32,
    pub(crate) temporal: u8,
    /// It needs nothing of its temporal layer.
    switches_up: bool,
    needs: u32,
}

impl Frame {
    /// The patterns of temporal layers are those of libvpx: 0 1, and 0 2 1 2.
    pub(crate) fn new(number: u32, key_at: u32, temporal_layers: u8) -> Self {
        let position = number - key_at;
        let (temporal, switches_up, back) = match (temporal_layers, position % 4) {
            (2, 0 | 2) => (0, false, 2),
            (2, _) => (1, true, 1),
            (3, 0) => (0, false, 4),
            (3, 1) => (2, true, 1),
            (3, 2) => (1, true, 2),
            (3, _) => (2, false, 1),
            _ => (0, false, 1),
        };
        Self {
            number,
            position,
            temporal,
            switches_up,
            needs: number.wrapping_sub(back),
        }
    }

    fn is_key(self) -> bool {
        self.position == 0
    }
}

/// An SPS NAL unit begins a keyframe, everything else looks like slices; then what the test reads back.
pub(crate) fn payload(frame: Frame, layer: usize, index: u32, count: u32) -> Arc<[u8]> {
    let nal = match (frame.is_key(), index) {
        (true, 0) => 0x67,
        (true, _) => 0x65,
        // No reference for others.
        (false, _) if frame.temporal > 0 => 0x01,
        (false, _) => 0x41,
    };
    let key = u8::from(frame.is_key());
    let mut payload = vec![nal, key, layer as u8, index as u8, count as u8];
    payload.extend_from_slice(&frame.number.to_be_bytes());
    payload.extend_from_slice(&frame.needs.to_be_bytes());
    payload.push(frame.temporal);
    payload.resize(PACKET, 0);
    payload.into()
}

fn layer_info(index: usize) -> LayerInfo {
    LayerInfo {
        rid: Rid::from_index(index),
        width: None,
        height: None,
        target_bitrate: None,
    }
}

/// The same packet in VP8 (RFC 7741): picture id of 15 bits, TL0PICIDX. Each layer counts from elsewhere.
fn vp8_payload(plain: &[u8], frame: Frame, layer: usize, index: u32) -> Arc<[u8]> {
    let start = if index == 0 { 0x90 } else { 0x80 };
    let mut payload = vec![start, 0xc0];
    payload.extend(picture_id(frame, layer));
    payload.push((frame.number + 77 * layer as u32) as u8);
    payload.push(u8::from(!frame.is_key()));
    payload.extend_from_slice(&plain[1..]);
    payload.into()
}

/// The same with temporal layers, of which the lowest is counted.
fn vp8_temporal_payload(
    plain: &[u8],
    frame: Frame,
    lowest: u8,
    layer: usize,
    index: u32,
) -> Arc<[u8]> {
    let start = if index == 0 { 0x90 } else { 0x80 };
    let mut payload = vec![start, 0xe0];
    payload.extend(picture_id(frame, layer));
    payload.push(lowest);
    payload.push(frame.temporal << 6 | u8::from(frame.switches_up) << 5);
    payload.push(u8::from(!frame.is_key()));
    payload.extend_from_slice(&plain[1..]);
    payload.into()
}

/// The same packet in VP9 (RFC 9628), of one spatial and one temporal layer.
fn vp9_payload(plain: &[u8], frame: Frame, index: u32, count: u32) -> Arc<[u8]> {
    let flags = 0x80
        | u8::from(!frame.is_key()) << 6
        | u8::from(index == 0) << 3
        | u8::from(index + 1 == count) << 2;
    let [hi, lo] = (frame.number as u16 & 0x1fff).to_be_bytes();
    let mut payload = vec![flags, 0x80 | hi, lo];
    payload.extend_from_slice(plain);
    payload.into()
}

fn picture_id(frame: Frame, layer: usize) -> [u8; 2] {
    ((frame.number + 12_345 * layer as u32) as u16 | 0x8000).to_be_bytes()
}

/// What a payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) key: bool,
    pub(crate) layer: usize,
    pub(crate) frame: u32,
    pub(crate) index: u8,
    pub(crate) count: u8,
    /// The frame without which it can't be decoded, unless it is a keyframe.
    pub(crate) needs: u32,
    pub(crate) temporal: u8,
    /// VP8's picture id and TL0PICIDX.
    pub(crate) counters: Option<(u16, u8)>,
}

pub(crate) fn read_mark(payload: &[u8]) -> Option<Mark> {
    // No NAL unit's first bit is set; each of our VP8 and VP9 descriptors' is, and the second octets differ.
    let is_plain = *payload.first()? & 0x80 == 0;
    let second = *payload.get(1)?;
    let is_vp8 = !is_plain && second & 0x40 != 0;
    let plain = match second & 0x20 {
        _ if is_plain => 0,
        _ if !is_vp8 => 3,
        0 => 5,
        _ => 6,
    };
    let [_, key, layer, index, count, rest @ ..] = payload.get(plain..)? else {
        return None;
    };
    let number = |octets: &[u8]| Some(u32::from_be_bytes(octets.try_into().ok()?));
    Some(Mark {
        key: *key == 1,
        layer: usize::from(*layer),
        frame: number(rest.get(..4)?)?,
        index: *index,
        count: *count,
        needs: number(rest.get(4..8)?)?,
        temporal: *rest.get(8)?,
        counters: is_vp8.then(|| {
            let id = u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff;
            (id, payload[4])
        }),
    })
}
