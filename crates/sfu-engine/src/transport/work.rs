// SPDX-License-Identifier: MPL-2.0

//! What a peer's datagrams may cost the shard: a price for each kind of work, and a budget for each session.
//!
//! The engine reads no clock, so work is not timed: it is counted, at prices that `cargo bench -p sfu-engine --bench
//! inbound` shows. Only what a peer has proved to be its own is charged: who sends in its name, without its keys, must not
//! use up what it has.

use std::time::{Duration, Instant};

/// Work at its price, in nanoseconds on one core of the machine that `docs/benchmark.md` describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    nanos: u64,
    /// Reports in it that spoke of what was not sent, or is long forgotten.
    beyond: u32,
    /// Packets of a publisher that are authentic and belong nowhere.
    dropped: u32,
    /// SSRCs of a publisher that had to make room for others.
    forgotten: u32,
}

impl Work {
    /// An RTCP datagram: opened, and its session visited.
    pub(crate) const REPORT: Self = Self::of(2_000);
    /// An octet of it.
    pub(crate) const OCTET: Self = Self::of(5);
    /// A packet, or a block, in it.
    pub(crate) const PART: Self = Self::of(10);
    /// The fate of a packet, by transport-wide feedback.
    pub(crate) const ENTRY: Self = Self::of(16);
    /// A number of a NACK: looked at, and looked up. What is sent for it has its own budget.
    pub(crate) const NUMBER: Self = Self::of(2);
    pub(crate) const LOST: Self = Self::of(60);
    /// A request for a keyframe.
    pub(crate) const KEYFRAME: Self = Self::of(1_000);
    /// A connectivity check, with its answer.
    pub(crate) const CHECK: Self = Self::of(15_000);
    /// A record of DTLS while that is at work.
    pub(crate) const RECORD: Self = Self::of(20_000);
    /// A record of data, and the packet in it; and each chunk of that.
    pub(crate) const DATA: Self = Self::of(10_000);
    pub(crate) const DATA_CHUNK: Self = Self::of(1_000);
    /// A packet of a publishing peer, without the fan-out.
    pub(crate) const MEDIA: Self = Self::of(3_000);

    /// What a datagram may be in all, less what comes after its arrivals: a keyframe request.
    const DATAGRAM: u64 = 48_000;

    const fn of(nanos: u64) -> Self {
        Self {
            nanos,
            beyond: 0,
            dropped: 0,
            forgotten: 0,
        }
    }

    /// How many of a kind there is room for beside this, so that a datagram is not more than 50 µs.
    pub(crate) fn room_for(self, kind: Self) -> usize {
        (Self::DATAGRAM.saturating_sub(self.nanos) / kind.nanos.max(1)) as usize
    }

    /// So many of the same.
    pub(crate) fn times(self, count: usize) -> Self {
        Self {
            nanos: self.nanos.saturating_mul(count as u64),
            ..self
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.nanos = self.nanos.saturating_add(other.nanos);
        self.beyond = self.beyond.saturating_add(other.beyond);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.forgotten = self.forgotten.saturating_add(other.forgotten);
    }

    /// A report spoke of more than there was.
    pub(crate) fn note_beyond(&mut self) {
        self.beyond = self.beyond.saturating_add(1);
    }

    /// Reports that spoke of what was not sent, or is long forgotten.
    pub fn beyond(self) -> u32 {
        self.beyond
    }

    /// A publisher's packet belongs nowhere, or is RED that can't be read.
    pub(crate) fn note_dropped(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }

    /// Packets of a publisher that are authentic and belong nowhere.
    pub fn dropped(self) -> u32 {
        self.dropped
    }

    /// An SSRC of a publisher made room for another one.
    pub(crate) fn note_forgotten(&mut self) {
        self.forgotten = self.forgotten.saturating_add(1);
    }

    /// The same, of which nothing is left to be charged.
    pub(crate) fn paid(self) -> Self {
        Self { nanos: 0, ..self }
    }

    /// SSRCs of a publisher that had to make room for others.
    pub fn forgotten(self) -> u32 {
        self.forgotten
    }

    /// What it costs, in nanoseconds.
    pub fn nanos(self) -> u64 {
        self.nanos
    }
}

/// The bucket is filled in steps, so that nothing is lost by rounding.
const STEP: Duration = Duration::from_millis(1);
/// After this time it is full whatever was in it.
const LONGEST: Duration = Duration::from_secs(60);

/// A token bucket of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// What is left may be less than nothing: what a datagram costs is known when it has been read.
    left: i64,
    since: Instant,
    limit: Limit,
}

/// How much work is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Of each second, how much.
    share: Duration,
    /// That may be saved up.
    burst: Duration,
}

/// What a viewer's reports and checks may cost: 0.2 % of a core. One of 20 Mbit/s that loses a tenth, and reports each
/// 50 ms, takes a tenth of it; the checks of eight interfaces while they connect, a sixth of the burst.
pub(crate) const VIEWER: Limit = Limit {
    share: Duration::from_millis(2),
    burst: Duration::from_millis(20),
};
/// What a publishing peer's media may cost: a twentieth of a core, 16,000 packets a second.
pub(crate) const PUBLISHER: Limit = Limit {
    share: Duration::from_millis(50),
    burst: Duration::from_millis(100),
};
/// What all else of a publishing peer may cost: 1 % of a core.
pub(crate) const PUBLISHER_CONTROL: Limit = Limit {
    share: Duration::from_millis(10),
    burst: Duration::from_millis(40),
};
/// What all but media of a peer may cost that publishes and watches over one connection: as much as both.
pub(crate) const DUPLEX_CONTROL: Limit = Limit {
    share: Duration::from_millis(12),
    burst: Duration::from_millis(60),
};
/// What a peer's data channels may cost: 2 % of a core, some 1,800 packets a second.
pub(crate) const DATA: Limit = Limit {
    share: Duration::from_millis(20),
    burst: Duration::from_millis(200),
};

impl Allowance {
    pub(crate) fn new(now: Instant, limit: Limit) -> Self {
        Self {
            left: nanos(limit.burst),
            since: now,
            limit,
        }
    }

    /// Whether there is nothing left.
    pub(crate) fn is_spent(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        if passed >= STEP {
            self.since = now;
            // Longer pauses fill it all the same, and must not overflow.
            let passed = nanos(passed.min(LONGEST));
            let earned = passed / 1_000 * nanos(self.limit.share) / 1_000_000;
            self.left = (self.left + earned).min(nanos(self.limit.burst));
        }
        self.left <= 0
    }

    pub(crate) fn spend(&mut self, work: Work) {
        let price = i64::try_from(work.nanos).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(price);
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// So many of each in a second.
    fn price(parts: &[(Work, usize)]) -> Duration {
        let mut all = Work::default();
        for (work, count) in parts {
            all.add(work.times(*count));
        }
        Duration::from_nanos(all.nanos())
    }

    #[test]
    fn who_behaves_well_has_twice_what_is_needed() {
        // 2,500 packets a second, arrivals each 50 ms, a tenth lost and asked for twice each 20 ms, PLI, checks, reports.
        let viewer = [
            (Work::REPORT, 20 + 50 + 10),
            (Work::OCTET, 80 * 200),
            (Work::PART, 200),
            (Work::ENTRY, 2_500),
            (Work::NUMBER, 1_000),
            (Work::LOST, 500),
            (Work::KEYFRAME, 5),
            (Work::CHECK, 10),
        ];
        assert!(price(&viewer) < VIEWER.share / 2, "{:?}", price(&viewer));
        // Eight interfaces, two addresses of ours, each pair seven times in the first second (RFC 8489, section 6.2.1).
        let joins = [(Work::CHECK, 8 * 2 * 7), (Work::RECORD, 20)];
        assert!(price(&joins) < VIEWER.burst, "{:?}", price(&joins));
        // Three layers of 20 Mbit/s in all, with retransmissions.
        let publisher = [(Work::MEDIA, 3_000)];
        assert!(price(&publisher) < PUBLISHER.share / 2);
        // Sender reports and descriptions of three layers, their retransmissions and sound, each of its own.
        let control = [
            (Work::REPORT, 35),
            (Work::OCTET, 35 * 100),
            (Work::PART, 70),
            (Work::CHECK, 50),
        ];
        assert!(price(&control) < PUBLISHER_CONTROL.share / 2);
        let joins = [(Work::CHECK, 8 * 2 * 7), (Work::RECORD, 20)];
        assert!(price(&joins) < PUBLISHER_CONTROL.burst);
    }

    #[test]
    fn pauses_of_any_length_fill_the_bucket_and_no_more() {
        for (pause, filled) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_micros(999), Duration::ZERO),
            (Duration::from_millis(1), Duration::from_micros(2)),
            (SECOND, VIEWER.share),
            (Duration::from_secs(1 << 40), VIEWER.burst),
        ] {
            let now = Instant::now();
            let mut allowance = Allowance::new(now, VIEWER);
            allowance.spend(Work::of(20_000_000));
            assert!(allowance.is_spent(now));
            let later = now + pause;
            assert_eq!(allowance.is_spent(later), filled.is_zero(), "{pause:?}");
            assert_eq!(allowance.left, nanos(filled), "{pause:?}");
            // Time that goes back gives nothing.
            let _ = allowance.is_spent(now);
            assert_eq!(allowance.left, nanos(filled), "{pause:?}");
        }
    }

    /// Beside the most numbers of a NACK, and what a datagram is by its length, there is room for arrivals.
    #[test]
    fn no_datagram_is_dear() {
        let of_octets = |kinds: &[(Work, usize)]| {
            let mut work = Work::REPORT;
            work.add(Work::OCTET.times(1_452));
            for (kind, count) in kinds {
                work.add(kind.times(*count));
            }
            work
        };
        let packets = of_octets(&[(Work::PART, 363)]);
        assert!(packets.room_for(Work::ENTRY) >= 2_048);
        let nack = of_octets(&[(Work::NUMBER, 360 * 17), (Work::LOST, 400)]);
        assert!(nack.nanos() <= Work::DATAGRAM, "{nack:?}");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_share_is_spent(
            steps in vec((0..3_000_000u64, 0..60_000u64), 1..2_000),
        ) {
            let start = Instant::now();
            let (mut now, mut spent, mut dearest) = (start, 0, 0);
            let mut allowance = Allowance::new(now, VIEWER);
            for (wait, price) in steps {
                now += Duration::from_nanos(wait);
                if !allowance.is_spent(now) {
                    allowance.spend(Work::of(price));
                    spent += price;
                    dearest = dearest.max(price);
                }
                let share = (now - start).as_secs_f64() * VIEWER.share.as_nanos() as f64;
                let most = VIEWER.burst.as_nanos() as f64 + share + dearest as f64;
                prop_assert!(spent as f64 <= most, "{spent} of {most}");
            }
        }
    }
}
