// SPDX-License-Identifier: MPL-2.0

//! GStreamer's signalling: who publishes and plays by it, and what it takes of whom.

use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tokio::{TokioAdapter, client_async};
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use axum::http::HeaderValue;
use futures_util::StreamExt;
use gst::prelude::*;
use serde_json::{Value, json};
use sfu_access::Action;
use sfu_access_rows::{ANOTHER_STREAM, KEY, SECRET, grants, token, wrong};
use tokio::net::TcpStream;

use super::{NAME, RULES, Served};

const PATIENCE: Duration = Duration::from_secs(20);

struct Talk {
    runtime: tokio::runtime::Runtime,
    socket: WebSocketStream<TokioAdapter<TcpStream>>,
    id: String,
}

impl Talk {
    /// As a stranger, who shows that.
    fn new(served: &Served, path: &str, shown: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut request = format!("ws://{NAME}{path}").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("X-Forwarded-For", HeaderValue::from_static("203.0.113.9"));
        if !shown.is_empty() {
            let bearer = HeaderValue::try_from(format!("Bearer {shown}")).unwrap();
            headers.insert("Authorization", bearer);
        }
        let address = served.address;
        let socket = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            client_async(request, stream).await.unwrap().0
        });
        let id = String::new();
        let mut talk = Self {
            runtime,
            socket,
            id,
        };
        let welcome = talk.hear();
        assert_eq!(welcome["type"], "welcome");
        talk.id = welcome["peerId"].as_str().unwrap().to_owned();
        assert!(talk.id.len() >= 32);
        talk
    }

    fn say(&mut self, what: &Value) {
        let text = Message::text(what.to_string());
        self.runtime.block_on(self.socket.send(text)).unwrap();
    }

    /// The next message; null is the end.
    fn hear(&mut self) -> Value {
        let socket = &mut self.socket;
        let next = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return serde_json::from_str(&text).unwrap();
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Value::Null,
                    Some(Ok(_)) => {}
                }
            }
        };
        let within = async { tokio::time::timeout(PATIENCE, next).await };
        self.runtime.block_on(within).expect("nothing is said")
    }

    fn ask(&mut self, what: &Value) -> Value {
        self.say(what);
        self.hear()
    }
}

fn produce(name: &str) -> Value {
    json!({ "type": "setPeerStatus", "roles": ["producer"], "meta": { "name": name } })
}

fn consume(name: &str) -> Value {
    json!({ "type": "startSession", "peerId": name })
}

fn served(test: &str) -> Served {
    let properties = [("trusted-proxies", "127.0.0.1"), ("server-names", NAME)];
    Served::new(test, Some(RULES), &properties)
}

/// What comes while somebody is refused names the reason, and nothing begins.
fn refused(answer: &Value, what: &str) {
    assert_eq!(answer["type"], "error", "{what}: {answer}");
    let details = answer["details"].as_str().unwrap();
    assert!(details.starts_with(what), "{answer}");
}

#[test]
fn peers_publish_and_play_what_they_may() {
    let served = served("peers");
    for (action, said, what) in [
        (Action::Publish, produce("cam1"), "publishing cam1"),
        (Action::Play, consume("cam1"), "playing cam1"),
    ] {
        let mut shown = wrong(&[action], "cam1");
        shown.push(("nothing", String::new()));
        assert!(shown.iter().any(|(what, _)| *what == ANOTHER_STREAM));
        for (row, shown) in shown {
            let answer = Talk::new(&served, "/gst-webrtc", &shown).ask(&said);
            refused(&answer, what);
            let told = answer.to_string();
            assert!(shown.is_empty() || !told.contains(&shown), "{row}: {told}");
        }
    }
    for shown in [
        token(SECRET, &grants(&[Action::Publish], "cam1"), 60),
        KEY.to_owned(),
    ] {
        let answer = Talk::new(&served, "/gst-webrtc", &shown).ask(&produce("cam1"));
        assert_eq!(answer["type"], "startSession", "{answer}");
        // The address says it, whatever the peer does.
        let mut talk = Talk::new(&served, "/gst-webrtc/cam1", &shown);
        assert_eq!(talk.ask(&produce("cam2"))["type"], "startSession");
        let mut talk = Talk::new(&served, "/gst-webrtc/cam2", &shown);
        refused(&talk.ask(&produce("cam1")), "publishing cam2");
    }
    let right = token(SECRET, &grants(&[Action::Play], "cam1"), 60);
    let answer = Talk::new(&served, "/gst-webrtc", &right).ask(&consume("cam1"));
    refused(&answer, "there is no stream");
}

#[test]
fn streams_are_producers_for_who_may_play_them_and_sessions_are_bounded() {
    let served = served("producers");
    let line = "audiotestsrc is-live=true ! sfusink router=producers stream=cam1";
    let publisher = gst::parse::launch(line).unwrap();
    publisher.set_state(gst::State::Playing).unwrap();
    let play = |stream: &str| token(SECRET, &grants(&[Action::Play], stream), 60);
    let list = json!({ "type": "list" });
    let mut talk = Talk::new(&served, "/gst-webrtc", &play("cam1"));
    let listener = json!({ "type": "setPeerStatus", "roles": ["listener"] });
    let end = std::time::Instant::now() + PATIENCE;
    let own = talk.ask(&listener);
    assert_eq!(own["type"], "peerStatusChanged");
    assert_eq!(own["roles"], json!(["listener"]));
    assert_eq!(own["peerId"], talk.id);
    loop {
        let listed = talk.ask(&list);
        if listed["producers"][0]["id"] == "cam1" {
            assert_eq!(listed["producers"][0]["meta"]["name"], "cam1");
            break;
        }
        assert!(std::time::Instant::now() < end, "{listed}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut other = Talk::new(&served, "/gst-webrtc", &play("cam2"));
    assert_eq!(other.ask(&list)["producers"], json!([]));
    refused(&other.ask(&consume("cam1")), "playing cam1");
    let mut began = 0;
    let full = loop {
        let answer = talk.ask(&consume("cam1"));
        match answer["type"].as_str().unwrap() {
            "sessionStarted" => began += 1,
            "peerStatusChanged" => continue,
            _ => break answer,
        }
        let offer = talk.hear();
        let sdp = offer["sdp"]["sdp"].as_str().unwrap();
        assert!(sdp.contains("opus/48000/2") && sdp.contains("a=setup:actpass"));
        assert_eq!(offer["sdp"]["type"], "offer");
        // An offer is not what it is to send.
        let session = &offer["sessionId"];
        let wrong =
            json!({ "type": "peer", "sessionId": session, "sdp": { "type": "offer", "sdp": sdp } });
        refused(&talk.ask(&wrong), "that is neither");
    };
    refused(&full, "this connection has 32 sessions");
    assert_eq!(began, 32);
    publisher.set_state(gst::State::Null).unwrap();
    loop {
        let told = talk.hear();
        if told["type"] == "peerStatusChanged" && told["roles"] == json!([]) {
            assert_eq!(told["peerId"], "cam1");
            break;
        }
    }
}

/// Who is sent away hears why.
#[test]
fn who_may_not_stay_is_told_why() {
    let served = served("goodbyes");
    let goodbye = |mut talk: Talk| {
        let socket = &mut talk.socket;
        let next = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                    Some(Ok(_)) => {}
                    end => panic!("{end:?}"),
                }
            }
        };
        let within = async { tokio::time::timeout(PATIENCE, next).await };
        talk.runtime.block_on(within).expect("nothing is said")
    };
    let brief = token(SECRET, &grants(&[Action::Play], "cam1"), 2);
    let lasting = token(SECRET, &grants(&[Action::Play], "cam1"), 600);
    assert_eq!(goodbye(Talk::new(&served, "/gst-webrtc", &brief)), 1008);
    let mut talk = Talk::new(&served, "/gst-webrtc", &lasting);
    let large = Message::text("x".repeat(100 * 1024));
    talk.runtime.block_on(talk.socket.send(large)).unwrap();
    assert_eq!(goodbye(talk), 1009);
    let talk = Talk::new(&served, "/gst-webrtc", &lasting);
    served.element.emit_by_name::<()>("drain", &[]);
    assert_eq!(goodbye(talk), 1001);
}

#[test]
fn what_is_no_message_is_answered_and_not_for_ever() {
    let served = served("nonsense");
    let mut talk = Talk::new(&served, "/gst-webrtc", "");
    for nonsense in [json!({}), json!({ "type": "welcome" }), json!([1])] {
        refused(&talk.ask(&nonsense), "that is no message");
    }
    for roles in [json!(["producer", "consumer"]), json!(["producer"])] {
        let said = json!({ "type": "setPeerStatus", "roles": roles });
        refused(&talk.ask(&said), "a p");
    }
    for name in ["../x", "whip/x", "a b", ""] {
        assert_eq!(talk.ask(&produce(name))["type"], "error", "{name}");
    }
    // Sessions that are not there are nothing.
    let gone = json!({ "type": "endSession", "sessionId": "x" });
    talk.say(&gone);
    let mut answers = 0;
    while talk
        .runtime
        .block_on(talk.socket.send(Message::text("no")))
        .is_ok()
    {
        if talk.hear() == Value::Null {
            break;
        }
        answers += 1;
        assert!(answers < 100);
    }
    assert!(answers >= 10);
}
