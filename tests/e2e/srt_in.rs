// SPDX-License-Identifier: MPL-2.0

//! `pipelines/srt-in`: an encoder calls by SRT with the passphrase, and viewers see it, also when it calls again after a
//! crash; who does not know the passphrase is not let in.

use sfu_tests::publisher::Publisher;
use sfu_tests::server::{Server, free_ports};

use crate::rtmp_in::watch;

#[test]
fn an_encoder_that_calls_is_seen_and_comes_back() {
    let port = free_ports().unwrap().1;
    let srt_port = format!("SRT_PORT={port}");
    let keys = [
        "KEY=correct-horse",
        "ENCODE=never",
        "STREAM=demo",
        &srt_port,
    ];
    let server = Server::pipeline("srt_in", "srt-in", &keys).unwrap();
    let call = |key: &str| format!("srt://127.0.0.1:{port}?mode=caller&passphrase={key}");
    for name in ["srt_1", "srt_2"] {
        let stranger = format!("{name}_stranger");
        let _stranger =
            Publisher::ffmpeg(&stranger, false, "mpegts", &call("wrong-horse")).unwrap();
        // FFmpeg encodes, srt-live-transmit is who calls: it is SRT's own program.
        let from = free_ports().unwrap().1;
        let local = format!("udp://127.0.0.1:{from}");
        let transmit = ["-q", &local, &call("correct-horse")];
        let caller = Publisher::start(name, "srt-live-transmit", &transmit).unwrap();
        let encoder = format!("{name}_encoder");
        let local = format!("{local}?pkt_size=1316");
        let _encoder = Publisher::ffmpeg(&encoder, false, "mpegts", &local).unwrap();
        watch(&server, "demo");
        drop(caller);
        server.wait_until_silent("demo").unwrap();
    }
}
