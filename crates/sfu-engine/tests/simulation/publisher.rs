// SPDX-License-Identifier: MPL-2.0

//! An encoder without pictures: H.264 packets whose payload says which frame and packet they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sfu_engine::stream::{Lease, Stream};
use sfu_engine::{Codec, Feedback, LayerInfo, PublishOptions, Rid, RtpIn, TrackKind};

pub(crate) const FRAME: Duration = Duration::from_millis(33);
/// Packets of a keyframe, at least.
const KEY_PACKETS: u32 = 8;
/// Packets of a frame on each layer of the ladder: about 2.4 Mbit/s, 800 and 270 kbit/s.
const LADDER: [u32; 3] = [9, 3, 1];

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
    /// Three layers of different rates instead, and a keyframe every two seconds.
    ladder: bool,
    /// VP8 instead of H.264, whose frames are counted in the packets.
    vp8: bool,
    /// From one frame to the next.
    pub(crate) every: Duration,
    /// Sound comes with every frame.
    pub(crate) with_sound: bool,
    /// A layer that sends nothing.
    pub(crate) silent: Option<usize>,
    audio_seq: u16,
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
        stream.set_audio(lease, Codec::Opus);
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
            ladder: false,
            vp8: false,
            every: FRAME,
            with_sound: true,
            silent: None,
            audio_seq: 65_500,
        }
    }

    /// Three layers of different rates, with a keyframe every two seconds.
    pub(crate) fn use_ladder(&mut self) {
        self.ladder = true;
        self.keyframe_every = 60;
    }

    /// The stream becomes VP8.
    pub(crate) fn use_vp8(&mut self) {
        self.vp8 = true;
        let layers = (0..self.seq.len()).map(layer_info);
        self.stream
            .set_video(self.lease, Codec::Vp8, layers.collect());
    }

    fn payload(&self, key: bool, layer: usize, index: u32, count: u32) -> Arc<[u8]> {
        let plain = payload(key, layer, self.frame, index, count);
        if self.vp8 {
            vp8_payload(&plain, key, self.frame, layer, index)
        } else {
            plain
        }
    }

    fn packets_of(&self, layer: usize, key: bool) -> u32 {
        match (self.ladder, key) {
            (true, false) => LADDER[layer],
            (true, true) => LADDER[layer] * 4,
            (false, false) => self.delta_packets,
            (false, true) => KEY_PACKETS,
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
            let packets = self.packets(now, timestamp, layer);
            self.stream
                .push(now, self.lease, TrackKind::Video, layer, packets);
        }
        if self.with_sound {
            self.produce_sound(now, elapsed);
        }
        self.frame += 1;
        self.next_frame += self.every;
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
        let asked = self.encoder.wanted[layer].swap(false, Ordering::Relaxed);
        let key = asked || self.frame.is_multiple_of(self.keyframe_every);
        let count = self.packets_of(layer, key);
        let packets = (0..count).map(|index| {
            let seq = self.seq[layer];
            self.seq[layer] = seq.wrapping_add(1);
            RtpIn {
                seq,
                timestamp,
                captured: now,
                marker: index + 1 == count,
                payload: self.payload(key, layer, index, count),
                red: None,
            }
        });
        packets.collect()
    }

    fn produce_sound(&mut self, now: Instant, elapsed: Duration) {
        self.audio_seq = self.audio_seq.wrapping_add(1);
        let sound = RtpIn {
            seq: self.audio_seq,
            timestamp: (elapsed.as_micros() * 48 / 1_000) as u32,
            captured: now,
            marker: false,
            payload: vec![0x78; 80].into(),
            red: None,
        };
        self.stream
            .push(now, self.lease, TrackKind::Audio, 0, [sound]);
    }
}

/// An SPS NAL unit begins a keyframe, everything else looks like slices; then what the test reads back.
pub(crate) fn payload(key: bool, layer: usize, frame: u32, index: u32, count: u32) -> Arc<[u8]> {
    let nal = match (key, index) {
        (true, 0) => 0x67,
        (true, _) => 0x65,
        (false, _) => 0x41,
    };
    let mut payload = vec![nal, u8::from(key), layer as u8, index as u8, count as u8];
    payload.extend_from_slice(&frame.to_be_bytes());
    payload.resize(1_100, 0);
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

/// Octets of the descriptor of [`vp8_payload`].
const DESCRIPTOR: usize = 5;

/// The same packet in VP8 (RFC 7741): picture id of 15 bits, TL0PICIDX. Each layer counts from elsewhere.
fn vp8_payload(plain: &[u8], key: bool, frame: u32, layer: usize, index: u32) -> Arc<[u8]> {
    let [hi, lo] = ((frame + 12_345 * layer as u32) as u16 | 0x8000).to_be_bytes();
    let start = if index == 0 { 0x90 } else { 0x80 };
    let mut payload = vec![start, 0xc0, hi, lo, (frame + 77 * layer as u32) as u8];
    payload.push(u8::from(!key));
    payload.extend_from_slice(&plain[1..]);
    payload.into()
}

/// What a payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) key: bool,
    pub(crate) layer: usize,
    pub(crate) frame: u32,
    pub(crate) index: u8,
    pub(crate) count: u8,
    /// VP8's picture id and TL0PICIDX.
    pub(crate) counters: Option<(u16, u8)>,
}

pub(crate) fn read_mark(payload: &[u8]) -> Option<Mark> {
    // No NAL unit's first bit is set; each of our VP8 descriptors' is.
    let is_vp8 = *payload.first()? & 0x80 != 0;
    let plain = if is_vp8 { DESCRIPTOR } else { 0 };
    let [_, key, layer, index, count, a, b, c, d, ..] = *payload.get(plain..)? else {
        return None;
    };
    Some(Mark {
        key: key == 1,
        layer: layer.into(),
        frame: u32::from_be_bytes([a, b, c, d]),
        index,
        count,
        counters: is_vp8.then(|| {
            let id = u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff;
            (id, payload[4])
        }),
    })
}
