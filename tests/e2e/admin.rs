// SPDX-License-Identifier: MPL-2.0

//! The page for who runs the server, at the width of a desk and of a phone.

use sfu_tests::ndi::repository;
use sfu_tests::server::Server;
use sfu_tests::{browser, load};

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
    ! sfusink name=out stream=test layers=360:400k,180:150k audiotestsrc is-live=true ! out.audio_0";

#[test]
fn the_page_shows_the_server_and_changes_it() {
    let recordings = repository().join("target/e2e-logs/admin-recordings");
    let pipeline = format!("recordings-directory={} {PICTURE}", recordings.display());
    let server = Server::launch("admin", &pipeline).unwrap();
    server.wait_for_stream("test").unwrap();
    let _viewers = load::watch(&server.url("/whep/test"), 4, "120s").unwrap();
    for (name, width, height) in [("desk", "1280", "800"), ("phone", "390", "844")] {
        let picture = browser::screenshot(&format!("admin-{name}")).unwrap();
        let picture = picture.to_str().unwrap();
        let arguments = [
            "--base",
            &server.url(""),
            "--width",
            width,
            "--height",
            height,
        ];
        let seen = browser::run(
            "admin.mjs",
            &[&arguments[..], &["--screenshot", picture]].concat(),
        );
        let seen = seen.unwrap();
        assert_eq!(seen["overflow"], 0, "{name}: {seen}");
        let push = seen["push"].as_str().unwrap();
        assert!(push.contains("rtmp://127.0.0.1:9"), "{push}");
        assert_eq!(seen["told"], false, "{name}: a key stays: {seen}");
        assert_eq!(seen["small"], 0, "{name}: buttons for fingers: {seen}");
        let refused = seen["refused"].as_str().unwrap();
        assert!(refused.contains("a pipeline of this process"), "{refused}");
        let plots = seen["plots"].as_array().unwrap();
        for plot in plots {
            let title = plot["title"].as_str().unwrap();
            // Pages alone report how late they are, and nobody is refused.
            if !title.starts_with("Latency") {
                assert!(
                    plot["lines"].as_u64().unwrap() > 0,
                    "{name} {title}: {seen}"
                );
            }
        }
        assert!(plots.len() >= 8, "{seen}");
    }
}
