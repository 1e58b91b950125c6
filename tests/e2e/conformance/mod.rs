// SPDX-License-Identifier: MPL-2.0

//! The documents that the server goes by, sentence by sentence: what a server MUST (or SHALL) do, with its section, and
//! beside it what is seen of it. What no HTTP client sees is named at the end of each file, with where it is tested.

mod rfc9725;
mod whep_03;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sfu_tests::server::Server;

const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A section, its sentence, and what shows that it is kept.
type Clause = (&'static str, &'static str, fn(&Endpoint<'_>));

/// Walks all of them, and tells each that is not kept.
fn walk(document: &str, endpoint: &Endpoint<'_>, clauses: &[Clause]) {
    let mut broken = Vec::new();
    for (section, sentence, check) in clauses {
        if catch_unwind(AssertUnwindSafe(|| check(endpoint))).is_err() {
            broken.push(format!("{document}, section {section}: {sentence}"));
        }
    }
    assert!(broken.is_empty(), "not kept:\n{}", broken.join("\n"));
}

/// Where offers are sent to.
struct Endpoint<'s> {
    server: &'s Server,
    path: &'static str,
    /// The offers' direction.
    direction: &'static str,
}

/// An answer; the names of its fields are in lower case.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The SDP's lines that begin so.
    fn lines<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.body
            .lines()
            .filter(move |line| line.starts_with(start))
    }
}

/// Sound and pictures, as the documents' examples have them.
fn offer(direction: &str, setup: &str) -> String {
    let print = ["AB"; 32].join(":");
    let common = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {print}\r\na=setup:{setup}\r\na={direction}\r\na=rtcp-mux\r\na=rtcp-mux-only\r\n\
         a=msid:- d46fb922-d52a-4e9c-aa87-444eadc1521b\r\n"
    );
    format!(
        "v=0\r\no=- 5228595038118931041 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{common}a=mid:0\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 102 97\r\n{common}a=mid:1\r\na=bundle-only\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtcp-rsize\r\na=rtpmap:102 H264/90000\r\n\
         a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtcp-fb:102 ccm fir\r\na=rtcp-fb:102 nack\r\na=rtcp-fb:102 nack pli\r\na=rtpmap:97 rtx/90000\r\n\
         a=fmtp:97 apt=102\r\n"
    )
}

const TRICKLED: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
    a=mid:0\r\na=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw\r\n\
    a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw\r\n";

const RESTART: &str = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
    a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag ysXw\r\n";

impl Endpoint<'_> {
    fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let url = self.server.url("");
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        let length = body.len();
        write!(stream, "{request}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Answer {
            status: status.expect("a status"),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn post(&self, offer: &str) -> Answer {
        self.ask(
            "POST",
            self.path,
            &[("Content-Type", "application/sdp")],
            offer,
        )
    }

    /// What is created, used, and ended: a publisher keeps others away.
    fn with_session(&self, setup: &str, use_it: impl FnOnce(&Answer, &str)) {
        let answer = self.post(&offer(self.direction, setup));
        assert_eq!(answer.status, 201, "{answer:?}");
        let session = answer.field("location").expect("a Location").to_owned();
        let used = catch_unwind(AssertUnwindSafe(|| use_it(&answer, &session)));
        let ended = self.ask("DELETE", &session, &[], "");
        if let Err(panic) = used {
            std::panic::resume_unwind(panic);
        }
        assert_eq!(ended.status, 200, "{ended:?}");
    }

    fn patch(&self, session: &str, tag: Option<&str>, body: &str) -> Answer {
        let mut fields = vec![("Content-Type", FRAGMENT)];
        fields.extend(tag.map(|tag| ("If-Match", tag)));
        self.ask("PATCH", session, &fields, body)
    }
}

/// What both documents say of sessions (RFC 9725, sections 4.3 and 4.4; the draft's sections of the same numbers).
const SESSIONS: &[Clause] = &[
    (
        "4.2",
        "The HTTP POST … content type different than application/sdp … MUST reject … 415",
        |e| {
            for kind in ["text/plain", "application/json", ""] {
                let answer = e.ask(
                    "POST",
                    e.path,
                    &[("Content-Type", kind)],
                    &offer(e.direction, "actpass"),
                );
                assert_eq!(answer.status, 415, "{kind}: {answer:?}");
            }
        },
    ),
    (
        "4.2",
        "If the SDP body is malformed … MUST reject … 400",
        |e| {
            for body in [
                "nonsense",
                "v=0\r\n",
                "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
            ] {
                let answer = e.post(body);
                assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
            }
        },
    ),
    (
        "4.2",
        "MUST return a 405 for any HTTP request method different than OPTIONS and POST on the endpoint URL",
        |e| {
            for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
                let answer = e.ask(method, e.path, &[], "");
                assert_eq!(answer.status, 405, "{method}: {answer:?}");
                assert!(answer.field("allow").is_some(), "{answer:?}");
            }
        },
    ),
    (
        "4.2",
        "MUST support OPTIONS requests for CORS; SHOULD include Accept-Post",
        |e| {
            let asked = [
                ("Origin", "https://a.example"),
                ("Access-Control-Request-Method", "POST"),
            ];
            let answer = e.ask("OPTIONS", e.path, &asked, "");
            assert!(matches!(answer.status, 200 | 204), "{answer:?}");
            assert_eq!(answer.field("accept-post"), Some("application/sdp"));
        },
    ),
    (
        "4.3.1",
        "content type different than application/trickle-ice-sdpfrag … MUST reject … 415",
        |e| {
            e.with_session("actpass", |_, session| {
                let answer = e.ask(
                    "PATCH",
                    session,
                    &[("Content-Type", "application/sdp"), ("If-Match", "*")],
                    TRICKLED,
                );
                assert_eq!(answer.status, 415, "{answer:?}");
            });
        },
    ),
    (
        "4.3.1",
        "If the SDP fragment is malformed … MUST reject … 400",
        |e| {
            e.with_session("actpass", |answer, session| {
                let answer = e.patch(session, answer.field("etag"), "nonsense");
                assert_eq!(answer.status, 400, "{answer:?}");
            });
        },
    ),
    (
        "4.3.1",
        "MUST generate a unique strong entity-tag … MUST be returned in an ETag header field in the 201",
        |e| {
            let mut seen = Vec::new();
            for _ in 0..2 {
                e.with_session("actpass", |answer, _| {
                    let tag = answer.field("etag").expect("an ETag").to_owned();
                    assert!(
                        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
                        "{tag}"
                    );
                    assert!(!seen.contains(&tag));
                    seen.push(tag);
                });
            }
        },
    ),
    (
        "4.3.1",
        "MUST ignore any entity-tag value … when ICE session matching is not required, as in the HTTP DELETE",
        |e| {
            let answer = e.post(&offer(e.direction, "actpass"));
            let session = answer.field("location").unwrap();
            let answer = e.ask("DELETE", session, &[("If-Match", "\"another\"")], "");
            assert_eq!(answer.status, 200, "{answer:?}");
        },
    ),
    (
        "4.3.2",
        "the SDP answer SHALL contain the full list of ICE candidates of the media server",
        |e| {
            e.with_session("actpass", |answer, _| {
                assert!(answer.lines("a=candidate:").count() > 0, "{answer:?}");
                assert!(
                    answer.lines("a=end-of-candidates").count() > 0,
                    "{answer:?}"
                );
            });
        },
    ),
    (
        "4.3.2",
        "MUST compare the indicated entity-tag … 412 if they do not match … missing … MUST return a 428",
        |e| {
            e.with_session("actpass", |answer, session| {
                assert_eq!(e.patch(session, None, TRICKLED).status, 428);
                assert_eq!(e.patch(session, Some("\"another\""), TRICKLED).status, 412);
                assert_eq!(e.patch(session, answer.field("etag"), TRICKLED).status, 204);
            });
        },
    ),
    (
        "4.3.2",
        "adds new ICE candidates without performing an ICE restart … MUST return a 204 without a body and MUST NOT include an ETag",
        |e| {
            e.with_session("actpass", |answer, session| {
                let answer = e.patch(session, answer.field("etag"), TRICKLED);
                assert_eq!(
                    (answer.status, answer.body.as_str()),
                    (204, ""),
                    "{answer:?}"
                );
                assert_eq!(answer.field("etag"), None, "{answer:?}");
            });
        },
    ),
    (
        "4.3.2",
        "does not support a candidate transport or is not able to resolve the address … MUST silently discard",
        |e| {
            e.with_session("actpass", |answer, session| {
                let strange = "a=candidate:1 1 sctp 2122260223 192.0.2.1 61764 typ host\r\n\
                a=candidate:2 1 udp 2122260223 abcdef.local 61764 typ host\r\n\
                a=candidate:3 1 udp 2122260223 nowhere.invalid 61764 typ host\r\n";
                let answer = e.patch(
                    session,
                    answer.field("etag"),
                    &format!("{TRICKLED}{strange}"),
                );
                assert_eq!(answer.status, 204, "{answer:?}");
            });
        },
    ),
    (
        "4.3.3",
        "ICE restart … SHALL return a 200 with application/trickle-ice-sdpfrag … MUST contain the new entity-tag",
        |e| {
            e.with_session("actpass", |first, session| {
                let answer = e.patch(session, Some("*"), RESTART);
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.field("content-type"), Some(FRAGMENT));
                assert_ne!(
                    answer.field("etag").expect("an ETag"),
                    first.field("etag").unwrap()
                );
                let ufrag = |a: &Answer| {
                    a.lines("a=ice-ufrag:")
                        .next()
                        .map(str::to_owned)
                        .expect("a ufrag")
                };
                assert_ne!(ufrag(&answer), ufrag(first));
                assert_eq!(answer.lines("a=ice-pwd:").count(), 1, "{answer:?}");
                // What is old now does not match any more.
                let fresh = TRICKLED
                    .replace("EsAw", "ysXw")
                    .replace("P2uYro0UCOQ4zxjKXaWCBui1", "vw5LmwG4y/e6dPP/zAP9Gp5k");
                assert_eq!(e.patch(session, first.field("etag"), &fresh).status, 412);
                assert_eq!(e.patch(session, answer.field("etag"), &fresh).status, 204);
            });
        },
    ),
    (
        "4.3.3",
        "restart … cannot be satisfied … MUST return an appropriate HTTP error code and MUST NOT terminate the session",
        |e| {
            e.with_session("actpass", |answer, session| {
                let broken =
                    RESTART.replace("a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n", "a=ice-pwd:x\r\n");
                let refused = e.patch(session, Some("*"), &broken);
                assert!((400..500).contains(&refused.status), "{refused:?}");
                assert_eq!(e.patch(session, answer.field("etag"), TRICKLED).status, 204);
            });
        },
    ),
    (
        "4.4.1",
        "SHALL support and use SDP bundle … SHALL use RTP/RTCP multiplexing for all bundled media",
        |e| {
            e.with_session("actpass", |answer, _| {
                assert_eq!(answer.lines("a=group:BUNDLE 0 1").count(), 1, "{answer:?}");
                assert_eq!(answer.lines("m=").count(), 2, "{answer:?}");
                assert!(
                    answer
                        .body
                        .split("m=")
                        .skip(1)
                        .all(|m| m.contains("a=rtcp-mux\r\n")),
                    "{answer:?}"
                );
            });
        },
    ),
    (
        "4.4.4",
        "the media server … is expected to support the DTLS server role",
        |e| {
            for setup in ["actpass", "active"] {
                e.with_session(setup, |answer, _| {
                    assert!(
                        answer
                            .lines("a=setup:")
                            .all(|line| line == "a=setup:passive"),
                        "{answer:?}"
                    );
                });
            }
        },
    ),
    ("4.5", "The session URL MUST be a final one", |e| {
        e.with_session("actpass", |answer, session| {
            let tag = answer.field("etag");
            for path in [session.to_owned(), format!("{session}/")] {
                assert_eq!(e.patch(&path, tag, TRICKLED).status, 204, "{path}");
            }
        });
    }),
    (
        "4.7",
        "bearer token authentication … MUST be supported by all entities",
        |e| {
            // A token that nobody needs is no reason to refuse. Which ones let in whom is the matrix' matter.
            let fields = [
                ("Content-Type", "application/sdp"),
                ("Authorization", "Bearer mF_9.B5f-4.1JqM"),
            ];
            let answer = e.ask("POST", e.path, &fields, &offer(e.direction, "actpass"));
            assert_eq!(answer.status, 201, "{answer:?}");
            let ended = e.ask("DELETE", answer.field("location").unwrap(), &fields, "");
            assert_eq!(ended.status, 200);
            // Nor is one whose session its peer has just closed.
            assert_eq!(
                e.ask("DELETE", answer.field("location").unwrap(), &fields, "")
                    .status,
                200
            );
        },
    ),
];
