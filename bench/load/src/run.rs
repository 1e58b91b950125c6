// SPDX-License-Identifier: MPL-2.0

//! A run: publishes, lets viewers join at their pace, waits, measures, and lets them leave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::LoadArgs;
use crate::join::{Joined, Joiner, KEEP_ALIVE, Session, Target};
use crate::joins::{Joins, Passage};
use crate::process::{self, Usage};
use crate::publish::Publishers;
use crate::report::{Report, Totals};
use crate::swarm::{Snapshot, Swarm};
use crate::viewer::Summary;

/// Requests at the same time.
pub const SIGNALLERS: usize = 32;
/// All have joined when they have a picture; who has none after this never will.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
const PROGRESS: Duration = Duration::from_secs(1);

/// Runs, and says what was found.
pub fn run(args: &LoadArgs) -> Result<Report> {
    let passing = args.joins.map_or(0, |_| args.join_count);
    process::raise_file_limit((args.viewers + passing) as u64 + 256)?;
    let publishers = match &args.whip {
        Some(url) => Publishers::start(url, args.streams, &args.stream)?,
        None => Publishers::default(),
    };
    let target = match (&args.whep, &args.janus) {
        (Some(url), _) => Target::Whep {
            url: url.clone(),
            streams: args.streams,
        },
        (None, Some(url)) => Target::Janus {
            url: url.clone(),
            mountpoint: args.mountpoint,
        },
        (None, None) if publishers.is_empty() => {
            bail!("nothing to do: give --whep, --janus or --whip")
        }
        (None, None) => return publish_only(args, &publishers),
    };
    if !publishers.is_empty() {
        // The server is to know the stream before anybody asks for it.
        std::thread::sleep(Duration::from_millis(500));
    }
    Run::new(args, target)?.finish(&publishers)
}

/// Publishes to nobody. What that costs the server is measured when the connection's beginning is over.
fn publish_only(args: &LoadArgs, publishers: &Publishers) -> Result<Report> {
    let watch = |time| -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::thread::sleep(PROGRESS.min(until - Instant::now()));
            publishers.check()?;
            eprintln!("published {} packets", publishers.packets());
        }
        Ok(())
    };
    let usage = || args.pid.map(process::usage).transpose();
    watch(PROGRESS)?;
    let (began, start) = (usage()?, Instant::now());
    watch(args.duration)?;
    let mut report = Report {
        steady_seconds: start.elapsed().as_secs_f64(),
        ..Report::default()
    };
    if let (Some(began), Some(end)) = (began, usage()?) {
        report.set_server(began, began, end);
    }
    Ok(report)
}

/// How many viewers decrypt everything.
fn sampled(viewers: usize, share: Option<f64>) -> usize {
    match share {
        Some(share) => (viewers as f64 * share).ceil() as usize,
        None if viewers <= 20 => viewers,
        None => viewers.div_ceil(10).max(5),
    }
}

/// Viewers that are to join.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    /// The number of the first one.
    first: usize,
    count: usize,
    /// How many in a second.
    rate: f64,
    passing: bool,
}

struct Run<'a> {
    args: &'a LoadArgs,
    joiner: Arc<Joiner>,
    swarms: Vec<Swarm>,
    sessions: Vec<Session>,
    decrypted: usize,
    failures: Vec<String>,
    kept_alive: Instant,
    progress_at: Instant,
    progress_packets: u64,
    began: Instant,
}

impl<'a> Run<'a> {
    fn new(args: &'a LoadArgs, target: Target) -> Result<Self> {
        if args.viewers == 0 || args.threads == 0 {
            bail!("--viewers and --threads must be above zero");
        }
        let swarms: Result<Vec<_>> = (0..args.threads)
            .map(|n| Swarm::start(args.link, args.seed.wrapping_add(n as u64 * 7_919)))
            .collect();
        let now = Instant::now();
        Ok(Self {
            args,
            joiner: Arc::new(Joiner::new(target, !args.video_only)?),
            swarms: swarms?,
            sessions: Vec::new(),
            decrypted: sampled(args.viewers, args.sample),
            failures: Vec::new(),
            kept_alive: now,
            progress_at: now,
            progress_packets: 0,
            began: now,
        })
    }

    fn finish(mut self, publishers: &Publishers) -> Result<Report> {
        let before = self.server()?;
        self.join_all(publishers)?;
        self.settle(publishers)?;
        self.set_steady(true)?;
        let (server, own) = (self.server()?, process::usage(std::process::id())?);
        let began = Totals::of_snapshots(&self.snapshots()?);
        let start = Instant::now();
        self.wait_until(start + self.args.duration, publishers)?;
        let steady = start.elapsed();
        let (server_end, own_end) = (self.server()?, process::usage(std::process::id())?);
        let snapshots = self.snapshots()?;
        let refused = self.failures.len();
        let mut report = Report {
            viewers: self.args.viewers,
            viewers_decrypted: self.decrypted,
            errors: std::mem::take(&mut self.failures),
            link_dropped_datagrams: snapshots.iter().map(|s| s.dropped).sum(),
            ..Report::default()
        };
        report.set_viewers(&began, Totals::of_snapshots(&snapshots), steady);
        report.viewers_failed += refused;
        report.set_delays(&snapshots);
        report.set_own(own, own_end);
        if let (Some(before), Some(began), Some(end)) = (before, server, server_end) {
            report.set_server(before, began, end);
        }
        if let Some(rate) = self.args.joins {
            report.joins = Some(self.passers(rate, report.cpu_percent, publishers)?);
            report.add_errors(std::mem::take(&mut self.failures));
        }
        self.leave_all();
        Ok(report)
    }

    fn server(&self) -> Result<Option<Usage>> {
        self.args.pid.map(process::usage).transpose()
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.swarms.iter().map(Swarm::snapshot).collect()
    }

    fn set_steady(&self, steady: bool) -> Result<()> {
        self.swarms.iter().try_for_each(|s| s.set_steady(steady))
    }

    /// Lets viewers join, at the pace of the ramp.
    fn join_all(&mut self, publishers: &Publishers) -> Result<()> {
        let joined = self.signallers(Crowd {
            first: 0,
            count: self.args.viewers,
            rate: self.args.ramp,
            passing: false,
        })?;
        let mut left = self.args.viewers;
        while left > 0 {
            match joined.recv_timeout(LOOK) {
                Ok(Ok(viewer)) => {
                    left -= 1;
                    let swarm = viewer.start.index % self.swarms.len();
                    self.sessions.push(viewer.session);
                    self.swarms[swarm].add(viewer.start, viewer.socket)?;
                }
                Ok(Err(error)) => {
                    left -= 1;
                    self.failures.push(format!("{error:#}"));
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(error) => return Err(error).context("the signalling threads have ended"),
            }
            self.look_after(publishers)?;
        }
        Ok(())
    }

    fn signallers(&self, crowd: Crowd) -> Result<Receiver<Result<Joined>>> {
        let (send, joined) = channel();
        let next = Arc::new(AtomicUsize::new(0));
        let decrypted = self.decrypted;
        let start = Instant::now();
        for _ in 0..SIGNALLERS.min(crowd.count) {
            let (send, next, joiner) = (send.clone(), next.clone(), self.joiner.clone());
            let work = move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= crowd.count {
                        return;
                    }
                    let due = start + Duration::from_secs_f64(number as f64 / crowd.rate);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let index = crowd.first + number;
                    let joined = joiner.join(index, index < decrypted, crowd.passing);
                    // The run may be over by an error.
                    if send.send(joined).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new()
                .name("signalling".into())
                .spawn(work)
                .context("thread")?;
        }
        Ok(joined)
    }

    /// Viewers that come and go while the others watch, which takes the server `steady` percent of a core.
    fn passers(
        &mut self,
        rate: f64,
        steady: Option<f64>,
        publishers: &Publishers,
    ) -> Result<Joins> {
        let before = self.watchers()?;
        let (server, start) = (self.server()?, Instant::now());
        let count = self.args.join_count;
        let joined = self.signallers(Crowd {
            first: self.args.viewers,
            count,
            rate,
            passing: true,
        })?;
        let swarms = std::mem::take(&mut self.swarms);
        let mut passage = Passage::new(&swarms, &self.joiner)?;
        let look_after = || publishers.check();
        passage.run(&joined, count, &mut self.failures, look_after)?;
        let (server_end, took) = (self.server()?, start.elapsed());
        // What was lost at the end is being repaired.
        std::thread::sleep(Duration::from_secs(1));
        let after: Result<Vec<_>> = swarms.iter().map(Swarm::snapshot).collect();
        let after: Vec<_> = after?.into_iter().flat_map(|s| s.viewers).collect();
        let mut joins = passage.finish(&before, &after);
        if let (Some(began), Some(end), Some(steady)) = (server, server_end, steady) {
            joins.set_server(end.since(&began), took.mul_f64(steady / 100.0));
        }
        self.swarms = swarms;
        Ok(joins)
    }

    fn watchers(&self) -> Result<Vec<Summary>> {
        let snapshots = self.snapshots()?;
        Ok(snapshots.into_iter().flat_map(|s| s.viewers).collect())
    }

    /// Waits until all have a picture.
    fn settle(&mut self, publishers: &Publishers) -> Result<()> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            let totals = Totals::of_snapshots(&self.snapshots()?);
            if totals.pictures + self.failures.len() >= self.args.viewers {
                // Joins leave a little work behind.
                let end = Instant::now() + Duration::from_secs(1);
                return self.wait_until(end, publishers);
            }
            std::thread::sleep(LOOK);
            self.look_after(publishers)?;
        }
        Ok(())
    }

    fn wait_until(&mut self, end: Instant, publishers: &Publishers) -> Result<()> {
        while Instant::now() < end {
            std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            self.look_after(publishers)?;
        }
        Ok(())
    }

    /// The progress line, and sessions that must be kept.
    fn look_after(&mut self, publishers: &Publishers) -> Result<()> {
        publishers.check()?;
        let now = Instant::now();
        if now - self.kept_alive > KEEP_ALIVE {
            self.kept_alive = now;
            for session in &self.sessions {
                self.joiner.keep_alive(session);
            }
        }
        let since = now - self.progress_at;
        if since < PROGRESS {
            return Ok(());
        }
        self.progress_at = now;
        let totals = Totals::of_snapshots(&self.snapshots()?);
        let rate =
            totals.packets.saturating_sub(self.progress_packets) as f64 / since.as_secs_f64();
        self.progress_packets = totals.packets;
        eprintln!(
            "{:>4} s: {} joined, {} connected, {} with picture, {rate:.0} packets/s, {} lost, {} unrepaired",
            (now - self.began).as_secs(),
            self.sessions.len(),
            totals.connected,
            totals.pictures,
            totals.lost,
            totals.unrepaired,
        );
        Ok(())
    }

    fn leave_all(&mut self) {
        self.swarms.clear();
        let sessions = Mutex::new(std::mem::take(&mut self.sessions));
        std::thread::scope(|scope| {
            for _ in 0..SIGNALLERS {
                scope.spawn(|| {
                    loop {
                        let session = sessions.lock().ok().and_then(|mut s| s.pop());
                        let Some(session) = session else {
                            return;
                        };
                        self.joiner.leave(&session);
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::sampled;

    #[test]
    fn a_tenth_decrypts_but_at_least_five() {
        for (viewers, share, expected) in [
            (1, None, 1),
            (20, None, 20),
            (21, None, 5),
            (1_000, None, 100),
            (1_000, Some(0.0), 0),
            (10, Some(0.25), 3),
        ] {
            assert_eq!(sampled(viewers, share), expected, "{viewers} {share:?}");
        }
    }
}
