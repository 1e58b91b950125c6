// SPDX-License-Identifier: MPL-2.0

//! The estimator's cost for each packet. `cargo bench -p sfu-engine --bench estimate`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sfu_engine::estimate::{ArrivalEstimator, Estimator};

/// Reports come each 100 ms, on 27 packets: 2.5 Mbit/s in frames of 9 packets.
const FRAMES: u16 = 3;
const PACKETS: u16 = 9;

/// Viewers in turn, so that their memory is not always at hand.
const VIEWERS: usize = 500;

struct Viewer {
    estimator: ArrivalEstimator,
    seq: u16,
}

/// A tenth of a second. `reported`: with its report.
fn tenth(viewer: &mut Viewer, now: Instant, start: Instant, reported: bool) {
    let first = viewer.seq;
    for frame in 0..FRAMES {
        let now = now + Duration::from_millis(33) * u32::from(frame);
        for _ in 0..PACKETS {
            viewer.estimator.sent(now, viewer.seq, 1_150);
            viewer.seq = viewer.seq.wrapping_add(1);
        }
    }
    if reported {
        let micros = (now - start).as_micros() as i64;
        let mut packets = (0..FRAMES * PACKETS).map(|n| {
            let at = micros + i64::from(n / PACKETS) * 33_000 + i64::from(n % PACKETS) * 2_000;
            (first.wrapping_add(n), Some(at))
        });
        let now = now + Duration::from_millis(100);
        viewer.estimator.report(now, &mut packets);
        black_box(viewer.estimator.estimate(now));
    }
}

fn packets(c: &mut Criterion) {
    let start = Instant::now();
    let mut group = c.benchmark_group("estimate");
    group.throughput(Throughput::Elements(u64::from(FRAMES * PACKETS)));
    for (name, reported) in [("sent", false), ("sent and reported", true)] {
        let viewer = || Viewer {
            estimator: ArrivalEstimator::new(start, Some(1_000_000)),
            seq: 0,
        };
        let mut viewers: Vec<Viewer> = (0..VIEWERS).map(|_| viewer()).collect();
        let mut turn = 0;
        group.bench_function(format!("27 packets {name}, {VIEWERS} viewers"), |b| {
            b.iter(|| {
                let now = start + Duration::from_millis(100) * (turn / VIEWERS) as u32;
                tenth(&mut viewers[turn % VIEWERS], now, start, reported);
                turn += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(estimate, packets);
criterion_main!(estimate);
