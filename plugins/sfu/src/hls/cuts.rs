// SPDX-License-Identifier: MPL-2.0

//! Where a layer's segments begin: on a grid that all layers share, so that they are aligned (RFC 8216, section 6.2.4).
//!
//! All times are nanoseconds of running time.

use std::time::Duration;

/// Keyframes are asked for this long before they are due: encoders are on networks.
const ASK: u64 = 200_000_000;
/// A keyframe that comes this long before it is due begins the segment. It shows what was before the camera earlier.
const EARLY: u64 = 350_000_000;
/// Pictures that are further apart are a gap in the time line.
const GAP: u64 = 1_000_000_000;
/// Sound that comes this late for a segment that its pictures have begun begins with it; later, with the next one.
const JOINS: u64 = 500_000_000;
/// EXTINF, rounded, must not exceed the target duration: the longest segment is this much longer than that.
const MARGIN: u64 = 480_000_000;
const SECOND: u64 = 1_000_000_000;

/// How long segments are to be, and how long they may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    interval: u64,
    target: u64,
}

impl Rules {
    pub(super) fn new(segment_duration: Duration) -> Self {
        let interval = u64::try_from(segment_duration.as_nanos()).unwrap_or(SECOND);
        Self {
            interval,
            // Room of at least a quarter of a second above the wanted duration.
            target: (interval + SECOND * 3 / 4) / SECOND,
        }
    }

    /// EXT-X-TARGETDURATION in seconds. It never changes while the element runs.
    pub(super) fn target(&self) -> u64 {
        self.target
    }

    fn limit(&self) -> u64 {
        self.target * SECOND + MARGIN
    }

    /// The slot of the grid in which a moment lies.
    fn slot(&self, at: u64, origin: u64) -> u64 {
        (at + EARLY).saturating_sub(origin) / self.interval
    }

    /// When to ask for the keyframe that begins a slot.
    pub(super) fn ask_at(&self, slot: u64, origin: u64) -> u64 {
        (origin + slot * self.interval).saturating_sub(ASK)
    }
}

/// A segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) slot: u64,
    pub(super) start: u64,
    /// Where the segment before it ends.
    pub(super) end: u64,
    /// Something is missing between the two.
    pub(super) gap: bool,
}

/// Looks at each picture of a layer, or at each piece of sound where there is no picture or that has a playlist of its own.
#[derive(Debug)]
pub(super) struct Cutter {
    rules: Rules,
    /// The present segment's slot and start.
    current: Option<(u64, u64)>,
    last: u64,
    /// From the last picture but one to the last.
    step: u64,
}

impl Cutter {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            current: None,
            last: 0,
            step: 0,
        }
    }

    /// Whether a segment begins with this picture. A keyframe that is due begins one; when none comes in time, some
    /// other picture does: a longer segment would break the promise of the target duration.
    pub(super) fn picture(&mut self, at: u64, keyframe: bool, origin: u64) -> Option<Cut> {
        let due = self.rules.slot(at, origin);
        if self.current.is_none() && !keyframe {
            return None;
        }
        self.look(at, due, keyframe)
    }

    /// Whether a segment begins with this piece of a further audio track: where the layers began theirs last, which was
    /// in the slot and at the moment of `begun`; or where it would be too long.
    pub(super) fn follow(&mut self, at: u64, begun: (u64, u64)) -> Option<Cut> {
        let (slot, start) = begun;
        match self.current {
            None if (start..start + JOINS).contains(&at) => self.look(at, slot, true),
            None => None,
            Some((current, _)) => {
                let due = if at >= start { slot } else { current };
                self.look(at, due, true)
            }
        }
    }

    /// `may` begin the slot that is due.
    fn look(&mut self, at: u64, due: u64, may: bool) -> Option<Cut> {
        let end = self.end();
        let step = at.saturating_sub(self.last);
        let gap = step > GAP;
        let Some((slot, start)) = self.current else {
            self.advance(at, 0);
            return Some(self.begin(due, at, at, true));
        };
        let next = at + if gap { self.step } else { step };
        let too_long = next.saturating_sub(start) >= self.rules.limit();
        self.advance(at, if gap { 0 } else { step });
        if !(too_long || (may && due > slot)) {
            return None;
        }
        let whole = at.saturating_sub(start) < self.rules.limit() && !gap;
        let end = if whole { at } else { end.max(start) };
        Some(self.begin(due.max(slot + 1), at, end, gap))
    }

    fn advance(&mut self, at: u64, step: u64) {
        if step > 0 {
            self.step = step;
        }
        self.last = self.last.max(at);
    }

    fn begin(&mut self, slot: u64, start: u64, end: u64, gap: bool) -> Cut {
        self.current = Some((slot, start));
        Cut {
            slot,
            start,
            end,
            gap,
        }
    }

    /// Where the present segment ends if nothing follows.
    pub(super) fn end(&self) -> u64 {
        self.last + self.step
    }

    /// The slot that the present segment is in.
    pub(super) fn slot(&self) -> Option<u64> {
        self.current.map(|(slot, _)| slot)
    }

    /// Nothing has come for long.
    pub(super) fn lapse(&mut self, now: u64) -> Option<u64> {
        let silent = now.saturating_sub(self.last) > self.rules.limit();
        silent.then(|| self.leave()).flatten()
    }

    /// Nothing more will come for now: where the segment ends, if there is one. The next one begins at a keyframe.
    pub(super) fn leave(&mut self) -> Option<u64> {
        let left = self.current.take();
        left.map(|_| self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Cuts as (slot, start, end, gap) in milliseconds, of pictures and keyframes at these milliseconds.
    fn cuts(pictures: impl Iterator<Item = u64>, keys: &[u64]) -> Vec<(u64, u64, u64, bool)> {
        let mut cutter = Cutter::new(Rules::new(Duration::from_secs(2)));
        let origin = keys[0] * MS;
        let cuts = pictures.filter_map(|at| cutter.picture(at * MS, keys.contains(&at), origin));
        cuts.map(|c| (c.slot, c.start / MS, c.end / MS, c.gap))
            .collect()
    }

    #[test]
    fn a_keyframe_that_is_due_begins_a_segment() {
        let pictures = || (0..160).map(|n| 1_000 + n * 40);
        let keys = [1_000, 2_000, 2_680, 3_000, 5_080];
        assert_eq!(
            cuts(pictures(), &keys),
            [
                (0, 1_000, 1_000, true),
                (1, 2_680, 2_680, false),
                (2, 5_080, 5_080, false)
            ]
        );
    }

    #[test]
    fn without_keyframes_no_segment_is_longer_than_promised() {
        for step in [33, 40, 200, 500, 999] {
            let seen = cuts((0..15_000 / step).map(|n| 1_000 + n * step), &[1_000]);
            let longest = seen.windows(2).map(|w| w[1].2 - w[0].1).max();
            assert!(
                longest.is_some_and(|l| (1_000..2_500).contains(&l)),
                "{step}: {seen:?}"
            );
            assert!(seen.windows(2).all(|w| w[0].0 < w[1].0), "{seen:?}");
            assert!(seen.windows(2).all(|w| w[0].1 < w[1].2), "{seen:?}");
        }
    }

    #[test]
    fn a_gap_ends_the_segment_where_the_pictures_end() {
        let pictures = (0..25)
            .map(|n| n * 40)
            .chain((0..5).map(|n| 7_000 + n * 40));
        assert_eq!(
            cuts(pictures, &[0, 7_000]),
            [(0, 0, 0, true), (3, 7_000, 1_000, true)]
        );
    }

    #[test]
    fn a_layer_that_lapsed_begins_again_at_a_keyframe() {
        let mut cutter = Cutter::new(Rules::new(Duration::from_secs(2)));
        assert!(cutter.picture(0, false, 0).is_none());
        assert!(cutter.picture(40 * MS, true, 0).is_some());
        cutter.picture(80 * MS, false, 0);
        assert_eq!(cutter.lapse(2_000 * MS), None);
        assert_eq!(cutter.lapse(3_000 * MS), Some(120 * MS));
        assert_eq!(cutter.lapse(9_000 * MS), None, "once");
        assert!(cutter.picture(9_000 * MS, false, 0).is_none());
        let again = cutter.picture(9_040 * MS, true, 0);
        assert!(again.is_some_and(|cut| cut.gap && cut.slot == 4));
    }

    #[test]
    fn sound_is_cut_where_the_pictures_were() {
        let mut cutter = Cutter::new(Rules::new(Duration::from_secs(2)));
        let mut follow = |at: u64, slot: u64, start: u64| {
            let cut = cutter.follow(at * MS, (slot, start * MS));
            cut.map(|c| (c.slot, c.start / MS, c.end / MS))
        };
        assert_eq!(follow(1_900, 1, 1_000), None, "in the middle");
        assert_eq!(follow(2_700, 2, 2_800), None, "before it");
        assert_eq!(follow(2_820, 2, 2_800), Some((2, 2_820, 2_820)));
        for at in (2_840..4_700).step_by(20) {
            let begun = if at < 4_600 { (2, 2_800) } else { (3, 4_720) };
            assert_eq!(follow(at, begun.0, begun.1), None, "{at}");
        }
        assert_eq!(follow(4_720, 3, 4_720), Some((3, 4_720, 4_720)));
        // The pictures stop.
        let alone = (4_740..9_900).step_by(20);
        let alone: Vec<_> = alone.filter_map(|at| follow(at, 3, 4_720)).collect();
        let slots: Vec<_> = alone.iter().map(|cut| cut.0).collect();
        assert_eq!(slots, [4, 5], "{alone:?}");
        let lengths = [4_720, alone[0].1, alone[1].1];
        assert!(lengths.windows(2).all(|w| w[1] - w[0] < 2_500), "{alone:?}");
        // They were later than that with their slot, and are waited for with the next.
        for at in (9_920..11_700).step_by(20) {
            assert_eq!(follow(at, 5, 9_910), None, "{at}");
        }
        assert_eq!(follow(11_700, 6, 11_700), Some((6, 11_700, 11_700)));
    }

    #[test]
    fn the_target_has_room_above_what_is_wanted() {
        for (wanted, target) in [(1_000, 1), (2_000, 2), (2_400, 3), (5_200, 5), (6_000, 6)] {
            let rules = Rules::new(Duration::from_millis(wanted));
            assert_eq!(rules.target(), target, "{wanted}");
            assert!(
                rules.limit() >= rules.interval + EARLY - 100 * MS,
                "{wanted}"
            );
        }
    }
}
