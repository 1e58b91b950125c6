// SPDX-License-Identifier: MPL-2.0

//! People meet: rooms on a real engine, by UDP on loopback, with clients of `str0m`.

mod data_tracks;
mod guest;
mod plain;
mod single;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sfu_engine::{Engine, EngineConfig, Router};
use sfu_rooms::proto::{LeaveRequest, MuteTrackRequest, TrackSource, WebhookEvent, signal_request};
use sfu_rooms::{Call, Config, Fault, Form, Keys, VideoGrants};
use sfu_rooms_host::Host;

use guest::{Guest, until};

const KEYS: &str = "key:secret";

struct Served {
    engine: Arc<Engine>,
    router: Arc<Router>,
    host: Host,
    /// What an application is told.
    events: Arc<Mutex<Vec<String>>>,
}

impl Served {
    fn new(name: &str) -> Self {
        Self::with(name, 0)
    }

    fn with(name: &str, last_n: usize) -> Self {
        let router = Router::get(name);
        let config = EngineConfig {
            udp_address: std::net::Ipv4Addr::LOCALHOST.into(),
            udp_port: 0,
            shards: 2,
            ..EngineConfig::default()
        };
        let engine = Arc::new(Engine::start(router.clone(), config).unwrap());
        let keys: Keys = KEYS.parse().unwrap();
        let config = Config {
            empty_timeout: Duration::from_secs(1),
            last_n,
            events: true,
            ..Config::default()
        };
        let none = Box::new(|_: &str| Vec::new());
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = events.clone();
        let tell = move |event: WebhookEvent| {
            let who = event.participant.map(|p| p.identity).unwrap_or_default();
            told.lock().unwrap().push(format!("{} {who}", event.event));
        };
        let host = Host::start(engine.clone(), keys, config, none, Box::new(tell)).unwrap();
        Self {
            engine,
            router,
            host,
            events,
        }
    }

    fn streams(&self) -> Vec<String> {
        let streams = self.router.streams();
        let live = streams.iter().filter(|s| s.live);
        live.map(|s| s.name.to_string()).collect()
    }
}

fn is_active(guest: &Guest<'_>, identity: &str) -> bool {
    guest
        .last_of(identity)
        .is_some_and(|p| p["state"] == "ACTIVE")
}

fn tracks(participant: &Value) -> usize {
    participant["tracks"].as_array().map_or(0, Vec::len)
}

#[test]
fn two_hear_each_other_until_one_is_silent_and_the_other_leaves() {
    let served = Served::new("hear");
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    ann.publish("voice", TrackSource::Microphone);
    until([&mut ann], "ann to be active", |[ann]| {
        is_active(ann, "ann") && ann.publisher.connected && ann.subscriber.connected
    });
    let published = ann.all("trackPublished")[0];
    assert_eq!(published["cid"], "voice");
    let sid = published["track"]["sid"].as_str().unwrap().to_owned();
    let mut ben = Guest::join(&served.host, "ben").unwrap();
    until([&mut ann, &mut ben], "ben to hear ann", |[_, ben]| {
        ben.subscriber.packets > 20
    });
    assert!(
        ben.told[0].get("join").is_some(),
        "the first of all: {:?}",
        ben.told[0]
    );
    assert_eq!(tracks(ben.last_of("ann").unwrap()), 1);
    until([&mut ann, &mut ben], "how good it is", |[ann, ben]| {
        let told = ben.all("connectionQuality").into_iter();
        let mut told = told.flat_map(|update| update["updates"].as_array().unwrap());
        let sid = &ann.last_of("ann").unwrap()["sid"];
        told.any(|of| of["participantSid"] == *sid && of["quality"] == "EXCELLENT")
    });
    let named = ben.all("offer").into_iter().any(|offer| {
        let sids = offer["midToTrackId"].as_object();
        sids.is_some_and(|sids| sids.values().any(|s| *s == *sid))
    });
    assert!(named, "an offer names the track");
    until([&mut ann, &mut ben], "ann to know", |[ann, _]| {
        ann.all("trackSubscribed")
            .iter()
            .any(|t| t["trackSid"] == *sid)
    });
    assert_eq!(served.streams(), ["meeting/ann"]);
    // Both ways, and one more sound of ann's, which is another stream.
    ben.publish("his", TrackSource::Microphone);
    ann.publish("screen", TrackSource::ScreenShareAudio);
    until([&mut ann, &mut ben], "ann to hear ben", |[ann, ben]| {
        ann.subscriber.packets > 20 && tracks(ben.last_of("ann").unwrap()) == 2
    });
    let all = ["meeting/ann", "meeting/ann/screen", "meeting/ben"];
    assert_eq!(served.streams(), all);
    ann.say(signal_request::Message::Mute(MuteTrackRequest {
        sid: sid.clone(),
        muted: true,
    }));
    until([&mut ann, &mut ben], "ann to be muted", |[_, ben]| {
        let ann = ben.last_of("ann").unwrap();
        ann["tracks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["muted"] == true)
    });
    // The m-line is offered without it, and the stream goes.
    ann.unpublish();
    until([&mut ann, &mut ben], "one track less", |[_, ben]| {
        tracks(ben.last_of("ann").unwrap()) == 1
    });
    until([&mut ann, &mut ben], "one stream less", |_| {
        served.streams() == ["meeting/ann/screen", "meeting/ben"]
    });
    let before = ben.subscriber.packets;
    until(
        [&mut ann, &mut ben],
        "the other one to go on",
        |[_, ben]| ben.subscriber.packets > before + 20,
    );
    ann.say(signal_request::Message::Leave(LeaveRequest::default()));
    until([&mut ann, &mut ben], "ann to be gone", |[ann, ben]| {
        ann.closed && ben.last_of("ann").unwrap()["state"] == "DISCONNECTED"
    });
    until([&mut ben], "her sessions to end", |_| {
        served.engine.sessions() == 2
    });
    until([&mut ben], "her streams to go", |_| {
        served.streams() == ["meeting/ben"]
    });
}

/// The state of somebody's tracks, as a guest was told last.
fn state_of<'a>(guest: &'a Guest<'_>, identity: &str) -> Option<&'a str> {
    let sid = &guest.last_of(identity)?["sid"];
    let told = guest.all("streamStateUpdate").into_iter().rev();
    let mut states =
        told.flat_map(|update| update["streamStates"].as_array().into_iter().flatten());
    let last = states.find(|state| state["participantSid"] == *sid)?;
    // What has its default value is left out.
    Some(last["state"].as_str().unwrap_or("ACTIVE"))
}

/// What an application calls for.
fn call(served: &Served, method: &str, body: &str) -> Result<bytes::Bytes, Fault> {
    let (done, answered) = std::sync::mpsc::sync_channel(1);
    let grants = VideoGrants {
        room_admin: true,
        room: "meeting".into(),
        ..VideoGrants::default()
    };
    let call = Call {
        method: method.into(),
        form: Form::Json,
        body: body.into(),
        grants,
    };
    let served_by = Box::new(move |answer| done.send(answer).unwrap());
    served.host.call(call, served_by);
    answered.recv_timeout(Duration::from_secs(20)).unwrap()
}

/// An application takes a right away: what was published is not, whatever the client does.
#[test]
fn who_may_publish_no_more_is_not_forwarded_any_more() {
    let served = Served::new("revoked");
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    let mut ben = Guest::join(&served.host, "ben").unwrap();
    ann.publish("voice", TrackSource::Microphone);
    until([&mut ann, &mut ben], "ben to hear ann", |[_, ben]| {
        ben.subscriber.packets > 20
    });
    let body = r#"{"room": "meeting", "identity": "ann", "permission": {"canSubscribe": true}}"#;
    let answer: Value =
        serde_json::from_slice(&call(&served, "UpdateParticipant", body).unwrap()).unwrap();
    assert_eq!(answer["tracks"].as_array().unwrap().len(), 0);
    until([&mut ann, &mut ben], "both to know", |[ann, ben]| {
        !ann.all("trackUnpublished").is_empty() && tracks(ben.last_of("ann").unwrap()) == 0
    });
    // She goes on as if nothing were, and has to go.
    until([&mut ann, &mut ben], "her to be put out", |[ann, _]| {
        ann.closed
    });
    assert_eq!(ann.all("leave")[0]["reason"], "PARTICIPANT_REMOVED");
    until([&mut ben], "her stream to go", |_| {
        served.streams().is_empty()
    });
    let events = served.events.lock().unwrap().clone();
    let at = |event: &str| {
        let found = events.iter().position(|e| e == event);
        found.unwrap_or_else(|| panic!("{event}: {events:?}"))
    };
    assert_eq!(events[0], "room_started ");
    assert!(at("participant_joined ann") < at("participant_left ann"));
    assert!(at("track_published ann") < at("track_unpublished ann"));
}

#[test]
fn who_speaks_takes_the_place_of_who_is_silent_without_negotiation() {
    let served = Served::with("last_n", 1);
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    ann.publish("hers", TrackSource::Microphone);
    until([&mut ann], "ann", |[ann]| is_active(ann, "ann"));
    let mut ben = Guest::join(&served.host, "ben").unwrap();
    ben.publish("his", TrackSource::Microphone);
    let mut cat = Guest::join(&served.host, "cat").unwrap();
    let all = [&mut ann, &mut ben, &mut cat];
    until(all, "cat to hear ann", |[ann, ben, cat]| {
        cat.heard(ann) > 20
            && state_of(cat, "ann") == Some("ACTIVE")
            && state_of(cat, "ben") == Some("PAUSED")
            && ann.heard(ben) > 20
    });
    assert_eq!(cat.heard(&ben), 0, "he is outside");
    let offers = cat.all("offer").len();
    ben.loud = true;
    let (spoke, mut came) = (std::time::Instant::now(), None);
    let all = [&mut ann, &mut ben, &mut cat];
    until(all, "cat to hear ben instead", |[_, ben, cat]| {
        if cat.heard(ben) > 0 {
            came.get_or_insert_with(|| spoke.elapsed());
        }
        cat.heard(ben) > 20
            && state_of(cat, "ann") == Some("PAUSED")
            && state_of(cat, "ben") == Some("ACTIVE")
    });
    println!("heard after {came:?}");
    let (before, his) = (cat.heard(&ann), cat.heard(&ben));
    let all = [&mut ann, &mut ben, &mut cat];
    until(all, "ben to go on", |[_, ben, cat]| {
        cat.heard(ben) > his + 20
    });
    assert_eq!(cat.heard(&ann), before, "she costs no packet");
    assert_eq!(cat.all("offer").len(), offers);
}

#[test]
fn data_reaches_all_others_and_not_who_sent_it() {
    let served = Served::new("data");
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    let mut ben = Guest::join(&served.host, "ben").unwrap();
    let mut cat = Guest::join(&served.host, "cat").unwrap();
    ann.open_channels();
    let mut sent = false;
    until([&mut ann, &mut ben, &mut cat], "data", |[ann, ben, cat]| {
        let all_up = ben.subscriber.connected && cat.subscriber.connected;
        sent = sent || all_up && ann.send("hello");
        !ben.subscriber.data.is_empty() && !cat.subscriber.data.is_empty()
    });
    for guest in [&ben, &cat] {
        let (label, octets) = &guest.subscriber.data[0];
        assert_eq!(label, "_reliable");
        let packet = sfu_rooms::wire::read_data(octets).unwrap();
        let packet = serde_json::to_value(&packet).unwrap();
        assert_eq!(packet["participantIdentity"], "ann");
        assert_eq!(packet["user"]["payload"], "aGVsbG8=");
    }
    assert!(ann.subscriber.data.is_empty());
}

#[test]
fn whose_connection_broke_goes_on_and_who_comes_twice_is_once() {
    let served = Served::new("twice");
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    until([&mut ann], "ann to be active", |[ann]| {
        is_active(ann, "ann")
    });
    let sid = ann.all("join")[0]["participant"]["sid"].clone();
    let query = [("reconnect", "1"), ("sid", sid.as_str().unwrap())];
    served.host.closed(ann.connection);
    let mut again = Guest::connect(&served.host, "ann", &query).unwrap();
    (again.publisher, again.subscriber) = (ann.publisher, ann.subscriber);
    until([&mut again], "a reconnect", |[again]| {
        !again.all("reconnect").is_empty() && !again.all("offer").is_empty()
    });
    assert!(!again.closed, "{:?}", again.told);
    assert_eq!(again.last_of("ann").unwrap()["sid"], sid);
    let mut other = Guest::join(&served.host, "ann").unwrap();
    until([&mut again, &mut other], "the first to go", |[again, _]| {
        again.closed
    });
    assert_eq!(again.all("leave")[0]["reason"], "DUPLICATE_IDENTITY");
    // What she was is gone.
    let mut late = Guest::connect(&served.host, "ann", &query).unwrap();
    until([&mut late], "a refusal", |[late]| late.closed);
    assert_eq!(late.told.len(), 1);
    assert_eq!(late.all("leave")[0]["reason"], "STATE_MISMATCH");
    assert_eq!(late.all("leave")[0]["action"], "RECONNECT");
}

/// A stream of the server, whatever publishes it.
mod cam {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use sfu_engine::{
        AudioTrack, Codec, Feedback, Layering, PublishOptions, Publisher, Router, RtpIn, TrackKind,
    };

    struct NoEncoder;

    impl Feedback for NoEncoder {
        fn keyframe_request(&self, _: usize) {}
    }

    pub(super) struct Camera {
        publisher: Publisher,
        sent: u16,
        next: Instant,
    }

    impl Camera {
        pub(super) fn new(router: &Router, name: &str) -> Self {
            let options = PublishOptions {
                keyframe_min_interval: Duration::from_millis(500),
                feedback: Arc::new(NoEncoder),
            };
            let publisher = router.publish(name.parse().unwrap(), options).unwrap();
            publisher.set_audio(AudioTrack {
                number: 0,
                codec: Codec::Opus,
                language: None,
            });
            Self {
                publisher,
                sent: 0,
                next: Instant::now(),
            }
        }

        /// A packet of sound each 20 ms.
        pub(super) fn turn(&mut self) {
            while self.next <= Instant::now() {
                self.next += Duration::from_millis(20);
                self.sent = self.sent.wrapping_add(1);
                let packet = RtpIn {
                    seq: self.sent,
                    timestamp: u32::from(self.sent) * 960,
                    captured: Instant::now(),
                    marker: false,
                    payload: [0x78, b'c', 0, 0].into(),
                    red: None,
                    layering: Layering::default(),
                };
                self.publisher.push(TrackKind::Audio, 0, [packet]);
            }
        }
    }
}

#[test]
fn a_stream_of_the_server_comes_goes_and_is_heard() {
    let served = Served::new("ingress");
    let name = "cam1".parse().unwrap();
    assert_eq!(served.host.add_stream("meeting", &name), Some(true));
    assert_eq!(served.host.add_stream("meeting", &name), Some(false));
    assert_eq!(served.host.streams("meeting"), std::slice::from_ref(&name));
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    let roster = || {
        let listed = served.router.roster().of("meeting");
        listed.into_iter().map(|p| p.identity).collect::<Vec<_>>()
    };
    for round in 0..3 {
        let mut camera = cam::Camera::new(&served.router, "cam1");
        let before = ann.subscriber.packets;
        until([&mut ann], "the stream to be heard", |[ann]| {
            camera.turn();
            is_active(ann, "cam1") && ann.subscriber.packets > before + 20
        });
        assert_eq!(ann.last_of("cam1").unwrap()["kind"], "INGRESS", "{round}");
        assert_eq!(roster(), ["cam1"]);
        drop(camera);
        until([&mut ann], "the stream to go", |[ann]| {
            ann.last_of("cam1").unwrap()["state"] == "DISCONNECTED"
        });
        assert!(roster().is_empty());
    }
    let _camera = cam::Camera::new(&served.router, "cam1");
    until([&mut ann], "the stream to be there", |[ann]| {
        is_active(ann, "cam1")
    });
    // Who takes its name is not let in, and an application that removes it has removed it for good.
    assert_eq!(Guest::join(&served.host, "cam1").err().unwrap().status, 409);
    let body = r#"{"room": "meeting", "identity": "cam1"}"#;
    call(&served, "RemoveParticipant", body).unwrap();
    until([&mut ann], "it to be removed", |_| {
        served.host.streams("meeting").is_empty()
    });
    assert!(!served.host.remove_stream("meeting", &name));
    assert_eq!(served.host.add_stream("meeting", &name), Some(true));
    until([&mut ann], "the stream to be back", |[ann]| {
        is_active(ann, "cam1")
    });
    assert!(served.host.remove_stream("meeting", &name));
    until([&mut ann], "the stream to leave", |[ann]| {
        ann.last_of("cam1").unwrap()["state"] == "DISCONNECTED"
    });
}

/// Whatever comes: the rooms go on.
#[test]
fn what_is_not_understood_harms_nobody() {
    use sfu_rooms::wire::Frame;
    let served = Served::new("strange");
    let mut bad = Guest::join(&served.host, "bad").unwrap();
    for frame in [
        Frame::Binary(vec![255; 100].into()),
        Frame::Binary(Vec::new().into()),
        Frame::Text("{".into()),
        Frame::Text(r#"{"offer":{"type":"offer","sdp":"v=0"}}"#.into()),
        Frame::Text(r#"{"answer":{"type":"answer","sdp":"v=0"}}"#.into()),
        Frame::Text(r#"{"trickle":{"candidateInit":"{\"candidate\":\"candidate:1\"}"}}"#.into()),
        Frame::Text(r#"{"trickle":{"candidateInit":"]","target":"SUBSCRIBER"}}"#.into()),
        Frame::Text(r#"{"trackSetting":{"trackSids":["TR_1"],"width":4294967295}}"#.into()),
        Frame::Text(r#"{"mute":{"sid":"TR_1","muted":true}}"#.into()),
    ] {
        served.host.say(bad.connection, frame);
    }
    // An offer that is none ends who made it, and nobody else.
    until([&mut bad], "the bad one to go", |[bad]| bad.closed);
    let mut good = Guest::join(&served.host, "good").unwrap();
    until([&mut good], "the good one to be active", |[good]| {
        is_active(good, "good")
    });
    let refused = |token: &str| served.host.permit(token).unwrap_err().status;
    assert_eq!((refused(""), refused("x.y.z")), (401, 401));
}
