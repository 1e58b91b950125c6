// SPDX-License-Identifier: MPL-2.0

//! Which layers of a track its publisher is to make (dynacast): more at once, less when nobody has wanted them for a while.

use std::time::{Duration, Instant};

use livekit_protocol::{SubscribedCodec, SubscribedQuality, SubscribedQualityUpdate, VideoQuality};

use super::track::Track;

/// As long as LiveKit's server waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most that somebody wants of each codec of a track, in their order.
#[derive(Debug, Default)]
pub(super) struct Wanted(Vec<VideoQuality>);

impl Wanted {
    pub(super) fn add(&mut self, codec: usize, quality: VideoQuality) {
        if self.0.len() <= codec {
            self.0.resize(codec + 1, VideoQuality::Off);
        }
        let most = &mut self.0[codec];
        if rank(quality) > rank(*most) {
            *most = quality;
        }
    }

    fn of(&self, codec: usize) -> VideoQuality {
        self.0.get(codec).copied().unwrap_or(VideoQuality::Off)
    }
}

/// What is wanted of a track, codec by codec.
#[derive(Debug, Default)]
pub(super) struct Demands(Vec<Demand>);

impl Demands {
    /// This is the most that anybody wants now of its so many codecs. Returns whether its publisher is to be told.
    pub(super) fn want(&mut self, now: Instant, codecs: usize, wanted: &Wanted) -> bool {
        self.0.resize_with(codecs, Demand::default);
        let mut is_new = false;
        for (codec, demand) in self.0.iter_mut().enumerate() {
            is_new |= demand.want(now, wanted.of(codec)).is_some();
        }
        is_new
    }

    /// How many layers of the first codec its publisher was asked for.
    pub(super) fn first(&self) -> usize {
        self.0.first().map_or(0, Demand::layers)
    }

    /// What was told may not have come through.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(Demand::due).min()
    }

    fn told(&self, codec: usize) -> Option<VideoQuality> {
        self.0.get(codec)?.told
    }
}

fn rank(quality: VideoQuality) -> i32 {
    match quality {
        VideoQuality::Off => -1,
        quality => quality as i32,
    }
}

/// Of one codec.
#[derive(Debug, Default)]
struct Demand {
    told: Option<VideoQuality>,
    /// What it goes down to, and when.
    lower: Option<(Instant, VideoQuality)>,
}

impl Demand {
    /// This is the most that anybody wants now. Returns what the publisher is to be told.
    fn want(&mut self, now: Instant, wanted: VideoQuality) -> Option<VideoQuality> {
        let told = match self.told {
            // Until somebody wants it, it is told of nothing.
            None if wanted == VideoQuality::Off => return None,
            None => return self.tell(wanted),
            Some(told) => told,
        };
        if rank(wanted) > rank(told) {
            return self.tell(wanted);
        }
        if wanted == told {
            self.lower = None;
            return None;
        }
        let due = self.lower.map_or(now + PATIENCE, |(due, _)| due);
        self.lower = Some((due, wanted));
        if due <= now { self.tell(wanted) } else { None }
    }

    fn tell(&mut self, quality: VideoQuality) -> Option<VideoQuality> {
        self.lower = None;
        self.told = Some(quality);
        Some(quality)
    }

    /// How many layers the publisher was asked for.
    fn layers(&self) -> usize {
        match self.told {
            None | Some(VideoQuality::Off) => 0,
            Some(VideoQuality::Low) => 1,
            Some(VideoQuality::Medium) => 2,
            Some(VideoQuality::High) => 3,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.lower.map(|(due, _)| due)
    }
}

/// What a publisher is told: up to which layers each codec is wanted. Clients publish a further one (a backup) once it is, and stop
/// one of which nothing is. The first one that nobody in the room could show goes on, unnamed: recordings, and who plays the stream
/// without being in the room, get that one.
pub(super) fn update(track: &Track) -> SubscribedQualityUpdate {
    let all = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
    let qualities = |most: VideoQuality| {
        let one = |quality: VideoQuality| SubscribedQuality {
            quality: quality.into(),
            enabled: rank(quality) <= rank(most),
        };
        all.into_iter().map(one).collect::<Vec<_>>()
    };
    let codecs = track.info().codecs.iter().enumerate();
    let told = codecs.filter_map(|(place, codec)| {
        let told = track.demands.told(place);
        let most = told.or((place > 0).then_some(VideoQuality::Off))?;
        let (_, codec) = codec.mime_type.split_once('/')?;
        Some(SubscribedCodec {
            codec: codec.to_lowercase(),
            qualities: qualities(most),
        })
    });
    let most = track.demands.0.iter().filter_map(|demand| demand.told);
    let most = most.max_by_key(|most| rank(*most));
    SubscribedQualityUpdate {
        track_sid: String::from(&track.sid),
        subscribed_codecs: told.collect(),
        subscribed_qualities: qualities(most.unwrap_or(VideoQuality::Off)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use livekit_protocol::{AddTrackRequest, SimulcastCodec, TrackType};

    use super::*;
    use crate::rooms::Now;

    #[test]
    fn each_codec_is_asked_for_as_far_as_somebody_wants_it() {
        const NONE: [bool; 3] = [false; 3];
        const LOW: [bool; 3] = [true, false, false];
        const ALL: [bool; 3] = [true; 3];
        let codec = |codec: &str| SimulcastCodec {
            codec: codec.into(),
            ..SimulcastCodec::default()
        };
        let add = AddTrackRequest {
            r#type: TrackType::Video.into(),
            simulcast_codecs: vec![codec("vp9"), codec("VP8")],
            ..AddTrackRequest::default()
        };
        let (low, high) = (VideoQuality::Low, VideoQuality::High);
        // What is wanted of which codec, what is told of each then, and of all.
        type Wants<'a> = &'a [(usize, VideoQuality)];
        type Told<'a> = &'a [(&'a str, [bool; 3])];
        let cases: [(Wants<'_>, Told<'_>, [bool; 3]); 4] = [
            (&[(0, low)], &[("vp9", LOW), ("vp8", NONE)], LOW),
            (&[(0, high)], &[("vp9", ALL), ("vp8", NONE)], ALL),
            (&[(0, low), (1, high)], &[("vp9", LOW), ("vp8", ALL)], ALL),
            (&[(1, low), (1, high), (1, low)], &[("vp8", ALL)], ALL),
        ];
        for (wants, codecs, all) in cases {
            let now = Now {
                at: Instant::now(),
                wall: SystemTime::now(),
            };
            let mut track = Track::announced(now, &add);
            let mut wanted = Wanted::default();
            for (codec, quality) in wants {
                wanted.add(*codec, *quality);
            }
            assert!(track.demands.want(now.at, 2, &wanted));
            assert!(!track.demands.want(now.at, 2, &wanted), "it was told");
            let told = update(&track);
            let is = |all: &[SubscribedQuality]| [0, 1, 2].map(|n| all[n].enabled);
            let each = told.subscribed_codecs.iter();
            let each: Vec<_> = each.map(|c| (&*c.codec, is(&c.qualities))).collect();
            assert_eq!(each, codecs);
            assert_eq!(is(&told.subscribed_qualities), all);
        }
    }

    #[test]
    fn more_at_once_and_less_after_five_seconds() {
        let mut now = Instant::now();
        let mut demand = Demand::default();
        assert_eq!(demand.want(now, VideoQuality::Off), None);
        assert_eq!(demand.want(now, VideoQuality::Low), Some(VideoQuality::Low));
        assert_eq!(
            demand.want(now, VideoQuality::High),
            Some(VideoQuality::High)
        );
        assert_eq!(demand.want(now, VideoQuality::Off), None);
        now += PATIENCE / 2;
        assert_eq!(demand.want(now, VideoQuality::High), None);
        assert_eq!(demand.due(), None, "somebody came back");
        assert_eq!(demand.want(now, VideoQuality::Medium), None);
        now += PATIENCE;
        assert_eq!(demand.due(), Some(now));
        assert_eq!(demand.want(now, VideoQuality::Off), Some(VideoQuality::Off));
    }
}
