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
        let infos = (0..layers).map(|index| LayerInfo {
            rid: Rid::from_index(index),
            width: None,
            height: None,
            target_bitrate: None,
        });
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
            silent: None,
            audio_seq: 65_500,
        }
    }

    /// Three layers of different rates, with a keyframe every two seconds.
    pub(crate) fn use_ladder(&mut self) {
        self.ladder = true;
        self.keyframe_every = 60;
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
            let asked = self.encoder.wanted[layer].swap(false, Ordering::Relaxed);
            let key = asked || self.frame.is_multiple_of(self.keyframe_every);
            let count = self.packets_of(layer, key);
            let packets: Vec<_> = (0..count)
                .map(|index| {
                    let seq = self.seq[layer];
                    self.seq[layer] = seq.wrapping_add(1);
                    RtpIn {
                        seq,
                        timestamp,
                        captured: now,
                        marker: index + 1 == count,
                        payload: payload(key, layer, self.frame, index, count),
                        red: None,
                    }
                })
                .collect();
            self.stream
                .push(now, self.lease, TrackKind::Video, layer, packets);
        }
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
        self.frame += 1;
        self.next_frame += FRAME;
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

/// What a payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) key: bool,
    pub(crate) layer: usize,
    pub(crate) frame: u32,
    pub(crate) index: u8,
    pub(crate) count: u8,
}

pub(crate) fn read_mark(payload: &[u8]) -> Option<Mark> {
    let [_, key, layer, index, count, a, b, c, d, ..] = *payload else {
        return None;
    };
    Some(Mark {
        key: key == 1,
        layer: layer.into(),
        frame: u32::from_be_bytes([a, b, c, d]),
        index,
        count,
    })
}
