// SPDX-License-Identifier: MPL-2.0

//! RFC 9725 (WHIP).

use sfu_tests::server::Server;

use super::{Clause, Endpoint, SESSIONS, offer, walk};

const CLAUSES: &[Clause] = &[
    (
        "4.2",
        "return a 201 with a content type of application/sdp, the SDP answer as the body, and a Location header field",
        |e| {
            e.with_session("actpass", |answer, session| {
                assert_eq!(answer.field("content-type"), Some("application/sdp"));
                assert!(answer.body.starts_with("v=0\r\n"), "{answer:?}");
                assert!(session.starts_with("/session/"), "{answer:?}");
            });
        },
    ),
    (
        "4.2",
        "MUST use recvonly attribute in the SDP answer",
        |e| {
            for direction in ["sendonly", "sendrecv"] {
                let answer = e.post(&offer(direction, "actpass"));
                assert_eq!(answer.status, 201, "{answer:?}");
                assert_eq!(answer.lines("a=recvonly").count(), 2, "{answer:?}");
                e.ask("DELETE", answer.field("location").unwrap(), &[], "");
            }
        },
    ),
    (
        "4.2",
        "inactive and recvonly attributes MUST NOT be used",
        |e| {
            for direction in ["recvonly", "inactive"] {
                let answer = e.post(&offer(direction, "actpass"));
                assert!((400..500).contains(&answer.status), "{answer:?}");
            }
        },
    ),
    (
        "4.4.2",
        "if the number of audio and or video MediaStreamTracks … are not supported … MUST reject the HTTP POST request",
        |e| {
            let one = offer("sendonly", "actpass");
            let video = &one[one.find("m=video").unwrap()..];
            let two = format!("{one}{}", video.replace("a=mid:1", "a=mid:2"))
                .replace("BUNDLE 0 1", "BUNDLE 0 1 2");
            let answer = e.post(&two);
            assert_eq!(answer.status, 422, "{answer:?}");
        },
    ),
    (
        "4.4.3",
        "SHOULD NOT reject individual m= sections … but reject the HTTP POST request",
        |e| {
            let unknown = offer("sendonly", "actpass").replace("H264/90000", "NOSUCH/90000");
            let answer = e.post(&unknown);
            assert!(matches!(answer.status, 406 | 422), "{answer:?}");
        },
    ),
    (
        "4.8",
        "A server accepting a simulcast offer MUST create an answer according to RFC 8853, section 5.3.2",
        |e| {
            let simulcast = format!(
                "{}a=extmap:5 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=rid:hi send\r\na=rid:lo send\r\n\
             a=simulcast:send hi;lo\r\n",
                offer("sendonly", "actpass")
            );
            let answer = e.post(&simulcast);
            assert_eq!(answer.status, 201, "{answer:?}");
            assert_eq!(answer.lines("a=rid:").count(), 2, "{answer:?}");
            assert!(
                answer.lines("a=simulcast:recv ").next().is_some(),
                "{answer:?}"
            );
            e.ask("DELETE", answer.field("location").unwrap(), &[], "");
        },
    ),
];

/// Not here: consent (4.2, RFC 7675) is in the engine's simulation; tokens (4.7) are in the matrix of `door`; ICE servers (4.6) in
/// `links`; 307 and 503 (4.5) in `drain.rs`. `rtcp-mux-only` (4.4.1) is for offers (RFC 8858, section 4.3). `GET` of a session
/// (4.2) is kept for who looks at its figures.
#[test]
fn whip_is_kept_sentence_by_sentence() {
    let server = Server::launch("rfc9725", "").unwrap();
    let endpoint = Endpoint {
        server: &server,
        path: "/whip/news/one",
        direction: "sendonly",
    };
    walk("RFC 9725", &endpoint, CLAUSES);
    walk("RFC 9725", &endpoint, SESSIONS);
    let slashed = Endpoint {
        path: "/whip/news/one/",
        ..endpoint
    };
    walk("RFC 9725 with a slash at the end", &slashed, CLAUSES);
}
