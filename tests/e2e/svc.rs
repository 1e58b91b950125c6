// SPDX-License-Identifier: MPL-2.0

//! Chromium publishes AV1 with spatial layers in one SSRC, as LiveKit's clients do by default: they are told apart, and a viewer in
//! Chromium, whose page takes the dependency descriptor, is shown each of them.

use sfu_tests::browser;
use sfu_tests::server::Server;

#[test]
fn spatial_layers_of_av1_are_told_apart_and_each_is_shown() {
    let server = Server::pipeline("svc", "sfu", &[]).unwrap();
    let seen = browser::run("svc.mjs", &["--base", &server.url("")]).unwrap();
    println!("{seen}");
    let shown = seen[0]["shown"].as_array().unwrap();
    let heights: Vec<_> = shown.iter().map(|s| s["height"].as_u64()).collect();
    assert_eq!(heights, [144, 288, 576, 144].map(Some), "{shown:?}");
    for layer in shown {
        assert_eq!(layer["codec"], "video/AV1");
        // Of 15; two cores encode three layers, and decode one.
        assert!(layer["fps"].as_f64().unwrap() > 3.0, "{layer}");
    }
    let layers = seen[0]["layers"].as_array().unwrap();
    let heights: Vec<_> = layers
        .iter()
        .map(|layer| layer["height"].as_u64())
        .collect();
    assert_eq!(heights, [Some(576), Some(288), Some(144)]);
}
