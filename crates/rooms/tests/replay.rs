// SPDX-License-Identifier: MPL-2.0

//! What real clients said to LiveKit's server (`traces/`, times and messages as they were on the wire), said again to ours: each
//! client is told the same, in the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use flate2::write::GzEncoder;
use prost::Message as _;
use serde_json::Value;
use sfu_rooms::proto::{
    JoinRequest, SessionDescription, SignalRequest, SignalResponse, TrackType, WrappedJoinRequest,
    signal_request, signal_response, wrapped_join_request,
};
use sfu_rooms::{
    Call, Command, Config, Connection, Expected, Form, Found, Hello, Keys, Limits, Negotiated,
    Output, Rooms, Section, Sid,
};

/// What both sides say at times of their own, or more often than once where once is enough.
const BY_THE_CLOCK: [&str; 8] = [
    "(ws ping frame)",
    "roomUpdate",
    "connectionQuality",
    "speakersChanged",
    "refreshToken",
    "trickle",
    "pong",
    "pongResp",
];

struct Replay {
    rooms: Rooms,
    start: Instant,
    /// The names that the server in the trace gave, and ours for the same.
    names: BTreeMap<String, String>,
    /// What each connection was told by the server in the trace, and by ours.
    expected: BTreeMap<u64, Vec<Value>>,
    told: BTreeMap<u64, Vec<Value>>,
    /// By participant: its offer has been answered before, so that a connection is up.
    up: BTreeSet<String>,
    /// Of who makes all offers, by participant.
    lines: BTreeMap<String, Lines>,
    closed: BTreeSet<u64>,
    /// Of applications.
    calls: usize,
}

/// M-lines of a client's offers: what is on each on which it only receives, by mid.
#[derive(Default)]
struct Lines(BTreeMap<String, (TrackType, Option<Sid>)>);

impl Lines {
    /// Puts what is wanted on them, each where it was.
    fn place(&mut self, sdp: &str, wanted: &[Section]) -> (Vec<Option<String>>, [usize; 2]) {
        for section in sdp.split("m=").filter(|s| s.contains("a=recvonly")) {
            let mid = section.lines().find_map(|l| l.strip_prefix("a=mid:"));
            let kind = match section.starts_with("audio") {
                true => TrackType::Audio,
                false => TrackType::Video,
            };
            self.0
                .entry(mid.unwrap().to_owned())
                .or_insert((kind, None));
        }
        let is_wanted = |sid: &Sid| {
            let mut tracks = wanted.iter().filter_map(|s| s.track.as_ref());
            tracks.any(|(track, _)| track == sid)
        };
        for (_, on) in self.0.values_mut() {
            on.take_if(|sid| !is_wanted(sid));
        }
        let mids = wanted.iter().map(|section| {
            let (track, _) = section.track.as_ref().unwrap();
            let on = |(kind, on): &(TrackType, Option<Sid>), there: bool| match there {
                true => on.as_ref() == Some(track),
                false => *kind == section.kind && on.is_none(),
            };
            let known = self.0.iter().find(|(_, line)| on(line, true));
            let mid = known.or_else(|| self.0.iter().find(|(_, line)| on(line, false)));
            let mid = mid?.0.clone();
            self.0.get_mut(&mid)?.1 = Some(track.clone());
            Some(mid)
        });
        let mids = mids.collect();
        let free = [TrackType::Audio, TrackType::Video].map(|kind| {
            let free = self.0.values().filter(|(k, on)| *k == kind && on.is_none());
            free.count()
        });
        (mids, free)
    }
}

impl Replay {
    fn run(name: &str) -> Self {
        let path = format!("{}/tests/traces/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let start = Instant::now();
        let config = Config {
            empty_timeout: Duration::from_secs(300),
            ..Config::default()
        };
        let mut replay = Self {
            rooms: Rooms::new(
                config,
                start,
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_896_000),
            ),
            start,
            names: BTreeMap::new(),
            expected: BTreeMap::new(),
            told: BTreeMap::new(),
            up: BTreeSet::new(),
            lines: BTreeMap::new(),
            closed: BTreeSet::new(),
            calls: 0,
        };
        for line in std::fs::read_to_string(path).unwrap().lines() {
            replay.play(&serde_json::from_str(line).unwrap());
        }
        replay
    }

    fn play(&mut self, line: &Value) {
        let now = self.start + Duration::from_millis(line["t_ms"].as_u64().unwrap());
        while self.rooms.poll_timeout().is_some_and(|at| at < now) {
            let due = self.rooms.poll_timeout().unwrap();
            self.rooms.handle_timeout(due);
            self.settle(due);
        }
        let connection = line["conn"].as_u64().unwrap_or_default();
        match line["dir"].as_str().unwrap() {
            "ws-open" => self.open(now, connection, line),
            "http" => self.call(now, line),
            "note" | "ws-accepted" => {}
            "ws-close" => {
                self.closed.insert(connection);
                self.rooms.closed(now, Connection(connection));
            }
            "c>s" => {
                let message =
                    serde_json::json!({ line["case"].as_str().unwrap(): line["message"] });
                let mut text = message.to_string();
                for (theirs, ours) in &self.names {
                    text = text.replace(theirs, ours);
                }
                let request: SignalRequest = serde_json::from_str(&text).unwrap();
                match request.message.unwrap() {
                    // Each server puts into an offer what there is by then: ours are answered when they come.
                    signal_request::Message::Answer(_) => {}
                    message => self.rooms.receive(now, Connection(connection), message),
                }
            }
            _ => {
                let message =
                    serde_json::json!({ line["case"].as_str().unwrap(): line["message"] });
                self.learn(connection, &message);
                self.expected.entry(connection).or_default().push(message);
            }
        }
        self.settle(now);
    }

    fn open(&mut self, now: Instant, connection: u64, line: &Value) {
        let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
        let header = jsonwebtoken::Header::default();
        let token = jsonwebtoken::encode(&header, &line["claims"], &key).unwrap();
        let keys: Keys = "devkey:secret".parse().unwrap();
        let at = line["claims"]["nbf"].as_u64().unwrap() + 1;
        let permit = keys.permit(&token, at, &Limits::default()).unwrap();
        let mut query = line["url"]
            .as_str()
            .unwrap()
            .split_once('?')
            .unwrap()
            .1
            .to_owned();
        for (theirs, ours) in &self.names {
            query = query.replace(theirs, ours);
        }
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let hello = match line.get("join_request") {
            Some(wrapped) => {
                let request = self.join_request(&wrapped["joinRequest"]);
                let query = [("join_request", request.as_str())];
                Hello::from_request(query, &Limits::default()).unwrap()
            }
            None => Hello::from_query(pairs).unwrap(),
        };
        self.rooms
            .join(now, Connection(connection), permit, hello)
            .unwrap();
    }

    /// As it was in the query: packed, and in Base64.
    fn join_request(&self, request: &Value) -> String {
        let mut text = request.to_string();
        for (theirs, ours) in &self.names {
            text = text.replace(theirs, ours);
        }
        let request: JoinRequest = serde_json::from_str(&text).unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&request.encode_to_vec()).unwrap();
        let wrapped = WrappedJoinRequest {
            compression: wrapped_join_request::Compression::Gzip.into(),
            join_request: encoder.finish().unwrap(),
        };
        URL_SAFE.encode(wrapped.encode_to_vec())
    }

    /// An application calls, and is answered the same.
    fn call(&mut self, now: Instant, line: &Value) {
        if line["response"] == "invalid authorization token" {
            // It gets no further than the door.
            return;
        }
        let video = line["claims"].get("video");
        let grants = video.map(|video| serde_json::from_value(video.clone()).unwrap());
        let mut body = line["request"].to_string();
        for (theirs, ours) in &self.names {
            body = body.replace(theirs, ours);
        }
        let (_, method) = line["url"].as_str().unwrap().rsplit_once('/').unwrap();
        let call = Call {
            method: method.to_owned(),
            form: Form::Json,
            body: body.into_bytes(),
            grants: grants.unwrap_or_default(),
        };
        let served = self.rooms.serve(now, &call);
        let (status, ours) = match &served {
            Ok(answer) => (200, serde_json::from_slice(answer).unwrap()),
            Err(fault) => (fault.status, serde_json::from_str(&fault.json()).unwrap()),
        };
        self.calls += 1;
        assert_eq!(line["status"], status, "{method}: {ours}");
        same(method, "", &line["response"], &ours);
    }

    /// Which of our names stands for one in the trace.
    fn learn(&mut self, connection: u64, theirs: &Value) {
        let told = self.told.entry(connection).or_default();
        let pair = |theirs: &Value, ours: &Value| {
            Some((theirs.as_str()?.to_owned(), ours.as_str()?.to_owned()))
        };
        let names = if theirs.get("join").is_some() {
            let ours = told.iter().find(|m| m.get("join").is_some());
            ours.and_then(|ours| {
                pair(
                    &theirs["join"]["participant"]["sid"],
                    &ours["join"]["participant"]["sid"],
                )
            })
        } else if let Some(published) = theirs.get("trackPublished") {
            let ours = told
                .iter()
                .rev()
                .find(|m| m["trackPublished"]["cid"] == published["cid"]);
            ours.and_then(|ours| {
                pair(
                    &published["track"]["sid"],
                    &ours["trackPublished"]["track"]["sid"],
                )
            })
        } else {
            None
        };
        self.names.extend(names);
    }

    /// Everything that follows at once, with media that does as it is told.
    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.rooms.poll() {
            match output {
                Output::Send(connection, message) => {
                    if let signal_response::Message::Offer(offer) = &*message {
                        let answer = SessionDescription {
                            id: offer.id,
                            ..SessionDescription::default()
                        };
                        let answer = signal_request::Message::Answer(answer);
                        self.rooms.receive(now, connection, answer);
                    }
                    let message = SignalResponse {
                        message: Some(*message),
                    };
                    let told = self.told.entry(connection.0).or_default();
                    told.push(serde_json::to_value(&message).unwrap());
                }
                Output::Tell(to, message) => {
                    let message = SignalResponse {
                        message: Some(*message),
                    };
                    let message = serde_json::to_value(&message).unwrap();
                    for connection in to {
                        let told = self.told.entry(connection.0).or_default();
                        told.push(message.clone());
                    }
                }
                Output::Media(Command::Answer {
                    participant,
                    offer,
                    expected,
                }) => {
                    let tracks = found(&offer.sdp, &expected);
                    let sdp = String::new();
                    let answered = Negotiated::Answered { sdp, tracks };
                    self.rooms.negotiated(now, participant.as_str(), answered);
                }
                Output::Media(Command::Converse {
                    participant,
                    offer,
                    expected,
                    wanted,
                }) => {
                    let tracks = found(&offer.sdp, &expected);
                    let lines = self.lines.entry(participant.to_string()).or_default();
                    let (mids, free) = lines.place(&offer.sdp, &wanted);
                    let conversed = Negotiated::Conversed {
                        sdp: String::new(),
                        tracks,
                        mids,
                        free,
                        shows: Vec::new(),
                    };
                    self.rooms.negotiated(now, participant.as_str(), conversed);
                    if self.up.insert(participant.to_string()) {
                        let up = Negotiated::Connected { publisher: false };
                        self.rooms.negotiated(now, participant.as_str(), up);
                    }
                }
                Output::Media(Command::Offer {
                    participant,
                    sections,
                    ..
                }) => {
                    let mids = (1..=sections.len()).map(|n| n.to_string()).collect();
                    let sdp = String::new();
                    self.rooms.negotiated(
                        now,
                        participant.as_str(),
                        Negotiated::Offered { sdp, mids },
                    );
                }
                Output::Media(Command::Accept { participant, .. }) => {
                    if self.up.insert(participant.to_string()) {
                        let up = Negotiated::Connected { publisher: false };
                        self.rooms.negotiated(now, participant.as_str(), up);
                    }
                }
                Output::Media(_) | Output::Refresh(_) | Output::Event(_) => {}
                Output::Close(Connection(connection)) => {
                    self.closed.insert(connection);
                }
            }
        }
    }

    /// The same with our names, where it has those of the trace.
    fn ours(&self, text: &str, theirs: bool) -> String {
        let names = self.names.iter().filter(|_| theirs);
        names.fold(text.to_owned(), |text, (theirs, ours)| {
            text.replace(theirs, ours)
        })
    }

    /// What is compared of one side: each kind of message and what it is about, and the last that is told of each participant
    /// (how many updates lead there is each server's own affair).
    fn told(&self, all: Option<&Vec<Value>>, theirs: bool) -> Vec<String> {
        let mut told: Vec<String> = Vec::new();
        let (mut last, mut offered) = (BTreeMap::new(), BTreeSet::new());
        for message in all.into_iter().flatten() {
            let (case, body) = message.as_object().unwrap().iter().next().unwrap();
            if BY_THE_CLOCK.contains(&case.as_str()) {
                continue;
            }
            let about = match case.as_str() {
                "update" | "join" => {
                    let others = body["participants"]
                        .as_array()
                        .or(body["otherParticipants"].as_array());
                    for one in others.into_iter().flatten().chain(body.get("participant")) {
                        let tracks = one["tracks"].as_array().cloned().unwrap_or_default();
                        let mut tracks: Vec<_> = tracks
                            .iter()
                            .map(|t| self.ours(&format!("{} {}", t["sid"], t["muted"]), theirs))
                            .collect();
                        tracks.sort();
                        last.insert(
                            one["identity"].to_string(),
                            format!("{} {tracks:?}", one["state"]),
                        );
                    }
                    continue;
                }
                // When, and how often, the client is to offer is each server's own affair.
                "mediaSectionsRequirement" => continue,
                "offer" | "answer" if case == "offer" || body.get("midToTrackId").is_some() => {
                    let named = body["midToTrackId"].as_object().into_iter().flatten();
                    offered.extend(named.map(|(_, track)| self.ours(&track.to_string(), theirs)));
                    continue;
                }
                "trackPublished" => body["cid"].to_string(),
                "trackSubscribed" => body["trackSid"].to_string(),
                "subscribedQualityUpdate" => {
                    format!("{} {}", body["trackSid"], body["subscribedQualities"])
                }
                "subscriptionPermissionUpdate" => {
                    format!("{} {}", body["trackSid"], body["allowed"])
                }
                "leave" => format!("{} {}", body["reason"], body["action"]),
                _ => String::new(),
            };
            told.push(self.ours(&format!("{case} {about}"), theirs));
        }
        told.extend(
            last.into_iter()
                .map(|(who, state)| format!("update {who} {state}")),
        );
        told.extend(offered.into_iter().map(|track| format!("offer of {track}")));
        told
    }
}

/// What LiveKit's server answers is in our answer: each field, and where it is no server's own its value.
fn same(method: &str, path: &str, theirs: &Value, ours: &Value) {
    // Names and times are each server's own, and so is what it has more of.
    let own = [
        "sid",
        "joined_at",
        "joined_at_ms",
        "creation_time",
        "creation_time_ms",
        "turn_password",
        "departure_timeout",
        "meta",
        "enabled_codecs",
        "version",
        "layers",
        "codecs",
        "mid",
        "mime_type",
        "backup_codec_policy",
        "packet_trailer_features",
        "metadata_version",
    ];
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (name, value) in theirs
                .iter()
                .filter(|(name, _)| !own.contains(&name.as_str()))
            {
                let path = format!("{path}.{name}");
                let known = ours.get(name);
                let ours = known.unwrap_or_else(|| panic!("{method}: {path} is missing: {ours:?}"));
                same(method, &path, value, ours);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            assert_eq!(
                theirs.len(),
                ours.len(),
                "{method}: {path}: {theirs:?} {ours:?}"
            );
            let by_name = |all: &[Value]| {
                let mut all = all.to_vec();
                all.sort_by_key(|one| format!("{}{}", one["identity"], one["type"]));
                all
            };
            for (theirs, ours) in by_name(theirs).iter().zip(&by_name(ours)) {
                same(method, path, theirs, ours);
            }
        }
        (Value::String(theirs), Value::String(ours)) if path == ".msg" => {
            assert!(theirs.ends_with(ours), "{method}: {theirs}, {ours}");
        }
        _ => assert_eq!(theirs, ours, "{method}: {path}"),
    }
}

/// The tracks in an offer, by the ids that the client gave.
fn found(sdp: &str, expected: &[Expected]) -> Vec<Found> {
    let mut tracks = Vec::new();
    for section in sdp
        .split("m=")
        .filter(|s| s.starts_with("audio") || s.starts_with("video"))
    {
        let line = |start: &str| section.lines().find_map(|l| l.strip_prefix(start));
        if line("a=inactive").is_some() || line("a=recvonly").is_some() {
            continue;
        }
        let cid = line("a=msid:")
            .and_then(|msid| msid.split(' ').nth(1))
            .unwrap_or_default();
        let kind = if section.starts_with("audio") {
            TrackType::Audio
        } else {
            TrackType::Video
        };
        let by_cid = expected.iter().find(|e| e.cids.iter().any(|c| c == cid));
        let Some(track) = by_cid.or_else(|| expected.iter().find(|e| e.kind == kind)) else {
            continue;
        };
        tracks.push(Found {
            track: track.track.clone(),
            cid: cid.to_owned(),
            mid: line("a=mid:").unwrap_or_default().to_owned(),
            mime: if kind == TrackType::Audio {
                "audio/red".into()
            } else {
                "video/VP8".into()
            },
            rids: section
                .lines()
                .filter_map(|l| l.strip_prefix("a=rid:")?.split(' ').next())
                .map(str::to_owned)
                .collect(),
        });
    }
    tracks
}

/// The messages of `of` that are in both, in the order of each: the same, if nothing is missing or turned round.
fn compare(name: &str) {
    let replay = Replay::run(name);
    let mut bad = String::new();
    for (connection, expected) in &replay.expected {
        let theirs = replay.told(Some(expected), true);
        let ours = replay.told(replay.told.get(connection), false);
        // The trace may end before the server has said that somebody left, or its client before it has heard the echo.
        let is_end = |line: &String| {
            let ends = ["update", "leave \"CLIENT", "streamStateUpdate"];
            ends.iter().any(|end| line.starts_with(end))
        };
        let is_gone = |line: &String| {
            let who = line.split(' ').nth(1).unwrap_or_default();
            let ours = ours
                .iter()
                .find(|line| line.starts_with(&format!("update {who} ")));
            let is =
                |state: &str| ours.is_some_and(|line| line.ends_with(&format!("\"{state}\" []")));
            line.starts_with("update")
                && (is("DISCONNECTED") || is("ACTIVE") && !line.contains("ACTIVE"))
        };
        let missing: Vec<_> = theirs
            .iter()
            .filter(|l| !ours.contains(l) && !is_gone(l))
            .collect();
        let more: Vec<_> = ours
            .iter()
            .filter(|l| !theirs.contains(l) && !is_end(l))
            .collect();
        if !missing.is_empty() || !more.is_empty() {
            bad += &format!(
                "{name}, connection {connection}:\n  missing {missing:#?}\n  more {more:#?}\n"
            );
        }
    }
    assert!(bad.is_empty(), "{bad}");
}

#[test]
fn two_people() {
    compare("chrome-v0-two-people");
}

#[test]
fn two_people_of_pythons() {
    compare("python-v0-two-people");
}

#[test]
fn two_people_with_one_connection_each() {
    compare("chrome-v1-two-people");
    compare("python-v1-two-people");
}

#[test]
fn adaptive_stream_over_one_connection() {
    compare("chrome-v1-adaptive-dynacast");
}

#[test]
fn resumed_over_one_connection() {
    compare("chrome-v1-resume");
}

#[test]
fn the_same_identity_again_over_one_connection() {
    compare("chrome-v1-duplicate-identity");
}

#[test]
fn many_tracks_over_one_connection() {
    compare("chrome-v1-many-tracks");
}

#[test]
fn qualities() {
    compare("chrome-v0-quality-settings");
}

#[test]
fn adaptive_stream() {
    compare("chrome-v0-adaptive-dynacast");
}

#[test]
fn resumed() {
    compare("chrome-v0-resume");
}

#[test]
fn resumed_by_python() {
    compare("python-v0-resume");
}

#[test]
fn the_same_identity_again() {
    compare("chrome-v0-duplicate-identity");
    compare("python-v0-duplicate-identity");
}

#[test]
fn many_tracks() {
    compare("chrome-v0-many-tracks");
}

#[test]
fn the_load_tool() {
    compare("lk-load-test");
}

#[test]
fn applications_administer_a_room() {
    compare("chrome-v0-server-api");
}

#[test]
fn calls_without_anybody_there() {
    assert!(Replay::run("twirp-raw").calls > 8);
}
