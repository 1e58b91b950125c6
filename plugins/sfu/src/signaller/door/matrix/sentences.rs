// SPDX-License-Identifier: MPL-2.0

//! What is wrong with a request is said of that request, in the words of whom it is for.

use sfu_access::Action;
use sfu_access_rows::{SECRET, grants, token};

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

/// Twirp's clients read what went wrong as `{"code", "msg"}`, also where no service was asked.
#[test]
fn twirp_is_answered_in_its_own_words() {
    let keys = "key:rooms-have-secrets-of-their-own-32";
    let served = Served::new(
        "twirp",
        Some("loopback\ntokens secret\n"),
        &[("api-keys", keys)],
    );
    let good = token(SECRET, &grants(&[Action::Api], "*"), 60);
    let bearer = format!("Bearer {good}");
    let large = "x".repeat(70_000);
    let rooms = "/twirp/livekit.RoomService/ListRooms";
    let accept = ("Accept", "application/json");
    for (method, path, fields, body, status, code, words) in [
        (
            "POST",
            rooms,
            &[JSON][..],
            large.as_str(),
            413,
            "invalid_argument",
            "64 KiB",
        ),
        (
            "POST",
            rooms,
            &[JSON, accept],
            &large,
            413,
            "invalid_argument",
            "64 KiB",
        ),
        (
            "POST",
            rooms,
            &[JSON, ("Content-Encoding", "gzip")],
            "x",
            415,
            "malformed",
            "Content-Encoding",
        ),
        ("GET", rooms, &[], "", 404, "bad_route", "POST"),
        (
            "POST",
            rooms,
            &[JSON, accept],
            "{}",
            401,
            "unauthenticated",
            "denied",
        ),
        (
            "POST",
            "/twirp/livekit.Egress/ListEgress",
            &[JSON, ("Authorization", &bearer)],
            "{}",
            404,
            "bad_route",
            "livekit.RoomService",
        ),
        (
            "POST",
            "/twirp/livekit.Ingress/ListIngress",
            &[JSON, accept],
            "{}",
            404,
            "bad_route",
            "livekit.Ingress",
        ),
        (
            "POST",
            "/twirp/livekit.SIP/ListSIPTrunk",
            &[JSON],
            "{}",
            404,
            "bad_route",
            "livekit.SIP",
        ),
        (
            "POST",
            "/twirp/livekit.AgentDispatchService/ListDispatch",
            &[JSON],
            "{}",
            404,
            "bad_route",
            "livekit.AgentDispatchService",
        ),
        (
            "POST",
            "/twirp/x",
            &[JSON],
            "{}",
            404,
            "bad_route",
            "livekit.RoomService",
        ),
        (
            "GET",
            "/twirp/livekit.Egress/ListEgress",
            &[accept],
            "",
            404,
            "bad_route",
            "POST",
        ),
    ] {
        let (found, answer) = served.send(method, path, "localhost", fields, body);
        let what = format!("{method} {path} {fields:?}: {answer}");
        assert_eq!(found, status, "{what}");
        assert!(answer.contains("content-type: application/json"), "{what}");
        let (_, told) = answer.split_once("\r\n\r\n").unwrap();
        let told: serde_json::Value = serde_json::from_str(told).expect(&what);
        assert_eq!(told["code"], code, "{what}");
        assert!(told["msg"].as_str().unwrap().contains(words), "{what}");
    }
}
