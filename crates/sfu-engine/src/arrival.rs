// SPDX-License-Identifier: MPL-2.0

//! The order in which one layer's packets come: extends their sequence numbers, lets each in once, and remembers what was
//! missing when.
//!
//! Called by [`LayerReader`](crate::packet) once for each packet. A number that went out twice with different content would
//! give the keys of viewers' sessions away (RFC 7714, section 8.2), so nothing passes twice.

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
    /// The number that would follow on one from long ago.
    astray: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    seq: u64,
    counted: Counted,
}

fn place(seq: u64) -> usize {
    seq as usize & (WAITED_FOR - 1)
}

impl Arrivals {
    /// The extended number of a packet and, where others with higher ones came before it, what was counted when it was
    /// missed. `None` is to be left out.
    pub(crate) fn accept(
        &mut self,
        number: u16,
        counted: impl Fn() -> Counted,
    ) -> Option<(u64, Option<Counted>)> {
        let seq = extend(self.highest, number.wrapping_sub(self.shift));
        let highest = *self.highest.get_or_insert(seq - 1);
        if seq > highest {
            self.miss(highest + 1..seq, &counted);
            self.highest = Some(seq);
            self.astray = None;
            return Some((seq, None));
        }
        if highest - seq >= WAITED_FOR as u64 {
            return self.begin_anew(number, highest);
        }
        let slot = self.missing.get_mut(place(seq))?;
        let missing = slot.take_if(|missing| missing.seq == seq)?;
        Some((seq, Some(missing.counted)))
    }

    fn miss(&mut self, seqs: std::ops::Range<u64>, counted: &impl Fn() -> Counted) {
        if !seqs.is_empty() && self.missing.is_empty() {
            self.missing.resize(WAITED_FOR, None);
        }
        let from = seqs.start.max(seqs.end.saturating_sub(WAITED_FOR as u64));
        for seq in from..seqs.end {
            let counted = counted();
            self.missing[place(seq)] = Some(Missing { seq, counted });
        }
    }

    /// Two in a row from where the numbers were long ago: the publisher has begun anew (RFC 3550, appendix A.1).
    fn begin_anew(&mut self, number: u16, highest: u64) -> Option<(u64, Option<Counted>)> {
        let follows = self.astray == Some(number);
        self.astray = Some(number.wrapping_add(1));
        if !follows {
            return None;
        }
        let seq = highest + 1;
        self.shift = number.wrapping_sub(seq as u16);
        self.highest = Some(seq);
        self.astray = None;
        self.missing.clear();
        Some((seq, None))
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

    /// What becomes of numbers that come: how far from the first, and whether late.
    fn accepted(numbers: impl IntoIterator<Item = u16>) -> Vec<Option<(u64, bool)>> {
        let mut arrivals = Arrivals::default();
        let mut first = None;
        let mut accept = |number| {
            let (seq, late) = arrivals.accept(number, Counted::default)?;
            let first = *first.get_or_insert(seq);
            Some((seq - first, late.is_some()))
        };
        numbers.into_iter().map(&mut accept).collect()
    }

    #[test]
    fn numbers_are_extended_over_wraps_and_reordering() {
        let mut arrivals = Arrivals::default();
        let seqs = [65_534, 65_535, 1, 0, 2].map(|n| arrivals.accept(n, Counted::default));
        let late = Some(Counted::default());
        assert_eq!(
            seqs,
            [
                Some((BASE, None)),
                Some((BASE + 1, None)),
                Some((BASE + 3, None)),
                Some((BASE + 2, late)),
                Some((BASE + 4, None)),
            ]
        );
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
        assert_eq!(after, [10, 11, 12, 13]);
    }

    #[test]
    fn what_comes_after_two_seconds_is_left_out() {
        let numbers = [1].into_iter().chain(3..600).chain([2, 700, 650]);
        let accepted = accepted(numbers);
        assert_eq!(accepted[598], None, "number 2");
        assert_eq!(accepted[600], Some((649, true)));
    }
}
