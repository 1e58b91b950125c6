// SPDX-License-Identifier: MPL-2.0

//! An element that goes to NULL has ended its connections, and has freed its ports.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use gst::prelude::*;

use crate::*;

#[test]
fn null_ends_every_connection_and_frees_the_ports() {
    let _turn = alone();
    let folder = with_a_large_file("null");
    let free_tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let free_udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let tcp = free_tcp.local_addr().unwrap().to_string();
    let udp = free_udp.local_addr().unwrap().port().to_string();
    drop((free_tcp, free_udp));
    let element = signaller(&[
        ("listen", &tcp),
        ("udp-port", &udp),
        ("router", "null"),
        ("hls-directory", folder.0.to_str().unwrap()),
    ]);
    for round in 0..5 {
        element.set_state(gst::State::Playing).unwrap();
        let address = address(&element);
        let session = publish(address, "live");
        let events = format!("GET {session}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let requests: [&[u8]; 10] = [
            b"",
            b"G",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n",
            b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 1000\r\n\r\nv=0",
            b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"POST /whip/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal",
            events.as_bytes(),
            b"GET /hls/cam/v0-1.ts HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ];
        let mut open: Vec<TcpStream> = Vec::new();
        for request in requests {
            open.extend((0..5).map(|_| sending(address, request)));
        }
        // The last ones are at work by the time that one more is.
        still_serves(address);
        assert!(statistic(&element, "http-connections") >= 50);
        let since = Instant::now();
        element.set_state(gst::State::Null).unwrap();
        let took = since.elapsed();
        assert!(took < STOP, "round {round}: {took:?}");
        for (index, stream) in open.iter_mut().enumerate() {
            assert!(is_closed(stream, PROMPT), "round {round}: {index} is open");
        }
    }
}

#[test]
fn an_offer_under_way_keeps_no_port() {
    let _turn = alone();
    let udp = UdpSocket::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let element = signaller(&[("udp-port", &udp), ("router", "under-way")]);
    for _ in 0..5 {
        element.set_state(gst::State::Playing).unwrap();
        let address = address(&element);
        let asking: Vec<_> = (0..50)
            .map(|n| {
                let body = offer("sendonly");
                let length = body.len();
                let head = format!("POST /whip/s{n} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n");
                sending(address, (head + &body).as_bytes())
            })
            .collect();
        let since = Instant::now();
        element.set_state(gst::State::Null).unwrap();
        assert!(since.elapsed() < STOP, "{:?}", since.elapsed());
        drop(asking);
    }
}

/// What an event stream says until it ends.
fn events(address: SocketAddr, session: &str, meanwhile: impl FnOnce()) -> String {
    let request = format!("GET {session}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stream = sending(address, request.as_bytes());
    let mut said = vec![0; 1];
    // It has begun.
    stream.read_exact(&mut said).unwrap();
    meanwhile();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

#[test]
fn event_streams_tell_why_they_end() {
    let _turn = alone();
    let (element, address) = started(&[("router", "events")]);
    for _ in 0..3 {
        let session = publish(address, "live");
        let said = events(address, &session, || {
            let (status, answer) = ask(address, &format!("DELETE {session}"), "");
            assert_eq!(status, 200, "{answer}");
        });
        let end = "event: end\ndata: {\"reason\":\"session-ended\"}\n\n";
        assert_eq!(said.matches(end).count(), 1, "{said}");
        let last = said.trim_end_matches(['\r', '\n', '0']);
        assert!(last.ends_with(end.trim_end()), "it is the last one: {said}");
    }
    let session = publish(address, "live");
    let said = events(address, &session, || {
        element.set_state(gst::State::Null).unwrap();
    });
    let end = "event: end\ndata: {\"reason\":\"server-stopped\"}\n\n";
    assert_eq!(said.matches(end).count(), 1, "{said}");
}
