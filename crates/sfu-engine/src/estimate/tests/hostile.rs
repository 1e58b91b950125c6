// SPDX-License-Identifier: MPL-2.0

//! Reports that are late, doubled, out of order or nonsense, and viewers that report nothing but REMB or loss.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::link::MS;
use crate::estimate::{ArrivalEstimator, Estimator};
use crate::transport::{Demand, Estimate};

const FIRST: u64 = 1_000_000;

/// What can happen to an estimator.
#[derive(Debug, Clone)]
enum Step {
    Sent(u16, usize),
    Report(Vec<(u16, Option<i64>)>),
    SentUnnumbered(usize),
    Remb(u64),
    ReceiverReport(f32),
    Demand(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let arrival = prop_oneof![
        Just(None),
        any::<i64>().prop_map(Some),
        (0..10_000_000i64).prop_map(Some),
    ];
    prop_oneof![
        8 => (0..3u16, 0..70_000usize).prop_map(|(skip, bytes)| Step::Sent(skip, bytes)),
        1 => any::<u16>().prop_map(|seq| Step::Sent(seq, 1_200)),
        4 => prop::collection::vec((any::<u8>().prop_map(u16::from), arrival), 0..40)
            .prop_map(Step::Report),
        1 => (0..70_000usize).prop_map(Step::SentUnnumbered),
        1 => any::<u64>().prop_map(Step::Remb),
        1 => any::<f32>().prop_map(Step::ReceiverReport),
        1 => any::<u64>().prop_map(Step::Demand),
        4 => (0..200_000u64).prop_map(Step::Wait),
        1 => any::<u32>().prop_map(|us| Step::Wait(us.into())),
    ]
}

proptest! {
    #[test]
    fn nothing_that_is_told_breaks_it(steps in prop::collection::vec(step(), 0..400)) {
        let mut now = Instant::now();
        let mut estimator = ArrivalEstimator::new(now, Some(FIRST));
        let mut seq = 65_500u16;
        for step in steps {
            match step {
                Step::Sent(skip, bytes) => {
                    seq = seq.wrapping_add(1).wrapping_add(skip);
                    estimator.sent(now, seq, bytes);
                }
                Step::Report(packets) => {
                    let packets = packets.into_iter();
                    let mut packets = packets.map(|(back, at)| (seq.wrapping_sub(back), at));
                    estimator.report(now, &mut packets);
                }
                Step::SentUnnumbered(bytes) => estimator.sent_unnumbered(now, bytes),
                Step::Remb(rate) => estimator.remb(now, rate),
                Step::ReceiverReport(loss) => {
                    estimator.receiver_report(now, loss, Some(Duration::MAX));
                }
                Step::Demand(goal) => {
                    let demand = Demand { goal, probe: true, spread: false };
                    estimator.set_demand(now, demand);
                }
                Step::Wait(us) => now += Duration::from_micros(us),
            }
            let order = estimator.probe(now);
            prop_assert!(order.next.is_none_or(|at| at > now || order.bytes > 0), "{order:?}");
            prop_assert!(estimator.estimate(now).is_some());
            prop_assert!(estimator.memory() < 50_000);
        }
    }
}

/// An estimator with a minute of a stream on a good link, and the last report.
fn settled(now: &mut Instant) -> (ArrivalEstimator, Vec<(u16, Option<i64>)>) {
    let mut estimator = ArrivalEstimator::new(*now, Some(FIRST));
    let mut last = Vec::new();
    for report in 0..600 {
        last.clear();
        for n in 0..20u16 {
            let seq = report * 20 + n;
            *now += 5 * MS;
            estimator.sent(*now, seq, 1_200);
            last.push((seq, Some(i64::from(seq) * 5_000)));
        }
        estimator.report(*now, &mut last.iter().copied());
    }
    (estimator, last)
}

#[test]
fn reports_of_the_past_and_of_the_future_change_nothing() {
    let mut now = Instant::now();
    let (mut estimator, last) = settled(&mut now);
    let before = estimator.estimate(now);
    let at = |seq: u16| Some(i64::from(seq) * 50_000);
    let doubled = last.clone();
    let nonsense = last.iter().map(|(seq, _)| (*seq, Some(i64::MIN))).collect();
    let lost = last.iter().map(|(seq, _)| (*seq, None)).collect();
    let future = (12_000..13_000).map(|seq| (seq, at(seq))).collect();
    let ancient = (0..7_000).map(|seq| (seq, at(seq))).collect();
    let backwards = last.iter().rev().copied().collect();
    let all: Vec<_> = (0..=u16::MAX).map(|seq| (seq, None)).collect();
    for odd in [doubled, nonsense, lost, future, ancient, backwards, all] {
        estimator.report(now, &mut odd.into_iter());
        assert_eq!(estimator.estimate(now), before);
    }
}

#[test]
fn a_viewer_without_arrival_reports_may_tell_its_own_estimate() {
    let now = Instant::now();
    let mut estimator = ArrivalEstimator::new(now, None);
    assert_eq!(estimator.estimate(now), None);
    estimator.remb(now, 700_000);
    let told = |bits_per_second, congested| {
        Some(Estimate {
            bits_per_second,
            congested,
            guessed: false,
        })
    };
    assert_eq!(estimator.estimate(now), told(700_000, false));
    assert_eq!(estimator.estimate(now + 60_000 * MS), told(700_000, false));
    estimator.remb(now, 8_000_000);
    assert_eq!(estimator.estimate(now), told(8_000_000, false));
    for _ in 0..1_000 {
        estimator.sent_unnumbered(now, 1_200);
    }
    estimator.remb(now, 900_000);
    assert_eq!(
        estimator.estimate(now),
        told(900_000, true),
        "less than is sent"
    );
    estimator.remb(now, 8_000_000);
    assert_eq!(estimator.estimate(now).unwrap().bits_per_second, 8_000_000);
}

/// Reports were agreed on, and none comes.
#[test]
fn a_viewer_that_reports_no_arrivals_is_not_left_with_the_first_guess() {
    for remb in [None, Some(300_000), Some(8_000_000)] {
        let mut now = Instant::now();
        let mut estimator = ArrivalEstimator::new(now, Some(FIRST));
        let demand = Demand {
            goal: 3_000_000,
            probe: true,
            spread: false,
        };
        for second in 0..30u16 {
            for n in 0..100 {
                now += 10 * MS;
                estimator.sent(now, second * 100 + n, 1_200);
            }
            estimator.set_demand(now, demand);
            if let Some(remb) = remb {
                estimator.remb(now, remb);
            }
            estimator.receiver_report(now, 0.0, Some(50 * MS));
        }
        let found = estimator.estimate(now).unwrap().bits_per_second;
        match remb {
            Some(remb) => assert_eq!(found, remb),
            None => assert!((3_000_000..3_500_000).contains(&found), "{found}"),
        }
    }
}

#[test]
fn remb_caps_what_arrivals_tell_while_it_is_fresh() {
    let mut now = Instant::now();
    let (mut estimator, _) = settled(&mut now);
    let own = estimator.estimate(now);
    estimator.remb(now, 500_000);
    assert_eq!(estimator.estimate(now).unwrap().bits_per_second, 500_000);
    assert_eq!(estimator.estimate(now + 6_000 * MS), own);
    estimator.remb(now, 500_000_000);
    assert_eq!(estimator.estimate(now), own);
}

#[test]
fn loss_in_receiver_reports_is_the_last_resort() {
    let mut now = Instant::now();
    let mut estimator = ArrivalEstimator::new(now, None);
    let mut seq = 0u16;
    // 2.4 Mbit/s.
    let mut second = |estimator: &mut ArrivalEstimator, loss| {
        for _ in 0..250 {
            now += 4 * MS;
            seq = seq.wrapping_add(1);
            estimator.sent(now, seq, 1_200);
        }
        estimator.receiver_report(now, loss, Some(50 * MS));
        estimator.estimate(now)
    };
    for _ in 0..5 {
        assert_eq!(second(&mut estimator, 0.02), None, "nothing to say");
    }
    let congested = second(&mut estimator, 0.5).unwrap();
    assert!(congested.congested);
    assert!((1_000_000..1_300_000).contains(&congested.bits_per_second));
    let later = (0..20).map(|_| second(&mut estimator, 0.0)).last();
    let later = later.flatten().unwrap();
    assert!(!later.congested);
    assert!(later.bits_per_second > 2_000_000, "{later:?}");
}

/// After congestion, by loss alone: as far as the next layer and no further, however little is sent and often it is told.
#[test]
fn where_nothing_is_lost_the_next_layer_is_tried() {
    for reports in [1, 2, 20] {
        let mut now = Instant::now();
        let mut estimator = ArrivalEstimator::new(now, None);
        let second = |now: &mut Instant, estimator: &mut ArrivalEstimator, bytes, loss| {
            for n in 0..100 {
                *now += 10 * MS;
                estimator.sent_unnumbered(*now, bytes);
                if (n + 1) % (100 / reports) == 0 {
                    estimator.receiver_report(*now, loss, Some(50 * MS));
                }
            }
            estimator.estimate(*now).map(|e| e.bits_per_second)
        };
        assert_eq!(second(&mut now, &mut estimator, 3_000, 0.0), None);
        assert!(second(&mut now, &mut estimator, 3_000, 0.5).unwrap() < 1_300_000);
        let demand = Demand {
            goal: 1_100_000,
            probe: true,
            spread: false,
        };
        estimator.receiver_report(now, 0.9, None);
        let mut seconds = 0;
        while estimator.estimate(now).unwrap().bits_per_second < demand.goal {
            estimator.set_demand(now, demand);
            second(&mut now, &mut estimator, 400, 0.0);
            assert_eq!(estimator.probe(now).bytes, 0, "no train");
            seconds += 1;
            assert!(seconds < 60, "{:?}", estimator.estimate(now));
        }
        assert!(seconds > 5, "{reports} reports a second: {seconds} s");
        for _ in 0..60 {
            second(&mut now, &mut estimator, 400, 0.0);
        }
        let found = estimator.estimate(now).unwrap().bits_per_second;
        assert!(found < demand.goal * 5 / 4, "{found}");
    }
}
