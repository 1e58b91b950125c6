// SPDX-License-Identifier: MPL-2.0

//! One publishing peer (WHIP) in a shard: its packets become those of a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Fate;
use super::contact::Contact;
use super::outbox::Outbox;
use super::policer::{self, Policer};
use super::remb::Remb;
use super::timeline::{PeerClock, Stamp, Timeline};
use crate::claim::Claim;
use crate::codec::{Codec, TrackKind};
use crate::ids::{Rid, SessionId};
use crate::layers::LayerInfo;
use crate::packet::RtpIn;
use crate::queue::{ShardCommand, ShardQueue};
use crate::session::SessionShared;
use crate::stats::Counters;
use crate::stream::{Feedback, Lease, Stream};
use crate::transport::negotiate::PublisherTracks;
use crate::transport::work::{PUBLISHER, Work};
use crate::transport::{
    Incoming, PublisherTransport, SenderClock, Taken, Transport, TransportEvent, TransportSink,
};

/// The least time between two changes of a peer's codec.
const CODEC_KEPT: Duration = Duration::from_secs(1);

/// Tells a publishing peer's shard what the stream needs.
#[derive(Debug)]
pub struct PeerFeedback {
    /// The way to its shard.
    pub queue: ShardQueue,
    /// Its session.
    pub session: SessionId,
}

impl Feedback for PeerFeedback {
    fn keyframe_request(&self, layer: usize) {
        let session = self.session;
        self.queue
            .send(ShardCommand::AskPublisher { session, layer });
    }

    fn input(&self) -> &'static str {
        "whip"
    }

    fn is_replaceable(&self) -> bool {
        true
    }

    fn replaced(&self) {
        let session = self.session;
        self.queue.send(ShardCommand::Close { session });
    }
}

/// See the module's description.
pub(super) struct Ingest {
    stream: Arc<Stream>,
    claim: Claim,
    /// What it is going to send, until that is declared.
    tracks: PublisherTracks,
    /// It came with media when another one had the stream.
    refused: bool,
    transport: Box<dyn PublisherTransport>,
    session: Arc<SessionShared>,
    pub(super) contact: Contact,
    start: Instant,
    /// What it sends pictures with, and its layers' timelines.
    video: Option<Codec>,
    codec_changed: Option<Instant>,
    layers: Vec<Timeline>,
    audio: Timeline,
    clock: PeerClock,
    /// For a peer that gets no arrival reports.
    remb: Option<Remb>,
    /// What it may send, and where is counted what it sends beyond that.
    policer: Option<(Policer, Arc<Counters>)>,
    loss: f32,
    gathered: Gathered,
    /// Kept for its memory: packets of one layer that came together.
    run: Vec<RtpIn>,
}

/// What one drain of the session brought.
#[derive(Debug, Default)]
struct Gathered {
    packets: Vec<Incoming>,
    clocks: Vec<SenderClock>,
    events: Vec<TransportEvent>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("session", &self.session.id())
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Ingest {
    pub(super) fn new(
        now: Instant,
        claim: Claim,
        transport: Box<dyn PublisherTransport>,
        session: Arc<SessionShared>,
        tracks: PublisherTracks,
        timeout: Duration,
    ) -> Self {
        let stream = session.stream().clone();
        let remb = (!transport.reports_arrivals()).then(|| Remb::new(now));
        let video = tracks.video.as_ref().map(|(codec, _)| *codec);
        let mut layers = Vec::new();
        if let Some((codec, rids)) = &tracks.video {
            layers.resize_with(rids.len(), || Timeline::new(codec.clock_rate()));
        }
        if let Some(lease) = claim.lease() {
            declare(&stream, lease, &tracks);
        }
        Self {
            stream,
            claim,
            tracks,
            refused: false,
            transport,
            session,
            contact: Contact::new(now, timeout, PUBLISHER),
            start: now,
            video,
            codec_changed: None,
            layers,
            audio: Timeline::new(Codec::Opus.clock_rate()),
            clock: PeerClock::default(),
            remb,
            policer: None,
            loss: 0.0,
            gathered: Gathered::default(),
            run: Vec::new(),
        }
    }

    /// Takes no more than this from the peer, in bit/s.
    pub(super) fn limit(&mut self, now: Instant, max_bitrate: u64, counters: Arc<Counters>) {
        self.policer = Some((Policer::new(now, max_bitrate), counters));
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        &self.session
    }

    pub(super) fn request_keyframe(&mut self, now: Instant, layer: usize) {
        self.transport.request_keyframe(now, layer);
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        let policer = self.policer.as_mut().filter(|_| policer::is_rtp(data));
        let Some((policer, counters)) = policer else {
            return self.transport.receive(now, source, destination, data);
        };
        if !policer.has_room(now, data.len()) {
            counters.publisher_packets_over_bitrate.add(1);
            return Taken::Unproven(Work::default());
        }
        let taken = self.transport.receive(now, source, destination, data);
        if matches!(taken, Taken::Work(_)) {
            policer.spend(data.len());
        }
        taken
    }

    pub(super) fn transport_mut(&mut self) -> &mut dyn Transport {
        &mut *self.transport
    }

    pub(super) fn close(&mut self) {
        self.transport.close();
    }

    /// Puts out what is due, and hands what came in to the stream.
    pub(super) fn drain(&mut self, now: Instant, outbox: &mut Outbox) -> Fate {
        let exhausted = self.is_exhausted();
        // Its goodbye leaves with this call.
        let refused = self.refused;
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut sink = Sink {
            outbox,
            gathered: &mut gathered,
        };
        let next = self.transport.drain(now, &mut sink);
        for clock in gathered.clocks.drain(..) {
            self.correct(now, clock);
        }
        self.forward(now, &mut gathered.packets);
        let mut over = false;
        for event in gathered.events.drain(..) {
            match event {
                TransportEvent::Connected => {
                    self.contact.set_connected();
                    self.session.set_connected();
                }
                TransportEvent::Closed => over = true,
                TransportEvent::IngressLoss(loss) => self.loss = loss,
                TransportEvent::KeyframeRequest(_)
                | TransportEvent::Report { .. }
                | TransportEvent::Lost { .. }
                | TransportEvent::Estimate(_) => {}
            }
        }
        self.gathered = gathered;
        self.tell_limit(now);
        let gone = self.contact.gone_at();
        if gone <= now {
            tracing::info!(session = ?self.session.id(), stream = %self.stream.name(), "publisher is gone");
        }
        if over || exhausted || refused || gone <= now {
            return Fate::Over;
        }
        if self.refused {
            return Fate::Lives(now);
        }
        Fate::Lives(next.min(gone))
    }

    /// Tells the peer how much it may send: what its network carries where that is measured here, and `max-bitrate`.
    fn tell_limit(&mut self, now: Instant) {
        let measured = self.remb.as_mut().map(|r| r.poll(now, self.loss));
        let policer = self.policer.as_mut().map(|(policer, _)| policer);
        let limit = match (measured, policer) {
            (Some(measured), policer) => {
                let most = policer.map_or(u64::MAX, |p| p.told());
                measured.map(|limit| limit.min(most))
            }
            (None, policer) => policer.and_then(|p| p.poll(now)),
        };
        if let Some(limit) = limit {
            self.transport.limit(now, limit);
        }
    }

    /// Whether it went on above `max-bitrate` and is to be ended, which the peer is told as far as that can be.
    fn is_exhausted(&mut self) -> bool {
        let Some((policer, counters)) = &self.policer else {
            return false;
        };
        if !policer.is_exhausted() {
            return false;
        }
        counters.publishers_over_bitrate.add(1);
        tracing::warn!(
            session = ?self.session.id(), stream = %self.stream.name(),
            "publisher ended: it went on sending more than max-bitrate"
        );
        self.transport.close();
        true
    }

    fn correct(&mut self, now: Instant, clock: SenderClock) {
        let Some(captured) = self.clock.local(clock.ntp, now) else {
            return;
        };
        if let Some(timeline) = self.timeline(clock.kind, clock.layer) {
            timeline.correct(now, clock.source, clock.timestamp, captured);
        }
    }

    /// Hands over packets in the order of their arrival, those of one frame together.
    fn forward(&mut self, now: Instant, packets: &mut Vec<Incoming>) {
        let Some(lease) = self.lease(now, packets) else {
            packets.clear();
            return;
        };
        let mut run = std::mem::take(&mut self.run);
        let mut run_of: Option<(TrackKind, usize)> = None;
        for packet in packets.drain(..) {
            if let Some(remb) = &mut self.remb {
                remb.received(packet.payload.len());
            }
            if !self.follow_codec(now, lease, &packet) {
                continue;
            }
            let start = self.start;
            let Some(timeline) = self.timeline(packet.kind, packet.layer) else {
                continue;
            };
            let stamp = Stamp {
                source: packet.source,
                timestamp: packet.timestamp,
                // What holds nothing has the time of something else.
                is_late: packet.is_late || packet.payload.is_empty(),
            };
            let (timestamp, captured) = timeline.map(stamp, now, start);
            let of = (packet.kind, packet.layer);
            if let Some((kind, layer)) = run_of.filter(|r| *r != of) {
                self.stream.push(now, lease, kind, layer, run.drain(..));
            }
            run_of = Some(of);
            run.push(RtpIn {
                seq: packet.seq,
                timestamp,
                captured,
                marker: packet.marker,
                payload: packet.payload,
                red: packet.red,
            });
        }
        if let Some((kind, layer)) = run_of {
            self.stream.push(now, lease, kind, layer, run.drain(..));
        }
        self.run = run;
    }

    /// The right to the stream, which is taken when the first media comes.
    fn lease(&mut self, now: Instant, packets: &[Incoming]) -> Option<Lease> {
        if let Some(lease) = self.claim.lease() {
            return Some(lease);
        }
        if self.refused || packets.iter().all(|p| p.payload.is_empty()) {
            return None;
        }
        let begun = self.claim.begin(now);
        match begun {
            Some(lease) => declare(&self.stream, lease, &self.tracks),
            None => {
                tracing::info!(
                    session = ?self.session.id(), stream = %self.stream.name(),
                    "publisher ended: another one had the stream when its media came"
                );
                self.refused = true;
                self.transport.close();
            }
        }
        begun
    }

    /// A peer may change to another codec that was agreed on: to viewers that is another publisher, which costs them a
    /// keyframe, and the stream all that it knows. `false`: it does so too often, and the packet is left out.
    fn follow_codec(&mut self, now: Instant, lease: Lease, packet: &Incoming) -> bool {
        let is_other = self.video.is_some_and(|video| video != packet.codec);
        if packet.kind == TrackKind::Audio || packet.payload.is_empty() || !is_other {
            return true;
        }
        let recent = |at: Instant| now.saturating_duration_since(at) < CODEC_KEPT;
        if packet.is_late || self.codec_changed.is_some_and(recent) {
            return false;
        }
        self.codec_changed = Some(now);
        self.video = Some(packet.codec);
        self.stream.set_codec(lease, packet.codec);
        true
    }

    fn timeline(&mut self, kind: TrackKind, layer: usize) -> Option<&mut Timeline> {
        match kind {
            TrackKind::Audio => Some(&mut self.audio),
            TrackKind::Video => self.layers.get_mut(layer),
        }
    }
}

/// Tells the stream what it is going to consist of.
fn declare(stream: &Stream, lease: Lease, tracks: &PublisherTracks) {
    if let Some((codec, rids)) = &tracks.video {
        let infos = rids.iter().cloned().zip(0..);
        let infos = infos.map(|(rid, index)| layer_info(rid, index));
        stream.set_video(lease, *codec, infos.collect());
    }
    if let Some(codec) = tracks.audio {
        stream.set_audio(lease, codec);
    }
}

/// A layer without a name is called by its index.
fn layer_info(rid: Option<Rid>, index: usize) -> LayerInfo {
    LayerInfo {
        rid: rid.unwrap_or_else(|| Rid::from_index(index)),
        width: None,
        height: None,
        target_bitrate: None,
    }
}

struct Sink<'a> {
    outbox: &'a mut Outbox,
    gathered: &'a mut Gathered,
}

impl TransportSink for Sink<'_> {
    fn compose(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        append: &mut dyn FnMut(&mut Vec<u8>),
    ) {
        self.outbox.compose(source, destination, append);
    }

    fn event(&mut self, event: TransportEvent) {
        self.gathered.events.push(event);
    }

    fn packet(&mut self, packet: Incoming) {
        self.gathered.packets.push(packet);
    }

    fn sender_clock(&mut self, clock: SenderClock) {
        self.gathered.clocks.push(clock);
    }
}
