// SPDX-License-Identifier: MPL-2.0

//! Who comes first where not all are forwarded (last-N): those who spoke last, and of those who speak at once the loudest.
//!
//! Nobody leaves the first N but for somebody who speaks, and then whoever has been silent for longest: who has spoken stays for
//! as long as others don't.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sid::Sid;

/// Who has just come to the first stays so long, however loud another one is.
const KEEP: Duration = Duration::from_secs(3);
/// And then the other one is to be so much louder: 6 dB.
const LOUDER: f32 = 2.0;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Stage {
    /// How many are the first.
    first: usize,
    /// The first N, each in its place, and then the others.
    order: Vec<Party>,
    /// Everybody's place, the best first: of the first N who spoke last.
    places: HashMap<Sid, usize>,
}

#[derive(Debug)]
struct Party {
    sid: Sid,
    /// How loud it is now.
    level: f32,
    spoke: Option<Instant>,
    /// When it came to the first.
    came: Option<Instant>,
}

impl Stage {
    pub(super) fn new(first: usize) -> Self {
        Self {
            first,
            order: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Somebody has come, and is the last.
    pub(super) fn add(&mut self, sid: &Sid) {
        self.order.push(Party {
            sid: sid.clone(),
            level: 0.0,
            spoke: None,
            came: None,
        });
        self.arrange();
    }

    pub(super) fn remove(&mut self, sid: &Sid) {
        self.order.retain(|party| party.sid != *sid);
        self.arrange();
    }

    /// Somebody is so loud now, 0 to 1.
    pub(super) fn heard(&mut self, sid: &Sid, level: f32) {
        if let Some(party) = self.order.iter_mut().find(|party| party.sid == *sid) {
            party.level = party.level.max(level);
        }
    }

    /// All have been heard. Returns whether the order is another one now.
    pub(super) fn rank(&mut self, now: Instant) -> bool {
        for party in self.order.iter_mut().filter(|party| party.level > 0.0) {
            party.spoke = Some(now);
        }
        while let Some((loudest, place)) = self.next(now) {
            let mut party = self.order.remove(loudest);
            party.came = Some(now);
            let before = std::mem::replace(&mut self.order[place], party);
            self.order.insert(self.first, before);
        }
        for party in &mut self.order {
            party.level = 0.0;
        }
        self.arrange()
    }

    /// Who is to come to the first, and in whose place.
    fn next(&self, now: Instant) -> Option<(usize, usize)> {
        let (first, others) = self.order.split_at_checked(self.first)?;
        let speaking = others.iter().enumerate().filter(|(_, p)| p.level > 0.0);
        let (n, loudest) = speaking.max_by(|(_, a), (_, b)| a.level.total_cmp(&b.level))?;
        let silent = first.iter().enumerate().filter(|(_, p)| p.level <= 0.0);
        // Of those who never spoke the one who came last.
        let silent = silent.min_by_key(|(place, p)| (p.spoke, std::cmp::Reverse(*place)));
        let is_quieter = |(_, p): &(usize, &Party)| {
            let is_kept = p.came.is_some_and(|came| now < came + KEEP);
            !is_kept && loudest.level >= p.level * LOUDER
        };
        let quieter = || {
            let quieter = first.iter().enumerate().filter(is_quieter);
            quieter.min_by(|(_, a), (_, b)| a.level.total_cmp(&b.level))
        };
        let (place, _) = silent.or_else(quieter)?;
        Some((self.first + n, place))
    }

    /// The lower the better.
    pub(super) fn place(&self, sid: &Sid) -> usize {
        self.places.get(sid).copied().unwrap_or(usize::MAX)
    }

    /// Returns whether that is another order than before.
    fn arrange(&mut self) -> bool {
        let (first, others) = self.order.split_at(self.first.min(self.order.len()));
        let mut first: Vec<_> = first.iter().collect();
        first.sort_by_key(|party| std::cmp::Reverse(party.spoke));
        let all = first.into_iter().chain(others);
        let places = all.enumerate().map(|(place, p)| (p.sid.clone(), place));
        let places = places.collect();
        let is_new = places != self.places;
        self.places = places;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arranged(stage: &Stage) -> Vec<Sid> {
        let mut all: Vec<_> = stage.places.keys().cloned().collect();
        all.sort_by_key(|sid| stage.place(sid));
        all
    }

    /// A stage of two for four, and what it is after each second in which some speak.
    #[test]
    fn who_speaks_takes_the_place_of_who_was_silent_for_longest() {
        let all: Vec<_> = (0..4).map(|_| Sid::participant()).collect();
        let start = Instant::now();
        let mut stage = Stage::new(2);
        for sid in &all {
            stage.add(sid);
        }
        for (second, speaking, first) in [
            (0, &[][..], [0, 1]),
            (1, &[(0, 0.5)], [0, 1]),
            // One speaks: the other one, who has never spoken, goes.
            (2, &[(2, 0.5)], [0, 2]),
            (3, &[(3, 0.5)], [3, 2]),
            // Nobody goes where nobody speaks.
            (9, &[], [3, 2]),
            (10, &[(0, 0.1), (2, 0.5)], [0, 2]),
            // All speak: the louder one waits for the others' time, and must be much louder.
            (11, &[(0, 0.1), (2, 0.5), (1, 0.3)], [0, 2]),
            (14, &[(0, 0.2), (2, 0.5), (1, 0.3)], [0, 2]),
            (15, &[(0, 0.1), (2, 0.5), (1, 0.3)], [1, 2]),
            // And is kept then.
            (16, &[(0, 0.9), (2, 0.4), (1, 0.3)], [1, 0]),
            (17, &[(2, 0.9), (0, 0.3), (1, 0.3)], [1, 0]),
        ] {
            let now = start + Duration::from_secs(second);
            for (n, level) in speaking {
                stage.heard(&all[*n], *level);
            }
            let before = arranged(&stage);
            let changed = stage.rank(now);
            let after = arranged(&stage);
            assert_eq!(changed, before != after, "{second}");
            let shown = first.map(|n| all[n].clone());
            let is_shown = shown.iter().all(|sid| after[..2].contains(sid));
            assert!(is_shown, "{second}: {after:?}");
            assert_eq!(after.len(), 4);
            // Who spoke last is before who did not.
            let last = speaking.iter().map(|(n, _)| &all[*n]);
            let mut last = last.filter(|sid| shown.contains(sid));
            assert!(
                last.next()
                    .is_none_or(|_| speaking.iter().any(|(n, _)| all[*n] == after[0]))
            );
        }
        for sid in &all {
            stage.remove(sid);
            stage.heard(sid, 1.0);
            stage.rank(start);
        }
        assert!(arranged(&stage).is_empty());
    }
}
