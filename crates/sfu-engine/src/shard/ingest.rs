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
use super::timeline::{PeerClock, Timeline};
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
    Incoming, PatchOutcome, PublisherTransport, SenderClock, Taken, TransportEvent, TransportSink,
};

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
    lease: Lease,
    transport: Box<dyn PublisherTransport>,
    session: Arc<SessionShared>,
    pub(super) contact: Contact,
    start: Instant,
    layers: Vec<Layer>,
    audio: Timeline,
    clock: PeerClock,
    /// For a peer that gets no arrival reports.
    remb: Option<Remb>,
    /// What it may send, and where is counted what it sends beyond that.
    policer: Option<(Policer, Arc<Counters>)>,
    loss: f32,
    gathered: Gathered,
}

struct Layer {
    rid: Option<str0m::media::Rid>,
    timeline: Timeline,
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
        lease: Lease,
        transport: Box<dyn PublisherTransport>,
        session: Arc<SessionShared>,
        tracks: PublisherTracks,
        timeout: Duration,
    ) -> Self {
        let stream = session.stream().clone();
        let remb = (!transport.reports_arrivals()).then(|| Remb::new(now));
        let mut layers = Vec::new();
        if let Some((codec, rids)) = tracks.video {
            let infos = rids
                .iter()
                .zip(0..)
                .map(|(rid, index)| layer_info(*rid, index));
            stream.set_video(lease, codec, infos.collect());
            layers.extend(rids.into_iter().map(|rid| Layer {
                rid,
                timeline: Timeline::new(codec.clock_rate()),
            }));
        }
        if let Some(codec) = tracks.audio {
            stream.set_audio(lease, codec);
        }
        Self {
            stream,
            lease,
            transport,
            session,
            contact: Contact::new(now, timeout, PUBLISHER),
            start: now,
            layers,
            audio: Timeline::new(Codec::Opus.clock_rate()),
            clock: PeerClock::default(),
            remb,
            policer: None,
            loss: 0.0,
            gathered: Gathered::default(),
        }
    }

    /// Takes no more than this from the peer, in bit/s.
    pub(super) fn limit(&mut self, now: Instant, max_bitrate: u64, counters: Arc<Counters>) {
        self.policer = Some((Policer::new(now, max_bitrate), counters));
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        &self.session
    }

    pub(super) fn request_keyframe(&mut self, layer: usize) {
        if let Some(layer) = self.layers.get(layer) {
            self.transport.request_keyframe(layer.rid);
        }
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        if let Some((policer, counters)) = &mut self.policer
            && policer::is_rtp(data)
            && !policer.takes(now, data.len())
        {
            counters.publisher_packets_over_bitrate.add(1);
            return Taken::Work(Work::default());
        }
        self.transport.receive(now, source, destination, data)
    }

    pub(super) fn patch(
        &mut self,
        fragment: &str,
    ) -> Result<PatchOutcome, crate::transport::patch::PatchError> {
        self.transport.patch(fragment)
    }

    pub(super) fn close(&mut self) {
        self.transport.close();
    }

    /// Puts out what is due, and hands what came in to the stream.
    pub(super) fn drain(&mut self, now: Instant, outbox: &mut Outbox) -> Fate {
        let exhausted = self.is_exhausted();
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
                TransportEvent::KeyframeRequest
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
        if over || exhausted || gone <= now {
            return Fate::Over;
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
            self.transport.limit(limit);
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
        match clock.kind {
            TrackKind::Audio => self.audio.correct(clock.timestamp, captured),
            TrackKind::Video => {
                if let Some(layer) = self.layers.iter_mut().find(|l| l.rid == clock.rid) {
                    layer.timeline.correct(clock.timestamp, captured);
                }
            }
        }
    }

    /// Hands over packets in the order of their arrival, those of one frame together.
    fn forward(&mut self, now: Instant, packets: &mut Vec<Incoming>) {
        let mut run: Vec<RtpIn> = Vec::new();
        let mut run_of: Option<(TrackKind, usize)> = None;
        for packet in packets.drain(..) {
            if let Some(remb) = &mut self.remb {
                remb.received(packet.payload.len());
            }
            let start = self.start;
            let Some((index, timeline)) = self.timeline(&packet) else {
                continue;
            };
            let (timestamp, captured) = timeline.map(packet.timestamp, now, start);
            let of = (packet.kind, index);
            if let Some((kind, layer)) = run_of.filter(|r| *r != of) {
                self.stream
                    .push(now, self.lease, kind, layer, run.drain(..));
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
            self.stream.push(now, self.lease, kind, layer, run);
        }
    }

    fn timeline(&mut self, packet: &Incoming) -> Option<(usize, &mut Timeline)> {
        match packet.kind {
            TrackKind::Audio => Some((0, &mut self.audio)),
            TrackKind::Video => {
                let index = self.layers.iter().position(|l| l.rid == packet.rid)?;
                Some((index, &mut self.layers[index].timeline))
            }
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.stream.stop(self.lease);
    }
}

/// A layer without a name is called by its index.
fn layer_info(rid: Option<str0m::media::Rid>, index: usize) -> LayerInfo {
    let named = rid.and_then(|rid| rid.to_string().parse().ok());
    LayerInfo {
        rid: named.unwrap_or_else(|| Rid::from_index(index)),
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
