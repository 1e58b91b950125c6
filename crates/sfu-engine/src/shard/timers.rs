// SPDX-License-Identifier: MPL-2.0

//! The deadlines of a shard's sessions: a heap with lazy removal, so that moving a deadline back costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Room in the heap for each session: deadlines that moved forward leave old ones behind, and sending must not allocate.
const ROOM: usize = 8;

/// Deadlines by the session's index.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// By index: when the session wants to be called, and the earliest entry that the heap holds for it.
    entries: Vec<Option<Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    wanted: Instant,
    queued: Instant,
}

impl Timers {
    /// The session wants to be called at `at`, and no more at the time it said before.
    pub(super) fn set(&mut self, index: usize, at: Instant) {
        if self.entries.len() <= index {
            self.entries.resize(index + 1, None);
            let room = self.entries.len() * ROOM;
            self.heap.reserve(room.saturating_sub(self.heap.len()));
        }
        let entry = &mut self.entries[index];
        match entry {
            // An earlier entry in the heap wakes us in time; it is then put back to the right time.
            Some(entry) if entry.queued <= at => entry.wanted = at,
            _ => {
                *entry = Some(Entry {
                    wanted: at,
                    queued: at,
                });
                self.heap.push(Reverse((at, index)));
            }
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = None;
        }
    }

    /// When the next session may be due.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.settle();
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// A session whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        self.settle();
        let Reverse((at, index)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        self.remove(index);
        Some(index)
    }

    /// Makes the top of the heap an entry that still counts.
    fn settle(&mut self) {
        while let Some(&Reverse((at, index))) = self.heap.peek() {
            let entry = self.entries.get_mut(index).and_then(Option::as_mut);
            match entry {
                Some(entry) if entry.queued == at && entry.wanted <= at => return,
                Some(entry) if entry.queued == at => {
                    entry.queued = entry.wanted;
                    let wanted = entry.wanted;
                    self.heap.pop();
                    self.heap.push(Reverse((wanted, index)));
                }
                _ => {
                    self.heap.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
}
