// SPDX-License-Identifier: MPL-2.0

//! Requests of every kind: each is answered or cut in its time.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::*;

/// What comes of a request that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is answered with one of these, or the connection ends.
    Refused,
    /// It is answered with this.
    Answered(u16),
    /// It may be taken for something that it can mean.
    Either,
}

#[test]
fn every_kind_of_request_is_answered_or_cut() {
    use Fate::{Answered, Either, Refused};
    let _turn = alone();
    let (element, address) = started(&[("router", "kinds")]);
    let many_fields: String = (0..200).fold(String::new(), |mut all, n| {
        write!(all, "x-{n}: 1\r\n").unwrap();
        all
    });
    let many_fields = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many_fields}\r\n");
    let large_field = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let long_path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(70_000)
    );
    let endless = format!("GET /{}", "a".repeat(1 << 20));
    let huge_body = format!(
        "POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 100000\r\n\r\n{}",
        "a".repeat(100_000)
    );
    let endless_chunks = format!(
        "POST /whip/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "400\r\n".to_owned() + &"a".repeat(0x400) + "\r\n"
    );
    let endless_chunks = endless_chunks.clone()
        + &endless_chunks
            ["POST /whip/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                .len()..]
            .repeat(100);
    let cases: Vec<(&str, Vec<u8>, Fate)> = [
        ("no HTTP", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"[..], Refused),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused),
        ("HTTP/0.9", b"GET /\r\n\r\n", Refused),
        ("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n", Answered(200)),
        ("HTTP/1.0, two Hosts", b"GET /healthz HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n", Answered(400)),
        ("no Host", b"GET /healthz HTTP/1.1\r\n\r\n", Answered(400)),
        ("no Host, absolute form", b"GET http://localhost/healthz HTTP/1.1\r\n\r\n", Answered(400)),
        ("two Hosts", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nhost: example.org\r\n\r\n", Answered(400)),
        ("two in one Host", b"GET /healthz HTTP/1.1\r\nHost: localhost, example.org\r\n\r\n", Answered(400)),
        ("empty Host", b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", Answered(200)),
        ("HTTP/3.0", b"GET /healthz HTTP/3.0\r\n\r\n", Refused),
        ("NULs", &[0; 5_000], Refused),
        ("line ends", b"\r\n\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(200)),
        ("bare LF", b"GET /healthz HTTP/1.1\nHost: localhost\n\n", Answered(200)),
        ("many fields", many_fields.as_bytes(), Answered(431)),
        ("large field", large_field.as_bytes(), Answered(431)),
        ("long path", long_path.as_bytes(), Refused),
        ("endless line", endless.as_bytes(), Refused),
        ("field without name", b"GET / HTTP/1.1\r\n: x\r\n\r\n", Refused),
        ("folded field", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n y\r\n\r\n", Refused),
        ("NUL in a field", b"GET / HTTP/1.1\r\nHost: \0\r\n\r\n", Refused),
        ("two lengths", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nv=0\r\n", Refused),
        ("negative length", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", Refused),
        ("length with plus", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: +4\r\n\r\nv=0\n", Refused),
        ("length of 2^64", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616\r\n\r\n", Refused),
        ("length of 2^63", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\n\r\n", Refused),
        ("length and chunks", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n", Refused),
        ("unknown coding", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", Refused),
        ("broken chunk", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Answered(400)),
        ("chunk of 2^64", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", Answered(400)),
        ("chunks without end", endless_chunks.as_bytes(), Answered(413)),
        ("huge body", huge_body.as_bytes(), Answered(413)),
        ("huge body, asked first", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n", Answered(413)),
        ("body of a GET", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Answered(200)),
        ("HEAD", b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(200)),
        ("OPTIONS of all", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", Either),
        ("OPTIONS", b"OPTIONS /whep/a HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(204)),
        ("unknown method", b"BREW /whep/a HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(405)),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(405)),
        ("CONNECT", b"CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused),
        ("CONNECT to a path", b"CONNECT /whep/a HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused),
        ("absolute form", b"GET http://example.org/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(200)),
        ("absolute form of elsewhere", b"GET ftp://example.org:99999/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Either),
        ("authority only", b"GET example.org HTTP/1.1\r\nHost: localhost\r\n\r\n", Either),
        ("upgrade", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Answered(200)),
        ("NUL in a name", b"GET /api/streams/a%00b HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(400)),
        ("dots in a name", b"GET /api/streams/..%2f..%2fetc HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(400)),
        ("no UTF-8 in a name", b"GET /api/streams/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(400)),
        ("no UTF-8 in a path", b"GET /api/streams/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused),
        ("broken percent", b"GET /api/streams/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", Answered(400)),
        ("broken query", b"GET /healthz?stream=%ff&stream HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused),
        ("no UTF-8 in a type", b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: \xff\r\nContent-Length: 1\r\n\r\na", Answered(415)),
        ("bad address of a proxy", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nForwarded: \xff;for=\"\r\n\r\n", Answered(200)),
    ]
    .map(|(name, octets, fate)| (name, octets.to_vec(), fate))
    .into();
    for (name, octets, fate) in cases {
        let mut stream = sending(address, &octets);
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let since = Instant::now();
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
                // It waits for the next request.
                Err(e) if e.kind() == ErrorKind::WouldBlock && !answer.is_empty() => break,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            assert!(since.elapsed() < PROMPT, "{name}: neither answered nor cut");
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match fate {
            Answered(expected) => {
                assert_eq!(status(&answer), expected, "{name}: {answer}");
            }
            Refused => assert!(
                matches!(status(&answer), 0 | 400..=499 | 505),
                "{name}: {answer}"
            ),
            Either => assert!(status(&answer) < 500, "{name}: {answer}"),
        }
        // What was smuggled in behind a request is none.
        assert!(
            answer.matches("HTTP/1.1 200").count() <= 1,
            "{name}: {answer}"
        );
        still_serves(address);
    }
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn many_requests_on_one_connection_cost_nobody_else_anything() {
    let _turn = alone();
    let (element, address) = started(&[("router", "pipelined")]);
    const REQUESTS: usize = 20_000;
    let mut stream = connect(address);
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for _ in 0..REQUESTS {
            writer.write_all(request).unwrap();
        }
    });
    let mut answers = 0;
    let mut kept = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while answers < REQUESTS {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0);
        kept.extend_from_slice(&buffer[..read]);
        let mark = b"\r\n\r\nok\n";
        while let Some(at) = kept.windows(mark.len()).position(|w| w == mark) {
            answers += 1;
            kept.drain(..at + mark.len());
        }
        if answers % 2_000 == 0 {
            still_serves(address);
        }
    }
    sender.join().unwrap();
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn those_who_are_cut_off_leave_nothing() {
    let _turn = alone();
    let folder = with_a_large_file("reset");
    let (element, address) = started(&[
        ("router", "reset"),
        ("hls-directory", folder.0.to_str().unwrap()),
    ]);
    let session = publish(address, "live");
    let events = format!("GET {session}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for request in [
        &b""[..],
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nv=0",
        b"GET /hls/cam/v0-1.ts HTTP/1.1\r\nHost: localhost\r\n\r\n",
        events.as_bytes(),
    ] {
        for reset in [false, true] {
            for _ in 0..20 {
                let stream = sending(address, request);
                if reset {
                    // Unread octets and a closed socket: a reset.
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(stream);
            }
        }
    }
    let end = Instant::now() + PROMPT * 2;
    while statistic(&element, "http-connections") > 0 {
        assert!(
            Instant::now() < end,
            "{}",
            statistic(&element, "http-connections")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    still_serves(address);
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn slow_requests_are_cut_in_their_time_and_slow_readers_are_not() {
    let _turn = alone();
    let folder = with_a_large_file("slow");
    let (element, address) = started(&[
        ("router", "slow"),
        ("hls-directory", folder.0.to_str().unwrap()),
    ]);
    let session = publish(address, "live");
    let mut head = connect(address);
    let mut body = sending(
        address,
        b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 1000\r\n\r\n",
    );
    let mut silent = connect(address);
    let mut idle = sending(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let events = format!("GET {session}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut events = sending(address, events.as_bytes());
    let mut download = sending(
        address,
        b"GET /hls/cam/v0-1.ts HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    let since = Instant::now();
    let (mut head_cut, mut body_cut) = (None, None);
    while since.elapsed() < Duration::from_secs(20) {
        // An octet each quarter of a second.
        let now = since.elapsed();
        if head_cut.is_none()
            && (head.write_all(b"x").is_err() || is_closed(&mut head, Duration::ZERO))
        {
            head_cut = Some(now);
        }
        if body_cut.is_none()
            && (body.write_all(b"x").is_err() || is_closed(&mut body, Duration::ZERO))
        {
            body_cut = Some(now);
        }
        let mut some = [0; 4_000];
        download.read_exact(&mut some).unwrap();
        std::thread::sleep(Duration::from_millis(150));
    }
    let seconds = |cut: Option<Duration>| cut.expect("it is cut").as_secs();
    assert!((9..14).contains(&seconds(head_cut)), "{head_cut:?}");
    assert!((14..19).contains(&seconds(body_cut)), "{body_cut:?}");
    assert!(is_closed(&mut silent, Duration::ZERO));
    for (name, stream) in [
        ("idle", &mut idle),
        ("events", &mut events),
        ("download", &mut download),
    ] {
        let mut some = [0; 16];
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert!(!matches!(stream.read(&mut some), Ok(0)), "{name} was cut");
    }
    assert!(statistic(&element, "http-connections-timed-out") >= 2);
    element.set_state(gst::State::Null).unwrap();
}
