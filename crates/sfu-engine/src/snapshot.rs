// SPDX-License-Identifier: MPL-2.0

//! What viewers read of a stream: an immutable picture of it, which the publisher's side replaces and nobody waits for.
//!
//! Made by [`Stream`](crate::stream::Stream) at each change, and each [`EVERY`] while packets come. What depends on the
//! time that has passed since is told by whoever looks: that the publisher has stopped makes no new one.

use std::time::{Duration, Instant};

use crate::audio;
use crate::ids::Rid;
use crate::layer::{self, LayerView};
use crate::layers::{self, Candidate};
use crate::transport::negotiate::StreamCodecs;

/// So much later than it tells may a layer's last packet have come.
pub(crate) const EVERY: Duration = Duration::from_millis(100);

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Which publisher it is, counted over the stream's life.
    pub(crate) epoch: u32,
    /// Whether a publisher is there.
    pub(crate) live: bool,
    /// Consumers inside this process.
    pub(crate) locals: usize,
    pub(crate) codecs: StreamCodecs,
    /// The audio tracks, in the order of their numbers.
    pub(crate) audio: Vec<audio::View>,
    /// Sound comes later than the picture that belongs to it.
    pub(crate) sound_lags: bool,
    /// The layers share an SSRC.
    pub(crate) is_split: bool,
    pub(crate) layers: Vec<LayerView>,
}

impl Snapshot {
    /// The layers that there are to choose from, into memory that is there already.
    pub(crate) fn choices(&self, now: Instant, candidates: &mut Vec<Candidate>) {
        layer::all_at(&self.layers, now, candidates);
    }

    /// The layers, highest first.
    pub(crate) fn ranked(&self, now: Instant) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        self.choices(now, &mut candidates);
        let order = layers::ranked(&candidates);
        order
            .into_iter()
            .map(|index| candidates[index].clone())
            .collect()
    }

    /// The layers' names.
    pub(crate) fn rids(&self) -> Vec<Rid> {
        let names = self.layers.iter().map(|layer| layer.rid().clone());
        names.collect()
    }

    /// The name of one.
    pub(crate) fn rid(&self, layer: usize) -> Option<Rid> {
        Some(self.layers.get(layer)?.rid().clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::audio::AudioTrack;
    use crate::codec::{Codec, TrackKind};
    use crate::ids::SessionId;
    use crate::layer::MISSED_AFTER;
    use crate::layers::{ACTIVE_FOR, LayerInfo, Preference};
    use crate::packet::RtpIn;
    use crate::session::SessionShared;
    use crate::stream::{Feedback, PublishOptions, Stream};

    struct NoEncoder;

    impl Feedback for NoEncoder {
        fn keyframe_request(&self, _: usize) {}

        fn is_replaceable(&self) -> bool {
            true
        }
    }

    fn options() -> PublishOptions {
        PublishOptions {
            keyframe_min_interval: Duration::from_millis(500),
            feedback: Arc::new(NoEncoder),
        }
    }

    fn layers(count: usize) -> Vec<LayerInfo> {
        let layer = |index| LayerInfo {
            rid: Rid::from_index(index),
            width: None,
            height: None,
            target_bitrate: None,
        };
        (0..count).map(layer).collect()
    }

    fn track(number: usize) -> AudioTrack {
        AudioTrack {
            number,
            codec: Codec::Opus,
            language: None,
        }
    }

    fn packet(seq: u16, size: usize) -> RtpIn {
        RtpIn {
            seq,
            timestamp: u32::from(seq) * 3_000,
            captured: Instant::now(),
            marker: true,
            payload: vec![0x41; size].into(),
            red: None,
            layering: crate::packet::Layering::default(),
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Start,
        Stop,
        Video(Codec, usize),
        Audio(usize),
        NoAudio(usize),
        Push(usize, usize),
        Sound,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Start),
            1 => Just(Step::Stop),
            2 => (prop_oneof![Just(Codec::H264), Just(Codec::Vp8)], 1usize..4)
                .prop_map(|(codec, count)| Step::Video(codec, count)),
            1 => (0usize..3).prop_map(Step::Audio),
            1 => (0usize..3).prop_map(Step::NoAudio),
            20 => (0usize..3, 1usize..1_200).prop_map(|(layer, size)| Step::Push(layer, size)),
            5 => Just(Step::Sound),
            15 => (0u64..150).prop_map(Step::Wait),
            2 => (0u64..3_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// What viewers read without the lock is what is true under it, but for a layer that ends: they miss it sooner.
        #[test]
        fn it_is_the_stream_as_it_is(steps in proptest::collection::vec(step(), 1..300)) {
            let mut now = Instant::now();
            let stream = Stream::new("test".parse().unwrap(), 1);
            let mut lease = stream.start(options(), true, now).unwrap();
            let mut last = [None; 3];
            for (seq, step) in (0..).zip(steps) {
                match step {
                    Step::Start => lease = stream.start(options(), true, now).unwrap(),
                    Step::Stop => stream.stop(lease),
                    Step::Video(codec, count) => stream.set_video(lease, codec, layers(count)),
                    Step::Audio(number) => stream.set_audio(lease, track(number)),
                    Step::NoAudio(number) => stream.unset_audio(lease, number),
                    Step::Push(layer, size) => {
                        stream.push(now, lease, TrackKind::Video, layer, [packet(seq, size)]);
                        last[layer] = Some(now);
                    }
                    Step::Sound => {
                        stream.push(now, lease, TrackKind::Audio, 0, [packet(seq, 80)]);
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                }
                let true_now = stream.tracks(now);
                let snapshot = stream.snapshot();
                prop_assert_eq!(snapshot.epoch, true_now.epoch);
                prop_assert_eq!(snapshot.live, true_now.publisher.is_some());
                prop_assert_eq!(snapshot.codecs.video, true_now.video);
                prop_assert_eq!(snapshot.codecs.audio.is_some(), !true_now.audio.is_empty());
                let audio: Vec<_> = snapshot.audio.iter().map(|view| view.track.clone()).collect();
                prop_assert_eq!(audio, true_now.audio);
                let mut seen = Vec::new();
                snapshot.choices(now, &mut seen);
                prop_assert_eq!(seen.len(), true_now.layers.len());
                for (index, (seen, layer)) in seen.into_iter().zip(true_now.layers).enumerate() {
                    let silent = last[index].map(|at| now.duration_since(at));
                    if silent.is_none_or(|s| s < MISSED_AFTER - EVERY || s >= ACTIVE_FOR) {
                        prop_assert_eq!(seen, layer);
                    } else {
                        let active = layer.active;
                        prop_assert_eq!(Candidate { active, ..seen }, layer);
                    }
                }
            }
        }
    }

    #[test]
    fn looks_take_no_lock_and_no_memory_for_each_swap() {
        let mut now = Instant::now();
        let stream = Arc::new(Stream::new("test".parse().unwrap(), 1));
        let lease = stream.start(options(), true, now).unwrap();
        stream.set_video(lease, Codec::H264, layers(3));
        let id = SessionId::from_bits(1);
        let preference = Preference::default();
        let session = SessionShared::new(id, stream.clone(), 0, String::new(), preference);
        let mut pictures = std::collections::BTreeSet::new();
        for seq in 0..1_000 {
            now += Duration::from_millis(33);
            stream.push(now, lease, TrackKind::Video, 0, [packet(seq, 1_000)]);
            pictures.insert(Arc::as_ptr(&stream.snapshot()));
        }
        assert_eq!(
            pictures.len(),
            2,
            "one that is read and one that is written"
        );
        let locked = stream.locked();
        for _ in 0..100 {
            let look = stream.look(now);
            assert!(look.live && look.layers.len() == 3);
            assert_eq!(session.info().stream, *stream.name());
            assert!(stream.is_known() && stream.codecs().video.is_some());
            assert_eq!(stream.rids().len(), 3);
        }
        assert_eq!(stream.locked(), locked + 1, "but to read this number");
    }
}
