// SPDX-License-Identifier: MPL-2.0

//! How good participants' connections are, as clients show it: by what is lost, how long it takes, and what of the layers that
//! are wanted comes.
//!
//! The rules and numbers are about those of LiveKit's scorer (`pkg/sfu/connectionquality`): a rating from 0 to 100 as the
//! E-model has it, which falls at once and rises slowly, and is told as one of four words.

use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    ConnectionQuality, ConnectionQualityInfo, ConnectionQualityUpdate, TrackType,
};

use super::{Outputs, Room, say};
use crate::media::{Measured, Path};
use crate::sid::Sid;

const BEST: f32 = 100.0;
/// What a percent of loss, and a layer that does not come, cost.
const LOSS: f32 = 8.0;
const LAYER: f32 = 35.0;
/// Where pictures are paused for want of room.
const STARVED: f32 = 30.0;
/// Above these it is excellent, and good.
const EXCELLENT: f32 = 80.0;
const GOOD: f32 = 40.0;
/// So much of the way up is made in one step.
const RISE: f32 = 0.5;

/// One participant's.
#[derive(Debug)]
pub(super) struct Quality {
    rating: f32,
    /// What others were told last.
    told: Option<ConnectionQuality>,
    /// The participant has been told of those that it knows.
    pub(super) knows: bool,
    /// Layers that were missing last time, up and down: what is about to begin is not missed.
    missing: (usize, usize),
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            rating: BEST,
            told: None,
            knows: false,
            missing: (0, 0),
        }
    }
}

impl Quality {
    fn measured(&mut self, rating: f32) {
        self.rating = match rating < self.rating {
            true => rating,
            false => self.rating + (rating - self.rating) * RISE,
        };
    }

    fn word(&self) -> ConnectionQuality {
        match self.rating {
            rating if rating > EXCELLENT => ConnectionQuality::Excellent,
            rating if rating > GOOD => ConnectionQuality::Good,
            _ => ConnectionQuality::Poor,
        }
    }

    /// From 1 to 4.5 (ITU-T G.107, annex B).
    fn score(&self) -> f32 {
        let r = self.rating.clamp(0.0, BEST);
        1.0 + 0.035 * r + 7.0e-6 * r * (r - 60.0) * (100.0 - r)
    }
}

fn rating(path: &Path) -> f32 {
    let one_way = path.round_trip.unwrap_or_default().as_secs_f32() * 1_000.0 / 2.0;
    // ITU-T G.107 as it is commonly put in short: below 160 ms hardly noticed.
    let delay = match one_way < 160.0 {
        true => one_way / 40.0,
        false => (one_way - 120.0) / 10.0,
    };
    let loss = if path.loss.is_finite() {
        path.loss.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let rating = BEST - delay - loss * 100.0 * LOSS - path.missing as f32 * LAYER;
    let most = if path.starved { STARVED } else { BEST };
    rating.clamp(0.0, most)
}

impl Room {
    pub(crate) fn measured(&mut self, sid: &Sid, measured: &Measured) {
        let Some(participant) = self.participants.get_mut(sid) else {
            return;
        };
        let layers = |track: &super::track::Track| {
            let came = measured.layers.iter().find(|(sid, _)| *sid == track.sid);
            let (_, came) = came.filter(|_| !track.info().muted)?;
            Some(track.wanted_layers().saturating_sub(*came))
        };
        let pictures = participant.tracks.iter();
        let pictures = pictures.filter(|track| track.live && track.kind() == TrackType::Video);
        let missing = pictures.filter_map(layers).max().unwrap_or(0);
        let below = measured.down.map_or(0, |path| path.missing);
        let before = std::mem::replace(&mut participant.quality.missing, (missing, below));
        let lasting = |path: Option<Path>, missing| path.map(|path| Path { missing, ..path });
        let up = lasting(measured.up, missing.min(before.0));
        let down = lasting(measured.down, below.min(before.1));
        let both = [up, down].into_iter().flatten();
        let worst = both.map(|path| rating(&path)).fold(BEST, f32::min);
        participant.quality.measured(worst);
    }

    /// Each is told of itself and of those that it gets something of: of all at first, then of what has changed.
    pub(crate) fn tell_quality(&mut self, out: &mut Outputs) {
        let (mut all, mut changed) = (Vec::new(), Vec::new());
        for participant in self.participants.values_mut() {
            let quality = match participant.connection {
                None if !participant.is_ingress() => ConnectionQuality::Lost,
                _ => participant.quality.word(),
            };
            let score = match quality {
                ConnectionQuality::Lost => 0.0,
                _ => participant.quality.score(),
            };
            let info = ConnectionQualityInfo {
                participant_sid: String::from(&participant.sid),
                quality: quality.into(),
                score,
            };
            if participant.quality.told.replace(quality) != Some(quality) {
                changed.push((participant.sid.clone(), info.clone()));
            }
            all.push((participant.sid.clone(), info));
        }
        for participant in self.participants.values_mut() {
            if participant.connection.is_none() {
                continue;
            }
            let is_first = !std::mem::replace(&mut participant.quality.knows, true);
            let news = if is_first { &all } else { &changed };
            if news.is_empty() {
                continue;
            }
            let carried: std::collections::BTreeSet<_> = participant
                .offering
                .carried()
                .map(|(_, publisher)| publisher)
                .collect();
            let concerns = |sid: &Sid| *sid == participant.sid || carried.contains(sid);
            let updates = news.iter().filter(|(sid, _)| concerns(sid));
            let updates: Vec<_> = updates.map(|(_, info)| info.clone()).collect();
            if !updates.is_empty() {
                let update = ConnectionQualityUpdate { updates };
                say(
                    participant.connection,
                    Message::ConnectionQuality(update),
                    out,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn words_are_those_that_viewers_would_use() {
        let path = Path::default();
        let ms = |ms| Some(Duration::from_millis(ms));
        for (path, word) in [
            (path, ConnectionQuality::Excellent),
            (
                Path {
                    round_trip: ms(250),
                    ..path
                },
                ConnectionQuality::Excellent,
            ),
            (
                Path {
                    round_trip: ms(800),
                    ..path
                },
                ConnectionQuality::Good,
            ),
            (Path { loss: 0.01, ..path }, ConnectionQuality::Excellent),
            (Path { loss: 0.04, ..path }, ConnectionQuality::Good),
            (Path { loss: 0.1, ..path }, ConnectionQuality::Poor),
            (
                Path {
                    loss: f32::NAN,
                    ..path
                },
                ConnectionQuality::Excellent,
            ),
            (Path { missing: 1, ..path }, ConnectionQuality::Good),
            (Path { missing: 2, ..path }, ConnectionQuality::Poor),
            (
                Path {
                    starved: true,
                    ..path
                },
                ConnectionQuality::Poor,
            ),
        ] {
            let mut quality = Quality::default();
            quality.measured(rating(&path));
            assert_eq!(quality.word(), word, "{path:?}");
        }
    }

    #[test]
    fn it_falls_at_once_and_rises_slowly() {
        let mut quality = Quality::default();
        assert!(
            (quality.score() - 4.5).abs() < 0.001,
            "as the best of LiveKit's"
        );
        quality.measured(0.0);
        assert_eq!(
            (quality.word(), quality.score()),
            (ConnectionQuality::Poor, 1.0)
        );
        let mut words = Vec::new();
        for _ in 0..4 {
            quality.measured(BEST);
            words.push(quality.word());
        }
        let (good, excellent) = (ConnectionQuality::Good, ConnectionQuality::Excellent);
        assert_eq!(words, [good, good, excellent, excellent]);
    }
}
