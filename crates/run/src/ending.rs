// SPDX-License-Identifier: MPL-2.0

//! What comes next when a pipeline is to end: EOS, NULL, or the end of the process. Sans-IO: signals and the time go in.

use std::time::{Duration, Instant};

/// How long the pipeline may take from EOS to its end. Files that wait for an encoder have it in a tenth of that.
pub(crate) const EOS_PATIENCE: Duration = Duration::from_millis(800);
/// After this the process ends, whatever hangs: Ctrl-C returns within 2 s from any state.
pub(crate) const LIMIT: Duration = Duration::from_millis(1_900);
/// A terminal that closes, systemd (`SendSIGHUP`), and a shell that passes on what its group has got already, send
/// two signals for one wish.
const SAME: Duration = Duration::from_millis(250);

/// How far the end has come. Each signal, and each time that is over, leads one step further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Play,
    /// Viewers are told to go elsewhere, and have some time for it.
    Drain,
    /// The pipeline was sent EOS.
    Eos,
    /// The pipeline goes to NULL.
    Null,
    /// The process ends without waiting for anything.
    Kill,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Ending {
    /// EOS comes first.
    eos: bool,
    step: Step,
    /// How long SIGTERM drains; not at all where it is nothing.
    drain: Duration,
    /// When that is over.
    drained: Option<Instant>,
    /// When the end began, and when the last signal came.
    signals: Option<(Instant, Instant)>,
}

impl Ending {
    pub(crate) fn new(eos: bool) -> Self {
        Self {
            eos,
            step: Step::Play,
            drain: Duration::ZERO,
            drained: None,
            signals: None,
        }
    }

    /// From now on SIGTERM gives the pipeline so long to drain.
    pub(crate) fn set_drain(&mut self, drain: Duration) {
        self.drain = drain;
    }

    /// A signal came, SIGTERM or another one. Returns what is to be done from now on.
    pub(crate) fn signal(&mut self, now: Instant, is_term: bool) -> Step {
        if self.step == Step::Play && is_term && self.drain > Duration::ZERO {
            self.step = Step::Drain;
            self.drained = Some(now + self.drain);
            self.signals = Some((now, now));
            return self.at(now);
        }
        let (first, last) = self.signals.unwrap_or((now, now));
        let again = self.signals.is_some() && now.saturating_duration_since(last) < SAME;
        self.signals = Some((first, if again { last } else { now }));
        if !again {
            self.advance(now);
        }
        self.at(now)
    }

    /// All have gone, or a pipeline that was asked to drain by somebody else has done so.
    pub(crate) fn drained(&mut self, now: Instant) -> Step {
        if self.step <= Step::Drain {
            self.signals = self.signals.or(Some((now, now)));
            self.advance(now);
        }
        self.at(now)
    }

    fn advance(&mut self, now: Instant) {
        if self.step == Step::Drain {
            // The time for the end begins with it.
            self.signals = self.signals.map(|(_, last)| (now, last));
        }
        self.step = match self.step {
            Step::Play | Step::Drain if self.eos => Step::Eos,
            Step::Play | Step::Drain | Step::Eos => Step::Null,
            Step::Null | Step::Kill => Step::Kill,
        };
    }

    /// What is to be done at this time.
    pub(crate) fn at(&mut self, now: Instant) -> Step {
        if self.step == Step::Drain {
            match self.drained {
                Some(end) if now < end => return self.step,
                _ => self.advance(now),
            }
        }
        if let Some((first, _)) = self.signals {
            let past = now.saturating_duration_since(first);
            if past >= LIMIT {
                self.step = Step::Kill;
            } else if past >= EOS_PATIENCE {
                self.step = self.step.max(Step::Null);
            }
        }
        self.step
    }

    /// When that changes by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (first, _) = self.signals?;
        match self.step {
            Step::Drain => self.drained,
            Step::Play | Step::Eos => Some(first + EOS_PATIENCE),
            Step::Null => Some(first + LIMIT),
            Step::Kill => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_and_each_time_that_is_over_leads_one_step_further() {
        use Step::{Eos, Kill, Null, Play};
        // Whether EOS comes first; moments of signals, and of looks, in ms, with what is to be done then.
        type Case<'a> = (bool, &'a [(u64, bool, Step)]);
        let cases: &[Case<'_>] = &[
            (true, &[(0, false, Play), (60_000, false, Play)]),
            (
                true,
                &[
                    (0, true, Eos),
                    (799, false, Eos),
                    (800, false, Null),
                    (1_899, false, Null),
                    (1_900, false, Kill),
                ],
            ),
            (
                false,
                &[(0, true, Null), (800, false, Null), (1_900, false, Kill)],
            ),
            // One wish that came twice, and an impatient one.
            (
                true,
                &[
                    (0, true, Eos),
                    (10, true, Eos),
                    (249, true, Eos),
                    (250, true, Null),
                    (400, true, Null),
                    (500, true, Kill),
                ],
            ),
            (false, &[(0, true, Null), (300, true, Kill)]),
            // Late signals give no more time.
            (
                true,
                &[(0, true, Eos), (900, false, Null), (1_000, true, Kill)],
            ),
        ];
        for (eos, events) in cases {
            let (start, mut ending) = (Instant::now(), Ending::new(*eos));
            for (at, signal, expected) in *events {
                let now = start + Duration::from_millis(*at);
                let step = match signal {
                    true => ending.signal(now, true),
                    false => ending.at(now),
                };
                assert_eq!(step, *expected, "eos {eos}, {at} ms");
            }
        }
    }

    #[test]
    fn who_drains_has_time_and_a_second_signal_takes_it_away() {
        use Step::{Drain, Eos, Kill, Null, Play};
        let ms = Duration::from_millis;
        // Moments in ms with what comes then, and what is to be done.
        #[derive(Clone, Copy)]
        enum Comes {
            Nothing,
            Term,
            Interrupt,
            Drained,
        }
        use Comes::{Drained, Interrupt, Nothing, Term};
        type Case<'a> = &'a [(u64, Comes, Step)];
        let cases: &[Case<'_>] = &[
            &[
                (0, Term, Drain),
                (9_999, Nothing, Drain),
                (10_000, Nothing, Eos),
                (10_799, Nothing, Eos),
                (10_800, Nothing, Null),
                (11_900, Nothing, Kill),
            ],
            &[
                (0, Term, Drain),
                (5_000, Drained, Eos),
                (5_800, Nothing, Null),
            ],
            &[
                (0, Term, Drain),
                (10, Term, Drain),
                (3_000, Term, Eos),
                (4_000, Term, Null),
            ],
            &[
                (0, Term, Drain),
                (3_000, Interrupt, Eos),
                (3_300, Term, Null),
            ],
            // Ctrl-C waits for nobody.
            &[(0, Interrupt, Eos), (800, Nothing, Null)],
            // The API's wish.
            &[
                (0, Nothing, Play),
                (1_000, Drained, Eos),
                (1_800, Nothing, Null),
            ],
        ];
        for (n, events) in cases.iter().enumerate() {
            let (start, mut ending) = (Instant::now(), Ending::new(true));
            ending.set_drain(ms(10_000));
            for (at, comes, expected) in *events {
                let now = start + ms(*at);
                let step = match comes {
                    Nothing => ending.at(now),
                    Term => ending.signal(now, true),
                    Interrupt => ending.signal(now, false),
                    Drained => ending.drained(now),
                };
                assert_eq!(step, *expected, "case {n}, {at} ms");
            }
        }
    }

    #[test]
    fn whatever_comes_it_is_over_in_time() {
        for eos in [true, false] {
            let start = Instant::now();
            let mut ending = Ending::new(eos);
            assert_eq!(ending.deadline(), None);
            ending.signal(start, true);
            while let Some(next) = ending.deadline() {
                assert!(next <= start + LIMIT);
                ending.at(next);
            }
            assert_eq!(ending.at(start + LIMIT), Step::Kill);
        }
    }
}
