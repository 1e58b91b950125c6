// SPDX-License-Identifier: MPL-2.0

//! When somebody who makes all offers itself is asked for one: not for each change, and ever more seldom where there are many.

use std::time::{Duration, Instant};

/// Who was asked for m-lines and has not offered them is asked again so much later: an offer of before may have been on its way.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// Who makes all offers is asked so much later: what is published seldom comes alone.
pub(super) const TOGETHER: Duration = Duration::from_millis(50);
/// Who is asked again and again is asked twice as seldom each time, down to once in so long, until there was quiet for a while: each
/// question costs it an offer, and a single publisher that comes and goes brings one about for everybody. Not tuned.
const SELDOM: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When it was asked for an offer that has not come yet.
    asked: Option<Instant>,
    /// When it was asked last, answered or not, and how long after that it is not asked again.
    last: Option<Instant>,
    gap: Duration,
}

impl Pace {
    /// It is asked.
    pub(super) fn ask(&mut self, now: Instant) {
        let follows = self.last.is_some_and(|last| now < last + QUIET);
        self.gap = match follows {
            true => (2 * self.gap).min(SELDOM),
            false => TOGETHER,
        };
        self.last = Some(now);
        self.asked = Some(now);
    }

    /// When it may be asked what is due then. Its answer to the last question comes first.
    pub(super) fn may_be_asked(&self, due: Instant) -> Instant {
        let again = self.asked.map(|asked| asked + AGAIN);
        let rested = self.last.map(|last| last + self.gap);
        again.into_iter().chain(rested).fold(due, Instant::max)
    }

    /// It has offered what it was asked for, or is not to any more.
    pub(super) fn answered(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{TrackSource, TrackType};

    use super::super::Offering;
    use super::super::ours::LINGER;
    use super::*;
    use crate::sid::Sid;

    /// Of one who publishes and stops eight times a second, and of one who does so now and then.
    #[test]
    fn who_toggles_makes_others_offer_ever_more_seldom() {
        for (period, time, least, most) in [
            (Duration::from_millis(125), 60, 30, 40),
            (QUIET + LINGER, 60, 11, 12),
        ] {
            let mut now = Instant::now();
            let end = now + Duration::from_secs(time);
            let mut offering = Offering::new(true);
            offering.wanted().unwrap();
            offering.conversed(now, &[], [3, 3]);
            let mut offers = 0;
            while now < end {
                let track = Sid::track(TrackSource::Camera);
                offering.add(now, TrackType::Video, track.clone(), Sid::participant());
                let toggled = now + period;
                while now < toggled {
                    if offering.require(now).is_some() {
                        offers += 1;
                        let wanted = offering.wanted().unwrap().len();
                        let mids: Vec<_> = (0..wanted).map(|n| Some(n.to_string())).collect();
                        offering.conversed(now, &mids, [3, 3 - wanted]);
                    }
                    now += Duration::from_millis(25);
                }
                offering.remove(now, &track);
            }
            assert!(
                (least..=most).contains(&offers),
                "{offers} in {time} s, each {period:?}"
            );
            // What is there in the end is told.
            offering.add(
                now,
                TrackType::Video,
                Sid::track(TrackSource::Camera),
                Sid::participant(),
            );
            assert!(offering.due().is_some_and(|due| due <= now + SELDOM));
        }
    }
}
