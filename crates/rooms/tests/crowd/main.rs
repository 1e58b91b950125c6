// SPDX-License-Identifier: MPL-2.0

//! What one client may cost all others: many participants, and messages that ask for much.

#![allow(deprecated)]

mod permissions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use sfu_rooms::proto::request_response::Reason;
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{
    self, AddTrackRequest, DataPacket, SessionDescription, SimulcastCodec, SubscriptionPermission,
    TrackPermission, TrackSource, TrackType, UpdateParticipantMetadata, UpdateSubscription,
    UpdateTrackSettings, UpdateVideoLayers, UserPacket, VideoLayer, data_packet,
};
use sfu_rooms::{
    Command, Config, Connection, Found, Hello, Keys, Limits, Negotiated, Output, Permit, Rooms, Sid,
};

const AT: u64 = 1_800_000_000;

/// Rooms whose clients answer each offer, with media that does as it is told.
struct Crowd {
    rooms: Rooms,
    now: Instant,
    told: BTreeMap<u64, Vec<Told>>,
    closed: BTreeSet<u64>,
    /// Of each connection.
    sids: BTreeMap<u64, Sid>,
    offered: BTreeMap<Sid, Vec<Option<Sid>>>,
    /// How often media was told something.
    commands: usize,
}

fn permit(identity: &str) -> Permit {
    let claims = json!({
        "iss": "key", "sub": identity, "exp": AT + 600,
        "video": {"roomJoin": true, "room": "r", "canUpdateOwnMetadata": true},
    });
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let keys: Keys = "key:secret".parse().unwrap();
    keys.permit(&token, AT, &Limits::default()).unwrap()
}

fn add(cid: &str) -> AddTrackRequest {
    AddTrackRequest {
        cid: cid.into(),
        r#type: TrackType::Video.into(),
        source: TrackSource::Camera.into(),
        ..AddTrackRequest::default()
    }
}

impl Crowd {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let config = Config {
            limits,
            empty_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        Self {
            rooms: Rooms::new(config, now, SystemTime::now()),
            now,
            told: BTreeMap::new(),
            closed: BTreeSet::new(),
            sids: BTreeMap::new(),
            offered: BTreeMap::new(),
            commands: 0,
        }
    }

    /// Returns whether it was let in.
    fn join(&mut self, connection: u64, identity: &str) -> bool {
        self.join_with(connection, identity, &[])
    }

    /// The same, with what it says of itself.
    fn join_with(&mut self, connection: u64, identity: &str, query: &[(&str, &str)]) -> bool {
        let hello = Hello::from_query(query.iter().copied()).unwrap();
        let joined = self
            .rooms
            .join(self.now, Connection(connection), permit(identity), hello);
        let sid = joined.ok().flatten();
        let is_in = sid.is_some();
        self.sids.extend(sid.map(|sid| (connection, sid)));
        self.settle();
        is_in
    }

    fn ask(&mut self, connection: u64, asked: Asked) {
        self.rooms.receive(self.now, Connection(connection), asked);
        self.settle();
    }

    /// Announces tracks with these names, and offers them instead of what there was.
    fn publish(&mut self, connection: u64, new: &[&str], all: &[&str]) {
        for cid in new {
            self.ask(connection, Asked::AddTrack(add(cid)));
        }
        let offer = SessionDescription {
            sdp: all.join(" "),
            ..SessionDescription::default()
        };
        self.ask(connection, Asked::Offer(offer));
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.rooms.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.rooms.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        while let Some(output) = self.rooms.poll() {
            match output {
                Output::Send(connection, message) => self.hear(connection, *message),
                Output::Tell(to, message) => {
                    for connection in to {
                        self.hear(connection, (*message).clone());
                    }
                }
                Output::Refresh(_) | Output::Event(_) => {}
                Output::Close(Connection(connection)) => {
                    self.closed.insert(connection);
                }
                Output::Media(command) => self.obey(command),
            }
        }
    }

    fn hear(&mut self, connection: Connection, message: Told) {
        if let Told::Offer(offer) = &message {
            let answer = SessionDescription {
                id: offer.id,
                ..SessionDescription::default()
            };
            let answer = Asked::Answer(answer);
            self.rooms.receive(self.now, connection, answer);
        }
        self.told.entry(connection.0).or_default().push(message);
    }

    fn obey(&mut self, command: Command) {
        self.commands += 1;
        let (who, outcome) = match command {
            Command::Answer {
                participant,
                offer,
                expected,
            } => {
                let found = offer.sdp.split_whitespace().filter_map(|cid| {
                    let known = expected.iter().find(|e| e.cids.iter().any(|c| c == cid));
                    Some(Found {
                        track: known?.track.clone(),
                        cid: cid.into(),
                        mid: cid.into(),
                        mime: "video/VP8".into(),
                        rids: Vec::new(),
                    })
                });
                let (sdp, tracks) = (String::new(), found.collect());
                (participant, Negotiated::Answered { sdp, tracks })
            }
            Command::Offer {
                participant,
                sections,
                ..
            } => {
                let mids = (0..sections.len()).map(|n| n.to_string()).collect();
                let tracks = sections.into_iter().map(|s| Some(s.track?.0)).collect();
                self.offered.insert(participant.clone(), tracks);
                let sdp = String::new();
                (participant, Negotiated::Offered { sdp, mids })
            }
            Command::Accept { participant, .. } => {
                (participant, Negotiated::Connected { publisher: false })
            }
            _ => return,
        };
        self.rooms.negotiated(self.now, who.as_str(), outcome);
    }

    /// The tracks that a client is offered, and how many m-lines it has.
    fn gets(&self, connection: u64) -> (BTreeSet<Sid>, usize) {
        let offered = &self.offered[&self.sids[&connection]];
        (offered.iter().flatten().cloned().collect(), offered.len())
    }

    /// Which tracks a client was told that it may have, or may not, since this was asked last.
    fn take_permissions(&mut self, connection: u64) -> Vec<bool> {
        let told = std::mem::take(self.told.entry(connection).or_default());
        let permissions = told.into_iter().filter_map(|told| match told {
            Told::SubscriptionPermissionUpdate(update) => Some(update.allowed),
            _ => None,
        });
        permissions.collect()
    }

    /// The newest that a client knows of its track.
    fn track(&self, connection: u64) -> proto::TrackInfo {
        let published = self.told[&connection].iter().rev();
        let mut published = published.filter_map(|told| match told {
            Told::TrackPublished(published) => published.track.clone(),
            _ => None,
        });
        published.next().unwrap()
    }
}

#[test]
fn tracks_without_an_m_line_wait_for_one_and_nobody_has_to_go() {
    let limits = Limits {
        offered: 3,
        ..Limits::default()
    };
    let mut crowd = Crowd::new(limits);
    assert!(crowd.join(1, "ann") && crowd.join(2, "ben") && crowd.join(3, "carl"));
    crowd.publish(1, &["a", "b"], &["a", "b"]);
    crowd.publish(2, &["c", "d", "e"], &["c", "d", "e"]);
    crowd.run_for(Duration::from_secs(2));
    // Who was there before, and who comes later.
    assert!(crowd.join(4, "dora"));
    crowd.run_for(Duration::from_secs(2));
    for connection in [3, 4] {
        let (before, lines) = crowd.gets(connection);
        assert_eq!((before.len(), lines), (3, 3), "of five");
    }
    // One of the five ends, then another.
    for left in [&["b"][..], &[]] {
        crowd.publish(1, &[], left);
        crowd.run_for(Duration::from_secs(2));
        for connection in [3, 4] {
            assert_eq!(crowd.gets(connection).1, 3);
            assert_eq!(crowd.gets(connection).0.len(), 3, "{left:?}");
        }
    }
    // Who takes less has room for another; what it gave up by itself does not come back.
    let gone = crowd.gets(3).0.first().unwrap().to_string();
    let subscription = UpdateSubscription {
        track_sids: vec![gone],
        subscribe: false,
        ..UpdateSubscription::default()
    };
    crowd.ask(3, Asked::Subscription(subscription));
    crowd.run_for(Duration::from_secs(2));
    assert_eq!(crowd.gets(3).0.len(), 2);
    crowd.publish(1, &["f"], &["f"]);
    crowd.run_for(Duration::from_secs(2));
    assert_eq!(crowd.gets(3).0.len(), 3);
    assert!(crowd.closed.is_empty(), "{:?}", crowd.closed);
}

/// There are far more than are kept of what waits: as tracks end, others come, until all that is left is there.
#[test]
fn of_many_that_wait_none_is_forgotten() {
    let limits = Limits {
        offered: 3,
        ..Limits::default()
    };
    let mut crowd = Crowd::new(limits);
    assert!(crowd.join(1, "ann") && crowd.join(2, "ben"));
    let names: Vec<_> = (0..14).map(|n| format!("c{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    crowd.publish(1, &names, &names);
    crowd.run_for(Duration::from_secs(2));
    assert!(crowd.join(3, "carl"));
    crowd.run_for(Duration::from_secs(2));
    // One that it does not want.
    let unwanted = crowd.gets(3).0.first().unwrap().clone();
    let subscription = UpdateSubscription {
        track_sids: vec![unwanted.to_string()],
        subscribe: false,
        ..UpdateSubscription::default()
    };
    crowd.ask(3, Asked::Subscription(subscription));
    for left in (3..14).rev() {
        crowd.publish(1, &[], &names[14 - left..]);
        crowd.run_for(Duration::from_secs(2));
        for connection in [2, 3] {
            let (gets, lines) = crowd.gets(connection);
            assert!(lines <= 3);
            let most = match connection == 3 && left == 3 {
                // The unwanted one may be among these.
                true => 2,
                false => 3,
            };
            assert!(gets.len() >= most, "{connection} gets {gets:?} of {left}");
            assert!(connection == 2 || !gets.contains(&unwanted));
        }
    }
}

#[test]
fn who_joins_all_the_time_is_held_and_nobody_else_is() {
    let mut crowd = Crowd::new(Limits::default());
    assert!(crowd.join(1, "ann"));
    crowd.run_for(Duration::from_secs(1));
    let before = crowd.told[&1].len();
    let joined = (10..1_010).filter(|n| crowd.join(*n, "eve")).count();
    assert_eq!(joined, 20);
    assert!(
        crowd.told[&1].len() - before <= 4 * joined,
        "what others hear of it"
    );
    assert!(crowd.join(2, "ben"));
    assert!(!crowd.closed.contains(&1));
    // One more each two seconds, and after a while as many as at first.
    for (n, wait, most) in [(2_000, 2, 1), (3_000, 4, 2), (4_000, 60, 20)] {
        crowd.run_for(Duration::from_secs(wait));
        let joined = (n..n + 100).filter(|n| crowd.join(*n, "eve")).count();
        assert_eq!(joined, most, "after {wait} s");
    }
    // Thousands of names leave nothing that grows for ever: those whose time is over are forgotten.
    for n in 0..5_000 {
        assert!(crowd.join(10_000 + n, "one of a few"), "{n}");
        crowd.run_for(Duration::from_secs(3));
    }
}

#[test]
fn what_others_are_told_of_a_track_is_bounded() {
    let mut crowd = Crowd::new(Limits::default());
    assert!(crowd.join(1, "ann"));
    crowd.publish(1, &["a"], &["a"]);
    let sid = crowd.track(1).sid;
    let layer = VideoLayer {
        rid: "ä".repeat(50_000),
        ..VideoLayer::default()
    };
    for n in 0..1_000 {
        let more = AddTrackRequest {
            sid: sid.clone(),
            layers: vec![layer.clone()],
            simulcast_codecs: vec![SimulcastCodec {
                codec: format!("codec{n}"),
                layers: vec![layer.clone()],
                ..SimulcastCodec::default()
            }],
            ..add("a")
        };
        crowd.ask(1, Asked::AddTrack(more));
    }
    let layers = UpdateVideoLayers {
        track_sid: sid,
        layers: vec![layer; 4],
    };
    crowd.ask(1, Asked::UpdateLayers(layers));
    assert!(crowd.join(2, "ben"));
    let join = crowd.told[&2].iter().find_map(|told| match told {
        Told::Join(join) => Some(join.clone()),
        _ => None,
    });
    let track = &join.unwrap().other_participants[0].tracks[0];
    assert!(track.codecs.len() <= 4, "{}", track.codecs.len());
    assert!(format!("{track:?}").len() < 16 * 1_024);
}

/// Tracks as they are announced: kind, simulcast layers, and the ids of their codecs.
#[test]
fn no_more_is_announced_than_an_offer_may_have() {
    let track = |kind: TrackType, layers: usize, codecs: &[(&str, &str)]| AddTrackRequest {
        r#type: kind.into(),
        layers: vec![VideoLayer::default(); layers],
        simulcast_codecs: codecs
            .iter()
            .map(|(codec, cid)| SimulcastCodec {
                codec: (*codec).into(),
                cid: (*cid).into(),
                ..SimulcastCodec::default()
            })
            .collect(),
        ..add("a")
    };
    let (audio, video) = (TrackType::Audio, TrackType::Video);
    let both = [("vp8", "a"), ("h264", "b")];
    let announced = [("vp9", "a"), ("vp8", "")];
    for (name, track, most) in [
        ("sounds", track(audio, 0, &[]), 16),
        ("cameras", track(video, 0, &[]), 16),
        ("cameras of two layers", track(video, 2, &[]), 16),
        ("cameras of three layers", track(video, 3, &[]), 10),
        ("two codecs of one layer", track(video, 1, &both), 8),
        ("two codecs of three layers", track(video, 3, &both), 5),
        // All its layers are one stream, and the backup is announced for later.
        ("VP9 and a backup", track(video, 3, &announced), 16),
    ] {
        let mut crowd = Crowd::new(Limits::default());
        assert!(crowd.join(1, "ann"));
        for _ in 0..20 {
            crowd.ask(1, Asked::AddTrack(track.clone()));
        }
        let told = &crowd.told[&1];
        let taken = told
            .iter()
            .filter(|told| matches!(told, Told::TrackPublished(_)));
        assert_eq!(taken.count(), most, "{name}");
        let refused = told.iter().filter(|told| match told {
            Told::RequestResponse(response) => response.reason() == Reason::LimitExceeded,
            _ => false,
        });
        assert_eq!(refused.count(), 20 - most, "{name}");
    }
    // A backup of one that is there is no track, but an m-line with layers of its own.
    let mut crowd = Crowd::new(Limits::default());
    assert!(crowd.join(1, "ann"));
    let mut sids = Vec::new();
    for _ in 0..16 {
        crowd.ask(1, Asked::AddTrack(track(video, 1, &announced)));
        sids.push(crowd.track(1).sid);
    }
    let answers = |crowd: &mut Crowd, sid: &str, codec: &str, cid: &str| {
        crowd.told.clear();
        let mut backup = track(video, 1, &[(codec, cid)]);
        backup.sid = sid.to_owned();
        crowd.ask(1, Asked::AddTrack(backup));
        matches!(crowd.told[&1][0], Told::TrackPublished(_))
    };
    assert!(
        !answers(&mut crowd, &sids[0], "vp8", "b"),
        "all m-lines are taken"
    );
    assert!(answers(&mut crowd, &sids[0], "vp9", "a"), "what it has");
    let mut crowd = Crowd::new(Limits::default());
    assert!(crowd.join(1, "ann"));
    for _ in 0..15 {
        crowd.ask(1, Asked::AddTrack(track(video, 1, &announced)));
    }
    let sid = crowd.track(1).sid;
    assert!(answers(&mut crowd, &sid, "vp8", "b"));
    assert!(!answers(&mut crowd, "", "vp8", "c"), "a further track");
}

#[test]
fn many_changes_become_few_messages_and_the_last_one_is_told() {
    let mut crowd = Crowd::new(Limits::default());
    for n in 0..25 {
        assert!(crowd.join(n, &format!("p{n}")));
    }
    crowd.run_for(Duration::from_secs(10));
    let update = |key: &str, value: String| UpdateParticipantMetadata {
        attributes: [(key.to_owned(), value)].into(),
        ..UpdateParticipantMetadata::default()
    };
    let large = UpdateParticipantMetadata {
        metadata: "x".repeat(60_000),
        ..update("large", "x".repeat(60_000))
    };
    crowd.ask(0, Asked::UpdateMetadata(large));
    crowd.told.clear();
    // A few octets that change bring all of it to everybody, 500 times in ten seconds.
    for n in 0..500 {
        crowd.ask(0, Asked::UpdateMetadata(update("n", n.to_string())));
        crowd.run_for(Duration::from_millis(20));
        (0..25).for_each(|n| crowd.ask(n, Asked::Ping(0)));
    }
    crowd.run_for(Duration::from_secs(10));
    let told = &crowd.told[&7];
    let size = |told: &Told| match told {
        Told::Update(update) => format!("{update:?}").len(),
        _ => 0,
    };
    let octets: usize = told.iter().map(size).sum();
    // Ten seconds of 50 MB, and one at once, for each of 25; not 60 MB.
    assert!(octets < 25_000_000, "{octets}");
    let last = told.iter().rev().find_map(|told| match told {
        Told::Update(update) => update.participants[0].attributes.get("n").cloned(),
        _ => None,
    });
    assert_eq!(last.as_deref(), Some("499"));
    // All texts of a room have a bound, and each participant room within it.
    let (mut crowd, mut refused) = (Crowd::new(Limits::default()), 0);
    for n in 0..200 {
        assert!(crowd.join(n, &format!("p{n}")));
        let large = update("large", "x".repeat(60_000));
        crowd.ask(n, Asked::UpdateMetadata(large.clone()));
        crowd.ask(n, Asked::UpdateMetadata(large));
        let refusals = crowd.told[&n].iter().filter(|told| match told {
            Told::RequestResponse(response) => response.reason() == Reason::LimitExceeded,
            _ => false,
        });
        refused += refusals.count();
    }
    let most = Limits::default().texts / 60_005;
    assert_eq!(refused, 2 * (200 - most));
}

#[test]
fn messages_that_name_much_cost_little_in_a_large_room() {
    let mut crowd = Crowd::new(Limits::default());
    let names: Vec<_> = (0..16).map(|n| format!("c{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for n in 0..300 {
        assert!(crowd.join(n, &format!("p{n}")));
    }
    for n in 0..20 {
        crowd.publish(n, &names, &names);
    }
    crowd.run_for(Duration::from_secs(10));
    let sids = || (0..20_000).map(|n| format!("{n:04x}")).collect::<Vec<_>>();
    let setting = UpdateTrackSettings {
        track_sids: sids(),
        ..UpdateTrackSettings::default()
    };
    let subscription = UpdateSubscription {
        track_sids: sids(),
        subscribe: true,
        ..UpdateSubscription::default()
    };
    let one = |identity: String| TrackPermission {
        participant_identity: identity,
        all_tracks: true,
        ..TrackPermission::default()
    };
    let permission = SubscriptionPermission {
        all_participants: false,
        track_permissions: sids().into_iter().map(one).collect(),
    };
    let user = UserPacket {
        destination_sids: sids(),
        ..UserPacket::default()
    };
    let packet = DataPacket {
        destination_identities: sids(),
        value: Some(data_packet::Value::User(user)),
        ..DataPacket::default()
    };
    let packet = sfu_rooms::wire::data(&packet);
    assert!(packet.len() <= Limits::default().message);
    let began = Instant::now();
    for _ in 0..20 {
        crowd.ask(0, Asked::TrackSetting(setting.clone()));
        crowd.ask(0, Asked::Subscription(subscription.clone()));
        crowd.ask(0, Asked::SubscriptionPermission(permission.clone()));
        let sid = crowd.sids[&0].clone();
        crowd.rooms.data(crowd.now, sid.as_str(), true, &packet);
        crowd.settle();
        for n in 0..300 {
            crowd.ask(n, Asked::Ping(0));
        }
    }
    // Some 0.8 s on a quiet machine; each of these took seconds where all tracks of the room were gone through for each name.
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert!(crowd.closed.is_empty());
}
