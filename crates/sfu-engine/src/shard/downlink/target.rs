// SPDX-License-Identifier: MPL-2.0

//! What a viewer should get of a stream, and how it gets there: part of [`super::Forwarder`].

use std::time::Instant;

use super::super::backlog::{Backlog, Network};
use super::forwarder::{ASK_AGAIN, BEGINS, Forwarder, PATIENT};
use super::replayed::Replayed;
use crate::codec::Codec;
use crate::gop::Gop;
use crate::keyframe::Need;
use crate::layers::{self, Candidate, Rung, Why};
use crate::rewrite::Source;
use crate::temporal::Limit;
use crate::transport::ViewerTransport;

impl Forwarder {
    /// Looks at what the publisher sends. Returns what the sound takes that is sent on, in bit/s.
    pub(super) fn survey(&mut self, now: Instant, transport: &dyn ViewerTransport) -> u64 {
        let audio_bitrate = self.pick_audio(transport);
        let Some(watch) = &self.watch else {
            self.layers.clear();
            self.sound_lags = false;
            return 0;
        };
        let snapshot = watch.stream.snapshot();
        self.video.set_codec(snapshot.codecs.video, transport);
        snapshot.choices(now, &mut self.layers);
        self.sound_lags = snapshot.sound_lags;
        let is_told = |slot| transport.takes_descriptors(slot);
        if snapshot.is_split
            && snapshot.codecs.video == Some(Codec::Av1)
            && !self.video.slot.is_some_and(is_told)
        {
            // Without the dependency descriptor browsers show no more than the lowest one.
            let upper = self.layers.split_last_mut().map(|(_, upper)| upper);
            upper
                .into_iter()
                .flatten()
                .for_each(|layer| layer.active = false);
        }
        self.unplayable = match (self.video.codec, self.video.slot) {
            (Some(_), None) => Some(Why::Paused),
            (Some(_), Some(_)) if !self.video.is_accepted => Some(Why::NoCommonCodec),
            _ => None,
        };
        if self.unplayable.is_some() {
            self.layers.clear();
        }
        audio_bitrate
    }

    /// Chooses the layer anew, of those that were last seen. Until a keyframe of it comes, the present one goes on, where the
    /// network carries it. Returns when to look again.
    pub(super) fn retarget(&mut self, now: Instant) -> Option<Instant> {
        self.watch.as_ref()?;
        let layers = std::mem::take(&mut self.layers);
        let mut choice = self.selector.choose(now, &layers, self.others);
        choice.why = self.unplayable.unwrap_or(choice.why);
        self.figures.set_choice(choice.rung, choice.why);
        let before = std::mem::replace(&mut self.target, choice.rung);
        self.video.rewriter.set_limit(self.limit_now());
        if choice.rung.is_none() {
            match self.video.rewriter.source() {
                // Nothing of it comes any more that would end a frame.
                Some(source) if source.epoch != self.epoch => self.stop_video(),
                source => self.cut |= source.is_some(),
            }
            self.ask_again = None;
        } else if self.is_on_target() {
            self.cut = false;
            self.ask_again = None;
        } else if self.is_on_layer() {
            self.cut = false;
            // The next frame that lets it goes up, and that is soon, or a keyframe.
            self.ask_again.get_or_insert(now + PATIENT);
        } else if before != choice.rung || self.ask_again.is_none() {
            if choice.cut {
                self.cut = true;
                self.history.clear();
            }
            self.approach(now, &layers, choice.upgrade);
        }
        self.layers = layers;
        self.selector.look_again(now)
    }

    /// Sees to it that forwarding of the target can begin.
    fn approach(&mut self, now: Instant, layers: &[Candidate], patiently: bool) {
        let Some(Rung { layer: target, .. }) = self.target else {
            return;
        };
        let shown = self.is_joining() && self.replay_from(now, target, layers, false);
        if shown && self.is_on_target() {
            return;
        }
        if patiently {
            self.ask_again = Some(self.patience(now, target));
        } else if shown || self.goes_down(target, layers) {
            self.ask_again = Some(now + PATIENT);
        } else {
            self.ask_keyframe(now);
        }
    }

    /// Whether the target goes on with what is shown, so that it begins with the next picture.
    fn goes_down(&self, target: usize, layers: &[Candidate]) -> bool {
        let shown = self.video.rewriter.source();
        let shown = shown.filter(|source| source.epoch == self.epoch);
        let steps = shown.and_then(|source| target.checked_sub(source.layer));
        let most = layers
            .get(target)
            .map_or(0, |layer| layer.from_above.into());
        steps.is_some_and(|steps| (1..=most).contains(&steps))
    }

    /// The target has not begun yet.
    pub(super) fn approach_again(&mut self, now: Instant) {
        let waits = self.target.filter(|_| self.is_joining());
        if let Some(Rung { layer: target, .. }) = waits {
            // The publisher was asked in vain: better late pictures than none.
            let layers = std::mem::take(&mut self.layers);
            let shown = self.replay_from(now, target, &layers, true);
            self.layers = layers;
            if shown {
                self.ask_again = (!self.is_on_target()).then(|| now + PATIENT);
                return;
            }
        }
        self.ask_keyframe(now);
    }

    /// Nothing of the present publisher was shown yet.
    fn is_joining(&self) -> bool {
        let seen = self.video.rewriter.last_source();
        seen.is_none_or(|s| s.epoch != self.epoch)
    }

    /// Shows a layer at once or, since that is worth more than a high picture, a lower one that takes less time. Where no
    /// keyframe is to be had it may take longer.
    fn replay_from(
        &mut self,
        now: Instant,
        target: usize,
        layers: &[Candidate],
        in_vain: bool,
    ) -> bool {
        let order = layers::ranked(layers);
        let from_target = order.into_iter().skip_while(|l| *l != target);
        let network = self.network();
        let mut slow = None;
        for layer in from_target {
            let watch = self.watch.as_ref();
            let Some(gop) = watch.and_then(|watch| watch.stream.gop(now, layer)) else {
                continue;
            };
            if gop.is_young() && Backlog::is_quick(&gop, network) {
                return self.replay(now, layer, gop);
            }
            if in_vain || gop.deaf {
                slow.get_or_insert((layer, gop));
            }
        }
        slow.is_some_and(|(layer, gop)| self.replay(now, layer, gop))
    }

    /// Whether what is forwarded is the target, with its temporal layers.
    fn is_on_target(&self) -> bool {
        let limit = self.target.map(|rung| rung.limit);
        self.is_on_layer() && limit.is_some_and(|limit| self.video.rewriter.limit() >= limit)
    }

    /// Whether what is forwarded is the target's layer.
    fn is_on_layer(&self) -> bool {
        let wanted = self.target.map(|rung| self.source_of(rung.layer));
        wanted.is_some() && self.video.rewriter.source() == wanted
    }

    /// The temporal layers that may leave of what is forwarded now, which may be another layer than the target.
    fn limit_now(&self) -> Limit {
        match self.target.filter(|_| self.is_on_layer()) {
            Some(rung) => rung.limit,
            None => self.video.rewriter.limit(),
        }
    }

    /// The temporal layers to begin a layer with.
    pub(super) fn limit_of(&self, layer: usize) -> Limit {
        let target = self.target.filter(|rung| rung.layer == layer);
        target.map_or(Limit::ALL, |rung| rung.limit)
    }

    pub(super) fn is_target(&self, layer: usize) -> bool {
        self.target.is_some_and(|rung| rung.layer == layer)
    }

    pub(super) fn source_of(&self, layer: usize) -> Source {
        Source {
            epoch: self.epoch,
            layer,
        }
    }

    pub(super) fn ask_keyframe(&mut self, now: Instant) {
        let Some(rung) = self.target.filter(|_| !self.is_on_target()) else {
            self.ask_again = None;
            return;
        };
        let asked = self.need_keyframe(now, rung.layer, Need::Start);
        self.price.forget();
        let next = self.price.next(rung.layer).filter(|_| !asked);
        self.ask_again = Some(next.unwrap_or(now + ASK_AGAIN));
    }

    /// Shows the current group of pictures of a layer at once.
    fn replay(&mut self, now: Instant, layer: usize, mut gop: Gop) -> bool {
        let (source, limit) = (self.source_of(layer), self.limit_of(layer));
        let network = self.network();
        let Some((first, last_seq)) = self.backlog.fill(now, &gop, network) else {
            return false;
        };
        let rewriter = &mut self.video.rewriter;
        rewriter.switch(source, first.packet(), first.squeezed, limit);
        rewriter.set_replayed(last_seq, std::mem::take(&mut gop.holes));
        self.replayed = Some(Replayed::new(now, gop, source));
        self.began(now, layer);
        true
    }

    /// What is known of the network, or of the share in it, where there is another layer for one that carries little.
    pub(super) fn network(&self) -> Network {
        let estimate = self.selector.estimate();
        match estimate.filter(|_| self.selector.has_layers()) {
            None => Network::Unknown,
            Some(_) if self.selector.is_guess() && self.share.is_none() => Network::Guessed {
                sought: self.selector.could_rise(),
            },
            Some(rate) => self.share.unwrap_or(Network::Carries { rate, room: rate }),
        }
    }

    /// When a keyframe is asked for that may come anyway. Who begins is patient no longer than one that comes each two seconds
    /// takes: a publisher whose last one is older makes none by itself. Where there are other pictures, all of which begin,
    /// their keyframes would fill a queue.
    fn patience(&self, now: Instant, target: usize) -> Instant {
        let begins = |at| now.saturating_duration_since(at) < BEGINS;
        let is_new = self.share.is_none() && self.met_first.is_some_and(begins);
        match self.watch.as_ref().filter(|_| is_new) {
            Some(watch) => {
                let last = watch.stream.keyframe_at(target);
                last.map_or(now, |at| now.max(at + PATIENT))
            }
            None => now + PATIENT,
        }
    }
}
