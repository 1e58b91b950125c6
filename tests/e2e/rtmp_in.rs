// SPDX-License-Identifier: MPL-2.0

//! `pipelines/rtmp-in`: an encoder publishes by RTMP and viewers see it, whoever else knocks at the port; when it comes
//! back after a crash they see it again.

use std::io::Write;
use std::net::TcpStream;

use sfu_tests::load;
use sfu_tests::publisher::Publisher;
use sfu_tests::server::{Server, free_ports};

/// The stream has a picture and sound, and two viewers get pictures, none of which is broken.
pub(crate) fn watch(server: &Server, stream: &str) {
    server.wait_for_stream(stream).unwrap();
    let sound = server.wait_for("sound", || {
        let info = server.json(&format!("/api/streams/{stream}"))?;
        Ok((info["audio"]["codec"] == "opus").then_some(()))
    });
    sound.unwrap();
    let whep = server.url(&format!("/whep/{stream}"));
    let seen = load::run(&["--whep", &whep, "--viewers", "2", "--duration", "2s"]).unwrap();
    println!("{seen}");
    assert_eq!(seen["status"], 0);
    assert_eq!(seen["viewers_with_picture"], 2);
    assert_eq!(seen["broken_frames"], 0);
}

/// Whoever sends nonsense, a message without end, or nothing. What is left open is open until it is dropped.
fn bad_clients(port: u16) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[]] {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = client.write_all(bytes);
        clients.push(client);
    }
    let mut endless = TcpStream::connect(("127.0.0.1", port)).unwrap();
    endless.write_all(&[3]).unwrap();
    endless.write_all(&[0; 2 * 1536]).unwrap();
    // A video message of 16 MiB.
    let header = [6, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0];
    let _ = endless.write_all(&header);
    clients.push(endless);
    clients
}

#[test]
fn an_encoder_with_b_frames_is_seen_and_comes_back() {
    let (port, _) = free_ports().unwrap();
    let rtmp_port = format!("RTMP_PORT={port}");
    let keys = ["STREAM=demo", "KEY=secret", "LAYERS=360:700k", &rtmp_port];
    let server = Server::pipeline("rtmp_in", "rtmp-in", &keys).unwrap();
    let address = |key: &str| format!("rtmp://127.0.0.1:{port}/live/{key}");
    server.wait_until_silent("demo").unwrap();

    let mut publisher = Publisher::ffmpeg("rtmp_1", true, "flv", &address("secret")).unwrap();
    server.wait_for_stream("demo").unwrap();
    let bad = bad_clients(port);
    for (name, key, why) in [
        ("rtmp_2", "secret", "Someone else publishes here"),
        ("rtmp_3", "guessed", "no such application and stream key"),
    ] {
        let refused = Publisher::ffmpeg(name, false, "flv", &address(key)).unwrap();
        let said = refused.ended(name).unwrap();
        assert!(said.contains(why), "{said}");
    }
    watch(&server, "demo");
    assert!(publisher.runs());
    drop(publisher);
    server.wait_until_silent("demo").unwrap();
    drop(bad);

    let _publisher = Publisher::ffmpeg("rtmp_4", false, "flv", &address("secret")).unwrap();
    watch(&server, "demo");
}

#[test]
fn an_encoder_without_b_frames_is_passed_on_as_it_is() {
    let (port, _) = free_ports().unwrap();
    let rtmp_port = format!("RTMP_PORT={port}");
    let server = Server::pipeline("rtmp_copy", "rtmp-in", &["ENCODE=never", &rtmp_port]).unwrap();
    let address = format!("rtmp://127.0.0.1:{port}/live/any");
    let _publisher = Publisher::ffmpeg("rtmp_copy_1", false, "flv", &address).unwrap();
    let info = server.wait_for_stream("demo").unwrap();
    // No layer is made: it is the publisher's picture.
    assert_eq!(info["video"]["layers"].as_array().unwrap().len(), 1);
    watch(&server, "demo");
}
