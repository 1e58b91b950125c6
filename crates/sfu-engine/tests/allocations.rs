// SPDX-License-Identifier: MPL-2.0

//! What SRTP and RTCP take from the allocator: nothing for a packet or a report, at most 4 kB for a session.
//!
//! Rust's allocator does not see what the C library of `aws-lc-rs` takes, so `malloc` itself is counted here.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]

mod counting;

use std::hint::black_box;
use std::mem::size_of;

use sfu_engine::rtcp::{Numbers, Rtcp, SenderReport, packets, write_bye, write_sender_report};
use sfu_engine::srtp::{Profile, Protect, Role, Unprotect, session};

use counting::taken;

/// Of which a report speaks.
const SENT: Numbers = Numbers {
    first: 0,
    count: 1_000,
};

fn make(profile: Profile, role: Role) -> (Protect, Unprotect) {
    session(profile, &vec![3; profile.exporter_len()], role).expect("keys fit")
}

#[test]
fn the_counter_counts() {
    let (calls, bytes, _) = taken(|| black_box(vec![1u8; 100]));
    assert_eq!((calls, bytes), (1, 100));
}

#[test]
fn a_packet_allocates_nothing() {
    for profile in Profile::ALL {
        let (mut protect, _) = make(profile, Role::Client);
        let (_, mut unprotect) = make(profile, Role::Server);
        let mut buffer = Vec::with_capacity(64 * 1200);
        let (calls, _, opened) = taken(|| {
            let mut opened = 0;
            for index in 0..100_000u32 {
                if index % 50 == 0 {
                    buffer.clear();
                }
                let start = buffer.len();
                buffer.resize(start + 1150, 0x80);
                buffer[start + 2..start + 4].copy_from_slice(&(index as u16).to_be_bytes());
                let sealed = protect.rtp(&mut buffer, start, 20, index >> 16);
                let report = buffer.len();
                buffer.resize(report + 60, 0x81);
                assert!(sealed.is_ok() && protect.rtcp(&mut buffer, report).is_ok());
                opened += usize::from(unprotect.rtcp(&mut buffer[report..]).is_ok());
            }
            opened
        });
        assert_eq!(opened, 100_000, "{profile:?}");
        assert_eq!(calls, 0, "{profile:?}");
    }
}

#[test]
fn a_report_is_read_and_written_without_allocation() {
    let mut data = vec![0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0xff, 0xff];
    data.extend([
        0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9, 0, 5, 0, 0, 2, 9,
    ]);
    data.extend([0x20, 5, 1, 2, 3, 4, 5, 0]);
    let report = SenderReport {
        ssrc: 1,
        ntp_time: 2,
        rtp_time: 3,
        packets: 4,
        octets: 5,
    };
    let mut buffer = Vec::with_capacity(256);
    let (calls, _, read) = taken(|| {
        write_sender_report(&mut buffer, &report, "a name");
        write_bye(&mut buffer, &[1, 2]);
        packets(black_box(&data))
            .flatten()
            .map(|packet| match packet {
                Rtcp::Nack { lost, .. } => lost.count(),
                Rtcp::Twcc(report) => report.packets(SENT).count(),
                _ => 0,
            })
            .sum::<usize>()
    });
    assert_eq!((calls, read), (0, 17 + 5));
}

#[test]
fn a_session_takes_at_most_4_kb() {
    for profile in Profile::ALL {
        drop(make(profile, Role::Server));
        let exported = vec![3; profile.exporter_len()];
        let (_, heap, kept) = taken(|| session(profile, &exported, Role::Server));
        assert!(kept.is_ok());
        let own = size_of::<Protect>() + size_of::<Unprotect>();
        println!("{profile:?}: {own} bytes and {heap} of heap");
        assert!(own + heap <= 4096, "{profile:?}: {own} + {heap}");
    }
}
