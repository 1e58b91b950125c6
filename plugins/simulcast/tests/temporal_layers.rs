// SPDX-License-Identifier: MPL-2.0
//! Temporal layers of `simulcastenc`, as RTP marks them (RFC 7741) and as a decoder sees them.

mod playing;

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gst_check::Harness;
use playing::{init, play};

/// A frame and its payload descriptor.
#[derive(Debug, Clone)]
struct Frame {
    buffer: gst::Buffer,
    tid: u8,
    /// Y: it refers to the lowest layer alone.
    sync: bool,
}

/// What `simulcastenc` makes of some seconds of a moving picture, with a keyframe asked for in the middle of its pattern.
fn encode(temporal_layers: u32) -> Vec<Frame> {
    init();
    let line = format!(
        "videotestsrc num-buffers=90 pattern=smpte horizontal-speed=3 ! video/x-raw,width=320,height=180,framerate=30/1 \
         ! clocksync ! simulcastenc codec=vp8 layers=180:400k keyframe-interval=700 temporal-layers={temporal_layers} name=enc \
         enc.src_0 ! fakesink name=sink sync=false async=false"
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let buffers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&buffers);
    let pad = pipeline.by_name("sink").unwrap().static_pad("sink");
    let pad = pad.unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        seen.lock().unwrap().push(info.buffer().unwrap().clone());
        gst::PadProbeReturn::Ok
    });
    play(&pipeline);
    let mut payloader = Harness::new_parse("rtpvp8pay picture-id-mode=15-bit");
    payloader.set_src_caps_str("video/x-vp8,width=320,height=180,framerate=30/1");
    let buffers = std::mem::take(&mut *buffers.lock().unwrap());
    buffers
        .into_iter()
        .map(|buffer| {
            payloader.push(buffer.clone()).unwrap();
            let packet = payloader.pull().unwrap();
            while payloader.try_pull().is_some() {}
            let (tid, sync) = descriptor(&packet.map_readable().unwrap()[12..]);
            Frame { buffer, tid, sync }
        })
        .collect()
}

/// TID and Y of a VP8 payload descriptor with a picture id of 15 bits. 0 where it has none.
fn descriptor(payload: &[u8]) -> (u8, bool) {
    let (extended, present) = (payload[0] & 0x80 != 0, payload[1]);
    assert!(extended && present & 0x80 != 0, "it has a picture id");
    // L and T: TL0PICIDX and TID.
    if present & 0x60 == 0 {
        return (0, false);
    }
    assert_eq!(present & 0x60, 0x60, "both or none");
    (payload[5] >> 6, payload[5] & 0x20 != 0)
}

fn is_key(frame: &Frame) -> bool {
    !frame.buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)
}

/// The pictures that a decoder makes of frames, by their times.
fn decode<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<(gst::ClockTime, Vec<u8>)> {
    let mut decoder = Harness::new("vp8dec");
    decoder.set_src_caps_str("video/x-vp8,width=320,height=180,framerate=30/1");
    frames
        .map(|frame| {
            decoder.push(frame.buffer.clone()).unwrap();
            let picture = decoder.pull().unwrap();
            let data = picture.map_readable().unwrap().to_vec();
            (frame.buffer.pts().unwrap(), data)
        })
        .collect()
}

#[test]
fn without_upper_layers_the_others_are_the_same_pictures() {
    for layers in [2, 3] {
        let frames = encode(layers);
        assert!(frames.iter().filter(|f| is_key(f)).count() >= 3);
        let all = decode(frames.iter());
        let top = layers as u8 - 1;
        assert_eq!(frames.iter().map(|f| f.tid).max(), Some(top));
        for highest in 0..top {
            let left = frames.iter().filter(|f| f.tid <= highest);
            let (count, part) = (left.clone().count(), decode(left));
            let share = frames.len() >> (top - highest);
            // A keyframe begins the pattern anew.
            assert!(
                (share..=share + 8).contains(&count),
                "{count} of {} frames up to {highest} of {layers} layers",
                frames.len()
            );
            let same = part.iter().all(|picture| all.contains(picture));
            assert!(same, "up to {highest} of {layers} layers");
        }
    }
}

#[test]
fn keyframes_are_of_the_lowest_layer_and_a_way_up_comes_soon() {
    let frames = encode(3);
    let keys = frames.iter().filter(|f| is_key(f));
    assert!(keys.clone().count() >= 3);
    assert!(keys.clone().all(|f| f.tid == 0));
    for top in [1, 2] {
        let ways_up = frames.iter().filter(|f| f.tid == top && f.sync).count();
        // Each four frames.
        assert!(ways_up >= frames.len() / 5, "{ways_up} to {top}");
    }
}

#[test]
fn one_layer_is_not_marked() {
    assert!(encode(1).iter().all(|f| (f.tid, f.sync) == (0, false)));
}

#[test]
fn layers_share_the_bitrate() {
    let frames = encode(2);
    let bytes = |lowest: bool| -> usize {
        let some = frames.iter().filter(|f| lowest == (f.tid == 0));
        some.map(|f| f.buffer.size()).sum()
    };
    let (lowest, upper) = (bytes(true), bytes(false));
    // In time, not in frames: what a busy machine can't encode is left out.
    let times = [frames.first(), frames.last()].map(|frame| frame.unwrap().buffer.pts().unwrap());
    let rate = (lowest + upper) as u64 * 8_000 / (times[1] - times[0]).mseconds();
    println!("{rate} bit/s, {lowest} bytes below, {upper} above");
    assert!(
        (200_000..600_000).contains(&rate),
        "{rate} of 400,000 bit/s"
    );
    assert!(lowest > upper, "{lowest} bytes below, {upper} above");
}
