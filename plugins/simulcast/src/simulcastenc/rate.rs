// SPDX-License-Identifier: MPL-2.0

//! Which frames a layer leaves out, so that it has no more a second than were asked for.

/// Chooses frames by their time alone.
#[derive(Debug, Default)]
pub(super) struct Thinner {
    /// Between two frames, in nanoseconds; 0 takes all.
    interval: u64,
    /// When the next one is due.
    due: u64,
    /// Whose first frame all layers have in common.
    slot: Option<u64>,
}

impl Thinner {
    pub(super) fn set(&mut self, rate: Option<gst::Fraction>) {
        let interval = |rate: gst::Fraction| {
            let (numerator, denominator) = (rate.numer().max(1), rate.denom().max(1));
            1_000_000_000 * denominator as u64 / numerator as u64
        };
        self.interval = rate.map_or(0, interval);
        self.slot = None;
    }

    /// Time begins anew.
    pub(super) fn flush(&mut self) {
        (self.due, self.slot) = (0, None);
    }

    /// Whether the frame of this time is kept. The first one of each `slot`, where keyframes are forced, always is.
    pub(super) fn keeps(&mut self, time: gst::ClockTime, slot: u64) -> bool {
        if self.interval == 0 {
            return true;
        }
        let time = time.nseconds();
        let begins = self.slot.replace(slot) != Some(slot);
        // Times of live sources tremble.
        let early = self.interval * 2 / 5;
        let behind = time.saturating_add(2 * self.interval) < self.due;
        if !begins && !behind && time.saturating_add(early) < self.due {
            return false;
        }
        let late = time > self.due.saturating_add(self.interval);
        let from = if begins || behind || late {
            time
        } else {
            self.due
        };
        self.due = from.saturating_add(self.interval);
        true
    }
}

/// The rate that a layer's caps have: never more than the source's.
pub(super) fn limited(source: gst::Fraction, rate: Option<gst::Fraction>) -> gst::Fraction {
    match rate {
        Some(rate) if source.numer() == 0 || rate < source => rate,
        _ => source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_frames_a_second_are_kept_evenly_and_those_of_keyframes_always() {
        const SLOT: u64 = 2_000_000_000;
        let fraction = gst::Fraction::new;
        for source in [
            fraction(60, 1),
            fraction(60_000, 1_001),
            fraction(50, 1),
            fraction(30, 1),
            fraction(30_000, 1_001),
            fraction(25, 1),
            fraction(24, 1),
            fraction(5, 1),
        ] {
            for rate in [
                fraction(60, 1),
                fraction(50, 1),
                fraction(30, 1),
                fraction(30_000, 1_001),
                fraction(25, 1),
                fraction(15, 1),
                fraction(10, 1),
                fraction(1, 1),
                fraction(25, 2),
            ] {
                for tremble in [0, 3] {
                    let value = |f: gst::Fraction| f64::from(f.numer()) / f64::from(f.denom());
                    let mut thinner = Thinner::default();
                    thinner.set(Some(rate));
                    let count = (value(source) * 20.0) as u64;
                    let mut kept = 0;
                    let mut slots = 0;
                    let mut last_slot = None;
                    for n in 0..count {
                        let at = n * 1_000_000_000 * source.denom() as u64 / source.numer() as u64;
                        let at = at + (n % 3) * tremble * 1_000_000;
                        let slot = at / SLOT;
                        let keeps = thinner.keeps(gst::ClockTime::from_nseconds(at), slot);
                        if last_slot.replace(slot) != Some(slot) {
                            slots += 1;
                            assert!(keeps, "{source} to {rate}: the first of slot {slot}");
                        }
                        kept += u64::from(keeps);
                    }
                    let wanted = value(source).min(value(rate)) * 20.0;
                    let more = kept as f64 - wanted;
                    // A slot's first frame may come early.
                    assert!(
                        more <= f64::from(slots) + 1.0 && more >= -wanted * 0.03 - 1.0,
                        "{source} to {rate}, {tremble} ms: {kept} of {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn time_that_steps_back_goes_on_at_once() {
        let mut thinner = Thinner::default();
        thinner.set(Some(gst::Fraction::new(10, 1)));
        assert!(thinner.keeps(gst::ClockTime::from_seconds(100), 50));
        assert!(thinner.keeps(gst::ClockTime::from_seconds(1), 50));
        assert!(!thinner.keeps(gst::ClockTime::from_mseconds(1_050), 50));
        assert!(thinner.keeps(gst::ClockTime::from_mseconds(1_100), 50));
    }
}
