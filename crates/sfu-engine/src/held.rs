// SPDX-License-Identifier: MPL-2.0

//! Octets that many hold, and what they hold together in the process.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What all of a kind hold.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicUsize);

impl Total {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn octets(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// One's part of that, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    octets: usize,
    total: &'static Total,
}

impl Held {
    pub(crate) const fn of(total: &'static Total) -> Self {
        Self { octets: 0, total }
    }

    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    pub(crate) fn set(&mut self, octets: usize) {
        // In this order nobody sees less than nothing.
        self.total.0.fetch_add(octets, Relaxed);
        self.total.0.fetch_sub(self.octets, Relaxed);
        self.octets = octets;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_the_total() {
        static TOTAL: Total = Total::new();
        let [mut a, mut b] = [Held::of(&TOTAL), Held::of(&TOTAL)];
        a.set(10);
        b.set(5);
        a.set(3);
        assert_eq!((a.octets(), b.octets(), TOTAL.octets()), (3, 5, 8));
        drop(a);
        assert_eq!(TOTAL.octets(), 5);
        drop(b);
        assert_eq!(TOTAL.octets(), 0);
    }
}
