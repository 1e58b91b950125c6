// SPDX-License-Identifier: MPL-2.0

//! Deadlines by index: a binary heap in which each index has one place at most, so that it never holds more than there
//! are sessions, however often their deadlines move.
//!
//! A deadline that moves back, which most do with each frame, only is noted: its place in the heap is put right when it
//! comes to the top.

use std::time::Instant;

/// Of an index that has no deadline.
const NOWHERE: u32 = u32::MAX;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Each no later than its children.
    heap: Vec<Entry>,
    /// By index: where it is in the heap.
    places: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// What it is sorted by: no later than `wanted`.
    queued: Instant,
    wanted: Instant,
    index: usize,
}

impl Timers {
    /// The session wants to be called at `at`, and no more at the time it said before.
    pub(super) fn set(&mut self, index: usize, at: Instant) {
        if self.places.len() <= index {
            self.places.resize(index + 1, NOWHERE);
        }
        let place = self.places[index] as usize;
        if let Some(entry) = self.heap.get_mut(place) {
            entry.wanted = at;
            if at < entry.queued {
                entry.queued = at;
                self.rise(place);
            }
            return;
        }
        self.places[index] = self.heap.len() as u32;
        self.heap.push(Entry {
            queued: at,
            wanted: at,
            index,
        });
        self.rise(self.heap.len() - 1);
    }

    pub(super) fn remove(&mut self, index: usize) {
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        let place = std::mem::replace(place, NOWHERE) as usize;
        if place >= self.heap.len() {
            return;
        }
        self.heap.swap_remove(place);
        if let Some(moved) = self.heap.get(place) {
            self.places[moved.index] = place as u32;
            self.sink(place);
            self.rise(place);
        }
    }

    /// When the next session is due.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.settle();
        self.heap.first().map(|entry| entry.queued)
    }

    /// A session whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        let index = self.heap.first()?.index;
        self.remove(index);
        Some(index)
    }

    /// Makes the top of the heap one whose deadline has not moved back.
    fn settle(&mut self) {
        while let Some(top) = self.heap.first_mut()
            && top.queued < top.wanted
        {
            top.queued = top.wanted;
            self.sink(0);
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].queued <= self.heap[place].queued {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(child) = children.min_by_key(|c| self.heap[*c].queued) else {
                return;
            };
            if self.heap[place].queued <= self.heap[child].queued {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            self.places[self.heap[place].index] = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn deadlines_move_both_ways() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(0, at(10));
        timers.set(1, at(20));
        timers.set(0, at(30));
        assert_eq!(timers.next(), Some(at(20)));
        timers.set(0, at(5));
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(100)), Some(0));
        assert_eq!(timers.pop_due(at(100)), Some(1));
        assert_eq!(timers.pop_due(at(100)), None, "old entries are gone");
        timers.set(2, at(10));
        timers.remove(2);
        assert_eq!(timers.next(), None);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Set(usize, u64),
        Remove(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..12, 0u64..500).prop_map(|(index, ms)| Step::Set(index, ms)),
            1 => (0usize..12).prop_map(Step::Remove),
            1 => (0u64..100).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// It does what a plain map does, and holds no more.
        #[test]
        fn whoever_is_due_is_called_once_whatever_moves(
            steps in proptest::collection::vec(step(), 1..400)
        ) {
            let mut now = Instant::now();
            let mut timers = Timers::default();
            let mut plain: BTreeMap<usize, Instant> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(index, ms) => {
                        let at = now + Duration::from_millis(ms);
                        timers.set(index, at);
                        plain.insert(index, at);
                    }
                    Step::Remove(index) => {
                        timers.remove(index);
                        plain.remove(&index);
                    }
                    Step::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        let mut due = Vec::new();
                        while let Some(index) = timers.pop_due(now) {
                            due.push(plain.remove(&index));
                        }
                        prop_assert!(due.is_sorted(), "the earliest first: {due:?}");
                        prop_assert!(due.iter().all(|at| at.is_some_and(|at| at <= now)));
                        prop_assert!(plain.values().all(|at| *at > now));
                    }
                }
                prop_assert_eq!(timers.next(), plain.values().min().copied());
                prop_assert_eq!(timers.heap.len(), plain.len());
            }
        }
    }
}
