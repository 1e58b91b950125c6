// SPDX-License-Identifier: MPL-2.0

//! Puts together what the arrivals say.

use std::time::{Duration, Instant};

use super::arrivals::Arrivals;
use super::clock::{Reading, Tick, ViewerClock};
use super::collapse;
use super::loss::LossMeter;
use super::meter::Meter;
use super::probe::{Context, Prober};
use super::rate::Rate;
use super::record::{Fate, Records};
use super::standing::{Load, Standing};
use super::{ENTRIES, Estimator, ProbeOrder};
use crate::rtcp::Numbers;
use crate::transport::{Demand, Estimate};

/// How long congestion counts after it was last seen.
const COUNTS_FOR: Duration = Duration::from_secs(1);
/// What gets through is a collapse's doing if it is less than this share of what is sent; otherwise it is a burst's.
const HELD_BACK: f64 = 0.75;
/// A longer queue stands in the way of a train, in µs.
const QUEUED: i32 = 30_000;
/// Reports on packets sent longer ago mean nothing, in µs.
const ANCIENT: i32 = 10_000_000;
/// Reports count as missing after this time. At first the viewer has as long to begin with them.
const SILENCE: Duration = Duration::from_secs(2);
const BEGINNING: Duration = Duration::from_secs(5);
/// A viewer's own estimate holds for so long, where arrivals are reported, too.
const REMB_HOLDS: Duration = Duration::from_secs(5);
/// The estimate does not grow by itself where more than this share is lost.
const LOSS_STOPS: f64 = 0.05;
/// No round trip takes longer.
const LONGEST_TRIP: Duration = Duration::from_secs(5);
/// Receiver reports alone: lost by congestion, lost by what may be congestion, and not lost.
const RR_CONGESTED: f64 = 0.35;
const RR_LOSSY: f64 = 0.10;
const RR_CLEAN: f64 = 0.02;
/// Who is sent less, in bit/s, loses nothing that would tell.
const RR_LEAST: f64 = 20_000.0;

/// An [`Estimator`] that lives by reports of arrivals (TWCC), and makes do with REMB or receiver reports.
#[derive(Debug)]
pub struct ArrivalEstimator {
    /// From here, time is counted in µs.
    zero: Instant,
    records: Records,
    meter: Meter,
    clock: ViewerClock,
    arrivals: Arrivals,
    standing: Standing,
    loss: LossMeter,
    prober: Prober,
    rate: Rate,
    /// There is something to say.
    known: bool,
    /// The rate is what a network is taken to carry at first, and nothing has been learnt since.
    guessed: bool,
    /// There is something to fill trains with.
    can_probe: bool,
    /// When the first packet left.
    began: Option<Instant>,
    /// Reports of arrivals were agreed on.
    expects_arrivals: bool,
    /// More need not be known, in bit/s.
    goal: u64,
    load: Load,
    /// The highest extended number that arrived or is missing.
    highest: u64,
    congested_until: Option<Instant>,
    last_sent: Option<Instant>,
    reported: Option<Instant>,
    remb: Option<(u64, Instant)>,
}

impl ArrivalEstimator {
    /// `first`: what a network is taken to carry before there are reports, in bit/s, where reports are expected.
    pub fn new(now: Instant, first: Option<u64>) -> Self {
        Self {
            zero: now,
            records: Records::new(),
            meter: Meter::default(),
            clock: ViewerClock::default(),
            arrivals: Arrivals::new(),
            standing: Standing::default(),
            loss: LossMeter::default(),
            prober: Prober::new(),
            rate: Rate::new(first.unwrap_or(0)),
            known: first.is_some(),
            guessed: first.is_some(),
            can_probe: true,
            began: None,
            expects_arrivals: first.is_some(),
            goal: 0,
            load: Load::Queued,
            highest: 0,
            congested_until: None,
            last_sent: None,
            reported: None,
            remb: None,
        }
    }

    /// There is no padding to fill trains with: what was guessed is not to be found out.
    #[must_use]
    pub fn without_probes(mut self) -> Self {
        self.can_probe = false;
        self
    }

    /// Bytes that this takes in all.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.records.memory() + self.arrivals.memory()
    }

    fn micros(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.zero);
        passed.as_secs() * 1_000_000 + u64::from(passed.subsec_micros())
    }

    fn tick(&self, now: Instant) -> Tick {
        Tick(self.micros(now) as u32)
    }

    fn is_congested(&self, now: Instant) -> bool {
        self.congested_until.is_some_and(|until| now < until)
    }

    /// Whether the rate is a guess, and it is worth waiting for a better one.
    fn is_sought(&self, now: Instant) -> bool {
        let passed = |at| now.saturating_duration_since(at);
        let begins = self.began.is_none_or(|at| passed(at) < BEGINNING);
        // Before layers have been measured nobody knows what to look for.
        let is_more = self.goal == 0 || self.rate.get() < self.goal as f64;
        self.guessed && self.can_probe && begins && is_more
    }

    fn has_reports(&self, now: Instant) -> bool {
        self.reported
            .is_some_and(|at| now.saturating_duration_since(at) < SILENCE)
    }

    /// Whether arrivals tell what the network carries, or soon will. Otherwise REMB and loss have to.
    fn lives_by_arrivals(&self, now: Instant) -> bool {
        let begins = now.saturating_duration_since(self.zero) < BEGINNING;
        let begins = self.expects_arrivals && self.reported.is_none() && begins;
        begins || self.has_reports(now)
    }

    /// Whether nothing stands in the way of a train.
    fn may_probe(&self, now: Instant) -> bool {
        let within = |at: Instant, time| now.saturating_duration_since(at) < time;
        if self.is_congested(now) {
            return false;
        }
        if self.has_reports(now) {
            let queued = self.standing.length().is_some_and(|l| l > QUEUED);
            return !queued && !self.loss.is_heavy();
        }
        // A viewer that is sent nothing reports nothing.
        let begins = self.reported.is_none() && within(self.zero, BEGINNING);
        begins || self.last_sent.is_none_or(|at| !within(at, SILENCE))
    }

    /// A packet that was sent has arrived. Returns what its delay says, if it ends an interval.
    fn arrived(&mut self, number: u64, sent: Tick, bytes: u16, at: i64) -> Option<Load> {
        let tick = match self.clock.read(at) {
            Reading::At(tick) => tick,
            Reading::Reset(tick) => {
                self.reset();
                tick
            }
        };
        self.loss.received();
        self.prober.reported(number, Some(tick), bytes);
        let delay = self.arrivals.received(sent, tick, bytes);
        self.standing.received(tick, delay)
    }

    /// Delays before and after a jump of the viewer's clock cannot be compared.
    fn reset(&mut self) {
        self.arrivals.reset();
        self.standing = Standing::default();
        self.prober.reset();
        self.load = Load::Queued;
    }

    /// A report has been read. `overload`: it told of one.
    fn conclude(&mut self, now: Instant, overload: bool) {
        self.reported = Some(now);
        self.known = true;
        if self.clock.jumped(self.micros(now).cast_signed()) {
            self.reset();
            return;
        }
        self.arrivals.prune();
        let arrives = self.arrivals.throughput();
        let sent = self.meter.rate(self.tick(now));
        let collapsed = collapse::capacity(self.arrivals.cells()).filter(|&c| c < sent * HELD_BACK);
        let counted = self.loss.count(now);
        if let Some(capacity) = collapsed {
            self.rate.collapsed(capacity);
            self.congested_until = Some(now + COUNTS_FOR);
            self.guessed = false;
        } else if let Some(arrives) = arrives.filter(|a| overload && *a < sent) {
            self.rate.overloaded(arrives);
            self.congested_until = Some(now + COUNTS_FOR);
            self.guessed = false;
        } else if let Some(arrives) = arrives {
            if counted && self.loss.is_heavy() {
                self.rate.lossy(arrives);
            }
            if self.load == Load::Calm {
                let grow = !self.is_congested(now) && self.loss.last() < LOSS_STOPS;
                self.rate
                    .carried(now, arrives, grow.then_some(arrives.min(sent)));
            }
        }
        self.conclude_probe(now, arrives.unwrap_or(0.0));
    }

    fn conclude_probe(&mut self, now: Instant, arrives: f64) {
        let context = Context {
            estimate: self.rate.get(),
            loss: self.loss.last(),
            jitter: Duration::from_micros(self.arrivals.jitter().unsigned_abs().into()),
            may_begin: !self.is_congested(now),
        };
        if let Some(found) = self.prober.conclude(now, self.highest, &context) {
            let arrives = if self.load == Load::Calm {
                arrives
            } else {
                0.0
            };
            // What did not fill a network tells no more than was known.
            let tells = found.limited || found.rate > self.rate.get();
            self.guessed &= found.tentative || !tells;
            self.rate.measured(found, arrives);
        }
    }
}

impl Estimator for ArrivalEstimator {
    fn sent(&mut self, now: Instant, seq: u16, bytes: usize) {
        let at = self.tick(now);
        self.meter.add(at, bytes);
        self.last_sent = Some(now);
        self.began.get_or_insert(now);
        if let Some(number) = self.records.push(at, seq, bytes) {
            self.prober.sent(now, at, number, bytes);
        }
    }

    fn sent_again(&mut self, seq: u16) {
        let Some((_, record)) = self.records.find(seq) else {
            return;
        };
        // So that no report speaks of it any more.
        if std::mem::replace(&mut record.fate, Fate::Arrived) == Fate::UnderWay {
            self.loss.lost();
            self.arrivals.lost(None);
            self.standing.lost();
        }
    }

    fn sent_unnumbered(&mut self, now: Instant, bytes: usize) {
        let at = self.tick(now);
        self.meter.add(at, bytes);
    }

    fn known(&self) -> Numbers {
        self.records.known()
    }

    fn report(
        &mut self,
        now: Instant,
        packets: &mut dyn Iterator<Item = (u16, Option<i64>)>,
    ) -> usize {
        let tick = self.tick(now);
        let (mut news, mut overload) = (false, false);
        let mut taken = 0;
        for (seq, at) in packets.take(ENTRIES) {
            taken += 1;
            let Some((number, record)) = self.records.find(seq) else {
                continue;
            };
            let before = record.fate;
            let (sent, bytes) = (record.sent, record.bytes);
            if tick.since(sent) > ANCIENT || before == Fate::Arrived {
                continue;
            }
            record.fate = if at.is_some() {
                Fate::Arrived
            } else {
                Fate::Missing
            };
            let late = number < self.highest;
            self.highest = self.highest.max(number);
            news = true;
            match (before, at) {
                (Fate::UnderWay, Some(at)) if !late => {
                    if let Some(load) = self.arrived(number, sent, bytes, at) {
                        self.load = load;
                        overload |= load == Load::Overload;
                    }
                }
                (Fate::UnderWay, Some(_)) => self.loss.received(),
                (Fate::Missing, Some(_)) => {
                    self.loss.found();
                    self.arrivals.lost(Some(bytes));
                }
                (Fate::UnderWay, None) => {
                    self.loss.lost();
                    self.arrivals.lost(None);
                    self.standing.lost();
                }
                _ => {}
            }
        }
        if news {
            self.conclude(now, overload);
        }
        taken
    }

    fn remb(&mut self, now: Instant, bits_per_second: u64) {
        self.remb = Some((bits_per_second, now));
        if self.lives_by_arrivals(now) {
            return;
        }
        if self.guessed && self.reported.is_none() {
            // The viewer knows better, in either direction.
            self.known = false;
        }
        if (bits_per_second as f64) < self.meter.rate(self.tick(now)) {
            self.congested_until = Some(now + COUNTS_FOR * 2);
        }
    }

    fn receiver_report(&mut self, now: Instant, loss: f32, rtt: Option<Duration>) {
        self.rate.rtt = rtt.map(|t| t.min(LONGEST_TRIP)).or(self.rate.rtt);
        if self.has_reports(now) || !loss.is_finite() {
            return;
        }
        // Without reports of arrivals, loss is all that there is.
        let loss = f64::from(loss.clamp(0.0, 1.0));
        let sent = self.meter.rate(self.tick(now));
        if sent < RR_LEAST {
            return;
        }
        if loss >= RR_LOSSY {
            let through = sent * (1.0 - loss);
            let before = if self.known { self.rate.get() } else { sent };
            if loss >= RR_CONGESTED {
                self.rate.collapsed(through);
                self.congested_until = Some(now + COUNTS_FOR * 2);
            } else {
                self.rate = Rate::new((before.min(sent) * (1.0 - loss / 2.0)) as u64);
            }
            self.known = true;
            self.guessed = false;
        } else if loss < RR_CLEAN && self.known {
            // What is next is tried once there was no loss for so long: a viewer is not left behind for ever.
            let goal = match self.lives_by_arrivals(now) || self.is_congested(now) {
                true => 0.0,
                false => self.goal as f64,
            };
            self.rate.clean(now, sent, goal);
        }
    }

    fn estimate(&self, now: Instant) -> Option<Estimate> {
        let congested = self.is_congested(now);
        let own = self.known.then(|| self.rate.get() as u64);
        let holds = |at: Instant| now.saturating_duration_since(at) < REMB_HOLDS;
        let by_arrivals = self.reported.is_some() || self.lives_by_arrivals(now);
        let remb = self.remb.filter(|(_, at)| !by_arrivals || holds(*at));
        match (own, remb) {
            // Among reports of arrivals it is a limit that was set, otherwise what the viewer has measured.
            (Some(own), Some((remb, _))) if remb < own => Some((remb, congested || by_arrivals)),
            (Some(own), _) => Some((own, congested)),
            (None, Some((remb, _))) => Some((remb, congested)),
            (None, None) => None,
        }
        .map(|(bits_per_second, congested)| Estimate {
            bits_per_second,
            congested,
            guessed: own == Some(bits_per_second) && self.is_sought(now),
        })
    }

    fn set_demand(&mut self, now: Instant, demand: Demand) {
        self.goal = demand.goal;
        let wanted = demand.probe && self.known && self.rate.get() < demand.goal as f64;
        // A train without numbers tells nothing.
        if wanted && self.expects_arrivals {
            let is_first = self.guessed && self.can_probe;
            self.prober.wish(now, demand.goal, is_first);
            if is_first {
                // What is sent first is a part of the first train.
                let may_begin = self.may_probe(now);
                self.prober.order(now, may_begin);
            }
        }
    }

    fn probe(&mut self, now: Instant) -> ProbeOrder {
        if !self.is_congested(now) {
            self.congested_until = None;
        }
        let may_begin = self.may_probe(now);
        let order = self.prober.order(now, may_begin);
        ProbeOrder {
            next: self.poll_timeout(),
            ..order
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let times = [self.prober.next(), self.congested_until];
        times.into_iter().flatten().min()
    }
}
