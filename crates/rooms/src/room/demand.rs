// SPDX-License-Identifier: MPL-2.0

//! Which layers of a track its publisher is to make (dynacast): more at once, less when nobody has wanted them for a while.

use std::time::{Duration, Instant};

use livekit_protocol::{SubscribedCodec, SubscribedQuality, SubscribedQualityUpdate, VideoQuality};

use super::track::Track;

/// As long as LiveKit's server waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Demand {
    told: Option<VideoQuality>,
    /// What it goes down to, and when.
    lower: Option<(Instant, VideoQuality)>,
}

impl Demand {
    /// This is the most that anybody wants now. Returns what the publisher is to be told.
    pub(super) fn want(&mut self, now: Instant, wanted: VideoQuality) -> Option<VideoQuality> {
        let rank = |quality| match quality {
            VideoQuality::Off => -1,
            quality => quality as i32,
        };
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
    pub(super) fn layers(&self) -> usize {
        match self.told {
            None | Some(VideoQuality::Off) => 0,
            Some(VideoQuality::Low) => 1,
            Some(VideoQuality::Medium) => 2,
            Some(VideoQuality::High) => 3,
        }
    }

    /// What was told may not have come through.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.lower.map(|(due, _)| due)
    }
}

/// What a publisher is told: layers up to this quality are wanted, of the first codec. Others are for who can't show that one, and
/// are not forwarded yet: clients publish what is enabled (`setPublishingCodecs` of LiveKit's), and would for nobody.
pub(super) fn update(track: &Track, most: VideoQuality) -> SubscribedQualityUpdate {
    let all = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
    let qualities = |is_forwarded: bool| {
        let one = |quality: VideoQuality| SubscribedQuality {
            quality: quality.into(),
            enabled: is_forwarded && most != VideoQuality::Off && quality <= most,
        };
        all.into_iter().map(one).collect::<Vec<_>>()
    };
    let codecs = track.info().codecs.iter().enumerate();
    let codecs = codecs.filter_map(|(place, codec)| {
        let (_, codec) = codec.mime_type.split_once('/')?;
        Some(SubscribedCodec {
            codec: codec.to_lowercase(),
            qualities: qualities(place == 0),
        })
    });
    SubscribedQualityUpdate {
        track_sid: String::from(&track.sid),
        subscribed_codecs: codecs.collect(),
        subscribed_qualities: qualities(true),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use livekit_protocol::{AddTrackRequest, SimulcastCodec, TrackType};

    use super::*;
    use crate::rooms::Now;

    #[test]
    fn only_what_is_forwarded_is_asked_for() {
        let codec = |codec: &str| SimulcastCodec {
            codec: codec.into(),
            ..SimulcastCodec::default()
        };
        let add = AddTrackRequest {
            r#type: TrackType::Video.into(),
            simulcast_codecs: vec![codec("vp9"), codec("VP8")],
            ..AddTrackRequest::default()
        };
        let now = Now {
            at: Instant::now(),
            wall: SystemTime::now(),
        };
        let track = Track::announced(now, &add);
        for (most, enabled) in [
            (VideoQuality::Off, [false, false, false]),
            (VideoQuality::Low, [true, false, false]),
            (VideoQuality::Medium, [true, true, false]),
            (VideoQuality::High, [true, true, true]),
        ] {
            let told = update(&track, most);
            let is = |all: &[SubscribedQuality]| all.iter().map(|q| q.enabled).collect::<Vec<_>>();
            let codecs = told.subscribed_codecs.iter();
            let codecs: Vec<_> = codecs.map(|c| (&*c.codec, is(&c.qualities))).collect();
            let none = vec![false; 3];
            assert_eq!(codecs, [("vp9", enabled.to_vec()), ("vp8", none)]);
            assert_eq!(is(&told.subscribed_qualities), enabled);
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
