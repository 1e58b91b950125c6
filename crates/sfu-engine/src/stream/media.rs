// SPDX-License-Identifier: MPL-2.0

//! The way of a publisher's packets, and of the keyframes that are asked of it: part of [`Stream`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Lease, State, Stream};
use crate::codec::TrackKind;
use crate::keyframe::{KeyframeArbiter, Need};
use crate::layer::Layer;
use crate::packet::{Batch, Packet, RtpIn};
use crate::queue::ShardCommand;
use crate::spatial::Splitter;

impl Stream {
    /// Reads a publisher's packets and hands them to every shard that has viewers of this stream.
    ///
    /// Once per frame: one lock, one batch, one reference a shard.
    pub fn push(
        &self,
        now: Instant,
        lease: Lease,
        kind: TrackKind,
        layer: usize,
        packets: impl IntoIterator<Item = RtpIn>,
    ) {
        let mut state = self.lock();
        if !state.holds(lease) {
            return;
        }
        let splits = kind == TrackKind::Video && layer == 0 && state.splitter.is_some();
        let asks = match splits {
            true => self.split(now, &mut state, packets),
            false => self.hand_over(now, &mut state, kind, layer, packets, None),
        };
        drop(state);
        self.packets_in.fetch_add(asks.packets, Relaxed);
        self.bytes_in.fetch_add(asks.bytes, Relaxed);
        for layer in asks.layers(|asks| asks.lost) {
            self.request_keyframe(now, layer, Need::Source);
        }
        for layer in asks.layers(|asks| asks.held) {
            // What the publisher's own loss asked for has nobody else who looks when it is due.
            self.with_arbiter(layer, |arbiter| arbiter.poll(now));
        }
    }

    /// The same of video that may have several layers in one SSRC.
    fn split(
        &self,
        now: Instant,
        state: &mut State,
        packets: impl IntoIterator<Item = RtpIn>,
    ) -> Asks {
        let mut run = std::mem::take(&mut state.run);
        run.extend(packets);
        let mut asks = Asks::default();
        if let Some(mut splitter) = state.splitter.take() {
            if splitter.grows(&run) {
                self.regroup(state, &splitter);
            }
            match splitter.count() {
                0 | 1 => {
                    let packets = run.drain(..);
                    asks = self.hand_over(now, state, TrackKind::Video, 0, packets, None);
                }
                _ => {
                    // What several layers need came once.
                    asks.packets = run.len() as u64;
                    asks.bytes = run.iter().map(|packet| packet.payload.len() as u64).sum();
                    splitter.split(&mut run, |layer, size, packets| {
                        let (packets, video) = (packets.drain(..), TrackKind::Video);
                        let of_layer = self.hand_over(now, state, video, layer, packets, size);
                        asks.lost |= of_layer.lost;
                        asks.held |= of_layer.held;
                    });
                }
            }
            state.splitter = Some(splitter);
        }
        state.run = run;
        asks
    }

    /// Its publisher's packets are of more layers than were known: to viewers it is another publisher.
    fn regroup(&self, state: &mut State, splitter: &Splitter) {
        let (Some(publisher), Some(first)) = (&state.publisher, state.layers.first()) else {
            return;
        };
        let interval = publisher.options.keyframe_min_interval;
        let infos = splitter.infos(&first.info).into_iter();
        state.layers = infos.map(|info| Layer::new(info, interval)).collect();
        state.epoch += 1;
        state.is_split = true;
        self.publish(state);
        state.tell_locals();
    }

    /// One layer's packets go to every shard that has viewers of the stream.
    fn hand_over(
        &self,
        now: Instant,
        state: &mut State,
        kind: TrackKind,
        layer: usize,
        packets: impl IntoIterator<Item = RtpIn>,
        size: Option<(u32, u32)>,
    ) -> Asks {
        let (read, dropped) = state.read(now, kind, layer, packets, size);
        self.packets_dropped.fetch_add(dropped, Relaxed);
        let Some((batch, is_news)) = read else {
            return Asks::default();
        };
        if is_news {
            self.publish(state);
        }
        let wanted = self.viewers() > 0 || !state.locals.is_empty();
        let lost = wanted && kind == TrackKind::Video && state.lost(now, layer);
        let deadline = |l: &Layer| l.arbiter.deadline().is_some_and(|at| at <= now);
        let held = kind == TrackKind::Video && state.layers.get(layer).is_some_and(deadline);
        for local in &state.locals {
            local.push(&batch);
        }
        state.shards.retain(|shard| {
            shard.send_media(ShardCommand::Media {
                stream: self.key,
                batch: batch.clone(),
            })
        });
        let bit = |is: bool| u32::from(is).checked_shl(layer as u32).unwrap_or(0);
        Asks {
            lost: bit(lost),
            held: bit(held),
            packets: batch.packets.len() as u64,
            bytes: batch.bytes() as u64,
        }
    }

    /// A keyframe of a layer is needed: the arbiter decides whether the publisher hears of it.
    pub(crate) fn request_keyframe(&self, now: Instant, layer: usize, need: Need) {
        self.with_arbiter(layer, |arbiter| arbiter.request(now, need));
    }

    /// A viewer asks for keyframes too often: its request was put off.
    pub(crate) fn refuse_keyframe(&self) {
        self.keyframes_refused.fetch_add(1, Relaxed);
    }

    /// Sends the requests that were held back and are due, and returns when the next one is.
    pub(crate) fn poll_keyframes(&self, now: Instant) -> Option<Instant> {
        let count = self.lock().layers.len();
        for layer in 0..count {
            self.with_arbiter(layer, |arbiter| arbiter.poll(now));
        }
        let state = self.lock();
        // Nobody is there to be asked: what is held back is never sent, and its time would be over for ever.
        state.publisher.as_ref()?;
        let layers = state.layers.iter();
        layers.filter_map(|l| l.arbiter.deadline()).min()
    }

    /// Asks a layer's arbiter and tells the publisher, after the lock is released.
    fn with_arbiter(&self, layer: usize, ask: impl FnOnce(&mut KeyframeArbiter) -> bool) {
        let feedback = {
            let mut state = self.lock();
            let State {
                publisher,
                layers,
                splitter,
                ..
            } = &mut *state;
            let (Some(publisher), Some(at)) = (publisher, layers.get_mut(layer)) else {
                return;
            };
            // All that are in one SSRC have their keyframes together.
            let asked = if splitter.is_some() { 0 } else { layer };
            ask(&mut at.arbiter).then(|| (publisher.options.feedback.clone(), asked))
        };
        if let Some((feedback, layer)) = feedback {
            feedback.keyframe_request(layer);
        }
    }
}

impl State {
    /// Whether packets of a layer are lost for good.
    fn lost(&mut self, now: Instant, layer: usize) -> bool {
        let layer = self.layers.get_mut(layer);
        layer.is_some_and(|l| l.take_lost(now))
    }

    /// A batch of what came and whether it tells viewers something new, and how much of it was left out.
    fn read(
        &mut self,
        now: Instant,
        kind: TrackKind,
        index: usize,
        packets: impl IntoIterator<Item = RtpIn>,
        size: Option<(u32, u32)>,
    ) -> (Option<(Arc<Batch>, bool)>, u64) {
        if let Some(publisher) = &mut self.publisher {
            publisher.last_packet = now;
            publisher.has_media = true;
        }
        let layer = self.layers.get_mut(index);
        let (codec, reader) = match (kind, layer) {
            (TrackKind::Audio, _) => match self.audio.iter_mut().find(|t| t.number == index) {
                Some(track) => (track.codec, &mut track.reader),
                None => return (None, 0),
            },
            (TrackKind::Video, Some(layer)) => (self.video, &mut layer.reader),
            (TrackKind::Video, None) => return (None, 0),
        };
        let Some(codec) = codec else {
            return (None, 0);
        };
        let (packets, dropped) = reader.read(codec, packets);
        if packets.is_empty() {
            return (None, dropped);
        }
        let batch = Arc::new(Batch {
            kind,
            layer: index,
            epoch: self.epoch,
            packets,
        });
        let age = |packet: &Packet| now.saturating_duration_since(packet.captured);
        let age = batch.packets.last().map_or(Duration::ZERO, age);
        let lag_is_news = self.lag.add(kind, age);
        let is_news = match (kind, self.layers.get_mut(index)) {
            (TrackKind::Video, Some(layer)) => {
                layer.health.add(now, codec, &batch);
                layer.reader.size = size.or(layer.reader.size);
                layer.note(now, &batch)
            }
            _ => {
                let track = self.audio.iter_mut().find(|track| track.number == index);
                track.is_some_and(|track| {
                    track.health.add(now, codec, &batch);
                    track.rate.add(now, &batch)
                })
            }
        };
        (Some((batch, is_news || lag_is_news)), dropped)
    }
}

/// What is left to do after a push: which layers need a keyframe, each bit being a layer's, and what is to be counted.
#[derive(Debug, Clone, Copy, Default)]
struct Asks {
    lost: u32,
    held: u32,
    packets: u64,
    bytes: u64,
}

impl Asks {
    fn layers(self, bits: impl Fn(Self) -> u32) -> impl Iterator<Item = usize> {
        let bits = bits(self);
        (0..u32::BITS as usize).filter(move |layer| bits >> layer & 1 == 1)
    }
}
