// SPDX-License-Identifier: MPL-2.0

//! An m-line's stream: its numbers, and what the header extensions of its packets say.

use std::time::{Duration, Instant};

use super::super::super::negotiate::WallClock;
use super::super::super::{Outgoing, Slot};
use super::super::agreed::{Extensions, Format};
use super::super::asked::Asked;
use super::super::control;
use super::super::header::{Block, Header};
use super::draft::{Draft, Room};
use crate::codec::{Codec, TrackKind};

/// The first number of a retransmission stream, low so that its rollover counter begins at zero (RFC 3711).
const FIRST_RTX_SEQ: u64 = 1_000;
/// Between two times of capture that are told: receivers reckon those between.
const TELL_CAPTURED: Duration = Duration::from_secs(1);

/// What was sent under one SSRC.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Sent {
    pub(in super::super) packets: u32,
    /// Of payload.
    pub(in super::super) octets: u32,
    /// The newest timestamp and the moment that it stands for.
    pub(in super::super) last: Option<(u32, Instant)>,
}

impl Sent {
    pub(super) fn add(&mut self, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
    }
}

/// One m-line's stream and, beside it, that of its retransmissions.
#[derive(Debug)]
pub(in super::super) struct Track {
    pub(in super::super) slot: Slot,
    /// What it may consist of.
    pub(super) formats: Vec<Format>,
    pub(in super::super) kind: TrackKind,
    pub(in super::super) ssrc: u32,
    pub(in super::super) rtx_ssrc: Option<u32>,
    pub(in super::super) cname: String,
    mid: String,
    pub(super) extensions: Extensions,
    /// The peer has not yet told that it knows the stream: packets carry the m-line's name and the playout delay.
    pub(in super::super) is_new: bool,
    /// Extended number of the newest packet.
    pub(in super::super) newest: u64,
    /// Extended number of the first packet of this SSRC: an m-line that is used again goes on in its numbers.
    first: u64,
    pub(in super::super) sent: Sent,
    pub(in super::super) sent_again: Sent,
    rtx_seq: u64,
    /// What the viewer has just asked for again, of video.
    pub(in super::super) asked: Option<Box<Asked>>,
    /// The viewer has just asked for a keyframe.
    pub(in super::super) wants_keyframe: bool,
    /// The number of the last command for a keyframe (FIR).
    pub(in super::super) commanded: Option<u8>,
    /// The time of capture that was told last.
    told: Option<Instant>,
    /// Packets had no room for what they should have told.
    owes_captured: bool,
    owes_delay: bool,
}

/// What a packet's header extensions say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Values<'a> {
    /// The m-line's name is among it.
    pub(super) mid: bool,
    /// The transport-wide number.
    pub(super) number: Option<[u8; 2]>,
    pub(super) playout_delay: Option<[u8; 3]>,
    /// When it was captured, and that this is by the clock of our sender reports.
    pub(super) captured: Option<[u8; 16]>,
    /// What its frame is predicted from.
    pub(super) descriptor: Option<&'a [u8]>,
}

impl Values<'_> {
    /// Octets of the header extensions.
    pub(super) fn len(&self, track: &Track) -> usize {
        track.extensions(self).len()
    }
}

impl Track {
    pub(super) fn new(format: &Format) -> Self {
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
    pub(super) fn goes_on_with(&mut self, formats: &[Format]) {
        let before = std::mem::replace(&mut self.formats, formats.to_vec());
        for format in &mut self.formats {
            let mut known = before.iter().filter(|f| f.codec == format.codec);
            known.next().into_iter().for_each(|f| format.stay(f));
        }
    }

    /// The same m-line under another SSRC, which goes on in its numbers: to the peer it is a stream that begins.
    pub(super) fn renamed(&self, first: &Format, formats: &[Format]) -> Self {
        Self {
            formats: formats.to_vec(),
            newest: self.newest,
            first: self.newest + 1,
            ..Self::new(first)
        }
    }

    /// How often the sequence number has wrapped under this SSRC: a receiver counts from its first packet (RFC 3711, section
    /// 3.3.1). `None`: the packet is older than that, and its number may yet come under this SSRC.
    pub(super) fn rollover(&self, seq: u64) -> Option<u32> {
        let wraps = |n: u64| (n >> 16) as u32;
        (seq >= self.first).then(|| wraps(seq) - wraps(self.first))
    }

    pub(super) fn format(&self, codec: Codec) -> Option<&Format> {
        self.formats.iter().find(|f| f.codec == codec)
    }

    /// The next packet of the stream of retransmissions, which numbers it.
    pub(super) fn draft_again<'a>(&mut self, header: Header, values: Values<'a>) -> Draft<'a> {
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
    pub(in super::super) fn clock_rate(&self) -> u32 {
        match self.kind {
            TrackKind::Audio => 48_000,
            TrackKind::Video => 90_000,
        }
    }

    /// What every packet must say.
    pub(super) fn needed(&self, number: Option<[u8; 2]>) -> Values<'static> {
        Values {
            mid: self.is_new,
            number,
            ..Values::default()
        }
    }

    /// What every retransmission and all padding must say: where several m-lines have the same payload types, Firefox takes
    /// that stream for one of theirs by MID alone, whatever the SDP says of SSRCs, and no report tells that it is known.
    pub(super) fn needed_again(&self, number: Option<[u8; 2]>) -> Values<'static> {
        Values {
            mid: true,
            ..self.needed(number)
        }
    }

    /// The packet's dependency descriptor as it leaves, where the peer takes that.
    pub(super) fn describe<'a>(
        &self,
        packet: &Outgoing<'_>,
        octets: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let (descriptor, frame_number) = packet.descriptor?;
        self.extensions.descriptor?;
        octets.clear();
        descriptor.write(frame_number, octets);
        Some(octets)
    }

    /// Whether a packet is to tell how long pictures may be kept back: a receiver that has just begun learns it.
    pub(super) fn wants_delay(&self, packet: &Outgoing<'_>) -> bool {
        self.is_new || packet.keyframe_start || self.owes_delay
    }

    /// The time of capture, where it is to be told: where a decoder may begin, and now and then.
    pub(super) fn tell(&self, packet: &Outgoing<'_>) -> Option<Instant> {
        self.extensions.capture_time?;
        let captured = packet.captured;
        let is_due = |told| captured.saturating_duration_since(told) >= TELL_CAPTURED;
        let is_asked = packet.keyframe_start || self.owes_captured;
        (is_asked || self.told.is_none_or(is_due)).then_some(captured)
    }

    /// Leaves out what there is no room for and can wait.
    pub(super) fn fit<'a>(&self, wanted: Values<'a>, room: Room, payload: usize) -> Values<'a> {
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
    pub(super) fn note(&mut self, packet: &Outgoing<'_>, wanted: &Values<'_>, told: &Values<'_>) {
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
    pub(super) fn captured(&self, timestamp: u32) -> Option<Instant> {
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
    pub(super) fn extensions<'a>(&'a self, values: &'a Values<'_>) -> Block<'a> {
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
pub(super) fn capture_time(clock: WallClock, captured: Instant) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&control::ntp(clock.at(captured)).to_be_bytes());
    octets
}

/// The transport-wide number of the next packet, where the stream has them.
pub(super) fn number(next: &mut u16, extensions: Extensions) -> Option<[u8; 2]> {
    extensions.twcc?;
    let number = *next;
    *next = next.wrapping_add(1);
    Some(number.to_be_bytes())
}
