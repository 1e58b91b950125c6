// SPDX-License-Identifier: MPL-2.0

//! What leaves: packets as the shard numbers them, packets sent again, and padding that probes the network.
//!
//! Once per packet and viewer: header, one copy of the shared payload into the buffer that is sent, sealed in place.
//! Nothing is allocated, locked or formatted, and no clock is read.

use std::time::{Duration, Instant};

use super::super::negotiate::{PlayoutDelay, WallClock};
use super::super::{Outgoing, TransportSink};
use super::agreed::{Agreed, Extensions, Format};
use super::connection::Path;
use super::control;
use super::header::{Header, Value};
use crate::codec::{TrackKind, red, vp8};
use crate::srtp::Protect;

/// The first number of a retransmission stream, low so that its rollover counter begins at zero (RFC 3711).
const FIRST_RTX_SEQ: u64 = 1_000;
/// The most octets of padding in a packet, a multiple of four.
const PADDING: u8 = 252;
/// Between two times of capture that are told: receivers reckon those between.
const TELL_CAPTURED: Duration = Duration::from_secs(1);

/// What was sent under one SSRC.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) packets: u32,
    /// Of payload.
    pub(super) octets: u32,
    /// The newest timestamp and the moment that it stands for.
    pub(super) last: Option<(u32, Instant)>,
}

impl Sent {
    fn add(&mut self, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
    }
}

/// One m-line's stream and, beside it, that of its retransmissions.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) kind: TrackKind,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: Option<u32>,
    pub(super) cname: String,
    mid: String,
    extensions: Extensions,
    /// The peer has not yet told that it knows the stream: packets carry the m-line's name and the playout delay.
    pub(super) is_new: bool,
    /// Extended number of the newest packet.
    pub(super) newest: u64,
    pub(super) sent: Sent,
    pub(super) sent_again: Sent,
    rtx_seq: u64,
    /// The time of capture that was told last.
    told: Option<Instant>,
}

/// What a packet's header extensions say.
#[derive(Debug, Clone, Copy, Default)]
struct Values {
    /// The transport-wide number.
    number: Option<[u8; 2]>,
    playout_delay: Option<[u8; 3]>,
    /// When it was captured, and that this is by the clock of our sender reports.
    captured: Option<[u8; 16]>,
}

/// A packet that has left, for whoever keeps the books.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// The transport-wide number, where the peer reports arrivals.
    pub(super) number: Option<u16>,
    pub(super) bytes: usize,
}

/// See the module's description.
pub(super) struct Media {
    protect: Protect,
    formats: Vec<Format>,
    pub(super) tracks: Vec<Track>,
    /// The next transport-wide number.
    number: u16,
    clock: WallClock,
    playout_delay: Option<[u8; 3]>,
}

impl Media {
    pub(super) fn new(
        agreed: &Agreed,
        protect: Protect,
        clock: WallClock,
        playout_delay: Option<PlayoutDelay>,
    ) -> Self {
        let mut tracks: Vec<Track> = Vec::new();
        for format in &agreed.formats {
            if tracks.iter().all(|t| t.ssrc != format.ssrc) {
                tracks.push(Track::new(format));
            }
        }
        Self {
            protect,
            formats: agreed.formats.clone(),
            tracks,
            number: 0,
            clock,
            playout_delay: playout_delay.map(PlayoutDelay::octets),
        }
    }

    pub(super) fn protect(&mut self) -> &mut Protect {
        &mut self.protect
    }

    /// The stream with this SSRC, or whose retransmissions have it.
    pub(super) fn track(&mut self, ssrc: u32) -> Option<&mut Track> {
        let mut tracks = self.tracks.iter_mut();
        tracks.find(|t| t.ssrc == ssrc || t.rtx_ssrc == Some(ssrc))
    }

    /// Sends a packet.
    pub(super) fn send(
        &mut self,
        path: Path,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> Option<Left> {
        let format = self.formats.iter().find(|f| f.codec == packet.codec)?;
        let track = self.tracks.iter_mut().find(|t| t.ssrc == format.ssrc)?;
        let (pt, payload) = match (format.red, packet.red) {
            (Some(pt), Some(blocks)) => (pt, blocks),
            _ => (format.pt, packet.payload),
        };
        let is_red = format.red == Some(pt);
        let draft = Draft {
            header: Header {
                pt,
                marker: packet.marker,
                padded: false,
                seq: packet.seq as u16,
                timestamp: packet.timestamp,
                ssrc: track.ssrc,
            },
            rollover: (packet.seq >> 16) as u32,
            values: Values {
                number: number(&mut self.number, track.extensions),
                playout_delay: self.playout_delay,
                captured: track.tell(packet).map(|at| capture_time(self.clock, at)),
            },
            is_start: packet.keyframe_start,
        };
        track.newest = track.newest.max(packet.seq);
        track.sent.add(payload.len());
        track.sent.last = Some((packet.timestamp, packet.captured));
        let left = draft.send(path, track, &mut self.protect, sink, |buffer| {
            let body = buffer.len();
            buffer.extend_from_slice(payload);
            if let Some(counters) = packet.vp8 {
                vp8::rewrite(&mut buffer[body..], counters);
            } else if is_red {
                red::set_type(&mut buffer[body..], format.pt);
            }
        });
        Some(left)
    }

    /// Sends a packet again (RFC 4588), where the viewer takes that.
    pub(super) fn resend(
        &mut self,
        path: Path,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> Option<Left> {
        let format = self.formats.iter().find(|f| f.codec == packet.codec)?;
        let track = self.tracks.iter_mut().find(|t| t.ssrc == format.ssrc)?;
        let (pt, ssrc) = (format.rtx?, track.rtx_ssrc?);
        let captured = track.captured(packet.timestamp);
        let captured = captured.filter(|_| packet.keyframe_start);
        let draft = track.draft_again(
            Header {
                pt,
                marker: packet.marker,
                padded: false,
                seq: 0,
                timestamp: packet.timestamp,
                ssrc,
            },
            Values {
                number: number(&mut self.number, track.extensions),
                playout_delay: self.playout_delay,
                captured: captured.map(|at| capture_time(self.clock, at)),
            },
            packet.keyframe_start,
        );
        track.sent_again.add(packet.payload.len() + 2);
        let left = draft.send(path, track, &mut self.protect, sink, |buffer| {
            buffer.extend_from_slice(&(packet.seq as u16).to_be_bytes());
            let body = buffer.len();
            buffer.extend_from_slice(packet.payload);
            if let Some(counters) = packet.vp8 {
                vp8::rewrite(&mut buffer[body..], counters);
            }
        });
        Some(left)
    }

    /// Sends a packet of nothing but padding in the stream of retransmissions, to see whether the network carries it.
    pub(super) fn pad(&mut self, path: Path, sink: &mut dyn TransportSink) -> Option<Left> {
        let (pt, track, ssrc) = self.formats.iter().find_map(|format| {
            let track = self.tracks.iter().position(|t| t.ssrc == format.ssrc)?;
            let ssrc = self.tracks[track].rtx_ssrc?;
            let used = self.tracks[track].sent.last.is_some();
            let twcc = format.extensions.twcc.is_some();
            (used && twcc).then_some((format.rtx?, track, ssrc))
        })?;
        let track = &mut self.tracks[track];
        let draft = track.draft_again(
            Header {
                pt,
                marker: false,
                padded: true,
                seq: 0,
                timestamp: track.sent.last.map_or(0, |(timestamp, _)| timestamp),
                ssrc,
            },
            Values {
                number: number(&mut self.number, track.extensions),
                ..Values::default()
            },
            false,
        );
        let left = draft.send(path, track, &mut self.protect, sink, |buffer| {
            buffer.resize(buffer.len() + usize::from(PADDING) - 1, 0);
            buffer.push(PADDING);
        });
        Some(left)
    }
}

/// A packet without its payload.
#[derive(Debug, Clone, Copy)]
struct Draft {
    header: Header,
    /// How often the sequence number has wrapped.
    rollover: u32,
    values: Values,
    /// A decoder may begin with it.
    is_start: bool,
}

impl Draft {
    /// Writes the packet into the buffer that it is sent from, and seals it there.
    fn send(
        &self,
        path: Path,
        track: &Track,
        protect: &mut Protect,
        sink: &mut dyn TransportSink,
        payload: impl Fn(&mut Vec<u8>),
    ) -> Left {
        let mut bytes = 0;
        sink.compose(path.local, path.remote, &mut |buffer| {
            let start = buffer.len();
            let extensions = track.extensions(&self.values, self.is_start);
            let header = self.header.write(buffer, &extensions);
            payload(buffer);
            bytes = seal(protect, buffer, start, header, self.rollover);
        });
        Left {
            number: self.values.number.map(u16::from_be_bytes),
            bytes,
        }
    }
}

impl Track {
    fn new(format: &Format) -> Self {
        Self {
            kind: format.codec.kind(),
            ssrc: format.ssrc,
            rtx_ssrc: format.rtx_ssrc,
            cname: format.cname.clone(),
            mid: format.mid.clone(),
            extensions: format.extensions,
            is_new: true,
            newest: 0,
            sent: Sent::default(),
            sent_again: Sent::default(),
            rtx_seq: FIRST_RTX_SEQ,
            told: None,
        }
    }

    /// The next packet of the stream of retransmissions, which numbers it.
    fn draft_again(&mut self, header: Header, values: Values, is_start: bool) -> Draft {
        let seq = self.rtx_seq;
        self.rtx_seq += 1;
        Draft {
            header: Header {
                seq: seq as u16,
                ..header
            },
            rollover: (seq >> 16) as u32,
            values,
            is_start,
        }
    }

    /// Ticks of its timestamps in a second.
    pub(super) fn clock_rate(&self) -> u32 {
        match self.kind {
            TrackKind::Audio => 48_000,
            TrackKind::Video => 90_000,
        }
    }

    /// The time of capture, where it is to be told: where a decoder may begin, and now and then.
    fn tell(&mut self, packet: &Outgoing<'_>) -> Option<Instant> {
        self.extensions.capture_time?;
        let captured = packet.captured;
        let is_due = |told| captured.saturating_duration_since(told) >= TELL_CAPTURED;
        let tells = packet.keyframe_start || self.told.is_none_or(is_due);
        tells.then(|| *self.told.insert(captured))
    }

    /// When a packet with this timestamp was captured, by the newest one.
    fn captured(&self, timestamp: u32) -> Option<Instant> {
        let (newest, captured) = self.sent.last?;
        let ticks = timestamp.wrapping_sub(newest) as i32;
        let nanos = u64::from(ticks.unsigned_abs()) * 1_000_000_000 / u64::from(self.clock_rate());
        let span = Duration::from_nanos(nanos);
        match ticks >= 0 {
            true => captured.checked_add(span),
            false => captured.checked_sub(span),
        }
    }

    /// The extensions that a packet has. A receiver that has just begun learns how long it may keep pictures back.
    fn extensions<'a>(&'a self, values: &'a Values, is_start: bool) -> [Option<Value<'a>>; 4] {
        let Extensions {
            mid,
            twcc,
            playout_delay,
            capture_time,
        } = self.extensions;
        let mid = mid.filter(|_| self.is_new);
        let playout_delay = playout_delay.filter(|_| self.is_new || is_start);
        [
            mid.map(|id| (id, self.mid.as_bytes())),
            value(twcc, values.number.as_ref()),
            value(playout_delay, values.playout_delay.as_ref()),
            value(capture_time, values.captured.as_ref()),
        ]
    }
}

fn value<const N: usize>(id: Option<u8>, octets: Option<&[u8; N]>) -> Option<Value<'_>> {
    id.zip(octets.map(<[u8; N]>::as_slice))
}

/// As the extension has it: the time, and that its clock is the one of the sender reports.
fn capture_time(clock: WallClock, captured: Instant) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&control::ntp(clock.at(captured)).to_be_bytes());
    octets
}

/// The transport-wide number of the next packet, where the stream has them.
fn number(next: &mut u16, extensions: Extensions) -> Option<[u8; 2]> {
    extensions.twcc?;
    let number = *next;
    *next = next.wrapping_add(1);
    Some(number.to_be_bytes())
}

/// Seals what was written since `start`, and returns its length.
fn seal(
    protect: &mut Protect,
    buffer: &mut Vec<u8>,
    start: usize,
    header: usize,
    roc: u32,
) -> usize {
    if let Err(error) = protect.rtp(buffer, start, header, roc) {
        tracing::debug!(%error, "a packet was not sealed");
        buffer.truncate(start);
    }
    buffer.len() - start
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::SystemTime;

    use is::IceCreds;

    use super::super::super::TransportEvent;
    use super::*;
    use crate::codec::Codec;
    use crate::srtp::{Profile, Role, session};

    const TWCC: u8 = 3;
    const DELAY: u8 = 6;
    const CAPTURED: u8 = 12;
    const MS: Duration = Duration::from_millis(1);

    /// The last datagram.
    #[derive(Default)]
    struct Wire(Vec<u8>);

    impl TransportSink for Wire {
        fn compose(&mut self, _: SocketAddr, _: SocketAddr, append: &mut dyn FnMut(&mut Vec<u8>)) {
            self.0.clear();
            append(&mut self.0);
        }

        fn event(&mut self, _: TransportEvent) {}
    }

    impl Wire {
        /// The value of a header extension.
        fn extension(&self, id: u8) -> Option<&[u8]> {
            let words = usize::from(u16::from_be_bytes([self.0[14], self.0[15]]));
            let mut rest = &self.0[16..16 + 4 * words];
            while let [first, after @ ..] = rest {
                let length = if *first == 0 {
                    0
                } else {
                    usize::from(first & 15) + 1
                };
                if first >> 4 == id {
                    return Some(&after[..length]);
                }
                rest = &after[length..];
            }
            None
        }

        /// The time of capture in seconds since 1900.
        fn captured(&self) -> Option<f64> {
            let (ntp, offset) = self.extension(CAPTURED)?.split_at(8);
            assert_eq!(offset, [0; 8]);
            let ntp = u64::from_be_bytes(ntp.try_into().unwrap());
            Some(ntp as f64 / f64::from(2.0f32.powi(32)))
        }
    }

    fn media(clock: WallClock) -> Media {
        let format = Format {
            codec: Codec::H264,
            pt: 97,
            red: None,
            rtx: Some(98),
            mid: "v".into(),
            ssrc: 7,
            rtx_ssrc: Some(8),
            cname: "me".into(),
            extensions: Extensions {
                mid: Some(4),
                twcc: Some(TWCC),
                playout_delay: Some(DELAY),
                capture_time: Some(CAPTURED),
            },
        };
        let agreed = Agreed {
            local: IceCreds::new(),
            remote: IceCreds::new(),
            candidates: Vec::new(),
            mid: "v".into(),
            fingerprint: Vec::new(),
            is_client: false,
            formats: vec![format],
        };
        let profile = Profile::AeadAes128Gcm;
        let keys = vec![3; profile.exporter_len()];
        let (protect, _) = session(profile, &keys, Role::Server).unwrap();
        let mut media = Media::new(&agreed, protect, clock, PlayoutDelay::from_millis(0, 200));
        media.tracks[0].is_new = false;
        media
    }

    fn path() -> Path {
        let local = "192.0.2.1:8189".parse().unwrap();
        let remote = "192.0.2.2:4000".parse().unwrap();
        Path { local, remote }
    }

    fn packet(number: u32, captured: Instant, is_key: bool, data: &Arc<[u8]>) -> Outgoing<'_> {
        Outgoing {
            codec: Codec::H264,
            seq: 1_000 + u64::from(number),
            timestamp: number * 9_000,
            captured,
            marker: true,
            keyframe_start: is_key,
            vp8: None,
            payload: data,
            red: None,
        }
    }

    #[test]
    fn the_capture_time_is_told_at_keyframes_and_once_a_second() {
        let start = Instant::now();
        let mut media = media(WallClock::new(start, SystemTime::now()));
        let (mut wire, data) = (Wire::default(), Arc::from([0x41; 100]));
        let mut told = Vec::new();
        for number in 0..25 {
            let is_key = number == 0 || number == 12;
            let packet = packet(number, start + number * 100 * MS, is_key, &data);
            media.send(path(), &packet, &mut wire).unwrap();
            assert!(wire.extension(TWCC).is_some());
            let delay = wire.extension(DELAY);
            assert_eq!(delay, is_key.then_some(&[0, 0, 20][..]), "{number}");
            told.extend(wire.captured().map(|_| number));
        }
        assert_eq!(told, [0, 10, 12, 22]);
    }

    #[test]
    fn a_keyframe_that_is_sent_again_tells_the_same() {
        let start = Instant::now();
        let mut media = media(WallClock::new(start, SystemTime::now()));
        let (mut wire, data) = (Wire::default(), Arc::from([0x41; 100]));
        media.send(path(), &packet(0, start, true, &data), &mut wire);
        let told = wire.captured().unwrap();
        for number in 1..10 {
            let packet = packet(number, start + number * 100 * MS, false, &data);
            media.send(path(), &packet, &mut wire);
        }
        // It had been replayed: dated later than it was captured.
        let again = packet(0, start - 500 * MS, true, &data);
        media.resend(path(), &again, &mut wire).unwrap();
        assert!((wire.captured().unwrap() - told).abs() < 0.001);
        assert!(wire.extension(DELAY).is_some());
        let other = packet(3, start + 300 * MS, false, &data);
        media.resend(path(), &other, &mut wire).unwrap();
        assert_eq!((wire.captured(), wire.extension(DELAY)), (None, None));
        media.pad(path(), &mut wire).unwrap();
        assert_eq!((wire.captured(), wire.extension(DELAY)), (None, None));
    }
}
