// SPDX-License-Identifier: MPL-2.0

//! Very many connections: who sends nothing keeps nobody out, and full is said at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::running::Running;
use crate::*;

/// Opens as many half-sent requests as wanted, heads and bodies.
fn half_sent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let parts: [&[u8]; 4] = [
        b"GET /whep/test HT",
        b"POST /whep/test HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n",
        b"POST /whep/test HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 900\r\n\r\nv=0",
        b"",
    ];
    parts
        .iter()
        .cycle()
        .take(count)
        .map(|part| sending(address, part))
        .collect()
}

fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(16_384, |most| most.min(16_384));
    if now.current.is_some_and(|n| n < wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum: now.maximum,
        };
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    wanted
}

#[test]
fn two_thousand_half_sent_requests_keep_nobody_out_and_a_recording_goes_on() {
    let _turn = alone();
    let descriptors = raise_descriptors();
    assert!(
        descriptors >= 6_000,
        "the test itself needs 2,000 sockets twice: ulimit -n"
    );
    running::init();
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("libgstfmp4.so");
    gst::Plugin::load_file(built).expect("isofmp4mux must be built: ./sfu build");
    let folder = Folder::new("recording");
    let publisher = Running::prepare(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! sfusink stream=test layers=180:300k",
    );
    publisher.play();
    let recorder = Running::prepare(&format!(
        "sfurecorder stream=test directory={} location-template={{stream}}-{{number}}.mp4 max-duration=3",
        folder.0.display()
    ));
    recorder.play();
    for connections in ["0", "100"] {
        let (element, address) = started(&[("max-connections", connections)]);
        let end = Instant::now() + Duration::from_secs(20);
        while post(address, "/whep/test", "", &offer("recvonly")).0 != 201 {
            assert!(Instant::now() < end, "the stream does not begin");
            std::thread::sleep(Duration::from_millis(100));
        }
        let held = half_sent(address, 2_000);
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let since = Instant::now();
            let (status, answer) = post(address, "/whep/test", "", &offer("recvonly"));
            assert_eq!(status, 201, "{answer}");
            slowest = slowest.max(since.elapsed());
        }
        println!("max-connections={connections}: the slowest of 50 joins took {slowest:?}");
        assert!(slowest < PROMPT);
        let open = statistic(&element, "http-connections");
        assert!(connections == "0" || open <= 100, "{open}");
        // Something new can be opened: a file, another pipeline.
        std::fs::write(folder.0.join("new"), "file").unwrap();
        let another = Running::prepare("videotestsrc num-buffers=1 ! fakesink");
        another.play();
        recorded(&recorder);
        drop(held);
        element.set_state(gst::State::Null).unwrap();
    }
}

/// A file of the recording is finished.
fn recorded(recorder: &Running) {
    loop {
        let message = recorder.next(&[gst::MessageType::Element]);
        let about = message.structure().unwrap();
        if about.name() == "sfu-recording" && about.get::<&str>("state") == Ok("finished") {
            let location: String = about.get("location").unwrap();
            assert!(std::fs::metadata(location).unwrap().len() > 10_000);
            return;
        }
    }
}

#[test]
fn full_is_said_at_once_and_who_is_there_stays() {
    let _turn = alone();
    let folder = with_a_large_file("full");
    let (element, address) = started(&[
        ("router", "full"),
        ("max-connections", "20"),
        ("max-connections-per-address", "10"),
        ("hls-directory", folder.0.to_str().unwrap()),
    ]);
    let request = b"GET /hls/cam/v0-1.ts HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut busy: Vec<_> = (0..10).map(|_| sending(address, request)).collect();
    for stream in &mut busy {
        stream.read_exact(&mut [0; 64]).unwrap();
    }
    let (status, answer) = ask(address, "GET /healthz", "");
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer.contains("Retry-After: ") && answer.contains("connections"),
        "{answer}"
    );
    // Another address is not concerned.
    let other = std::net::Ipv4Addr::new(127, 0, 0, 2);
    let socket = from(other, address);
    let answered = {
        let mut socket = socket;
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(
        answered.contains("sfu_http_connections_refused_address_total 1\n"),
        "{answered}"
    );
    for stream in &mut busy {
        stream.read_exact(&mut [0; 64]).unwrap();
    }
    assert_eq!(statistic(&element, "http-connections-refused-address"), 1);
    // Who has taken its answer makes room.
    drop(busy.pop());
    let end = Instant::now() + PROMPT;
    while ask(address, "GET /healthz", "").0 != 200 {
        assert!(Instant::now() < end);
    }
    element.set_state(gst::State::Null).unwrap();

    // A trusted proxy is many.
    let (element, address) = started(&[
        ("router", "full"),
        ("max-connections", "20"),
        ("max-connections-per-address", "10"),
        ("trusted-proxies", "127.0.0.0/8"),
        ("hls-directory", folder.0.to_str().unwrap()),
    ]);
    let mut busy: Vec<_> = (0..19).map(|_| sending(address, request)).collect();
    for stream in &mut busy {
        stream.read_exact(&mut [0; 64]).unwrap();
    }
    still_serves(address);
    element.set_state(gst::State::Null).unwrap();
}

/// A connection from another address of this machine.
fn from(local: std::net::Ipv4Addr, address: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((local, 0))).unwrap();
    connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream
}
