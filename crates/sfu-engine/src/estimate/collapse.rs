// SPDX-License-Identifier: MPL-2.0

//! Sees a network's collapse at once: packets that arrive much more slowly than they were sent, or not at all.
//!
//! What smooths takes seconds from 5 Mbit/s to 600 kbit/s; a layer that no longer fits must end sooner. While a queue
//! builds up, the rate at which it lets packets through is the network's capacity.

use std::collections::VecDeque;

use super::arrivals::{Cell, rate};

/// A rate over less time than this says nothing, in µs.
const SPAN: i32 = 100_000;
/// A queue that has grown by less may be jitter, in µs.
const GROWTH: i32 = 80_000;
/// Delays that differ by less are the same, in µs.
const FLAT: i32 = 10_000;
/// Packets must arrive at less than this share of the rate at which they were sent.
const SLOWER: f64 = 0.7;
/// More than this share is lost by congestion only; counted over at least so many packets.
const LOST: f64 = 0.35;
const LOST_OF: u32 = 30;

/// What gets through in bit/s, where the arrivals tell of a collapse.
pub(super) fn capacity(cells: &VecDeque<Cell>) -> Option<f64> {
    slowed(cells).or_else(|| lossy(cells))
}

/// A queue builds up: packets arrive more slowly than they were sent, from the shortest delay on.
fn slowed(cells: &VecDeque<Cell>) -> Option<f64> {
    let last = cells.back()?;
    let shortest = cells.iter().map(|c| c.least_delay).min()?;
    if last.delay.saturating_sub(shortest) < GROWTH {
        return None;
    }
    let begins = cells
        .iter()
        .rposition(|c| c.least_delay <= shortest + FLAT)?;
    let first = &cells[begins];
    let span = last.arrived.since(first.arrived);
    let growth = last.delay.saturating_sub(first.least_delay);
    if growth < GROWTH || span < SPAN {
        return None;
    }
    let since = || cells.iter().skip(begins + 1);
    let bytes = since().map(|c| c.bytes).sum();
    let slower = f64::from(last.sent.since(first.sent)) < f64::from(span) * SLOWER;
    // A queue lets packets through one by one; after a stall, theirs or ours, they come all at once.
    let longest = since().map(|c| c.gap).max().unwrap_or(span);
    // Nor is a single step a queue: that is the viewer's clock or another route.
    let steady = longest.saturating_mul(2) < span && growth - longest >= GROWTH / 2;
    (slower && steady).then(|| rate(bytes, span))
}

/// So much is lost, all the time, that it is no accident.
fn lossy(cells: &VecDeque<Cell>) -> Option<f64> {
    let (first, last) = (cells.front()?, cells.back()?);
    let span = last.arrived.since(first.arrived);
    let packets = |c: &Cell| u32::from(c.packets) + u32::from(c.lost);
    let all: u32 = cells.iter().map(packets).sum();
    if all < LOST_OF || span < SPAN {
        return None;
    }
    // In both halves: an outage loses many at once, and is over.
    let (mut seen, mut lost) = (0, [0u32; 2]);
    for cell in cells {
        lost[usize::from(seen >= all / 2)] += u32::from(cell.lost);
        seen += packets(cell);
    }
    let much = |lost: u32, of: u32, share: f64| f64::from(lost) > f64::from(of) * share;
    let heavy = much(lost[0] + lost[1], all, LOST);
    let throughout = lost.iter().all(|&l| much(l, all / 2, LOST / 2.0));
    let bytes = cells.iter().skip(1).map(|c| c.bytes).sum();
    (heavy && throughout).then(|| rate(bytes, span))
}
