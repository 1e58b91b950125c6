// SPDX-License-Identifier: MPL-2.0

//! What strangers do to handshakes and to HTTP/2: each is answered or cut in its time, and costs nobody else anything.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sfu_tls::rustls::version::TLS13;

use crate::client::{
    CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, connect,
};
use crate::{LATE, Served, alone};

/// A handshake, and a first request, have 10 s.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Waits for the end of a connection; what it was sent before that.
fn ends(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(HANDSHAKE + LATE)).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("it was not cut")
        }
        _ => answer,
    }
}

#[test]
fn handshakes_have_their_time_and_their_number() {
    let _alone = alone();
    let served = Served::new("handshakes", &[("max-connections", "8")]);
    let began = Instant::now();
    let sent: [&[u8]; 5] = [
        b"",
        &[22],
        &[22, 3, 1, 2, 0, 1],
        // A hello of 16 MiB begins.
        &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3],
        &[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 0, 0],
    ];
    let mut waiting: Vec<_> = sent
        .iter()
        .map(|octets| {
            let mut stream = connect(served.address);
            stream.write_all(octets).unwrap();
            stream
        })
        .collect();
    // One that goes on, octet by octet, and one whose handshake is over and who says nothing.
    let mut dripping = connect(served.address);
    dripping.write_all(&[22, 3, 1, 0, 200]).unwrap();
    let mut silent = H2::silent(served.address, &served.identity, &TLS13);
    served.serves();
    // More of them than there may be: others are served nevertheless.
    let crowd: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = connect(served.address);
            let _ = stream.write_all(&[22, 3, 1]);
            stream
        })
        .collect();
    served.serves();
    drop(crowd);
    while began.elapsed() < HANDSHAKE + LATE && dripping.write_all(&[1]).is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    for stream in &mut waiting {
        ends(stream);
    }
    while silent.next().is_some() {}
    assert!(began.elapsed() < HANDSHAKE + LATE, "{:?}", began.elapsed());
    served.serves();
    served.stop();
}

#[test]
fn what_is_no_handshake_costs_an_alert_and_is_counted() {
    let _alone = alone();
    let served = Served::new("garbage", &[]);
    for sent in [
        &[22u8, 3, 1, 0, 4, 99, 0, 0, 0][..],
        &[22, 0xff, 0xff, 0xff, 0xff, 0, 0, 0],
        &[22; 1000],
    ] {
        let mut stream = connect(served.address);
        stream.write_all(sent).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = ends(&mut stream);
        assert!(answer.len() < 100, "{answer:?}");
    }
    served.counts("http-connections-tls-failed", 3);
    served.serves();
}

#[test]
fn requests_that_are_given_up_at_once_end_their_connection() {
    let _alone = alone();
    let served = Served::new("rapid", &[]);
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    let mut sent = 0;
    for n in 0..20_000u32 {
        let stream = 2 * n + 1;
        let block = block("localhost", "GET", "/healthz", &[]);
        let both = h2
            .try_send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
            .and_then(|()| h2.try_send(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        if both.is_err() {
            break;
        }
        sent = n;
        if n % 500 == 0 {
            served.serves();
        }
    }
    assert!(sent < 19_999, "it was let");
    served.serves();
    // With bodies that are never sent, so that each is looked at.
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    let mut given_up = 0;
    for n in 0..2_000u32 {
        let stream = 2 * n + 1;
        let block = block(
            "localhost",
            "POST",
            "/whep/a",
            &[("content-type", "application/sdp")],
        );
        if h2.try_send(HEADERS, END_HEADERS, stream, &block).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
        if h2
            .try_send(RST_STREAM, 0, stream, &8u32.to_be_bytes())
            .is_err()
        {
            break;
        }
        given_up = n;
    }
    assert!(given_up < 1_000, "{given_up} were let");
    served.counts("http-connections-given-up", 1);
    served.serves();
    served.stop();
}

#[test]
fn heads_and_streams_are_bounded() {
    let _alone = alone();
    let served = Served::new("heads", &[]);
    let long = "x".repeat(8_000);
    let large: Vec<(&str, &str)> = vec![("x-a", &*long); 8];
    let many: Vec<(&str, &str)> = vec![("x-a", "b"); 101];
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    h2.request(1, "GET", "/healthz", &many, true);
    assert_eq!(h2.status(1), 431);
    h2.request(3, "CONNECT", "/", &[], true);
    assert!(matches!(h2.status(3), 0 | 400 | 405));
    // Too large for one frame.
    let block_of = block("localhost", "GET", "/healthz", &large);
    let parts: Vec<&[u8]> = block_of.chunks(16_000).collect();
    h2.send(HEADERS, END_STREAM, 5, parts[0]);
    for (n, part) in parts[1..].iter().enumerate() {
        let end = if n + 2 == parts.len() { END_HEADERS } else { 0 };
        h2.send(CONTINUATION, end, 5, part);
    }
    assert!(matches!(h2.status(5), 0 | 431));
    // Without end.
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    h2.send(HEADERS, END_STREAM, 1, &block("localhost", "GET", "/", &[]));
    let mut sent = 0;
    while sent < 10_000
        && h2
            .try_send(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b'])
            .is_ok()
    {
        sent += 1;
    }
    assert!(sent < 10_000, "a head without end was read");
    // More streams than there may be.
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    for n in 0..40 {
        h2.request(2 * n + 1, "POST", "/whep/a", &[], false);
    }
    let refused = h2.find(|f| f.kind == RST_STREAM || f.kind == GOAWAY);
    assert!(refused.is_some());
    served.serves();
    served.stop();
}

#[test]
fn requests_of_one_connection_count_as_connections() {
    let _alone = alone();
    let served = Served::new(
        "more",
        &[
            ("max-connections", "8"),
            ("max-connections-per-address", "8"),
        ],
    );
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    // Bodies that don't come.
    for n in 0..16 {
        h2.request(
            2 * n + 1,
            "POST",
            "/whep/a",
            &[("content-type", "application/sdp")],
            false,
        );
    }
    for n in 8..16 {
        assert_eq!(h2.status(2 * n + 1), 503, "{n}");
    }
    for n in 0..8 {
        h2.send(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes());
    }
    // All of it is given back.
    let deadline = Instant::now() + LATE;
    let mut stream = 101;
    loop {
        h2.request(stream, "GET", "/healthz", &[], true);
        if h2.status(stream) == 200 {
            break;
        }
        assert!(Instant::now() < deadline);
        stream += 2;
    }
    drop(h2);
    for _ in 0..20 {
        served.serves();
    }
    served.stop();
}

#[test]
fn null_ends_handshakes_and_streams() {
    let _alone = alone();
    let served = Served::new("null", &[]);
    let _half = {
        let mut stream = connect(served.address);
        stream.write_all(&[22, 3, 1]).unwrap();
        stream
    };
    let _silent = H2::silent(served.address, &served.identity, &TLS13);
    let mut idle = H2::connect(served.address, &served.identity, &TLS13);
    idle.request(1, "GET", "/healthz", &[], true);
    assert_eq!(idle.status(1), 200);
    let mut body = H2::connect(served.address, &served.identity, &TLS13);
    body.request(
        1,
        "POST",
        "/whep/a",
        &[("content-type", "application/sdp")],
        false,
    );
    // One that takes nothing of its answers.
    let mut stuck = H2::connect(served.address, &served.identity, &TLS13);
    stuck.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for n in 0..20 {
        stuck.request(2 * n + 1, "GET", "/assets/studio.js", &[], true);
    }
    stuck.send(PING, 0, 0, &[0; 8]);
    assert!(stuck.find(|f| f.kind == PING).is_some());
    stuck.send(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    std::thread::sleep(Duration::from_millis(300));
    served.stop();
    while idle.next().is_some() {}
}
