// SPDX-License-Identifier: MPL-2.0

//! What leaves: packets as the shard numbers them, packets sent again, and padding that probes the network.
//!
//! Once per packet and viewer: header, one copy of the shared payload into the buffer that is sent, sealed in place.
//! Nothing is allocated, locked or formatted, and no clock is read.
//!
//! Header extensions never make a packet larger than [`MAX_DATAGRAM`] that would be smaller without them, but for the
//! transport-wide number, without which the viewer's network could not be judged, the m-line's name while the peer
//! needs it, and the dependency descriptor, without which nothing is decoded: its publisher had room for it, too. The others wait
//! for a packet that has room.

use std::time::{Duration, Instant};

use super::super::negotiate::{PlayoutDelay, WallClock};
use super::super::{Outgoing, Slot, TransportSink};
use super::agreed::{Agreed, Extensions, Format};
use super::asked::Asked;
use super::connection::Path;
use super::control;
use super::header::{Block, Header};
use super::sealed::{Kept, Sealed};
use crate::codec::profile::H264Profile;
use crate::codec::{Codec, TrackKind, red, vp8};
use crate::size::{MAX_DATAGRAM, OSN, RTP_HEADER};
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
    pub(super) slot: Slot,
    /// What it may consist of.
    formats: Vec<Format>,
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
    /// Extended number of the first packet of this SSRC: an m-line that is used again goes on in its numbers.
    first: u64,
    pub(super) sent: Sent,
    pub(super) sent_again: Sent,
    rtx_seq: u64,
    /// What the viewer has just asked for again, of video.
    pub(super) asked: Option<Box<Asked>>,
    /// The viewer has just asked for a keyframe.
    pub(super) wants_keyframe: bool,
    /// The number of the last command for a keyframe (FIR).
    pub(super) commanded: Option<u8>,
    /// The time of capture that was told last.
    told: Option<Instant>,
    /// Packets had no room for what they should have told.
    owes_captured: bool,
    owes_delay: bool,
}

/// What a packet's header extensions say.
#[derive(Debug, Clone, Copy, Default)]
struct Values<'a> {
    /// The m-line's name is among it.
    mid: bool,
    /// The transport-wide number.
    number: Option<[u8; 2]>,
    playout_delay: Option<[u8; 3]>,
    /// When it was captured, and that this is by the clock of our sender reports.
    captured: Option<[u8; 16]>,
    /// What its frame is predicted from.
    descriptor: Option<&'a [u8]>,
}

/// A packet that has left, for whoever keeps the books.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// The transport-wide number, where the peer reports arrivals.
    pub(super) number: Option<u16>,
    pub(super) bytes: usize,
}

/// The profile of what begins with this packet, where it may leave under several payload types.
fn told_profile(format: &Format, packet: &Outgoing<'_>) -> Option<H264Profile> {
    match format.profiles.len() {
        0 | 1 => None,
        _ => H264Profile::told(packet.payload),
    }
}

/// See the module's description.
pub(super) struct Media {
    protect: Protect,
    /// By slot.
    pub(super) tracks: Vec<Track>,
    /// The same, of m-lines of which something can only be sent again as it left; empty where there are none.
    sealed: Vec<Option<Sealed>>,
    /// The next transport-wide number.
    number: u16,
    clock: WallClock,
    playout_delay: Option<[u8; 3]>,
    /// Kept for its memory: a packet's dependency descriptor.
    descriptor: Vec<u8>,
}

impl Media {
    pub(super) fn new(
        agreed: &Agreed,
        protect: Protect,
        clock: WallClock,
        playout_delay: Option<PlayoutDelay>,
    ) -> Self {
        let mut media = Self {
            protect,
            tracks: Vec::new(),
            sealed: Vec::new(),
            number: 0,
            clock,
            playout_delay: playout_delay.map(PlayoutDelay::octets),
            descriptor: Vec::new(),
        };
        media.set_formats(&agreed.formats);
        media
    }

    /// What m-lines may carry, by slot. Those that there are go on in their numbers.
    pub(super) fn set_formats(&mut self, formats: &[Format]) {
        for of_slot in formats.chunk_by(|a, b| a.slot == b.slot) {
            let Some((first, others)) = of_slot.split_first() else {
                continue;
            };
            let slot = usize::from(first.slot.0);
            match self.tracks.get_mut(slot) {
                Some(track) if track.ssrc == first.ssrc => track.goes_on_with(of_slot),
                Some(track) => {
                    *track = track.renamed(first, of_slot);
                    if let Some(kept) = self.sealed.get_mut(slot) {
                        *kept = None;
                    }
                }
                None => {
                    let mut track = Track::new(first);
                    track.formats.extend_from_slice(others);
                    self.tracks.push(track);
                }
            }
        }
        self.keep_sealed();
    }

    /// Makes room for what can only be sent again as it left.
    fn keep_sealed(&mut self) {
        let is_kept = |track: &Track| track.formats.iter().any(Format::is_repeated);
        let count = self.tracks.iter().filter(|track| is_kept(track)).count();
        let mut before = std::mem::take(&mut self.sealed).into_iter();
        if count == 0 {
            return;
        }
        let sealed = self.tracks.iter().map(|track| {
            let known = before.next().flatten();
            let mut sealed = is_kept(track).then(|| known.unwrap_or_default())?;
            sealed.set_share(count);
            Some(sealed)
        });
        self.sealed = sealed.collect();
    }

    /// Tells the viewer of another delay, until its next report.
    pub(super) fn set_playout_delay(&mut self, delay: PlayoutDelay) {
        self.playout_delay = Some(delay.octets());
        for track in &mut self.tracks {
            track.is_new = true;
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
        now: Instant,
        path: Path,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> Option<Left> {
        let track = self.tracks.get_mut(usize::from(packet.slot.0))?;
        let rollover = track.rollover(packet.seq)?;
        let mut formats = track.formats.iter_mut();
        let format = formats.find(|f| f.codec == packet.codec)?;
        if let Some(profile) = told_profile(format, packet) {
            format.follow(profile);
        }
        let (main, rtx, redundant) = (format.pt, format.rtx, format.red);
        let room = Room::of(&self.protect, rtx.is_some());
        let needed = Values {
            descriptor: track.describe(packet, &mut self.descriptor),
            ..track.needed(number(&mut self.number, track.extensions))
        };
        let takes = |blocks: &[u8]| room.holds(track, &needed, blocks.len());
        let (pt, payload) = match (redundant, packet.red) {
            (Some(pt), Some(blocks)) if takes(blocks) => (pt, blocks),
            _ => (main, packet.payload),
        };
        let is_red = redundant == Some(pt);
        let wanted = Values {
            playout_delay: self.playout_delay.filter(|_| track.wants_delay(packet)),
            captured: track.tell(packet).map(|at| capture_time(self.clock, at)),
            ..needed
        };
        let values = track.fit(wanted, room, payload.len());
        track.note(packet, &wanted, &values);
        track.newest = track.newest.max(packet.seq);
        track.sent.add(payload.len());
        track.sent.last = Some((packet.timestamp, packet.captured));
        let draft = Draft {
            header: Header {
                pt,
                marker: packet.marker,
                padded: false,
                seq: packet.seq as u16,
                timestamp: packet.timestamp,
                ssrc: track.ssrc,
            },
            rollover,
            values,
        };
        let sealed = self.sealed.get_mut(usize::from(packet.slot.0));
        let sealed = sealed.and_then(Option::as_mut);
        let keep = sealed.filter(|_| rtx.is_none()).map(|sealed| Keep {
            sealed,
            now,
            seq: packet.seq,
        });
        let left = draft.send(path, track, &mut self.protect, sink, keep, |buffer| {
            let body = buffer.len();
            buffer.extend_from_slice(payload);
            if let Some(counters) = packet.vp8 {
                vp8::rewrite(&mut buffer[body..], counters);
            } else if is_red {
                red::set_type(&mut buffer[body..], main);
            }
        });
        Some(left)
    }

    /// A packet that is not sent: it has its numbers, so that the viewer's reports count it as lost.
    pub(super) fn lose(&mut self, packet: &Outgoing<'_>) -> Option<Left> {
        let track = self.tracks.get_mut(usize::from(packet.slot.0))?;
        track.format(packet.codec)?;
        track.newest = track.newest.max(packet.seq);
        let number = number(&mut self.number, track.extensions);
        Some(Left {
            number: number.map(u16::from_be_bytes),
            bytes: packet.payload.len(),
        })
    }

    /// Sends a packet again (RFC 4588), where the viewer takes that.
    pub(super) fn resend(
        &mut self,
        path: Path,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> Option<Left> {
        let track = self.tracks.get_mut(usize::from(packet.slot.0))?;
        // What left under another SSRC is unknown to the peer.
        track.rollover(packet.seq)?;
        let (pt, ssrc) = (track.format(packet.codec)?.rtx?, track.rtx_ssrc?);
        let captured = track.captured(packet.timestamp);
        let captured = captured.filter(|_| packet.keyframe_start);
        let room = Room::of(&self.protect, true);
        let is_told = track.is_new || packet.keyframe_start;
        let wanted = Values {
            playout_delay: self.playout_delay.filter(|_| is_told),
            captured: captured.map(|at| capture_time(self.clock, at)),
            descriptor: track.describe(packet, &mut self.descriptor),
            ..track.needed_again(number(&mut self.number, track.extensions))
        };
        let values = track.fit(wanted, room, packet.payload.len());
        let draft = track.draft_again(
            Header {
                pt,
                marker: packet.marker,
                padded: false,
                seq: 0,
                timestamp: packet.timestamp,
                ssrc,
            },
            values,
        );
        track.sent_again.add(packet.payload.len() + OSN);
        let left = draft.send(path, track, &mut self.protect, sink, None, |buffer| {
            buffer.extend_from_slice(&(packet.seq as u16).to_be_bytes());
            let body = buffer.len();
            buffer.extend_from_slice(packet.payload);
            if let Some(counters) = packet.vp8 {
                vp8::rewrite(&mut buffer[body..], counters);
            }
        });
        Some(left)
    }

    /// Sends the very same datagram again (RFC 4585), where the viewer takes no stream of retransmissions. `packet` has its
    /// number. The transport-wide number is that of the first time.
    pub(super) fn repeat(
        &mut self,
        path: Path,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> Option<Left> {
        let slot = usize::from(packet.slot.0);
        let kept = self.sealed.get(slot)?.as_ref()?.get(packet.seq)?;
        let track = self.tracks.get_mut(slot)?;
        track.sent_again.add(packet.payload.len());
        track.sent.add(packet.payload.len());
        sink.compose_media(track.kind, path.local, path.remote, &mut |buffer| {
            buffer.extend_from_slice(kept.datagram);
        });
        Some(Left {
            number: kept.number,
            bytes: kept.datagram.len(),
        })
    }

    /// Sends a packet of nothing but padding in the stream of retransmissions, to see whether the network carries it.
    pub(super) fn pad(&mut self, path: Path, sink: &mut dyn TransportSink) -> Option<Left> {
        let (track, pt, ssrc) = self.tracks.iter_mut().find_map(|track| {
            let ssrc = track.rtx_ssrc?;
            let used = track.sent.last.is_some() && track.extensions.twcc.is_some();
            let pt = track.formats.iter().find_map(|f| f.rtx)?;
            used.then_some((track, pt, ssrc))
        })?;
        let values = track.needed_again(number(&mut self.number, track.extensions));
        let draft = track.draft_again(
            Header {
                pt,
                marker: false,
                padded: true,
                seq: 0,
                timestamp: track.sent.last.map_or(0, |(timestamp, _)| timestamp),
                ssrc,
            },
            values,
        );
        let left = draft.send(path, track, &mut self.protect, sink, None, |buffer| {
            buffer.resize(buffer.len() + usize::from(PADDING) - 1, 0);
            buffer.push(PADDING);
        });
        Some(left)
    }
}

/// A packet without its payload.
#[derive(Debug, Clone, Copy)]
struct Draft<'a> {
    header: Header,
    /// How often the sequence number has wrapped.
    rollover: u32,
    values: Values<'a>,
}

/// Where a datagram is kept as it leaves.
struct Keep<'a> {
    sealed: &'a mut Sealed,
    now: Instant,
    seq: u64,
}

/// What a packet takes beside header, extensions and payload.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Octets of the seal.
    tag: usize,
    /// It may be sent again, and takes more then.
    again: bool,
}

impl Room {
    fn of(protect: &Protect, may_be_sent_again: bool) -> Self {
        Self {
            tag: protect.profile().rtp_overhead(),
            again: may_be_sent_again,
        }
    }

    /// Whether a packet with these header extensions and so many octets of payload is small enough.
    fn holds(self, track: &Track, values: &Values<'_>, payload: usize) -> bool {
        let values = Values {
            mid: values.mid || self.again,
            ..*values
        };
        let again = if self.again { OSN } else { 0 };
        RTP_HEADER + values.len(track) + payload + self.tag + again <= MAX_DATAGRAM
    }
}

impl Values<'_> {
    /// Octets of the header extensions.
    fn len(&self, track: &Track) -> usize {
        track.extensions(self).len()
    }
}

impl Draft<'_> {
    /// Writes the packet into the buffer that it is sent from, and seals it there.
    fn send(
        &self,
        path: Path,
        track: &Track,
        protect: &mut Protect,
        sink: &mut dyn TransportSink,
        mut keep: Option<Keep<'_>>,
        payload: impl Fn(&mut Vec<u8>),
    ) -> Left {
        let number = self.values.number.map(u16::from_be_bytes);
        let mut bytes = 0;
        sink.compose_media(track.kind, path.local, path.remote, &mut |buffer| {
            let start = buffer.len();
            let extensions = track.extensions(&self.values);
            let header = self.header.write(buffer, &extensions);
            payload(buffer);
            bytes = seal(protect, buffer, start, header, self.rollover);
            if let Some(Keep { sealed, now, seq }) = &mut keep {
                let datagram = &buffer[start..];
                sealed.push(*now, *seq, Kept { number, datagram });
            }
        });
        Left { number, bytes }
    }
}

impl Track {
    fn new(format: &Format) -> Self {
        Self {
            slot: format.slot,
            formats: vec![format.clone()],
            kind: format.codec.kind(),
            ssrc: format.ssrc,
            rtx_ssrc: format.rtx_ssrc,
            cname: format.cname.clone(),
            mid: format.mid.clone(),
            extensions: format.extensions,
            is_new: true,
            newest: 0,
            first: 0,
            sent: Sent::default(),
            sent_again: Sent::default(),
            rtx_seq: FIRST_RTX_SEQ,
            asked: (format.codec.kind() == TrackKind::Video).then(Asked::new),
            wants_keyframe: false,
            commanded: None,
            told: None,
            owes_captured: false,
            owes_delay: false,
        }
    }

    /// The same m-line may carry this from now on.
    fn goes_on_with(&mut self, formats: &[Format]) {
        let before = std::mem::replace(&mut self.formats, formats.to_vec());
        for format in &mut self.formats {
            let mut known = before.iter().filter(|f| f.codec == format.codec);
            known.next().into_iter().for_each(|f| format.stay(f));
        }
    }

    /// The same m-line under another SSRC, which goes on in its numbers: to the peer it is a stream that begins.
    fn renamed(&self, first: &Format, formats: &[Format]) -> Self {
        Self {
            formats: formats.to_vec(),
            newest: self.newest,
            first: self.newest + 1,
            ..Self::new(first)
        }
    }

    /// How often the sequence number has wrapped under this SSRC: a receiver counts from its first packet (RFC 3711, section
    /// 3.3.1). `None`: the packet is older than that, and its number may yet come under this SSRC.
    fn rollover(&self, seq: u64) -> Option<u32> {
        let wraps = |n: u64| (n >> 16) as u32;
        (seq >= self.first).then(|| wraps(seq) - wraps(self.first))
    }

    fn format(&self, codec: Codec) -> Option<&Format> {
        self.formats.iter().find(|f| f.codec == codec)
    }

    /// The next packet of the stream of retransmissions, which numbers it.
    fn draft_again<'a>(&mut self, header: Header, values: Values<'a>) -> Draft<'a> {
        let seq = self.rtx_seq;
        self.rtx_seq += 1;
        Draft {
            header: Header {
                seq: seq as u16,
                ..header
            },
            rollover: (seq >> 16) as u32,
            values,
        }
    }

    /// Ticks of its timestamps in a second.
    pub(super) fn clock_rate(&self) -> u32 {
        match self.kind {
            TrackKind::Audio => 48_000,
            TrackKind::Video => 90_000,
        }
    }

    /// What every packet must say.
    fn needed(&self, number: Option<[u8; 2]>) -> Values<'static> {
        Values {
            mid: self.is_new,
            number,
            ..Values::default()
        }
    }

    /// What every retransmission and all padding must say: where several m-lines have the same payload types, Firefox takes
    /// that stream for one of theirs by MID alone, whatever the SDP says of SSRCs, and no report tells that it is known.
    fn needed_again(&self, number: Option<[u8; 2]>) -> Values<'static> {
        Values {
            mid: true,
            ..self.needed(number)
        }
    }

    /// The packet's dependency descriptor as it leaves, where the peer takes that.
    fn describe<'a>(&self, packet: &Outgoing<'_>, octets: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let (descriptor, frame_number) = packet.descriptor?;
        self.extensions.descriptor?;
        octets.clear();
        descriptor.write(frame_number, octets);
        Some(octets)
    }

    /// Whether a packet is to tell how long pictures may be kept back: a receiver that has just begun learns it.
    fn wants_delay(&self, packet: &Outgoing<'_>) -> bool {
        self.is_new || packet.keyframe_start || self.owes_delay
    }

    /// The time of capture, where it is to be told: where a decoder may begin, and now and then.
    fn tell(&self, packet: &Outgoing<'_>) -> Option<Instant> {
        self.extensions.capture_time?;
        let captured = packet.captured;
        let is_due = |told| captured.saturating_duration_since(told) >= TELL_CAPTURED;
        let is_asked = packet.keyframe_start || self.owes_captured;
        (is_asked || self.told.is_none_or(is_due)).then_some(captured)
    }

    /// Leaves out what there is no room for and can wait.
    fn fit<'a>(&self, wanted: Values<'a>, room: Room, payload: usize) -> Values<'a> {
        if room.holds(self, &wanted, payload) {
            return wanted;
        }
        let needed = Values {
            playout_delay: None,
            captured: None,
            ..wanted
        };
        let more = [
            Values {
                playout_delay: wanted.playout_delay,
                ..needed
            },
            Values {
                captured: wanted.captured,
                ..needed
            },
        ];
        let fits = more
            .into_iter()
            .find(|values| room.holds(self, values, payload));
        fits.unwrap_or(needed)
    }

    /// What was left out waits for the next packet. Receivers read the delay of a frame's first one.
    fn note(&mut self, packet: &Outgoing<'_>, wanted: &Values<'_>, told: &Values<'_>) {
        if told.captured.is_some() {
            self.told = Some(packet.captured);
        }
        self.owes_captured = wanted.captured.is_some() && told.captured.is_none();
        if wanted.playout_delay.is_none() || self.extensions.playout_delay.is_none() {
            return;
        }
        let is_told = told.playout_delay.is_some();
        let begins = self.sent.last.is_none_or(|(at, _)| at != packet.timestamp);
        if is_told && (begins || packet.keyframe_start) {
            self.owes_delay = false;
        } else if !is_told {
            self.owes_delay = true;
        }
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

    /// The extensions that a packet has, where they were agreed on.
    fn extensions<'a>(&'a self, values: &'a Values<'_>) -> Block<'a> {
        let Extensions {
            mid,
            twcc,
            playout_delay,
            capture_time,
            descriptor,
        } = self.extensions;
        let mid = mid.filter(|_| values.mid);
        Block {
            short: [
                mid.map(|id| (id, self.mid.as_bytes())),
                value(twcc, values.number.as_ref()),
                value(playout_delay, values.playout_delay.as_ref()),
                value(capture_time, values.captured.as_ref()),
            ],
            long: descriptor.zip(values.descriptor),
        }
    }
}

fn value<const N: usize>(id: Option<u8>, octets: Option<&[u8; N]>) -> Option<(u8, &[u8])> {
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
mod tests;
