// SPDX-License-Identifier: MPL-2.0

//! When which packet of a peer arrived, by transport-wide numbers, until that is reported (TWCC,
//! draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::time::{Duration, Instant};

use crate::rtcp::TwccWriter;

/// Between two reports, as long as something has come. libwebrtc's own are 50 to 250 ms apart.
pub(super) const EVERY: Duration = Duration::from_millis(50);
/// The least between two, whatever comes.
const AT_LEAST: Duration = Duration::from_millis(10);
/// Numbers that are remembered: what a peer of 50 Mbit/s sends in 0.2 s. A power of two.
const REMEMBERED: u64 = 1_024;
/// Where so many wait, they are reported sooner.
const FULL: u64 = TwccWriter::AT_ONCE as u64;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Arrivals {
    start: Instant,
    /// Extended numbers and times of arrival in µs, by the numbers' lowest bits. Empty until the first one.
    places: Vec<(u64, i64)>,
    newest: u64,
    /// The first that was not reported.
    next: u64,
    due: Option<Instant>,
    reported: Instant,
    writer: TwccWriter,
}

impl Arrivals {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            places: Vec::new(),
            newest: 0,
            next: 0,
            due: None,
            reported: start,
            writer: TwccWriter::default(),
        }
    }

    /// A packet with this number has come.
    pub(super) fn came(&mut self, now: Instant, number: u16) {
        if self.places.is_empty() {
            self.places.resize(REMEMBERED as usize, (0, 0));
            // One turn up, so that what comes late does not fall below zero.
            self.newest = 1 << 16 | u64::from(number);
            self.next = self.newest;
        }
        let step = number.wrapping_sub(self.newest as u16).cast_signed();
        let number = self.newest.saturating_add_signed(step.into());
        if self.newest.saturating_sub(number) >= REMEMBERED {
            return;
        }
        self.newest = self.newest.max(number);
        // What comes late is reported, and all after it once more.
        self.next = self
            .next
            .min(number)
            .max((self.newest + 1).saturating_sub(REMEMBERED));
        let time = now.saturating_duration_since(self.start).as_micros() as i64;
        self.places[place(number)] = (number, time);
        let due = match self.waiting() >= FULL {
            true => now.max(self.reported + AT_LEAST),
            false => now + EVERY,
        };
        self.due = Some(self.due.map_or(due, |first| first.min(due)));
    }

    fn waiting(&self) -> u64 {
        self.newest + 1 - self.next
    }

    /// When to [`report`](Self::report).
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Appends a report of what has come and was not reported.
    pub(super) fn report(&mut self, now: Instant, buffer: &mut Vec<u8>, sender: u32, media: u32) {
        let places = &self.places;
        let arrived = |number: u64| {
            let (known, time) = *places.get(place(number))?;
            (known == number).then_some(time)
        };
        // What is lost is told when something behind it has come.
        let arrivals = (self.next..=self.newest).map(arrived);
        let base = self.next as u16;
        let count = self.writer.write(buffer, sender, media, base, arrivals);
        self.next += count as u64;
        self.reported = now;
        self.due = (self.next <= self.newest).then_some(now + AT_LEAST);
    }
}

fn place(number: u64) -> usize {
    (number & (REMEMBERED - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{Numbers, Rtcp, packets};

    const MS: Duration = Duration::from_millis(1);

    /// What a report says: numbers, and whether they came.
    fn told(arrivals: &mut Arrivals, now: Instant) -> Vec<(u16, bool)> {
        let mut buffer = Vec::new();
        arrivals.report(now, &mut buffer, 1, 2);
        assert!(buffer.len() < 1_000);
        let Some(Ok(Rtcp::Twcc(report))) = packets(&buffer).next() else {
            panic!("no report");
        };
        let all = Numbers {
            first: report.base_sequence(),
            count: report.status_count(),
        };
        report
            .packets(all)
            .map(|(n, at)| (n, at.is_some()))
            .collect()
    }

    #[test]
    fn each_packet_is_reported_and_what_comes_late_once_more() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        for number in [65_534, 65_535, 1] {
            arrivals.came(start, number);
        }
        assert_eq!(arrivals.due(), Some(start + EVERY));
        let now = start + EVERY;
        assert_eq!(
            told(&mut arrivals, now),
            [(65_534, true), (65_535, true), (0, false), (1, true)]
        );
        assert_eq!(arrivals.due(), None);
        arrivals.came(now, 0);
        arrivals.came(now + MS, 2);
        assert_eq!(
            told(&mut arrivals, now + EVERY),
            [(0, true), (1, true), (2, true)]
        );
    }

    #[test]
    fn a_report_has_a_limit_whatever_comes() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let mut seed = 1u32;
        let (mut reports, mut statuses) = (0, 0);
        for n in 0..200_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let now = start + Duration::from_micros(u64::from(n));
            arrivals.came(now, (seed >> 16) as u16);
            if arrivals.due().is_some_and(|due| due <= now) {
                reports += 1;
                statuses += told(&mut arrivals, now).len();
            }
        }
        assert!(
            reports <= 21 && statuses <= reports * TwccWriter::AT_ONCE,
            "{reports}"
        );
        assert_eq!(arrivals.places.len(), REMEMBERED as usize);
    }
}
