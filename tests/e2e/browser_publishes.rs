// SPDX-License-Identifier: MPL-2.0

//! Chromium publishes its (fake) camera over WHIP in three layers, and Chromium plays it over WHEP.

use sfu_tests::browser;
use sfu_tests::server::Server;

#[test]
fn chromium_publishes_simulcast_to_chromium() {
    let server = Server::pipeline("browser_publishes", "sfu", &[]).unwrap();
    let base = server.url("");
    for codec in ["video/VP8", "video/H264"] {
        let stream = format!("camera-{}", codec.rsplit('/').next().unwrap());
        let arguments = [
            "--base",
            &base,
            "--stream",
            &stream,
            "--codec",
            codec,
            "--seconds",
            "12",
        ];
        let seen = browser::run("publish.mjs", &arguments).unwrap();
        println!("{seen}");
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        assert_eq!(seen["played"]["codec"], codec);
        assert!(number(&seen["played"]["framesDecoded"]) > 100.0, "{codec}");
        let layers = seen["info"]["video"]["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 3, "{codec}");
        let heights: Vec<_> = layers.iter().map(|l| number(&l["height"])).collect();
        assert!(
            heights.is_sorted_by(|a, b| a > b),
            "highest first: {heights:?}"
        );
        // The menu's lowest layer is decoded at its height.
        assert_eq!(seen["lowest"]["height"], layers[2]["height"], "{codec}");
        assert!(number(&seen["lowest"]["audioEnergy"]) > 0.0, "{codec}");
    }
}
