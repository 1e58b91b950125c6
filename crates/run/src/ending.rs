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
    /// When the first signal came, and the last one.
    signals: Option<(Instant, Instant)>,
}

impl Ending {
    pub(crate) fn new(eos: bool) -> Self {
        Self {
            eos,
            step: Step::Play,
            signals: None,
        }
    }

    /// A signal came. Returns what is to be done from now on.
    pub(crate) fn signal(&mut self, now: Instant) -> Step {
        let (first, last) = self.signals.unwrap_or((now, now));
        let again = self.signals.is_some() && now.saturating_duration_since(last) < SAME;
        self.signals = Some((first, if again { last } else { now }));
        if !again {
            self.step = match self.step {
                Step::Play if self.eos => Step::Eos,
                Step::Play | Step::Eos => Step::Null,
                Step::Null | Step::Kill => Step::Kill,
            };
        }
        self.at(now)
    }

    /// What is to be done at this time.
    pub(crate) fn at(&mut self, now: Instant) -> Step {
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
                    true => ending.signal(now),
                    false => ending.at(now),
                };
                assert_eq!(step, *expected, "eos {eos}, {at} ms");
            }
        }
    }

    #[test]
    fn whatever_comes_it_is_over_in_time() {
        for eos in [true, false] {
            let start = Instant::now();
            let mut ending = Ending::new(eos);
            assert_eq!(ending.deadline(), None);
            ending.signal(start);
            while let Some(next) = ending.deadline() {
                assert!(next <= start + LIMIT);
                ending.at(next);
            }
            assert_eq!(ending.at(start + LIMIT), Step::Kill);
        }
    }
}
