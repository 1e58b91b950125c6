// SPDX-License-Identifier: MPL-2.0
//! Servers that are asked: a webhook that decides, and identity providers whose keys sign.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sfu_access::{Access, Action, Credential, Outcome, Refused, Visitor, Want};
use sfu_access_rows::remote::{Asked, answer, ed25519, signed};

struct Rules(PathBuf);

impl Rules {
    fn new(test: &str) -> Self {
        let name = format!("sfu-access-remote-{test}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self, rules: &str) -> Access {
        fs::write(&self.0, rules).unwrap();
        Access::open(Some(&self.0)).unwrap()
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(format!("{}.revoked", self.0.display()));
    }
}

fn visitor(credential: Option<Credential<'_>>) -> Visitor<'_> {
    Visitor {
        address: Some(IpAddr::from([203, 0, 113, 9])),
        named: true,
        credential,
        protocol: "webrtc",
        ..Visitor::default()
    }
}

fn want(action: Action, stream: &str) -> [Want; 1] {
    let stream = action.is_of_a_stream().then(|| stream.to_owned());
    [Want { action, stream }]
}

#[test]
fn mediamtx_servers_decide() {
    let server = Asked::new(|body| {
        let body: Value = serde_json::from_str(body).unwrap();
        let good = body["token"] == "let-me-in" || body["password"] == "horse";
        answer(
            if good && body["path"] == "cam1" {
                200
            } else {
                401
            },
            "",
        )
    });
    let rules = Rules::new("mediamtx");
    let access = rules.open(&format!("ask {}\nanyone play=open\n", server.url));
    let bearer = Credential::Bearer("let-me-in");
    let basic = Credential::Basic {
        user: "ann",
        password: "horse",
    };
    for (credential, action, stream, allowed) in [
        (Some(bearer), Action::Publish, "cam1", Ok(())),
        (Some(basic), Action::Play, "cam1", Ok(())),
        (Some(bearer), Action::Takeover, "cam1", Ok(())),
        (Some(bearer), Action::Play, "cam2", Err(Refused::Unknown)),
        (
            Some(Credential::Bearer("x")),
            Action::Play,
            "cam1",
            Err(Refused::Unknown),
        ),
        (None, Action::Play, "cam1", Err(Refused::Nothing)),
        // What the rules allow nobody is asked for.
        (None, Action::Play, "open", Ok(())),
    ] {
        let asked = server.count();
        let found = access.check_and_wait(&visitor(credential), &want(action, stream));
        assert_eq!(
            found.map(|_| ()),
            allowed,
            "{credential:?} {action:?} {stream}"
        );
        let more = usize::from(stream != "open");
        assert_eq!(server.count(), asked + more);
        // Again: what was answered counts for a while.
        let again = access.check_and_wait(&visitor(credential), &want(action, stream));
        assert_eq!(again.map(|_| ()), allowed);
        assert_eq!(server.count(), asked + more, "kept");
    }
    // As MediaMTX says it.
    let _ = access.check_and_wait(&visitor(Some(basic)), &want(Action::Record, "a/\"b"));
    let body: Value = serde_json::from_str(&server.last()).unwrap();
    let expected = json!({
        "user": "ann", "password": "horse", "token": "", "ip": "203.0.113.9",
        "action": "playback", "path": "a/\"b", "protocol": "webrtc", "query": "",
    });
    assert_eq!(body, expected);
    let proof = access
        .check_and_wait(&visitor(Some(bearer)), &want(Action::Play, "cam1"))
        .unwrap();
    assert!(!format!("{proof:?} {proof}").contains("let-me-in"));
    let now = SystemTime::now();
    assert_eq!(
        access.still(&proof, &want(Action::Play, "cam1"), now),
        Ok(())
    );
    // No more than was asked for.
    assert!(
        access
            .still(&proof, &want(Action::Publish, "cam1"), now)
            .is_err()
    );
    assert!(
        access
            .still(&proof, &want(Action::Play, "cam2"), now)
            .is_err()
    );
    // Nobody is asked any more.
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&rules.0, "anyone play=open\n").unwrap();
    assert_eq!(access.refresh(), Some(Ok(())));
    assert!(
        access
            .still(&proof, &want(Action::Play, "cam1"), now)
            .is_err()
    );
}

/// As much as may be done is asked for one by one: a no to the most is none to the least.
#[test]
fn as_much_as_may_be_done_is_asked_for() {
    let server = Asked::new(|body| {
        let takes_part = body.contains("\"token\":\"part\"");
        let plays = takes_part || body.contains("\"token\":\"look\"");
        let yes = (body.contains("\"action\":\"read\"") && plays) || takes_part;
        answer(if yes { 200 } else { 401 }, "")
    });
    let [play] = want(Action::Play, "room");
    let [publish] = want(Action::Publish, "room");
    let most = [play.clone(), publish.clone()];
    for rules in ["", "anyone play\n"] {
        let is_open = !rules.is_empty();
        let folder = Rules::new(if is_open { "most-open" } else { "most" });
        let access = folder.open(&format!("{rules}ask {}\n", server.url));
        for (shown, may_enter, may_publish) in [
            (None, is_open, false),
            (Some("part"), true, true),
            (Some("look"), true, false),
            // Only the server knows what it is.
            (Some("none"), is_open, false),
        ] {
            let visitor = visitor(shown.map(Credential::Bearer));
            let found = loop {
                match access.check_most(
                    &visitor,
                    &most,
                    std::slice::from_ref(&play),
                    SystemTime::now(),
                ) {
                    Outcome::Hash(job) => {
                        let (done, hashed) = std::sync::mpsc::channel();
                        access.hash(job, move || done.send(()).unwrap()).unwrap();
                        hashed.recv().unwrap();
                    }
                    Outcome::Allowed(proof) => break Some(proof),
                    Outcome::Refused(_) => break None,
                }
            };
            assert_eq!(found.is_some(), may_enter, "{rules}{shown:?}");
            let publishes = found.is_some_and(|proof| {
                let wants = std::slice::from_ref(&publish);
                access.still(&proof, wants, SystemTime::now()).is_ok()
            });
            assert_eq!(publishes, may_publish, "{rules}{shown:?}");
        }
    }
}

#[test]
fn nginx_servers_decide() {
    let server = Asked::new(|body| {
        answer(
            if body.contains("token=a%2Bb") {
                204
            } else {
                403
            },
            "",
        )
    });
    let access = Rules::new("nginx");
    let access = access.open(&format!("ask nginx {}\n", server.url));
    let good = Credential::Bearer("a+b");
    assert!(
        access
            .check_and_wait(&visitor(Some(good)), &want(Action::Publish, "app/cam 1"))
            .is_ok()
    );
    assert_eq!(
        server.last(),
        "call=publish&app=app&name=cam+1&addr=203.0.113.9&protocol=webrtc&token=a%2Bb"
    );
    let basic = Credential::Basic {
        user: "a&call=x",
        password: "=",
    };
    assert!(
        access
            .check_and_wait(&visitor(Some(basic)), &want(Action::Play, "cam1"))
            .is_err()
    );
    assert_eq!(
        server.last(),
        "call=play&app=live&name=cam1&addr=203.0.113.9&protocol=webrtc&user=a%26call%3Dx&pass=%3D"
    );
}

#[test]
fn who_does_not_answer_lets_nobody_in() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = format!("http://{}/", nobody.local_addr().unwrap());
    let gone = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", gone.local_addr().unwrap())
    };
    let ill = Asked::new(|_| answer(500, "")).url;
    let led = Asked::new(|_| {
        "HTTP/1.1 302 X\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n".into()
    });
    let says = |status: u16| Asked::new(move |_| answer(status, "")).url;
    let babble = Asked::new(|_| "nonsense\r\n\r\n".into()).url;
    let endless =
        Asked::new(|_| format!("HTTP/1.1 200 X\r\nA: {}\r\n\r\n", "x".repeat(1 << 20))).url;
    for (name, url, why) in [
        ("deaf", deaf, Refused::Silent),
        ("gone", gone, Refused::Silent),
        ("ill", ill, Refused::Silent),
        ("led", led.url.clone(), Refused::Silent),
        ("moved", says(308), Refused::Silent),
        ("unchanged", says(304), Refused::Silent),
        ("no", says(404), Refused::Unknown),
        ("babble", babble, Refused::Silent),
        ("endless", endless, Refused::Silent),
    ] {
        let access = Rules::new(name);
        let access = access.open(&format!("ask {url}\n"));
        let began = Instant::now();
        let bearer = visitor(Some(Credential::Bearer("let-me-in")));
        let found = access.check_and_wait(&bearer, &want(Action::Play, "cam1"));
        assert_eq!(found.map(|_| ()), Err(why), "{name}");
        assert!(began.elapsed() < Duration::from_secs(6), "{name}");
        let began = Instant::now();
        drop(access);
        assert!(began.elapsed() < Duration::from_secs(1), "{name}");
    }
}

#[test]
fn a_crowd_of_questions_is_bounded() {
    let server = Asked::new(|_| {
        std::thread::sleep(Duration::from_millis(200));
        answer(401, "")
    });
    let access = Rules::new("crowd");
    let access = Arc::new(access.open(&format!("ask {}\n", server.url)));
    let threads: Vec<_> = (0..300)
        .map(|n| {
            let access = access.clone();
            std::thread::spawn(move || {
                let text = format!("guess-{n}");
                let visitor = visitor(Some(Credential::Bearer(&text)));
                access
                    .check_and_wait(&visitor, &want(Action::Play, "cam1"))
                    .err()
            })
        })
        .collect();
    let found: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let busy = found.iter().filter(|f| **f == Some(Refused::Busy)).count();
    assert!(found.iter().all(Option::is_some), "nobody is let in");
    assert!(
        busy > 100 && server.count() < 200,
        "{busy} busy, {} asked",
        server.count()
    );
}

/// Who comes while it hangs waits for one answer that does not come, and not for those before him.
#[test]
fn a_crowd_before_a_server_that_hangs_waits_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let held = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            held.lock().unwrap().push(stream);
        }
    });
    let access = Rules::new("hangs");
    let access = Arc::new(access.open(&format!("ask {url}\n")));
    let threads: Vec<_> = (0..200_u8)
        .map(|n| {
            let access = access.clone();
            std::thread::spawn(move || {
                let text = format!("somebody-{n}");
                let visitor = Visitor {
                    address: Some(IpAddr::from([203, 0, 113, n])),
                    ..visitor(Some(Credential::Bearer(&text)))
                };
                let wants = [
                    want(Action::Publish, "cam1"),
                    want(Action::Takeover, "cam1"),
                ];
                access
                    .check_and_wait(&visitor, wants.as_flattened())
                    .map(|_| ())
            })
        })
        .collect();
    for thread in threads {
        let found = thread.join().unwrap();
        assert!(
            matches!(found, Err(Refused::Silent | Refused::Busy)),
            "{found:?}"
        );
    }
    // Eight at a time, and those who came before the first eight had waited in vain: all 400 questions would take 150 s.
    let asked = asked.lock().unwrap().len();
    assert!((1..=24).contains(&asked), "{asked} questions");
}

fn token(key: &EncodingKey, id: &str, jti: &str) -> String {
    signed(key, id, jti, &json!({ "play": ["cam1"] }))
}

fn plays(access: &Access, token: &str) -> Result<(), Refused> {
    let visitor = visitor(Some(Credential::Bearer(token)));
    access
        .check_and_wait(&visitor, &want(Action::Play, "cam1"))
        .map(|_| ())
}

fn soon(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn keys_of_a_provider_are_asked_for_and_may_change() {
    let (first, first_jwk) = ed25519("1");
    let (second, second_jwk) = ed25519("2");
    let set = Arc::new(Mutex::new(json!({ "keys": [first_jwk] }).to_string()));
    let served = set.clone();
    let server = Asked::new(move |_| answer(200, &served.lock().unwrap()));
    let access = Rules::new("jwks");
    let access = access.open(&format!("tokens {}\n", server.url));
    let (old, new) = (token(&first, "1", "a"), token(&second, "2", "b"));
    soon("the keys come", || plays(&access, &old) == Ok(()));
    assert!(plays(&access, &new).is_err());
    // Another one signs from now on.
    *set.lock().unwrap() = json!({ "keys": [second_jwk] }).to_string();
    let generation = access.generation();
    soon("the new key comes", || plays(&access, &new) == Ok(()));
    assert!(plays(&access, &old).is_err(), "and the old one is gone");
    assert!(
        access.generation() > generation,
        "sessions are looked at again"
    );
    // Tokens of nobody make us ask no more than now and then.
    let (nobody, _) = ed25519("3");
    let asked = server.count();
    for n in 0..1_000 {
        assert!(plays(&access, &token(&nobody, "3", &n.to_string())).is_err());
    }
    assert!(server.count() <= asked + 2, "{}", server.count() - asked);
    // What breaks leaves what was.
    *set.lock().unwrap() = "nonsense".into();
    let (other, other_jwk) = ed25519("4");
    assert!(plays(&access, &token(&other, "4", "c")).is_err());
    soon("it is told", || access.complaint().is_some());
    assert_eq!(plays(&access, &new), Ok(()));
    *set.lock().unwrap() =
        json!({ "keys": [other_jwk, { "kty": "oct", "k": "AAAA" }] }).to_string();
    soon("it is well again", || {
        plays(&access, &token(&other, "4", "c")) == Ok(())
    });
}

#[test]
fn a_set_with_secrets_or_without_end_is_none() {
    let secret = URL_SAFE_NO_PAD.encode([7; 32]);
    for (name, body) in [
        (
            "secret",
            json!({ "keys": [{ "kty": "oct", "k": secret }] }).to_string(),
        ),
        ("empty", json!({ "keys": [] }).to_string()),
        ("large", " ".repeat(300_000)),
    ] {
        let server = Asked::new(move |_| answer(200, &body));
        let access = Rules::new(name);
        let access = access.open(&format!("tokens {}?key=hidden\n", server.url));
        let told = Mutex::new(None);
        soon(name, || {
            *told.lock().unwrap() = access.complaint();
            told.lock().unwrap().is_some()
        });
        let told = told.into_inner().unwrap().unwrap();
        assert!(told.contains(&server.url), "{name}: {told}");
        assert!(!told.contains("hidden"), "{name}: {told}");
        let claims = json!({ "exp": 4_000_000_000u64, "sfu": { "play": ["cam1"] } });
        let key = EncodingKey::from_secret(&[7; 32]);
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        assert!(plays(&access, &token).is_err(), "{name}");
    }
}

#[test]
fn a_token_that_is_taken_back_ends_what_it_let_in() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let secret = Rules::new("revoked-secret");
    fs::write(&secret.0, SECRET).unwrap();
    let rules = Rules::new("revoked");
    let access = rules.open(&format!("tokens {}\n", secret.0.display()));
    let claims =
        |id: &str| json!({ "exp": 4_000_000_000u64, "jti": id, "sfu": { "play": ["cam1"] } });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = |id: &str| encode(&Header::default(), &claims(id), &key).unwrap();
    let now = SystemTime::now();
    let (one, other) = (token("one"), token("other"));
    let visitor = |token| visitor(Some(Credential::Bearer(token)));
    let proof = access
        .check_and_wait(&visitor(&one), &want(Action::Play, "cam1"))
        .unwrap();
    let generation = access.generation();
    assert!(access.revoke("one", None, now));
    assert!(access.generation() > generation);
    assert_eq!(
        access.still(&proof, &want(Action::Play, "cam1"), now),
        Err(Refused::Revoked)
    );
    assert_eq!(plays(&access, &one), Err(Refused::Revoked));
    assert_eq!(plays(&access, &other), Ok(()));
    assert_eq!(access.revoked().len(), 1);
    assert!(!access.revoke("", None, now));
    // By mistake.
    assert!(access.restore("one"));
    assert_eq!(plays(&access, &one), Ok(()));
    assert!(!access.restore("one") && !access.restore("never"));
    // No more than there may be, unless some have ended.
    let access = Access::open(None).unwrap();
    assert!(access.revoke("one", None, now));
    let soon = now + Duration::from_secs(1);
    let taken = (0..20_000)
        .filter(|n| access.revoke(&n.to_string(), Some(soon), now))
        .count();
    assert!(taken < 10_000, "{taken}");
    assert!(access.revoke("late", None, soon + Duration::from_secs(1)));
    let left = access.revoked();
    assert!(
        left.len() == 2 && left.iter().any(|(id, _)| id == "one"),
        "one without an end stays: {left:?}"
    );
}
