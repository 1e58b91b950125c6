// SPDX-License-Identifier: MPL-2.0

//! The test stream: H.264 that a decoder takes (a grey picture), with the sizes of a real encoder's frames and the time of
//! sending in each packet. Used by the WHIP publisher and the plain RTP sender.

use std::time::Duration;

use crate::args::StreamArgs;
use crate::h264::{self, Size};

/// Frames in a second.
pub const FPS: u32 = 30;
/// Ticks of the RTP clock from frame to frame.
pub const TICKS: u32 = 90_000 / FPS;
/// The largest datagram.
const DATAGRAM: u64 = 1_150;
/// What it holds besides the RTP header, an extension and the tag of SRTP.
const MAX_PAYLOAD: usize = 1_114;
/// How much bigger a keyframe is than another frame.
const KEYFRAME: u64 = 6;
const MAGIC: [u8; 4] = [0xa5, 0x5a, 0xc3, 0x3c];
/// Magic and ten groups of seven bits.
const STAMP: usize = 14;
/// The highest layer's size.
const TOP: Size = Size {
    width: 1_280,
    height: 720,
};

/// A packet's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub data: Vec<u8>,
    stamp: Option<usize>,
}

impl Payload {
    fn new(data: Vec<u8>, stamp: Option<usize>) -> Self {
        Self { data, stamp }
    }

    /// Writes the time of sending.
    pub fn stamp(&mut self, now_ns: u64) {
        let Some(place) = self.stamp.and_then(|at| self.data.get_mut(at..at + STAMP)) else {
            return;
        };
        place[..4].copy_from_slice(&MAGIC);
        for (n, byte) in place[4..].iter_mut().enumerate() {
            // No zeros, so that no start code can come of it.
            *byte = 0x80 | (now_ns >> (7 * n)) as u8;
        }
    }
}

/// The time of sending in a packet of the test stream.
pub fn sent_at(payload: &[u8]) -> Option<u64> {
    // The stamp is near the end of a packet.
    let from = payload.len().saturating_sub(64);
    let find = |data: &[u8]| data.windows(4).position(|w| w == MAGIC);
    let at = find(&payload[from..])
        .map(|at| at + from)
        .or_else(|| find(payload))?;
    let groups = payload.get(at + 4..at + STAMP)?;
    let mut time = 0;
    for (n, byte) in groups.iter().enumerate() {
        if n < 9 || byte & 0x7f <= 1 {
            time |= u64::from(byte & 0x7f) << (7 * n);
        }
    }
    Some(time)
}

/// Time between two packets of audio.
pub const AUDIO_PACKET: Duration = Duration::from_millis(20);
/// Ticks of the RTP clock from one to the next.
pub const AUDIO_TICKS: u32 = 960;

/// A packet of audio: Opus by its first octet (RFC 6716, section 3.1: CELT, 20 ms, one frame), of 32 kbit/s.
pub fn audio_packet() -> Payload {
    let mut data = vec![0xa5; 80];
    data[0] = 0x78;
    Payload::new(data, Some(80 - 1 - STAMP))
}

/// One simulcast layer.
#[derive(Debug, Clone)]
pub struct Layer {
    pub size: Size,
    delta_bytes: usize,
    key_bytes: usize,
    since_key: u32,
    keys: u32,
}

impl Layer {
    fn new(size: Size, bitrate: u64, keyframe_interval: Duration) -> Self {
        // The bitrate is that of whole datagrams.
        let payload = bitrate * MAX_PAYLOAD as u64 / DATAGRAM;
        let frame = payload / 8 / u64::from(FPS);
        let interval = (keyframe_interval.as_millis() as u64 * u64::from(FPS) / 1_000).max(1);
        // The average over an interval is the bitrate.
        let delta = frame * interval / (interval + KEYFRAME - 1);
        Self {
            size,
            delta_bytes: delta as usize,
            key_bytes: (delta * KEYFRAME) as usize,
            since_key: 0,
            keys: 0,
        }
    }

    /// The payloads of the next frame.
    pub fn frame(&mut self, keyframe: bool) -> Vec<Payload> {
        if keyframe {
            self.since_key = 0;
            self.keys += 1;
            self.key_frame()
        } else {
            self.since_key += 1;
            self.delta_frame()
        }
    }

    fn key_frame(&self) -> Vec<Payload> {
        let slice = h264::idr_slice(self.size, self.keys);
        let mut packets = vec![aggregate(&[&h264::sps(self.size), &h264::pps()], None)];
        let full = (self.key_bytes.saturating_sub(slice.len()) / MAX_PAYLOAD).max(1);
        packets.extend(fragments(&sei_of_fragments(full), true));
        packets.extend(fragments(&slice, false));
        packets
    }

    fn delta_frame(&self) -> Vec<Payload> {
        let slice = h264::skip_slice(self.size, self.since_key);
        let full = self.delta_bytes / MAX_PAYLOAD;
        let mut packets = Vec::new();
        if full > 0 {
            packets.extend(fragments(&sei_of_fragments(full), true));
        }
        let overhead = slice.len() + 16;
        let rest = (self.delta_bytes - full * MAX_PAYLOAD).saturating_sub(overhead);
        let sei = h264::filler_sei(rest.clamp(16 + STAMP, MAX_PAYLOAD - overhead));
        // Behind the packet's own octet, the unit's length, and all of the unit but its end.
        let stamp = 1 + 2 + sei.len() - 1 - STAMP;
        packets.push(aggregate(&[&sei, &slice], Some(stamp)));
        packets
    }
}

/// A unit that fills this many fragments.
fn sei_of_fragments(count: usize) -> Vec<u8> {
    let target = count * (MAX_PAYLOAD - 2) + 1;
    let mut body = (target - 4) * 255 / 256;
    while h264::filler_sei(body + 1).len() <= target {
        body += 1;
    }
    h264::filler_sei(body)
}

/// STAP-A.
fn aggregate(units: &[&[u8]], stamp: Option<usize>) -> Payload {
    let mut data = vec![0x78];
    for unit in units {
        data.extend((unit.len() as u16).to_be_bytes());
        data.extend_from_slice(unit);
    }
    Payload::new(data, stamp)
}

/// FU-A, or the unit itself where it fits.
fn fragments(unit: &[u8], stamped: bool) -> Vec<Payload> {
    let Some((header, body)) = unit.split_first() else {
        return Vec::new();
    };
    if unit.len() <= MAX_PAYLOAD {
        let stamp = stamped.then(|| unit.len().saturating_sub(STAMP + 1));
        return vec![Payload::new(unit.to_vec(), stamp)];
    }
    let chunks: Vec<&[u8]> = body.chunks(MAX_PAYLOAD - 2).collect();
    let last = chunks.len() - 1;
    let packets = chunks.iter().enumerate().map(|(n, chunk)| {
        let ends = u8::from(n == 0) << 7 | u8::from(n == last) << 6;
        let mut data = vec![header & 0x60 | 28, ends | header & 0x1f];
        data.extend_from_slice(chunk);
        let stamp = (stamped && data.len() > 2 * STAMP).then(|| data.len() - 1 - STAMP);
        Payload::new(data, stamp)
    });
    packets.collect()
}

/// The layers of the stream that was asked for, highest first.
pub fn layers(args: &StreamArgs) -> Vec<Layer> {
    let mut size = TOP;
    let mut bitrate = args.bitrate;
    let mut layers = Vec::new();
    for _ in 0..args.layers {
        layers.push(Layer::new(size, bitrate, args.keyframe_interval));
        size = Size {
            width: size.width / 2,
            height: size.height / 2,
        };
        bitrate = bitrate * 2 / 7;
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Layer {
        let args = StreamArgs {
            layers: 1,
            bitrate: 2_500_000,
            keyframe_interval: Duration::from_secs(10),
            audio: true,
            sound_only: false,
        };
        layers(&args).remove(0)
    }

    #[test]
    fn frames_have_the_sizes_of_a_real_encoders() {
        let mut layer = stream();
        let size = |packets: &[Payload]| packets.iter().map(|p| p.data.len()).sum::<usize>();
        let key = layer.frame(true);
        let delta = layer.frame(false);
        assert!((9_600..10_100).contains(&size(&delta)), "{}", size(&delta));
        assert!((5..9).contains(&(size(&key) / size(&delta))));
        assert_eq!(delta.len(), 9);
        let (last, full) = delta.split_last().unwrap();
        assert!(full.iter().all(|p| p.data.len() == MAX_PAYLOAD) && last.data.len() <= MAX_PAYLOAD);
        let holds: Vec<_> = key
            .iter()
            .map(|p| h264::inspect(&p.data).unwrap())
            .collect();
        assert!(holds[0].sps && holds[0].pps && holds.iter().any(|h| h.idr));
    }

    #[test]
    fn the_time_of_sending_is_in_all_packets_of_a_delta_frame() {
        let mut layer = stream();
        let now = 123_456_789_012_345;
        for mut packet in layer.frame(false) {
            let before = packet.data.len();
            packet.stamp(now);
            assert_eq!(packet.data.len(), before);
            assert_eq!(sent_at(&packet.data), Some(now));
            assert!(h264::inspect(&packet.data).is_some());
        }
        let mut audio = audio_packet();
        audio.stamp(now);
        assert_eq!(sent_at(&audio.data), Some(now));
        assert_eq!(sent_at(&[0; 40]), None);
    }
}
