// SPDX-License-Identifier: MPL-2.0

//! Whether keyframes come often enough for viewers who join: an infinite group of pictures and intra refresh have none after
//! the first one.

/// A group of pictures with more is not replayed to who joins (the engine's `gop`).
const LONG: u32 = 300;
const LONG_AGE: gst::ClockTime = gst::ClockTime::from_seconds(10);
/// An encoder that makes keyframes when it is asked has made one by then: in time, or in pictures that have none.
const ANSWERS: gst::ClockTime = gst::ClockTime::from_seconds(2);
const ANSWERS_IN: u32 = 120;
/// No two pictures are further apart, but that time stepped or nothing came.
const STEP: gst::ClockTime = gst::ClockTime::from_seconds(1);
/// So many short groups of pictures one after the other are what an encoder makes by itself.
const OFTEN: u32 = 3;

/// What a picture says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyframes {
    Often,
    /// It has been long: ask upstream for one, now.
    Ask,
    /// Not even when asked.
    Seldom,
}

/// Counts the pictures from one keyframe to the next.
#[derive(Debug, Default)]
pub(super) struct Groups {
    last: Option<gst::ClockTime>,
    pictures: u32,
    age: gst::ClockTime,
    /// When a keyframe was asked for.
    asked: Option<(u32, gst::ClockTime)>,
    seldom: bool,
    short: u32,
}

impl Groups {
    pub(super) fn picture(&mut self, time: Option<gst::ClockTime>, keyframe: bool) -> Keyframes {
        let last = std::mem::replace(&mut self.last, time);
        if keyframe {
            self.begin();
        } else {
            let step = time.zip(last).and_then(|(now, last)| now.checked_sub(last));
            self.age += step.unwrap_or_default().min(STEP);
            self.pictures = self.pictures.saturating_add(1);
        }
        self.says()
    }

    fn begin(&mut self) {
        let short = self.asked.take().is_none();
        self.short = if short {
            self.short.saturating_add(1)
        } else {
            0
        };
        self.seldom &= self.short < OFTEN;
        self.pictures = 1;
        self.age = gst::ClockTime::ZERO;
    }

    fn says(&mut self) -> Keyframes {
        match self.asked {
            None if self.pictures > LONG || self.age > LONG_AGE => {
                self.asked = Some((self.pictures, self.age));
                return Keyframes::Ask;
            }
            Some((pictures, age)) => {
                let without_times = age.is_zero() && self.pictures > pictures + ANSWERS_IN;
                self.seldom |= without_times || self.age > age + ANSWERS;
            }
            None => {}
        }
        match self.seldom {
            true => Keyframes::Seldom,
            false => Keyframes::Often,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of so many pictures at so many a second, as they come: what was said, and at which picture first.
    fn said(groups: &[usize], rate: Option<u64>) -> Vec<(Keyframes, usize)> {
        let mut watch = Groups::default();
        let keyframes = groups.iter().scan(0, |at, n| {
            let begins = *at;
            *at += n;
            Some(begins)
        });
        let keyframes: Vec<usize> = keyframes.collect();
        let all = (0..groups.iter().sum::<usize>()).map(|n| {
            let time =
                rate.map(|rate| gst::ClockTime::from_nseconds(n as u64 * 1_000_000_000 / rate));
            (watch.picture(time, keyframes.contains(&n)), n)
        });
        let mut said: Vec<(Keyframes, usize)> = all.collect();
        said.dedup_by_key(|(says, _)| *says);
        said
    }

    #[test]
    fn who_makes_keyframes_by_itself_or_when_asked_is_left_alone() {
        use Keyframes::{Ask, Often, Seldom};
        let often = vec![(Often, 0)];
        assert_eq!(said(&[60; 20], Some(30)), often, "each two seconds");
        assert_eq!(said(&[250; 3], Some(25)), often, "x264's default");
        let film = said(&[250; 3], Some(24));
        assert!(
            !film.iter().any(|(says, _)| *says == Seldom),
            "a film's: {film:?}"
        );
        let asked = vec![(Often, 0), (Ask, 300), (Often, 301)];
        assert_eq!(said(&[310, 300], Some(60)), asked, "by pictures");
        let asked = vec![(Often, 0), (Ask, 151), (Often, 152)];
        assert_eq!(said(&[160, 100], Some(15)), asked, "by time");
        let never = vec![(Often, 0), (Ask, 300), (Often, 301), (Seldom, 421)];
        assert_eq!(said(&[9_999], Some(60)), never, "infinite");
        let never = vec![(Often, 0), (Ask, 51), (Often, 52), (Seldom, 62)];
        assert_eq!(said(&[250], Some(5)), never, "slow");
        let never = vec![(Often, 0), (Ask, 300), (Often, 301), (Seldom, 421)];
        assert_eq!(said(&[9_999], None), never, "without times");
    }

    #[test]
    fn keyframes_that_come_often_again_are_noticed() {
        let said = said(&[500, 250, 100, 100, 100, 100], Some(30));
        assert_eq!(
            said.last().unwrap(),
            &(Keyframes::Often, 500 + 250 + 100 + 100)
        );
    }

    #[test]
    fn steps_of_time_make_no_long_group() {
        let mut watch = Groups::default();
        for n in 0..299 {
            let hours = gst::ClockTime::from_seconds(3_600 * (n / 100));
            let time = hours + gst::ClockTime::from_mseconds(n * 20);
            assert_eq!(watch.picture(Some(time), n == 0), Keyframes::Often, "{n}");
        }
    }
}
