// SPDX-License-Identifier: MPL-2.0

//! One viewer in a shard: which layer it gets, what was replayed to it when it joined, and when it counts as gone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Fate;
use super::contact::Contact;
use super::outbox::Outbox;
use crate::codec::{Codec, TrackKind};
use crate::ids::Rid;
use crate::packet::{Batch, Packet};
use crate::rewrite::{Rewriter, Source, Squeezed};
use crate::session::SessionShared;
use crate::stream::Stream;
use crate::transport::negotiate::PatchError;
use crate::transport::{Outgoing, PatchOutcome, Transport, TransportEvent, TransportSink};

/// A viewer that still waits for a keyframe asks the arbiter again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// A replayed group of pictures leaves in portions, so that no socket buffer on the way overflows.
const PORTION: usize = 24;
const PORTION_EVERY: Duration = Duration::from_millis(5);

/// See the module's description.
pub(super) struct Subscriber {
    stream: Arc<Stream>,
    transport: Box<dyn Transport>,
    session: Arc<SessionShared>,
    video: Track,
    audio: Track,
    wanted: Option<Rid>,
    /// The layer that it should get; forwarding of it begins at a keyframe.
    target: Option<usize>,
    /// The publisher that `target` and the codecs are of.
    epoch: u32,
    /// Packets that wait for their turn behind a replayed group of pictures.
    backlog: VecDeque<Waiting>,
    backlog_due: Option<Instant>,
    ask_again: Option<Instant>,
    closing: bool,
    pub(super) contact: Contact,
    counts: Counts,
    events: Vec<TransportEvent>,
}

/// One kind of media towards the viewer.
#[derive(Debug)]
struct Track {
    codec: Option<Codec>,
    rewriter: Rewriter,
}

struct Waiting {
    batch: Arc<Batch>,
    index: usize,
    squeezed: Option<Squeezed>,
}

#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    bytes: u64,
    video_packets: u64,
    /// What the shard has already added to its counters.
    reported_packets: u64,
    keyframe_requests: u64,
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
        stream: Arc<Stream>,
        transport: Box<dyn Transport>,
        session: Arc<SessionShared>,
    ) -> Self {
        let wanted = session.wanted();
        Self {
            stream,
            transport,
            session,
            video: Track::new(90_000),
            audio: Track::new(48_000),
            wanted,
            target: None,
            epoch: 0,
            backlog: VecDeque::new(),
            backlog_due: None,
            ask_again: None,
            closing: false,
            contact: Contact::new(now),
            counts: Counts::default(),
            events: Vec::new(),
        }
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        &self.session
    }

    /// Packets sent and keyframe requests made since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        let packets = self.counts.packets - self.counts.reported_packets;
        self.counts.reported_packets = self.counts.packets;
        (packets, std::mem::take(&mut self.counts.keyframe_requests))
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> bool {
        let understood = self.transport.receive(now, source, destination, data);
        if understood {
            self.contact.heard(now);
        }
        understood
    }

    pub(super) fn patch(&mut self, fragment: &str) -> Result<PatchOutcome, PatchError> {
        self.transport.patch(fragment)
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
        self.transport.close();
    }

    pub(super) fn set_wanted(&mut self, now: Instant, layer: Option<Rid>) {
        self.wanted = layer;
        if self.contact.is_connected() {
            self.retarget(now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.backlog_due.is_some_and(|at| at <= now) {
            self.send_portion(now);
        }
        if self.ask_again.is_some_and(|at| at <= now) {
            self.ask_keyframe(now);
        }
    }

    /// Takes in a frame. Returns whether anything was written, so that the session must be drained.
    ///
    /// Once per frame and viewer; what it calls runs once per packet and viewer and allocates nothing of its own.
    pub(super) fn media(&mut self, now: Instant, batch: &Arc<Batch>) -> bool {
        if !self.contact.is_connected() || self.closing {
            return false;
        }
        if batch.epoch != self.epoch {
            self.meet_publisher(now);
        }
        match batch.kind {
            TrackKind::Audio => self.forward_audio(batch),
            TrackKind::Video => self.forward_video(now, batch),
        }
    }

    /// A publisher appeared, or changed what it sends.
    fn meet_publisher(&mut self, now: Instant) {
        self.epoch = self.stream.epoch();
        self.backlog.clear();
        self.backlog_due = None;
        self.retarget(now);
    }

    /// Chooses the layer anew. Until a keyframe of it comes, the present one goes on.
    fn retarget(&mut self, now: Instant) {
        let codecs = self.stream.codecs();
        self.video.codec = codecs.video;
        self.audio.codec = codecs.audio;
        let target = self.stream.choose_layer(now, self.wanted.as_ref());
        self.target = target;
        if self.is_on_target() {
            self.ask_again = None;
        } else if let Some(layer) = target {
            let joining = self
                .video
                .rewriter
                .source()
                .is_none_or(|s| s.epoch != self.epoch);
            if !(joining && self.replay(now, layer)) {
                self.ask_keyframe(now);
            }
        }
    }

    fn is_on_target(&self) -> bool {
        let wanted = self.target.map(|layer| self.source_of(layer));
        wanted.is_some() && self.video.rewriter.source() == wanted
    }

    fn source_of(&self, layer: usize) -> Source {
        Source {
            epoch: self.epoch,
            layer,
        }
    }

    fn ask_keyframe(&mut self, now: Instant) {
        // The layer that was waited for may have stopped meanwhile.
        self.target = self.stream.choose_layer(now, self.wanted.as_ref());
        let Some(layer) = self.target.filter(|_| !self.is_on_target()) else {
            self.ask_again = None;
            return;
        };
        self.stream.request_keyframe(now, layer);
        self.counts.keyframe_requests += 1;
        self.ask_again = Some(now + ASK_AGAIN);
    }

    /// Queues the current group of pictures of a layer, dated as if it had just been captured.
    fn replay(&mut self, now: Instant, layer: usize) -> bool {
        let Some(gop) = self.stream.gop(now, layer) else {
            return false;
        };
        let packets = || {
            let batches = gop.batches.iter().enumerate();
            batches.flat_map(|(n, batch)| {
                let start = if n == 0 { gop.start } else { 0 };
                (start..batch.packets.len()).map(move |index| (batch, index))
            })
        };
        let mut frames = 0u32;
        let mut last: Option<&Packet> = None;
        for (batch, index) in packets() {
            let packet = &batch.packets[index];
            frames += u32::from(last.is_none_or(|l| l.timestamp != packet.timestamp));
            last = Some(packet);
        }
        let Some(live) = last else {
            return false;
        };
        let step = 90_000 / 1_000;
        let mut frame = 0u32;
        let mut at = None;
        for (batch, index) in packets() {
            let packet = &batch.packets[index];
            frame += u32::from(at != Some(packet.timestamp));
            at = Some(packet.timestamp);
            let back = frames - frame;
            let squeezed = Some(Squeezed {
                timestamp: live.timestamp.wrapping_sub(back * step),
                captured: live.captured - Duration::from_millis(u64::from(back)),
            });
            self.backlog.push_back(Waiting {
                batch: batch.clone(),
                index,
                squeezed,
            });
        }
        let source = self.source_of(layer);
        let first = self
            .backlog
            .front()
            .map(|w| (w.batch.clone(), w.index, w.squeezed));
        if let Some((batch, index, squeezed)) = first {
            self.video
                .rewriter
                .switch(source, &batch.packets[index], squeezed);
            self.video.rewriter.set_replayed(live.seq);
            self.session.set_current(Some(layer));
        }
        self.backlog_due = Some(now);
        self.ask_again = None;
        true
    }

    fn send_portion(&mut self, now: Instant) {
        for _ in 0..PORTION {
            let Some(Waiting {
                batch,
                index,
                squeezed,
            }) = self.backlog.pop_front()
            else {
                break;
            };
            self.send_video(&batch.packets[index], squeezed);
        }
        self.backlog_due = (!self.backlog.is_empty()).then(|| now + PORTION_EVERY);
        self.publish_counts();
    }

    fn forward_audio(&mut self, batch: &Batch) -> bool {
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
                self.audio.rewriter.switch(source, packet, None);
            }
            if let Some(out) = self.audio.rewriter.rewrite(packet, None) {
                self.counts.add(packet);
                self.transport.send(&out.of(codec, packet));
                written = true;
            }
        }
        self.publish_counts();
        written
    }

    fn forward_video(&mut self, now: Instant, batch: &Arc<Batch>) -> bool {
        if self.target.is_none() {
            self.retarget(now);
        }
        let source = self.source_of(batch.layer);
        let mut written = false;
        for (index, packet) in batch.packets.iter().enumerate() {
            let joins = packet.keyframe_start
                && self.target == Some(batch.layer)
                && self.video.rewriter.source() != Some(source);
            if joins {
                self.video.rewriter.switch(source, packet, None);
                self.session.set_current(Some(batch.layer));
                self.ask_again = None;
                self.backlog.clear();
                self.backlog_due = None;
            }
            if self.video.rewriter.source() != Some(source) {
                continue;
            }
            if self.backlog.is_empty() {
                written |= self.send_video(packet, None);
            } else {
                self.backlog.push_back(Waiting {
                    batch: batch.clone(),
                    index,
                    squeezed: None,
                });
            }
        }
        self.publish_counts();
        written
    }

    fn send_video(&mut self, packet: &Packet, squeezed: Option<Squeezed>) -> bool {
        let (Some(codec), Some(out)) = (
            self.video.codec,
            self.video.rewriter.rewrite(packet, squeezed),
        ) else {
            return false;
        };
        self.counts.add(packet);
        self.counts.video_packets += 1;
        self.transport.send(&out.of(codec, packet));
        true
    }

    fn publish_counts(&self) {
        self.session
            .set_sent(self.counts.packets, self.counts.bytes);
    }

    /// Puts out what is due. See [`Transport::drain`].
    pub(super) fn drain(&mut self, now: Instant, outbox: &mut Outbox) -> Fate {
        // At most twice: the first round may connect the session, the second sends what that began.
        let mut next = now;
        for _ in 0..3 {
            let mut sink = Sink {
                outbox,
                events: &mut self.events,
            };
            next = self.transport.drain(now, &mut sink);
            if self.events.is_empty() {
                break;
            }
            let mut events = std::mem::take(&mut self.events);
            let over = events.drain(..).any(|event| !self.on_event(now, event));
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
        let own = [self.backlog_due, self.ask_again, Some(gone)];
        Fate::Lives(own.into_iter().flatten().fold(next, Instant::min))
    }

    /// Returns whether the session goes on.
    fn on_event(&mut self, now: Instant, event: TransportEvent) -> bool {
        match event {
            TransportEvent::Connected => {
                self.contact.set_connected();
                self.session.set_connected();
                self.meet_publisher(now);
                if self.backlog_due.is_some() {
                    self.send_portion(now);
                }
            }
            TransportEvent::KeyframeRequest => {
                self.session.count_keyframe_request();
                self.counts.keyframe_requests += 1;
                if let Some(source) = self.video.rewriter.source() {
                    self.stream.request_keyframe(now, source.layer);
                }
            }
            TransportEvent::Report { rtt, packets } => {
                let retransmitted = packets.saturating_sub(self.counts.video_packets);
                self.session.set_report(retransmitted, rtt);
            }
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

impl crate::rewrite::Rewritten {
    fn of(self, codec: Codec, packet: &Packet) -> Outgoing<'_> {
        Outgoing {
            codec,
            seq: self.seq,
            timestamp: self.timestamp,
            captured: self.captured,
            marker: packet.marker,
            vp8: self.vp8,
            payload: &packet.payload,
        }
    }
}

struct Sink<'a> {
    outbox: &'a mut Outbox,
    events: &'a mut Vec<TransportEvent>,
}

impl TransportSink for Sink<'_> {
    fn transmit(&mut self, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        self.outbox.push(source, destination, data);
    }

    fn event(&mut self, event: TransportEvent) {
        self.events.push(event);
    }
}
