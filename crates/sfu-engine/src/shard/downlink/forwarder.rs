// SPDX-License-Identifier: MPL-2.0

//! One stream's way to one peer: which layer it gets, what was replayed to it when it joined, and its place in the numbers of
//! the m-lines that it leaves on. The stream may be another one later: to the peer each m-line goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Seat;
use super::super::backlog::Backlog;
use super::super::budget::Budget;
use super::super::handover::Handover;
use super::super::history::History;
use super::replayed::Replayed;
use super::{Counted, Way};
use crate::audio::{self, AudioChoice};
use crate::codec::{Codec, TrackKind};
use crate::layers::{Candidate, Preference, Rung, Selector, Why};
use crate::packet::{Batch, Packet};
use crate::price::{Price, VIEWER_MAX};
use crate::rewrite::{Rewriter, Source, Squeezed};
use crate::session::SessionShared;
use crate::stream::Viewing;
use crate::temporal::Limit;
use crate::transport::{Estimate, Slot, ViewerTransport};

/// A viewer that still waits for a keyframe asks the arbiter again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(500);
/// An upgrade waits this long for a keyframe that comes anyway, so that it costs the other viewers nothing.
pub(super) const PATIENT: Duration = Duration::from_secs(2);

/// See the module's description.
pub(in crate::shard) struct Forwarder {
    pub(in crate::shard) watch: Option<Watch>,
    /// What others may see of it.
    pub(super) figures: Arc<SessionShared>,
    pub(super) video: Track,
    pub(super) audio: Track,
    /// Which of the stream's audio tracks it forwards, and which is wanted.
    audio_number: Option<usize>,
    wanted_audio: Option<AudioChoice>,
    pub(super) selector: Selector,
    /// Bit/s of the peer's network that all else takes.
    pub(super) others: u64,
    /// Bit/s that are left for its pictures, where others want some.
    pub(super) share: Option<u64>,
    /// The stream's sound comes later than its pictures.
    pub(super) sound_lags: bool,
    /// Why none of the present publisher's pictures can be shown.
    pub(super) unplayable: Option<Why>,
    /// What it should get; forwarding of a layer begins at a keyframe. `None` is no video.
    pub(super) target: Option<Rung>,
    /// What is being forwarded must end with the present frame.
    pub(super) cut: bool,
    /// Kept for its memory: the layers that there were to choose from.
    pub(super) layers: Vec<Candidate>,
    /// The publisher that `target` and the codecs are of.
    pub(super) epoch: u32,
    pub(super) backlog: Backlog,
    /// What the backlog was filled with, while it may be wanted again.
    pub(super) replayed: Option<Replayed>,
    /// What can be sent again, and how much of it.
    pub(super) history: History,
    pub(super) budget: Budget,
    /// When it had nothing left for a packet that was asked for.
    pub(super) spent: Option<Instant>,
    /// The next layer's keyframe, while the last frame of the present one is on its way.
    handover: Option<Handover>,
    pub(super) ask_again: Option<Instant>,
    /// When the viewer last needed a keyframe.
    pub(super) needed_keyframe: Option<Instant>,
    /// When there first was something to forward.
    pub(super) met_first: Option<Instant>,
    /// What keyframes cost this viewer.
    pub(super) price: Price,
    pub(super) counts: Counts,
}

/// A stream that is watched, and from which place.
#[derive(Debug)]
pub(in crate::shard) struct Watch {
    pub(in crate::shard) stream: Viewing,
    pub(in crate::shard) seat: Seat,
}

/// One kind of media towards the viewer.
#[derive(Debug)]
pub(super) struct Track {
    /// The m-line that it leaves on, where there is one.
    pub(super) slot: Option<Slot>,
    /// What the publisher sends.
    pub(super) codec: Option<Codec>,
    /// The m-line takes that.
    pub(super) is_accepted: bool,
    pub(super) rewriter: Rewriter,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    packets: u64,
    bytes: u64,
    /// What the shard has already added to its counters.
    reported_packets: u64,
    late: u64,
    pub(super) keyframe_requests: u64,
    /// Of those, the ones that the arbiter has heard of.
    pub(super) keyframes_asked: u64,
    /// The shard has not yet looked when more is to be asked for.
    pub(super) is_asking: bool,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder")
            .field("target", &self.target)
            .field("source", &self.video.rewriter.source())
            .finish_non_exhaustive()
    }
}

impl Forwarder {
    /// For the m-lines with this place among those of their kind.
    pub(super) fn new(
        transport: &dyn ViewerTransport,
        place: usize,
        figures: Arc<SessionShared>,
    ) -> Self {
        let preference = figures.preference();
        let wanted_audio = preference.audio.clone();
        let mut selector = Selector::new(preference);
        if let Some(estimate) = transport.first_estimate() {
            selector.set_estimate(estimate);
        }
        let track = |kind, clock_rate| Track {
            slot: transport.slot(kind, place),
            codec: None,
            is_accepted: false,
            rewriter: Rewriter::new(clock_rate),
        };
        Self {
            watch: None,
            figures,
            video: track(TrackKind::Video, 90_000),
            audio: track(TrackKind::Audio, 48_000),
            audio_number: None,
            wanted_audio,
            selector,
            others: 0,
            share: None,
            sound_lags: false,
            unplayable: None,
            target: None,
            cut: false,
            layers: Vec::new(),
            epoch: 0,
            backlog: Backlog::default(),
            replayed: None,
            history: History::default(),
            budget: Budget::default(),
            spent: None,
            handover: None,
            ask_again: None,
            needed_keyframe: None,
            met_first: None,
            price: Price::new(VIEWER_MAX),
            counts: Counts::default(),
        }
    }

    /// From now on it forwards this. Returns what it did before.
    pub(super) fn watch(&mut self, watch: Watch, figures: Arc<SessionShared>) -> Option<Seat> {
        let before = self.unwatch();
        self.set_preference(figures.preference());
        self.figures = figures;
        self.watch = Some(watch);
        before
    }

    /// From now on it forwards nothing. Returns what it did before.
    pub(in crate::shard) fn unwatch(&mut self) -> Option<Seat> {
        let Watch { seat, .. } = self.watch.take()?;
        self.stop_video();
        // Another stream's publishers and layers have the same numbers.
        self.video.rewriter.forget_source();
        self.audio.rewriter.forget_source();
        self.history.clear();
        self.replayed = None;
        self.handover = None;
        self.selector.forget_layer();
        self.target = None;
        self.ask_again = None;
        self.met_first = None;
        self.price = Price::new(VIEWER_MAX);
        self.epoch = 0;
        Some(seat)
    }

    pub(super) fn watches(&self, stream: u64) -> bool {
        let watch = self.watch.as_ref();
        watch.is_some_and(|watch| watch.stream.key() == stream)
    }

    /// The m-line of its pictures.
    pub(super) fn video_slot(&self) -> Option<Slot> {
        self.video.slot
    }

    pub(super) fn set_preference(&mut self, preference: Preference) {
        self.wanted_audio.clone_from(&preference.audio);
        self.selector.set_preference(preference);
    }

    pub(super) fn set_estimate(&mut self, estimate: Estimate) {
        self.selector.set_estimate(estimate);
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = [
            self.backlog.due(),
            self.ask_again,
            self.price.due().map(|(at, _)| at),
            self.handover.as_ref().map(Handover::until),
        ];
        due.into_iter().flatten().min()
    }

    /// Sends what has waited for its time.
    pub(super) fn hand_out(&mut self, now: Instant, way: &mut Way<'_>) {
        if self.backlog.due().is_some_and(|at| at <= now) {
            self.send_portion(now, way);
        }
        if self.handover.as_ref().is_some_and(|h| h.until() <= now) {
            self.hand_over(now, way);
        }
    }

    /// Asks for the keyframes whose time has come.
    pub(super) fn ask(&mut self, now: Instant) {
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

    /// A frame is of another publisher than the one that is known.
    pub(super) fn is_behind(&self, batch: &Batch) -> bool {
        batch.epoch > self.epoch
    }

    /// Pictures come, and none were chosen.
    pub(super) fn has_no_choice(&self, batch: &Batch) -> bool {
        batch.kind == TrackKind::Video && self.target.is_none() && !self.selector.is_paused()
    }

    /// A publisher appeared, or changed what it sends.
    pub(super) fn meet_publisher(&mut self, now: Instant, way: &mut Way<'_>) {
        self.end_frame(now, way);
        let Some(watch) = &self.watch else {
            return;
        };
        self.met_first.get_or_insert(now);
        self.epoch = watch.stream.snapshot().epoch;
        self.backlog.clear();
        self.handover = None;
        self.selector.forget_layer();
        self.target = None;
    }

    /// Takes in a frame. Returns whether anything was written, or is to be done later.
    pub(super) fn media(&mut self, now: Instant, batch: &Arc<Batch>, way: &mut Way<'_>) -> bool {
        if batch.epoch < self.epoch {
            // What the last publisher left behind, after the next one was met.
            return false;
        }
        match batch.kind {
            TrackKind::Audio => self.forward_audio(now, batch, way),
            TrackKind::Video => self.forward_video(now, batch, way),
        }
    }

    /// Forwarding of a layer has begun.
    pub(super) fn began(&mut self, now: Instant, layer: usize) {
        self.selector.begin(now);
        self.figures.set_current(Some(layer));
        self.ask_again = None;
        self.cut = false;
    }

    fn send_portion(&mut self, now: Instant, way: &mut Way<'_>) {
        if way.outbox.is_full() {
            self.backlog.put_off(now);
            return;
        }
        let mut backlog = std::mem::take(&mut self.backlog);
        for waiting in backlog.portion(now, self.replay_rate()) {
            self.send_video(now, waiting.packet(), waiting.squeezed, way);
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

    /// Chooses the audio track. Returns what it takes, in bit/s.
    pub(super) fn pick_audio(&mut self, transport: &dyn ViewerTransport) -> u64 {
        let Some(watch) = &self.watch else {
            return 0;
        };
        let snapshot = watch.stream.snapshot();
        let picked = audio::pick(&snapshot.audio, self.wanted_audio.as_ref());
        self.audio_number = picked.map(|view| view.track.number);
        let codec = picked.map(|view| view.track.codec);
        self.audio.set_codec(codec, transport);
        picked.map_or(0, |view| view.bitrate)
    }

    fn forward_audio(&mut self, now: Instant, batch: &Batch, way: &mut Way<'_>) -> bool {
        if self.audio_number != Some(batch.layer) {
            // It was declared, or the other one is no more, after this viewer last looked.
            self.pick_audio(&*way.transport);
        }
        let (Some(codec), Some(slot)) = (self.audio.codec, self.audio.slot) else {
            return false;
        };
        if !self.audio.is_accepted || self.audio_number != Some(batch.layer) {
            return false;
        }
        let source = Source {
            epoch: batch.epoch,
            layer: batch.layer,
        };
        let mut written = false;
        for packet in &batch.packets {
            if self.audio.rewriter.source() != Some(source) {
                self.audio.rewriter.switch(source, packet, None, Limit::ALL);
                self.figures.set_audio(source.layer);
            }
            if let Some(out) = self.audio.rewriter.rewrite(packet, None) {
                self.counts.add(packet, way.late);
                way.send(now, &out.of(slot, codec, packet));
                written = true;
            }
        }
        self.publish_counts();
        written
    }

    fn forward_video(&mut self, now: Instant, batch: &Arc<Batch>, way: &mut Way<'_>) -> bool {
        if self.replayed.as_ref().is_some_and(|r| r.is_over(now)) {
            self.replayed = None;
        }
        let armed = self.armed();
        let source = self.source_of(batch.layer);
        let mut written = false;
        for (index, packet) in batch.packets.iter().enumerate() {
            if packet.keyframe_start {
                self.price.keyframe(batch.layer);
            }
            if self.video.rewriter.source() == Some(source) {
                written |= self.forward_current(now, batch, index, way);
            } else if self.is_target(batch.layer) && self.may_begin(packet, source) {
                if self.video.rewriter.is_mid_frame() && self.backlog.is_empty() {
                    self.handover = Some(Handover::begin(now, batch, index));
                } else {
                    written |= self.switch_to(now, source, packet, way);
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

    /// Whether its layer may be shown from this packet on: with its keyframe, or since it goes on with what is shown.
    fn may_begin(&self, packet: &Packet, source: Source) -> bool {
        let shown = self.video.rewriter.source();
        let shown = shown.filter(|s| s.epoch == source.epoch && self.backlog.is_empty());
        packet.begins_layer() || shown.is_some_and(|s| packet.goes_on_from(s.layer, source.layer))
    }

    /// What decides when the shard is to look again.
    fn armed(&self) -> (bool, Option<Instant>, bool) {
        (
            self.handover.is_some(),
            self.ask_again,
            self.counts.is_asking,
        )
    }

    /// A packet of the layer that is being forwarded.
    fn forward_current(
        &mut self,
        now: Instant,
        batch: &Arc<Batch>,
        index: usize,
        way: &mut Way<'_>,
    ) -> bool {
        let packet = &batch.packets[index];
        let next_frame = self.video.rewriter.ended_before(packet);
        if next_frame && self.handover.is_some() {
            return self.hand_over(now, way);
        }
        if next_frame && self.cut {
            let written = self.end_frame(now, way);
            self.stop_video();
            return written;
        }
        if !self.backlog.is_empty() {
            self.backlog.push(batch, index);
            return false;
        }
        let mut written = self.send_video(now, packet, None, way);
        if packet.marker && self.handover.is_some() {
            written |= self.hand_over(now, way);
        }
        written
    }

    /// Begins a layer with the first packet of its keyframe, or of a picture that goes on with what is shown.
    fn switch_to(
        &mut self,
        now: Instant,
        source: Source,
        packet: &Packet,
        way: &mut Way<'_>,
    ) -> bool {
        let wanted = self.limit_of(source.layer);
        let limit = match packet.begins_layer() {
            true => wanted,
            false => wanted.min(self.video.rewriter.limit()),
        };
        self.end_frame(now, way);
        self.video.rewriter.switch(source, packet, None, limit);
        self.video.rewriter.set_limit(wanted);
        self.began(now, source.layer);
        self.backlog.clear();
        self.handover = None;
        self.send_video(now, packet, None, way)
    }

    /// The old layer's last frame is whole, or late: what has waited for it goes on.
    fn hand_over(&mut self, now: Instant, way: &mut Way<'_>) -> bool {
        let Some(handover) = self.handover.take() else {
            return false;
        };
        if !self.is_target(handover.layer()) {
            return false;
        }
        let source = self.source_of(handover.layer());
        for (n, packet) in handover.packets().enumerate() {
            if n == 0 {
                self.switch_to(now, source, packet, way);
            } else {
                self.send_video(now, packet, None, way);
            }
        }
        true
    }

    /// Of what waits, the rest of the frame that has begun to leave does so now: the others are not wanted any more. Returns
    /// whether anything was written.
    fn end_frame(&mut self, now: Instant, way: &mut Way<'_>) -> bool {
        let mut written = false;
        while self.video.rewriter.is_mid_frame()
            && let Some(waiting) = self.backlog.take_first()
            && !self.video.rewriter.ended_before(waiting.packet())
        {
            written |= self.send_video(now, waiting.packet(), waiting.squeezed, way);
        }
        written
    }

    /// Ends what is being forwarded, after a whole frame.
    pub(super) fn stop_video(&mut self) {
        self.video.rewriter.detach();
        self.backlog.clear();
        self.figures.set_current(None);
        self.cut = false;
    }

    fn send_video(
        &mut self,
        now: Instant,
        packet: &Packet,
        squeezed: Option<Squeezed>,
        way: &mut Way<'_>,
    ) -> bool {
        let rewriter = &mut self.video.rewriter;
        let (Some(codec), Some(slot), Some(source), Some(out)) = (
            self.video.codec,
            self.video.slot,
            rewriter.source(),
            rewriter.rewrite(packet, squeezed),
        ) else {
            return false;
        };
        self.counts.add(packet, way.late);
        if !way.late {
            self.history.add(now, source, packet, &out);
            self.budget.earn(packet.payload.len());
        }
        way.send(now, &out.of(slot, codec, packet));
        true
    }

    fn publish_counts(&self) {
        self.figures
            .set_sent(self.counts.packets, self.counts.bytes);
        self.figures.set_current_limit(self.video.rewriter.limit());
        if let Some((timestamp, captured)) = self.video.rewriter.last_time() {
            self.figures.set_video_clock(timestamp, captured);
        }
    }

    /// Whether a keyframe was asked for since the last call.
    pub(in crate::shard) fn was_asking(&mut self) -> bool {
        std::mem::take(&mut self.counts.is_asking)
    }
}

impl Track {
    pub(super) fn set_codec(&mut self, codec: Option<Codec>, transport: &dyn ViewerTransport) {
        self.codec = codec;
        let both = self.slot.zip(codec);
        self.is_accepted = both.is_some_and(|(slot, codec)| transport.accepts(slot, codec));
    }
}

impl Counts {
    fn add(&mut self, packet: &Packet, late: bool) {
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        self.late += u64::from(late);
    }

    /// Adds what was counted since the last call.
    pub(super) fn take(&mut self, all: &mut Counted) {
        all.packets += self.packets - self.reported_packets;
        self.reported_packets = self.packets;
        all.late += std::mem::take(&mut self.late);
        all.keyframe_requests += std::mem::take(&mut self.keyframe_requests);
        all.keyframes_asked += std::mem::take(&mut self.keyframes_asked);
    }
}
