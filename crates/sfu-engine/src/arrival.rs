// SPDX-License-Identifier: MPL-2.0

//! The order in which one layer's packets come: extends their sequence numbers, lets each in once, and remembers what was
//! missing when.
//!
//! Called by [`LayerReader`](crate::packet) once for each packet. What is too large leaves as several packets (see
//! [`fragment`](crate::fragment)), and everything after it under numbers that are higher by what that made more. An example:
//!
//! | comes | leaves as | because |
//! | --- | --- | --- |
//! | 10 | 10 | |
//! | 11, too large | 11, 12 | `extra` is 1 from here on |
//! | 14 | 15 | 12 and 13 are missing: 13 and 14 are left for them |
//! | 15, too large | 16, 17 | `extra` is 2 |
//! | 12, late | 13 | what was left for it, whatever `extra` is now |
//! | 12 again | – | its number is used up |
//!
//! What comes with nothing to forward in it (padding) is counted the other way round: it leaves no number, and everything
//! after it goes one lower (RFC 7667, section 3.2.4: a gap would be a loss to whoever receives). Where a number was left for
//! it already, since it comes late, it leaves with nothing in it.
//!
//! So each number leaves once, and a gap is as long as what is missing. A number that went out twice with different content would
//! give the keys of viewers' sessions away (RFC 7714, section 8.2), so nothing passes twice.

use std::ops::Range;

use crate::temporal::Counted;

/// Packets that are still waited for: two seconds of 2.5 Mbit/s. A power of two.
const WAITED_FOR: usize = 512;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    highest: Option<u64>,
    /// What the publisher's numbers are ahead of ours since it began anew.
    shift: u16,
    /// What is missing, by its number, and what was counted before it. Empty until something is.
    missing: Vec<Option<Missing>>,
    /// How many more packets have left than came: some were too large and became several, some had nothing in them. Wraps.
    extra: u64,
    /// The number that would follow on one from long ago.
    astray: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    seq: u64,
    /// The number that was left for it.
    leaves_as: u64,
    counted: Counted,
}

/// A packet that is let in. Numbers are extended: they never wrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes after all that came. `seq` is its number as the publisher counts, `missed` those that should have come
    /// before it: [`Arrivals::miss`] leaves numbers for them.
    Next { seq: u64, missed: Range<u64> },
    /// Others came before it that should not have. `seq` is the number that was left for it.
    Late { seq: u64, counted: Counted },
}

fn place(seq: u64) -> usize {
    seq as usize & (WAITED_FOR - 1)
}

impl Arrivals {
    /// What becomes of a packet. `None` is to be left out.
    pub(crate) fn accept(&mut self, number: u16) -> Option<Arrival> {
        let seq = extend(self.highest, number.wrapping_sub(self.shift));
        let highest = *self.highest.get_or_insert(seq - 1);
        if seq > highest {
            self.highest = Some(seq);
            self.astray = None;
            let missed = highest + 1..seq;
            return Some(Arrival::Next { seq, missed });
        }
        if highest - seq >= WAITED_FOR as u64 {
            return self.begin_anew(number, highest);
        }
        let slot = self.missing.get_mut(place(seq))?;
        let missing = slot.take_if(|missing| missing.seq == seq)?;
        Some(Arrival::Late {
            seq: missing.leaves_as,
            counted: missing.counted,
        })
    }

    /// Leaves a number for each packet that should have come, and remembers what was counted before it.
    ///
    /// One number: nobody knows yet whether it will be too large. Then it leaves as it is.
    pub(crate) fn miss(&mut self, seqs: Range<u64>, counted: Counted) {
        if !seqs.is_empty() && self.missing.is_empty() {
            self.missing.resize(WAITED_FOR, None);
        }
        let from = seqs.start.max(seqs.end.saturating_sub(WAITED_FOR as u64));
        for seq in from..seqs.end {
            self.missing[place(seq)] = Some(Missing {
                seq,
                leaves_as: self.leaves_as(seq),
                counted,
            });
        }
    }

    /// The number that the packet leaves under, or the first of several.
    pub(crate) fn leaves_as(&self, seq: u64) -> u64 {
        seq.wrapping_add(self.extra)
    }

    /// So many more packets have left than came: what comes from now on leaves under higher numbers.
    pub(crate) fn add_extra(&mut self, packets: u64) {
        self.extra = self.extra.wrapping_add(packets);
    }

    /// A packet has come that does not leave: what comes from now on leaves under lower numbers.
    pub(crate) fn leave_out(&mut self) {
        self.extra = self.extra.wrapping_sub(1);
    }

    /// Two in a row from where the numbers were long ago: the publisher has begun anew (RFC 3550, appendix A.1).
    fn begin_anew(&mut self, number: u16, highest: u64) -> Option<Arrival> {
        let follows = self.astray == Some(number);
        self.astray = Some(number.wrapping_add(1));
        if !follows {
            return None;
        }
        // The first of them was left out, and is missing like any other: whoever waits for the rest of its frame is to know.
        let seq = highest + 2;
        self.shift = number.wrapping_sub(seq as u16);
        self.highest = Some(seq);
        self.astray = None;
        self.missing.clear();
        Some(Arrival::Next {
            seq,
            missed: seq - 1..seq,
        })
    }
}

/// The extended number nearest to the highest one so far (RFC 3711, section 3.3.1, for the same reason).
///
/// Counting starts one turn up, so that a packet from before the first one does not fall below zero.
fn extend(highest: Option<u64>, seq: u16) -> u64 {
    let Some(highest) = highest else {
        return (1 << 16) | u64::from(seq);
    };
    let step = seq.wrapping_sub(highest as u16) as i16;
    highest.saturating_add_signed(i64::from(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = (1 << 16) | 65_534;

    /// The number under which a packet leaves, and whether late.
    fn take(arrivals: &mut Arrivals, number: u16) -> Option<(u64, bool)> {
        match arrivals.accept(number)? {
            Arrival::Next { seq, missed } => {
                arrivals.miss(missed, Counted::default());
                Some((arrivals.leaves_as(seq), false))
            }
            Arrival::Late { seq, .. } => Some((seq, true)),
        }
    }

    /// What becomes of numbers that come: how far from the first, and whether late.
    fn accepted(numbers: impl IntoIterator<Item = u16>) -> Vec<Option<(u64, bool)>> {
        let mut arrivals = Arrivals::default();
        let mut first = None;
        let mut accept = |number| {
            let (seq, late) = take(&mut arrivals, number)?;
            let first = *first.get_or_insert(seq);
            Some((seq - first, late))
        };
        numbers.into_iter().map(&mut accept).collect()
    }

    #[test]
    fn numbers_are_extended_over_wraps_and_reordering() {
        let mut arrivals = Arrivals::default();
        let seqs = [65_534, 65_535, 1, 0, 2].map(|n| take(&mut arrivals, n));
        assert_eq!(
            seqs,
            [
                Some((BASE, false)),
                Some((BASE + 1, false)),
                Some((BASE + 3, false)),
                Some((BASE + 2, true)),
                Some((BASE + 4, false)),
            ]
        );
    }

    #[test]
    fn what_left_as_several_moves_all_that_comes_later() {
        let mut arrivals = Arrivals::default();
        let mut first = None;
        let mut leaves = |number, extra| {
            let (seq, late) = take(&mut arrivals, number)?;
            arrivals.add_extra(extra);
            let first = *first.get_or_insert(seq - 10);
            Some((seq - first, late))
        };
        // The module's example.
        assert_eq!(leaves(10, 0), Some((10, false)));
        assert_eq!(leaves(11, 1), Some((11, false)));
        assert_eq!(leaves(14, 0), Some((15, false)));
        assert_eq!(leaves(15, 1), Some((16, false)));
        assert_eq!(leaves(12, 0), Some((13, true)));
        assert_eq!(leaves(12, 0), None);
        assert_eq!(leaves(16, 0), Some((18, false)));
        assert_eq!(leaves(13, 0), Some((14, true)));
    }

    #[test]
    fn each_number_passes_once() {
        let (new, late) = (|n| Some((n, false)), |n| Some((n, true)));
        assert_eq!(
            accepted([10, 10, 11, 14, 11, 13, 13, 12, 15, 9, 14]),
            [
                new(0),
                None,
                new(1),
                new(4),
                None,
                late(3),
                None,
                late(2),
                new(5),
                None,
                None
            ]
        );
    }

    #[test]
    fn a_publisher_that_begins_anew_goes_on_where_it_was() {
        let numbers = (20_000..20_010).chain(3_000..3_005);
        let accepted = accepted(numbers);
        assert_eq!(accepted[9], Some((9, false)));
        assert_eq!(
            accepted[10], None,
            "one packet alone may be lost in the network"
        );
        let after: Vec<_> = accepted[11..].iter().map(|a| a.unwrap().0).collect();
        assert_eq!(after, [11, 12, 13, 14], "behind the one that was left out");
    }

    #[test]
    fn what_comes_after_two_seconds_is_left_out() {
        let numbers = [1].into_iter().chain(3..600).chain([2, 700, 650]);
        let accepted = accepted(numbers);
        assert_eq!(accepted[598], None, "number 2");
        assert_eq!(accepted[600], Some((649, true)));
    }
}
