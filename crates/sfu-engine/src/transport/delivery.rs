// SPDX-License-Identifier: MPL-2.0

//! Sees a network's collapse at once: packets that arrive much more slowly than they were sent, or not at all.
//!
//! A congestion controller smooths, and takes seconds from 5 Mbit/s to 600 kbit/s; a layer that no longer fits must end
//! sooner. From the same reports (TWCC, draft-holmer-rmcat-transport-wide-cc-extensions-01) this reads the rate at which
//! a queue that is building up lets packets through: while it does, that is the network's capacity. Called by the
//! session's transport; sans-IO.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Arrivals that are looked at.
const WINDOW: Duration = Duration::from_millis(400);
/// A rate over less time than this says nothing.
const SPAN: Duration = Duration::from_millis(100);
/// A queue that has grown by less may be jitter.
const GROWTH: Duration = Duration::from_millis(80);
/// Delays that differ by less are the same.
const FLAT: Duration = Duration::from_millis(10);
/// Packets must arrive at less than this share of the rate at which they were sent.
const SLOWER: f64 = 0.7;
/// More than this share is lost by congestion only; counted over at least so many packets.
const LOST: f64 = 0.35;
const LOST_OF: usize = 20;
/// How long a collapse counts after it was last seen.
const COUNTS_FOR: Duration = Duration::from_secs(1);
/// Sent packets that no report has spoken of are forgotten.
const FORGET: Duration = Duration::from_secs(4);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Delivery {
    /// A moment in both clocks: the receiver's arrival times count from here.
    zero: Instant,
    sent: VecDeque<Sent>,
    arrivals: VecDeque<Arrival>,
    capacity: Option<(u64, Instant)>,
    carried: Option<(u64, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    at: Instant,
    bytes: u32,
}

/// A packet that a report spoke of.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    sent: Instant,
    /// On the receiver's clock. A lost packet has that of the one before it.
    at: Instant,
    bytes: u32,
    lost: bool,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            zero: now,
            sent: VecDeque::new(),
            arrivals: VecDeque::new(),
            capacity: None,
            carried: None,
        }
    }

    /// Where the receiver's clock begins.
    pub(super) fn zero(&self) -> Instant {
        self.zero
    }

    /// The extended number of the newest packet.
    pub(super) fn newest(&self) -> u64 {
        self.sent.back().map_or(0, |s| s.seq)
    }

    /// A packet left under this transport-wide number.
    pub(super) fn sent(&mut self, now: Instant, seq: u16, bytes: usize) {
        let newest = self.newest();
        let step = seq.wrapping_sub(newest as u16) as i16;
        let seq = newest.saturating_add_signed(i64::from(step));
        while self
            .sent
            .front()
            .is_some_and(|s| now.saturating_duration_since(s.at) > FORGET)
        {
            self.sent.pop_front();
        }
        if self.sent.back().is_none_or(|s| s.seq < seq) {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.sent.push_back(Sent {
                seq,
                at: now,
                bytes,
            });
        }
    }

    /// A report came: when each packet arrived, if it did.
    pub(super) fn report(
        &mut self,
        now: Instant,
        packets: impl Iterator<Item = (u64, Option<Instant>)>,
    ) {
        for (seq, at) in packets {
            let Ok(index) = self.sent.binary_search_by_key(&seq, |s| s.seq) else {
                continue;
            };
            let sent = self.sent[index];
            let before = self.arrivals.back().map(|a| a.at);
            let (Some(time), lost) = (at.or(before), at.is_none()) else {
                continue;
            };
            // Reordered packets would make time go back.
            let time = before.map_or(time, |b| time.max(b));
            self.arrivals.push_back(Arrival {
                sent: sent.at,
                at: time,
                bytes: sent.bytes,
                lost,
            });
        }
        let Some(newest) = self.arrivals.back().map(|a| a.at) else {
            return;
        };
        while self
            .arrivals
            .front()
            .is_some_and(|a| newest.saturating_duration_since(a.at) > WINDOW)
        {
            self.arrivals.pop_front();
        }
        if let Some(rate) = self.slowed().or_else(|| self.lossy()) {
            self.capacity = Some((rate, now));
        } else if let Some(rate) = self.unhindered() {
            self.carried = Some((rate, now));
        }
    }

    /// What the network lets through while it is overwhelmed, in bit/s.
    pub(super) fn capacity(&self, now: Instant) -> Option<u64> {
        let (rate, at) = self.capacity?;
        (now.saturating_duration_since(at) < COUNTS_FOR).then_some(rate)
    }

    /// What arrived lately without being held up, in bit/s: the network carries at least that.
    pub(super) fn carried(&self, now: Instant) -> Option<u64> {
        let (rate, at) = self.carried?;
        (now.saturating_duration_since(at) < COUNTS_FOR).then_some(rate)
    }

    fn unhindered(&self) -> Option<u64> {
        let received = || self.arrivals.iter().filter(|a| !a.lost);
        let (first, last) = (received().next()?, received().next_back()?);
        let span = last.at.saturating_duration_since(first.at);
        let shortest = received().map(|a| self.delay(a)).min()?;
        let calm = self.delay(last).saturating_sub(shortest) < GROWTH / 2;
        let bytes: u64 = received().skip(1).map(|a| u64::from(a.bytes)).sum();
        (calm && span >= WINDOW / 2).then(|| rate(bytes, span))
    }

    /// A queue builds up: packets arrive more slowly than they were sent, from the shortest delay on.
    fn slowed(&self) -> Option<u64> {
        let received = || self.arrivals.iter().filter(|a| !a.lost);
        let shortest = received().map(|a| self.delay(a)).min()?;
        let first = received().rfind(|a| self.delay(a) <= shortest + FLAT)?;
        let last = received().next_back()?;
        let growth = self.delay(last).saturating_sub(self.delay(first));
        let span = last.at.saturating_duration_since(first.at);
        if growth < GROWTH || span < SPAN {
            return None;
        }
        let sent_in = last.sent.saturating_duration_since(first.sent);
        let bytes: u64 = received()
            .skip_while(|a| a.at <= first.at)
            .map(|a| u64::from(a.bytes))
            .sum();
        let slower = sent_in.as_secs_f64() < span.as_secs_f64() * SLOWER;
        // A queue lets packets through one by one; after a stall, theirs or ours, they come all at once.
        let since = || received().skip_while(|a| a.at < first.at);
        let gaps = since().zip(since().skip(1)).map(|(a, b)| b.at - a.at);
        let steady = gaps.max().unwrap_or(span) * 2 < span;
        (slower && steady).then(|| rate(bytes, span))
    }

    fn lossy(&self) -> Option<u64> {
        let lost = self.arrivals.iter().filter(|a| a.lost).count();
        let (first, last) = (self.arrivals.front()?, self.arrivals.back()?);
        let span = last.at.saturating_duration_since(first.at);
        let share = lost as f64 / self.arrivals.len() as f64;
        if self.arrivals.len() < LOST_OF || share < LOST || span < SPAN {
            return None;
        }
        let received = self.arrivals.iter().filter(|a| !a.lost).skip(1);
        Some(rate(received.map(|a| u64::from(a.bytes)).sum(), span))
    }

    /// Comparable with other delays only: the clocks have no common zero.
    fn delay(&self, arrival: &Arrival) -> Duration {
        // Ahead by an hour, so that it is never negative.
        (arrival.at + Duration::from_secs(3_600)).saturating_duration_since(arrival.sent)
    }
}

fn rate(bytes: u64, span: Duration) -> u64 {
    (bytes as f64 * 8.0 / span.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Packets of 1,000 bytes, one each millisecond, reported every 50 ms; `arrival` tells when each arrives.
    fn run(count: u64, arrival: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        let mut reported = 0;
        for n in 0..count {
            let now = start + MS * n as u32;
            delivery.sent(now, (n as u16).wrapping_add(65_000), 1_000);
            if n % 50 != 49 {
                continue;
            }
            let first = delivery.newest() - n;
            let due: Vec<_> = (reported..=n)
                .take_while(|&m| arrival(m).is_none_or(|at| at <= n))
                .map(|m| (first + m, arrival(m).map(|at| start + MS * at as u32)))
                .collect();
            reported += due.len() as u64;
            delivery.report(now, due.into_iter());
        }
        delivery.capacity(start + MS * count as u32)
    }

    #[test]
    fn a_steady_network_has_no_verdict() {
        assert_eq!(run(2_000, |n| Some(n + 30)), None);
        assert_eq!(run(2_000, |n| Some(n + 30 + n % 7 * 5)), None, "jitter");
        let lossy = |n: u64| (!n.is_multiple_of(10)).then_some(n + 30);
        assert_eq!(run(2_000, lossy), None, "a tenth is lost");
    }

    #[test]
    fn a_queue_that_builds_up_tells_the_rate_in_a_quarter_of_a_second() {
        let quarter = |n: u64| {
            Some(if n < 1_000 {
                n + 20
            } else {
                1_020 + (n - 1_000) * 4
            })
        };
        assert_eq!(run(1_050, quarter), None, "too early to tell");
        let rate = run(1_250, quarter).unwrap();
        assert!((1_900_000..2_200_000).contains(&rate), "{rate}");
    }

    #[test]
    fn heavy_loss_tells_the_rate() {
        let two_thirds = |n: u64| (n < 1_000 || n.is_multiple_of(3)).then_some(n + 20);
        let rate = run(1_500, two_thirds).unwrap();
        assert!((2_300_000..3_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_short_stall_is_no_collapse() {
        let stall = |n: u64| {
            Some(if (1_000..1_070).contains(&n) {
                1_075
            } else {
                n + 5
            })
        };
        assert_eq!(run(1_500, stall), None);
    }
}
