// SPDX-License-Identifier: MPL-2.0

//! `pipelines/rtsp-out` and `sfurtspserver`: FFmpeg and GStreamer play a stream by RTSP, by TCP and UDP, with the password
//! where there is one, and go on when its publisher comes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use sfu_tests::access::Rules;
use sfu_tests::netns;
use sfu_tests::publisher::Publisher;
use sfu_tests::server::{self, Server, free_ports};

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
    ! sfusink name=out stream=hall/cam-1 layers=360:700k,180:200k \
    audiotestsrc is-live=true ! out.audio_0";

/// How long something may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// Runs a program to its end, which is forced after `LIMIT`, and gives what it said and whether it was content.
fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let limit = LIMIT.as_secs().to_string();
    let output = Command::new("timeout")
        .args(["--kill-after=2", &limit, program])
        .args(arguments)
        .envs(server::environment().unwrap())
        .output()
        .unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said += &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// What FFmpeg finds behind an address.
pub(crate) fn probe(transport: &str, url: &str) -> (bool, String) {
    let entries = "stream=codec_name,width,height";
    let mut arguments = vec!["-v", "error", "-rtsp_transport", transport];
    arguments.extend(["-show_entries", entries, "-of", "compact", url]);
    run("ffprobe", &arguments)
}

/// What FFmpeg finds behind an HLS address.
pub(crate) fn probe_hls(url: &str) -> (bool, String) {
    let entries = ["-v", "error", "-show_entries", "stream=codec_name", url];
    run("ffprobe", &entries)
}

/// Asks the server as a player does that is not FFmpeg. Gives the answer's status and its head.
fn describe(port: u16, stream: &str, authorization: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!(
        "DESCRIBE rtsp://127.0.0.1:{port}/{stream} RTSP/1.0\r\nCSeq: 1\r\n{authorization}\r\n"
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = connection.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection was closed");
        answer.extend(&buffer[..read]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or(0), answer)
}

#[test]
fn players_see_a_stream_by_tcp_and_udp() {
    let (port, _) = free_ports().unwrap();
    let line = format!("sfurtspserver listen=127.0.0.1:{port} {PICTURE}");
    let server = Server::launch("rtsp_out", &line).unwrap();
    server.wait_for_stream("hall/cam-1").unwrap();
    let url = format!("rtsp://127.0.0.1:{port}/hall/cam-1");
    for transport in ["tcp", "udp"] {
        for (address, size) in [
            (url.clone(), "width=640|height=360"),
            (format!("{url}?layer=lowest"), "width=320|height=180"),
            (format!("{url}?layer=0"), "width=640|height=360"),
        ] {
            let (_, seen) = probe(transport, &address);
            let expected = format!("codec_name=h264|{size}");
            assert!(seen.contains(&expected), "{transport} {address}: {seen}");
            assert!(seen.contains("codec_name=opus"), "{seen}");
        }
        let mut arguments = vec!["-nostdin", "-v", "warning", "-xerror", "-rtsp_transport"];
        arguments.extend([transport, "-i", &url, "-t", "4", "-f", "framemd5", "-"]);
        let (content, seen) = run("ffmpeg", &arguments);
        let frames = seen.lines().filter(|l| l.starts_with("0, ")).count();
        println!("{transport}: {frames} frames in 4 s");
        assert!(content && (90..=125).contains(&frames), "{seen}");
        assert!(!seen.contains("corrupt"), "{seen}");
        let source = format!("rtspsrc name=in protocols={transport} location={url}");
        let line = format!(
            "-q {source} in. ! application/x-rtp,media=video ! decodebin ! fakesink num-buffers=60 \
             in. ! application/x-rtp,media=audio ! decodebin ! fakesink num-buffers=60"
        );
        let arguments: Vec<_> = line.split_whitespace().collect();
        let (content, seen) = run("gst-launch-1.0", &arguments);
        assert!(content, "{seen}");
    }
    // Who takes the picture only does not take the sound from the others.
    let mut arguments = vec!["-nostdin", "-v", "error", "-allowed_media_types", "video"];
    arguments.extend(["-i", &url, "-f", "framemd5", "-"]);
    let mut picture_only = Publisher::start("rtsp_out_picture", "ffmpeg", &arguments).unwrap();
    wait_for_frames("rtsp_out_picture", 30);
    let (_, seen) = probe("tcp", &url);
    assert!(seen.contains("h264|width=640|height=360"), "{seen}");
    assert!(seen.contains("codec_name=opus"), "{seen}");
    assert!(picture_only.runs());
    let before = frames("rtsp_out_picture");
    wait_for_frames("rtsp_out_picture", before + 30);

    for (stream, status) in [
        ("hall/cam-1", 200),
        ("hall", 404),
        ("hall/cam-2", 404),
        ("hall/cam-1?layer=7", 404),
        ("hall/cam-1/stream=9", 404),
        ("a%20b", 404),
    ] {
        assert_eq!(describe(port, stream, "").0, status, "{stream}");
    }
    server.wait_for_stream("hall/cam-1").unwrap();
}

/// Each language is a track that its description names, and its own sound.
#[test]
fn languages_are_tracks_of_their_own() {
    let (port, _) = free_ports().unwrap();
    let speaker = |language: &str, wave: &str| {
        format!("audiotestsrc is-live=true wave={wave} ! taginject tags=language-code={language}")
    };
    let line = format!(
        "sfurtspserver listen=127.0.0.1:{port} \
         videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
           ! sfusink name=out stream=hall/cam-1 layers=360:700k {} ! out.audio_0 {} ! out.audio_1",
        speaker("de", "silence"),
        speaker("pt-BR", "sine")
    );
    let server = Server::launch("rtsp_out_languages", &line).unwrap();
    server.wait_for_stream("hall/cam-1").unwrap();
    let url = format!("rtsp://127.0.0.1:{port}/hall/cam-1");
    let end = Instant::now() + LIMIT;
    let description = loop {
        let description = session_description(port, "hall/cam-1");
        if description.matches("m=audio").count() == 2 {
            break description;
        }
        assert!(Instant::now() < end, "{description}");
        std::thread::sleep(Duration::from_millis(500));
    };
    let tracks: Vec<&str> = description.split("\r\nm=").skip(1).collect();
    assert_eq!(tracks.len(), 3, "{description}");
    assert!(
        tracks[0].starts_with("video") && !tracks[0].contains("a=lang"),
        "{description}"
    );
    assert!(tracks[1].contains("a=lang:de\r\n"), "{description}");
    assert!(tracks[2].contains("a=lang:pt-BR\r\n"), "{description}");
    for (track, is_silent) in [("0:a:0", true), ("0:a:1", false)] {
        let mut arguments = vec![
            "-nostdin",
            "-rtsp_transport",
            "tcp",
            "-i",
            &url,
            "-map",
            track,
        ];
        arguments.extend(["-t", "3", "-af", "volumedetect", "-f", "null", "-"]);
        let (content, seen) = run("ffmpeg", &arguments);
        let volume = seen
            .split("max_volume: ")
            .nth(1)
            .and_then(|v| v.split(' ').next());
        let volume: f64 = volume.and_then(|v| v.parse().ok()).unwrap_or(f64::NAN);
        println!("{track}: {volume} dB");
        assert!(content, "{seen}");
        assert_eq!(volume < -60.0, is_silent, "{track}: {volume}: {seen}");
    }
}

/// What a player is told of a stream's tracks.
fn session_description(port: u16, stream: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("DESCRIBE rtsp://127.0.0.1:{port}/{stream} RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = connection.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection was closed: {answer}");
        answer += &String::from_utf8_lossy(&buffer[..read]);
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("Content-Length: ").nth(1);
        let length = length.and_then(|l| l.lines().next()?.trim().parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return body.to_owned();
        }
    }
}

#[test]
fn who_does_not_know_the_password_is_refused() {
    // ann:correct-horse and ann:wrong-horse
    let right = "Authorization: Basic YW5uOmNvcnJlY3QtaG9yc2U=\r\n";
    let wrong = "Authorization: Basic YW5uOndyb25nLWhvcnNl\r\n";
    for auth in ["basic", "digest"] {
        let (port, _) = free_ports().unwrap();
        let line = format!(
            "sfurtspserver listen=127.0.0.1:{port} auth={auth} users=bob:x,ann:correct-horse {PICTURE}"
        );
        let name = format!("rtsp_out_{auth}");
        let server = Server::launch(&name, &line).unwrap();
        server.wait_for_stream("hall/cam-1").unwrap();
        let url = |who: &str| format!("rtsp://{who}127.0.0.1:{port}/hall/cam-1");
        for (who, is_let_in) in [
            ("", false),
            ("ann:wrong-horse@", false),
            ("eve:correct-horse@", false),
            ("ann:correct-horse@", true),
        ] {
            let (content, seen) = probe("tcp", &url(who));
            assert_eq!(content, is_let_in, "{auth} {who}: {seen}");
            assert!(is_let_in || seen.contains("401 Unauthorized"), "{seen}");
        }
        let (status, head) = describe(port, "hall/cam-1", "");
        assert_eq!(status, 401);
        let asked = head
            .to_lowercase()
            .contains(&format!("www-authenticate: {auth}"));
        assert!(asked, "{head}");
        let by_basic = if auth == "basic" {
            (200, 404)
        } else {
            (401, 401)
        };
        assert_eq!(describe(port, "hall/cam-1", right).0, by_basic.0);
        assert_eq!(describe(port, "nobody", right).0, by_basic.1);
        // Also what is there is not told to those who are not known.
        for authorization in ["", wrong] {
            assert_eq!(describe(port, "nobody", authorization).0, 401);
        }
        let log = server.log();
        assert!(!log.contains("horse"), "a password is in the log: {log}");
    }
}

/// By the access file, as everywhere; in which ways is told by `plugins/rtsp/tests/access.rs`.
#[test]
fn who_shows_a_token_sees_a_stream_as_long_as_that_is_good() {
    let rules = Rules::new("rtsp_out", "loopback\n").unwrap();
    let ann = rules.password("ann", "correct-horse").unwrap();
    rules
        .rewrite(&format!(
            "loopback\ntokens tokens.secret\nuser ann {ann} play\n"
        ))
        .unwrap();
    let (port, _) = free_ports().unwrap();
    let (digest_port, _) = free_ports().unwrap();
    let access = format!("access={}", rules.file().display());
    let line = format!(
        "sfurtspserver listen=127.0.0.1:{port} {access} sfurtspserver listen=127.0.0.1:{digest_port} auth=digest {access} {PICTURE}"
    );
    let server = Server::launch("rtsp_out_token", &line).unwrap();
    server.wait_for_stream("hall/cam-1").unwrap();
    let token = rules.token(&["--play=hall/*"], "1h").unwrap();
    let other = rules.token(&["--play=door"], "1h").unwrap();
    let at = |port: u16, who: &str| format!("rtsp://{who}127.0.0.1:{port}/hall/cam-1");
    for transport in ["tcp", "udp"] {
        for (url, seen) in [
            (
                format!("{}?token={token}", at(port, "")),
                "width=640|height=360",
            ),
            (
                format!("{}?layer=lowest&token={token}", at(port, "")),
                "width=320|height=180",
            ),
            (at(port, "ann:correct-horse@"), "width=640|height=360"),
            (
                at(digest_port, "ann:correct-horse@"),
                "width=640|height=360",
            ),
            (at(port, ""), "401 Unauthorized"),
            (at(port, "ann:wrong-horse@"), "401 Unauthorized"),
            (at(digest_port, "ann:wrong-horse@"), "401 Unauthorized"),
            (format!("{}?token={other}", at(port, "")), "403 Forbidden"),
        ] {
            let (_, said) = probe(transport, &url);
            assert!(said.contains(seen), "{transport} {url}: {said}");
        }
    }
    // What GStreamer's player makes of the address that it is led to.
    let url = format!("{}?token={token}", at(port, ""));
    let line = format!(
        "-q rtspsrc location={url} ! application/x-rtp,media=video ! decodebin ! fakesink num-buffers=30"
    );
    let arguments: Vec<_> = line.split_whitespace().collect();
    let (content, said) = run("gst-launch-1.0", &arguments);
    assert!(content, "{said}");
    let brief = rules.token(&["--play=hall/*"], "15s").unwrap();
    let name = "rtsp_out_brief";
    let url = format!("{}?token={brief}", at(port, ""));
    let mut arguments = vec![
        "-nostdin",
        "-v",
        "warning",
        "-rtsp_transport",
        "tcp",
        "-i",
        &url,
    ];
    arguments.extend(["-an", "-flush_packets", "1", "-f", "framemd5", "-"]);
    let mut player = Publisher::start(name, "ffmpeg", &arguments).unwrap();
    wait_for_frames(name, 30);
    let end = Instant::now() + LIMIT;
    while player.runs() {
        assert!(Instant::now() < end, "it plays on");
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = server.log();
    for token in [token, other, brief] {
        let signature = token.rsplit_once('.').unwrap().1;
        assert!(!log.contains(signature), "a token is in the log");
    }
    assert!(!log.contains("horse"), "a password is in the log");
}

/// The pipeline of a stream's players ends with the last of them, and who comes at that moment gets one of their own.
#[test]
fn who_comes_as_the_last_one_leaves_is_served() {
    let (port, _) = free_ports().unwrap();
    let line = format!("sfurtspserver listen=127.0.0.1:{port} {PICTURE}");
    let server = Server::launch("rtsp_out_leaving", &line).unwrap();
    server.wait_for_stream("hall/cam-1").unwrap();
    // Each leaves as soon as it has its answer, and comes again.
    let players = [0, 1, 2]
        .map(|_| std::thread::spawn(move || [(); 40].map(|()| describe(port, "hall/cam-1", "").0)));
    let answers = players.map(|player| player.join().unwrap());
    let refused = answers.iter().flatten().filter(|status| **status != 200);
    assert_eq!(refused.count(), 0, "{answers:?}");
    let (_, seen) = probe("tcp", &format!("rtsp://127.0.0.1:{port}/hall/cam-1"));
    assert!(seen.contains("h264|width=640|height=360"), "{seen}");
}

/// The pictures that a player has decoded.
fn frames(name: &str) -> usize {
    let log = sfu_tests::publisher::said(name).unwrap_or_default();
    log.lines().filter(|l| l.starts_with("0, ")).count()
}

fn wait_for_frames(name: &str, count: usize) {
    let end = Instant::now() + LIMIT;
    while frames(name) < count {
        let seen = frames(name);
        assert!(Instant::now() < end, "{name} has {seen} of {count} frames");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn publisher(server: &Server, name: &str) -> Publisher {
    let line = format!(
        "-q videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
         ! whipclientsink name=out stun-server=NULL video-caps=video/x-h264 signaller::whip-endpoint={} \
         audiotestsrc is-live=true ! out.",
        server.url("/whip/camera")
    );
    let arguments: Vec<_> = line.split_whitespace().collect();
    Publisher::start(name, "gst-launch-1.0", &arguments).unwrap()
}

#[test]
fn players_go_on_when_the_publisher_returns() {
    let test = "rtsp_out::players_go_on_when_the_publisher_returns";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    let (port, _) = free_ports().unwrap();
    let rtsp_port = format!("RTSP_PORT={port}");
    let keys = ["USERS=ann:correct-horse", "AUTH=digest", &rtsp_port];
    let server = Server::pipeline("rtsp_out_returns", "rtsp-out", &keys).unwrap();
    let first = publisher(&server, "rtsp_out_first");
    server.wait_for_stream("camera").unwrap();
    let url = format!("rtsp://ann:correct-horse@127.0.0.1:{port}/camera");
    let players = ["tcp", "udp"].map(|transport| {
        let name = format!("rtsp_out_{transport}");
        let mut arguments = vec!["-nostdin", "-v", "warning", "-rtsp_transport", transport];
        arguments.extend([
            "-i",
            &url,
            "-an",
            "-flush_packets",
            "1",
            "-f",
            "framemd5",
            "-",
        ]);
        let player = Publisher::start(&name, "ffmpeg", &arguments).unwrap();
        (name, player)
    });
    for (name, _) in &players {
        wait_for_frames(name, 60);
    }
    drop(first);
    // Longer than what jitter buffers take for one stream.
    std::thread::sleep(Duration::from_secs(5));
    let before = players.each_ref().map(|(name, _)| frames(name));
    let _second = publisher(&server, "rtsp_out_second");
    for ((name, _), before) in players.iter().zip(before) {
        wait_for_frames(name, before + 60);
        println!(
            "{name}: {before} frames before, {} after",
            frames(name) - before
        );
    }
    for (_, mut player) in players {
        assert!(player.runs());
    }
}
