// SPDX-License-Identifier: MPL-2.0

//! API v1 and events of a server that plays: health, sessions, kick, recordings, and a webhook that checks what is signed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use sfu_tests::ndi::repository;
use sfu_tests::server::Server;
use sfu_tests::{load, netns};

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
    ! sfusink name=out stream=news/cam1 layers=360:400k audiotestsrc is-live=true ! out.audio_0";
const PATIENCE: Duration = Duration::from_secs(30);

/// A webhook: what it was sent, as head and body. It refuses the first of all.
fn webhook() -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().ok())?
            });
            let mut body = vec![0; length.unwrap_or(0)];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let status = if n == 0 { "503 Later" } else { "204 Taken" };
            let answer =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let _ = reader.get_mut().write_all(answer.as_bytes());
            if sender
                .send((head, serde_json::from_slice(&body).unwrap()))
                .is_err()
            {
                return;
            }
        }
    });
    (url, receiver)
}

/// The next event of this type.
fn event(events: &Receiver<(String, Value)>, kind: &str) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (head, event) = events
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("no {kind}"));
        let head = head.to_lowercase();
        for field in [
            "webhook-id: msg_",
            "webhook-timestamp: ",
            "webhook-signature: v1,",
        ] {
            assert!(head.contains(field), "{field}: {head}");
        }
        if event["type"] == kind {
            return event["data"].clone();
        }
    }
}

fn ask(server: &Server, method: &str, path: &str) -> (u16, Value) {
    let url = server.url(&format!("/api/v1/{path}"));
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build();
    let agent = ureq::Agent::new_with_config(agent);
    let answer = match method {
        "GET" => agent.get(url).call(),
        "PUT" => agent.put(url).send_empty(),
        "DELETE" => agent.delete(url).call(),
        _ => unreachable!("no other is asked"),
    };
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    (answer.status().as_u16(), json)
}

#[test]
fn what_happens_is_told_and_may_be_changed() {
    let folder = repository().join("target/e2e-logs/api");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let secret = folder.join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let (url, events) = webhook();
    let recordings = folder.join("recordings");
    let pipeline = format!(
        "recordings-directory={} event-webhooks={url} event-webhook-secret={} {PICTURE}",
        recordings.display(),
        secret.display()
    );
    let server = Server::launch("api", &pipeline).unwrap();
    server.wait_for_stream("news/cam1").unwrap();
    // The first try was refused, and comes again.
    let joined = event(&events, "publisher-joined");
    assert_eq!(joined["stream"], "news/cam1");
    assert_eq!(joined["input"], "element");

    let viewers = load::watch(&server.url("/whep/news/cam1"), 2, "60s").unwrap();
    let viewer = event(&events, "viewer-joined");
    assert_eq!(viewer["address"], "127.0.0.1");

    // Its health.
    let stream = server.wait_for("the stream's health", || {
        let (status, stream) = ask(&server, "GET", "streams/news%2Fcam1");
        assert_eq!(status, 200, "{stream}");
        let rate = stream["video"]["layers"][0]["frame_rate"]
            .as_f64()
            .unwrap_or(0.0);
        let keyframes = &stream["video"]["layers"][0]["keyframe_interval_ms"];
        Ok((rate > 20.0 && keyframes.is_u64()).then_some(stream))
    });
    let stream = stream.unwrap();
    let layer = &stream["video"]["layers"][0];
    assert!(
        layer["profile"].as_str().unwrap().starts_with("avc1."),
        "{stream}"
    );
    assert_eq!(layer["b_frames"], false, "{stream}");
    assert_eq!(layer["height"], 360, "{stream}");
    assert!(stream["audio"]["channels"].is_u64(), "{stream}");

    // Its sessions.
    let sessions = server.wait_for("both sessions with their paths", || {
        let (_, sessions) = ask(&server, "GET", "sessions?stream=news/cam1");
        let items = sessions["items"].as_array().unwrap();
        let whole = items
            .iter()
            .filter(|s| s["path"]["protocol"] == "udp" && s["connected"] == true);
        Ok((whole.count() == 2).then_some(sessions))
    });
    let sessions = sessions.unwrap();
    let text = sessions.to_string();
    let is_digit = |c: char| c.is_ascii_hexdigit();
    assert!(
        text.split(|c| !is_digit(c)).all(|run| run.len() < 32),
        "no session's secret is told: {text}"
    );
    let number = sessions["items"][0]["number"].as_u64().unwrap();
    assert_eq!(ask(&server, "DELETE", &format!("sessions/{number}")).0, 204);
    let left = event(&events, "viewer-left");
    assert_eq!(left["session"].as_u64(), Some(number));
    assert!(
        left["seconds"].as_f64().unwrap() > 0.0 && left["octets"].as_u64().unwrap() > 0,
        "{left}"
    );
    assert_eq!(ask(&server, "GET", &format!("sessions/{number}")).0, 404);
    drop(viewers);

    // A publisher that is a pipeline is ended there.
    let (status, problem) = ask(&server, "DELETE", "streams/news/cam1");
    assert_eq!(status, 409);
    assert_eq!(problem["status"], 409);
    assert!(
        problem["detail"].as_str().unwrap().contains("pipeline"),
        "{problem}"
    );

    // Recordings.
    assert_eq!(ask(&server, "PUT", "recorders/news/cam1").0, 201);
    assert_eq!(ask(&server, "PUT", "recorders/news/cam1").0, 200);
    let started = event(&events, "recording-started");
    let file = started["file"].as_str().unwrap().to_owned();
    assert_eq!(ask(&server, "DELETE", &format!("recordings/{file}")).0, 409);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ask(&server, "DELETE", "recorders/news/cam1").0, 204);
    let finished = event(&events, "recording-finished");
    assert_eq!(finished["file"], started["file"]);
    assert!(finished["octets"].as_u64().unwrap() > 1_000, "{finished}");
    let (_, list) = ask(&server, "GET", "recordings?stream=news/cam1");
    assert_eq!(list["items"][0]["file"], started["file"], "{list}");
    assert_eq!(ask(&server, "DELETE", &format!("recordings/{file}")).0, 204);
    assert_eq!(ask(&server, "DELETE", &format!("recordings/{file}")).0, 404);
    for outside in ["..%2f..%2fetc%2fpasswd", "../secret", "secret"] {
        assert!(matches!(
            ask(&server, "DELETE", &format!("recordings/{outside}")).0,
            400 | 404 | 405
        ));
    }
    assert!(secret.exists());
}

/// By its own description, with what is good, at the edge, and wrong (tests/stacks/requirements.txt has the program).
#[test]
fn the_api_is_what_its_description_says() {
    // Pushes to wherever.
    let test = "api::the_api_is_what_its_description_says";
    if !netns::isolated(test, &[]) {
        return;
    }
    let recordings = repository().join("target/e2e-logs/described");
    let pipeline = format!("recordings-directory={} {PICTURE}", recordings.display());
    let server = Server::launch("described", &pipeline).unwrap();
    server.wait_for_stream("news/cam1").unwrap();
    let output = Command::new(repository().join("tests/stacks/venv/bin/schemathesis"))
        .args(["run", &server.url("/api/v1/openapi.json")])
        .args(["--url", &server.url(""), "--no-color"])
        .args([
            "--max-examples",
            "5",
            "--phases",
            "examples,coverage,fuzzing,stateful",
        ])
        // It would end.
        .args(["--exclude-path", "/api/v1/drain"])
        .args(["--suppress-health-check", "filter_too_much"])
        // What it remembers is put there.
        .current_dir(repository().join("target/e2e-logs"))
        .stdin(Stdio::null())
        .output()
        .expect("tests/stacks/setup.sh");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", server.log_tail());
    for path in ["pushes", "recorders", "revocations", "sessions", "streams"] {
        assert_eq!(ask(&server, "GET", path).0 / 100, 2, "{path}");
    }
}

/// `{"exp":4102444800,"jti":"taken-back","sfu":{"api":["*"]}}`, signed with [`SECRET`].
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
    eyJleHAiOjQxMDI0NDQ4MDAsImp0aSI6InRha2VuLWJhY2siLCJzZnUiOnsiYXBpIjpbIioiXX19.\
    6d26RZUnvXargrs9xDiHvujDeK56Pj_ZkqPK7IbPqrI";
const SECRET: &str = "a-secret-of-thirty-two-characters";

#[test]
fn a_token_that_was_taken_back_is_good_for_nothing() {
    let folder = repository().join("target/e2e-logs/revocations");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("secret"), SECRET).unwrap();
    std::fs::write(folder.join("access"), "tokens secret\n").unwrap();
    // Of an earlier run that failed.
    let _ = std::fs::remove_file(folder.join("access.revoked"));
    let access = folder.join("access");
    let server = Server::launch("revocations", &format!("access={}", access.display())).unwrap();
    let by_token = || {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build();
        // Behind a proxy nobody is this machine.
        let asked = ureq::Agent::new_with_config(agent)
            .get(server.url("/api/v1/server"))
            .header("X-Forwarded-For", "203.0.113.7")
            .header("Authorization", format!("Bearer {TOKEN}"))
            .call();
        asked.unwrap().status().as_u16()
    };
    assert_eq!(by_token(), 200);
    assert_eq!(ask(&server, "PUT", "revocations/taken-back?until=x").0, 400);
    let long = |length: usize| format!("revocations/{}", "x".repeat(length));
    let (status, told) = ask(&server, "PUT", &long(513));
    assert!(
        status == 400 && told["detail"].as_str().unwrap().contains("512 characters"),
        "{told}"
    );
    for (method, status) in [("PUT", 204), ("DELETE", 204), ("DELETE", 404)] {
        assert_eq!(ask(&server, method, &long(512)).0, status, "{method}");
    }
    assert_eq!(by_token(), 200);
    assert_eq!(
        ask(&server, "PUT", "revocations/taken-back?until=4102444800").0,
        204
    );
    assert_eq!(by_token(), 401);
    let (status, list) = ask(&server, "GET", "revocations");
    assert_eq!(status, 200);
    assert_eq!(list["items"][0]["id"], "taken-back", "{list}");
    assert_eq!(list["items"][0]["until"], 4_102_444_800u64, "{list}");
    // By mistake.
    for status in [204, 404] {
        assert_eq!(ask(&server, "DELETE", "revocations/taken-back").0, status);
    }
    assert_eq!(by_token(), 200);
}
