// SPDX-License-Identifier: MPL-2.0

//! What playlists and lists of streams name.

use std::sync::Arc;
use std::time::Duration;

use sfu_access::Action;
use sfu_access_rows::{SECRET, grants, token};
use sfu_engine::{Feedback, PublishOptions};

use super::{STRANGER, Served};

#[test]
fn what_a_playlist_names_plays_and_nothing_else_does() {
    let rules = "tokens secret\n";
    let served = Served::new(
        "playlists",
        Some(rules),
        &[("trusted-proxies", "127.0.0.1")],
    );
    let get = |path: &str| {
        let (status, answer) = served.ask("GET", path, "localhost", &[STRANGER]);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned(), answer.clone())
    };
    let named = |playlist: &str| {
        playlist
            .lines()
            .rev()
            .find(|l| !l.starts_with('#'))
            .unwrap()
            .to_owned()
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mine = token(SECRET, &grants(&[Action::Play], "cam1"), 60);
        let (status, master, answer) = get(&format!("/hls/cam1/index.m3u8?token={mine}"));
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("private"), "{answer}");
        assert_eq!(named(&master), format!("v0.m3u8?token={mine}"));
        let (status, media, answer) = get(&format!("/hls/cam1/{}", named(&master)));
        assert_eq!(status, 200, "{answer}");
        let segment = named(&media);
        assert!(
            !segment.contains(&mine),
            "caches would keep one for each viewer"
        );
        let (status, body, answer) = get(&format!("/hls/cam1/{segment}"));
        assert_eq!((status, body.as_str()), (200, "segment"), "{answer}");
        seen.push(segment);
    }
    // Unless five minutes began in between.
    assert!(seen[0] == seen[1] || seen[0].len() == seen[1].len());
    let (_, shared) = seen[0].split_once("?token=").unwrap();
    for path in [
        "/hls/cam1/index.m3u8",
        "/hls/cam1/v0.m3u8",
        "/api/streams/cam1",
        "/hls/cam2/v0-1.ts",
    ] {
        let (status, _, answer) = get(&format!("{path}?token={shared}"));
        assert_eq!(status, 401, "{path}: {answer}");
    }
    let asked = served.ask(
        "POST",
        &format!("/whep/cam1?token={shared}"),
        "localhost",
        &[STRANGER],
    );
    assert_eq!(asked.0, 401);
}

struct Nobody;

impl Feedback for Nobody {
    fn keyframe_request(&self, _: usize) {}
}

#[test]
fn lists_hold_what_may_be_played() {
    let served = Served::new("lists", Some("tokens secret\nloopback publish\n"), &[]);
    let router = sfu_engine::Router::get("lists");
    let names = ["cam1", "cam2", "door"];
    let _streams: Vec<_> = names
        .map(|name| {
            let options = PublishOptions {
                keyframe_min_interval: Duration::ZERO,
                feedback: Arc::new(Nobody),
            };
            router.publish(name.parse().unwrap(), options).unwrap()
        })
        .into();
    for (pattern, expected) in [
        ("cam1", &["cam1"][..]),
        ("cam*", &["cam1", "cam2"]),
        ("*", &names),
        ("x", &[]),
    ] {
        let token = token(SECRET, &grants(&[Action::Play], pattern), 60);
        let (status, answer) = served.ask("GET", &format!("/api/streams?token={token}"), "x", &[]);
        assert_eq!(status, 200, "{answer}");
        for name in names {
            let shown = answer.contains(&format!("\"name\":\"{name}\""));
            assert_eq!(shown, expected.contains(&name), "{pattern}: {answer}");
        }
    }
    for shown in ["", "?token=wrong"] {
        let (status, answer) = served.ask("GET", &format!("/api/streams{shown}"), "x", &[]);
        assert!(
            status == 200 && answer.contains("\"streams\":[]"),
            "{answer}"
        );
    }
}

/// What is shown and is no good is told, also where a list needs no more than one permission.
#[test]
fn a_list_says_what_is_wrong_with_a_token() {
    let served = Served::new(
        "lists",
        Some("anyone play=*\ntokens secret\n"),
        &[("trusted-proxies", "127.0.0.1")],
    );
    let record = grants(&[Action::Record], "cam1");
    let play = grants(&[Action::Play], "cam1");
    for (what, shown, status, words) in [
        ("nothing", String::new(), 401, "needs a token"),
        ("expired", token(SECRET, &record, -1), 401, "expired"),
        ("a word", "let-me-in".to_owned(), 401, "none of this server"),
        (
            "another permission",
            token(SECRET, &play, 60),
            403,
            "other things",
        ),
        ("right", token(SECRET, &record, 60), 200, ""),
    ] {
        let path = format!("/api/recordings?token={shown}");
        let (found, answer) = served.ask("GET", &path, "localhost", &[STRANGER]);
        assert_eq!(found, status, "{what}: {answer}");
        assert!(answer.contains(words), "{what}: {answer}");
    }
}

/// What went wrong with a file may be right the next time.
#[test]
fn caches_keep_files_and_no_refusals() {
    let served = Served::new("caches", None, &[]);
    let header = |answer: &str, name: &str| {
        let mut lines = answer.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default().trim().to_owned()
    };
    let get = |method: &str, file: &str, fields: &[(&str, &str)]| {
        served.ask(method, &format!("/hls/cam1/{file}"), "localhost", fields)
    };
    for (file, policy) in [
        ("v0-1.ts", "public, max-age=31536000, immutable"),
        ("v0.m3u8", "no-cache"),
    ] {
        let (_, answer) = get("GET", file, &[]);
        let tag = header(&answer, "etag");
        for (fields, expected) in [
            (&[][..], 200),
            (&[("Range", "bytes=1-2")][..], 206),
            (&[("Range", "bytes=-99999999")], 206),
            (&[("If-None-Match", &tag)], 304),
            (&[("If-Match", "\"x\"")], 412),
            (&[("Range", "bytes=99999999-")], 416),
        ] {
            for method in ["GET", "HEAD"] {
                let (status, answer) = get(method, file, fields);
                // Ranges are of GET alone (RFC 9110, section 14.2).
                let is_range = fields.iter().any(|(name, _)| *name == "Range");
                if method == "GET" || !is_range {
                    assert_eq!(status, expected, "{method} {file} {fields:?}: {answer}");
                }
                let kept = if status < 400 { policy } else { "no-store" };
                let found = header(&answer, "cache-control");
                assert_eq!(found, kept, "{method} {file} {fields:?}: {answer}");
            }
        }
    }
    for file in ["v0-2.ts", "v1.m3u8"] {
        let (status, answer) = get("GET", file, &[]);
        assert_eq!(status, 404, "{answer}");
        assert_eq!(header(&answer, "cache-control"), "no-store", "{answer}");
    }
}

/// Opening a pipe waits for who writes to it, as a disk does that is gone.
#[test]
fn a_disk_that_hangs_holds_up_no_joins_and_strangers_reach_none() {
    let rules = "loopback record\nanyone play\n";
    let served = Served::new("hangs", Some(rules), &[]);
    let folder = served.folder.join("recordings");
    std::fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("hangs.mp4");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let path = "/recordings/files/hangs.mp4";
    let (status, answer) = served.ask("GET", path, "localhost", &[STRANGER]);
    assert_eq!(status, 401, "{answer}");
    let mut waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(served.address).unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            stream
        })
        .collect();
    // All of them wait.
    let mut answer = [0; 2_000];
    let read = std::io::Read::read(&mut waiting[0], &mut answer);
    assert!(read.is_err(), "{}", String::from_utf8_lossy(&answer));
    // The engine itself answers that it has none, in an offer's turn.
    let sdp = ("Content-Type", "application/sdp");
    let (status, answer) = served.send("POST", "/whep/cam1", "localhost", &[sdp, STRANGER], "v=0");
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = served.ask("GET", "/api/streams", "localhost", &[STRANGER]);
    assert_eq!(status, 200, "{answer}");
    let mut ways = std::fs::OpenOptions::new();
    let released = ways.read(true).write(true).open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    drop(released);
}
