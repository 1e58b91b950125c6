// SPDX-License-Identifier: MPL-2.0

//! One publishing peer in a shard: its packets become those of one stream (WHIP), or of several.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Fate;
use super::contact::Contact;
use super::intake::{Gathered, Intake};
use super::outbox::Outbox;
use super::published::{Publication, PublicationId};
use crate::ids::SessionId;
use crate::queue::{ShardCommand, ShardQueue};
use crate::session::SessionShared;
use crate::stream::Feedback;
use crate::transport::work::{PUBLISHER, Work};
use crate::transport::{
    Incoming, PublisherTransport, SenderClock, Taken, Transport, TransportEvent, TransportSink,
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

    fn session(&self) -> Option<SessionId> {
        Some(self.session)
    }
}

/// See the module's description.
pub(super) struct Ingest {
    intake: Intake,
    transport: Box<dyn PublisherTransport>,
    session: Arc<SessionShared>,
    pub(super) contact: Contact,
    /// Kept for its memory.
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
        Self {
            intake: Intake::new(now, publications, &*transport),
            transport,
            session,
            contact: Contact::new(now, timeout, PUBLISHER),
            events: Vec::new(),
        }
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        &self.session
    }

    /// What it publishes, and its session's way to it.
    pub(super) fn publisher(&mut self) -> (&mut Intake, &mut dyn PublisherTransport) {
        (&mut self.intake, &mut *self.transport)
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        if !self.intake.has_room(now, data) {
            return Taken::Unproven(Work::default());
        }
        let taken = self.transport.receive(now, source, destination, data);
        if matches!(taken, Taken::Work(_)) {
            self.intake.took(data);
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
        let exhausted = self
            .intake
            .is_exhausted(&self.session, &mut *self.transport);
        let mut events = std::mem::take(&mut self.events);
        let mut sink = Sink {
            outbox,
            gathered: &mut self.intake.gathered,
            events: &mut events,
        };
        let next = self.transport.drain(now, &mut sink);
        self.intake.take_in(now, &self.session);
        let mut over = false;
        for event in events.drain(..) {
            match event {
                TransportEvent::Connected => {
                    self.contact.set_connected();
                    self.session.set_path(self.transport.path());
                    self.session.set_connected();
                }
                TransportEvent::Closed => over = true,
                TransportEvent::IngressLoss { .. }
                | TransportEvent::KeyframeRequest(_)
                | TransportEvent::Report { .. }
                | TransportEvent::Lost { .. }
                | TransportEvent::Estimate(_) => {}
            }
        }
        self.events = events;
        self.intake.tell_limit(now, &mut *self.transport);
        let gone = self.contact.gone_at();
        if gone <= now {
            tracing::info!(session = ?self.session.id(), stream = %self.session.stream().name(), "publisher is gone");
        }
        if over || exhausted || gone <= now {
            return Fate::Over;
        }
        Fate::Lives(next.min(gone))
    }
}

struct Sink<'a> {
    outbox: &'a mut Outbox,
    gathered: &'a mut Gathered,
    events: &'a mut Vec<TransportEvent>,
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
        match event {
            TransportEvent::IngressLoss { pictures, all } => {
                self.gathered.loss = Some((pictures, all));
            }
            event => self.events.push(event),
        }
    }

    fn packet(&mut self, packet: Incoming) {
        self.gathered.packets.push(packet);
    }

    fn sender_clock(&mut self, clock: SenderClock) {
        self.gathered.clocks.push(clock);
    }
}
