// SPDX-License-Identifier: MPL-2.0

//! One publishing peer in a shard: its packets become those of one stream (WHIP), or of several.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Fate;
use super::contact::Contact;
use super::outbox::Outbox;
use super::policer::{self, Policer};
use super::published::{Publication, PublicationId, Published};
use super::remb::Remb;
use super::timeline::PeerClock;
use crate::codec::TrackKind;
use crate::ids::SessionId;
use crate::packet::RtpIn;
use crate::queue::{ShardCommand, ShardQueue};
use crate::session::SessionShared;
use crate::stats::Counters;
use crate::stream::{Feedback, Lease};
use crate::transport::work::{PUBLISHER, Work};
use crate::transport::{
    AgreedTracks, Incoming, PublisherTransport, SenderClock, Taken, Transport, TransportEvent,
    TransportSink,
};

/// Tells a publishing peer's shard what a stream needs. Who loses the stream to another one is ended.
#[derive(Debug)]
pub struct PeerFeedback {
    /// The way to its shard.
    pub queue: ShardQueue,
    /// Its session.
    pub session: SessionId,
    /// What of it is the stream's.
    pub publication: PublicationId,
    /// How its media comes, as [`StreamInfo::input`](crate::StreamInfo::input) tells it.
    pub input: &'static str,
}

impl Feedback for PeerFeedback {
    fn keyframe_request(&self, layer: usize) {
        self.queue.send(ShardCommand::AskPublisher {
            session: self.session,
            publication: self.publication,
            layer,
        });
    }

    fn input(&self) -> &'static str {
        self.input
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
    publications: Vec<Published>,
    transport: Box<dyn PublisherTransport>,
    session: Arc<SessionShared>,
    pub(super) contact: Contact,
    start: Instant,
    /// That of all its tracks.
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
            .finish_non_exhaustive()
    }
}

impl Ingest {
    pub(super) fn new(
        now: Instant,
        publications: Vec<Publication>,
        transport: Box<dyn PublisherTransport>,
        session: Arc<SessionShared>,
        timeout: Duration,
    ) -> Self {
        let remb = (!transport.reports_arrivals()).then(|| Remb::new(now));
        Self {
            publications: publications
                .into_iter()
                .filter_map(Published::new)
                .collect(),
            transport,
            session,
            contact: Contact::new(now, timeout, PUBLISHER),
            start: now,
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

    /// Asks for a keyframe of a publication's layer.
    pub(super) fn request_keyframe(&mut self, now: Instant, of: PublicationId, layer: usize) {
        let published = self.publications.iter().find(|p| p.id == of);
        if let Some(track) = published.and_then(Published::video) {
            self.transport.request_keyframe(now, track, layer);
        }
    }

    /// After another offer it sends these tracks, and publishes this. What it published before and is not among it ends.
    pub(super) fn change(
        &mut self,
        now: Instant,
        tracks: AgreedTracks,
        publications: Vec<Publication>,
    ) {
        self.transport.set_tracks(now, tracks);
        match self.transport.reports_arrivals() {
            true => self.remb = None,
            false => self.remb = self.remb.take().or_else(|| Some(Remb::new(now))),
        }
        let mut before = std::mem::take(&mut self.publications);
        for publication in publications {
            let at = before.iter().position(|p| p.id == publication.id);
            match at.filter(|_| publication.claim.is_none()) {
                Some(at) => {
                    let mut published = before.swap_remove(at);
                    published.change(publication.video, publication.audio);
                    self.publications.push(published);
                }
                None => self.publications.extend(Published::new(publication)),
            }
        }
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
                    self.session.set_path(self.transport.path());
                    self.session.set_connected();
                }
                TransportEvent::Closed => over = true,
                TransportEvent::IngressLoss { pictures, all } => {
                    self.loss = pictures.unwrap_or(self.loss);
                    self.session.set_report(0, None, Some(all));
                }
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
            tracing::info!(session = ?self.session.id(), stream = %self.session.stream().name(), "publisher is gone");
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
            session = ?self.session.id(), stream = %self.session.stream().name(),
            "publisher ended: it went on sending more than max-bitrate"
        );
        self.transport.close();
        true
    }

    fn correct(&mut self, now: Instant, clock: SenderClock) {
        let Some(captured) = self.clock.local(clock.ntp, now) else {
            return;
        };
        let mut all = self.publications.iter_mut();
        let timeline = all.find_map(|p| p.timeline(clock.track, clock.layer));
        if let Some(timeline) = timeline {
            timeline.correct(now, clock.source, clock.timestamp, captured);
        }
    }

    /// Hands over packets in the order of their arrival, those of one frame together.
    fn forward(&mut self, now: Instant, packets: &mut Vec<Incoming>) {
        let mut run = std::mem::take(&mut self.run);
        let mut run_of: Option<Run> = None;
        for packet in packets.drain(..) {
            if let Some(remb) = &mut self.remb {
                remb.received(packet.payload.len());
            }
            let all = self.publications.iter_mut().enumerate();
            let mut found = all.filter_map(|(at, p)| Some((at, p.kind_of(packet.track)?, p)));
            let Some((at, kind, published)) = found.next() else {
                continue;
            };
            let Some(lease) = published.lease(now, &packet) else {
                continue;
            };
            let of = Run {
                at,
                lease,
                kind: kind.0,
                layer: match kind {
                    (TrackKind::Video, _) => packet.layer,
                    (TrackKind::Audio, number) => number,
                },
            };
            let Some(packet) = published.take(now, self.start, (lease, kind), packet) else {
                continue;
            };
            if let Some(run_of) = run_of.filter(|r| *r != of) {
                self.push(now, run_of, &mut run);
            }
            run_of = Some(of);
            run.push(packet);
        }
        if let Some(run_of) = run_of {
            self.push(now, run_of, &mut run);
        }
        self.run = run;
    }

    fn push(&self, now: Instant, of: Run, run: &mut Vec<RtpIn>) {
        let stream = &self.publications[of.at].stream;
        stream.push(now, of.lease, of.kind, of.layer, run.drain(..));
    }
}

/// What packets that came together are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The publication's place.
    at: usize,
    lease: Lease,
    kind: TrackKind,
    /// The layer of pictures, or the number of an audio track.
    layer: usize,
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
