// SPDX-License-Identifier: MPL-2.0

//! A day of one viewer: every number that can wrap does, nobody sees it, and the memory stays what it was.

use std::time::Duration;

use sfu_impair::Conditions;

use crate::alone;
use crate::net::good;
use crate::world::World;

const HOUR: Duration = Duration::from_secs(3_600);
/// The last seconds of each hour are without loss, so that all is repaired when it is looked at.
const CALM: Duration = Duration::from_secs(10);

/// Bytes that the process has from the allocator.
pub(crate) fn live() -> usize {
    #[repr(C)]
    struct Mallinfo2 {
        arena: usize,
        ordblks: usize,
        smblks: usize,
        hblks: usize,
        hblkhd: usize,
        usmblks: usize,
        fsmblks: usize,
        uordblks: usize,
        fordblks: usize,
        keepcost: usize,
    }
    unsafe extern "C" {
        fn mallinfo2() -> Mallinfo2;
    }
    // SAFETY: it takes nothing, and its result is the structure of mallinfo(3).
    let info = unsafe { mallinfo2() };
    info.uordblks + info.hblkhd
}

#[test]
fn a_day_passes_unnoticed() {
    let _alone = alone();
    let mut world = World::new(1, 2);
    world.publisher.use_vp8();
    world.publisher.with_sound = false;
    world.publisher.every = Duration::from_millis(500);
    world.publisher.delta_packets = 1;
    world.publisher.keyframe_every = 40;
    let lossy = Conditions {
        loss: 0.005,
        ..good()
    };
    let viewer = world.join(good(), Some("0"));
    world.run_for(Duration::from_secs(60));
    let (mut frames, mut first_hour) = (0, 0);
    let hours = std::env::var("SFU_HOURS").ok().and_then(|h| h.parse().ok());
    let hours: u64 = hours.unwrap_or(24).max(24);
    for hour in 1..=hours {
        world.set_link(viewer, lossy);
        world.set_layer(viewer, Some(if hour % 2 == 0 { "0" } else { "1" }));
        world.run_for(HOUR - CALM);
        world.set_link(viewer, good());
        world.run_for(CALM);
        let seen = &mut world.viewers[viewer].0;
        let decoded = seen.decoded();
        assert!(
            decoded.gaps == 0 && decoded.broken == 0 && !decoded.time_went_back,
            "hour {hour}: {decoded:?}"
        );
        assert_eq!(decoded.miscounted, 0, "hour {hour}: picture ids");
        seen.forget();
        let kept = seen.decoded().frames;
        assert!(kept <= 40, "hour {hour}: {kept}");
        frames += decoded.frames - kept;
        match hour {
            // By then every ring has been gone through.
            2 => first_hour = live(),
            3.. => assert!(
                live() < first_hour + 64 * 1_024,
                "hour {hour}: {} bytes after {first_hour}",
                live()
            ),
            _ => {}
        }
    }
    let packets = world.sessions[viewer].info().packets_sent;
    assert!(
        packets > 3 << 16,
        "the sequence number has wrapped: {packets}"
    );
    assert!(
        frames.abs_diff(hours * 7_200) < 200,
        "two frames a second: {frames}"
    );
    let info = world.sessions[viewer].info();
    assert!(info.retransmitted > 500, "{} repairs", info.retransmitted);
    assert!(info.estimate.is_some(), "arrivals are still understood");
    assert_eq!(world.counters.snapshot().datagrams_invalid, 0);
}
