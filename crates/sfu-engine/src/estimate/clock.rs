// SPDX-License-Identifier: MPL-2.0

//! Moments in four bytes, and the viewer's clock, which may wrap, drift and jump.

/// Reference times have 24 bits of 64 ms.
const WRAP: i64 = (1 << 24) * 64_000;
/// Packets that changed places make time go back by less than this, in µs.
const REORDERED: i64 = 200_000;
/// The way back of reports does not become shorter by this much at once: if it seems to, the clock has jumped.
const JUMPED: i64 = 200_000;
/// What is forgotten in a report of the earliest one, so that drift and other routes do not look like a jump.
const FORGET: i64 = 1_000;

/// A moment in µs on one of the two clocks. It wraps after 71 minutes: only differences mean something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tick(pub(super) u32);

impl Tick {
    /// µs from then to now; negative where `then` is later.
    pub(super) fn since(self, then: Self) -> i32 {
        self.0.wrapping_sub(then.0).cast_signed()
    }
}

/// Where an arrival lies on the viewer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    At(Tick),
    /// The clock was set back: what was known of it means nothing now.
    Reset(Tick),
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct ViewerClock {
    /// The newest arrival as it was told, and without wraps.
    told: Option<i64>,
    newest: i64,
    /// The clock's lead over ours when the earliest report came, so to speak: by the newest arrival in it.
    lead: Option<i64>,
}

impl ViewerClock {
    /// The next arrival, in the order of sending.
    pub(super) fn read(&mut self, at: i64) -> Reading {
        let step = self.told.map_or(0, |told| difference(at, told));
        if (-REORDERED..0).contains(&step) {
            return Reading::At(self.now());
        }
        self.told = Some(at);
        self.newest = self.newest.wrapping_add(step);
        if step < 0 {
            self.lead = None;
            return Reading::Reset(self.now());
        }
        Reading::At(self.now())
    }

    /// The newest arrival.
    pub(super) fn now(&self) -> Tick {
        Tick(self.newest as u32)
    }

    /// A report has been read at our time `now`, in µs. Whether the clock jumped ahead since the last one.
    pub(super) fn jumped(&mut self, now: i64) -> bool {
        let lead = self.newest.wrapping_sub(now);
        let before = self.lead.unwrap_or(lead);
        let jumped = lead.saturating_sub(before) > JUMPED;
        self.lead = Some(lead.max(before.saturating_sub(FORGET)));
        jumped
    }
}

/// The shortest way from one reading to the other around the wrap.
fn difference(at: i64, before: i64) -> i64 {
    let step = at.wrapping_sub(before);
    if (-WRAP / 2..WRAP / 2).contains(&step) {
        return step;
    }
    (step.wrapping_add(WRAP / 2)).rem_euclid(WRAP) - WRAP / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_of_the_reference_time_is_a_step_like_others() {
        let mut clock = ViewerClock::default();
        clock.read(WRAP - 30_000);
        let before = clock.now();
        assert_eq!(clock.read(20_000), Reading::At(clock.now()));
        assert_eq!(clock.now().since(before), 50_000);
        assert!(!clock.jumped(0));
    }

    #[test]
    fn packets_that_changed_places_do_not_turn_time_back() {
        let mut clock = ViewerClock::default();
        clock.read(1_000_000);
        let newest = clock.now();
        assert_eq!(clock.read(999_000), Reading::At(newest));
        assert_eq!(clock.read(1_000_250), Reading::At(clock.now()));
        assert_eq!(clock.now().since(newest), 250);
    }

    #[test]
    fn jumps_are_noticed_and_drift_is_not() {
        let mut clock = ViewerClock::default();
        let mut told = 5_000_000;
        for report in 0..10_000 {
            told += 100_010;
            assert!(matches!(clock.read(told), Reading::At(_)));
            assert!(!clock.jumped(report * 100_000));
        }
        clock.read(told + 600_000);
        assert!(clock.jumped(10_000 * 100_000), "ahead");
        assert!(matches!(clock.read(told), Reading::Reset(_)), "and back");
    }

    #[test]
    fn no_number_is_too_odd() {
        let mut clock = ViewerClock::default();
        for at in [0, i64::MAX, i64::MIN, -1, WRAP, i64::MIN, i64::MAX, 0] {
            clock.read(at);
            clock.jumped(at);
        }
    }
}
