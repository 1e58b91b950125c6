// SPDX-License-Identifier: MPL-2.0

//! What a run found: as JSON, and in words.

use std::time::Duration;

use serde::Serialize;

use crate::joins::Joins;
use crate::process::Usage;
use crate::stats::{Histogram, percentile};
use crate::swarm::Snapshot;
use crate::viewer::Summary;

/// A packet that takes longer is late.
const LATE: Duration = Duration::from_millis(50);

/// The JSON object of `--json`. Figures that were not measured are null.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub viewers: usize,
    pub viewers_connected: usize,
    pub viewers_with_picture: usize,
    pub viewers_decrypted: usize,
    /// Of all viewers together, over the steady part, without retransmissions.
    pub packets_per_second: f64,
    pub steady_seconds: f64,
    pub lost_packets: u64,
    pub repaired_packets: u64,
    pub unrepaired_packets: u64,
    pub retransmitted_packets: u64,
    pub nacks_sent: u64,
    pub keyframe_requests_sent: u64,
    pub undecryptable_packets: u64,
    pub broken_frames: u64,
    pub frames_per_second_per_viewer: f64,
    pub link_dropped_datagrams: u64,
    pub join_ms_p50: Option<f64>,
    pub join_ms_p99: Option<f64>,
    pub forward_delay_ms_p50: Option<f64>,
    pub forward_delay_ms_p99: Option<f64>,
    pub forward_delay_ms_max: Option<f64>,
    /// From a keyframe's first packet at the generator until a viewer has all of it, of all viewers.
    pub keyframe_end_ms_p50: Option<f64>,
    pub keyframe_end_ms_p99: Option<f64>,
    pub keyframe_end_ms_max: Option<f64>,
    pub audio_delay_ms_p50: Option<f64>,
    pub audio_delay_ms_p99: Option<f64>,
    pub audio_lost_packets: u64,
    /// Packets whose delay was measured, and those that took more than 50 ms.
    pub packets_timed: u64,
    pub packets_late: u64,
    pub cpu_us_per_packet: Option<f64>,
    pub cpu_user_us_per_packet: Option<f64>,
    pub cpu_system_us_per_packet: Option<f64>,
    pub cpu_percent: Option<f64>,
    pub memory_bytes_per_viewer: Option<f64>,
    /// Of `--joins`.
    pub joins: Option<Joins>,
    /// CPU of this tool itself, to see whether it was the limit.
    pub load_cpu_percent: Option<f64>,
    /// Viewers that failed, or that the server sent away.
    pub viewers_failed: usize,
    /// The first few reasons of that.
    pub errors: Vec<String>,
}

/// Sums over all viewers of a moment.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub connected: usize,
    pub pictures: usize,
    pub packets: u64,
    pub whole_frames: u64,
    pub lost: u64,
    pub audio_lost: u64,
    pub repaired: u64,
    pub unrepaired: u64,
    pub retransmissions: u64,
    pub nacks: u64,
    pub plis: u64,
    pub undecryptable: u64,
    pub broken_frames: u64,
    pub joins_ms: Vec<f64>,
    pub failed: Vec<String>,
}

impl Totals {
    /// Adds up.
    pub fn of<'a>(viewers: impl Iterator<Item = &'a Summary>) -> Self {
        let mut totals = Self::default();
        for viewer in viewers {
            totals.connected += usize::from(viewer.connected);
            totals.pictures += usize::from(viewer.picture);
            totals.packets += viewer.counts.packets + viewer.audio_packets;
            totals.whole_frames += viewer.whole_frames;
            totals.lost += viewer.counts.lost;
            totals.audio_lost += viewer.audio_lost;
            totals.repaired += viewer.counts.repaired;
            totals.unrepaired += viewer.counts.unrepaired;
            totals.retransmissions += viewer.retransmissions;
            totals.nacks += viewer.counts.nacks;
            totals.plis += viewer.counts.plis;
            totals.undecryptable += viewer.undecryptable;
            totals.broken_frames += viewer.broken_frames;
            totals
                .joins_ms
                .extend(viewer.join.map(|j| j.as_secs_f64() * 1_000.0));
            totals.failed.extend(viewer.failed.clone());
        }
        totals
    }

    /// Of several threads.
    pub fn of_snapshots(snapshots: &[Snapshot]) -> Self {
        Self::of(snapshots.iter().flat_map(|s| &s.viewers))
    }
}

impl Report {
    /// The state of the viewers at the end, and the rates since the steady part began.
    pub fn set_viewers(&mut self, began: &Totals, end: Totals, steady: Duration) {
        let seconds = steady.as_secs_f64().max(f64::MIN_POSITIVE);
        self.steady_seconds = rounded(seconds);
        self.viewers_connected = end.connected;
        self.viewers_with_picture = end.pictures;
        self.packets_per_second = rounded((end.packets - began.packets) as f64 / seconds);
        let frames = (end.whole_frames - began.whole_frames) as f64 / seconds;
        self.frames_per_second_per_viewer = rounded(frames / self.viewers.max(1) as f64);
        self.lost_packets = end.lost;
        self.audio_lost_packets = end.audio_lost;
        self.repaired_packets = end.repaired;
        self.unrepaired_packets = end.unrepaired;
        self.retransmitted_packets = end.retransmissions;
        self.nacks_sent = end.nacks;
        self.keyframe_requests_sent = end.plis;
        self.undecryptable_packets = end.undecryptable;
        self.broken_frames = end.broken_frames;
        let mut joins = end.joins_ms;
        self.join_ms_p50 = percentile(&mut joins, 0.5).map(rounded);
        self.join_ms_p99 = percentile(&mut joins, 0.99).map(rounded);
        self.viewers_failed = end.failed.len();
        self.add_errors(end.failed);
    }

    /// Keeps a few, each once.
    pub fn add_errors(&mut self, errors: Vec<String>) {
        self.errors.extend(errors);
        self.errors.sort();
        self.errors.dedup();
        self.errors.truncate(5);
    }

    /// How late packets, audio, and the ends of keyframes were.
    pub fn set_delays(&mut self, snapshots: &[Snapshot]) {
        let merged = |part: fn(&Snapshot) -> &Histogram| {
            let mut all = Histogram::default();
            snapshots.iter().for_each(|s| all.merge(part(s)));
            all
        };
        let at = |histogram: &Histogram, share| histogram.percentile_ms(share).map(rounded);
        let delays = merged(|s| &s.delays);
        self.forward_delay_ms_p50 = at(&delays, 0.5);
        self.forward_delay_ms_p99 = at(&delays, 0.99);
        self.forward_delay_ms_max = at(&delays, 1.0);
        self.packets_timed = delays.count();
        self.packets_late = delays.above(LATE);
        let keyframes = merged(|s| &s.keyframe_ends);
        self.keyframe_end_ms_p50 = at(&keyframes, 0.5);
        self.keyframe_end_ms_p99 = at(&keyframes, 0.99);
        self.keyframe_end_ms_max = at(&keyframes, 1.0);
        let audio = merged(|s| &s.audio_delays);
        self.audio_delay_ms_p50 = at(&audio, 0.5);
        self.audio_delay_ms_p99 = at(&audio, 0.99);
    }

    /// CPU of the server over the steady part, and its memory by the viewers.
    pub fn set_server(&mut self, before: Usage, began: Usage, end: Usage) {
        let packets = self.packets_per_second * self.steady_seconds;
        let all = end.since(&began);
        // Ticks say what share was the kernel's.
        let ticks = (end.user + end.system).saturating_sub(began.user + began.system);
        let share = end.system.saturating_sub(began.system).as_secs_f64()
            / ticks.as_secs_f64().max(f64::MIN_POSITIVE);
        let system = all.mul_f64(share.min(1.0));
        let user = all.saturating_sub(system);
        let each =
            |time: Duration| (packets > 0.0).then(|| rounded(time.as_secs_f64() * 1e6 / packets));
        self.cpu_us_per_packet = each(all);
        self.cpu_user_us_per_packet = each(user);
        self.cpu_system_us_per_packet = each(system);
        self.cpu_percent = percent(all, self.steady_seconds);
        let grown = end.rss_bytes as f64 - before.rss_bytes as f64;
        self.memory_bytes_per_viewer = Some((grown / self.viewers.max(1) as f64).round());
    }

    /// CPU of this process over the steady part.
    pub fn set_own(&mut self, began: Usage, end: Usage) {
        self.load_cpu_percent = percent(end.since(&began), self.steady_seconds);
    }

    /// For a person.
    pub fn in_words(&self) -> String {
        let show = |value: Option<f64>, unit: &str| {
            value.map_or("-".to_owned(), |v| format!("{v} {unit}"))
        };
        let mut text = format!(
            "{} of {} viewers have a picture; {} packets/s; lost {}, unrepaired {}\n\
             join: median {}, 99 %: {}; forward delay: median {}, 99 %: {}; {} of {} packets later than 50 ms\n",
            self.viewers_with_picture,
            self.viewers,
            self.packets_per_second,
            self.lost_packets,
            self.unrepaired_packets,
            show(self.join_ms_p50, "ms"),
            show(self.join_ms_p99, "ms"),
            show(self.forward_delay_ms_p50, "ms"),
            show(self.forward_delay_ms_p99, "ms"),
            self.packets_late,
            self.packets_timed,
        );
        if self.keyframe_end_ms_p50.is_some() {
            text += &format!(
                "keyframes' ends: median {}, 99 %: {}; audio: median {}, 99 %: {}, lost {}\n",
                show(self.keyframe_end_ms_p50, "ms"),
                show(self.keyframe_end_ms_p99, "ms"),
                show(self.audio_delay_ms_p50, "ms"),
                show(self.audio_delay_ms_p99, "ms"),
                self.audio_lost_packets,
            );
        }
        if self.cpu_us_per_packet.is_some() {
            text += &format!(
                "server: {} a packet ({} user, {} system), {} of a core, {} a viewer\n",
                show(self.cpu_us_per_packet, "µs"),
                show(self.cpu_user_us_per_packet, "µs"),
                show(self.cpu_system_us_per_packet, "µs"),
                show(self.cpu_percent, "%"),
                show(self.memory_bytes_per_viewer.map(|b| rounded(b / 1e3)), "kB"),
            );
        }
        text += &self.joins.as_ref().map_or(String::new(), Joins::in_words);
        for error in &self.errors {
            text += &format!("error: {error}\n");
        }
        text
    }
}

fn percent(time: Duration, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| rounded(time.as_secs_f64() / seconds * 100.0))
}

/// Two decimals are enough for anybody.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_steady_part_only() {
        let mut report = Report {
            viewers: 2,
            ..Report::default()
        };
        let began = Totals {
            packets: 1_000,
            ..Totals::default()
        };
        let end = Totals {
            packets: 3_000,
            pictures: 2,
            joins_ms: vec![10.0, 30.0],
            ..Totals::default()
        };
        report.set_viewers(&began, end, Duration::from_secs(10));
        assert_eq!(
            (report.packets_per_second, report.join_ms_p99),
            (200.0, Some(30.0))
        );
        let usage = |ms, rss_bytes| Usage {
            user: Duration::from_millis(ms),
            system: Duration::from_millis(2 * ms),
            scheduled: Duration::from_millis(3 * ms),
            rss_bytes,
        };
        report.set_server(usage(0, 1_000), usage(100, 0), usage(104, 5_000));
        assert_eq!(report.cpu_us_per_packet, Some(6.0));
        assert_eq!(report.cpu_system_us_per_packet, Some(4.0));
        assert_eq!(report.memory_bytes_per_viewer, Some(2_000.0));
        assert!(report.in_words().contains("6 µs a packet"));
    }
}
