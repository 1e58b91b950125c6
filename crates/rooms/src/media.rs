// SPDX-License-Identifier: MPL-2.0

//! The seam to what carries media: what it is to do for participants, and what became of that.
//!
//! By LiveKit's v0 a participant has two connections: on one it publishes and offers, on the other it gets what it subscribed to
//! and the server offers. M-lines that the server offers are numbered here and only grow; one whose track is gone is used again.
//! By v1 it has one connection, makes all offers, and has m-lines in them for what it gets.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol::{SessionDescription, TrackType};

use crate::sid::Sid;

/// What the media is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Answer what a participant offers to publish: [`Negotiated::Answered`].
    Answer {
        /// Who offers.
        participant: Sid,
        /// The offer.
        offer: SessionDescription,
        /// What it has announced, in the order of the announcements.
        expected: Vec<Expected>,
    },
    /// Answer what a participant offers on its only connection (v1): [`Negotiated::Conversed`].
    Converse {
        /// Who offers.
        participant: Sid,
        /// The offer.
        offer: SessionDescription,
        /// What it has announced, in the order of the announcements.
        expected: Vec<Expected>,
        /// What it is to get, as far as the offer has m-lines for it.
        wanted: Vec<Section>,
    },
    /// Offer a participant these m-lines: [`Negotiated::Offered`].
    Offer {
        /// To whom.
        participant: Sid,
        /// All of them, those of earlier offers first and in the same order.
        sections: Vec<Section>,
        /// The way is to be found anew.
        restart_ice: bool,
    },
    /// Take the answer to that.
    Accept {
        /// Who answers.
        participant: Sid,
        /// The answer.
        answer: SessionDescription,
    },
    /// A way to a participant, as it says.
    Trickle {
        /// Who says so.
        participant: Sid,
        /// Of the connection on which it publishes, or of the other one.
        publisher: bool,
        /// The candidate, as clients write it (JSON of `RTCIceCandidateInit`).
        candidate: String,
    },
    /// How a participant wants to see a track.
    Show {
        /// Who.
        participant: Sid,
        /// What.
        track: Sid,
        /// How.
        wish: Wish,
    },
    /// A participant is not to get a track any more: at once, whenever its m-line is given up.
    Stop {
        /// Who.
        participant: Sid,
        /// What.
        track: Sid,
    },
    /// Carry this to a participant on the channel of this kind.
    Data {
        /// To whom.
        participant: Sid,
        /// Nothing is lost, and all in order.
        reliable: bool,
        /// A `DataPacket`.
        packet: Arc<[u8]>,
    },
    /// Carry this to a participant, if there is room for it just now: nothing waits for it.
    Datagram {
        /// To whom.
        participant: Sid,
        /// Of a data track, with the number that subscribers know it by.
        packet: Arc<[u8]>,
    },
    /// Both connections end.
    End {
        /// Whose.
        participant: Sid,
    },
}

/// A track that was announced, and by which of the client's own names its m-line may be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The track.
    pub track: Sid,
    /// Sound or pictures.
    pub kind: TrackType,
    /// The ids that the client gave it, one for each codec.
    pub cids: Vec<String>,
    /// The codec that is to come first in the answer of the m-line with this id, as `vp9`.
    pub codecs: Vec<(String, String)>,
    /// It is a screen, or the sound of one: it is another stream than who shows it.
    pub is_screen: bool,
    /// Width and height of its layers, from the smallest up, as far as the client tells.
    pub sizes: Vec<(u32, u32)>,
    /// Its sound is not to come with redundancy (RED).
    pub without_red: bool,
}

/// An m-line towards a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Sound or pictures.
    pub kind: TrackType,
    /// What it carries, and who published that. Nothing: it is there to be used again.
    pub track: Option<(Sid, Sid)>,
}

/// A track of a stream of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTrack {
    /// Sound or pictures.
    pub kind: TrackType,
    /// Its codec, as `video/VP8`.
    pub mime: String,
    /// Width and height of its layers, from the smallest up, as far as they are known.
    pub sizes: Vec<(u32, u32)>,
}

/// How a subscriber wants a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// At all.
    pub shown: bool,
    /// No layer is to be higher, in lines. 0: any.
    pub height: u32,
    /// No more pictures a second. 0: any.
    pub fps: u32,
    /// What goes down last where the network has too little room. 0: as others of its kind.
    pub priority: u32,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            shown: true,
            height: 0,
            fps: 0,
            priority: 0,
        }
    }
}

/// What became of a command, or happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Negotiated {
    /// The answer to a participant's offer.
    Answered {
        /// Its SDP.
        sdp: String,
        /// The tracks that the offer has, of those expected and those found before.
        tracks: Vec<Found>,
    },
    /// The answer to a participant's offer on its only connection.
    Conversed {
        /// Its SDP.
        sdp: String,
        /// The tracks that the offer has, of those expected and those found before.
        tracks: Vec<Found>,
        /// For each of what it is to get the m-line's mid, where there is one for it.
        mids: Vec<Option<String>>,
        /// M-lines for sounds, and for pictures, that carry nothing.
        free: [usize; 2],
        /// The codecs of pictures that it takes, as `video/VP8`, as far as it is seen by now.
        shows: Vec<String>,
    },
    /// A participant's answer was taken.
    Accepted {
        /// The codecs of pictures that it takes, as `video/VP8`.
        shows: Vec<String>,
    },
    /// An offer can't be taken, with the reason.
    Refused(String),
    /// The offer to a participant.
    Offered {
        /// Its SDP.
        sdp: String,
        /// The m-lines' mids, in the order of the sections.
        mids: Vec<String>,
    },
    /// A way to it, as clients read it.
    Candidate {
        /// Of the connection on which it publishes, or of the other one.
        publisher: bool,
        /// JSON of `RTCIceCandidateInit`.
        candidate: String,
        /// There are no more.
        last: bool,
    },
    /// A connection is up.
    Connected {
        /// The one on which it only publishes, or the other one, or the only one.
        publisher: bool,
    },
    /// Nothing is heard of the participant any more.
    Lost,
}

/// A published track in an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub track: Sid,
    /// The id of the client's that it was known by.
    pub cid: String,
    /// Its m-line's mid.
    pub mid: String,
    /// The codec that was agreed on, as `video/VP8`.
    pub mime: String,
    /// The layers' RIDs from the lowest up; none where there is one layer.
    pub rids: Vec<String>,
}

/// What is heard of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sound {
    /// How loud it speaks, 0 to 1; 0 where what is heard is no speech, or not yet known to be.
    pub speech: f32,
    /// It was loud a moment ago, speech or not.
    pub loud: bool,
}

/// How a participant's connections do, over the last seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// What it publishes, if it does.
    pub up: Option<Path>,
    /// What it gets.
    pub down: Option<Path>,
    /// How many layers of each of its tracks come.
    pub layers: Vec<(Sid, usize)>,
}

/// One way of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Path {
    /// The share of packets that is lost, 0 to 1.
    pub loss: f32,
    /// There and back, where that is known.
    pub round_trip: Option<Duration>,
    /// So many layers below what it could be shown the worst of its pictures are.
    pub missing: usize,
    /// The network has no room at all for one of them.
    pub starved: bool,
}
