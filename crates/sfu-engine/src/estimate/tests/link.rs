// SPDX-License-Identifier: MPL-2.0

//! Senders, a link, and viewers that report arrivals as Chromium does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu_impair::{Conditions, Link, Rng};

use crate::estimate::{ArrivalEstimator, Estimator};
use crate::transport::{Demand, Estimate};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const FIRST: u64 = 1_000_000;
/// A packet with its headers.
const PACKET: usize = 1_200;
const AUDIO: usize = 120;
const FRAME: Duration = Duration::from_micros(33_333);

/// So many seeds, from that in the environment on.
pub(super) fn seeds(count: u64) -> std::ops::Range<u64> {
    let from = std::env::var("SFU_SEED").ok();
    let from = from.and_then(|s| s.parse().ok()).unwrap_or(0);
    from..from + count
}

pub(super) fn link(rate: u64) -> Conditions {
    Conditions {
        delay: 20 * MS,
        rate: Some(rate),
        ..Conditions::default()
    }
}

/// Mobile networks queue for seconds rather than drop.
pub(super) fn deep(rate: u64) -> Conditions {
    Conditions {
        queue: 2 * SECOND,
        jitter: 3 * MS,
        ..link(rate)
    }
}

/// What a viewer is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// Video of this rate, with sound.
    Video(u64),
    /// As much as the estimate says.
    Elastic,
    Sound,
    Nothing,
}

/// Numbers of packets, and when each arrived.
type Report = Vec<(u16, Option<i64>)>;

/// One viewer and its sender.
pub(super) struct Viewer {
    pub(super) estimator: ArrivalEstimator,
    pub(super) source: Source,
    /// Each so many frames is a keyframe of three times the size.
    pub(super) keyframe_every: u32,
    pub(super) report_every: Duration,
    /// Nothing leaves, or nothing is received, until then; afterwards all at once.
    pub(super) sender_stalls: Option<Instant>,
    pub(super) viewer_stalls: Option<Instant>,
    pub(super) reports_stall: Option<Instant>,
    /// What the viewer's clock shows beyond ours, in µs, and how much faster it goes.
    pub(super) clock: i64,
    pub(super) drift: f64,
    pub(super) padding: u64,
    zero: Instant,
    frames: u32,
    next_frame: Instant,
    next_audio: Instant,
    backlog: Vec<usize>,
    link: usize,
    seq: u16,
    /// Extended number and arrival of what is under way.
    flying: VecDeque<(u64, Instant)>,
    sent: u64,
    reported: u64,
    arrived: Vec<(u64, i64)>,
    next_report: Instant,
    reports: VecDeque<(Instant, Report)>,
    /// The next wish to know more, if there are any.
    pub(super) wish: Option<(u64, Instant)>,
}

impl Viewer {
    fn new(now: Instant, link: usize, source: Source, rng: &mut Rng) -> Self {
        let some = Duration::from_micros(rng.next_u64() % 33_333);
        Self {
            estimator: ArrivalEstimator::new(now, Some(FIRST)),
            source,
            keyframe_every: 60,
            report_every: 50 * MS + some,
            sender_stalls: None,
            viewer_stalls: None,
            reports_stall: None,
            clock: (rng.next_u64() % (1 << 40)) as i64,
            drift: 0.0,
            padding: 0,
            zero: now,
            frames: 0,
            next_frame: now + some,
            next_audio: now + some / 2,
            backlog: Vec::new(),
            link,
            seq: rng.next_u64() as u16,
            flying: VecDeque::new(),
            sent: 0,
            reported: 0,
            arrived: Vec::new(),
            next_report: now + 100 * MS,
            reports: VecDeque::new(),
            wish: None,
        }
    }
}

/// The viewers, their links, and the time that passes.
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) viewers: Vec<Viewer>,
    pub(super) links: Vec<Link>,
    rng: Rng,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            viewers: Vec::new(),
            links: Vec::new(),
            rng: Rng::new(seed),
        }
    }

    /// One viewer on a link of its own.
    pub(super) fn single(seed: u64, conditions: Conditions, source: Source) -> Self {
        let mut world = Self::new(seed);
        world.add_link(conditions);
        world.add_viewer(0, source);
        world
    }

    pub(super) fn add_link(&mut self, conditions: Conditions) -> usize {
        let seed = self.rng.next_u64();
        self.links.push(Link::new(conditions, seed));
        self.links.len() - 1
    }

    pub(super) fn add_viewer(&mut self, link: usize, source: Source) -> usize {
        let viewer = Viewer::new(self.now, link, source, &mut self.rng);
        self.viewers.push(viewer);
        self.viewers.len() - 1
    }

    pub(super) fn viewer(&mut self) -> &mut Viewer {
        &mut self.viewers[0]
    }

    pub(super) fn estimate_of(&self, viewer: usize) -> Estimate {
        self.viewers[viewer].estimator.estimate(self.now).unwrap()
    }

    pub(super) fn estimate(&self) -> Estimate {
        self.estimate_of(0)
    }

    pub(super) fn rate(&self) -> u64 {
        self.estimate().bits_per_second
    }

    /// Whether more is carried, a viewer asks each three seconds from now on.
    pub(super) fn wish(&mut self, viewer: usize, goal: u64) {
        self.viewers[viewer].wish = Some((goal, self.now));
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, or for `limit`. Returns how long that took, if it was done.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        while self.now < began + limit {
            self.step();
            if done(self) {
                return Some(self.now - began);
            }
        }
        None
    }

    fn step(&mut self) {
        self.now += MS;
        let now = self.now;
        for viewer in &mut self.viewers {
            viewer.produce(now, &mut self.rng);
            viewer.ask(now);
            let link = &mut self.links[viewer.link];
            viewer.leave(now, link);
            viewer.probe(now, link);
            viewer.arrive(now);
            viewer.report(now);
        }
    }
}

impl Viewer {
    fn produce(&mut self, now: Instant, rng: &mut Rng) {
        if now >= self.next_audio {
            self.next_audio += 20 * MS;
            if !matches!(self.source, Source::Nothing) {
                self.backlog.push(AUDIO);
            }
        }
        if now < self.next_frame {
            return;
        }
        self.next_frame += FRAME;
        let rate = match self.source {
            Source::Video(rate) => rate,
            Source::Elastic => {
                let estimate = self.estimator.estimate(now).unwrap();
                estimate.bits_per_second * 95 / 100
            }
            Source::Sound | Source::Nothing => return,
        };
        let key = self.frames.is_multiple_of(self.keyframe_every);
        self.frames += 1;
        let every = f64::from(self.keyframe_every);
        let mean = rate as f64 / 8.0 / 30.0 * every / (every + 2.0);
        let size = mean * if key { 3.0 } else { 0.8 + 0.4 * rng.unit() };
        let mut left = size as usize;
        while left > 0 {
            let packet = left.min(PACKET);
            self.backlog.push(packet.max(60));
            left -= packet;
        }
    }

    fn leave(&mut self, now: Instant, link: &mut Link) {
        if self.sender_stalls.is_some_and(|until| now < until) {
            return;
        }
        for bytes in std::mem::take(&mut self.backlog) {
            self.send(now, link, bytes);
        }
    }

    fn send(&mut self, now: Instant, link: &mut Link, bytes: usize) {
        self.estimator.sent(now, self.seq, bytes);
        self.seq = self.seq.wrapping_add(1);
        if let Some(at) = link.pass(now, bytes) {
            self.flying.push_back((self.sent, at));
        }
        self.sent += 1;
    }

    fn ask(&mut self, now: Instant) {
        let Some((goal, at)) = &mut self.wish else {
            return;
        };
        let probe = now >= *at;
        if probe {
            *at += 3 * SECOND;
        }
        let demand = Demand {
            goal: *goal,
            probe,
            spread: false,
        };
        self.estimator.set_demand(now, demand);
    }

    fn probe(&mut self, now: Instant, link: &mut Link) {
        if self.estimator.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        let mut bytes = self.estimator.probe(now).bytes;
        while bytes > 0 {
            let packet = bytes.clamp(100, PACKET);
            self.padding += packet as u64;
            self.send(now, link, packet);
            bytes = bytes.saturating_sub(packet);
        }
    }

    fn arrive(&mut self, now: Instant) {
        if self.viewer_stalls.is_some_and(|until| now < until) {
            return;
        }
        let stalled = self.viewer_stalls.take();
        while let Some((number, at)) = self.flying.front().copied().filter(|(_, at)| *at <= now) {
            self.flying.pop_front();
            let at = stalled.map_or(at, |until| at.max(until));
            self.arrived.push((number, self.clock_at(at)));
        }
    }

    /// What the viewer's clock shows, in the steps of 250 µs that reports have.
    fn clock_at(&self, at: Instant) -> i64 {
        let passed = (at - self.zero).as_micros() as f64;
        let shown = self.clock + (passed * (1.0 + self.drift)) as i64;
        shown / 250 * 250
    }

    fn report(&mut self, now: Instant) {
        let stalled = self.viewer_stalls.is_some();
        if now >= self.next_report && !stalled {
            self.next_report = now + self.report_every;
            let arrived = std::mem::take(&mut self.arrived);
            if let Some((newest, _)) = arrived.last() {
                let mut seen = arrived.iter().peekable();
                let first = self.seq.wrapping_sub((self.sent - self.reported) as u16);
                let packets = (self.reported..=*newest).map(|number| {
                    let at = seen.next_if(|(n, _)| *n == number).map(|(_, at)| *at);
                    (first.wrapping_add((number - self.reported) as u16), at)
                });
                let packets = packets.collect();
                self.reported = newest + 1;
                self.reports.push_back((now + 20 * MS, packets));
            }
        }
        if self.reports_stall.is_some_and(|until| now < until) {
            return;
        }
        while self.reports.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, packets)) = self.reports.pop_front() {
                self.estimator.report(now, &mut packets.into_iter());
            }
        }
    }
}
