// SPDX-License-Identifier: MPL-2.0

//! A publishing peer's session on `str0m` in RTP mode. Called by the shard through [`PublisherTransport`].
//!
//! ICE (RFC 8445, lite), DTLS-SRTP (RFC 5764), RTCP (RFC 3550), NACK (RFC 4585) and RTX (RFC 4588) are `str0m`'s.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::media::{KeyframeRequestKind, Mid, Pt, Rid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Event, IceConnectionState, Input, Output, Rtc};

use super::patch::{self, PatchError};
use super::telling;
use super::work::{Allowance, PUBLISHER_CONTROL, Work};
use super::{
    Incoming, PatchOutcome, PublisherTransport, SenderClock, Taken, Transport, TransportEvent,
    TransportSink,
};
use crate::codec::{Codec, TrackKind, red};
use crate::rtcp::{self, Rtcp, RtcpError};
use crate::srtp::Unprotect;

/// The m-line and payload type under which a codec is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Negotiated {
    pub(crate) codec: Codec,
    pub(crate) mid: Mid,
    pub(crate) pt: Pt,
    /// The payload type of the same with redundancy (RED).
    pub(crate) red: Option<Pt>,
}

/// The largest report that is read.
const REPORT_MAX: usize = 1_500;
/// Packets of a report, and descriptions among them: a peer sends a report and a description for each of some streams, most
/// in datagrams of their own.
const PACKETS: usize = 40;
const DESCRIPTIONS: usize = 3;

/// See the module's description.
pub struct RtcTransport {
    rtc: Rtc,
    codecs: Vec<Negotiated>,
    local_ufrag: String,
    /// The viewer's offer, kept for ICE restarts.
    offer: String,
    /// The peer's packets are numbered for arrival reports, and it gets them.
    reports_arrivals: bool,
    /// The simulcast layers, where they have names.
    rids: Vec<Rid>,
    closed: bool,
    /// What its media has taken since the last datagram: it is known to be the peer's once it has come out of `rtc`.
    media: Work,
    /// What all else may take. `rtc` does not tell which checks and records were the peer's, so that it is held apart: who
    /// sends in the peer's name stops no media.
    control: Allowance,
    /// Opens the peer's reports, before `rtc` does, once there are keys.
    unprotect: Option<Unprotect>,
}

impl std::fmt::Debug for RtcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtcTransport")
            .field("codecs", &self.codecs)
            .field("local_ufrag", &self.local_ufrag)
            .finish_non_exhaustive()
    }
}

impl RtcTransport {
    /// `twcc`: arrival reports were agreed on.
    pub(super) fn new(
        now: Instant,
        mut rtc: Rtc,
        codecs: Vec<Negotiated>,
        offer: String,
        twcc: bool,
    ) -> Self {
        let local_ufrag = rtc.direct_api().local_ice_credentials().ufrag;
        Self {
            rtc,
            codecs,
            local_ufrag,
            offer,
            reports_arrivals: twcc,
            rids: Vec::new(),
            closed: false,
            media: Work::default(),
            control: Allowance::new(now, PUBLISHER_CONTROL),
            unprotect: None,
        }
    }

    fn put_out(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        if self.rtc.is_alive()
            && let Err(error) = self.rtc.handle_input(Input::Timeout(now))
        {
            self.fail(&error);
        }
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(datagram)) => {
                    sink.transmit(datagram.source, datagram.destination, &datagram.contents);
                }
                Ok(Output::Event(event)) => self.on_event(event, sink),
                Ok(Output::Timeout(at)) => {
                    if !self.rtc.is_alive() && !self.closed {
                        self.closed = true;
                        sink.event(TransportEvent::Closed);
                    }
                    return at;
                }
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Tells it the names of the simulcast layers.
    pub(super) fn with_layers(mut self, rids: Vec<Rid>) -> Self {
        self.rids = rids;
        self
    }

    fn on_event(&mut self, event: Event, sink: &mut dyn TransportSink) {
        match event {
            Event::Connected => sink.event(TransportEvent::Connected),
            Event::MediaIngressStats(stats) if self.is_video(stats.mid) => {
                if let Some(loss) = stats.loss {
                    sink.event(TransportEvent::IngressLoss(loss));
                }
            }
            Event::RtpPacket(packet) => self.on_packet(packet, sink),
            Event::SenderFeedback(report) => {
                if let Some(kind) = self.kind(report.mid) {
                    sink.sender_clock(SenderClock {
                        kind,
                        rid: report.rid,
                        timestamp: report.sender_info.rtp_time.numer() as u32,
                        ntp: report.sender_info.ntp_time,
                    });
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                // A viewer that changes its network comes back by an ICE restart or a new address.
                tracing::debug!(ufrag = %self.local_ufrag, "ICE disconnected");
            }
            _ => {}
        }
    }

    fn on_packet(&mut self, packet: RtpPacket, sink: &mut dyn TransportSink) {
        self.media.add(Work::MEDIA);
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_rx(&packet.header.ssrc) else {
            return;
        };
        let (mid, rid) = (stream.mid(), stream.rid());
        let negotiated = self.codecs.iter().find(|c| c.mid == mid);
        // Padding and probes have no payload.
        let Some(negotiated) = negotiated.filter(|_| !packet.payload.is_empty()) else {
            return;
        };
        let (payload, red) = if negotiated.red == Some(packet.header.payload_type) {
            let Some(primary) = red::primary(&packet.payload, *negotiated.pt) else {
                return;
            };
            (primary, Some(packet.payload))
        } else {
            (packet.payload, None)
        };
        sink.packet(Incoming {
            kind: negotiated.codec.kind(),
            rid,
            seq: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload,
            red,
        });
    }

    fn kind(&self, mid: Mid) -> Option<TrackKind> {
        let negotiated = self.codecs.iter().find(|c| c.mid == mid)?;
        Some(negotiated.codec.kind())
    }

    fn video_mid(&self) -> Option<Mid> {
        let mut codecs = self.codecs.iter();
        let video = codecs.find(|c| c.codec.kind() == TrackKind::Video);
        video.map(|c| c.mid)
    }

    fn is_video(&self, mid: Mid) -> bool {
        self.kind(mid) == Some(TrackKind::Video)
    }

    /// Keeps the keys that are agreed on in a call. What a call before left behind, by a panic, is another session's.
    fn with_keys<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        let _ = telling::told();
        let result = call(self);
        self.unprotect = telling::told().or(self.unprotect.take());
        result
    }

    /// Whether a report is the peer's own, and no more than a peer that publishes has to say.
    fn is_modest(&mut self, data: &[u8]) -> bool {
        let mut scratch = [0; REPORT_MAX];
        let (Some(unprotect), Some(report)) = (&mut self.unprotect, scratch.get_mut(..data.len()))
        else {
            return false;
        };
        report.copy_from_slice(data);
        let Ok(compound) = unprotect.rtcp(report) else {
            return false;
        };
        let (mut packets, mut descriptions) = (0, 0);
        for packet in rtcp::packets(compound) {
            packets += 1;
            let is_description = matches!(
                packet,
                Ok(Rtcp::Other(rtcp::SOURCE_DESCRIPTION))
                    | Err(RtcpError::Malformed(rtcp::SOURCE_DESCRIPTION))
            );
            descriptions += usize::from(is_description);
        }
        packets <= PACKETS && descriptions <= DESCRIPTIONS
    }

    fn fail(&mut self, error: &dyn std::error::Error) {
        tracing::debug!(ufrag = %self.local_ufrag, %error, "session ended by an error");
        self.rtc.disconnect();
    }
}

/// What a datagram is (RFC 7983; RFC 5761, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Check,
    Record,
    Report,
    Media,
}

impl Kind {
    fn of(data: &[u8]) -> Self {
        match data {
            [128..=191, 192..=223, ..] => Self::Report,
            [128..=191, ..] => Self::Media,
            [20..=63, ..] => Self::Record,
            _ => Self::Check,
        }
    }

    /// Media has its price when it has come out of `rtc`.
    fn price(self) -> Work {
        match self {
            Self::Check => Work::CHECK,
            Self::Record => Work::RECORD,
            Self::Report => Work::PEER_REPORT,
            Self::Media => Work::default(),
        }
    }
}

impl Transport for RtcTransport {
    fn local_ufrag(&self) -> &str {
        &self.local_ufrag
    }

    fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        let kind = Kind::of(data);
        if kind != Kind::Media && self.control.is_spent(now) {
            return Taken::OverBudget;
        }
        let Ok(receive) = Receive::new(Protocol::Udp, source, destination, data) else {
            return Taken::NotUnderstood;
        };
        if kind == Kind::Report && !self.is_modest(data) {
            return Taken::NotUnderstood;
        }
        self.control.spend(kind.price());
        self.with_keys(|this| {
            if let Err(error) = this.rtc.handle_input(Input::Receive(now, receive)) {
                this.fail(&error);
            }
        });
        Taken::Work(std::mem::take(&mut self.media))
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        self.with_keys(|rtc| rtc.put_out(now, sink))
    }

    fn patch(&mut self, fragment: &str) -> Result<PatchOutcome, PatchError> {
        let outcome = patch::patch(&mut self.rtc, &mut self.offer, fragment)?;
        if let PatchOutcome::Restarted { local_ufrag, .. } = &outcome {
            self.local_ufrag.clone_from(local_ufrag);
        }
        Ok(outcome)
    }

    fn close(&mut self) {
        // Tells the viewer by a DTLS close_notify; what remains is only to be drained.
        if let Err(error) = self.rtc.close() {
            self.fail(&error);
        }
    }
}

impl PublisherTransport for RtcTransport {
    fn reports_arrivals(&self) -> bool {
        self.reports_arrivals
    }

    fn limit(&mut self, bits_per_second: u64) {
        let Some(mid) = self.video_mid() else {
            return;
        };
        // It is of the connection, not of a layer: the first one that is there tells it.
        let mut api = self.rtc.direct_api();
        let layers = self.rids.iter().copied().map(Some);
        for rid in std::iter::once(None).chain(layers) {
            if let Some(stream) = api.stream_rx_by_mid(mid, rid) {
                stream.request_remb(bits_per_second.into());
                return;
            }
        }
    }

    fn request_keyframe(&mut self, rid: Option<Rid>) {
        if let Some(mid) = self.video_mid() {
            let mut api = self.rtc.direct_api();
            if let Some(stream) = api.stream_rx_by_mid(mid, rid) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }
}
