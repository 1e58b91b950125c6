// SPDX-License-Identifier: MPL-2.0

//! What the estimator makes of good, bad and changing links.

use std::time::Duration;

use sfu_impair::Conditions;

use super::link::{FIRST, MS, SECOND, Source, World, deep, link, seeds};
use crate::estimate::Estimator;

/// A viewer of the top layer whose network has been found to carry it with ease.
fn settled(seed: u64, conditions: Conditions, rate: u64) -> World {
    let mut world = World::single(seed, conditions, Source::Video(rate));
    world.wish(0, rate * 6 / 5);
    world.run_for(12 * SECOND);
    world
}

#[test]
fn a_collapse_is_seen_in_600_ms() {
    for seed in seeds(20) {
        for (queue, delay) in [(2_000, 20), (2_000, 80), (300, 5), (300, 40)] {
            let conditions = |rate| Conditions {
                queue: MS * queue,
                delay: MS * delay,
                ..deep(rate)
            };
            let what = format!("seed {seed}, queue {queue} ms, delay {delay} ms");
            let mut world = settled(seed, conditions(5_000_000), 2_600_000);
            let before = world.estimate();
            let good = before.bits_per_second > 2_600_000 && !before.congested;
            assert!(good, "{what}: {before:?}");
            world.links[0].set(conditions(600_000));
            let seen = world.run_until(SECOND, |w| {
                let estimate = w.estimate();
                estimate.congested && estimate.bits_per_second < 700_000
            });
            // Beyond what packets take anyway.
            let limit = MS * (580 + delay);
            let now = world.estimate();
            assert!(
                seen.is_some_and(|t| t <= limit),
                "{what}: {seen:?}, {now:?}"
            );
            let right = (450_000..700_000).contains(&now.bits_per_second);
            assert!(right, "{what}: {now:?}");
        }
    }
}

#[test]
fn a_slight_overload_is_seen_in_two_seconds() {
    for seed in seeds(20) {
        for rate in [2_300_000, 2_500_000] {
            let mut world = settled(seed, deep(5_000_000), 2_600_000);
            world.links[0].set(deep(rate));
            let seen = world.run_until(8 * SECOND, |w| w.rate() < rate);
            let limit = if rate == 2_300_000 { 2 } else { 4 };
            assert!(
                seen.is_some_and(|t| t <= limit * SECOND),
                "seed {seed}, {rate}: {seen:?}, {:?}",
                world.estimate()
            );
            assert!(world.rate() > rate * 3 / 4, "seed {seed}: {}", world.rate());
        }
    }
}

#[test]
fn up_to_a_tenth_of_loss_changes_nothing() {
    for seed in seeds(20) {
        for loss in [0.02, 0.1] {
            for rate in [300_000, 900_000, 2_600_000] {
                let conditions = Conditions {
                    loss,
                    ..link(6_000_000)
                };
                let mut world = settled(seed, conditions, rate);
                let worst = world.run_until(30 * SECOND, |w| {
                    let estimate = w.estimate();
                    estimate.congested || estimate.bits_per_second < rate + 40_000
                });
                assert_eq!(
                    worst,
                    None,
                    "seed {seed}, loss {loss}, rate {rate}: {:?}",
                    world.estimate()
                );
            }
        }
    }
}

#[test]
fn heavy_loss_is_congestion() {
    for seed in seeds(20) {
        let mut world = settled(seed, link(6_000_000), 2_600_000);
        world.links[0].set(Conditions {
            loss: 0.45,
            ..link(6_000_000)
        });
        let seen = world.run_until(3 * SECOND, |w| w.estimate().congested);
        assert!(seen.is_some_and(|t| t < SECOND), "seed {seed}: {seen:?}");
        world.run_for(SECOND);
        assert!(world.rate() < 1_900_000, "seed {seed}: {}", world.rate());
    }
}

#[test]
fn a_quarter_of_loss_leaves_what_gets_through() {
    for seed in seeds(20) {
        let mut world = settled(seed, link(6_000_000), 2_600_000);
        world.links[0].set(Conditions {
            loss: 0.25,
            ..link(6_000_000)
        });
        world.run_for(4 * SECOND);
        let rate = world.rate();
        assert!(
            (1_500_000..2_400_000).contains(&rate),
            "seed {seed}: {rate}"
        );
    }
}

#[test]
fn what_a_link_carries_again_is_found_in_seconds() {
    for seed in seeds(20) {
        let mut world = settled(seed, deep(5_000_000), 2_600_000);
        world.viewer().wish = None;
        world.links[0].set(deep(600_000));
        world.run_for(SECOND);
        world.viewer().source = Source::Video(300_000);
        world.run_for(9 * SECOND);
        world.wish(0, 1_090_000);
        world.run_for(9 * SECOND);
        let rate = world.rate();
        assert!((400_000..660_000).contains(&rate), "seed {seed}: {rate}");
        world.links[0].set(deep(5_000_000));
        for (goal, next) in [(1_090_000, 900_000), (3_050_000, 2_600_000)] {
            world.wish(0, goal);
            let found = world.run_until(8 * SECOND, |w| w.rate() >= goal);
            assert!(
                found.is_some_and(|t| t < 4 * SECOND),
                "seed {seed}, {goal}: {found:?}, {:?}",
                world.estimate()
            );
            assert!(world.rate() < goal * 3 / 2, "no more than is needed");
            world.viewer().source = Source::Video(next);
            world.run_for(2 * SECOND);
        }
        assert!(!world.estimate().congested, "seed {seed}");
    }
}

#[test]
fn a_link_s_rate_is_found_and_little_is_sent_for_it() {
    for seed in seeds(20) {
        for rate in [1_300_000, 1_600_000, 2_000_000, 2_500_000, 3_000_000] {
            let mut world = World::single(seed, link(rate), Source::Video(900_000));
            world.wish(0, 3_050_000);
            world.run_for(30 * SECOND);
            let found = world.rate();
            assert!(
                (rate * 85 / 100..=rate * 115 / 100).contains(&found),
                "seed {seed}: {found} of {rate}"
            );
            let padding = world.viewer().padding * 8 / 30;
            assert!(padding < 100_000, "seed {seed}: {padding} bit/s of padding");
        }
    }
}

#[test]
fn two_viewers_share_a_bottleneck() {
    for seed in seeds(10) {
        let mut world = World::new(seed);
        let shared = world.add_link(Conditions {
            jitter: 2 * MS,
            ..link(4_000_000)
        });
        world.add_viewer(shared, Source::Elastic);
        world.run_for(30 * SECOND);
        let alone = world.rate();
        assert!(alone > 2_000_000, "seed {seed}: {alone}");
        world.add_viewer(shared, Source::Elastic);
        world.run_for(90 * SECOND);
        let mut means = [0, 0];
        for _ in 0..100 {
            world.run_for(SECOND / 10);
            for (viewer, mean) in means.iter_mut().enumerate() {
                *mean += world.estimate_of(viewer).bits_per_second / 100;
            }
        }
        let [a, b] = means;
        assert!(a.min(b) > 1_000_000, "seed {seed}: {means:?}");
        assert!(a.max(b) * 2 < a.min(b) * 5, "seed {seed}: {means:?}");
        assert!(a + b > 2_800_000, "seed {seed}: {means:?}");
    }
}

#[test]
fn jitter_is_no_congestion() {
    for seed in seeds(20) {
        for rate in [300_000, 900_000, 2_600_000] {
            let conditions = Conditions {
                jitter: 40 * MS,
                ..link(8_000_000)
            };
            let mut world = settled(seed, conditions, rate);
            let found = world.rate();
            let wrong = world.run_until(30 * SECOND, |w| {
                w.estimate().congested || w.rate() < rate + 40_000
            });
            assert_eq!(wrong, None, "seed {seed}, {rate}: {:?}", world.estimate());
            assert!(found >= rate * 6 / 5, "seed {seed}: {found}");
        }
    }
}

#[test]
fn a_stall_is_no_congestion() {
    for seed in seeds(20) {
        let mut world = settled(seed, link(5_000_000), 2_600_000);
        let before = world.rate();
        for round in 0..12 {
            let until = world.now + MS * (100 + seed as u32 % 20 * 5);
            let viewer = world.viewer();
            match round % 3 {
                0 => viewer.sender_stalls = Some(until),
                1 => viewer.viewer_stalls = Some(until),
                _ => viewer.reports_stall = Some(until),
            }
            let wrong = world.run_until(2 * SECOND, |w| {
                w.estimate().congested || w.rate() < before.min(3_000_000)
            });
            assert_eq!(
                wrong,
                None,
                "seed {seed}, round {round}: {:?}",
                world.estimate()
            );
        }
    }
}

#[test]
fn little_traffic_is_no_sign_of_a_narrow_network() {
    for seed in seeds(5) {
        let mut world = World::single(seed, link(20_000_000), Source::Video(1_000_000));
        let mut last = world.rate();
        for _ in 0..240 {
            world.run_for(SECOND / 2);
            let now = world.rate();
            assert!(now >= last, "seed {seed}: {now} after {last}");
            last = now;
        }
        // A keyframe makes half a second worth twice as much.
        assert!(
            (1_400_000..2_800_000).contains(&last),
            "seed {seed}: {last}"
        );
        world.wish(0, 9_000_000);
        world.run_for(4 * SECOND);
        last = world.rate();
        assert!(last >= 9_000_000, "seed {seed}: {last}");
        world.viewer().wish = None;
        world.viewer().source = Source::Sound;
        world.run_for(60 * SECOND);
        assert_eq!(world.rate(), last, "seed {seed}");
        assert!(!world.estimate().congested, "seed {seed}");
    }
}

#[test]
fn who_is_sent_nothing_can_be_probed_all_the_same() {
    for seed in seeds(10) {
        let mut world = settled(seed, deep(5_000_000), 900_000);
        world.viewer().wish = None;
        world.links[0].set(deep(100_000));
        world.run_for(SECOND);
        world.viewer().source = Source::Nothing;
        world.wish(0, 400_000);
        world.run_for(30 * SECOND);
        assert!(world.rate() < 200_000, "seed {seed}: {}", world.rate());
        world.links[0].set(deep(5_000_000));
        let found = world.run_until(10 * SECOND, |w| w.rate() >= 400_000);
        assert!(
            found.is_some_and(|t| t < 5 * SECOND),
            "seed {seed}: {found:?}, {:?}",
            world.estimate()
        );
    }
}

#[test]
fn without_reports_nothing_is_taken_back_and_no_train_leaves() {
    let mut world = settled(1, link(5_000_000), 900_000);
    let before = world.rate();
    world.viewer().viewer_stalls = Some(world.now + 3_600 * SECOND);
    world.run_for(3 * SECOND);
    let padding = world.viewer().padding;
    world.wish(0, 4_000_000);
    world.run_for(20 * SECOND);
    assert_eq!(world.viewer().padding, padding);
    assert_eq!(world.rate(), before);
}

#[test]
fn a_clock_may_drift_jump_and_wrap() {
    const WRAP: i64 = (1 << 24) * 64_000;
    for seed in seeds(10) {
        for drift in [-100e-6, 100e-6] {
            let mut world = World::single(seed, link(5_000_000), Source::Video(2_600_000));
            world.wish(0, 3_050_000);
            world.viewer().drift = drift;
            world.viewer().clock = WRAP - 20_000_000;
            world.run_for(10 * SECOND);
            for jump in [0, 150_000, -150_000, 700_000, -700_000, 1 << 40, -(1 << 41)] {
                // As the report has it: 24 bits of reference time.
                let clock = world.viewer().clock + jump;
                world.viewer().clock = clock.rem_euclid(WRAP);
                let wrong = world.run_until(15 * SECOND, |w| {
                    w.estimate().congested || w.rate() < 3_050_000
                });
                assert_eq!(
                    wrong,
                    None,
                    "seed {seed}, drift {drift}, jump {jump}: {:?}",
                    world.estimate()
                );
            }
            world.links[0].set(deep(600_000));
            let seen = world.run_until(SECOND, |w| w.estimate().congested);
            assert!(seen.is_some(), "seed {seed}: still awake");
        }
    }
}

#[test]
fn a_viewer_of_two_and_a_half_megabits_takes_less_than_20_kb() {
    let mut world = settled(1, link(5_000_000), 2_500_000);
    let memory = world.viewer().estimator.memory();
    assert!(memory <= 20_000, "{memory}");
    println!("{memory} bytes");
    world.viewer().viewer_stalls = Some(world.now + 3_600 * SECOND);
    world.run_for(10 * SECOND);
    let memory = world.viewer().estimator.memory();
    assert!(memory <= 20_000, "{memory} without reports");
}

#[test]
fn before_all_else_there_is_a_guess() {
    let mut world = World::single(1, link(20_000_000), Source::Sound);
    assert_eq!(world.rate(), FIRST);
    assert!(!world.estimate().congested);
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.rate(), FIRST);
    assert_eq!(world.viewer().estimator.poll_timeout(), None, "idle");
}
