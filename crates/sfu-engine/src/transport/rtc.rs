// SPDX-License-Identifier: MPL-2.0

//! A peer's session on `str0m` in RTP mode. Called by the shard through [`Transport`].
//!
//! Packets are written as the shard numbers them; ICE (RFC 8445, lite), DTLS-SRTP (RFC 5764), RTCP (RFC 3550), NACK
//! (RFC 4585) and RTX (RFC 4588) are `str0m`'s.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::bwe::{Bitrate, BweKind};
use str0m::media::{KeyframeRequestKind, Mid, Pt, Rid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RawPacket, RtpPacket, RtpWrite, Vp8Descriptor, Vp8Patch};
use str0m::{Event, IceConnectionState, Input, Output, Rtc};

use super::delivery::Delivery;
use super::negotiate;
use super::patch::{self, PatchError};
use super::{
    Demand, Estimate, Incoming, Outgoing, PatchOutcome, SenderClock, Transport, TransportEvent,
    TransportSink,
};
use crate::codec::{Codec, TrackKind, Vp8Header, red};

/// What a peer's network is taken to carry before its reports say more, in bit/s.
pub(super) const FIRST_ESTIMATE: u64 = 1_000_000;

/// The m-line and payload type under which a codec is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Negotiated {
    pub(super) codec: Codec,
    pub(super) mid: Mid,
    pub(super) pt: Pt,
    /// The payload type of the same with redundancy (RED).
    pub(super) red: Option<Pt>,
}

/// See the module's description.
pub struct RtcTransport {
    rtc: Rtc,
    codecs: Vec<Negotiated>,
    local_ufrag: String,
    /// The viewer's offer, kept for ICE restarts.
    offer: String,
    /// Where the peer reports the arrival of each packet (TWCC).
    estimation: Option<Estimation>,
    /// The peer's packets are numbered for arrival reports, and it gets them.
    reports_arrivals: bool,
    /// Packets were written, so time must move before they leave.
    written: bool,
    closed: bool,
}

/// What is known of the network towards the peer, and what is to be found out.
#[derive(Debug)]
struct Estimation {
    demand: Demand,
    /// By `str0m`'s congestion control (GCC), in bit/s.
    gcc: u64,
    /// The estimate at the last request to probe.
    probed_at: Option<u64>,
    delivery: Delivery,
}

impl Estimation {
    fn estimate(&self, now: Instant) -> Estimate {
        let capacity = self.delivery.capacity(now);
        let carried = self.delivery.carried(now).unwrap_or(0);
        Estimate {
            bits_per_second: capacity.map_or(self.gcc.max(carried), |c| c.min(self.gcc)),
            congested: capacity.is_some(),
        }
    }
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
    /// `twcc`: arrival reports were agreed on. `estimating`: what the peer's network carries is to be found out by them.
    pub(super) fn new(
        mut rtc: Rtc,
        codecs: Vec<Negotiated>,
        offer: String,
        twcc: bool,
        estimating: bool,
        now: Instant,
    ) -> Self {
        let local_ufrag = rtc.direct_api().local_ice_credentials().ufrag;
        Self {
            rtc,
            codecs,
            local_ufrag,
            offer,
            reports_arrivals: twcc,
            estimation: (twcc && estimating).then(|| Estimation {
                demand: Demand {
                    goal: FIRST_ESTIMATE,
                    probe: false,
                    spread: false,
                },
                gcc: FIRST_ESTIMATE,
                probed_at: None,
                delivery: Delivery::new(now),
            }),
            written: false,
            closed: false,
        }
    }

    fn on_event(&mut self, now: Instant, event: Event, sink: &mut dyn TransportSink) {
        match event {
            Event::Connected => sink.event(TransportEvent::Connected),
            Event::KeyframeRequest(_) => sink.event(TransportEvent::KeyframeRequest),
            Event::MediaEgressStats(stats) if self.is_video(stats.mid) => {
                sink.event(TransportEvent::Report {
                    rtt: stats.rtt,
                    loss: stats.loss,
                    packets: stats.packets,
                });
            }
            Event::EgressBitrateEstimate(estimate) => self.on_estimate(now, &estimate, sink),
            Event::RawPacket(packet) => self.on_raw(now, *packet, sink),
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

    fn on_estimate(&mut self, now: Instant, kind: &BweKind, sink: &mut dyn TransportSink) {
        let estimate = match (kind, &mut self.estimation) {
            (
                BweKind::Twcc {
                    estimate,
                    can_probe: true,
                },
                Some(estimation),
            ) => {
                estimation.gcc = estimate.as_u64();
                estimation.estimate(now)
            }
            (BweKind::Remb { estimate, .. }, None) => Estimate {
                bits_per_second: estimate.as_u64(),
                congested: true,
            },
            _ => return,
        };
        sink.event(TransportEvent::Estimate(estimate));
    }

    fn on_raw(&mut self, now: Instant, packet: RawPacket, sink: &mut dyn TransportSink) {
        let Some(estimation) = &mut self.estimation else {
            return;
        };
        match packet {
            RawPacket::RtpTx(header, data) => {
                if let Some(seq) = header.ext_vals.transport_cc {
                    estimation.delivery.sent(now, seq, data.len());
                }
            }
            RawPacket::RtcpRx(Rtcp::Twcc(report)) => {
                let before = estimation.estimate(now);
                let delivery = &mut estimation.delivery;
                let newest = delivery.newest().into();
                let packets = report.into_iter(delivery.zero(), newest);
                let packets = packets.map(|(seq, _, at)| (*seq, at));
                estimation.delivery.report(now, packets);
                let after = estimation.estimate(now);
                if after != before {
                    sink.event(TransportEvent::Estimate(after));
                }
            }
            _ => {}
        }
    }

    fn on_packet(&mut self, packet: RtpPacket, sink: &mut dyn TransportSink) {
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

    fn fail(&mut self, error: &dyn std::error::Error) {
        tracing::debug!(ufrag = %self.local_ufrag, %error, "session ended by an error");
        self.rtc.disconnect();
    }
}

impl Transport for RtcTransport {
    fn local_ufrag(&self) -> &str {
        &self.local_ufrag
    }

    fn accepts(&self, codec: Codec) -> bool {
        self.codecs.iter().any(|c| c.codec == codec)
    }

    fn first_estimate(&self) -> Option<Estimate> {
        self.estimation.as_ref().map(|_| Estimate {
            bits_per_second: FIRST_ESTIMATE,
            congested: false,
        })
    }

    fn set_demand(&mut self, demand: Demand) {
        let Some(estimation) = &mut self.estimation else {
            return;
        };
        let before = estimation.demand;
        estimation.demand = Demand {
            probe: demand.probe || before.probe,
            ..demand
        };
        if demand.probe {
            let estimate = estimation.gcc;
            // After a collapse `str0m` may see congestion that is over, and not probe: then it begins anew.
            if estimation.probed_at.replace(estimate) == Some(estimate) {
                self.rtc.bwe().reset(estimate.into());
            }
            // Lowered first, so that it rises in the next drain: `str0m` probes where its wish rises.
            let low = Bitrate::from(demand.goal / 2);
            self.rtc.bwe().set_bitrate(Bitrate::ZERO, low);
        } else if before.goal != demand.goal && !before.probe {
            let goal = Bitrate::from(demand.goal);
            self.rtc.bwe().set_bitrate(Bitrate::ZERO, goal);
        }
        if before.spread != demand.spread {
            negotiate::configure_pacing(&mut self.rtc, &self.codecs, demand.spread);
        }
    }

    fn forget_sent(&mut self) {
        negotiate::configure_retransmission(&mut self.rtc, &self.codecs);
    }

    /// Once per packet and viewer: the payload is shared, nothing is copied here.
    fn send(&mut self, packet: &Outgoing<'_>) {
        let Some(negotiated) = self.codecs.iter().find(|c| c.codec == packet.codec) else {
            return;
        };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(negotiated.mid, None) else {
            return;
        };
        let (pt, payload) = match (negotiated.red, packet.red) {
            (Some(pt), Some(blocks)) => (pt, red::with_type(blocks, *negotiated.pt)),
            _ => (negotiated.pt, packet.payload.clone()),
        };
        let mut rtp = RtpWrite::new(
            pt,
            packet.seq.into(),
            packet.timestamp,
            packet.captured,
            payload,
        )
        .marker(packet.marker)
        .nackable(packet.codec.kind() == TrackKind::Video);
        if let Some(patch) = packet.vp8.and_then(|h| vp8_patch(h, packet.payload)) {
            rtp = rtp.vp8_patch(patch);
        }
        stream.write_rtp(rtp);
        self.written = true;
    }

    fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> bool {
        let Ok(receive) = Receive::new(Protocol::Udp, source, destination, data) else {
            return false;
        };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, receive)) {
            self.fail(&error);
        }
        true
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        self.written = false;
        if self.rtc.is_alive()
            && let Err(error) = self.rtc.handle_input(Input::Timeout(now))
        {
            self.fail(&error);
        }
        let demand = self.estimation.as_mut().map(|e| &mut e.demand);
        if let Some(demand) = demand.filter(|d| d.probe) {
            demand.probe = false;
            let goal = Bitrate::from(demand.goal);
            self.rtc.bwe().set_bitrate(Bitrate::ZERO, goal);
            if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
                self.fail(&error);
            }
        }
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(datagram)) => {
                    sink.transmit(datagram.source, datagram.destination, &datagram.contents);
                }
                Ok(Output::Event(event)) => self.on_event(now, event, sink),
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

    fn reports_arrivals(&self) -> bool {
        self.reports_arrivals
    }

    fn limit(&mut self, bits_per_second: u64) {
        let Some(mid) = self.video_mid() else {
            return;
        };
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_rx_by_mid(mid, None) {
            stream.request_remb(bits_per_second.into());
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

/// How the counters of a VP8 payload descriptor are overwritten, where they differ.
fn vp8_patch(header: Vp8Header, payload: &[u8]) -> Option<Vp8Patch> {
    let (picture_id, _) = header.picture_id?;
    let descriptor = Vp8Descriptor::parse(payload).ok()?;
    let mut patch = descriptor.patch().picture_id(picture_id);
    if let Some(index) = header.tl0_pic_idx {
        patch = patch.tl0_pic_idx(index);
    }
    patch.build().ok()
}
