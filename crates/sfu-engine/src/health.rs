// SPDX-License-Identifier: MPL-2.0

//! How the media of a publisher is: frames a second, keyframes, the order of its pictures, jumps of its timestamps.
//!
//! Owned by the [`Stream`](crate::stream::Stream), on the publisher's side, which hands it each batch. Nothing here allocates:
//! it is called for each frame.

use std::time::{Duration, Instant};

use crate::codec::{Codec, TrackKind, h264_sequence};
use crate::packet::{Batch, Packet};

/// Over so long are frames counted.
const WINDOW: Duration = Duration::from_secs(1);
/// What has sent nothing for so long has no frame rate.
const SILENT: Duration = Duration::from_secs(2);
/// B-frames that were seen so lately are there.
const REORDERS_FOR: Duration = Duration::from_secs(10);
/// A frame that goes back twice within this has others that are shown before it.
const AGAIN: Duration = Duration::from_secs(1);
/// Timestamps further apart than their packets by more than this have jumped. Encoders that catch up after a stall stay below.
const JUMP: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// The newest frame's timestamp, and when it came.
    newest: Option<(u32, Instant)>,
    /// The frame that came last, which may be one that is shown earlier.
    last_timestamp: Option<u32>,
    frames: u64,
    window: Option<(Instant, u64)>,
    rate: Option<f64>,
    keyframes: u64,
    keyframe: Option<Instant>,
    keyframe_interval: Option<Duration>,
    /// When a frame was to be shown before the one that came before it.
    back: Option<Instant>,
    reordered: Option<Instant>,
    jumps: u64,
    /// Profile, constraints and level of H.264.
    sequence: Option<[u8; 3]>,
    channels: Option<u8>,
}

/// The same at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackHealth {
    /// Frames that came, since the publisher did.
    pub frames: u64,
    /// Frames in each of the last seconds; 0 where none came lately. Of sound: packets.
    pub frame_rate: Option<f64>,
    /// Keyframes that came.
    pub keyframes: u64,
    /// Between the last two of them.
    pub keyframe_interval: Option<Duration>,
    /// Since the last one.
    pub since_keyframe: Option<Duration>,
    /// Pictures come in another order than they are shown in (B-frames): browsers show them wrongly.
    pub b_frames: bool,
    /// How often timestamps went on elsewhere than time did.
    pub timestamp_jumps: u64,
    /// The codec's profile and level as RFC 6381 writes them (`avc1.42e01f`), where they are known.
    pub profile: Option<String>,
    /// Channels of sound.
    pub channels: Option<u8>,
    /// How loud the sound is, at most, within the last second or two: dB below the loudest that there can be, 0 to 127 (RFC 6464),
    /// where the publisher tells it.
    pub level: Option<u8>,
}

impl Health {
    /// Packets of one track and layer that came together.
    pub(crate) fn add(&mut self, now: Instant, codec: Codec, batch: &Batch) {
        // What the network held back says nothing of its source.
        for packet in batch.packets.iter().filter(|p| !p.temporal.late) {
            match batch.kind {
                TrackKind::Video => self.picture(now, codec, packet),
                TrackKind::Audio => {
                    // The TOC's bit (RFC 6716, section 3.1).
                    let stereo = packet.payload.first().map(|toc| toc & 4 != 0);
                    self.channels = stereo.map(|stereo| 1 + u8::from(stereo)).or(self.channels);
                }
            }
            let previous = self.last_timestamp.replace(packet.timestamp);
            if previous != Some(packet.timestamp) {
                self.frame(now, codec.clock_rate(), packet.timestamp, previous);
            }
        }
    }

    fn picture(&mut self, now: Instant, codec: Codec, packet: &Packet) {
        if codec == Codec::H264
            && let Some(sequence) = h264_sequence(&packet.payload)
        {
            self.sequence = Some(sequence);
        }
        if packet.keyframe_start {
            self.keyframes += 1;
            let before = self.keyframe.replace(now);
            let interval = before.map(|before| now.saturating_duration_since(before));
            self.keyframe_interval = interval.or(self.keyframe_interval);
        }
    }

    fn frame(&mut self, now: Instant, clock_rate: u32, timestamp: u32, previous: Option<u32>) {
        let (since, before) = *self.window.get_or_insert((now, self.frames));
        let span = now.saturating_duration_since(since);
        if span >= WINDOW {
            self.rate = Some((self.frames - before) as f64 / span.as_secs_f64());
            self.window = Some((now, self.frames));
        }
        self.frames += 1;
        let Some((newest, came)) = self.newest else {
            self.newest = Some((timestamp, now));
            return;
        };
        let ticks = timestamp.wrapping_sub(newest) as i32;
        let span = Duration::from_secs_f64(f64::from(ticks.unsigned_abs()) / f64::from(clock_rate));
        let jumped = match ticks < 0 {
            true => span > JUMP,
            // A source that had stalled may come with all that it had kept, and its timestamps are right.
            false => span > now.saturating_duration_since(came) + JUMP,
        };
        if jumped {
            self.jumps += 1;
        } else if ticks < 0 {
            let back = previous.is_some_and(|last| (timestamp.wrapping_sub(last) as i32) < 0);
            let last = self.back;
            if back {
                self.back = Some(now);
            }
            // A source that set its time back once, a little, has done so.
            let again = last.is_some_and(|last| now.saturating_duration_since(last) < AGAIN);
            if back && again {
                self.reordered = Some(now);
            }
            return;
        }
        self.newest = Some((timestamp, now));
    }

    /// It as it is now.
    pub(crate) fn view(&self, now: Instant) -> TrackHealth {
        let within = |at: Option<Instant>, limit| {
            at.is_some_and(|at| now.saturating_duration_since(at) < limit)
        };
        let is_silent = !within(self.newest.map(|(_, came)| came), SILENT);
        TrackHealth {
            frames: self.frames,
            frame_rate: self.rate.map(|rate| if is_silent { 0.0 } else { rate }),
            keyframes: self.keyframes,
            keyframe_interval: self.keyframe_interval,
            since_keyframe: self.keyframe.map(|at| now.saturating_duration_since(at)),
            b_frames: within(self.reordered, REORDERS_FOR),
            timestamp_jumps: self.jumps,
            profile: self.sequence.map(|[idc, constraints, level]| {
                format!("avc1.{idc:02x}{constraints:02x}{level:02x}")
            }),
            channels: self.channels,
            level: None,
        }
    }
}

impl TrackHealth {
    /// With what the publisher tells of its sound's level, as long as there is some.
    pub(crate) fn with_level(self, level: Option<u8>) -> Self {
        let sends = self.frame_rate.is_none_or(|rate| rate > 0.0);
        Self {
            level: level.filter(|_| sends),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temporal::Temporal;

    const SPS: [u8; 6] = [0x67, 0x42, 0xe0, 0x1f, 0x95, 0xa0];

    fn packet(timestamp: u32, keyframe_start: bool, payload: &[u8]) -> Packet {
        Packet {
            seq: 0,
            timestamp,
            captured: Instant::now(),
            marker: true,
            keyframe_start,
            vp8: None,
            temporal: Temporal::default(),
            payload: payload.into(),
            red: None,
            from_above: 0,
            descriptor: None,
        }
    }

    fn batch(kind: TrackKind, packets: Vec<Packet>) -> Batch {
        Batch {
            kind,
            layer: 0,
            epoch: 1,
            packets,
        }
    }

    /// Frames of 30 a second, each in two packets, at these timestamps in ms.
    fn watch(timestamps: &[i64]) -> TrackHealth {
        let (mut health, start) = (Health::default(), Instant::now());
        let mut now = start;
        for (index, ms) in timestamps.iter().enumerate() {
            now = start + Duration::from_secs_f64(index as f64 / 30.0);
            let ticks = (ms * 90) as u32;
            let first = packet(
                ticks,
                index % 30 == 0,
                if index == 0 { &SPS } else { &[0x41] },
            );
            let packets = vec![first, packet(ticks, false, &[0x41])];
            health.add(now, Codec::H264, &batch(TrackKind::Video, packets));
        }
        health.view(now)
    }

    #[test]
    fn what_monitors_ask_of_a_publisher_is_told() {
        let steady: Vec<i64> = (0..120).map(|n| n * 1_000 / 30).collect();
        let seen = watch(&steady);
        assert_eq!((seen.frames, seen.keyframes), (120, 4));
        let rate = seen.frame_rate.unwrap();
        assert!((29.0..=31.0).contains(&rate), "{rate}");
        let interval = seen.keyframe_interval.unwrap().as_millis();
        assert!((990..=1_010).contains(&interval), "{interval}");
        assert_eq!(seen.profile.as_deref(), Some("avc1.42e01f"));
        assert_eq!((seen.b_frames, seen.timestamp_jumps), (false, 0));

        // The order of decoding: each third picture is shown after the two that follow it.
        let mut decoding = steady.clone();
        for group in decoding.chunks_exact_mut(3) {
            group.rotate_right(1);
        }
        let seen = watch(&decoding);
        assert_eq!((seen.b_frames, seen.timestamp_jumps), (true, 0));
    }

    #[test]
    fn time_that_is_set_back_a_little_is_no_b_frame() {
        let back = |n: i64| if n >= 45 { 300 } else { 0 };
        let ms: Vec<_> = (0..90).map(|n| n * 33 - back(n)).collect();
        let seen = watch(&ms);
        assert_eq!((seen.b_frames, seen.timestamp_jumps), (false, 0));
    }

    #[test]
    fn timestamps_that_jump_are_told_and_those_that_wrap_or_wait_are_none() {
        let step = 1_000 / 30;
        for (what, by, jumps) in [
            ("on", 5_000, 1),
            ("back", -5_000, 1),
            ("a little", 700, 0),
            ("to where it wraps", 0, 0),
        ] {
            let wraps = i64::from(u32::MAX) / 90 - 1_000;
            let ms: Vec<_> = (0..90)
                .map(|n| wraps + n * step + if n >= 45 { by } else { 0 })
                .collect();
            assert_eq!(watch(&ms).timestamp_jumps, jumps, "{what}");
        }
        // A stall is none, nor is what comes after it at once.
        let (mut health, start) = (Health::default(), Instant::now());
        for n in 0..120 {
            let came = if n < 2 { 33 * n } else { 4_000 + n };
            let packets = vec![packet(33 * 90 * n as u32, false, &[0x41])];
            let now = start + Duration::from_millis(came);
            health.add(now, Codec::Vp8, &batch(TrackKind::Video, packets));
        }
        assert_eq!(health.view(start).timestamp_jumps, 0);
    }

    #[test]
    fn sound_has_channels_and_what_has_stopped_has_no_rate() {
        let (mut health, start) = (Health::default(), Instant::now());
        for (toc, channels) in [(0xf8, 1), (0xfc, 2)] {
            for n in 0..100 {
                let now = start + Duration::from_millis(20 * n);
                let packets = vec![packet(960 * n as u32, false, &[toc])];
                health.add(now, Codec::Opus, &batch(TrackKind::Audio, packets));
            }
            assert_eq!(health.view(start).channels, Some(channels));
        }
        let end = start + Duration::from_secs(10);
        assert_eq!(health.view(end).frame_rate, Some(0.0));
        assert_eq!(Health::default().view(end).frame_rate, None);
    }
}
