// SPDX-License-Identifier: MPL-2.0

//! Every route, as strangers and friends ask for it: made from the table of routes, so that a new one is asked for, too.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gst::prelude::*;
use sfu_access::{Action, Grants, make_token};
use sfu_engine::{Feedback, PublishOptions};

use super::Rule;
use crate::signaller::routes::{ROUTES, Route};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "a-key-that-nobody-guesses";
const NAME: &str = "sfu.example";
/// A stranger, as the proxy on this machine tells it.
const STRANGER: (&str, &str) = ("X-Forwarded-For", "203.0.113.9");

struct Served {
    element: gst::Element,
    address: SocketAddr,
    folder: PathBuf,
}

impl Served {
    fn new(test: &str, rules: Option<&str>, properties: &[(&str, &str)]) -> Self {
        gst::init().unwrap();
        // Tests of one process register it more than once.
        let _ = crate::plugin_register_static();
        let name = format!("sfu-matrix-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("hls/cam1")).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("hls/cam1/index.m3u8", "#EXTM3U\nv0.m3u8\n");
        write("hls/cam1/v0.m3u8", "#EXTM3U\n#EXTINF:2,\nv0-1.ts\n");
        write("hls/cam1/v0-1.ts", "segment");
        write("secret", SECRET);
        write("key", KEY);
        let element = gst::ElementFactory::make("sfusignaller").build().unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        for (name, value) in [
            ("listen", "127.0.0.1:0"),
            ("udp-port", "0"),
            ("shards", "1"),
            ("router", test),
            ("hls-directory", &path("hls")),
            ("recordings-directory", &path("recordings")),
        ] {
            element.set_property_from_str(name, value);
        }
        if let Some(rules) = rules {
            write("access", rules);
            element.set_property("access", path("access"));
        }
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        element.set_state(gst::State::Playing).unwrap();
        let port = u16::try_from(element.property::<u32>("port")).unwrap();
        Self {
            element,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            folder,
        }
    }

    /// Status, and all of the answer.
    fn ask(&self, method: &str, path: &str, host: &str, fields: &[(&str, &str)]) -> (u16, String) {
        self.send(method, path, host, fields, "")
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        host: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        let length = body.len();
        write!(stream, "{request}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.unwrap_or(0), answer)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.element.set_state(gst::State::Null);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One request of each kind that a route takes.
fn requests() -> Vec<(&'static Route, &'static str, String)> {
    let mut requests = Vec::new();
    for route in ROUTES {
        let path = match route.path {
            "" => "/cam1".to_owned(),
            path => path
                .replace("{*stream}", "cam1")
                .replace("{*path}", "cam1/v0-1.ts")
                .replace("{*file}", "cam1/a.mp4")
                .replace("{file}", "style.css")
                .replace("{number}", "1")
                .replace("{id}", &"0".repeat(32)),
        };
        assert!(!path.contains('{'), "{path}: what stands for this?");
        for method in route.methods.split(", ").filter(|m| *m != "OPTIONS") {
            requests.push((route, method, path.clone()));
        }
        if route.rule == Rule::Health {
            requests.push((route, "GET", format!("{path}?stream=cam1")));
        }
        if route.rule == Rule::Publish {
            for takeover in ["1", "true"] {
                requests.push((route, "POST", format!("{path}?takeover={takeover}")));
            }
        }
        if route.rule == Rule::Hls {
            requests.push((route, "GET", "/hls/cam1/index.m3u8".to_owned()));
        }
    }
    requests
}

/// What a request needs; none where everyone is let in.
fn needed(rule: Rule, path: &str) -> Vec<Action> {
    match rule {
        Rule::Open | Rule::Player | Rule::Session | Rule::Streams => vec![],
        Rule::Watch | Rule::Hls | Rule::Stream => vec![Action::Play],
        Rule::Health if path.contains("stream=") => vec![Action::Play],
        Rule::Health => vec![],
        Rule::Publish if path.contains("takeover") => vec![Action::Publish, Action::Takeover],
        Rule::Publish => vec![Action::Publish],
        Rule::Recordings | Rule::Recording => vec![Action::Record],
        Rule::Metrics => vec![Action::Metrics],
        Rule::Api => vec![Action::Api],
    }
}

fn is_let_in(status: u16) -> bool {
    assert!(status != 0 && status != 500, "{status}");
    ![401, 403, 421, 429, 503].contains(&status) || status == 503
}

fn token(secret: &str, grants: &Grants, seconds: i64) -> String {
    let now = SystemTime::now();
    let span = Duration::from_secs(seconds.unsigned_abs());
    let until = if seconds < 0 { now - span } else { now + span };
    make_token(secret, grants, until, None).unwrap()
}

fn grants(actions: &[Action], pattern: &str) -> Grants {
    actions.iter().fold(Grants::default(), |grants, action| {
        let is_server = matches!(action, Action::Api | Action::Metrics);
        let pattern = if is_server { "*" } else { pattern };
        grants
            .parse_word(&format!("{}={pattern}", action.name()))
            .unwrap()
    })
}

/// One that is signed as well as the others, with these claims and header.
fn made_up(header: &str, claims: &str) -> String {
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = aws_lc_rs::hmac::sign(&key, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

const RULES: &str = "tokens secret\nkey key publish=cam1 takeover=cam1\n";

#[test]
fn nobody_gets_in_by_what_is_not_right() {
    let served = Served::new(
        "matrix",
        Some(RULES),
        &[("trusted-proxies", "127.0.0.1"), ("server-names", NAME)],
    );
    let far = 4_000_000_000u64;
    let hs256 = r#"{"alg":"HS256"}"#;
    for (route, method, path) in requests() {
        let needed = needed(route.rule, &path);
        let others: Vec<Action> = Action::ALL
            .into_iter()
            .filter(|a| !needed.contains(a))
            .collect();
        // A file that is none is of no stream.
        let pattern = if route.rule == Rule::Recording {
            "*"
        } else {
            "cam1"
        };
        let claim = grants(&needed, pattern).to_claim();
        let unsigned = made_up(
            r#"{"alg":"none"}"#,
            &format!(r#"{{"exp":{far},"sfu":{claim}}}"#),
        );
        let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
        let right = token(SECRET, &grants(&needed, pattern), 60);
        let wrong = [
            ("nothing", String::new()),
            ("expired", token(SECRET, &grants(&needed, pattern), -1)),
            (
                "not yet valid",
                made_up(
                    hs256,
                    &format!(r#"{{"exp":{far},"nbf":{},"sfu":{claim}}}"#, far - 1),
                ),
            ),
            ("endless", made_up(hs256, &format!(r#"{{"sfu":{claim}}}"#))),
            (
                "wrong key",
                token(&"x".repeat(32), &grants(&needed, pattern), 60),
            ),
            ("alg none", format!("{unsigned}.")),
            (
                "alg none, signed",
                made_up(
                    r#"{"alg":"none"}"#,
                    &format!(r#"{{"exp":{far},"sfu":{claim}}}"#),
                ),
            ),
            (
                "another stream",
                token(
                    SECRET,
                    &grants(
                        &Action::ALL
                            .map(|a| a)
                            .into_iter()
                            .filter(|a| a.is_of_a_stream())
                            .collect::<Vec<_>>(),
                        "cam2",
                    ),
                    60,
                ),
            ),
            (
                "other permissions",
                token(SECRET, &grants(&others, "*"), 60),
            ),
            ("no permission", token(SECRET, &Grants::default(), 60)),
            ("the secret", SECRET.to_owned()),
            (
                "a segment's token",
                "s.ffffffff.AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            ),
        ];
        let all = |what: &str, shown: &str, let_in: bool, more: &[(&str, &str)], host: &str| {
            let joint = if path.contains('?') { '&' } else { '?' };
            let basic = STANDARD.encode(format!("me:{shown}"));
            for (way, path, authorization) in [
                ("Bearer", path.clone(), format!("Bearer {shown}")),
                ("Basic", path.clone(), format!("Basic {basic}")),
                (
                    "query",
                    format!("{path}{joint}token={shown}"),
                    "none".to_owned(),
                ),
            ] {
                let mut fields = vec![STRANGER, ("Authorization", &authorization)];
                fields.extend(more);
                let (status, answer) = served.ask(method, &path, host, &fields);
                let shown = format!("{method} {path} by {way} with {what}: {answer}");
                assert_eq!(is_let_in(status), let_in, "{shown}");
                if status == 401 {
                    assert!(answer.contains("www-authenticate: Bearer"), "{shown}");
                }
            }
        };
        for (what, shown) in &wrong {
            // A list holds what may be seen: of recordings of another stream, none of this one.
            let is_list = route.rule == Rule::Recordings && *what == "another stream";
            all(what, shown, needed.is_empty() || is_list, &[], NAME);
        }
        all("what is right", &right, true, &[], NAME);
        all(
            "what is right, by address",
            &right,
            true,
            &[],
            "192.0.2.1:8080",
        );
        all("a wrong host", &right, false, &[], "evil.example");
        all(
            "a wrong host",
            &right,
            false,
            &[],
            "sfu.example.evil.example",
        );
        let is_shared = matches!(
            route.rule,
            Rule::Watch | Rule::Hls | Rule::Session | Rule::Player | Rule::Open | Rule::Health
        );
        for origin in [
            "https://evil.example",
            "null",
            "https://sfu.example.evil.example",
        ] {
            all(origin, &right, is_shared, &[("Origin", origin)], NAME);
        }
        all(
            "our origin",
            &right,
            true,
            &[("Origin", "https://sfu.example")],
            NAME,
        );
    }
}

#[test]
fn without_rules_this_machine_may_all_and_others_play() {
    let served = Served::new("default", None, &[]);
    let everyone = |rule: Rule, path: &str| needed(rule, path).iter().all(|a| *a == Action::Play);
    for (route, method, path) in requests() {
        for (host, fields, is_here) in [
            ("localhost", &[][..], true),
            (
                "localhost:8080",
                &[("Origin", "http://localhost:8080")][..],
                true,
            ),
            ("127.0.0.1", &[("Sec-Fetch-Site", "same-origin")], true),
            ("[::1]", &[("Sec-Fetch-Site", "none")], true),
            // A page of elsewhere, by its origin or by a name that leads here.
            ("evil.example", &[], false),
            ("evil.example", &[("Origin", "http://evil.example")], false),
            ("localhost", &[("Sec-Fetch-Site", "cross-site")], false),
            // Somebody behind a proxy that nobody told us of.
            ("localhost", &[("X-Forwarded-For", "127.0.0.1")], false),
            ("localhost", &[("X-Forwarded-Proto", "https")], false),
            ("localhost", &[("X-Real-IP", "127.0.0.1")], false),
            ("localhost", &[("Forwarded", "for=127.0.0.1")], false),
            ("localhost", &[("Via", "1.1 proxy")], false),
            // Nobody knows who.
            ("192.0.2.1", &[], false),
            ("", &[], false),
        ] {
            let (status, answer) = served.ask(method, &path, host, fields);
            let is_foreign = fields
                .iter()
                .any(|(name, value)| *name == "Sec-Fetch-Site" && *value == "cross-site");
            let shared = route.rule.share() == super::origins::Share::All
                || matches!(route.rule, Rule::Open | Rule::Health);
            let let_in = is_here || (everyone(route.rule, &path) && (!is_foreign || shared));
            assert_eq!(
                is_let_in(status),
                let_in,
                "{method} {path} {host} {fields:?}: {answer}"
            );
        }
        for origin in ["https://evil.example", "null", "http://localhost:81"] {
            let (status, _) = served.ask(method, &path, "localhost:8080", &[("Origin", origin)]);
            let shared = route.rule.share() == super::origins::Share::All
                || matches!(route.rule, Rule::Open | Rule::Health);
            let let_in = everyone(route.rule, &path) && shared;
            assert_eq!(is_let_in(status), let_in, "{method} {path} from {origin}");
        }
    }
}

#[test]
fn browsers_are_told_which_pages_may_ask() {
    let header = |answer: &str, name: &str| {
        let mut lines = answer.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(|value| value.trim().to_owned())
    };
    let origin = "https://good.example";
    for (list, from, shared, ours) in [
        ("", origin, Some("*"), None),
        (origin, origin, Some(origin), Some(origin)),
        (origin, "https://evil.example", None, None),
        ("*", "https://evil.example", Some("*"), Some("*")),
    ] {
        let served = Served::new("origins", None, &[("allowed-origins", list)]);
        for (route, method, path) in requests() {
            let expected = match route.rule.share() {
                super::origins::Share::All => shared,
                super::origins::Share::Ours => ours,
            };
            let expected = expected.map(str::to_owned);
            let asked = [("Origin", from), ("Access-Control-Request-Method", method)];
            for (method, fields) in [(method, &asked[..1]), ("OPTIONS", &asked)] {
                let (status, answer) = served.ask(method, &path, "sfu", fields);
                let what = format!("{list:?} {method} {path} from {from}: {answer}");
                assert_eq!(
                    header(&answer, "access-control-allow-origin"),
                    expected,
                    "{what}"
                );
                let with_credentials =
                    (expected.as_deref() == Some(origin)).then(|| "true".to_owned());
                assert_eq!(
                    header(&answer, "access-control-allow-credentials"),
                    with_credentials,
                    "{what}"
                );
                assert_eq!(answer.contains("vary: Origin"), list == origin, "{what}");
                if method == "OPTIONS" {
                    assert_eq!(status, 204, "{what}");
                    let allowed = header(&answer, "access-control-allow-headers");
                    assert_eq!(allowed.is_some(), expected.is_some(), "{what}");
                    let needed = [
                        "Authorization",
                        "Content-Type",
                        "If-Match",
                        "If-None-Match",
                        "traceparent",
                    ];
                    assert!(
                        allowed.is_none_or(|a| needed.iter().all(|n| a.contains(n))),
                        "{what}"
                    );
                    let methods = header(&answer, "access-control-allow-methods");
                    assert!(methods.is_none_or(|m| m == route.methods), "{what}");
                }
            }
        }
    }
}

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

fn offer() -> String {
    let print = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789abcdef01234567\r\na=setup:actpass\r\na=mid:0\r\na=rtcp-mux\r\n\
         a=rtpmap:96 VP8/90000\r\na=fingerprint:sha-256 {print}\r\na=sendonly\r\n"
    )
}

/// Of a session that its token, its key or its rule let in; and what let it in is in no log.
#[test]
fn a_session_ends_with_what_let_it_in() {
    let rules = "tokens secret\nkey key publish\nfrom 203.0.113.0/24 publish=open\n";
    let proxy = [("trusted-proxies", "127.0.0.1"), ("server-names", NAME)];
    let served = Served::new("ends", Some(rules), &proxy);
    let shown = token(SECRET, &grants(&[Action::Publish], "brief"), 3);
    let lasting = token(SECRET, &grants(&[Action::Publish], "lasting"), 600);
    let secrets = [shown.clone(), lasting.clone(), KEY.to_owned()];
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = told.clone();
    gst::log::remove_default_log_function();
    gst::log::set_default_threshold(gst::DebugLevel::Log);
    let listening = gst::log::add_log_function(move |_, _, _, _, _, _, message| {
        let message = message.get().unwrap_or_default();
        if secrets
            .iter()
            .any(|secret| message.contains(secret.as_str()))
        {
            hears.lock().unwrap().push(message.to_string());
        }
    });
    let publish = |path: &str, fields: &[(&str, &str)]| {
        let mut all = vec![STRANGER, ("Content-Type", "application/sdp")];
        all.extend(fields);
        let (status, answer) = served.send("POST", path, NAME, &all, &offer());
        assert_eq!(status, 201, "{path}: {answer}");
        assert!(answer.contains("referrer-policy: no-referrer"), "{answer}");
        let location = answer.lines().find_map(|l| l.strip_prefix("location: "));
        location.unwrap().trim().to_owned()
    };
    let key = format!("Bearer {KEY}");
    let sessions = [
        publish(&format!("/whip/brief?token={shown}"), &[]),
        publish(
            "/whip/lasting",
            &[("Authorization", &format!("Bearer {lasting}"))],
        ),
        publish("/whip/by-key", &[("Authorization", &key)]),
        publish("/whip/open", &[]),
    ];
    let there = || {
        let of = |session: &String| served.ask("GET", session, NAME, &[STRANGER]).0 == 200;
        sessions.iter().map(of).collect::<Vec<_>>()
    };
    let until = |expected: [bool; 4]| {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while there() != expected {
            assert!(
                std::time::Instant::now() < end,
                "{:?}, not {expected:?}",
                there()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(there(), [true; 4]);
    until([false, true, true, true]);
    let rewrite = |rules: &str| {
        fs::write(served.folder.join("new"), rules).unwrap();
        fs::rename(served.folder.join("new"), served.folder.join("access")).unwrap();
    };
    rewrite("tokens secret\nfrom 203.0.113.0/24 publish=open\n");
    until([false, true, false, true]);
    rewrite("tokens secret\n");
    until([false, true, false, false]);
    rewrite("key key publish\n");
    until([false; 4]);
    gst::log::remove_log_function(listening);
    gst::log::set_default_threshold(gst::DebugLevel::Error);
    let told = told.lock().unwrap();
    assert!(told.is_empty(), "{told:?}");
}
