// SPDX-License-Identifier: MPL-2.0

//! Who joins rooms: by tokens of the rooms' own keys, and by nothing else.

use sfu_access::{Action, make_room_token};
use sfu_access_rows::{grants, wrong};

use super::{NAME, RULES, STRANGER, Served};

const KEY: &str = "key";
const ROOM_SECRET: &str = "rooms-have-secrets-of-their-own-32";
const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
];

fn served(test: &str) -> Served {
    let keys = format!("{KEY}:{ROOM_SECRET}");
    let properties = [
        ("trusted-proxies", "127.0.0.1"),
        ("server-names", NAME),
        ("api-keys", keys.as_str()),
    ];
    Served::new(test, Some(RULES), &properties)
}

fn token(key: &str, secret: &str, who: (&str, &str, &str), seconds: i64) -> String {
    let now = std::time::SystemTime::now();
    let span = std::time::Duration::from_secs(seconds.unsigned_abs());
    let until = if seconds < 0 { now - span } else { now + span };
    make_room_token((key, secret), who, until).unwrap()
}

#[test]
fn rooms_let_in_by_their_own_keys_alone() {
    let served = served("rooms");
    let who = ("meeting", "ann", "");
    let mut rows = vec![
        (
            "expired",
            token(KEY, ROOM_SECRET, who, -100),
            "token is expired",
        ),
        (
            "another key",
            token("other", ROOM_SECRET, who, 60),
            "not known",
        ),
        (
            "another secret",
            token(KEY, &"x".repeat(34), who, 60),
            "signature is invalid",
        ),
        (
            "no room",
            token(KEY, ROOM_SECRET, ("", "ann", ""), 60),
            "permissions denied",
        ),
        (
            "nobody",
            token(KEY, ROOM_SECRET, ("meeting", "", ""), 60),
            "permissions denied",
        ),
        (
            "no token",
            "x.y.z".to_owned(),
            "invalid authorization token",
        ),
        ("nothing", String::new(), "no permissions"),
    ];
    // What lets in elsewhere, and what lets in nowhere.
    let all: Vec<_> = Action::ALL.into_iter().collect();
    let right = sfu_access_rows::token(sfu_access_rows::SECRET, &grants(&all, "*"), 60);
    rows.push(("all that the access file knows", right, ""));
    rows.extend(
        wrong(&all, "*")
            .into_iter()
            .map(|(what, shown)| (what, shown, "")),
    );
    for (what, shown, words) in rows {
        for path in ["/rtc", "/rtc/validate", "/rtc/v1", "/rtc/v1/validate"] {
            let bearer = format!("Bearer {shown}");
            for (query, fields) in [
                (
                    format!("?access_token={shown}&auto_subscribe=1"),
                    &[STRANGER][..],
                ),
                (String::new(), &[STRANGER, ("Authorization", &bearer)]),
            ] {
                let fields = [fields, &UPGRADE].concat();
                let (status, answer) = served.ask("GET", &format!("{path}{query}"), NAME, &fields);
                assert_eq!(status, 401, "{path} with {what}: {answer}");
                assert!(answer.contains(words), "{path} with {what}: {answer}");
                assert!(shown.is_empty() || !answer.contains(&shown), "{answer}");
            }
        }
    }
    let good = token(KEY, ROOM_SECRET, who, 60);
    let path = format!("/rtc/validate?access_token={good}");
    for fields in [
        &[STRANGER][..],
        &[STRANGER, ("Origin", "https://app.example")],
    ] {
        let (status, answer) = served.ask("GET", &path, NAME, fields);
        assert_eq!(status, 200, "{answer}");
        assert!(answer.ends_with("success"), "{answer}");
    }
    // Who is let in and speaks no WebSocket.
    let (status, answer) = served.ask(
        "GET",
        &format!("/rtc?access_token={good}"),
        NAME,
        &[STRANGER],
    );
    assert_eq!(status, 426, "{answer}");
}

/// By the file that `./sfu run` writes, where everybody may look on.
#[test]
fn an_invitation_lets_take_part_where_everybody_may_look_on() {
    let folder = std::env::temp_dir().join(format!("sfu-invited-{}", std::process::id()));
    let access = folder.join("access");
    sfu_access::store::first_start(&access).unwrap();
    let secret = std::fs::read_to_string(folder.join("tokens.secret")).unwrap();
    let keys = format!("{KEY}:{ROOM_SECRET}");
    let properties = [
        ("trusted-proxies", "127.0.0.1"),
        ("api-keys", keys.as_str()),
        ("access", access.to_str().unwrap()),
    ];
    let served = Served::new("invited", None, &properties);
    let both = grants(&[Action::Play, Action::Publish], "meeting");
    let by = |grants: &sfu_access::Grants, seconds| {
        sfu_access_rows::token(secret.trim(), grants, seconds)
    };
    let enter = |what: &str, shown: &str, expected: u16, words: &str| {
        let path = "/rtc/guest/meeting";
        for (path, bearer) in [
            (format!("{path}?token={shown}"), String::new()),
            (path.to_owned(), format!("Bearer {shown}")),
        ] {
            let json = ("Content-Type", "application/json");
            let fields = [STRANGER, json, ("Authorization", &bearer)];
            let (status, answer) = served.send("POST", &path, NAME, &fields, r#"{"name": "Ann"}"#);
            assert_eq!(status, expected, "{what}: {answer}");
            assert!(answer.contains(words), "{what}: {answer}");
        }
    };
    let (takes_part, looks_on) = (r#""canPublish":true"#, r#""canPublish":false"#);
    enter("nothing", "", 404, "nobody is in this room yet");
    enter("an invitation", &by(&both, 60), 200, takes_part);
    let sign: sfu_rooms::Keys = keys.parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let video = serde_json::json!({"roomCreate": true});
    let claims =
        serde_json::json!({"iss": KEY, "nbf": 0, "exp": now + 60, "sub": "app", "video": video});
    let admin = sign.sign(&serde_json::from_value(claims).unwrap()).unwrap();
    let create = served.send(
        "POST",
        "/twirp/livekit.RoomService/CreateRoom",
        NAME,
        &[
            STRANGER,
            ("Content-Type", "application/json"),
            ("Authorization", &format!("Bearer {admin}")),
        ],
        r#"{"name": "meeting"}"#,
    );
    assert_eq!(create.0, 200, "{}", create.1);
    enter("nothing, and somebody is there", "", 200, looks_on);
    enter("an invitation", &by(&both, 60), 200, takes_part);
    let play = grants(&[Action::Play], "meeting");
    enter("for looking on", &by(&play, 60), 200, looks_on);
    let other = grants(&[Action::Play, Action::Publish], "other");
    enter("to another room", &by(&other, 60), 200, looks_on);
    enter("an old invitation", &by(&both, -1), 401, "expired");
    let forged = sfu_access_rows::token(&"x".repeat(32), &both, 60);
    enter("one of another server", &forged, 401, "entering meeting: ");
    enter("a word", "let-me-in", 401, "none of this server's keys");
    let _ = std::fs::remove_dir_all(&folder);
}

/// A browser sees why it was refused by CORS alone.
#[test]
fn by_v1_what_a_client_says_of_itself_is_one_message() {
    let served = served("versions");
    let who = ("meeting", "ann", "Ann");
    let good = token(KEY, ROOM_SECRET, who, 60);
    // A message with nothing in it, one that is none, and none.
    for (request, expected) in [
        ("&join_request=EgA", 200),
        ("&join_request=%25", 400),
        ("", 400),
    ] {
        let path = format!("/rtc/v1/validate?access_token={good}{request}");
        let fields = [STRANGER, ("Origin", "https://app.example")];
        let (status, answer) = served.ask("GET", &path, NAME, &fields);
        assert_eq!(status, expected, "{request}: {answer}");
        assert!(
            answer.contains("access-control-allow-origin: *"),
            "{answer}"
        );
    }
    let path = format!("/rtc/v1?access_token={good}&join_request=EgA");
    let (status, answer) = served.ask("GET", &path, NAME, &[STRANGER]);
    assert_eq!(status, 426, "{answer}");
}

/// What administers rooms lets in by grants of the rooms' keys, each for its method and its room.
#[test]
fn rooms_are_administered_by_grants_of_their_own_keys_alone() {
    let served = served("administers");
    let keys: sfu_rooms::Keys = format!("{KEY}:{ROOM_SECRET}").parse().unwrap();
    let wrong: sfu_rooms::Keys = format!("{KEY}:{}", "x".repeat(34)).parse().unwrap();
    let sign = |keys: &sfu_rooms::Keys, video: serde_json::Value| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = serde_json::json!({"iss": KEY, "nbf": 0, "exp": now + 60, "sub": "app", "video": video});
        keys.sign(&serde_json::from_value(claims).unwrap()).unwrap()
    };
    let call = |method: &str, token: Option<&str>, body: &str| {
        let path = format!("/twirp/livekit.RoomService/{method}");
        let bearer = token
            .map(|token| format!("Bearer {token}"))
            .unwrap_or_default();
        let mut fields = vec![STRANGER, ("Content-Type", "application/json")];
        fields.extend(token.map(|_| ("Authorization", bearer.as_str())));
        served.send("POST", &path, NAME, &fields, body)
    };
    let (create, list, admin) = (
        serde_json::json!({"roomCreate": true}),
        serde_json::json!({"roomList": true}),
        serde_json::json!({"roomAdmin": true, "room": "a"}),
    );
    let join = serde_json::json!({"roomJoin": true, "room": "a"});
    let all = [&create, &list, &admin, &join];
    for (method, body, right) in [
        ("CreateRoom", r#"{"name": "a"}"#, &create),
        ("ListRooms", "{}", &list),
        ("ListParticipants", r#"{"room": "a"}"#, &admin),
        (
            "GetParticipant",
            r#"{"room": "a", "identity": "x"}"#,
            &admin,
        ),
        (
            "RemoveParticipant",
            r#"{"room": "a", "identity": "x"}"#,
            &admin,
        ),
        (
            "MutePublishedTrack",
            r#"{"room": "a", "identity": "x"}"#,
            &admin,
        ),
        (
            "UpdateParticipant",
            r#"{"room": "a", "identity": "x"}"#,
            &admin,
        ),
        (
            "UpdateSubscriptions",
            r#"{"room": "a", "identity": "x"}"#,
            &admin,
        ),
        ("SendData", r#"{"room": "a"}"#, &admin),
        ("UpdateRoomMetadata", r#"{"room": "a"}"#, &admin),
        ("DeleteRoom", r#"{"room": "a"}"#, &create),
    ] {
        for grants in all {
            let (status, answer) = call(method, Some(&sign(&keys, grants.clone())), body);
            assert_eq!(
                status != 401,
                grants == right,
                "{method} with {grants}: {answer}"
            );
        }
        let other = body.replace(r#""room": "a""#, r#""room": "b""#);
        if right == &admin {
            let (status, answer) = call(method, Some(&sign(&keys, admin.clone())), &other);
            assert_eq!(status, 401, "{method} of another room: {answer}");
        }
        let forged = sign(&wrong, right.clone());
        let strangers =
            sfu_access_rows::token(sfu_access_rows::SECRET, &grants(&Action::ALL, "*"), 60);
        for token in [None, Some("x.y.z"), Some(&forged), Some(&strangers)] {
            let (status, answer) = call(method, token, body);
            assert_eq!(status, 401, "{method} with {token:?}: {answer}");
        }
    }
    let right = sign(&keys, list);
    let (status, answer) = call("Nope", Some(&right), "{}");
    assert!(status == 404 && answer.contains("bad_route"), "{answer}");
    let (status, answer) = call("ListRooms", Some(&right), "{");
    assert!(status == 400 && answer.contains("malformed"), "{answer}");
}
