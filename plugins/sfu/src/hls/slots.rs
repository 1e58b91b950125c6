// SPDX-License-Identifier: MPL-2.0

//! Brings the renditions' segments together: those of one slot of the grid are published at one moment, as one row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::rendition::Rendition;

/// A layer that is late holds up the others no longer than this.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How much less than the longest of a row a segment may show, at its beginning and at its end.
const SHORT: u64 = 300_000_000;
/// So many rows wait at most: where the layers stop, audio tracks may go on.
const WAITING: usize = 8;

/// A whole segment, in a file that nobody knows of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) rendition: Rendition,
    pub(super) slot: u64,
    pub(super) file: PathBuf,
    /// Running time in nanoseconds.
    pub(super) start: u64,
    pub(super) duration: Duration,
    pub(super) bytes: u64,
    /// It does not continue the rendition's segment before.
    pub(super) gap: bool,
}

/// The segments of one slot.
pub(super) type Row = BTreeMap<Rendition, Segment>;

/// Whether there is anything in it that players could begin with.
pub(super) fn has_layer(row: &Row) -> bool {
    row.keys().any(|rendition| !rendition.is_audio())
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.start + u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX - self.start)
    }

    fn covers(&self, other: &Self) -> bool {
        self.start <= other.start + SHORT && other.end() <= self.end() + SHORT
    }
}

/// Takes out the segments of layers that came or went in the middle: another layer shows all of it.
pub(super) fn take_short(row: &mut Row) -> Vec<Segment> {
    let layers = || row.values().filter(|s| !s.rendition.is_audio());
    let Some(longest) = layers().max_by_key(|s| s.duration).cloned() else {
        return Vec::new();
    };
    let short: Vec<Rendition> = layers()
        .filter(|segment| !segment.covers(&longest))
        .map(|segment| segment.rendition)
        .collect();
    short.iter().filter_map(|which| row.remove(which)).collect()
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Slots {
    /// What is waited for.
    expected: BTreeSet<Rendition>,
    /// Since when the layers of a row wait.
    waiting: BTreeMap<u64, (Option<Instant>, Row)>,
    published: Option<u64>,
    /// Each rendition's newest slot.
    newest: BTreeMap<Rendition, u64>,
}

impl Slots {
    /// Others are waited for as well, once they have begun.
    pub(super) fn new(expected: BTreeSet<Rendition>) -> Self {
        Self {
            expected,
            waiting: BTreeMap::new(),
            published: None,
            newest: BTreeMap::new(),
        }
    }

    /// Takes a segment, or gives back one whose row went out without it.
    pub(super) fn add(&mut self, segment: Segment, now: Instant) -> Option<Segment> {
        let newest = self.newest.entry(segment.rendition).or_default();
        *newest = segment.slot.max(*newest);
        self.expected.insert(segment.rendition);
        if self.published.is_some_and(|slot| segment.slot <= slot) {
            return Some(segment);
        }
        let (since, row) = self.waiting.entry(segment.slot).or_default();
        if !segment.rendition.is_audio() {
            since.get_or_insert(now);
        }
        row.insert(segment.rendition, segment)
    }

    /// The next row that is whole, or that has waited long enough.
    pub(super) fn next(&mut self, now: Instant) -> Option<Row> {
        let (&slot, (since, row)) = self.waiting.first_key_value()?;
        let whole = (self.expected.iter()).all(|which| {
            row.contains_key(which) || self.newest.get(which).is_some_and(|n| *n > slot)
        });
        // Audio tracks alone wait for the layers, however late these are.
        let given_up = has_layer(row) && self.is_given_up(slot, row);
        let too_long = since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
        let too_many = self.waiting.len() > WAITING;
        (whole || given_up || too_long || too_many).then(|| self.take(slot))?
    }

    /// Whether only such renditions are missing as were missing in the row before.
    fn is_given_up(&self, slot: u64, row: &Row) -> bool {
        let Some(before) = self.published else {
            return false;
        };
        let recent = |which: &Rendition| self.newest.get(which).is_some_and(|n| *n >= before);
        let mut expected = self.expected.iter();
        slot > before && expected.all(|which| row.contains_key(which) || !recent(which))
    }

    /// The next row, whether it is whole or not: nothing will come any more.
    pub(super) fn rest(&mut self) -> Option<Row> {
        let (&slot, _) = self.waiting.first_key_value()?;
        self.take(slot)
    }

    fn take(&mut self, slot: u64) -> Option<Row> {
        self.published = Some(slot);
        self.waiting.remove(&slot).map(|(_, row)| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(layer: usize, slot: u64) -> Segment {
        of(Rendition::Layer(layer), slot)
    }

    fn of(rendition: Rendition, slot: u64) -> Segment {
        Segment {
            rendition,
            slot,
            file: PathBuf::new(),
            start: 0,
            duration: Duration::from_secs(2),
            bytes: 1,
            gap: false,
        }
    }

    fn slots(layers: usize) -> Slots {
        Slots::new((0..layers).map(Rendition::Layer).collect())
    }

    /// The layers of the next row, and other audio tracks from 10 on.
    fn next(slots: &mut Slots, now: Instant) -> Option<Vec<usize>> {
        let number = |which| match which {
            Rendition::Layer(layer) => layer,
            Rendition::Audio(track) => 10 + track,
        };
        let row = slots.next(now)?;
        Some(row.into_keys().map(number).collect())
    }

    #[test]
    fn a_row_goes_out_when_it_is_whole() {
        let (mut slots, now) = (slots(2), Instant::now());
        assert_eq!(slots.add(segment(0, 0), now), None);
        assert_eq!(next(&mut slots, now), None);
        assert_eq!(slots.add(segment(1, 0), now), None);
        assert_eq!(next(&mut slots, now), Some(vec![0, 1]));
        assert_eq!(next(&mut slots, now), None);
    }

    #[test]
    fn a_layer_that_is_away_is_waited_for_once() {
        let (mut slots, now) = (slots(2), Instant::now());
        let later = now + PATIENCE;
        slots.add(segment(1, 0), now);
        assert_eq!(next(&mut slots, now), None);
        assert_eq!(next(&mut slots, later), Some(vec![1]));
        slots.add(segment(1, 1), later);
        assert_eq!(next(&mut slots, later), Some(vec![1]));
        assert_eq!(slots.add(segment(0, 1), later), Some(segment(0, 1)), "late");
        slots.add(segment(1, 2), later);
        assert_eq!(next(&mut slots, later), None, "it is back");
        slots.add(segment(0, 2), later);
        assert_eq!(next(&mut slots, later), Some(vec![0, 1]));
    }

    #[test]
    fn what_came_or_went_in_the_middle_is_taken_out() {
        let at = |layer, start: u64, end: u64| Segment {
            start: start * 1_000_000,
            duration: Duration::from_millis(end - start),
            ..segment(layer, 0)
        };
        let row = [
            at(0, 500, 2_000),
            at(1, 0, 2_000),
            at(2, 100, 2_050),
            at(3, 0, 1_500),
        ];
        let mut row: Row = row.into_iter().map(|s| (s.rendition, s)).collect();
        let short = take_short(&mut row);
        let short: Vec<_> = short.iter().map(|s| s.rendition).collect();
        assert_eq!(short, [0, 3].map(Rendition::Layer));
        assert!(row.into_keys().eq([1, 2].map(Rendition::Layer)));
    }

    #[test]
    fn an_audio_track_is_waited_for_once_it_has_begun_and_alone_is_no_row() {
        let (mut slots, now) = (slots(1), Instant::now());
        let audio = |slot| of(Rendition::Audio(1), slot);
        slots.add(segment(0, 0), now);
        assert_eq!(next(&mut slots, now), Some(vec![0]));
        slots.add(audio(1), now);
        assert_eq!(next(&mut slots, now + PATIENCE), None, "alone");
        slots.add(segment(0, 1), now + PATIENCE);
        assert_eq!(next(&mut slots, now + PATIENCE), Some(vec![0, 11]));
        slots.add(segment(0, 2), now);
        assert_eq!(next(&mut slots, now), None, "it has begun");
        assert_eq!(next(&mut slots, now + PATIENCE), Some(vec![0]));
        slots.add(segment(0, 3), now);
        assert_eq!(next(&mut slots, now), Some(vec![0]), "it is given up");
        for slot in 4..100 {
            slots.add(audio(slot), now);
            next(&mut slots, now);
        }
        assert!(slots.waiting.len() <= WAITING, "the layer went");
    }

    #[test]
    fn a_layer_that_left_a_slot_out_holds_nothing_up() {
        let (mut slots, now) = (slots(2), Instant::now());
        slots.add(segment(0, 0), now);
        slots.add(segment(1, 1), now);
        assert_eq!(next(&mut slots, now), Some(vec![0]));
        assert_eq!(next(&mut slots, now), None);
        assert_eq!(slots.rest().map(|row| row.len()), Some(1));
        assert!(slots.rest().is_none());
    }
}
