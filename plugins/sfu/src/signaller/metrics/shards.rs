// SPDX-License-Identifier: MPL-2.0

//! What each shard carries, costs, and gets of the network.

use std::fmt;

use sfu_engine::ShardInfo;

use super::page::Page;
use super::process::shard_seconds;

type Figure = (&'static str, &'static str, fn(&ShardInfo) -> i64);
type Sum = (&'static str, &'static str, fn(&ShardInfo) -> u64);

const GAUGES: [Figure; 5] = [
    (
        "sfu_shard_send_buffer_wanted_bytes",
        "The send buffer that was asked for.",
        |s| s.network.send_buffer_wanted as i64,
    ),
    (
        "sfu_shard_send_buffer_granted_bytes",
        "The send buffer that the kernel granted: below what was asked for, see net.core.wmem_max.",
        |s| s.network.send_buffer_granted as i64,
    ),
    (
        "sfu_shard_send_buffer_bytes",
        "The send buffer as it is now, smaller than the queue of a device that dropped datagrams.",
        |s| s.network.send_buffer as i64,
    ),
    (
        "sfu_shard_segmentation",
        "Whether many datagrams leave as one message (UDP segmentation offload).",
        |s| s.network.segmentation.into(),
    ),
    (
        "sfu_shard_sessions",
        "Sessions of viewers and publishers that the shard runs.",
        |s| s.sessions as i64,
    ),
];

const COUNTERS: [Sum; 4] = [
    (
        "sfu_shard_received_datagrams",
        "Datagrams that the shard has received.",
        |s| s.received.datagrams,
    ),
    ("sfu_shard_received_bytes", "Octets in them.", |s| {
        s.received.octets
    }),
    (
        "sfu_shard_sent_datagrams",
        "Datagrams that the shard has sent.",
        |s| s.sent.datagrams,
    ),
    (
        "sfu_shard_sent_bytes",
        "Octets that have left the shard.",
        |s| s.sent.octets,
    ),
];

pub(super) fn write(page: &mut Page<'_>, shards: &[ShardInfo]) -> fmt::Result {
    let named = || (0..).map(|n: usize| n.to_string()).zip(shards);
    for (name, help, value) in GAUGES {
        let mut family = page.gauges(name, help)?;
        for (shard, info) in named() {
            family.add(&[("shard", &shard)], value(info))?;
        }
    }
    for (name, help, value) in COUNTERS {
        let mut family = page.counters(name, help)?;
        for (shard, info) in named() {
            family.add(&[("shard", &shard)], value(info))?;
        }
    }
    let mut family = page.counters(
        "sfu_shard_cpu_seconds",
        "Time of a core that the shard's thread took: in one second one at most.",
    )?;
    for (shard, info) in named() {
        if let Some(seconds) = shard_seconds(info) {
            family.add(&[("shard", &shard)], seconds)?;
        }
    }
    Ok(())
}
