// SPDX-License-Identifier: MPL-2.0

//! The publisher goes over to another codec: who has offered that goes on with it, who has not is told.

use std::time::Duration;

use sfu_engine::{Codec, Why};

use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn viewers_go_on_with_another_codec_or_are_told() {
    let mut world = World::new(1, 1);
    let both = world.join(good(), None);
    // Who lacks retransmissions has H.264 alone.
    world.viewers_lack_rtx = Some(Codec::H264);
    let only = world.join(good(), None);
    world.run_for(3 * SECOND);
    let frames = |world: &World, viewer: usize| world.viewers[viewer].0.decoded().frames;
    let audio = |world: &World, viewer: usize| world.viewers[viewer].0.audio_packets;
    let why = |world: &World, viewer: usize| world.sessions[viewer].info().why;
    for vp8 in [true, false, true] {
        match vp8 {
            true => world.publisher.use_vp8(),
            false => world.publisher.use_codec(Codec::H264),
        }
        world.run_for(SECOND);
        let before = [both, only].map(|v| (frames(&world, v), audio(&world, v)));
        let asked = world.sessions[only].info().keyframe_requests;
        world.run_for(3 * SECOND);
        let after = [both, only].map(|v| (frames(&world, v), audio(&world, v)));
        assert!(after[0].0 > before[0].0 + 80, "{before:?} {after:?}");
        assert!(after.iter().zip(&before).all(|(a, b)| a.1 > b.1 + 80));
        assert_eq!(why(&world, both), Why::Highest);
        let told = world.sessions[only].info();
        if vp8 {
            assert_eq!(told.why, Why::NoCommonCodec);
            assert_eq!((told.target, told.current), (None, None));
            assert_eq!(after[1].0, before[1].0, "nothing is sent in vain");
            assert_eq!(told.keyframe_requests, asked);
        } else {
            assert_eq!(told.why, Why::Highest);
            assert!(after[1].0 > before[1].0 + 80, "{before:?} {after:?}");
        }
    }
    assert_eq!(world.viewers[both].0.decoded().gaps, 0);
}
