// SPDX-License-Identifier: MPL-2.0

//! What one peer is sent: numbered m-lines (slots) over one session, and when the peer counts as gone.
//!
//! Each [`Forwarder`] sends one stream's pictures and sound on two of the slots; a viewer of WHEP has one forwarder. What is
//! known of the peer's network is known once, and the [`allocator`] shares it among them.

mod allocator;
mod forwarder;
mod repair;
mod replayed;
mod target;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use smallvec::SmallVec;

use super::contact::{Contact, VIEWER_SILENCE};
use super::intake::Gathered;
use super::outbox::Outbox;
use super::outgoing::sink;
use super::{Attached, Fate, Seat, TooLarge};
use crate::layers::Preference;
use crate::packet::Batch;
use crate::session::SessionShared;
use crate::transport::lean::AgreedSlots;
use crate::transport::work::VIEWER;
use crate::transport::{
    EVENTS, Outgoing, PublisherTransport, Slot, Taken, Transport, TransportEvent, ViewerTransport,
};
use allocator::Allocator;
pub(super) use forwarder::{Forwarder, Watch};

/// A path that has refused no datagram for this long is taken to carry all.
const NARROW_FOR: Duration = Duration::from_secs(10);

/// See the module's description.
pub(super) struct Downlink {
    transport: Box<dyn ViewerTransport>,
    session: Arc<SessionShared>,
    forwarders: SmallVec<[Forwarder; 1]>,
    allocator: Allocator,
    look_again: Option<Instant>,
    /// Until then the path is taken to be too narrow for what the publisher makes.
    narrow_until: Option<Instant>,
    closing: bool,
    pub(super) contact: Contact,
    events: Vec<TransportEvent>,
}

/// How a forwarder's packets leave.
pub(super) struct Way<'a> {
    transport: &'a mut dyn ViewerTransport,
    events: &'a mut Vec<TransportEvent>,
    outbox: &'a mut Outbox,
    /// What is being taken in has waited for too long, and is not sent any more.
    late: bool,
}

/// What was counted of a peer since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Packets that were sent.
    pub(super) packets: u64,
    /// Packets that came too late to be sent.
    pub(super) late: u64,
    pub(super) keyframe_requests: u64,
    /// Of those, the ones that the arbiters have heard of.
    pub(super) keyframes_asked: u64,
}

impl std::fmt::Debug for Downlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downlink")
            .field("session", &self.session.id())
            .field("forwarders", &self.forwarders)
            .finish_non_exhaustive()
    }
}

impl<'a> Way<'a> {
    /// For what is in time.
    fn new(
        transport: &'a mut dyn ViewerTransport,
        events: &'a mut Vec<TransportEvent>,
        outbox: &'a mut Outbox,
    ) -> Self {
        Self {
            transport,
            events,
            outbox,
            late: false,
        }
    }

    /// Hands a packet to the session.
    fn send(&mut self, now: Instant, packet: &Outgoing<'_>) {
        if self.late {
            self.transport.lose(now, packet);
        } else {
            let mut sink = sink(self.outbox, self.events);
            self.transport.send(now, packet, &mut sink);
        }
    }

    fn resend(&mut self, now: Instant, packet: &Outgoing<'_>) -> bool {
        let mut sink = sink(self.outbox, self.events);
        self.transport.resend(now, packet, &mut sink)
    }
}

impl Downlink {
    pub(super) fn new(
        now: Instant,
        transport: Box<dyn ViewerTransport>,
        session: Arc<SessionShared>,
    ) -> Self {
        Self {
            transport,
            session,
            forwarders: SmallVec::new(),
            allocator: Allocator::default(),
            look_again: None,
            narrow_until: None,
            closing: false,
            contact: Contact::new(now, VIEWER_SILENCE, VIEWER),
            events: Vec::with_capacity(EVENTS),
        }
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        &self.session
    }

    pub(super) fn forwarder(&mut self, place: usize) -> Option<&mut Forwarder> {
        self.forwarders.get_mut(place)
    }

    /// From now on the m-lines with this place carry a stream. Returns the seat that is free for it.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        place: usize,
        watch: Watch,
        figures: Arc<SessionShared>,
        outbox: &mut Outbox,
    ) -> Option<Seat> {
        while self.forwarders.len() <= place {
            let place = self.forwarders.len();
            let forwarder = Forwarder::new(&*self.transport, place, figures.clone());
            self.forwarders.push(forwarder);
        }
        let before = self.forwarders[place].watch(watch, figures);
        if self.contact.is_connected() {
            self.begin(now, place..place + 1, outbox);
        }
        before
    }

    /// The m-lines with this place carry nothing any more. Returns the seat that is free for it.
    pub(super) fn unwatch(&mut self, now: Instant, place: usize) -> Option<Seat> {
        let before = self.forwarders.get_mut(place)?.unwatch();
        if self.contact.is_connected() {
            self.choose(now);
        }
        before
    }

    /// After another offer of ours the peer has these m-lines.
    pub(super) fn set_slots(&mut self, now: Instant, slots: AgreedSlots) {
        self.transport.set_slots(now, slots);
        if self.contact.is_connected() {
            self.choose(now);
        }
    }

    /// What was counted since the last call.
    pub(super) fn take_counts(&mut self) -> Counted {
        let mut all = Counted::default();
        for forwarder in &mut self.forwarders {
            forwarder.counts.take(&mut all);
        }
        all
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        self.transport.receive(now, source, destination, data)
    }

    /// Datagrams were larger than the path carries.
    pub(super) fn send_failed(&mut self, now: Instant, failure: TooLarge) {
        let TooLarge { datagrams, mtu } = failure;
        self.session.add_too_large(datagrams, mtu);
        if self.narrow_until.replace(now + NARROW_FOR).is_none() {
            let stream = self.session.stream().name();
            tracing::info!(session = ?self.session.id(), %stream, mtu,
                "packets are larger than the path to a viewer carries");
        }
    }

    /// What the peer publishes over the same connection, where it may.
    pub(super) fn publisher(&mut self) -> Option<&mut dyn PublisherTransport> {
        self.transport.publisher()
    }

    pub(super) fn transport_mut(&mut self) -> &mut dyn Transport {
        &mut *self.transport
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
        self.transport.close();
    }

    pub(super) fn set_preference(&mut self, now: Instant, place: usize, preference: Preference) {
        if let Some(forwarder) = self.forwarders.get_mut(place) {
            forwarder.set_preference(preference);
            if self.contact.is_connected() {
                self.choose(now);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.hand_out(now, 0..self.forwarders.len(), outbox);
        if self.look_again.is_some_and(|at| at <= now) {
            self.choose(now);
        }
        if self.narrow_until.is_some_and(|at| at <= now) {
            self.narrow_until = None;
            self.session.carries_all();
        }
        for forwarder in &mut self.forwarders {
            forwarder.ask(now);
        }
    }

    /// Takes in a frame of the stream that a forwarder watches. Returns whether anything was written, so that the session must
    /// be drained. One that the network held up for too long (`late`) is as if it had been lost on the way, so that the
    /// viewer's estimate learns of it; it is not sent again, either.
    ///
    /// Once per frame and viewer; what it calls runs once per packet and viewer and allocates nothing of its own.
    pub(super) fn media(
        &mut self,
        now: Instant,
        place: usize,
        (stream, batch): (u64, &Arc<Batch>),
        late: bool,
        outbox: &mut Outbox,
    ) -> bool {
        if !self.contact.is_connected() || self.closing {
            return false;
        }
        let Some(forwarder) = self.forwarders.get_mut(place) else {
            return false;
        };
        if !forwarder.watches(stream) {
            return false;
        }
        let is_new = forwarder.is_behind(batch);
        if is_new {
            let mut way = Way::new(&mut *self.transport, &mut self.events, outbox);
            forwarder.meet_publisher(now, &mut way);
        }
        let is_chosen = is_new || forwarder.has_no_choice(batch) && self.look_again.is_none();
        if is_chosen {
            self.choose(now);
        }
        let Some(forwarder) = self.forwarders.get_mut(place) else {
            return is_chosen;
        };
        let mut way = Way::new(&mut *self.transport, &mut self.events, outbox);
        way.late = late;
        forwarder.media(now, batch, &mut way) || is_chosen
    }

    /// Chooses the layers anew.
    fn choose(&mut self, now: Instant) {
        let mut audio = 0;
        for forwarder in &mut self.forwarders {
            audio += forwarder.survey(now, &*self.transport);
        }
        let sound_lags = self.forwarders.iter().any(|f| f.sound_lags);
        self.transport.wait_for_sound(now, sound_lags);
        self.allocator.share(now, audio, &mut self.forwarders);
        let look_again = self.forwarders.iter_mut();
        let look_again = look_again.filter_map(|forwarder| forwarder.retarget(now));
        self.look_again = look_again.min();
        let demand = self.allocator.demand(now, &mut self.forwarders);
        self.transport.set_demand(now, demand);
    }

    /// Puts out what is due. See [`Transport::drain`]. What came in of a peer that publishes, too, is added to `gathered`.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        streams: &Slab<Attached>,
        mut gathered: Option<&mut Gathered>,
    ) -> Fate {
        // At most twice: the first round may connect the session, the second sends what that began.
        let mut next = now;
        for _ in 0..3 {
            let mut sink = sink(outbox, &mut self.events);
            sink.gathered = gathered.as_deref_mut();
            next = self.transport.drain(now, &mut sink);
            if self.events.is_empty() {
                break;
            }
            let mut events = std::mem::take(&mut self.events);
            let over = events
                .drain(..)
                .any(|event| !self.on_event(now, event, outbox, streams));
            self.events = events;
            if over {
                return Fate::Over;
            }
        }
        let gone = self.contact.gone_at();
        if gone <= now {
            let stream = self.session.stream().name();
            tracing::info!(session = ?self.session.id(), %stream, "viewer is gone");
            return Fate::Over;
        }
        let own = [self.look_again, self.narrow_until, Some(gone)];
        let own = own.into_iter().flatten();
        let due = self.forwarders.iter().filter_map(Forwarder::due);
        Fate::Lives(own.chain(due).fold(next, Instant::min))
    }

    /// Returns whether the session goes on.
    fn on_event(
        &mut self,
        now: Instant,
        event: TransportEvent,
        outbox: &mut Outbox,
        streams: &Slab<Attached>,
    ) -> bool {
        match event {
            TransportEvent::Connected => {
                self.contact.set_connected();
                self.session.set_path(self.transport.path());
                self.session.set_connected();
                self.begin(now, 0..self.forwarders.len(), outbox);
            }
            TransportEvent::KeyframeRequest(slot) => {
                self.session.count_keyframe_request();
                if let Some(forwarder) = of(&mut self.forwarders, slot) {
                    forwarder.viewer_needs_keyframe(now);
                }
            }
            TransportEvent::Report {
                rtt,
                loss,
                retransmitted,
            } => self.session.set_report(retransmitted, rtt, loss),
            TransportEvent::Lost { slot, seq } => {
                if let Some(forwarder) = of(&mut self.forwarders, slot) {
                    let mut way = Way::new(&mut *self.transport, &mut self.events, outbox);
                    forwarder.send_again(now, seq, streams, &mut way);
                }
            }
            TransportEvent::Estimate(estimate) => {
                self.allocator.set_estimate(now, estimate);
                for forwarder in &mut self.forwarders {
                    forwarder.set_estimate(estimate);
                }
                self.session.set_estimate(estimate.bits_per_second);
                self.choose(now);
            }
            TransportEvent::IngressLoss { .. } => {}
            TransportEvent::Closed => return false,
        }
        true
    }

    /// Some forwarders send what has waited for its time.
    fn hand_out(&mut self, now: Instant, places: Range<usize>, outbox: &mut Outbox) {
        for forwarder in &mut self.forwarders[places] {
            let mut way = Way::new(&mut *self.transport, &mut self.events, outbox);
            forwarder.hand_out(now, &mut way);
        }
    }

    /// What some forwarders watch is new to them.
    fn begin(&mut self, now: Instant, places: Range<usize>, outbox: &mut Outbox) {
        for forwarder in &mut self.forwarders[places.clone()] {
            let mut way = Way::new(&mut *self.transport, &mut self.events, outbox);
            forwarder.meet_publisher(now, &mut way);
        }
        self.choose(now);
        self.hand_out(now, places, outbox);
    }
}

/// Whose pictures leave on an m-line.
fn of(forwarders: &mut [Forwarder], slot: Slot) -> Option<&mut Forwarder> {
    let mut forwarders = forwarders.iter_mut();
    forwarders.find(|forwarder| forwarder.video_slot() == Some(slot))
}
