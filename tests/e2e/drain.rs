// SPDX-License-Identifier: MPL-2.0

//! A server that is about to end, as those see it who are there, and those who come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use sfu_tests::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);
const ELSEWHERE: &str = "https://b.example.org";

fn offer(direction: &str) -> String {
    let print = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789abcdef01234567\r\na=setup:actpass\r\na=mid:0\r\na=rtcp-mux\r\n\
         a=rtpmap:96 VP8/90000\r\na=fingerprint:sha-256 {print}\r\na={direction}\r\n"
    )
}

fn connect(server: &Server) -> TcpStream {
    let url = server.url("");
    let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The head of the answer.
fn ask(server: &Server, line: &str, body: &str) -> String {
    let mut stream = connect(server);
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.to_lowercase()
}

/// A session of somebody who publishes, which stays for 15 s though it never connects.
fn session(server: &Server, name: &str) -> String {
    let answer = ask(server, &format!("POST /whip/{name}"), &offer("sendonly"));
    let location = answer
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    location
        .unwrap_or_else(|| panic!("{answer}"))
        .trim()
        .to_owned()
}

fn terminate(server: &Server) {
    let id = server.pid().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
}

fn is_gone(server: &Server) -> bool {
    server.get("/healthz").is_err()
}

fn until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn those_who_are_there_are_told_and_those_who_come_are_sent_away() {
    for redirect in ["", ELSEWHERE] {
        let keys = [
            "DRAIN_TIMEOUT=14000".to_owned(),
            format!("DRAIN_REDIRECT={redirect}"),
        ];
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let server = Server::pipeline("drain", "sfu", &keys).unwrap();
        let session = session(&server, "cam1");
        let mut events = connect(&server);
        write!(
            events,
            "GET {session}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .unwrap();
        terminate(&server);
        let mut told = String::new();
        let mut lines = BufReader::new(events);
        while !told.contains("event: reconnect") || !told.ends_with("}\n") {
            assert!(lines.read_line(&mut told).unwrap() > 0, "{told}");
        }
        let data = told.split("event: reconnect").nth(1).unwrap();
        assert_eq!(
            data.contains(&format!("{ELSEWHERE}/whep/cam1")),
            !redirect.is_empty(),
            "{told}"
        );
        for way in ["whep", "whip"] {
            let answer = ask(
                &server,
                &format!("POST /{way}/new?layer=0"),
                &offer("sendonly"),
            );
            if redirect.is_empty() {
                assert!(
                    answer.starts_with("http/1.1 503") && answer.contains("retry-after: "),
                    "{answer}"
                );
            } else {
                let to = format!("location: {ELSEWHERE}/{way}/new?layer=0");
                assert!(
                    answer.starts_with("http/1.1 307") && answer.contains(&to),
                    "{answer}"
                );
            }
        }
        assert!(!is_gone(&server), "somebody is still there");
        assert!(ask(&server, &format!("DELETE {session}"), "").starts_with("http/1.1 200"));
        until("its end when all have gone", Duration::from_secs(6), || {
            is_gone(&server)
        });
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::pipeline("drain-twice", "sfu", &["DRAIN_TIMEOUT=60000"]).unwrap();
    let _session = session(&server, "cam1");
    terminate(&server);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!is_gone(&server));
    terminate(&server);
    until("its end", Duration::from_secs(4), || is_gone(&server));
}

#[test]
fn the_api_drains_it() {
    let server = Server::pipeline("drain-api", "sfu", &[]).unwrap();
    let url = server.url("/api/v1/drain");
    let drain = ureq::post(url).header("Content-Type", "application/json");
    let answer = drain.send(r#"{"timeout_ms": 1000}"#).unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    until("its end", Duration::from_secs(6), || is_gone(&server));
}
