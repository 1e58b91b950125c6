// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::ids::Rid;
use crate::layers::{LayerInfo, TemporalCosts};

const SECOND: Duration = Duration::from_secs(1);

/// Layers of 2,000, 600 and 200 kbit/s, 720, 360 and 180 lines high.
fn ladder(active: [bool; 3]) -> Vec<Candidate> {
    let layer = |(index, active): (usize, bool)| Candidate {
        info: LayerInfo {
            rid: Rid::from_index(index),
            width: None,
            height: Some([720, 360, 180][index]),
            target_bitrate: None,
        },
        bitrate: None,
        cost: Some([2_000_000, 600_000, 200_000][index]),
        most: None,
        active,
        temporal: TemporalCosts::default(),
        from_above: 0,
    };
    active.into_iter().enumerate().map(layer).collect()
}

fn layer(selector: &Selector) -> Option<usize> {
    selector.rung.map(|rung| rung.layer)
}

fn estimate(kilobits: u64, congested: bool) -> Estimate {
    Estimate {
        bits_per_second: kilobits * 1_000,
        congested,
        guessed: false,
    }
}

/// Time and an estimate go by in steps, as a shard calls; returns when the choice first changed, and to what.
fn run(
    selector: &mut Selector,
    from: Instant,
    time: Duration,
    estimate: Estimate,
) -> Option<(Duration, Choice)> {
    selector.set_estimate(estimate);
    let before = layer(selector);
    let mut now = from;
    while now < from + time {
        let choice = selector.choose(now, &ladder([true; 3]), 50_000);
        if choice.layer() != before {
            selector.begin(now);
            return Some((now - from, choice));
        }
        now += Duration::from_millis(100);
    }
    None
}

#[test]
fn what_is_wanted_and_sent_decides_where_nothing_is_estimated() {
    let pin = |layer: &str| Preference::pin(layer.parse().unwrap());
    let height = |max| Preference {
        max_height: Some(max),
        ..Preference::default()
    };
    let any = Preference::default();
    let paused = Preference {
        video_paused: true,
        ..Preference::default()
    };
    for (preference, active, expected) in [
        (&any, [true; 3], (Some(0), Why::Highest)),
        (&any, [false, true, true], (Some(1), Why::Highest)),
        (&any, [false; 3], (Some(0), Why::NotSent)),
        (&pin("1"), [true; 3], (Some(1), Why::Pinned)),
        (&pin("1"), [true, false, true], (Some(2), Why::NotSent)),
        (&pin("2"), [true, true, false], (Some(1), Why::NotSent)),
        (&pin("9"), [true; 3], (Some(0), Why::Highest)),
        (&height(400), [true; 3], (Some(1), Why::Capped)),
        (&height(100), [true; 3], (Some(2), Why::Capped)),
        (&height(720), [true; 3], (Some(0), Why::Highest)),
        (&paused, [true; 3], (None, Why::Paused)),
    ] {
        let mut selector = Selector::new(preference.clone());
        let choice = selector.choose(Instant::now(), &ladder(active), 0);
        assert_eq!(
            (choice.layer(), choice.why),
            expected,
            "{preference:?} of {active:?}"
        );
    }
}

#[test]
fn a_collapse_counts_at_once_and_falls_far() {
    let now = Instant::now();
    let mut selector = Selector::default();
    run(&mut selector, now, SECOND, estimate(5_000, false));
    assert_eq!(layer(&selector), Some(0));
    let (after, choice) = run(&mut selector, now + SECOND, SECOND, estimate(800, true)).unwrap();
    assert_eq!(
        (after, choice.layer(), choice.cut),
        (Duration::ZERO, Some(2), true)
    );
}

#[test]
fn a_doubtful_estimate_must_last() {
    let now = Instant::now();
    let mut selector = Selector::default();
    run(&mut selector, now, SECOND, estimate(5_000, false));
    let low = estimate(800, false);
    let (after, choice) = run(&mut selector, now + SECOND, 5 * SECOND, low).unwrap();
    assert_eq!(after, DOUBTED_FOR);
    assert_eq!((choice.layer(), choice.cut), (Some(1), false));
}

#[test]
fn a_boundary_is_crossed_once_in_ten_seconds_and_more_seldom_each_time() {
    let mut now = Instant::now();
    let mut selector = Selector::default();
    run(&mut selector, now, SECOND, estimate(5_000, false));
    let mut waits = Vec::new();
    for _ in 0..4 {
        now += 5 * SECOND;
        assert!(run(&mut selector, now, SECOND, estimate(800, true)).is_some());
        let up = run(&mut selector, now, 100 * SECOND, estimate(5_000, false));
        let (after, choice) = up.unwrap();
        assert!(choice.upgrade);
        waits.push(after.as_secs());
        now += after;
    }
    assert_eq!(waits, [10, 20, 40, 60]);
}

#[test]
fn sound_is_served_first() {
    let mut selector = Selector::default();
    selector.set_estimate(estimate(640, false));
    let choice = selector.choose(Instant::now(), &ladder([true; 3]), 50_000);
    assert_eq!((choice.layer(), choice.why), (Some(2), Why::Bandwidth));
}

#[test]
fn probing_asks_for_what_the_next_layer_needs_and_not_too_often() {
    let start = Instant::now();
    let mut selector = Selector::default();
    selector.set_estimate(estimate(700, false));
    let mut probes = 0;
    for n in 0..100 {
        let now = start + n * Duration::from_millis(100);
        let choice = selector.choose(now, &ladder([true; 3]), 50_000);
        assert_eq!(choice.layer(), Some(1));
        let demand = selector.demand(now);
        assert_eq!(demand.goal, 2_350_000);
        assert!(demand.spread, "700 kbit/s is little room for 650");
        probes += u32::from(demand.probe);
    }
    assert!((3..=4).contains(&probes), "{probes} in 10 s");
}

#[test]
fn while_video_pauses_for_want_of_bandwidth_it_is_found_out_when_there_is_some() {
    let start = Instant::now();
    let mut selector = Selector::default();
    selector.set_estimate(estimate(100, true));
    let mut probes = 0;
    for n in 0..100 {
        let now = start + n * Duration::from_millis(100);
        let choice = selector.choose(now, &ladder([true; 3]), 50_000);
        let demand = selector.demand(now);
        if choice.layer().is_none() {
            assert_eq!(choice.why, Why::NoBandwidth);
            assert!(demand.goal.abs_diff(280_000) <= 1, "{}", demand.goal);
            probes += u32::from(demand.probe);
        }
    }
    assert!((2..=3).contains(&probes), "{probes} in 7 s");
}
