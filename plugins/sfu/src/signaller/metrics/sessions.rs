// SPDX-License-Identifier: MPL-2.0

//! What viewers get, and what their networks carry. None is named: they are counted by layer and by reason.

use std::collections::HashMap;
use std::fmt;

use sfu_engine::{SessionInfo, StreamInfo, Why};

use super::page::Page;

pub(super) fn write(
    page: &mut Page<'_>,
    streams: &[StreamInfo],
    sessions: &[SessionInfo],
) -> fmt::Result {
    let publishers = sessions.iter().filter(|s| s.publishes).count();
    let mut family = page.gauges("sfu_sessions_by_kind", "Sessions by what they do.")?;
    family.add(&[("kind", "publisher")], publishers as i64)?;
    family.add(&[("kind", "viewer")], (sessions.len() - publishers) as i64)?;
    let viewers = || sessions.iter().filter(|s| !s.publishes && s.connected);
    layers(page, streams, viewers())?;
    let mut reasons = page.gauges(
        "sfu_viewers_by_reason",
        "Connected viewers by why they get no better layer.",
    )?;
    for why in Why::ALL {
        let count = viewers().filter(|s| s.why == why).count();
        reasons.add(&[("why", why.as_str())], count as i64)?;
    }
    type Figure = (&'static str, &'static str, fn(&SessionInfo) -> Option<f64>);
    let figures: [Figure; 3] = [
        (
            "sfu_viewers_rtt_seconds",
            "Round trip time of connected viewers: half of them, and nineteen of twenty, have no longer one.",
            |s| s.rtt.map(|rtt| rtt.as_secs_f64()),
        ),
        (
            "sfu_viewers_loss_ratio",
            "Share of packets that connected viewers last reported as lost.",
            |s| s.loss.map(f64::from),
        ),
        (
            "sfu_viewers_estimate_bits",
            "What networks of connected viewers are taken to carry, in bit/s.",
            |s| s.estimate.map(|bits| bits as f64),
        ),
    ];
    for (name, help, value) in figures {
        let mut values: Vec<_> = viewers().filter_map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let mut family = page.gauges(name, help)?;
        for (label, percent) in [("5", 5), ("50", 50), ("95", 95)] {
            let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
            if let Some(value) = values.get(rank) {
                family.add(&[("percentile", label)], *value)?;
            }
        }
    }
    Ok(())
}

/// How many get each layer of those streams that have figures of their own.
fn layers<'a>(
    page: &mut Page<'_>,
    streams: &[StreamInfo],
    viewers: impl Iterator<Item = &'a SessionInfo>,
) -> fmt::Result {
    let mut counts: HashMap<(&str, &str), i64> = HashMap::new();
    for viewer in viewers {
        if let Some(rid) = &viewer.current {
            *counts
                .entry((viewer.stream.as_str(), rid.as_str()))
                .or_default() += 1;
        }
    }
    let mut family = page.gauges(
        "sfu_layer_viewers",
        "Connected viewers that get this layer.",
    )?;
    for stream in streams {
        for layer in stream.video.iter().flat_map(|video| &video.layers) {
            let (stream, rid) = (stream.name.as_str(), layer.rid.as_str());
            let count = counts.get(&(stream, rid)).copied().unwrap_or(0);
            family.add(&[("stream", stream), ("rid", rid)], count)?;
        }
    }
    Ok(())
}
