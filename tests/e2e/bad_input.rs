// SPDX-License-Identifier: MPL-2.0

//! Whoever sends nonsense is told what is wrong, is counted, and costs nobody else anything.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use sfu_tests::server::Server;

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
    ! sfusink stream=test layers=180:200k";

/// An offer that can only play a codec that the stream is not in.
const VP8_ONLY: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na=recvonly\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    a=rtpmap:96 VP8/90000\r\n";

fn send(
    server: &Server,
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> (u16, String) {
    let url = server.url("");
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or(0), answer)
}

#[test]
fn every_misuse_has_its_answer() {
    let server = Server::launch("bad_input", PICTURE).unwrap();
    server.wait_for_stream("test").unwrap();
    let sdp = "application/sdp";
    let huge = "a".repeat(65 * 1024);
    for (method, path, content_type, body, status, says) in [
        (
            "POST",
            "/whep/nobody",
            sdp,
            VP8_ONLY,
            404,
            "there is no stream",
        ),
        ("POST", "/whip/test", sdp, "", 400, "empty"),
        ("POST", "/whep/test", sdp, "hello", 400, "not understood"),
        (
            "POST",
            "/whep/test",
            sdp,
            VP8_ONLY,
            406,
            "the stream's video is H264, the offer has VP8",
        ),
        ("POST", "/whep/test", sdp, huge.as_str(), 413, "64 KiB"),
        (
            "POST",
            "/whep/test",
            "text/plain",
            VP8_ONLY,
            415,
            "application/sdp",
        ),
        ("POST", "/whep/test?layer=9", sdp, VP8_ONLY, 400, "it has 0"),
        ("POST", "/whep/a%20b", sdp, VP8_ONLY, 400, "stream name"),
        ("GET", "/whep/test", sdp, "", 405, "allow: POST"),
        ("GET", "/whip/test", sdp, "", 405, "only answers POST"),
        ("POST", "/whip/test", sdp, VP8_ONLY, 400, "a=sendonly"),
        (
            "PATCH",
            "/session/00000000000000000000000000000000",
            "application/trickle-ice-sdpfrag",
            "a=x",
            404,
            "no such session",
        ),
        (
            "DELETE",
            "/session/nonsense",
            sdp,
            "",
            404,
            "no such session",
        ),
        (
            "GET",
            "/session/00000000000000000000000000000000/sse",
            sdp,
            "",
            404,
            "no such session",
        ),
        (
            "POST",
            "/session/00000000000000000000000000000000/layer",
            "application/json",
            "{\"maxHeight\": -1}",
            422,
            "maxheight",
        ),
        (
            "POST",
            "/session/00000000000000000000000000000000/layer",
            "application/json",
            "{\"encodingId\": \"a b\"}",
            400,
            "layer",
        ),
        (
            "GET",
            "/session/00000000000000000000000000000000/clock",
            sdp,
            "",
            404,
            "no such session",
        ),
        (
            "POST",
            "/session/00000000000000000000000000000000/latency",
            "application/json",
            "{\"ms\": -1}",
            400,
            "below 0",
        ),
        (
            "POST",
            "/session/00000000000000000000000000000000/latency",
            "application/json",
            "{\"ms\": 1e9}",
            400,
            "at most 60000 ms",
        ),
        (
            "POST",
            "/session/00000000000000000000000000000000/latency",
            "application/json",
            "{\"ms\": 80}",
            404,
            "no such session",
        ),
        ("GET", "/../etc/passwd", sdp, "", 404, "stream name"),
        (
            "GET",
            "/assets/..%2f..%2fCargo.toml",
            sdp,
            "",
            404,
            "no such file",
        ),
        ("PUT", "/test", sdp, "", 405, "GET"),
    ] {
        let (got, answer) = send(&server, method, path, content_type, body);
        let answer = answer.to_lowercase();
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert!(
            answer.contains(&says.to_lowercase()),
            "{method} {path}: {answer}"
        );
    }
    let (status, answer) = send(&server, "OPTIONS", "/whep/test", sdp, "");
    assert_eq!(status, 204);
    for header in [
        "access-control-allow-origin: *",
        "accept-post: application/sdp",
        "access-control-allow-methods",
    ] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    assert!(server.metric("sfu_offers_refused_total").unwrap() >= 4);
    assert!(
        server
            .metric("sfu_http_responses_total{class=\"4xx\"}")
            .unwrap()
            >= 15
    );
    assert_eq!(server.metric("sfu_sessions").unwrap(), 0, "nobody got in");
}

#[test]
fn garbage_datagrams_are_counted_and_dropped() {
    let server = Server::launch("garbage", PICTURE).unwrap();
    server.wait_for_stream("test").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.udp_port();
    for n in 0..200u8 {
        let datagram: Vec<u8> = (0..n).map(|i| i.wrapping_mul(n)).collect();
        socket.send_to(&datagram, ("127.0.0.1", port)).unwrap();
    }
    let counted = server.wait_for("the garbage to be counted", || {
        let count = server.metric("sfu_datagrams_unknown_total")?;
        Ok((count >= 150).then_some(count))
    });
    println!(
        "{} of 200 datagrams were counted as unknown",
        counted.unwrap()
    );
    assert_eq!(server.metric("sfu_sessions_failed_total").unwrap(), 0);
    server.wait_for_stream("test").unwrap();
}
