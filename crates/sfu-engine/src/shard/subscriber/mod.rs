// SPDX-License-Identifier: MPL-2.0

//! One viewer in a shard: which layer it gets, what was replayed to it when it joined, and when it counts as gone.

mod replayed;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::budget::Budget;
use super::contact::{Contact, VIEWER_SILENCE};
use super::handover::Handover;
use super::history::{Found, History};
use super::outbox::Outbox;
use super::outgoing::sink;
use super::ring::Rings;
use super::{Fate, Seat, TooLarge};
use crate::codec::{Codec, TrackKind};
use crate::keyframe::Need;
use crate::layers::{Candidate, Preference, Rung, Selector};
use crate::packet::{Batch, Packet};
use crate::price::{Price, VIEWER_MAX};
use crate::rewrite::{Rewriter, Source, Squeezed};
use crate::session::SessionShared;
use crate::stream::{Stream, Viewing};
use crate::temporal::Limit;
use crate::transport::work::VIEWER;
use crate::transport::{EVENTS, Outgoing, Taken, Transport, TransportEvent, ViewerTransport};
use replayed::Replayed;

/// A path that has refused no datagram for this long is taken to carry all.
const NARROW_FOR: Duration = Duration::from_secs(10);
/// A viewer that still waits for a keyframe asks the arbiter again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Until then its requests count as those of viewers who begin: a new session is no way around the price.
const BEGINNER: Duration = Duration::from_secs(10);
/// An upgrade waits this long for a keyframe that comes anyway, so that it costs the other viewers nothing.
const PATIENT: Duration = Duration::from_secs(2);

/// See the module's description.
pub(super) struct Subscriber {
    /// Kept by the shard.
    pub(super) seat: Seat,
    stream: Viewing,
    transport: Box<dyn ViewerTransport>,
    session: Arc<SessionShared>,
    video: Track,
    audio: Track,
    selector: Selector,
    /// What it should get; forwarding of a layer begins at a keyframe. `None` is no video.
    target: Option<Rung>,
    /// What is being forwarded must end with the present frame.
    cut: bool,
    look_again: Option<Instant>,
    /// Kept for its memory: the layers that there were to choose from.
    layers: Vec<Candidate>,
    /// The publisher that `target` and the codecs are of.
    epoch: u32,
    backlog: Backlog,
    /// What the backlog was filled with, while it may be wanted again.
    replayed: Option<Replayed>,
    /// What can be sent again, and how much of it.
    history: History,
    budget: Budget,
    /// When it had nothing left for a packet that was asked for.
    spent: Option<Instant>,
    /// The next layer's keyframe, while the last frame of the present one is on its way.
    handover: Option<Handover>,
    ask_again: Option<Instant>,
    /// Until then the path is taken to be too narrow for what the publisher makes.
    narrow_until: Option<Instant>,
    /// When the viewer last needed a keyframe.
    needed_keyframe: Option<Instant>,
    connected_at: Option<Instant>,
    /// What keyframes cost this viewer.
    price: Price,
    closing: bool,
    pub(super) contact: Contact,
    counts: Counts,
    /// What is being taken in has waited for too long, and is not sent any more.
    late: bool,
    events: Vec<TransportEvent>,
}

/// One kind of media towards the viewer.
#[derive(Debug)]
struct Track {
    codec: Option<Codec>,
    rewriter: Rewriter,
}

#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    bytes: u64,
    /// What the shard has already added to its counters.
    reported_packets: u64,
    late: u64,
    keyframe_requests: u64,
    /// Of those, the ones that the arbiter has heard of.
    keyframes_asked: u64,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber")
            .field("session", &self.session.id())
            .field("target", &self.target)
            .field("source", &self.video.rewriter.source())
            .finish_non_exhaustive()
    }
}

impl Subscriber {
    pub(super) fn new(
        now: Instant,
        seat: Seat,
        stream: Viewing,
        transport: Box<dyn ViewerTransport>,
        session: Arc<SessionShared>,
    ) -> Self {
        let mut selector = Selector::new(session.preference());
        if let Some(estimate) = transport.first_estimate() {
            selector.set_estimate(estimate);
        }
        Self {
            seat,
            stream,
            transport,
            session,
            video: Track::new(90_000),
            audio: Track::new(48_000),
            selector,
            target: None,
            cut: false,
            look_again: None,
            layers: Vec::new(),
            epoch: 0,
            backlog: Backlog::default(),
            replayed: None,
            history: History::default(),
            budget: Budget::default(),
            spent: None,
            handover: None,
            ask_again: None,
            narrow_until: None,
            needed_keyframe: None,
            connected_at: None,
            price: Price::new(VIEWER_MAX),
            closing: false,
            contact: Contact::new(now, VIEWER_SILENCE, VIEWER),
            counts: Counts::default(),
            late: false,
            events: Vec::with_capacity(EVENTS),
        }
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        &self.session
    }

    /// Packets sent and keyframe requests made since the last call, and how many of these the arbiter heard.
    pub(super) fn take_counts(&mut self) -> (u64, u64, u64) {
        let packets = self.counts.packets - self.counts.reported_packets;
        self.counts.reported_packets = self.counts.packets;
        let requests = std::mem::take(&mut self.counts.keyframe_requests);
        let asked = std::mem::take(&mut self.counts.keyframes_asked);
        (packets, requests, asked)
    }

    /// Packets that came too late to be sent, since the last call.
    pub(super) fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.counts.late)
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
            tracing::info!(session = ?self.session.id(), stream = %self.stream.name(), mtu,
                "packets are larger than the path to a viewer carries");
        }
    }

    pub(super) fn transport_mut(&mut self) -> &mut dyn Transport {
        &mut *self.transport
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
        self.transport.close();
    }

    pub(super) fn set_preference(&mut self, now: Instant, preference: Preference) {
        self.selector.set_preference(preference);
        if self.contact.is_connected() {
            self.retarget(now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        if self.backlog.due().is_some_and(|at| at <= now) {
            self.send_portion(now, outbox);
        }
        if self.handover.as_ref().is_some_and(|h| h.until() <= now) {
            self.hand_over(now, outbox);
        }
        if self.look_again.is_some_and(|at| at <= now) {
            self.retarget(now);
        }
        if self.narrow_until.is_some_and(|at| at <= now) {
            self.narrow_until = None;
            self.session.carries_all();
        }
        if self.ask_again.is_some_and(|at| at <= now) {
            self.approach_again(now);
        }
        if let Some((at, layer)) = self.price.due()
            && at <= now
        {
            match self.video.rewriter.source().map(|s| s.layer) == Some(layer) {
                true => self.viewer_needs_keyframe(now),
                false => self.price.forget(),
            }
        }
    }

    /// Takes in a frame. Returns whether anything was written, so that the session must be drained.
    ///
    /// Once per frame and viewer; what it calls runs once per packet and viewer and allocates nothing of its own.
    pub(super) fn media(&mut self, now: Instant, batch: &Arc<Batch>, outbox: &mut Outbox) -> bool {
        if !self.contact.is_connected() || self.closing {
            return false;
        }
        let is_new = batch.epoch > self.epoch;
        if is_new {
            self.meet_publisher(now);
        }
        if batch.epoch < self.epoch {
            // What the last publisher left behind, after the next one was met.
            return is_new;
        }
        let written = match batch.kind {
            TrackKind::Audio => self.forward_audio(now, batch, outbox),
            TrackKind::Video => self.forward_video(now, batch, outbox),
        };
        written || is_new
    }

    /// A frame that the network held up for too long: as if it had been lost on the way, so that the viewer's estimate
    /// learns of it. It is not sent again, either.
    pub(super) fn miss(&mut self, now: Instant, batch: &Arc<Batch>, outbox: &mut Outbox) -> bool {
        self.late = true;
        let written = self.media(now, batch, outbox);
        self.late = false;
        written
    }

    /// Hands a packet to the session.
    fn leave(&mut self, now: Instant, packet: &Outgoing<'_>, outbox: &mut Outbox) {
        if self.late {
            self.counts.late += 1;
            self.transport.lose(now, packet);
        } else {
            let mut sink = sink(outbox, &mut self.events);
            self.transport.send(now, packet, &mut sink);
        }
    }

    /// A publisher appeared, or changed what it sends.
    fn meet_publisher(&mut self, now: Instant) {
        self.epoch = self.stream.snapshot().epoch;
        self.backlog.clear();
        self.handover = None;
        self.selector.forget_layer();
        self.target = None;
        self.retarget(now);
    }

    /// Forwarding of a layer has begun.
    fn began(&mut self, now: Instant, layer: usize) {
        self.selector.begin(now);
        self.session.set_current(Some(layer));
        self.ask_again = None;
        self.cut = false;
    }

    fn send_portion(&mut self, now: Instant, outbox: &mut Outbox) {
        if outbox.is_full() {
            self.backlog.put_off(now);
            return;
        }
        let mut backlog = std::mem::take(&mut self.backlog);
        for waiting in backlog.portion(now, self.replay_rate()) {
            self.send_video(now, waiting.packet(), waiting.squeezed, outbox);
        }
        if backlog.is_empty() {
            backlog.clear();
        }
        if let Some(replayed) = &mut self.replayed {
            replayed.keep(now);
        }
        self.backlog = backlog;
        self.publish_counts();
    }

    fn forward_audio(&mut self, now: Instant, batch: &Batch, outbox: &mut Outbox) -> bool {
        let Some(codec) = self.audio.codec else {
            // The track was declared after this viewer last looked.
            self.audio.codec = self.stream.codecs().audio;
            return false;
        };
        if !self.transport.accepts(codec) {
            return false;
        }
        let source = Source {
            epoch: batch.epoch,
            layer: 0,
        };
        let mut written = false;
        for packet in &batch.packets {
            if self.audio.rewriter.source() != Some(source) {
                self.audio.rewriter.switch(source, packet, None, Limit::ALL);
            }
            if let Some(out) = self.audio.rewriter.rewrite(packet, None) {
                self.counts.add(packet);
                self.leave(now, &out.of(codec, packet), outbox);
                written = true;
            }
        }
        self.publish_counts();
        written
    }

    fn forward_video(&mut self, now: Instant, batch: &Arc<Batch>, outbox: &mut Outbox) -> bool {
        if self.replayed.as_ref().is_some_and(|r| r.is_over(now)) {
            self.replayed = None;
        }
        let armed = self.armed();
        if self.target.is_none() && self.look_again.is_none() && !self.selector.is_paused() {
            self.retarget(now);
        }
        let source = self.source_of(batch.layer);
        let mut written = false;
        for (index, packet) in batch.packets.iter().enumerate() {
            if packet.keyframe_start {
                self.price.keyframe(batch.layer);
            }
            if self.video.rewriter.source() == Some(source) {
                written |= self.forward_current(now, batch, index, outbox);
            } else if packet.begins_layer() && self.is_target(batch.layer) {
                if self.video.rewriter.is_mid_frame() && self.backlog.is_empty() {
                    self.handover = Some(Handover::begin(now, batch, index));
                } else {
                    written |= self.switch_to(now, source, packet, outbox);
                }
            } else if let Some(handover) = &mut self.handover
                && handover.layer() == batch.layer
            {
                handover.push(batch, index);
            }
        }
        self.publish_counts();
        // What is to be done later must be known to the shard, also where nothing left.
        written || self.armed() != armed
    }

    /// What decides when the shard is to look again.
    fn armed(&self) -> (bool, Option<Instant>, Option<Instant>, u64) {
        let asked = self.counts.keyframes_asked;
        (
            self.handover.is_some(),
            self.look_again,
            self.ask_again,
            asked,
        )
    }

    /// A packet of the layer that is being forwarded.
    fn forward_current(
        &mut self,
        now: Instant,
        batch: &Arc<Batch>,
        index: usize,
        outbox: &mut Outbox,
    ) -> bool {
        let packet = &batch.packets[index];
        let next_frame = self.video.rewriter.ended_before(packet);
        if next_frame && self.handover.is_some() {
            return self.hand_over(now, outbox);
        }
        if next_frame && self.cut {
            self.stop_video();
            return false;
        }
        if !self.backlog.is_empty() {
            self.backlog.push(batch, index);
            return false;
        }
        let mut written = self.send_video(now, packet, None, outbox);
        if packet.marker && self.handover.is_some() {
            written |= self.hand_over(now, outbox);
        }
        written
    }

    /// Begins a layer with the first packet of its keyframe.
    fn switch_to(
        &mut self,
        now: Instant,
        source: Source,
        packet: &Packet,
        outbox: &mut Outbox,
    ) -> bool {
        let limit = self.limit_of(source.layer);
        self.video.rewriter.switch(source, packet, None, limit);
        self.began(now, source.layer);
        self.backlog.clear();
        self.handover = None;
        self.send_video(now, packet, None, outbox)
    }

    /// The old layer's last frame is whole, or late: what has waited for it goes on.
    fn hand_over(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        let Some(handover) = self.handover.take() else {
            return false;
        };
        if !self.is_target(handover.layer()) {
            return false;
        }
        let source = self.source_of(handover.layer());
        for (n, packet) in handover.packets().enumerate() {
            if n == 0 {
                self.switch_to(now, source, packet, outbox);
            } else {
                self.send_video(now, packet, None, outbox);
            }
        }
        true
    }

    /// Ends what is being forwarded, after a whole frame.
    pub(super) fn stop_video(&mut self) {
        self.video.rewriter.detach();
        self.backlog.clear();
        self.session.set_current(None);
        self.cut = false;
    }

    fn send_video(
        &mut self,
        now: Instant,
        packet: &Packet,
        squeezed: Option<Squeezed>,
        outbox: &mut Outbox,
    ) -> bool {
        let rewriter = &mut self.video.rewriter;
        let (Some(codec), Some(source), Some(out)) = (
            self.video.codec,
            rewriter.source(),
            rewriter.rewrite(packet, squeezed),
        ) else {
            return false;
        };
        self.counts.add(packet);
        if !self.late {
            self.history.add(now, source, packet, &out);
            self.budget.earn(packet.payload.len());
        }
        self.leave(now, &out.of(codec, packet), outbox);
        true
    }

    /// The viewer missed a packet.
    fn send_again(
        &mut self,
        now: Instant,
        kind: TrackKind,
        seq: u64,
        outbox: &mut Outbox,
        rings: Option<&Rings>,
    ) {
        let Some(codec) = self.video.codec.filter(|_| kind == TrackKind::Video) else {
            return;
        };
        // The rest of a long list is not even looked for, but where that it is gone would be a reason for a keyframe.
        if self.spent == Some(now) && self.transport.asks_for_keyframes() {
            return;
        }
        let record = match self.history.get(seq) {
            Found::Sent(record) => record,
            // Whoever watches over the publisher's packets asks for a keyframe if it does not come.
            Found::NotYet => return,
            Found::Forgotten => return self.cannot_send_again(now),
        };
        let (source, seq) = (record.source, record.seq);
        let packet = rings.and_then(|rings| rings.get(source, seq));
        let replayed = || self.replayed.as_ref()?.get(source, seq);
        let Some(packet) = packet.or_else(replayed) else {
            return self.cannot_send_again(now);
        };
        if outbox.is_overfull() || !self.budget.spend(packet.payload.len()) {
            self.spent = Some(now);
            return;
        }
        let out = record.rewritten(packet.captured);
        let mut sink = sink(outbox, &mut self.events);
        let resent = self
            .transport
            .resend(now, &out.of(codec, packet), &mut sink);
        if !resent {
            self.cannot_send_again(now);
        }
    }

    /// What is gone for good is mended by a keyframe only, if it is needed: a decoder may do without, and says so by PLI
    /// where it can't (RFC 4585, section 6.3.1). Only for a peer that has no such words it is taken for granted.
    fn cannot_send_again(&mut self, now: Instant) {
        if !self.transport.asks_for_keyframes() {
            self.viewer_needs_keyframe(now);
        }
    }

    /// However often a datagram says so, it is one request.
    fn viewer_needs_keyframe(&mut self, now: Instant) {
        if self.needed_keyframe.replace(now) == Some(now) {
            return;
        }
        if let Some(source) = self.video.rewriter.source() {
            let since = self.connected_at.unwrap_or(now);
            let need = match now.saturating_duration_since(since) < BEGINNER {
                true => Need::Start,
                false => Need::Repair(self.session.id()),
            };
            self.need_keyframe(now, source.layer, need);
        }
    }

    /// Asks the arbiter for a keyframe, if it is this viewer's turn to have one. Returns whether it is.
    fn need_keyframe(&mut self, now: Instant, layer: usize, need: Need) -> bool {
        self.counts.keyframe_requests += 1;
        let may = self.price.ask(now, layer);
        if may {
            self.counts.keyframes_asked += 1;
            self.stream.request_keyframe(now, layer, need);
        } else {
            self.stream.refuse_keyframe();
        }
        may
    }

    fn publish_counts(&self) {
        self.session
            .set_sent(self.counts.packets, self.counts.bytes);
        self.session.set_current_limit(self.video.rewriter.limit());
        if let Some((timestamp, captured)) = self.video.rewriter.last_time() {
            self.session.set_video_clock(timestamp, captured);
        }
    }

    /// Puts out what is due. See [`Transport::drain`].
    pub(super) fn drain(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        rings: Option<&Rings>,
    ) -> Fate {
        // At most twice: the first round may connect the session, the second sends what that began.
        let mut next = now;
        for _ in 0..3 {
            let mut sink = sink(outbox, &mut self.events);
            next = self.transport.drain(now, &mut sink);
            if self.events.is_empty() {
                break;
            }
            let mut events = std::mem::take(&mut self.events);
            let over = events
                .drain(..)
                .any(|event| !self.on_event(now, event, outbox, rings));
            self.events = events;
            if over {
                return Fate::Over;
            }
        }
        let gone = self.contact.gone_at();
        if gone <= now {
            tracing::info!(session = ?self.session.id(), stream = %self.stream.name(), "viewer is gone");
            return Fate::Over;
        }
        let own = [
            self.backlog.due(),
            self.ask_again,
            self.price.due().map(|(at, _)| at),
            self.look_again,
            self.narrow_until,
            self.handover.as_ref().map(Handover::until),
            Some(gone),
        ];
        Fate::Lives(own.into_iter().flatten().fold(next, Instant::min))
    }

    /// Returns whether the session goes on.
    fn on_event(
        &mut self,
        now: Instant,
        event: TransportEvent,
        outbox: &mut Outbox,
        rings: Option<&Rings>,
    ) -> bool {
        match event {
            TransportEvent::Connected => {
                self.contact.set_connected();
                self.connected_at = Some(now);
                self.session.set_connected();
                self.meet_publisher(now);
                if self.backlog.due().is_some() {
                    self.send_portion(now, outbox);
                }
            }
            TransportEvent::KeyframeRequest => {
                self.session.count_keyframe_request();
                self.viewer_needs_keyframe(now);
            }
            TransportEvent::Report {
                rtt,
                loss,
                retransmitted,
            } => self.session.set_report(retransmitted, rtt, loss),
            TransportEvent::Lost { kind, seq } => {
                self.send_again(now, kind, seq, outbox, rings);
            }
            TransportEvent::Estimate(estimate) => {
                self.selector.set_estimate(estimate);
                self.session.set_estimate(estimate.bits_per_second);
                self.retarget(now);
            }
            TransportEvent::IngressLoss(_) => {}
            TransportEvent::Closed => return false,
        }
        true
    }
}

impl Track {
    fn new(clock_rate: u32) -> Self {
        Self {
            codec: None,
            rewriter: Rewriter::new(clock_rate),
        }
    }
}

impl Counts {
    fn add(&mut self, packet: &Packet) {
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
    }
}
