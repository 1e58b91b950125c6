// SPDX-License-Identifier: MPL-2.0

//! What leaves: packets as the shard numbers them, packets sent again, and padding that probes the network.
//!
//! Once per packet and viewer: header, one copy of the shared payload into the buffer that is sent, sealed in place.
//! Nothing is allocated, locked or formatted, and no clock is read.
//!
//! Header extensions never make a packet larger than [`MAX_DATAGRAM`](crate::size::MAX_DATAGRAM) that would be smaller without them, but for the
//! transport-wide number, without which the viewer's network could not be judged, the m-line's name while the peer
//! needs it, and the dependency descriptor, without which nothing is decoded: its publisher had room for it, too. The others wait
//! for a packet that has room.

mod draft;
mod track;

use std::time::Instant;

use super::super::negotiate::{PlayoutDelay, WallClock};
use super::super::{Outgoing, TransportSink};
use super::agreed::{Agreed, Format};
use super::connection::Path;
use super::header::Header;
use super::sealed::Sealed;
use crate::codec::profile::H264Profile;
use crate::codec::{red, vp8};
use crate::size::OSN;
use crate::srtp::Protect;
pub(super) use draft::Left;
use draft::{Draft, Keep, Room};
use track::{Track, Values, capture_time, number};

/// The most octets of padding in a packet, a multiple of four.
const PADDING: u8 = 252;

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

#[cfg(test)]
mod tests;
