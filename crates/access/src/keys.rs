// SPDX-License-Identifier: MPL-2.0

//! Keys of identity providers (JWKS by URL), asked for on a thread of their own, every few minutes, and sooner where a token
//! names a key that is not known: so they may be changed at any time. Without an answer for long there are none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::remote::{Address, Client, TIME};
use crate::token::{self, Key};

/// How often they are asked for, and how often at most where tokens name others, or nobody answers.
const EVERY: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(5);
/// Who has not answered for so long has no keys any more.
const KEEP: Duration = Duration::from_secs(3_600);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Keys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    known: ArcSwap<HashMap<Address, Arc<[Key]>>>,
    state: Mutex<State>,
    wake: Condvar,
    /// Changes with the keys.
    generation: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    wanted: HashMap<Address, Asked>,
    /// When a token last was signed by a key that nobody knows.
    missed: Option<Instant>,
    has_thread: bool,
    stop: bool,
    /// What the log should know.
    complaint: Option<String>,
}

#[derive(Debug, Default, Clone)]
struct Asked {
    at: Option<Instant>,
    answered: Option<Instant>,
    octets: Vec<u8>,
}

impl Asked {
    /// `None` is at once.
    fn due(&self, missed: Option<Instant>) -> Option<Instant> {
        let at = self.at?;
        let fresh = self.answered == self.at && missed.is_none_or(|missed| missed <= at);
        Some(at + if fresh { EVERY } else { AGAIN })
    }
}

impl Keys {
    pub(crate) fn new(generation: Arc<AtomicU64>) -> Self {
        Self {
            shared: Arc::new(Shared {
                known: ArcSwap::default(),
                state: Mutex::default(),
                wake: Condvar::new(),
                generation,
            }),
        }
    }

    /// From now on those of these.
    pub(crate) fn want(&self, addresses: &[Address]) {
        let mut state = self.shared.state();
        state
            .wanted
            .retain(|address, _| addresses.contains(address));
        for address in addresses {
            state.wanted.entry(address.clone()).or_default();
        }
        if !state.wanted.is_empty() && !state.has_thread {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("sfu-keys".into());
            state.has_thread = thread.spawn(move || shared.work()).is_ok();
        }
        drop(state);
        self.shared.wake.notify_all();
    }

    /// Those of that one that are known.
    pub(crate) fn of(&self, address: &Address) -> Option<Arc<[Key]>> {
        self.shared.known.load().get(address).cloned()
    }

    /// A token was signed by none of them.
    pub(crate) fn missed(&self) {
        let mut state = self.shared.state();
        // The first one since it was asked for: for others the thread is awake already.
        let was = state.missed.replace(Instant::now());
        let since = |asked: &Asked| asked.at.is_some_and(|at| was.is_none_or(|was| was <= at));
        let is_first = state.wanted.values().any(since);
        drop(state);
        if is_first {
            self.shared.wake.notify_all();
        }
    }

    /// Why there are none, once.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.shared.state().complaint.take()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // An answer under way is not waited for.
        self.shared.state().stop = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let client = Client::new(TIME);
        let mut state = self.state();
        while !state.stop {
            let now = Instant::now();
            let missed = state.missed;
            let due = |asked: &Asked| asked.due(missed).is_none_or(|at| at <= now);
            let next = state.wanted.iter().find(|(_, asked)| due(asked));
            let Some(address) = next.map(|(address, _)| address.clone()) else {
                let waits = state.wanted.values().filter_map(|a| a.due(missed)).min();
                let pause = waits.map_or(EVERY, |at| at.saturating_duration_since(now));
                let waited = self.wake.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            drop(state);
            let answer = client.get(&address).and_then(|octets| {
                let keys = token::read_set(&octets)?;
                Ok((octets, keys))
            });
            state = self.state();
            self.take(&mut state, &address, answer);
        }
    }

    fn take(
        &self,
        state: &mut State,
        address: &Address,
        answer: Result<(Vec<u8>, Vec<Key>), String>,
    ) {
        let now = Instant::now();
        let Some(asked) = state.wanted.get_mut(address) else {
            return;
        };
        asked.at = Some(now);
        match answer {
            Ok((octets, keys)) => {
                asked.answered = Some(now);
                if asked.octets != octets {
                    asked.octets = octets;
                    self.store(address, Some(keys.into()));
                }
            }
            Err(error) => {
                let old = asked.answered.is_none_or(|at| now >= at + KEEP);
                if old && !asked.octets.is_empty() {
                    asked.octets.clear();
                    self.store(address, None);
                }
                let address = address.shown();
                state.complaint = Some(format!("{address}: no keys come from there: {error}"));
            }
        }
    }

    fn store(&self, address: &Address, keys: Option<Arc<[Key]>>) {
        let mut known = HashMap::clone(&self.known.load());
        match keys {
            Some(keys) => known.insert(address.clone(), keys),
            None => known.remove(address),
        };
        self.known.store(Arc::new(known));
        self.generation.fetch_add(1, Relaxed);
    }
}
