// SPDX-License-Identifier: MPL-2.0

//! What it costs to seal a packet of 1,150 bytes, and to open and read a report. `cargo bench -p sfu-engine --bench srtp`.
//!
//! Sealing one in a quarter of a microsecond is beyond AES without the processor's help: more shows that it is not used.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sfu_engine::rtcp::{Numbers, Rtcp, packets};
use sfu_engine::srtp::{Profile, Role, session};

const PACKET: usize = 1150;
const HEADER: usize = 20;

fn packet() -> Vec<u8> {
    let mut packet = vec![0x5a; PACKET];
    packet[0] = 0x90;
    packet
}

fn rtp(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal rtp");
    group.throughput(Throughput::Bytes(PACKET as u64));
    for profile in Profile::ALL {
        let exported = vec![7; profile.exporter_len()];
        let (mut protect, _) = session(profile, &exported, Role::Server).expect("a session");
        let mut buffer = packet();
        buffer.reserve(profile.rtp_overhead());
        let mut sequence = 0u16;
        let mut roc = 0;
        group.bench_function(format!("{profile:?}"), |b| {
            b.iter(|| {
                buffer.truncate(PACKET);
                sequence = sequence.wrapping_add(1);
                roc += u32::from(sequence == 0);
                buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
                protect
                    .rtp(black_box(&mut buffer), 0, HEADER, roc)
                    .expect("sealed");
            });
        });
    }
    group.finish();
}

fn rtcp(c: &mut Criterion) {
    let mut group = c.benchmark_group("open rtcp");
    for profile in Profile::ALL {
        let exported = vec![7; profile.exporter_len()];
        let (mut protect, _) = session(profile, &exported, Role::Client).expect("a session");
        let (_, mut unprotect) = session(profile, &exported, Role::Server).expect("a session");
        group.bench_function(format!("{profile:?}"), |b| {
            b.iter_batched_ref(
                || {
                    let mut buffer = vec![0x81; 120];
                    protect.rtcp(&mut buffer, 0).expect("sealed");
                    buffer
                },
                |data| black_box(unprotect.rtcp(data).expect("opened").len()),
                // In order: what is older than the window would be refused.
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A report on 50 packets, of which 49 arrived.
fn read(c: &mut Criterion) {
    let mut report = vec![0x8f, 205, 0, 19, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xf0, 0, 50];
    report.extend([0, 0, 2, 9, 0x20, 27, 0xd5, 0x15, 0xbf, 0xff, 0x20, 2]);
    report.resize(80, 4);
    let sent = Numbers {
        first: 0xff00,
        count: 1_000,
    };
    let mut group = c.benchmark_group("read rtcp");
    group.throughput(Throughput::Elements(50));
    group.bench_function("transport-wide feedback", |b| {
        b.iter(|| {
            let mut arrived = 0;
            for packet in packets(black_box(&report)) {
                let Ok(Rtcp::Twcc(report)) = packet else {
                    panic!("another packet");
                };
                arrived += report
                    .packets(sent)
                    .filter(|packet| packet.1.is_some())
                    .count();
            }
            assert_eq!(arrived, 49);
        });
    });
    group.finish();
}

fn sessions(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    for profile in Profile::ALL {
        let exported = vec![7; profile.exporter_len()];
        group.bench_function(format!("{profile:?}"), |b| {
            b.iter(|| session(profile, black_box(&exported), Role::Server).expect("a session"));
        });
    }
    group.finish();
}

criterion_group!(benches, rtp, rtcp, read, sessions);
criterion_main!(benches);
