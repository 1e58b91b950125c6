// SPDX-License-Identifier: MPL-2.0

//! The reader of offers, and the writer of answers to viewers and publishers.

#![no_main]

use std::sync::LazyLock;
use std::time::Instant;

use sfu_engine::Codec;
use sfu_engine::transport::negotiate::{self, Identity, StreamCodecs};

#[allow(dead_code)]
#[path = "../../tests/offers/answer.rs"]
mod answer;

/// Who makes an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Whip,
    Whep,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("a certificate"));

libfuzzer_sys::fuzz_target!(|offer: &str| {
    let (local, now) = (["192.0.2.1:8189".parse().expect("an address")], Instant::now());
    let codecs = StreamCodecs {
        video: Some(Codec::H264),
        audio: Some(Codec::Opus),
    };
    let viewer = negotiate::accept(&IDENTITY, codecs, offer, &local, None, now);
    let publisher = negotiate::accept_publisher(&IDENTITY, offer, &local, now);
    for (kind, answered) in [
        (Kind::Whep, viewer.map(|(_, answer)| answer)),
        (Kind::Whip, publisher.map(|(_, answer, _)| answer)),
    ] {
        match answered {
            Ok(answer) => answer::check(kind, offer, &answer),
            Err(error) => answer::check_sentence(&error.to_string()),
        }
    }
});
