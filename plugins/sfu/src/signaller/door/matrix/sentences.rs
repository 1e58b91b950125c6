// SPDX-License-Identifier: MPL-2.0

//! What is wrong with a request is said of that request, in the words of whom it is for.

use super::Served;

const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const DOCUMENT: (&str, &str) = ("Accept", "application/problem+json");

#[test]
fn a_refusal_says_what_is_wrong_with_this_request() {
    let served = Served::new("sentences", None, &[]);
    let session = format!("/session/{}", "0".repeat(32));
    let layer = format!("{session}/layer");
    let latency = format!("{session}/latency");
    for (method, path, fields, body, status, words) in [
        ("POST", "//whep/cam1", &[SDP][..], "v=0", 404, "two slashes"),
        ("POST", "/whep//cam1", &[SDP], "v=0", 400, "is not valid"),
        ("POST", "/cam1", &[SDP], "v=0", 405, "/whip/STREAM"),
        ("POST", "/whep", &[SDP], "v=0", 405, "/whep/STREAM"),
        (
            "POST",
            "/whep/cam1",
            &[SDP, ("Content-Encoding", "gzip")],
            "x",
            415,
            "Content-Encoding",
        ),
        (
            "POST",
            "/whip/cam1",
            &[
                SDP,
                ("Content-Encoding", "identity"),
                ("Content-Encoding", "br"),
            ],
            "x",
            415,
            "Content-Encoding",
        ),
        (
            "POST",
            "/whep/cam1",
            &[SDP, ("Content-Encoding", "identity")],
            "v=0",
            404,
            "cam1",
        ),
        ("POST", &layer, &[JSON], r#"["0", 540]"#, 422, "encodingId"),
        ("POST", &layer, &[JSON], "[]", 422, "encodingId"),
        ("POST", &layer, &[JSON], r#"{"maxHeight": 540}"#, 404, ""),
        ("POST", &latency, &[JSON], "[180]", 422, "ms"),
        (
            "POST",
            "/api/v1/pushes",
            &[JSON],
            r#"["a", "b"]"#,
            422,
            "a push is JSON",
        ),
        ("POST", "/api/v1/drain", &[JSON], "[]", 422, "an object"),
        (
            "POST",
            "/whep/%ff",
            &[SDP, DOCUMENT],
            "v=0",
            400,
            "\"detail\":\"Invalid",
        ),
        (
            "GET",
            "/api/streams/%ff",
            &[DOCUMENT],
            "",
            400,
            "\"detail\":\"Invalid",
        ),
        (
            "GET",
            "/recordings/files/a.mp4",
            &[DOCUMENT],
            "",
            404,
            "\"detail\":\"",
        ),
    ] {
        let (found, answer) = served.send(method, path, "localhost", fields, body);
        let what = format!("{method} {path} {fields:?} {body}: {answer}");
        assert_eq!(found, status, "{what}");
        assert!(answer.contains(words), "{what}");
        let takes = answer.contains("accept-encoding: identity");
        assert_eq!(takes, status == 415, "{what}");
    }
}
