// SPDX-License-Identifier: MPL-2.0

//! `pipelines/rtmp-in`: an encoder publishes by RTMP and viewers see it, whoever else knocks at the port; when it comes
//! back after a crash they see it again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

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
    let seen = load::run(&["--whep", &whep, "--viewers", "2", "--duration", "4s"]).unwrap();
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
    let publisher = Publisher::ffmpeg("rtmp_copy_1", false, "flv", &address).unwrap();
    let info = server.wait_for_stream("demo").unwrap();
    // No layer is made: it is the publisher's picture.
    assert_eq!(info["video"]["layers"].as_array().unwrap().len(), 1);
    watch(&server, "demo");

    // The API ends it, and takes the next one.
    kick(&server, "demo");
    let said = publisher.ended("rtmp_copy_1").unwrap();
    println!("{said}");
    server.wait_until_silent("demo").unwrap();
    let _publisher = Publisher::ffmpeg("rtmp_copy_2", false, "flv", &address).unwrap();
    server.wait_for_stream("demo").unwrap();
}

/// Ends a stream's publisher through the API.
pub(crate) fn kick(server: &Server, stream: &str) {
    let url = server.url(&format!("/api/v1/streams/{stream}"));
    let answer = ureq::delete(url).call().unwrap();
    assert_eq!(answer.status(), 204);
}

/// A connection after the handshake, which ends the client if the server does not take what it sends.
fn shake_hands(port: u16) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let patience = Some(Duration::from_secs(30));
    client.set_read_timeout(patience).unwrap();
    client.set_write_timeout(patience).unwrap();
    client.write_all(&[3]).unwrap();
    client.write_all(&[0; 1536]).unwrap();
    let mut answer = [0; 1 + 2 * 1536];
    client.read_exact(&mut answer).unwrap();
    client.write_all(&answer[1..=1536]).unwrap();
    client
}

/// Sends chunks until it is cut, or five gigabytes are out. Gives how much was.
fn flood(mut client: TcpStream, chunk: &[u8]) -> usize {
    let chunks = chunk.repeat(1 << 12);
    let mut sent = 0;
    while sent < 5_000_000_000 {
        match client.write(&chunks) {
            Ok(0) | Err(_) => return sent,
            Ok(taken) => sent += taken,
        }
    }
    sent
}

/// The most memory that the server had, in KiB.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse().unwrap()
}

#[test]
fn who_misbehaves_is_cut_and_counted_and_viewers_see_nothing_of_it() {
    let (port, _) = free_ports().unwrap();
    let rtmp_port = format!("RTMP_PORT={port}");
    let server = Server::pipeline("rtmp_bad", "rtmp-in", &["ENCODE=never", &rtmp_port]).unwrap();
    let address = format!("rtmp://127.0.0.1:{port}/live/any");
    let mut publisher = Publisher::ffmpeg("rtmp_bad_good", false, "flv", &address).unwrap();
    server.wait_for_stream("demo").unwrap();
    let before = memory(&server);
    let whep = server.url("/whep/demo");
    let seen = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| {
            let arguments = ["--whep", &whep, "--viewers", "1", "--duration", "14s"];
            load::run(&arguments).unwrap()
        });
        let mut garbage = TcpStream::connect(("127.0.0.1", port)).unwrap();
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _stalling = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // A message of 16 MiB, and one of a megabyte that is begun again with each chunk, for ever.
        let too_long = [6, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0];
        let mut again = [0; 12 + 128];
        again[..12].copy_from_slice(&[6, 0, 0, 0, 0x10, 0, 0, 9, 1, 0, 0, 0]);
        // And one that goes on in chunks of two chunk streams.
        let mut two = [0; 2 * (12 + 128)];
        two[..140].copy_from_slice(&again);
        two[140..].copy_from_slice(&again);
        two[140] = 7;
        let floods = [&too_long[..], &again, &two].map(|chunk| {
            let chunk = chunk.to_vec();
            scope.spawn(move || flood(shake_hands(port), &chunk))
        });
        let sent = floods.map(|flood| flood.join().unwrap());
        println!("{sent:?} bytes were taken before the cuts");
        assert!(sent.iter().all(|sent| *sent < 5_000_000_000), "{sent:?}");
        viewer.join().unwrap()
    });
    println!("{seen}");
    let cut = || {
        let log = server.log();
        let cuts = log.lines().filter(|l| l.contains(": cut: ")).count();
        Ok((cuts >= 5).then_some(cuts))
    };
    let cuts = server.wait_for("five cuts in the log", cut).unwrap();
    let more = memory(&server) - before;
    println!("{cuts} clients were cut, {more} KiB of memory more");
    assert!(more < 64 * 1024, "{more} KiB");
    assert!(publisher.runs());
    assert_eq!(seen["viewers_with_picture"], 1);
    assert_eq!(seen["broken_frames"], 0);
    assert_eq!(seen["unrepaired_packets"], 0);
    let rate = seen["frames_per_second_per_viewer"].as_f64().unwrap();
    assert!(rate > 25.0, "{rate} frames a second");
}
