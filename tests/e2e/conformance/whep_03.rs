// SPDX-License-Identifier: MPL-2.0

//! draft-ietf-wish-whep-03 (WHEP).

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sfu_tests::server::Server;

use super::{Clause, Endpoint, SESSIONS, offer, walk};

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 \
    ! sfusink name=out stream=cam1 layers=180:200k audiotestsrc is-live=true ! out.audio_0";

/// The names of the events that an address tells in a second, and their data.
fn events(e: &Endpoint<'_>, address: &str) -> Vec<(String, String)> {
    let url = e.server.url("");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    write!(stream, "GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut reader, mut told) = (BufReader::new(stream), Vec::new());
    let end = Instant::now() + Duration::from_millis(1_200);
    let mut line = String::new();
    while Instant::now() < end {
        line.clear();
        if reader.read_line(&mut line).is_err() {
            continue;
        }
        if let Some(name) = line.strip_prefix("event: ") {
            told.push((name.trim().to_owned(), String::new()));
        } else if let Some((data, (_, last))) = line.strip_prefix("data: ").zip(told.last_mut()) {
            assert!(last.is_empty(), "one line of data");
            last.push_str(data.trim());
        }
    }
    told
}

fn link<'a>(answer: &'a super::Answer, name: &str) -> Option<&'a str> {
    let relation = format!("rel=\"urn:ietf:params:whep:ext:core:{name}\"");
    let mut lines = answer.head.lines();
    let line = lines.find(|l| l.to_lowercase().starts_with("link:") && l.contains(&relation))?;
    line.split_once('<')?
        .1
        .split_once('>')
        .map(|(address, _)| address)
}

const CLAUSES: &[Clause] = &[
    (
        "4.2",
        "return a 201 with a content type of application/sdp, the SDP answer as the body, and a Location header field",
        |e| {
            e.with_session("actpass", |answer, session| {
                assert_eq!(answer.field("content-type"), Some("application/sdp"));
                assert!(session.starts_with("/session/"), "{answer:?}");
                assert_eq!(answer.lines("a=sendonly").count(), 2, "{answer:?}");
            });
        },
    ),
    (
        "4.2",
        "SDP offer … MUST NOT use sendonly or inactive",
        |e| {
            for direction in ["sendonly", "inactive"] {
                let answer = e.post(&offer(direction, "actpass"));
                assert!((400..500).contains(&answer.status), "{answer:?}");
            }
        },
    ),
    (
        "4.4.2",
        "all m= sections MUST contain an msid attribute with the same value",
        |e| {
            e.with_session("actpass", |answer, _| {
                let streams: Vec<_> = answer
                    .lines("a=msid:")
                    .map(|l| l.split(' ').next())
                    .collect();
                assert_eq!(streams.len(), 2, "{answer:?}");
                assert_eq!(streams[0], streams[1]);
            });
        },
    ),
    (
        "4.9",
        "extensions … MUST be advertised in the 201 … one Link header field for each extension",
        |e| {
            e.with_session("actpass", |answer, _| {
                for name in ["server-sent-events", "layer"] {
                    assert!(link(answer, name).is_some(), "{name}: {answer:?}");
                }
            });
        },
    ),
    (
        "4.9.1",
        "The event stream … 201 Created with a Location header field pointing to it",
        |e| {
            e.with_session("actpass", |answer, _| {
                let entry = link(answer, "server-sent-events").unwrap();
                let fields = [("Content-Type", "application/json")];
                let created = e.ask("POST", entry, &fields, r#"["active", "viewercount"]"#);
                assert_eq!(created.status, 201, "{created:?}");
                let stream = created.field("location").expect("a Location");
                let told = events(e, stream);
                let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
                assert!(
                    names.contains(&"active") && names.contains(&"viewercount"),
                    "{told:?}"
                );
                // "MUST check for each event stream if the type is on the list provided"
                assert!(!names.contains(&"layers"), "{told:?}");
                assert_eq!(e.ask("POST", entry, &fields, "{").status, 400);
                assert_eq!(e.ask("POST", entry, &[], "").status, 201);
            });
        },
    ),
    (
        "4.9.1",
        "MUST encode the event data in a single data line",
        |e| {
            e.with_session("actpass", |answer, _| {
                let told = events(e, link(answer, "server-sent-events").unwrap());
                assert!(told.len() > 2, "{told:?}");
                for (name, data) in told {
                    assert!(
                        data.starts_with('{') && data.ends_with('}'),
                        "{name}: {data}"
                    );
                    if name == "viewercount" {
                        assert!(data.contains("\"viewercount\":"), "{data}");
                    }
                }
            });
        },
    ),
    (
        "4.9.1",
        "All the event streams … MUST be destroyed when the WHEP Resource is terminated",
        |e| {
            let answer = e.post(&offer(e.direction, "actpass"));
            let entry = link(&answer, "server-sent-events").unwrap();
            e.ask("DELETE", answer.field("location").unwrap(), &[], "");
            assert_eq!(e.ask("GET", entry, &[], "").status, 404);
        },
    ),
    (
        "4.10",
        "MUST NOT require the usage of any of the extensions",
        |e| {
            e.with_session("actpass", |_, _| {});
        },
    ),
];

/// Not here: consent (4.2) is in the engine's simulation; `reconnect`, 307 and 503 (4.5, 4.9.1.4) in `drain.rs`; tokens (4.7) in
/// the matrix of `door`; layers are chosen in `browser_follows_its_network.rs`. An event stream has no resource of its own:
/// who ends it closes its connection (4.9.1: MAY destroy by DELETE).
#[test]
fn whep_is_kept_sentence_by_sentence() {
    let server = Server::launch("whep-03", PICTURE).unwrap();
    server.wait_for_stream("cam1").unwrap();
    let endpoint = Endpoint {
        server: &server,
        path: "/whep/cam1",
        direction: "recvonly",
    };
    walk("draft-ietf-wish-whep-03", &endpoint, CLAUSES);
    walk("draft-ietf-wish-whep-03", &endpoint, SESSIONS);
    let slashed = Endpoint {
        path: "/whep/cam1/",
        ..endpoint
    };
    walk(
        "draft-ietf-wish-whep-03 with a slash at the end",
        &slashed,
        CLAUSES,
    );
}
