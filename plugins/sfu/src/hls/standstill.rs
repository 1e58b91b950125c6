// SPDX-License-Identifier: MPL-2.0

//! What stands in for pictures that do not come while sound goes on: the last keyframe again, as on a screen that stands
//! still. A muxer waits for pictures, and players for both kinds: without them nobody would hear the sound.
//!
//! All times are nanoseconds of running time. Sound tells how time passes, on whose thread this is asked.

/// Pictures that are further apart stand still. Screens that are shared come at one picture a second.
pub(super) const STANDSTILL: u64 = 2_000_000_000;
/// One keyframe each so often: as each may begin a segment, the grid is kept to.
const STEP: u64 = 500_000_000;
/// A layer is away by itself where another one is further on by this much: that one stands in for it.
const AHEAD: u64 = 1_000_000_000;

/// What is to be done before sound of a moment goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing: pictures come.
    Nothing,
    /// The last keyframe is to be shown again at this moment, and it is to be asked again.
    Again(u64),
    /// The layer has no pictures, and others do: its sound is in theirs.
    Away,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    /// The newest picture that came, and the newest that was made of it.
    came: u64,
    made: u64,
    /// The last keyframe stands in for what comes, until the next one.
    still: bool,
    /// Pictures came that nothing can be made of without a keyframe.
    thaws: bool,
    /// Since when other layers have pictures again.
    alone: Option<u64>,
}

impl Standstill {
    /// Whether the last keyframe stands in.
    pub(super) fn is_still(&self) -> bool {
        self.still
    }

    /// Whether a keyframe is waited for.
    pub(super) fn wants_keyframe(&self) -> bool {
        self.thaws
    }

    /// A picture came. Returns whether it goes on: what was repeated is no reference for what follows.
    pub(super) fn picture(&mut self, at: u64, keyframe: bool) -> bool {
        if self.still && (!keyframe || at <= self.made) {
            self.thaws = true;
            return false;
        }
        (self.still, self.thaws, self.alone) = (false, false, None);
        self.came = self.came.max(at);
        self.made = 0;
        true
    }

    /// Sound of this moment is to go on. `newest` is the newest picture of all layers.
    pub(super) fn sound(&mut self, at: u64, newest: u64) -> Then {
        if at < self.came.saturating_add(STANDSTILL) {
            return Then::Nothing;
        }
        if newest > self.came.saturating_add(AHEAD) {
            // Those that stood still together come back one after the other.
            let since = *self.alone.get_or_insert(if self.still { at } else { 0 });
            if at >= since.saturating_add(AHEAD) {
                return Then::Away;
            }
        }
        let next = self.made.max(self.came) + STEP;
        if next > at {
            return Then::Nothing;
        }
        self.still = true;
        self.made = next;
        Then::Again(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// What sound each 20 ms of this time makes of it, with the moments in ms.
    fn sound(standstill: &mut Standstill, times: std::ops::Range<u64>, newest: u64) -> Vec<u64> {
        let mut again = Vec::new();
        for at in times.step_by(20) {
            while let Then::Again(at) = standstill.sound(at * MS, newest * MS) {
                again.push(at / MS);
            }
        }
        again
    }

    #[test]
    fn the_last_keyframe_stands_in_without_a_hole_until_the_next_one() {
        let mut standstill = Standstill::default();
        assert!(standstill.picture(1_000 * MS, true));
        assert!(standstill.picture(1_040 * MS, false));
        assert!(sound(&mut standstill, 1_000..3_000, 1_040).is_empty());
        let again = sound(&mut standstill, 3_040..4_100, 1_040);
        assert_eq!(again, [1_540, 2_040, 2_540, 3_040, 3_540, 4_040]);
        assert!(standstill.is_still() && !standstill.wants_keyframe());
        assert!(!standstill.picture(4_080 * MS, false), "no keyframe");
        assert!(!standstill.picture(4_000 * MS, true), "too early");
        assert!(standstill.wants_keyframe());
        assert!(standstill.picture(4_120 * MS, true));
        assert!(!standstill.is_still() && !standstill.wants_keyframe());
        assert!(standstill.picture(4_160 * MS, false));
        assert!(sound(&mut standstill, 4_100..6_140, 4_160).is_empty());
    }

    #[test]
    fn slow_pictures_are_left_alone() {
        let mut standstill = Standstill::default();
        for at in (1_000..20_000).step_by(1_000) {
            assert!(standstill.picture(at * MS, at == 1_000));
            assert!(sound(&mut standstill, at - 500..at + 500, at).is_empty());
        }
    }

    #[test]
    fn a_layer_that_is_away_leaves_it_to_the_others() {
        let mut standstill = Standstill::default();
        standstill.picture(1_000 * MS, true);
        let mut then = |at, newest| standstill.sound(at * MS, newest * MS);
        assert_eq!(then(2_980, 2_900), Then::Nothing);
        assert_eq!(then(3_000, 2_900), Then::Away);
        assert_eq!(then(9_000, 8_900), Then::Away);
        assert!(standstill.picture(9_040 * MS, false), "the cutter's");
    }

    #[test]
    fn layers_that_stop_together_stand_still_together() {
        let mut standstill = Standstill::default();
        standstill.picture(1_000 * MS, true);
        let again = sound(&mut standstill, 3_000..5_000, 1_900);
        assert_eq!(again.last(), Some(&4_500));
        // The other is back.
        let then = |standstill: &mut Standstill, at| standstill.sound(at * MS, at * MS);
        assert_eq!(then(&mut standstill, 5_000), Then::Again(5_000 * MS));
        assert_eq!(then(&mut standstill, 5_980), Then::Again(5_500 * MS));
        assert_eq!(then(&mut standstill, 6_000), Then::Away);
    }
}
