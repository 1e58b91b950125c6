// SPDX-License-Identifier: MPL-2.0

//! What it costs to answer an offer, on one core: `cargo bench -p sfu-engine --bench offers`.

use std::hint::black_box;
use std::time::Instant;

use sfu_engine::Codec;
use sfu_engine::transport::negotiate::{self, Identity, StreamCodecs};

const CHROMIUM: &str = include_str!("../tests/offers/clients/chromium.whep.sdp");
const PUBLISHER: &str = include_str!("../tests/offers/clients/chromium-simulcast.whip.sdp");

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0)
}

fn main() {
    let identity = Identity::generate().expect("a certificate");
    let local = ["192.0.2.1:8189".parse().expect("an address")];
    let codecs = StreamCodecs {
        video: Some(Codec::H264),
        audio: Some(Codec::Opus),
    };
    let offer = CHROMIUM.replace('\n', "\r\n");
    let publisher = PUBLISHER.replace('\n', "\r\n");
    let now = Instant::now();
    for _ in 0..3 {
        let began = cpu();
        let rounds = 1_000;
        for _ in 0..rounds {
            black_box(
                negotiate::accept(&identity, codecs, black_box(&offer), &local, None, now).is_ok(),
            );
        }
        println!(
            "Chromium, WHEP: {:.1} us",
            (cpu() - began) / 1e3 / f64::from(rounds)
        );
        let began = cpu();
        for _ in 0..rounds {
            black_box(
                negotiate::accept_publisher(&identity, black_box(&publisher), &local, now).is_ok(),
            );
        }
        println!(
            "Chromium, WHIP: {:.1} us",
            (cpu() - began) / 1e3 / f64::from(rounds)
        );
    }
}
