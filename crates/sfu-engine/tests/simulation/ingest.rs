// SPDX-License-Identifier: MPL-2.0

//! What a browser publishes by WHIP is a stream like any other: layers, keyframe requests, recovery, coming back.

use std::time::Duration;

use sfu_engine::transport::PatchOutcome;
use sfu_impair::Conditions;

use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn each_layer_of_a_peer_reaches_the_viewers_who_want_it() {
    let mut world = World::with_peer(1, good(), 3);
    for layer in [Some("h"), Some("m"), Some("l")] {
        world.join(good(), layer);
    }
    world.run_for(3 * SECOND);
    for (index, (viewer, _)) in world.viewers.iter().enumerate() {
        let decoded = viewer.decoded();
        assert_eq!(decoded.last.unwrap().layer, index);
        assert!(decoded.frames > 75 && decoded.broken == 0 && decoded.gaps == 0);
        assert!(viewer.audio_packets > 75);
    }
    world.set_layer(0, Some("l"));
    world.run_for(SECOND);
    let decoded = world.viewers[0].0.decoded();
    assert_eq!(decoded.last.unwrap().layer, 2);
    assert!(
        decoded.gaps == 0 && decoded.broken == 0 && !decoded.time_went_back,
        "{decoded:?}"
    );
}

#[test]
fn a_peer_hears_one_keyframe_request_an_interval() {
    let mut world = World::with_peer(1, good(), 1);
    for n in 0..100 {
        let index = world.join(good(), None);
        let first = world.now + Duration::from_millis(n % 200);
        world.viewers[index].0.nag = Some((Duration::from_millis(200), first));
        world.run_for(SECOND / 50);
    }
    world.run_for(5 * SECOND);
    let asked = &world.peers[0].0.asked;
    let closest = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).min();
    // The requests leave half a second apart; the network's scheduling moves them by little.
    assert!(
        closest.unwrap() >= Duration::from_millis(490),
        "{closest:?}"
    );
    assert!((8..=16).contains(&asked.len()), "{}", asked.len());
    world.check("decodes", |v| {
        v.decoded().frames > 120 && v.decoded().broken == 0
    });
}

#[test]
fn loss_on_the_way_from_a_peer_is_repaired() {
    for seed in 0..5 {
        let link = |loss| Conditions {
            loss,
            delay: Duration::from_millis(20),
            ..Conditions::default()
        };
        let mut world = World::with_peer(seed, link(0.0), 1);
        world.join(good(), None);
        world.run_for(SECOND);
        world.set_peer_link(0, link(0.03));
        world.run_for(15 * SECOND);
        world.set_peer_link(0, link(0.0));
        world.run_for(SECOND);
        world.check("all of 15 s at 3 % loss", |v| {
            let decoded = v.decoded();
            decoded.frames > 450 && decoded.gaps == 0
        });
    }
}

#[test]
fn viewers_see_a_peer_that_was_killed_and_comes_back() {
    let mut world = World::with_peer(1, good(), 2);
    for _ in 0..3 {
        world.join(good(), None);
    }
    world.run_for(3 * SECOND);
    world.peers[0].0.dead = true;
    world.run_for(4 * SECOND);
    let before = world.viewers[0].0.decoded().frames;
    world
        .publish(good(), 2, true)
        .expect("the silent one gives way");
    world.run_for(2 * SECOND);
    world.check("pictures again within 2 s, without joining anew", |v| {
        let decoded = v.decoded();
        decoded.frames > before + 20 && decoded.gaps == 0 && !decoded.time_went_back
    });
    assert_eq!(world.shard.viewers(), 3);
}

#[test]
fn a_stream_has_one_publisher_unless_another_takes_over() {
    let mut world = World::with_peer(1, good(), 1);
    world.join(good(), None);
    world.run_for(2 * SECOND);
    assert!(world.publish(good(), 1, false).is_none(), "it is in use");
    world.run_for(SECOND);
    let before = world.viewers[0].0.decoded().frames;
    world.publish(good(), 1, true).expect("takes over");
    world.run_for(2 * SECOND);
    let decoded = world.viewers[0].0.decoded();
    assert!(decoded.frames > before + 40 && decoded.gaps == 0);
}

#[test]
fn who_never_connects_takes_nothing_away() {
    let mut world = World::with_peer(1, good(), 1);
    world.join(good(), None);
    world.run_for(2 * SECOND);
    for _ in 0..5 {
        let newcomer = world.publish(good(), 1, true).expect("it may take over");
        world.peers[newcomer].0.dead = true;
    }
    let before = world.viewers[0].0.decoded().frames;
    world.run_for(25 * SECOND);
    let decoded = world.viewers[0].0.decoded();
    assert!(
        decoded.frames > before + 700 && decoded.gaps == 0,
        "{decoded:?}"
    );
    assert!(world.stream.info(world.now).live);
    assert_eq!(
        world.counters.snapshot().sessions_closed,
        5,
        "they never came"
    );
    // Who comes does take over, and not before its media.
    let nothing = Conditions {
        loss: 1.0,
        ..good()
    };
    let slow = world.publish(nothing, 1, true).expect("it may take over");
    let before = world.viewers[0].0.decoded().frames;
    world.run_for(3 * SECOND);
    assert!(world.viewers[0].0.decoded().frames > before + 80);
    world.set_peer_link(slow, good());
    world.run_for(5 * SECOND);
    assert_eq!(
        world.counters.snapshot().sessions_closed,
        6,
        "the first one"
    );
    let decoded = world.viewers[0].0.decoded();
    assert!(decoded.gaps == 0 && !decoded.time_went_back, "{decoded:?}");
}

#[test]
fn of_two_who_claim_a_free_name_the_first_with_media_has_it() {
    let mut world = World::with_peer(1, good(), 1);
    world.peers[0].0.dead = true;
    world.run_for(7 * SECOND);
    assert!(!world.stream.info(world.now).live);
    let first = world.publish(good(), 1, false).expect("the name is free");
    world.peers[first].0.dead = true;
    let second = world
        .publish(good(), 1, false)
        .expect("the first has sent nothing");
    world.run_for(3 * SECOND);
    assert!(world.peers[second].0.connected);
    let before = world.stream.info(world.now).packets_in;
    assert!(
        world.publish(good(), 1, false).is_none(),
        "now it is in use"
    );
    world.run_for(SECOND);
    assert!(world.stream.info(world.now).packets_in > before + 50);
}

#[test]
fn a_peer_that_falls_silent_is_gone_after_the_timeout() {
    let mut world = World::with_peer(1, good(), 1);
    world.run_for(SECOND);
    world.peers[0].0.dead = true;
    world.run_for(4 * SECOND);
    assert!(world.stream.info(world.now).live, "it may come back");
    world.run_for(2 * SECOND);
    assert!(
        !world.stream.info(world.now).live,
        "five seconds were given"
    );
}

#[test]
fn layers_appear_and_disappear_while_streaming() {
    let mut world = World::with_peer(1, good(), 3);
    // Chromium sends its highest layer last, when its own estimate allows it.
    world.peers[0].0.silent = vec![0];
    world.run_for(3 * SECOND);
    world.join(good(), None);
    world.run_for(5 * SECOND);
    let current = |world: &World| world.sessions[0].info().current.map(|rid| rid.to_string());
    assert_eq!(current(&world).as_deref(), Some("m"));
    world.peers[0].0.silent.clear();
    world.run_for(10 * SECOND);
    assert_eq!(current(&world).as_deref(), Some("h"), "appeared");
    world.peers[0].0.silent = vec![0, 1];
    world.run_for(5 * SECOND);
    assert_eq!(current(&world).as_deref(), Some("l"), "disappeared");
    world.check("one continuous stream", |v| {
        let decoded = v.decoded();
        decoded.gaps == 0 && decoded.broken == 0 && !decoded.time_went_back
    });
}

#[test]
fn a_peer_is_told_what_its_network_carries() {
    let narrow = |rate| Conditions {
        rate: Some(rate),
        ..good()
    };
    let mut world = World::with_peer(1, narrow(3_000_000), 1);
    world.run_for(8 * SECOND);
    let by_reports = world.peers[0].0.twcc.expect("arrival reports come");
    assert!(by_reports > 500_000, "{by_reports}");
    assert_eq!(world.peers[0].0.remb, None, "TWCC is enough");
}

#[test]
fn a_peer_without_twcc_gets_remb() {
    let mut world = World::with_peer_without_twcc(1, good());
    world.run_for(8 * SECOND);
    let free = world.peers[0].0.remb.expect("REMB comes");
    assert!(free >= 2_000_000, "{free}");
    let lossy = Conditions {
        loss: 0.3,
        ..good()
    };
    world.set_peer_link(0, lossy);
    world.run_for(10 * SECOND);
    let limited = world.peers[0].0.remb.unwrap();
    assert!(limited < 800_000, "loss limits it: {limited}");
}

#[test]
fn an_ice_restart_keeps_a_peers_stream() {
    let mut world = World::with_peer(1, good(), 2);
    world.join(good(), None);
    world.run_for(2 * SECOND);
    // The peer moves to another network and begins anew from there.
    let nothing = Conditions {
        loss: 1.0,
        ..good()
    };
    world.set_peer_link(0, nothing);
    world.run_for(3 * SECOND);
    world.set_peer_link(0, good());
    let fragment = world.peers[0].0.restart_ice();
    let session = world.peers[0].0.session;
    let PatchOutcome::Restarted { fragment, .. } = world.patch_session(session, &fragment) else {
        panic!("new credentials are a restart");
    };
    world.peers[0].0.restarted(&fragment);
    let before = world.viewers[0].0.decoded().frames;
    world.run_for(3 * SECOND);
    let decoded = world.viewers[0].0.decoded();
    assert!(decoded.frames > before + 40, "{decoded:?}");
    assert_eq!(world.peers.len(), 1);
    assert!(!decoded.time_went_back);
}

#[test]
fn redundant_sound_reaches_those_who_take_it_and_plain_sound_the_others() {
    let mut world = World::with_peer(1, good(), 1);
    world.peers[0].0.red = true;
    world.join(good(), None);
    world.viewers_take_red = true;
    world.join(good(), None);
    world.run_for(3 * SECOND);
    let heard = |viewer: usize| {
        let viewer = &world.viewers[viewer].0;
        (viewer.audio_packets, viewer.red_packets)
    };
    let (plain, with_red) = (heard(0), heard(1));
    assert!(plain.0 > 75 && plain.1 == 0, "{plain:?}");
    assert!(with_red.0 > 75 && with_red.1 > 75, "{with_red:?}");
}

#[test]
fn a_peer_is_told_its_limit_whatever_reports_it_gets() {
    for twcc in [true, false] {
        let limit = 2_000_000;
        let mut world = World::with_limited_peer(7, twcc, limit);
        world.join(good(), None);
        world.run_for(12 * SECOND);
        let told = world.peers[0].0.remb.expect("it was told");
        assert_eq!(told, limit * 9 / 10, "twcc: {twcc}");
        let counters = world.counters.snapshot();
        assert_eq!(counters.publisher_packets_over_bitrate, 0);
        assert!(world.stream.info(world.now).live);
    }
}

#[test]
fn a_peer_that_goes_on_above_its_limit_is_cut_and_then_ended() {
    for twcc in [true, false] {
        // A tenth of what it sends, or less.
        let mut world = World::with_limited_peer(8, twcc, 20_000);
        let before = world.stream.info(world.now).bytes_in;
        let since = world.now;
        world.run_for(8 * SECOND);
        let counters = world.counters.snapshot();
        assert!(
            counters.publisher_packets_over_bitrate > 300,
            "{counters:?}"
        );
        let info = world.stream.info(world.now);
        let rate = (info.bytes_in - before) * 8 / (world.now - since).as_secs();
        assert!(info.live && rate <= 20_000 * 9 / 8, "{rate} bit/s");
        world.run_for(8 * SECOND);
        let counters = world.counters.snapshot();
        assert_eq!(counters.publishers_over_bitrate, 1);
        assert_eq!(counters.sessions_closed, 1);
        assert!(!world.stream.info(world.now).live);
        // The name is free again.
        assert!(world.publish(good(), 1, false).is_some());
    }
}
