// SPDX-License-Identifier: MPL-2.0

//! Viewers that come and go while others watch: each leaves when it has a picture. Called by [`crate::run`].

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::join::{Joined, Joiner, Session};
use crate::report::rounded;
use crate::stats::percentile;
use crate::swarm::{Passed, Swarm};
use crate::viewer::Summary;

/// Who has no picture after this never will.
pub const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// Threads that end sessions.
pub const LEAVERS: usize = 32;

/// What joins cost those who joined, and those who watched.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Joins {
    pub asked: usize,
    pub with_picture: usize,
    /// Sessions that the server made in a second.
    pub per_second: f64,
    /// From the request to the first whole frame.
    pub picture_ms_p50: Option<f64>,
    pub picture_ms_p99: Option<f64>,
    /// The server's CPU time for each, beyond what those who watch take.
    pub cpu_ms_each: Option<f64>,
    pub watchers: usize,
    /// Those who missed a frame meanwhile, and what they missed.
    pub watchers_with_loss: usize,
    pub watchers_unrepaired_packets: u64,
    pub watchers_broken_frames: u64,
}

/// Joins under way.
#[derive(Debug)]
pub struct Passage<'a> {
    swarms: &'a [Swarm],
    sessions: HashMap<usize, Session>,
    /// To the threads that end them.
    leaving: Sender<Session>,
    leavers: Vec<JoinHandle<()>>,
    pictures: Vec<f64>,
    asked: usize,
    over: usize,
    began: Instant,
    last: Instant,
}

impl<'a> Passage<'a> {
    /// Nobody yet.
    pub fn new(swarms: &'a [Swarm], joiner: &Arc<Joiner>) -> Result<Self> {
        let (leaving, left) = channel();
        let left = Arc::new(Mutex::new(left));
        let leavers = (0..LEAVERS).map(|_| leaver(joiner.clone(), left.clone()));
        let now = Instant::now();
        Ok(Self {
            swarms,
            sessions: HashMap::new(),
            leaving,
            leavers: leavers.collect::<Result<_>>()?,
            pictures: Vec::new(),
            asked: 0,
            over: 0,
            began: now,
            last: now,
        })
    }

    /// Goes on until this many have come and gone. What went wrong is appended to `failures`.
    pub fn run(
        &mut self,
        joined: &Receiver<Result<Joined>>,
        count: usize,
        failures: &mut Vec<String>,
        mut look_after: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut idle = Instant::now();
        while self.over < count && idle.elapsed() < PATIENCE * 2 {
            match joined.recv_timeout(LOOK) {
                Ok(Ok(viewer)) => {
                    (idle, self.last) = (Instant::now(), Instant::now());
                    self.asked += 1;
                    let index = viewer.start.index;
                    self.sessions.insert(index, viewer.session);
                    self.swarms[index % self.swarms.len()].add(viewer.start, viewer.socket)?;
                }
                Ok(Err(error)) => {
                    self.asked += 1;
                    self.over += 1;
                    failures.push(format!("{error:#}"));
                }
                // All have asked.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
                Err(RecvTimeoutError::Timeout) => {}
            }
            for swarm in self.swarms {
                for passed in swarm.passed() {
                    self.leave(passed, failures);
                }
            }
            look_after()?;
        }
        Ok(())
    }

    fn leave(&mut self, passed: Passed, failures: &mut Vec<String>) {
        self.over += 1;
        match passed.join {
            Ok(join) => self.pictures.push(join.as_secs_f64() * 1e3),
            Err(why) => failures.push(why),
        }
        if let Some(session) = self.sessions.remove(&passed.index) {
            // The threads end with us.
            let _ = self.leaving.send(session);
        }
    }

    /// What it was like, by the watchers' state before and after.
    pub fn finish(mut self, before: &[Summary], after: &[Summary]) -> Joins {
        for (_, session) in self.sessions.drain() {
            let _ = self.leaving.send(session);
        }
        drop(self.leaving);
        for leaver in self.leavers {
            if leaver.join().is_err() {
                eprintln!("sfu-load: a signalling thread had panicked");
            }
        }
        let seconds = (self.last - self.began).as_secs_f64();
        Joins {
            asked: self.asked,
            with_picture: self.pictures.len(),
            per_second: rounded(self.asked as f64 / seconds.max(f64::MIN_POSITIVE)),
            picture_ms_p50: percentile(&mut self.pictures, 0.5).map(rounded),
            picture_ms_p99: percentile(&mut self.pictures, 0.99).map(rounded),
            ..watched(before, after)
        }
    }
}

/// What the watchers missed between two looks at them.
fn watched(before: &[Summary], after: &[Summary]) -> Joins {
    let mut joins = Joins {
        watchers: before.len(),
        ..Joins::default()
    };
    for (before, after) in before.iter().zip(after) {
        let missing = after.counts.unrepaired + after.missing;
        let unrepaired = missing.saturating_sub(before.counts.unrepaired + before.missing);
        let broken = after.broken_frames.saturating_sub(before.broken_frames);
        let lost = unrepaired > 0 || broken > 0 || !after.picture;
        joins.watchers_with_loss += usize::from(lost);
        joins.watchers_unrepaired_packets += unrepaired;
        joins.watchers_broken_frames += broken;
    }
    joins
}

fn leaver(joiner: Arc<Joiner>, left: Arc<Mutex<Receiver<Session>>>) -> Result<JoinHandle<()>> {
    let work = move || {
        loop {
            let session = left.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(session) = session else {
                return;
            };
            joiner.leave(&session);
        }
    };
    std::thread::Builder::new()
        .name("leaving".into())
        .spawn(work)
        .context("thread")
}

impl Joins {
    /// Notes what the server used meanwhile, of which this much would have been used anyway.
    pub fn set_server(&mut self, used: Duration, anyway: Duration) {
        let more = used.saturating_sub(anyway).as_secs_f64() * 1e3;
        self.cpu_ms_each = (self.asked > 0).then(|| rounded(more / self.asked as f64));
    }

    /// For a person.
    pub fn in_words(&self) -> String {
        let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v} ms"));
        format!(
            "{} joined at {} a second, {} had a picture: median {}, 99 %: {}; {} of the server's CPU each; of {} who \
             watched {} missed something ({} packets, {} frames)\n",
            self.asked,
            self.per_second,
            self.with_picture,
            show(self.picture_ms_p50),
            show(self.picture_ms_p99),
            show(self.cpu_ms_each),
            self.watchers,
            self.watchers_with_loss,
            self.watchers_unrepaired_packets,
            self.watchers_broken_frames,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reception::Counts;

    #[test]
    fn only_what_was_missed_meanwhile_counts() {
        let state = |unrepaired, missing, broken_frames| Summary {
            picture: true,
            counts: Counts {
                unrepaired,
                ..Counts::default()
            },
            missing,
            broken_frames,
            ..Summary::default()
        };
        let before = [state(5, 0, 1), state(0, 2, 0), state(0, 0, 0)];
        let after = [state(5, 0, 1), state(2, 0, 0), state(1, 1, 3)];
        let joins = watched(&before, &after);
        assert_eq!((joins.watchers, joins.watchers_with_loss), (3, 1));
        assert_eq!(joins.watchers_unrepaired_packets, 2);
        assert_eq!(joins.watchers_broken_frames, 3);
        let mut joins = Joins { asked: 4, ..joins };
        joins.set_server(Duration::from_millis(900), Duration::from_millis(500));
        assert_eq!(joins.cpu_ms_each, Some(100.0));
    }
}
