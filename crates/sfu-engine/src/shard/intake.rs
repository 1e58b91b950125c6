// SPDX-License-Identifier: MPL-2.0

//! What a peer publishes becomes packets of streams: of one (WHIP), or of several. Part of a session that only publishes
//! ([`Ingest`](super::ingest::Ingest)), and of one both ways ([`Both`](super::both::Both)).

use std::sync::Arc;
use std::time::Instant;

use super::policer::{self, Policer};
use super::published::{Publication, PublicationId, Published};
use super::remb::Remb;
use super::timeline::PeerClock;
use crate::codec::TrackKind;
use crate::packet::RtpIn;
use crate::session::SessionShared;
use crate::stats::Counters;
use crate::stream::Lease;
use crate::transport::{AgreedTracks, Incoming, PublisherTransport, SenderClock};

/// See the module's description.
pub(super) struct Intake {
    publications: Vec<Published>,
    start: Instant,
    /// That of all its tracks.
    clock: PeerClock,
    /// For a peer that gets no arrival reports.
    remb: Option<Remb>,
    /// What it may send, and where is counted what it sends beyond that.
    policer: Option<(Policer, Arc<Counters>)>,
    loss: f32,
    /// What the session brought since the last look.
    pub(super) gathered: Gathered,
    /// Kept for its memory: packets of one layer that came together.
    run: Vec<RtpIn>,
}

/// What one drain of the session brought.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) packets: Vec<Incoming>,
    pub(super) clocks: Vec<SenderClock>,
    /// The share of packets that was lost lately: of its pictures, where there are any, and of all.
    pub(super) loss: Option<(Option<f32>, f32)>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("publications", &self.publications.len())
            .finish_non_exhaustive()
    }
}

impl Intake {
    pub(super) fn new(
        now: Instant,
        publications: Vec<Publication>,
        transport: &dyn PublisherTransport,
    ) -> Self {
        let remb = (!transport.reports_arrivals()).then(|| Remb::new(now));
        let publications = publications.into_iter().filter_map(Published::new);
        Self {
            publications: publications.collect(),
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

    /// Asks for a keyframe of a publication's layer.
    pub(super) fn request_keyframe(
        &self,
        now: Instant,
        transport: &mut dyn PublisherTransport,
        of: PublicationId,
        layer: usize,
    ) {
        let published = self.publications.iter().find(|p| p.id == of);
        if let Some(track) = published.and_then(Published::video) {
            transport.request_keyframe(now, track, layer);
        }
    }

    /// After another offer it sends these tracks, and publishes this. What it published before and is not among it ends.
    pub(super) fn change(
        &mut self,
        now: Instant,
        transport: &mut dyn PublisherTransport,
        tracks: AgreedTracks,
        publications: Vec<Publication>,
    ) {
        transport.set_tracks(now, tracks);
        match transport.reports_arrivals() {
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

    /// Whether a datagram of the peer may be taken: media only as much as it may send.
    pub(super) fn has_room(&mut self, now: Instant, data: &[u8]) -> bool {
        let policer = self.policer.as_mut().filter(|_| policer::is_rtp(data));
        let Some((policer, counters)) = policer else {
            return true;
        };
        let has_room = policer.has_room(now, data.len());
        if !has_room {
            counters.publisher_packets_over_bitrate.add(1);
        }
        has_room
    }

    /// It was taken, and was the peer's.
    pub(super) fn took(&mut self, data: &[u8]) {
        if let Some((policer, _)) = self.policer.as_mut().filter(|_| policer::is_rtp(data)) {
            policer.spend(data.len());
        }
    }

    /// Hands what has been gathered to the streams.
    pub(super) fn take_in(&mut self, now: Instant, session: &SessionShared) {
        let mut gathered = std::mem::take(&mut self.gathered);
        for clock in gathered.clocks.drain(..) {
            self.correct(now, clock);
        }
        self.forward(now, &mut gathered.packets);
        if let Some((pictures, all)) = gathered.loss.take() {
            self.loss = pictures.unwrap_or(self.loss);
            session.set_ingress_loss(all);
        }
        self.gathered = gathered;
    }

    /// Tells the peer how much it may send: what its network carries where that is measured here, and `max-bitrate`.
    pub(super) fn tell_limit(&mut self, now: Instant, transport: &mut dyn PublisherTransport) {
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
            transport.limit(now, limit);
        }
    }

    /// Whether it went on above `max-bitrate` and is to be ended, which the peer is told as far as that can be.
    pub(super) fn is_exhausted(
        &self,
        session: &SessionShared,
        transport: &mut dyn PublisherTransport,
    ) -> bool {
        let Some((policer, counters)) = &self.policer else {
            return false;
        };
        if !policer.is_exhausted() {
            return false;
        }
        counters.publishers_over_bitrate.add(1);
        tracing::warn!(
            session = ?session.id(), stream = %session.stream().name(),
            "publisher ended: it went on sending more than max-bitrate"
        );
        transport.close();
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
