// SPDX-License-Identifier: MPL-2.0

//! Trains of packets that find out whether the network carries what is wished for.
//!
//! For some time, media and padding together leave at the rate in question; the lesser of the rates at which the train
//! left and arrived is what the network carries at least. A short train goes first: where it comes nowhere near, it
//! has done little harm, and is the answer. Otherwise a longer one, which jitter and the allowance of a rate limiter
//! falsify less, tells the figure.

use std::time::{Duration, Instant};

use super::ProbeOrder;
use super::arrivals::rate;
use super::clock::Tick;

/// A train leaves at this many times the goal, so that a link that carries the goal is seen to.
const ABOVE_GOAL: f64 = 1.15;
/// No train is faster, in bit/s.
const MOST: f64 = 100e6;
/// How long the trains take; the longer one takes this many times the jitter if that is more, up to a limit.
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_millis(60);
const LONGEST: Duration = Duration::from_millis(150);
const JITTERS: u32 = 8;
/// Where nothing is known of a network a short train has no more bytes: a keyframe of the lowest layer is one, and a queue of
/// 100 ms before 300 kbit/s has room for it.
const FIRST_BYTES: f64 = 4_000.0;
/// The longer train behind it is faster than it arrived by this, at most; and until that has been reported, this share of it
/// counts. Not tuned.
const FIRST_BEYOND: f64 = 1.5;
const FIRST_COUNTS: f64 = 0.7;
/// A train has at least this many packets.
const PACKETS: u32 = 5;
/// Packets are asked for by the two, but not more or less often than this.
const STEP_BYTES: f64 = 2_400.0;
const STEP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// If it needs more packets than bytes, they are of this size.
const LEAST: f64 = 200.0;
/// A sender that has nothing to fill a train with is not waited for beyond this many times its length.
const OVERDUE: u32 = 3;
/// Reports come within this time, or the train is forgotten.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A wish that could not begin is dropped after this time, and tried again this often until then.
const WISHED_FOR: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(50);
/// A short train below this share of the goal needs no longer one.
const HOPELESS: f64 = 0.5;
/// Nor does one that arrives at less than this many times the rate at which one did whose longer one failed, if the goal
/// is no less; but one in so many is tried all the same.
const BETTER: f64 = 1.15;
const SELDOM: u32 = 4;
/// One below this share of the estimate casts doubt on that.
const NO_LONGER: f64 = 0.8;
/// A train that arrives at less than this share of its rate, and than its goal, was held up.
const HELD_UP: f64 = 0.9;
/// No more than this share of a train may be missing.
const MISSING: f64 = 0.5;
/// Of what is missing, this many times the usual loss is chance, and made up for up to that share.
const BY_CHANCE: f64 = 2.0;
const HARMLESS: f64 = 0.25;
/// Nothing is concluded beyond this many times the rate that was ordered.
const BEYOND: f64 = 1.25;

/// What a train found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Bit/s.
    pub(super) rate: f64,
    /// No faster train would have got through.
    pub(super) limited: bool,
    /// By a short train: jitter may have made it less.
    pub(super) rough: bool,
    /// A longer train has begun that tells it better.
    pub(super) tentative: bool,
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    goal: f64,
    until: Instant,
    /// Nothing is known yet.
    is_first: bool,
}

/// What the last longer train found, where the network was the limit.
#[derive(Debug, Clone, Copy)]
struct Refuted {
    goal: f64,
    /// At which the short train arrived.
    rate: f64,
    /// Short trains since one led to it for the first time.
    times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Sending,
    /// For reports.
    Waiting,
}

/// One train.
#[derive(Debug, Clone, Copy)]
struct Train {
    goal: f64,
    /// For what, if it is the first one.
    wish: Option<Wish>,
    long: bool,
    /// At which the short train arrived, if this is the longer one.
    hint: f64,
    began: Instant,
    /// When it must have ended, or the reports have come.
    deadline: Instant,
    wanted: f64,
    /// Extended numbers of its first and last packet.
    first: u64,
    last: u64,
    packets: u32,
    bytes: u32,
    last_bytes: u32,
    left: (Tick, Tick),
    arrived: Option<(Tick, Tick)>,
    received: u32,
    received_bytes: u32,
    first_received_bytes: u32,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Prober {
    wish: Option<Wish>,
    state: State,
    train: Option<Train>,
    refuted: Option<Refuted>,
    next: Option<Instant>,
}

impl Prober {
    pub(super) fn new() -> Self {
        Self {
            wish: None,
            state: State::Idle,
            train: None,
            refuted: None,
            next: None,
        }
    }

    /// It is to be found out whether the network carries `goal` bit/s. `is_first`: nothing is known of it yet.
    pub(super) fn wish(&mut self, now: Instant, goal: u64, is_first: bool) {
        self.wish = Some(Wish {
            goal: (goal as f64).min(MOST),
            until: now + WISHED_FOR,
            is_first,
        });
        if self.state == State::Idle {
            self.next = Some(now);
        }
    }

    /// When to call [`order`](Self::order).
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What to send now. `may_begin`: nothing stands in the way of a new train.
    pub(super) fn order(&mut self, now: Instant, may_begin: bool) -> ProbeOrder {
        let bytes = match self.state {
            State::Idle => self.begin_wished(now, may_begin),
            State::Sending => self.due(now),
            State::Waiting => {
                if self.train.is_none_or(|t| now >= t.deadline) {
                    self.give_up();
                }
                0
            }
        };
        ProbeOrder {
            bytes,
            next: self.next,
        }
    }

    fn begin_wished(&mut self, now: Instant, may_begin: bool) -> usize {
        self.next = None;
        let Some(wish) = self.wish else {
            return 0;
        };
        if now >= wish.until {
            self.wish = None;
            return 0;
        }
        if !may_begin {
            self.next = Some(now + RETRY);
            return 0;
        }
        self.wish = None;
        self.begin(now, wish.goal, None, SHORT);
        if let Some(train) = self.train.as_mut().filter(|_| wish.is_first) {
            train.wanted = train.wanted.min(FIRST_BYTES);
            train.wish = Some(wish);
        }
        self.due(now)
    }

    fn begin(&mut self, now: Instant, goal: f64, hint: Option<f64>, lasts: Duration) {
        let wanted = goal * ABOVE_GOAL / 8.0 * lasts.as_secs_f64();
        self.train = Some(Train {
            goal,
            wish: None,
            long: hint.is_some(),
            hint: hint.unwrap_or(0.0),
            began: now,
            deadline: now + lasts * OVERDUE,
            wanted,
            first: 0,
            last: 0,
            packets: 0,
            bytes: 0,
            last_bytes: 0,
            left: (Tick(0), Tick(0)),
            arrived: None,
            received: 0,
            received_bytes: 0,
            first_received_bytes: 0,
        });
        self.state = State::Sending;
        self.next = Some(now);
    }

    /// Bytes of the train that are due.
    fn due(&mut self, now: Instant) -> usize {
        let Some(train) = self.train else {
            self.give_up();
            return 0;
        };
        if now >= train.deadline {
            // What has left may still tell something.
            if train.packets >= PACKETS && f64::from(train.bytes) >= train.wanted / 2.0 {
                self.wait(now);
            } else {
                self.give_up();
                // There was nothing to fill it with yet: the viewer waits for a keyframe.
                self.wish = self.wish.or(train.wish);
                self.next = self.wish.map(|_| now + RETRY);
            }
            return 0;
        }
        let pace = train.goal * ABOVE_GOAL / 8.0;
        let step = Duration::from_secs_f64((STEP_BYTES / pace.max(1.0)).min(1.0));
        let step = step.clamp(STEP.0, STEP.1);
        self.next = Some(now + step);
        let passed = now.saturating_duration_since(train.began) + step;
        let least = if train.packets < PACKETS { LEAST } else { 0.0 };
        let due = (pace * passed.as_secs_f64()).min(train.wanted) - f64::from(train.bytes);
        due.max(least).ceil() as usize
    }

    /// A packet left.
    pub(super) fn sent(&mut self, now: Instant, at: Tick, number: u64, bytes: usize) {
        if self.state != State::Sending {
            return;
        }
        let Some(train) = &mut self.train else {
            return;
        };
        if train.packets == 0 {
            train.first = number;
            train.left.0 = at;
        }
        train.last = number;
        train.left.1 = at;
        train.last_bytes = bytes.min(usize::from(u16::MAX)) as u32;
        train.bytes += train.last_bytes;
        train.packets += 1;
        if train.packets >= PACKETS && f64::from(train.bytes) + LEAST / 2.0 >= train.wanted {
            self.wait(now);
        }
    }

    fn wait(&mut self, now: Instant) {
        self.state = State::Waiting;
        let deadline = now + PATIENCE;
        if let Some(train) = &mut self.train {
            train.deadline = deadline;
        }
        self.next = Some(deadline);
    }

    fn give_up(&mut self) {
        self.state = State::Idle;
        self.train = None;
        self.next = None;
    }

    /// A report speaks of a packet for the first time; `None`: it is missing.
    pub(super) fn reported(&mut self, number: u64, arrived: Option<Tick>, bytes: u16) {
        let (Some(train), Some(at)) = (&mut self.train, arrived) else {
            return;
        };
        let within = train.packets > 0 && (train.first..=train.last).contains(&number);
        if !within {
            return;
        }
        if train.received == 0 {
            train.first_received_bytes = bytes.into();
        }
        let first = train.arrived.map_or(at, |(first, _)| first);
        train.arrived = Some((first, at));
        train.received += 1;
        train.received_bytes += u32::from(bytes);
    }

    /// The viewer's clock jumped: the train tells nothing.
    pub(super) fn reset(&mut self) {
        if self.state != State::Idle {
            self.give_up();
        }
    }

    /// Reports have come up to this number. Returns what the train found, if it was the last one needed.
    pub(super) fn conclude(
        &mut self,
        now: Instant,
        reported: u64,
        context: &Context,
    ) -> Option<Measured> {
        let train = self.train?;
        if self.state != State::Waiting || reported < train.last {
            return None;
        }
        self.give_up();
        if self.wish.is_some() {
            self.next = Some(now);
        }
        let found = measure(&train, context.loss)?;
        if train.long {
            self.remember(&train, found.limited);
            return Some(found);
        }
        if train.wish.is_some() {
            return self.follow_first(now, train.goal, found, context);
        }
        let doubtful = found.rate < context.estimate * NO_LONGER;
        if !doubtful && found.rate < train.goal * HOPELESS {
            return Some(found);
        }
        if context.may_begin && (doubtful || self.is_news(&found, train.goal)) {
            let lasts = (context.jitter * JITTERS).clamp(LONG, LONGEST);
            self.begin(now, train.goal, Some(found.rate), lasts);
        }
        None
    }

    /// The first train of all has arrived: a longer one tells better, and is no more than what the network seems to carry.
    fn follow_first(
        &mut self,
        now: Instant,
        goal: f64,
        found: Measured,
        context: &Context,
    ) -> Option<Measured> {
        if !context.may_begin {
            return Some(found);
        }
        let lasts = (context.jitter * JITTERS).clamp(LONG, LONGEST);
        let goal = goal.min(found.rate * FIRST_BEYOND);
        self.begin(now, goal, Some(found.rate), lasts);
        Some(Measured {
            rate: found.rate * FIRST_COUNTS,
            limited: false,
            tentative: true,
            ..found
        })
    }

    fn remember(&mut self, train: &Train, limited: bool) {
        let times = self.refuted.map_or(0, |r| r.times);
        self.refuted = limited.then_some(Refuted {
            goal: train.goal,
            rate: train.hint,
            times,
        });
    }

    /// Whether the last long train did not say as much: a new one each time would fill the network for nothing.
    fn is_news(&mut self, found: &Measured, goal: f64) -> bool {
        let Some(refuted) = &mut self.refuted else {
            return true;
        };
        refuted.times += 1;
        let same = found.rate < refuted.rate * BETTER && goal >= refuted.goal / BETTER;
        !same || refuted.times.is_multiple_of(SELDOM)
    }
}

/// What the end of a train depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) estimate: f64,
    /// The share of packets that is lost in any case.
    pub(super) loss: f64,
    pub(super) jitter: Duration,
    pub(super) may_begin: bool,
}

fn measure(train: &Train, loss: f64) -> Option<Measured> {
    let (first, last) = train.arrived?;
    let enough = f64::from(train.packets) * (1.0 - MISSING);
    if train.received < PACKETS - 1 || f64::from(train.received) < enough {
        return None;
    }
    let left = rate(
        train.bytes - train.last_bytes,
        train.left.1.since(train.left.0),
    );
    let came = rate(
        train.received_bytes - train.first_received_bytes,
        last.since(first),
    );
    let missing = 1.0 - f64::from(train.received) / f64::from(train.packets);
    let came = came / (1.0 - missing.min(loss * BY_CHANCE).min(HARMLESS));
    let ordered = train.goal * ABOVE_GOAL * BEYOND;
    Some(Measured {
        rate: came.min(left).min(ordered),
        limited: came < (left.min(ordered) * HELD_UP).min(train.goal),
        rough: !train.long,
        tentative: false,
    })
}
