// SPDX-License-Identifier: MPL-2.0

//! CPU time and memory of the server's process, from /proc (proc(5)), and this process' own limits.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    /// Of all threads that live, by the scheduler, in nanoseconds instead of ticks.
    pub scheduled: Duration,
    pub rss_bytes: u64,
}

impl Usage {
    /// The CPU time since `before`: exact, but where a thread has ended meanwhile and taken its own along.
    pub fn since(&self, before: &Self) -> Duration {
        let ticks = (self.user + self.system).saturating_sub(before.user + before.system);
        let exact = self.scheduled.saturating_sub(before.scheduled);
        if exact.abs_diff(ticks) <= TICKS {
            exact
        } else {
            ticks
        }
    }
}

/// How far ticks may be off.
const TICKS: Duration = Duration::from_millis(25);

/// The first field of each thread's schedstat (Documentation/scheduler/sched-stats.rst of Linux).
fn scheduled(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// Reads a process' usage.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("--pid {pid}: {path}"))
    };
    let (user, system) = cpu_ticks(&read("stat")?).context("/proc/PID/stat has another form")?;
    let rss = resident(&read("status")?).context("/proc/PID/status has another form")?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let time = |count| Duration::from_secs_f64(count as f64 / ticks as f64);
    Ok(Usage {
        user: time(user),
        system: time(system),
        scheduled: scheduled(pid),
        rss_bytes: rss,
    })
}

/// The fields utime and stime. The name before them is in brackets and may hold anything.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

/// Lets this process open files for `wanted` sockets, as far as the system does.
pub fn raise_file_limit(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    let raise = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current, maximum });
    // Root may go beyond the hard limit.
    raise(Some(wanted), maximum)
        .or_else(|_| raise(limit.maximum, limit.maximum))
        .context("the limit of open files can't be raised (ulimit -n)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 123 45 0 0 20";
        assert_eq!(cpu_ticks(stat), Some((123, 45)));
        assert_eq!(cpu_ticks("42 (a"), None);
        assert_eq!(resident("Name:\ta\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
        assert_eq!(resident("Name:\ta\n"), None);
        let own = usage(std::process::id()).unwrap();
        assert!(own.rss_bytes > 0 && own.since(&own).is_zero());
        let of = |user, scheduled| Usage {
            user: Duration::from_millis(user),
            scheduled: Duration::from_millis(scheduled),
            ..Usage::default()
        };
        let took = |end: Usage, began| end.since(&began).as_millis();
        assert_eq!(took(of(110, 1_013), of(100, 1_000)), 13, "exact");
        assert_eq!(took(of(900, 1_000), of(100, 900)), 800, "a thread ended");
        assert!(usage(u32::MAX).is_err());
    }
}
