// SPDX-License-Identifier: MPL-2.0

//! Brings the layers' segments together: those of one slot of the grid are published at one moment, as one row.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A layer that is late holds up the others no longer than this.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How much less than the longest of a row a segment may show, at its beginning and at its end.
const SHORT: u64 = 300_000_000;

/// A whole segment, in a file that nobody knows of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) layer: usize,
    pub(super) slot: u64,
    pub(super) file: PathBuf,
    /// Running time in nanoseconds.
    pub(super) start: u64,
    pub(super) duration: Duration,
    pub(super) bytes: u64,
    /// It does not continue the layer's segment before.
    pub(super) gap: bool,
}

/// The segments of one slot, by layer.
pub(super) type Row = BTreeMap<usize, Segment>;

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
    let Some(longest) = row.values().max_by_key(|s| s.duration).cloned() else {
        return Vec::new();
    };
    let short: Vec<usize> = (row.iter())
        .filter(|(_, segment)| !segment.covers(&longest))
        .map(|(&layer, _)| layer)
        .collect();
    short.iter().filter_map(|layer| row.remove(layer)).collect()
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Slots {
    layers: usize,
    waiting: BTreeMap<u64, (Instant, Row)>,
    published: Option<u64>,
    /// Each layer's newest slot.
    newest: BTreeMap<usize, u64>,
}

impl Slots {
    pub(super) fn new(layers: usize) -> Self {
        Self {
            layers,
            waiting: BTreeMap::new(),
            published: None,
            newest: BTreeMap::new(),
        }
    }

    /// Takes a segment, or gives back one whose row went out without it.
    pub(super) fn add(&mut self, segment: Segment, now: Instant) -> Option<Segment> {
        let newest = self.newest.entry(segment.layer).or_default();
        *newest = segment.slot.max(*newest);
        if self.published.is_some_and(|slot| segment.slot <= slot) {
            return Some(segment);
        }
        let (_, row) = self
            .waiting
            .entry(segment.slot)
            .or_insert_with(|| (now, Row::new()));
        row.insert(segment.layer, segment)
    }

    /// The next row that is whole, or that has waited long enough.
    pub(super) fn next(&mut self, now: Instant) -> Option<Row> {
        let (&slot, (since, row)) = self.waiting.first_key_value()?;
        let whole = (0..self.layers).all(|layer| {
            row.contains_key(&layer) || self.newest.get(&layer).is_some_and(|n| *n > slot)
        });
        if !whole && !self.is_given_up(slot, row) && now.duration_since(*since) < PATIENCE {
            return None;
        }
        self.take(slot)
    }

    /// Whether only such layers are missing as were missing in the row before.
    fn is_given_up(&self, slot: u64, row: &Row) -> bool {
        let Some(before) = self.published else {
            return false;
        };
        let recent = |layer: usize| self.newest.get(&layer).is_some_and(|n| *n >= before);
        slot > before && (0..self.layers).all(|layer| row.contains_key(&layer) || !recent(layer))
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
        Segment {
            layer,
            slot,
            file: PathBuf::new(),
            start: 0,
            duration: Duration::from_secs(2),
            bytes: 1,
            gap: false,
        }
    }

    /// The layers of the next row.
    fn next(slots: &mut Slots, now: Instant) -> Option<Vec<usize>> {
        slots.next(now).map(|row| row.into_keys().collect())
    }

    #[test]
    fn a_row_goes_out_when_it_is_whole() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        assert_eq!(slots.add(segment(0, 0), now), None);
        assert_eq!(next(&mut slots, now), None);
        assert_eq!(slots.add(segment(1, 0), now), None);
        assert_eq!(next(&mut slots, now), Some(vec![0, 1]));
        assert_eq!(next(&mut slots, now), None);
    }

    #[test]
    fn a_layer_that_is_away_is_waited_for_once() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
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
        let mut row: Row = row.into_iter().map(|s| (s.layer, s)).collect();
        let short: Vec<_> = take_short(&mut row).iter().map(|s| s.layer).collect();
        assert_eq!(short, [0, 3]);
        assert_eq!(row.into_keys().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_layer_that_left_a_slot_out_holds_nothing_up() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        slots.add(segment(0, 0), now);
        slots.add(segment(1, 1), now);
        assert_eq!(next(&mut slots, now), Some(vec![0]));
        assert_eq!(next(&mut slots, now), None);
        assert_eq!(slots.rest().map(|row| row.len()), Some(1));
        assert!(slots.rest().is_none());
    }
}
