// SPDX-License-Identifier: MPL-2.0

//! What offer and answer agree on, as far as a session needs it (RFC 9429). Filled by [`sdp`](crate::peer::sdp).

use std::net::SocketAddr;

use is::{Candidate, IceCreds};

use crate::codec::profile::H264Profile;
use crate::codec::{Codec, TrackKind};
use crate::peer::data::AgreedData;
use crate::peer::sdp::Fingerprint;
use crate::transport::Slot;

/// The header extensions of an m-line, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    /// The m-line's name (RFC 8843).
    pub(crate) mid: Option<u8>,
    /// The transport-wide number by which arrivals are reported.
    pub(crate) twcc: Option<u8>,
    /// How long the peer may keep pictures back.
    pub(crate) playout_delay: Option<u8>,
    /// When the media was captured.
    pub(crate) capture_time: Option<u8>,
    /// What frames are predicted from (the dependency descriptor), where headers of one and two octets may be mixed.
    pub(crate) descriptor: Option<u8>,
}

/// A codec that may be sent, and under which numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    /// The m-line that it is for.
    pub(crate) slot: Slot,
    pub(crate) codec: Codec,
    pub(crate) pt: u8,
    /// The same with redundancy (RED).
    pub(crate) red: Option<u8>,
    /// Its retransmissions (RFC 4588).
    pub(crate) rtx: Option<u8>,
    /// The peer asks for what it misses (NACK).
    pub(crate) nack: bool,
    /// Of H.264 that was offered with several profiles: each with its numbers, the best that is known of first.
    pub(crate) profiles: Vec<Numbers>,
    pub(crate) mid: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) cname: String,
    pub(crate) extensions: Extensions,
}

/// A profile of H.264, and what it is sent under (RFC 6184, section 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) profile: H264Profile,
    pub(crate) pt: u8,
    pub(crate) rtx: Option<u8>,
}

impl Format {
    /// What the peer misses can only be sent again as it left.
    pub(crate) fn is_repeated(&self) -> bool {
        let lacks_rtx = self.rtx.is_none() || self.profiles.iter().any(|n| n.rtx.is_none());
        self.nack && lacks_rtx && self.codec.kind() == TrackKind::Video
    }

    /// What comes from here on has this profile: it leaves under the payload type that fits it best.
    pub(crate) fn follow(&mut self, profile: H264Profile) {
        let best = self
            .profiles
            .iter()
            .min_by_key(|n| profile.distance(n.profile));
        if let Some(best) = best {
            (self.pt, self.rtx) = (best.pt, best.rtx);
        }
    }

    /// Goes on under the numbers of before, where they are still agreed on: a decoder begins anew where they change.
    pub(crate) fn stay(&mut self, before: &Self) {
        let is_it = |n: &&Numbers| (n.pt, n.rtx) == (before.pt, before.rtx);
        if let Some(same) = self.profiles.iter().find(is_it) {
            (self.pt, self.rtx) = (same.pt, same.rtx);
        }
    }
}

/// The codecs of pictures that may be sent on some m-line, or on this one.
pub(crate) fn pictures(formats: &[Format], slot: Option<Slot>) -> Vec<Codec> {
    let mut all = Vec::new();
    for format in formats {
        let is_there = slot.is_none_or(|slot| slot == format.slot);
        let is_picture = format.codec.kind() == TrackKind::Video;
        if is_there && is_picture && !all.contains(&format.codec) {
            all.push(format.codec);
        }
    }
    all
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) local: IceCreds,
    pub(crate) remote: IceCreds,
    /// Our addresses, as the peer is told them.
    pub(crate) candidates: Vec<Candidate>,
    /// The peer answers checks and makes none (RFC 8445, section 2.5).
    pub(crate) peer_is_lite: bool,
    /// Its addresses, where it is.
    pub(crate) remote_candidates: Vec<SocketAddr>,
    /// The name of the first m-line.
    pub(crate) mid: String,
    /// One of these is the peer's certificate's.
    pub(crate) fingerprints: Vec<Fingerprint>,
    /// Candidates that the peer has told in fragments so far.
    pub(crate) heard: usize,
    /// We begin the DTLS handshake.
    pub(crate) is_client: bool,
    pub(crate) formats: Vec<Format>,
    /// The peer sends PLI or FIR for its video when it can't decode.
    pub(crate) asks_for_keyframes: bool,
    /// Each m-line is a place of its own; else the first of each kind are one, and so on.
    pub(crate) by_slot: bool,
    /// Data channels, where there are to be some.
    pub(crate) data: Option<AgreedData>,
}

/// What may be sent on all m-lines after another offer of ours was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreedSlots {
    /// By slot. Those that there were are still there.
    pub(crate) formats: Vec<Format>,
    pub(crate) asks_for_keyframes: bool,
    pub(crate) data: Option<AgreedData>,
}
