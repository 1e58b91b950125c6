// SPDX-License-Identifier: MPL-2.0

//! How packets reach one viewer, and come from one publisher: the seam between forwarding and WebRTC.
//!
//! A viewer's session is a [`lean::LeanTransport`], a publisher's an [`Uplink`](crate::peer::uplink::Uplink), on the same ICE and
//! DTLS; who does both over one connection has a [`Duplex`](crate::peer::duplex::Duplex). [`negotiate`] makes them of offers.

pub mod lean;
pub mod negotiate;
pub mod patch;
pub(crate) mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::codec::dependency::Descriptor;
use crate::codec::{Codec, TrackKind, Vp8Header, sets};
use crate::peer::data::DataCommand;
pub use crate::peer::uplink::agreed::AgreedTracks;
pub use work::Work;

/// An m-line on which a peer is sent something, by its place among those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// An m-line on which a peer sends something, by its place among all of its m-lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackIn(pub u16);

/// A packet as one viewer gets it.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The m-line that it leaves on.
    pub slot: Slot,
    /// Selects the negotiated payload type.
    pub codec: Codec,
    /// Extended sequence number; its upper bits are the SRTP rollover counter.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The moment that the timestamp stands for, for sender reports.
    pub captured: Instant,
    /// The marker bit.
    pub marker: bool,
    /// The first packet of a frame that a decoder can begin with.
    pub keyframe_start: bool,
    /// VP8 counters to write into the payload descriptor.
    pub vp8: Option<Vp8Header>,
    /// Its dependency descriptor, and the number of its frame to write into that.
    pub descriptor: Option<(&'a Arc<Descriptor>, u16)>,
    /// RTP payload, shared. Empty where the viewer only needs the number.
    pub payload: &'a Arc<[u8]>,
    /// The same with redundancy (RED), where the publisher sends that.
    pub red: Option<&'a Arc<[u8]>>,
}

/// As many events as a report usually brings, lost packets above all: room that is made once.
pub(crate) const EVENTS: usize = 16;

/// What a session tells its shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TransportEvent {
    /// ICE and DTLS are up: media may flow.
    Connected,
    /// The viewer's decoder of an m-line needs a keyframe (PLI or FIR).
    KeyframeRequest(Slot),
    /// Figures from the viewer's reports.
    Report {
        /// Round trip time.
        rtt: Option<Duration>,
        /// The share of packets that the viewer counts as lost, 0 to 1.
        loss: Option<f32>,
        /// Packets that were sent again.
        retransmitted: u64,
    },
    /// The viewer missed a packet of this number, and may get it again.
    Lost {
        /// The m-line that it left on.
        slot: Slot,
        /// Extended sequence number as it was sent.
        seq: u64,
    },
    /// The share of a publishing peer's packets that was lost lately, 0 to 1.
    IngressLoss {
        /// Of its pictures, where there are any.
        pictures: Option<f32>,
        /// Of all.
        all: f32,
    },
    /// What the viewer's network carries.
    Estimate(Estimate),
    /// The session is over and can be dropped.
    Closed,
}

/// What a viewer's network carries (TWCC with GCC, or the viewer's own REMB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Bit/s in all.
    pub bits_per_second: u64,
    /// Not a guess from little traffic: packets are being held up or lost, and this is what gets through.
    pub congested: bool,
    /// What any network is taken to carry at first: nothing has told of this one yet.
    pub guessed: bool,
}

/// What a viewer's layer asks of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// More than this many bit/s need not be known.
    pub goal: u64,
    /// Find out now whether the network carries the goal.
    pub probe: bool,
    /// There is little room: large frames must be spread in time.
    pub spread: bool,
}

impl Demand {
    /// Nothing need be known.
    pub const NONE: Self = Self {
        goal: 0,
        probe: false,
        spread: false,
    };
}

/// A packet from a publishing peer.
#[derive(Debug)]
pub struct Incoming {
    /// The m-line that it came on.
    pub track: TrackIn,
    /// Index of the layer, in the order of the offer; 0 for sound.
    pub layer: usize,
    /// What it is encoded with.
    pub codec: Codec,
    /// Its SSRC: timestamps of different ones are not comparable.
    pub source: u32,
    /// Sequence number in its track's layer, whatever its SSRC. One that is missing was lost.
    pub seq: u16,
    /// It comes after others that follow it.
    pub is_late: bool,
    /// RTP timestamp of that SSRC.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// How far below the loudest, in dB (RFC 6464), where the peer tells it.
    pub audio_level: Option<u8>,
    /// Its dependency descriptor, where the codec's layers are told apart by that.
    pub(crate) descriptor: Option<Arc<Descriptor>>,
    /// Parameter sets that the offer tells, with the first packet of an SSRC.
    pub(crate) sets: Option<sets::Told>,
    /// RTP payload. Empty where there is nothing to forward (padding): only its number is used up.
    pub payload: Arc<[u8]>,
    /// The same with redundancy, as it came (RED).
    pub red: Option<Arc<[u8]>>,
}

/// What a publishing peer's sender report says of its clocks (RFC 3550, section 6.4.1).
#[derive(Debug, Clone, Copy)]
pub struct SenderClock {
    /// The m-line.
    pub track: TrackIn,
    /// Index of the layer; 0 for sound.
    pub layer: usize,
    /// The SSRC that it is about.
    pub source: u32,
    /// An RTP timestamp of that SSRC.
    pub timestamp: u32,
    /// The same moment on the peer's clock that all its tracks share.
    pub ntp: SystemTime,
}

/// Takes what a session puts out.
pub trait TransportSink {
    /// A packet came from a publishing peer.
    fn packet(&mut self, _packet: Incoming) {}
    /// A sender report came from a publishing peer.
    fn sender_clock(&mut self, _clock: SenderClock) {}
    /// A datagram to send.
    fn transmit(&mut self, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        self.compose(source, destination, &mut |buffer| {
            buffer.extend_from_slice(data);
        });
    }
    /// A datagram to send, appended to the buffer that it will be sent from. Where nothing is appended, nothing is sent.
    fn compose(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        append: &mut dyn FnMut(&mut Vec<u8>),
    );
    /// The same for a packet of media, which networks may treat by its kind (RFC 8837).
    fn compose_media(
        &mut self,
        _kind: TrackKind,
        source: SocketAddr,
        destination: SocketAddr,
        append: &mut dyn FnMut(&mut Vec<u8>),
    ) {
        self.compose(source, destination, append);
    }
    /// Something happened.
    fn event(&mut self, event: TransportEvent);
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was the peer's own, and this is what it took.
    Work(Work),
    /// It was read, but anybody may have sent it.
    Unproven(Work),
    /// It makes no sense, or is not authentic.
    NotUnderstood,
    /// It was not read, for there had been too many.
    OverBudget,
}

/// A piece of an SDP that changes a running session (RFC 8840).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchOutcome {
    /// Candidates were added.
    Trickled,
    /// ICE was restarted; this fragment is the answer and carries these new credentials.
    Restarted {
        /// The answer's fragment.
        fragment: String,
        /// The user fragment under which the peer's checks now arrive.
        local_ufrag: String,
    },
}

/// One peer's session. Sans-IO: time is an argument, datagrams go in and come out.
pub trait Transport: Send {
    /// The ICE user fragment by which a newcomer's first datagram is recognised.
    fn local_ufrag(&self) -> &str;
    /// The first four octets of its own checks' transactions: what comes back with them is an answer for this session.
    fn set_tag(&mut self, _tag: u32) {}
    /// Another session is at this address, too: is the peer still there?
    fn ask(&mut self, _now: Instant, _remote: SocketAddr) {}
    /// Our address and the peer's, between which media goes, once there is a way.
    fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        None
    }
    /// A datagram came from the peer.
    fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken;
    /// Puts out everything that is due and returns when to call again.
    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant;
    /// Trickle ICE and ICE restart.
    fn patch(
        &mut self,
        now: Instant,
        fragment: &patch::Fragment,
    ) -> Result<PatchOutcome, patch::PatchError>;
    /// Something is to be done with the session's data channels.
    fn data(&mut self, _now: Instant, _command: DataCommand) {}
    /// Ends the session towards the peer, as far as it can still be told.
    fn close(&mut self);
}

/// A viewer's session.
pub trait ViewerTransport: Transport {
    /// The m-line with this place for one kind of media: among those of its kind, in the order of the offer, or, where the
    /// offers are ours, among all of them.
    fn slot(&self, kind: TrackKind, place: usize) -> Option<Slot>;
    /// Whether the viewer can be sent this codec on an m-line.
    fn accepts(&self, slot: Slot, codec: Codec) -> bool;
    /// Whether the viewer is told what frames are predicted from (the dependency descriptor).
    fn takes_descriptors(&self, _slot: Slot) -> bool {
        false
    }
    /// Whether the viewer asks for keyframes itself when it can't decode (PLI or FIR was agreed on).
    fn asks_for_keyframes(&self) -> bool;
    /// What the viewer's network is taken to carry at first, where that is going to be found out.
    fn first_estimate(&self) -> Option<Estimate>;
    /// After another offer of ours the viewer has these m-lines. Those that there were go on.
    fn set_slots(&mut self, now: Instant, slots: lean::AgreedSlots);
    /// What is to be found out about the viewer's network, and how to treat it.
    fn set_demand(&mut self, now: Instant, demand: Demand);
    /// Lets the viewer keep pictures back until the sound that belongs to them has come.
    fn wait_for_sound(&mut self, _now: Instant, _lags: bool) {}
    /// Sends a packet, at once or a little later.
    fn send(&mut self, now: Instant, packet: &Outgoing<'_>, sink: &mut dyn TransportSink);
    /// A packet that is not sent any more, since our own network has held it up for too long. To the viewer, and to what is
    /// known of its network, it was lost on the way.
    fn lose(&mut self, _now: Instant, _packet: &Outgoing<'_>) {}
    /// Sends a packet again that the viewer missed ([`TransportEvent::Lost`]). `false`: it takes no such packets.
    fn resend(&mut self, now: Instant, packet: &Outgoing<'_>, sink: &mut dyn TransportSink)
    -> bool;
    /// What the viewer publishes over the same connection, where it may publish.
    fn publisher(&mut self) -> Option<&mut dyn PublisherTransport> {
        None
    }
}

/// A publishing peer's session.
pub trait PublisherTransport: Transport {
    /// Whether the peer gets arrival reports (TWCC), from which it knows its network.
    fn reports_arrivals(&self) -> bool;
    /// Tells the peer how much it may send, in bit/s (REMB).
    fn limit(&mut self, now: Instant, bits_per_second: u64);
    /// Asks the peer for a keyframe of a track's layer (PLI or FIR).
    fn request_keyframe(&mut self, now: Instant, track: TrackIn, layer: usize);
    /// The peer sends these from now on. Those that go on as they were are not touched.
    fn set_tracks(&mut self, now: Instant, tracks: AgreedTracks);
}
