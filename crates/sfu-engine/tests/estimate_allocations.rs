// SPDX-License-Identifier: MPL-2.0

//! The estimator allocates nothing once it knows a stream's rate: it is called for every packet of every viewer.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use sfu_engine::estimate::{ArrivalEstimator, Estimator};
use sfu_engine::transport::Demand;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: all is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn packets_reports_and_probes_allocate_nothing() {
    const MS: Duration = Duration::from_millis(1);
    let start = Instant::now();
    let mut estimator = ArrivalEstimator::new(start, Some(1_000_000));
    let mut before = 0;
    let mut seq = 0u16;
    let mut reported = 0u16;
    for ms in 0..120_000u32 {
        let now = start + MS * ms;
        if ms == 20_000 {
            before = ALLOCATIONS.get();
        }
        let probe = estimator.poll_timeout().is_some_and(|at| at <= now);
        let padding = if probe { estimator.probe(now).bytes } else { 0 };
        // 300 packets a second, and what is asked for.
        let packets = padding.div_ceil(1_200) + usize::from(ms % 10 < 3);
        for _ in 0..packets {
            estimator.sent(now, seq, 1_200);
            seq = seq.wrapping_add(1);
        }
        // Some are lost, some are held up, and for three seconds there are no reports.
        let silent = (5_000..8_000).contains(&(ms % 30_000));
        if ms % 70 == 69 && !silent {
            let count = seq.wrapping_sub(reported);
            let mut report = (0..count).map(|n| {
                let at = i64::from(ms) * 1_000 - i64::from(count - n) * 2_000;
                let seq = reported.wrapping_add(n);
                (seq, (!seq.is_multiple_of(50)).then_some(at))
            });
            estimator.report(now, &mut report);
            reported = seq;
        }
        if ms % 3_000 == 0 {
            let demand = Demand {
                goal: 5_000_000 + u64::from(ms) * 100,
                probe: true,
                spread: false,
            };
            estimator.set_demand(now, demand);
            estimator.receiver_report(now, 0.01, Some(40 * MS));
        }
        assert!(estimator.estimate(now).is_some());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
