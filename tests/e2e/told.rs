// SPDX-License-Identifier: MPL-2.0

//! What viewers and their pages see of a server that ends, and of one that has no descriptors left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sfu_tests::load;
use sfu_tests::server::Server;

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
    ! sfusink stream=test layers=180:200k";
const VIEWERS: usize = 8;

/// Viewers by the load tool, in the background.
struct Viewers(Child);

impl Viewers {
    fn start(server: &Server, duration: &str) -> Self {
        let child = Command::new(load::tool().unwrap())
            .args([
                "--whep",
                &server.url("/whep/test"),
                "--video-only",
                "--json",
            ])
            .args(["--viewers", &VIEWERS.to_string(), "--ramp", "8/s"])
            .args(["--duration", duration])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let viewers = Self(child.unwrap());
        let joined = |info: Value| (info["viewers"] == VIEWERS).then_some(());
        let all = || Ok(joined(server.json("/api/streams/test")?));
        server.wait_for("all viewers", all).unwrap();
        viewers
    }

    /// What they have seen.
    fn seen(mut self) -> Value {
        let mut text = String::new();
        let output = self.0.stdout.as_mut().unwrap();
        output.read_to_string(&mut text).unwrap();
        let last = text.lines().last().expect("a result");
        serde_json::from_str(last).unwrap()
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(server: &Server, patience: Duration) -> TcpStream {
    let url = server.url("");
    let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream
}

/// A request on a connection that stays, and what has come of its answer within a moment.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 64 * 1_024];
    let length = stream.read(&mut answer).unwrap_or_default();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn offer() -> String {
    let print = ["AB"; 32].join(":");
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na=recvonly\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
         a=fingerprint:sha-256 {print}\r\na=rtpmap:96 H264/90000\r\n\
         a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"
    );
    let length = sdp.len();
    format!(
        "POST /whep/test HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}"
    )
}

fn location(answer: &str) -> &str {
    let line = answer.lines().find_map(|l| l.strip_prefix("location: "));
    line.unwrap_or_else(|| panic!("no session: {answer}"))
        .trim()
}

#[test]
fn viewers_and_pages_are_told_that_the_server_ends() {
    let server = Server::launch("told_of_the_end", PICTURE).unwrap();
    server.wait_for_stream("test").unwrap();
    let viewers = Viewers::start(&server, "8s");
    let mut page = connect(&server, Duration::from_secs(5));
    let answer = ask(&mut page, &offer());
    let events = format!(
        "GET {}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n",
        location(&answer)
    );
    assert!(ask(&mut page, &events).contains("text/event-stream"));
    // All are connected, and have reported: DTLS is let go of, and only its goodbye is kept.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(server.stop(), Some(0));
    let mut told = String::new();
    let _ = page.read_to_string(&mut told);
    assert!(
        told.contains("event: end\ndata: {\"reason\":\"server-stopped\"}\n"),
        "{told}"
    );
    let seen = viewers.seen();
    assert_eq!(
        seen["errors"],
        serde_json::json!(["the server closed the session"]),
        "{seen}"
    );
    assert_eq!(seen["viewers_failed"], VIEWERS, "{seen}");
}

/// Whatever takes them (files, other elements, the rest of an application): the limit of open files is lowered to less than
/// what is open, so that the process gets not a single one more.
fn limit_descriptors(server: &Server, soft: &str) {
    let status = Command::new("prlimit")
        .args([
            &format!("--pid={}", server.pid()),
            &format!("--nofile={soft}:"),
        ])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn without_descriptors_media_goes_on_and_http_comes_back() {
    let server = Server::launch("no_descriptors", PICTURE).unwrap();
    server.wait_for_stream("test").unwrap();
    let viewers = Viewers::start(&server, "8s");
    let mut kept = connect(&server, Duration::from_secs(5));
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let is_well = |answer: &str| answer.starts_with("HTTP/1.1 200");
    assert!(is_well(&ask(&mut kept, health)));
    let mut before = connect(&server, Duration::from_secs(5));
    let candidates = |answer: &str| answer.matches("a=candidate:").count();
    let known = ask(&mut before, &offer());
    assert!(candidates(&known) > 0, "{known}");

    let since = Instant::now();
    limit_descriptors(&server, "3");
    // Who is connected can even join, and is told the addresses that were known, which can't be asked for now.
    std::thread::sleep(Duration::from_millis(1_500));
    let answer = ask(&mut kept, &offer());
    assert_eq!(candidates(&answer), candidates(&known), "{answer}");
    let mut newcomers: Vec<_> = (0..40)
        .map(|_| connect(&server, Duration::from_millis(20)))
        .collect();
    let answered = newcomers.iter_mut().filter_map(|stream| {
        let answer = ask(stream, health);
        (!answer.is_empty()).then_some(answer)
    });
    assert_eq!(answered.count(), 0, "there are no descriptors");
    std::thread::sleep(Duration::from_secs(1));
    limit_descriptors(&server, "1024");
    let starved = since.elapsed();

    // They are answered now, and so are others.
    for stream in &mut newcomers {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert!(is_well(&String::from_utf8_lossy(&answer)));
    }
    assert!(is_well(&ask(
        &mut connect(&server, Duration::from_secs(5)),
        health
    )));
    let log = server.log();
    let said = log.matches("connections can't be accepted").count();
    let times = 1 + starved.as_secs() / 10;
    assert!(
        (1..=times as usize).contains(&said),
        "{said} times in {starved:?}"
    );
    let seen = viewers.seen();
    assert_eq!(seen["viewers_with_picture"], VIEWERS, "{seen}");
    assert_eq!(seen["unrepaired_packets"], 0, "{seen}");
    assert_eq!(seen["errors"], Value::Array(Vec::new()), "{seen}");
}
