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
    pub rss_bytes: u64,
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
        assert!(usage(std::process::id()).unwrap().rss_bytes > 0);
        assert!(usage(u32::MAX).is_err());
    }
}
