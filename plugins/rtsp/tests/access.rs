// SPDX-License-Identifier: MPL-2.0
//! Who may watch by RTSP, by the rules of the access file. Who may gets 404 of a stream that is not there, and everybody else
//! is not told even that. That players play so is in `tests/e2e/rtsp_out.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use sfu_access::{Access, Action, ha1, hash_password};
use sfu_access_rows::{KEY, SECRET, grants, made_up, token, wrong};

struct Served {
    element: gst::Element,
    folder: PathBuf,
    port: u16,
}

impl Served {
    fn new(test: &str, rules: Option<&str>, auth: &str) -> Self {
        gst::init().unwrap();
        // Tests of one process register them more than once.
        let _ = gstsfu::plugin_register_static();
        let _ = gstsfurtsp::plugin_register_static();
        let folder = std::env::temp_dir().join(format!("sfu-rtsp-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("secret"), SECRET).unwrap();
        fs::write(folder.join("key"), KEY).unwrap();
        let element = gst::ElementFactory::make("sfurtspserver").build().unwrap();
        element.set_property("listen", "127.0.0.1:0");
        element.set_property("router", test);
        element.set_property_from_str("auth", auth);
        if let Some(rules) = rules {
            fs::write(folder.join("access"), rules).unwrap();
            element.set_property("access", folder.join("access").to_str().unwrap());
        }
        element.set_state(gst::State::Playing).unwrap();
        let port = u16::try_from(element.property::<u32>("port")).unwrap();
        Self {
            element,
            folder,
            port,
        }
    }

    fn rewrite(&self, rules: &str) {
        fs::write(self.folder.join("new"), rules).unwrap();
        fs::rename(self.folder.join("new"), self.folder.join("access")).unwrap();
    }

    fn connect(&self) -> Player {
        let connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let patience = Some(Duration::from_secs(20));
        connection.set_read_timeout(patience).unwrap();
        Player {
            connection,
            port: self.port,
        }
    }

    /// Asks once, on a connection of its own.
    fn ask(&self, path: &str, authorization: &str) -> (u16, String) {
        self.connect().ask("DESCRIBE", path, authorization).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let began = Instant::now();
        self.element.set_state(gst::State::Null).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "it hangs");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Player {
    connection: TcpStream,
    port: u16,
}

impl Player {
    /// The answer's status, and its head; nothing where the connection was closed.
    fn ask(&mut self, method: &str, path: &str, authorization: &str) -> Option<(u16, String)> {
        let uri = format!("rtsp://127.0.0.1:{}{path}", self.port);
        let field = match authorization {
            "" => String::new(),
            value => format!("Authorization: {value}\r\n"),
        };
        let request = format!("{method} {uri} RTSP/1.0\r\nCSeq: 1\r\n{field}\r\n");
        self.connection.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            match self.connection.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(read) => answer.extend(&buffer[..read]),
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    /// Until the server closes the connection.
    fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.connection.set_read_timeout(Some(limit)).unwrap();
        matches!(self.connection.read(&mut [0; 64]), Ok(0))
    }
}

fn basic(user: &str, password: &str) -> String {
    let text = format!("{user}:{password}");
    format!("Basic {}", glib::base64_encode(text.as_bytes()))
}

/// As RFC 2617 says it without `qop`.
fn digest(head: &str, user: &str, password: &str, method: &str, uri: &str) -> String {
    let md5 = |text: String| {
        let sum = glib::compute_checksum_for_string(glib::ChecksumType::Md5, &text);
        sum.unwrap().to_string()
    };
    let nonce = head.split_once("nonce=\"").unwrap().1;
    let nonce = nonce.split_once('"').unwrap().0;
    let secret = md5(format!("{user}:gst-sfu:{password}"));
    let response = md5(format!(
        "{secret}:{nonce}:{}",
        md5(format!("{method}:{uri}"))
    ));
    format!(
        "Digest username=\"{user}\", realm=\"gst-sfu\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
    )
}

#[test]
fn nobody_gets_in_by_what_is_not_right() {
    let served = Served::new(
        "matrix",
        Some("loopback\ntokens secret\nkey key play=cam1\n"),
        "both",
    );
    let needed = [Action::Play];
    let each_way = |what: &str, shown: &str, let_in: bool| {
        for (path, authorization) in [
            ("/cam1".to_owned(), basic("me", shown)),
            ("/cam1?layer=lowest".to_owned(), basic("", shown)),
            (format!("/cam1?token={shown}"), String::new()),
            (format!("/cam1?layer=lowest&token={shown}"), String::new()),
            (format!("/cam1/layer=lowest?token={shown}"), String::new()),
            (format!("/cam1?user=me&pass={shown}"), String::new()),
        ] {
            let (status, answer) = served.ask(&path, &authorization);
            let what = format!("{what}: {path} {authorization} {answer}");
            assert_eq!(status == 404, let_in, "{what}");
            assert!(let_in || [401, 403].contains(&status), "{what}");
            if status == 401 {
                assert!(
                    answer.contains("WWW-Authenticate: Basic realm=\"gst-sfu\""),
                    "{what}"
                );
                // A token answers no Digest.
                assert!(!answer.contains("Digest"), "{what}");
            }
        }
    };
    for (what, shown) in wrong(&needed, "cam1") {
        each_way(what, &shown, false);
    }
    each_way(
        "a right token",
        &token(SECRET, &grants(&needed, "cam1"), 60),
        true,
    );
    each_way("a key", KEY, true);
    // What there is, and all that is no stream, is told to nobody else.
    for path in ["/cam2", "/", "/cam1/stream=0", "/a/x=1"] {
        assert_eq!(served.ask(path, "").0, 401, "{path}");
    }
    let cam2 = format!("/cam2?token={KEY}");
    assert_eq!(served.ask(&cam2, "").0, 403);
    let (status, _) = served.connect().ask("OPTIONS", "/cam1", "").unwrap();
    assert_eq!(status, 200);
    for broken in [
        "Basic",
        "Basic %%%",
        "Basic bWU=",
        "Digest",
        "Digest nonce=x",
        "Bearer x",
        "\u{fffd}",
    ] {
        assert_eq!(served.ask("/cam1", broken).0, 401, "{broken}");
    }
}

#[test]
fn without_rules_everybody_may_watch() {
    let served = Served::new("default", None, "both");
    for authorization in ["", &basic("ann", "x"), "Digest nonce=x"] {
        assert_eq!(served.ask("/cam1", authorization).0, 404, "{authorization}");
    }
}

#[test]
fn digest_is_for_users_with_an_ha1() {
    let hash = hash_password("horse").unwrap();
    let with = format!("user ann {hash} play=cam1 ha1={}\n", ha1("ann", "horse"));
    let without = format!("user bob {hash} play=cam1\n");
    for (rules, auth, asks) in [
        (
            format!("loopback\n{with}"),
            "both",
            ["Digest", "Basic"].as_slice(),
        ),
        (format!("loopback\n{with}"), "digest", &["Digest"]),
        (format!("loopback\n{with}"), "basic", &["Basic"]),
        // Players that are asked for both would answer with Digest, which bob cannot.
        (format!("loopback\n{with}{without}"), "both", &["Basic"]),
        (format!("loopback\n{with}{without}"), "digest", &["Digest"]),
    ] {
        let served = Served::new("digest", Some(&rules), auth);
        let (status, head) = served.ask("/cam1", "");
        assert_eq!(status, 401);
        for scheme in ["Digest", "Basic"] {
            let asked = head.contains(&format!("WWW-Authenticate: {scheme}"));
            assert_eq!(asked, asks.contains(&scheme), "{auth} {rules}: {head}");
        }
        let by_basic = asks.contains(&"Basic");
        let expected = if by_basic { 404 } else { 401 };
        assert_eq!(served.ask("/cam1", &basic("ann", "horse")).0, expected);
        if !asks.contains(&"Digest") {
            continue;
        }
        let uri = format!("rtsp://127.0.0.1:{}/cam1", served.port);
        for (user, password, let_in) in [
            ("ann", "horse", true),
            ("ann", "cow", false),
            ("bob", "horse", false),
            ("eve", "horse", false),
        ] {
            let shown = digest(&head, user, password, "DESCRIBE", &uri);
            let (status, answer) = served.ask("/cam1", &shown);
            assert_eq!(status, if let_in { 404 } else { 401 }, "{user}: {answer}");
        }
        // A nonce that is not ours.
        let shown = digest("nonce=\"0-0\"", "ann", "horse", "DESCRIBE", &uri);
        assert_eq!(served.ask("/cam1", &shown).0, 401);
        // Guesses make an address wait, also for what is right.
        for n in 0..8 {
            served.ask(
                "/cam1",
                &digest(&head, "ann", &n.to_string(), "DESCRIBE", &uri),
            );
        }
        let right = digest(&head, "ann", "horse", "DESCRIBE", &uri);
        assert_eq!(served.ask("/cam1", &right).0, 503);
    }
}

#[test]
fn who_may_no_longer_is_disconnected() {
    let hash = hash_password("horse").unwrap();
    let user = format!("user ann {hash} play\n");
    let all = format!("loopback\ntokens secret\nkey key play\n{user}");
    let served = Served::new("ends", Some(&all), "both");
    let brief = token(SECRET, &grants(&[Action::Play], "cam1"), 5);
    let mut shown = [
        (format!("/cam1?token={brief}"), String::new()),
        (format!("/cam1?token={KEY}"), String::new()),
        ("/cam1".to_owned(), basic("ann", "horse")),
    ]
    .map(|(path, authorization)| {
        let mut player = served.connect();
        let (status, answer) = player.ask("DESCRIBE", &path, &authorization).unwrap();
        assert_eq!(status, 404, "{path}: {answer}");
        player
    });
    let [by_token, by_key, by_password] = &mut shown;
    let limit = Duration::from_secs(20);
    assert!(by_token.is_closed_within(limit));
    // What let the others in is still there.
    assert!(by_key.ask("OPTIONS", "/cam1", "").is_some());
    assert!(by_password.ask("OPTIONS", "/cam1", "").is_some());
    served.rewrite(&format!("loopback\n{user}"));
    assert!(by_key.is_closed_within(limit));
    assert!(by_password.ask("OPTIONS", "/cam1", "").is_some());
    served.rewrite("loopback\ntokens secret\n");
    assert!(by_password.is_closed_within(limit));
}

/// By the API of an element of another plugin, which has nothing in common with this one but the access file.
#[test]
fn a_token_that_another_element_took_back_ends_its_player() {
    let served = Served::new("taken-back", Some("loopback\ntokens secret\n"), "both");
    let claims = r#"{"exp":4102444800,"jti":"one","sfu":{"play":["cam1"]}}"#;
    let shown = made_up(r#"{"alg":"HS256"}"#, claims);
    let path = format!("/cam1?token={shown}");
    let mut player = served.connect();
    assert_eq!(player.ask("DESCRIBE", &path, "").unwrap().0, 404);
    let other = Access::open(Some(&served.folder.join("access"))).unwrap();
    assert!(other.revoke("one", None, SystemTime::now()));
    assert!(player.is_closed_within(Duration::from_secs(20)));
    assert_eq!(served.ask(&path, "").0, 401);
    assert!(other.restore("one"));
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(served.ask(&path, "").0, 404);
}

/// Also where nobody is there whose connection they could end.
#[test]
fn rules_that_change_while_nobody_is_there_hold_for_who_comes() {
    let served = Served::new("idle", Some("loopback\nanyone play\n"), "both");
    let with_key = basic("me", KEY);
    assert_eq!(served.ask("/cam1", "").0, 404);
    for (rules, by_nothing, by_key) in [
        ("loopback\n", 401, 401),
        ("loopback\nkey key play=cam1\n", 401, 404),
        ("loopback\nanyone play=cam1\n", 404, 404),
        ("loopback\nanyone play=cam2\n", 401, 401),
    ] {
        // The last one is gone, and the rules are looked at once a second.
        std::thread::sleep(Duration::from_millis(500));
        served.rewrite(rules);
        std::thread::sleep(Duration::from_millis(1_100));
        assert_eq!(served.ask("/cam1", "").0, by_nothing, "{rules}");
        assert_eq!(served.ask("/cam1", &with_key).0, by_key, "{rules}");
    }
}

/// One connection makes no list without end.
#[test]
fn streams_that_one_connection_looks_up_are_bounded() {
    let served = Served::new("bounded", None, "both");
    let mut player = served.connect();
    let statuses: Vec<_> = (0..40)
        .map(|n| player.ask("DESCRIBE", &format!("/cam{n}"), "").unwrap().0)
        .collect();
    assert_eq!(statuses.iter().filter(|s| **s == 404).count(), 32);
    assert!(statuses[32..].iter().all(|s| *s == 503), "{statuses:?}");
    // The first ones are known.
    assert_eq!(player.ask("DESCRIBE", "/cam0", "").unwrap().0, 404);
}
