// SPDX-License-Identifier: MPL-2.0

//! Signals as something that a thread waits for: also while the main thread is inside a change of state.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::ending::{Ending, Step};

/// The end that is wanted, and who is to be woken by it.
#[derive(Debug)]
pub(crate) struct Wish {
    ending: Mutex<Ending>,
    changed: Condvar,
}

/// Takes the signals that end a program. Must be called before there is another thread.
pub(crate) fn block() -> Result<SigSet, String> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    // nohup.
    if !is_ignored(Signal::SIGHUP) {
        set.add(Signal::SIGHUP);
    }
    set.thread_block()
        .map_err(|e| format!("signals can't be taken: {e}"))?;
    Ok(set)
}

fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

impl Wish {
    /// Waits for `set` on a thread of its own, and calls `wake` whenever there is something to be done. Ends the process
    /// where nobody does it in time.
    pub(crate) fn start(
        set: SigSet,
        ending: Ending,
        wake: impl Fn() + Send + Clone + 'static,
    ) -> Result<Arc<Self>, String> {
        let wish = Arc::new(Self {
            ending: Mutex::new(ending),
            changed: Condvar::new(),
        });
        let (waiter, woken) = (wish.clone(), wake.clone());
        let wait = move || {
            while let Ok(signal) = set.wait() {
                let is_term = signal == Signal::SIGTERM;
                let step = waiter.update(|ending| ending.signal(Instant::now(), is_term));
                let does = if step == Step::Drain {
                    "draining; again ends it at once"
                } else {
                    "ending"
                };
                eprintln_if_possible(&format!("{signal}: {does}"));
                woken();
            }
        };
        let watchdog = wish.clone();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(work).map_err(|e| format!("no thread: {e}"))
        };
        spawn("signals", Box::new(wait))?;
        spawn("watchdog", Box::new(move || watchdog.watch(wake)))?;
        Ok(wish)
    }

    fn update(&self, change: impl FnOnce(&mut Ending) -> Step) -> Step {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let step = change(&mut ending);
        self.changed.notify_all();
        step
    }

    /// From now on SIGTERM gives the pipeline so long to drain.
    pub(crate) fn set_drain(&self, drain: Duration) {
        self.update(|ending| {
            ending.set_drain(drain);
            ending.at(Instant::now())
        });
    }

    /// The pipeline has drained.
    pub(crate) fn drained(&self) {
        self.update(|ending| ending.drained(Instant::now()));
    }

    /// What is to be done now.
    pub(crate) fn step(&self) -> Step {
        self.update(|ending| ending.at(Instant::now()))
    }

    fn watch(&self, wake: impl Fn()) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let before = ending.deadline();
            if ending.at(now) == Step::Kill {
                // Not exit(): its handlers would run beside the threads that hang.
                eprintln_if_possible(
                    "it did not end in time: killed. What was being recorded is repaired at the next start",
                );
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            if ending.deadline() != before {
                wake();
            }
            ending = match ending.deadline() {
                None => self
                    .changed
                    .wait(ending)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(ending, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The terminal may be gone.
pub(crate) fn eprintln_if_possible(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "sfu-run: {text}");
}
