// SPDX-License-Identifier: MPL-2.0

//! Viewers that take no stream of retransmissions (RTX, RFC 4588) are sent the very same datagrams again (RFC 4585).

use std::time::Duration;

use sfu_engine::Codec;
use sfu_impair::Conditions;

use crate::hostile::Hostile;
use crate::net::{Trouble, good};
use crate::viewer::Decoded;
use crate::world::World;
use crate::worst::KINDS;

const SECOND: Duration = Duration::from_secs(1);

fn link(loss: f64, burst: f64) -> Conditions {
    Conditions {
        delay: Duration::from_millis(25),
        loss,
        burst,
        ..Conditions::default()
    }
}

/// What one viewer of a lossy link makes of 20 s, and how many keyframes that took.
fn watch(seed: u64, codec: Codec, burst: f64, with_rtx: bool) -> (Decoded, usize) {
    let mut world = World::new(seed, 1);
    world.publisher.use_codec(codec);
    world.viewers_lack_rtx = (!with_rtx).then_some(codec);
    world.viewers_lack_twcc = seed % 2 == 1;
    world.join(link(0.0, 1.0), None);
    world.viewers[0].0.asks = true;
    world.run_until("plays", 5 * SECOND, |w| {
        w.viewers[0].0.first_picture_at.is_some()
    });
    let before = world.asked_at.len();
    world.set_link(0, link(0.02, burst));
    world.run_for(20 * SECOND);
    world.set_link(0, link(0.0, 1.0));
    world.run_for(2 * SECOND);
    let again = world.sessions[0].info().retransmitted;
    assert!(again > 15, "seed {seed}, {codec:?}: {again} sent again");
    (world.viewers[0].0.decoded(), world.asked_at.len() - before)
}

#[test]
fn two_percent_loss_costs_a_viewer_without_rtx_hardly_more_than_one_with() {
    for codec in [Codec::H264, Codec::Vp8] {
        for seed in 0..4 {
            for burst in [1.0, 4.0] {
                let (with, _) = watch(seed, codec, burst, true);
                let (without, keyframes) = watch(seed, codec, burst, false);
                let what = format!("{codec:?}, bursts of {burst}, SFU_SEED={seed}");
                println!("{what}: {without:?} with {keyframes} keyframes, and {with:?} with RTX");
                assert!(
                    without.frames + 15 >= with.frames,
                    "{what}: {without:?} of {with:?}"
                );
                assert!(without.frames > 600, "{what}: {without:?}");
                assert!(without.broken <= with.broken + 3, "{what}: {without:?}");
                assert!(keyframes <= 3, "{what}: {keyframes} keyframes");
            }
        }
    }
}

#[test]
fn a_storm_of_nacks_gets_no_more_than_its_share_again() {
    let (_, newest) = KINDS
        .iter()
        .find(|(name, _)| name.contains("the newest"))
        .unwrap();
    let octets = |storms: bool| {
        let mut world = World::new(1, 1);
        world.viewers_lack_rtx = Some(Codec::H264);
        let mut hostile = Hostile::in_world(world, 0);
        let before = hostile.world.out.octets;
        for _ in 0..500 {
            if storms {
                let nack = hostile.seal(newest(hostile.target())).unwrap();
                hostile.deliver(&nack);
            }
            hostile.world.run_for(SECOND / 100);
        }
        hostile.world.out.octets - before
    };
    let (quiet, stormy) = (octets(false), octets(true));
    println!("{quiet} octets in 5 s, and {stormy}");
    assert!(stormy > quiet + quiet / 10, "what is there is sent again");
    let most = quiet + quiet * 16 / 100 + 56_000;
    assert!(stormy <= most, "{stormy} octets, not {most}");
}

#[test]
fn what_a_viewer_without_rtx_missed_comes_once_and_whatever_else_happens_on_the_way() {
    // Out of order, too: what comes twice would be found by the viewer, as `Pictures::take` says.
    for trouble in Trouble::ALL {
        let mut world = World::new(3, 1);
        world.viewers_lack_rtx = Some(Codec::H264);
        for _ in 0..2 {
            world.join(good(), None);
        }
        world.run_for(2 * SECOND);
        world.trouble = trouble;
        world.set_link(0, link(0.03, 1.0));
        world.run_for(10 * SECOND);
        world.trouble = Trouble::None;
        world.set_link(0, link(0.0, 1.0));
        world.run_for(SECOND);
        let decoded = world.viewers[0].0.decoded();
        assert!(decoded.gaps <= 2, "{trouble:?}: {decoded:?}");
        let other = world.viewers[1].0.decoded();
        assert!(
            other.broken == 0 && other.gaps == 0,
            "{trouble:?}: {other:?}"
        );
    }
}
