// SPDX-License-Identifier: MPL-2.0

//! The packets of the last half second that reports spoke of, in cells of 5 ms.

use std::collections::VecDeque;

use super::clock::Tick;

/// What was sent, and has arrived, within this time is one cell; in µs.
const CELL: i32 = 5_000;
/// Arrivals that are looked at, in µs.
const WINDOW: i32 = 500_000;
/// More cells than half a second makes are not kept.
const CELLS: usize = 128;
/// A rate over less time than this says nothing, in µs.
const SPAN: i32 = 200_000;
/// Delays and gaps beyond this are no more than nonsense, and sums of them must fit. In µs.
const FAR: i32 = 1 << 28;

/// Of a cell: more is no more than nonsense, and the sum of all cells must fit.
const CELL_BYTES: u32 = 1 << 24;

/// Packets that were sent and have arrived together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    /// When the first and the last one left and came.
    sent_first: Tick,
    pub(super) sent: Tick,
    arrived_first: Tick,
    pub(super) arrived: Tick,
    /// Of those that came.
    pub(super) bytes: u32,
    /// The longest wait for one of them since the one before it.
    pub(super) gap: i32,
    /// Delays are µs since the earliest comparable moment: the clocks have no common zero.
    pub(super) least_delay: i32,
    pub(super) delay: i32,
    pub(super) packets: u16,
    pub(super) lost: u16,
}

impl Cell {
    fn add(&mut self, bytes: u16) {
        self.bytes = (self.bytes + u32::from(bytes)).min(CELL_BYTES);
        self.packets = self.packets.saturating_add(1);
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Arrivals {
    cells: VecDeque<Cell>,
    /// The first delay, from which others count.
    origin: Option<u32>,
    /// How much the delay differs from burst to burst: its smoothed mean, in µs.
    jitter: i32,
    burst_delay: i32,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            cells: VecDeque::with_capacity(CELLS),
            origin: None,
            jitter: 0,
            burst_delay: 0,
        }
    }

    /// A packet arrived. Returns its delay.
    pub(super) fn received(&mut self, sent: Tick, arrived: Tick, bytes: u16) -> i32 {
        let raw = arrived.0.wrapping_sub(sent.0);
        let origin = *self.origin.get_or_insert(raw);
        let delay = raw.wrapping_sub(origin).cast_signed().clamp(-FAR, FAR);
        let before = self.cells.back_mut();
        let gap = before.as_ref().map_or(0, |c| arrived.since(c.arrived));
        let gap = gap.clamp(0, FAR);
        if let Some(cell) = before
            && sent.since(cell.sent_first) <= CELL
            && arrived.since(cell.arrived_first) <= CELL
        {
            cell.sent = sent;
            cell.arrived = arrived;
            cell.add(bytes);
            cell.gap = cell.gap.max(gap);
            cell.least_delay = cell.least_delay.min(delay);
            cell.delay = delay;
            return delay;
        }
        self.note_burst(sent, delay);
        if self.cells.len() == CELLS {
            self.cells.pop_front();
        }
        self.cells.push_back(Cell {
            sent_first: sent,
            sent,
            arrived_first: arrived,
            arrived,
            bytes: bytes.into(),
            gap,
            least_delay: delay,
            delay,
            packets: 1,
            lost: 0,
        });
        delay
    }

    /// A packet did not arrive, or (`again`) has arrived later than others after all.
    pub(super) fn lost(&mut self, again: Option<u16>) {
        let Some(cell) = self.cells.back_mut() else {
            return;
        };
        match again {
            None => cell.lost = cell.lost.saturating_add(1),
            Some(bytes) => {
                cell.lost = cell.lost.saturating_sub(1);
                cell.add(bytes);
            }
        }
    }

    /// Forgets what is older than the window.
    pub(super) fn prune(&mut self) {
        let Some(newest) = self.cells.back().map(|c| c.arrived) else {
            return;
        };
        while self
            .cells
            .front()
            .is_some_and(|c| newest.since(c.arrived) > WINDOW)
        {
            self.cells.pop_front();
        }
    }

    /// The viewer's clock has jumped: delays cannot be compared.
    pub(super) fn reset(&mut self) {
        self.cells.clear();
        self.origin = None;
    }

    pub(super) fn cells(&self) -> &VecDeque<Cell> {
        &self.cells
    }

    /// What arrived, in bit/s.
    pub(super) fn throughput(&self) -> Option<f64> {
        let (first, last) = (self.cells.front()?, self.cells.back()?);
        let span = last.arrived.since(first.arrived);
        let bytes: u32 = self.cells.iter().skip(1).map(|c| c.bytes).sum();
        (span >= SPAN).then(|| rate(bytes, span))
    }

    /// How much the delay differs from burst to burst, in µs.
    pub(super) fn jitter(&self) -> i32 {
        self.jitter
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }

    /// The first packet of a burst waits for no other of its own: its delay is the network's.
    fn note_burst(&mut self, sent: Tick, delay: i32) {
        if self.cells.back().is_some_and(|c| sent.since(c.sent) > CELL) {
            let differs = delay.saturating_sub(self.burst_delay).saturating_abs();
            self.jitter += (differs.min(WINDOW) - self.jitter) / 16;
            self.burst_delay = delay;
        }
    }
}

/// Bit/s.
pub(super) fn rate(bytes: u32, span: i32) -> f64 {
    f64::from(bytes) * 8e6 / f64::from(span.max(1))
}
