// SPDX-License-Identifier: MPL-2.0

//! What the process takes of the machine, by the names that Prometheus' own clients give these figures.

use std::fmt;

use sfu_engine::ShardInfo;

use super::page::Page;

#[cfg(target_os = "linux")]
pub(super) fn write(page: &mut Page<'_>) -> fmt::Result {
    use procfs::prelude::*;
    use procfs::process::{LimitValue, Process};

    let Ok(process) = Process::myself() else {
        return Ok(());
    };
    if let Ok(stat) = process.stat() {
        page.counter(
            "process_cpu_seconds",
            "Time of cores that the process took.",
            seconds(&stat),
        )?;
        let memory = usize::try_from(stat.rss_bytes().get()).unwrap_or(usize::MAX);
        page.gauge("process_resident_memory_bytes", "Memory in use.", memory)?;
        let space = usize::try_from(stat.vsize).unwrap_or(usize::MAX);
        page.gauge("process_virtual_memory_bytes", "Addresses in use.", space)?;
        let threads = usize::try_from(stat.num_threads).unwrap_or(0);
        page.gauge("process_threads", "Threads.", threads)?;
        if let Ok(boot) = procfs::boot_time_secs() {
            let began = boot as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64;
            let mut family = page.gauges(
                "process_start_time_seconds",
                "When the process began, in seconds since 1970.",
            )?;
            family.add(&[], began)?;
        }
    }
    if let Ok(open) = process.fd_count() {
        page.gauge("process_open_fds", "Open descriptors.", open)?;
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        page.gauge("process_max_fds", "Descriptors that there may be.", most)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write(_: &mut Page<'_>) -> fmt::Result {
    Ok(())
}

#[cfg(target_os = "linux")]
fn seconds(stat: &procfs::process::Stat) -> f64 {
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}

/// What a shard's thread took of a core, where the system tells.
#[cfg(target_os = "linux")]
pub(in crate::signaller) fn shard_seconds(shard: &ShardInfo) -> Option<f64> {
    let thread = i32::try_from(shard.thread?).ok()?;
    let process = procfs::process::Process::myself().ok()?;
    let stat = process.task_from_tid(thread).ok()?.stat().ok()?;
    Some(seconds(&stat))
}

#[cfg(not(target_os = "linux"))]
pub(in crate::signaller) fn shard_seconds(_: &ShardInfo) -> Option<f64> {
    None
}
