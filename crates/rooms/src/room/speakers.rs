// SPDX-License-Identifier: MPL-2.0

//! Who speaks, and how loud: told each 400 ms, and only what has changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use livekit_protocol::SpeakerInfo;

use crate::sid::Sid;

/// As LiveKit's server has it.
pub(super) const EACH: Duration = Duration::from_millis(400);
/// Levels are told in so many steps, so that they don't change all the time.
const STEPS: f32 = 8.0;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    heard: BTreeMap<Sid, f32>,
    told: BTreeMap<Sid, u8>,
    due: Option<Instant>,
}

impl Speakers {
    pub(super) fn heard(&mut self, participant: &Sid, level: f32) {
        let level = if level.is_finite() {
            level.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let loudest = self.heard.entry(participant.clone()).or_insert(0.0);
        *loudest = loudest.max(level);
    }

    pub(super) fn forget(&mut self, participant: &Sid) {
        self.heard.remove(participant);
        self.told.remove(participant);
    }

    /// What has changed since the last call, if it is time to tell.
    pub(super) fn changes(&mut self, now: Instant) -> Vec<SpeakerInfo> {
        if self.due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.due = Some(now + EACH);
        let heard = std::mem::take(&mut self.heard);
        let step = |level: f32| (level * STEPS).ceil() as u8;
        let now: BTreeMap<_, _> = heard
            .into_iter()
            .map(|(sid, level)| (sid, step(level)))
            .collect();
        let level = |of: &BTreeMap<Sid, u8>, sid: &Sid| of.get(sid).copied().unwrap_or(0);
        let before = std::mem::take(&mut self.told);
        let both = before
            .keys()
            .chain(now.keys().filter(|sid| !before.contains_key(*sid)));
        let changed = both.filter(|sid| level(&before, sid) != level(&now, sid));
        let told = changed.map(|sid| SpeakerInfo {
            sid: String::from(sid),
            level: f32::from(level(&now, sid)) / STEPS,
            active: level(&now, sid) > 0,
        });
        let told = told.collect();
        self.told = now.into_iter().filter(|(_, step)| *step > 0).collect();
        told
    }

    /// Who speaks now, for who joins.
    pub(super) fn all(&self) -> Vec<SpeakerInfo> {
        let one = |(sid, step): (&Sid, &u8)| SpeakerInfo {
            sid: String::from(sid),
            level: f32::from(*step) / STEPS,
            active: true,
        };
        self.told.iter().map(one).collect()
    }

    /// Nobody speaks, and all know.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.heard.is_empty() && self.told.is_empty() {
            true => None,
            false => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_alone_are_told_in_steps_and_who_falls_silent_once() {
        let (ann, ben) = (Sid::participant(), Sid::participant());
        let mut now = Instant::now();
        let mut speakers = Speakers::default();
        let mut turn = |levels: &[(&Sid, f32)]| {
            for (sid, level) in levels {
                speakers.heard(sid, *level);
            }
            now += EACH;
            let changes = speakers.changes(now);
            let all = changes.into_iter().map(|s| (s.sid, s.level, s.active));
            all.collect::<Vec<_>>()
        };
        let name = |sid: &Sid| String::from(sid);
        assert_eq!(turn(&[]), []);
        assert_eq!(
            turn(&[(&ann, 0.2), (&ann, 0.1)]),
            [(name(&ann), 0.25, true)]
        );
        assert_eq!(turn(&[(&ann, 0.22)]), [], "the same step");
        let mut both = vec![(name(&ann), 0.0, false), (name(&ben), 1.0, true)];
        both.sort_by(|a, b| a.0.cmp(&b.0));
        let mut told = turn(&[(&ben, 7.0)]);
        told.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(told, both);
        assert_eq!(turn(&[(&ben, f32::NAN)]), [(name(&ben), 0.0, false)]);
        assert_eq!(turn(&[]), []);
    }
}
