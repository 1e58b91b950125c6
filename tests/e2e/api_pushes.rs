// SPDX-License-Identifier: MPL-2.0

//! Streams that are sent on to RTMP services by the API while they play: H.264 as it is, VP8 encoded anew. A service that is away
//! or crashes is tried again, others notice nothing, and no key is told anywhere.

use std::time::Duration;

use serde_json::{Value, json};
use sfu_tests::rtmp::{Recorded, Service};
use sfu_tests::server::{Server, free_ports};

const PICTURES: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! tee name=t \
    t. ! queue ! sfusink name=a stream=cam1 layers=360:400k audiotestsrc is-live=true ! tee name=s s. ! queue ! a.audio_0 \
    t. ! queue ! sfusink name=b stream=cam2 codec=vp8 layers=360:400k s. ! queue ! b.audio_0";
const KEYS: [&str; 2] = ["first-secret", "second-secret"];

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let url = server.url(&format!("/api/v1/pushes{path}"));
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build();
    let agent = ureq::Agent::new_with_config(agent);
    let answer = match method {
        "POST" => agent
            .post(url)
            .header("Content-Type", "application/json")
            .send(body.to_string()),
        "DELETE" => agent.delete(url).call(),
        _ => agent.get(url).call(),
    };
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    for key in KEYS {
        assert!(!text.contains(key), "a key is told: {text}");
    }
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    (answer.status().as_u16(), json)
}

fn push(server: &Server, stream: &str, port: u16, key: &str) -> Value {
    let url = format!("rtmp://127.0.0.1:{port}/live/{key}");
    let (status, push) = ask(server, "POST", "", &json!({"stream": stream, "url": url}));
    assert_eq!(status, 201, "{push}");
    assert_eq!(push["service"], format!("rtmp://127.0.0.1:{port}"));
    push
}

/// Waits until a push is so, and more octets than these have left.
fn wait_until(server: &Server, push: &Value, state: &str, octets: u64) -> Value {
    let path = format!("/{}", push["number"]);
    let reached = server.wait_for(&format!("push {path} to be {state}"), || {
        let (status, push) = ask(server, "GET", &path, &Value::Null);
        assert_eq!(status, 200);
        let is_so = push["state"] == state && push["octets"].as_u64() >= Some(octets);
        Ok(is_so.then_some(push))
    });
    reached.unwrap()
}

fn check(name: &str, recorded: &Recorded) {
    println!(
        "{name}: {} pictures, keyframes at {:?}, {} sounds",
        recorded.pictures.len(),
        recorded.keyframes,
        recorded.sounds.len()
    );
    assert_eq!(recorded.codecs, ["h264", "aac"], "{name}");
    assert_eq!(recorded.broken, "", "{name}");
    // A busy machine encodes few.
    assert!(recorded.pictures.len() > 10 && recorded.sounds.len() > 30);
    assert!(!recorded.keyframes.is_empty(), "{name}");
}

#[test]
fn streams_are_pushed_while_they_play_and_keys_are_told_nowhere() {
    let ports = [free_ports().unwrap().0, free_ports().unwrap().0];
    let second = Service::start("api_pushes_2", ports[1]).unwrap();
    let server = Server::launch("api_pushes", PICTURES).unwrap();
    for stream in ["cam1", "cam2"] {
        server.wait_for_stream(stream).unwrap();
    }
    // One to a service that is away, one that has to be encoded, and one of a stream that is not there.
    let [away, encoded] =
        [("cam1", 0), ("cam2", 1)].map(|(stream, at)| push(&server, stream, ports[at], KEYS[at]));
    let later = push(&server, "later", ports[1], "another");
    let live = wait_until(&server, &encoded, "live", 50_000);
    assert_eq!(live["reason"], Value::Null, "{live}");
    let failed = wait_until(&server, &away, "failed", 0);
    assert!(
        failed["reason"].as_str().is_some_and(|r| !r.is_empty()) && failed["retry_in_ms"].is_u64(),
        "{failed}"
    );
    println!("{failed}");
    wait_until(&server, &later, "waiting", 0);

    let first = Service::start("api_pushes_1", ports[0]).unwrap();
    wait_until(&server, &away, "live", 50_000);
    let recordings = [
        first.record(KEYS[0], "first.flv", 5).unwrap(),
        second.record(KEYS[1], "second.flv", 5).unwrap(),
    ];
    for (name, recording) in ["copied", "encoded"].iter().zip(recordings) {
        check(name, &recording.finish().unwrap());
    }
    drop(first);
    let failed = wait_until(&server, &away, "failed", 50_000);
    println!("{failed}");
    let first = Service::start("api_pushes_1", ports[0]).unwrap();
    let before = failed["octets"].as_u64().unwrap();
    wait_until(&server, &away, "live", before + 20_000);
    assert_eq!(first.publishers().unwrap(), 1);
    assert_eq!(second.publishers().unwrap(), 1, "the other one was cut");

    // The same again, and what is no push.
    let same =
        json!({"stream": "cam1", "url": format!("rtmp://127.0.0.1:{}/live/{}", ports[0], KEYS[0])});
    assert_eq!(ask(&server, "POST", "", &same).0, 409);
    for wrong in [
        json!({"stream": "cam1"}),
        json!({"stream": "cam1", "url": KEYS[0]}),
        json!({"stream": "cam1", "url": [KEYS[0]]}),
        json!({"stream": "cam1", "url": "rtmp://h/app/k", KEYS[0]: 1}),
        json!({"stream": "../cam1", "url": "rtmp://h/app/k"}),
    ] {
        let (status, problem) = ask(&server, "POST", "", &wrong);
        assert!(matches!(status, 400 | 422), "{wrong}: {status} {problem}");
    }
    let (_, list) = ask(&server, "GET", "?stream=cam1", &Value::Null);
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    // As many as there may be of a stream.
    for n in 2..9 {
        push(&server, "later", ports[1], &format!("another-{n}"));
    }
    let ninth = json!({"stream": "later", "url": "rtmp://h/app/k"});
    assert_eq!(ask(&server, "POST", "", &ninth).0, 503);

    // What is counted, and what was told.
    assert_eq!(
        server.metric("sfu_pushes{state=\"live\"}").unwrap(),
        2,
        "both of them"
    );
    let figures = server.get("/metrics").unwrap();
    let sent = format!(
        "sfu_push_sent_bytes_total{{push=\"{}\",stream=\"cam2\"",
        encoded["number"]
    );
    assert!(figures.contains(&sent), "{figures}");
    for (event, least) in [("started", 3), ("failed", 2), ("finished", 0)] {
        let name = format!("sfu_events_total{{type=\"push-{event}\"}}");
        assert!(server.metric(&name).unwrap() >= least, "{event}");
    }
    let finished = server.metric("sfu_events_total{type=\"push-finished\"}");
    let finished = finished.unwrap();

    let path = format!("/{}", encoded["number"]);
    assert_eq!(ask(&server, "DELETE", &path, &Value::Null).0, 204);
    assert_eq!(ask(&server, "DELETE", &path, &Value::Null).0, 404);
    assert_eq!(ask(&server, "GET", &path, &Value::Null).0, 404);
    server
        .wait_for("its end to be told", || {
            let now = server.metric("sfu_events_total{type=\"push-finished\"}")?;
            Ok((now > finished).then_some(()))
        })
        .unwrap();
    let log = server.log();
    for key in KEYS {
        assert!(!log.contains(key), "a key is in the log");
    }
    // With a push that is live, and some that wait.
    let began = std::time::Instant::now();
    assert!(server.stop().is_some());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}
