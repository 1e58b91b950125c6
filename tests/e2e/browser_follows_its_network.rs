// SPDX-License-Identifier: MPL-2.0

//! Chromium plays through a link that collapses from 5 Mbit/s to 600 kbit/s and recovers, over the real sockets.

use sfu_tests::server::Server;
use sfu_tests::{browser, load};

const PIPELINE: &str = "videotestsrc is-live=true pattern=snow \
    ! video/x-raw,width=640,height=360,framerate=30/1 \
    ! sfusink stream=snow name=out layers=360:2500k,180:900k,90:200k \
    audiotestsrc is-live=true wave=ticks ! out.audio_0";

#[test]
fn chromium_gets_the_layer_that_its_link_carries() {
    let server = Server::launch("browser_follows_its_network", PIPELINE).unwrap();
    server.wait_for_stream("snow").unwrap();
    let tool = load::tool().unwrap();
    let picture = browser::screenshot("browser_follows_its_network").unwrap();
    let (url, udp) = (server.url("/snow"), server.udp_ports().join(","));
    let arguments = [
        "--url",
        &url,
        "--udp",
        &udp,
        "--load",
        tool.to_str().unwrap(),
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("follow.mjs", &arguments).unwrap();
    println!("{seen}");
    // Milliseconds; null is never. Only truth is asserted tightly, the machine may be busy.
    let within = |what: &str, limit: f64| {
        let took = seen[what].as_f64();
        assert!(
            took.is_some_and(|ms| ms < limit),
            "{what}: {took:?} ms of {limit}"
        );
    };
    within("toTop", 20_000.0);
    within("chosen", 3_000.0);
    within("lowest", 5_000.0);
    within("back", 30_000.0);
    assert_eq!(seen["atLow"]["height"], 90);
    assert!(
        seen["atLow"]["why"]
            .as_str()
            .unwrap()
            .contains("connection carries"),
        "the page says why: {}",
        seen["atLow"]["why"]
    );
    let frames = |when: &str| seen[when]["framesDecoded"].as_f64().unwrap();
    let decoded = frames("atLow") - frames("before");
    assert!(
        decoded > 180.0,
        "{decoded} frames in the 8 s and more after the collapse"
    );
    assert_eq!(seen["after"]["height"], 360);
}
