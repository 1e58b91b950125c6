// SPDX-License-Identifier: MPL-2.0

//! What is read of a publisher's RTP payloads: keyframes, sizes, temporal layers. The first byte decides on the codec.

#![no_main]

use sfu_engine::{Codec, inspect};

const CODECS: [Codec; 5] = [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H265];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, payload)) = data.split_first() else {
        return;
    };
    let codec = CODECS[usize::from(*choice) % CODECS.len()];
    let info = inspect(codec, payload);
    assert!(info.size.is_none() || info.keyframe_start);
    assert!(info.temporal.is_none_or(|mark| mark.id < 8));
});
