// SPDX-License-Identifier: MPL-2.0

//! Where another server decides (`ask URL`), or says whose keys sign (`tokens URL`): what it does not clearly allow lets nobody in.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use sfu_access::{Action, Grants};
use sfu_access_rows::remote::{Asked, answer, ed25519, signed};
use sfu_access_rows::{SECRET, grants};

use super::{NAME, RULES, STRANGER, Served, is_let_in, needed, requests};

/// A request, what it needs, and whether it was refused, with the answer.
type Answered = (String, Vec<Action>, bool, String);

/// A stream that is not there is 503, too, at `/healthz`.
fn is_refused(status: u16, answer: &str) -> bool {
    let is_silent = answer.contains("the server that decides about this does not answer");
    assert!(status != 503 || is_silent || is_let_in(status), "{answer}");
    [401, 403].contains(&status) || (status == 503 && is_silent)
}

/// All requests of strangers who show that, asked at the same time.
fn all(served: &Served, shown: &str) -> Vec<Answered> {
    let bearer = format!("Bearer {shown}");
    let bearer = &bearer;
    std::thread::scope(|scope| {
        let asked: Vec<_> = requests()
            .into_iter()
            // Its answer has no body that says why, and it goes by the rule of GET.
            .filter(|(_, method, _)| *method != "HEAD")
            .map(|(route, method, path)| {
                scope.spawn(move || {
                    let fields = [STRANGER, ("Authorization", bearer.as_str())];
                    // Eight are asked at a time, and whoever finds too many waiting may come again.
                    let end = Instant::now() + Duration::from_secs(60);
                    loop {
                        let (status, answer) = served.ask(method, &path, NAME, &fields);
                        let is_busy = status == 503 && answer.contains("too many");
                        if !is_busy || Instant::now() > end {
                            let refused = is_refused(status, &answer);
                            let needed = needed(route.rule, &path);
                            return (format!("{method} {path}"), needed, refused, answer);
                        }
                        std::thread::sleep(Duration::from_millis(50));
                    }
                })
            })
            .collect();
        let statuses = asked.into_iter().map(|thread| thread.join().unwrap());
        statuses.collect()
    })
}

fn expect(what: &str, served: &Served, shown: &str, let_in: bool) {
    for (request, needed, refused, answer) in all(served, shown) {
        let let_in = let_in || needed.is_empty();
        assert_eq!(refused, !let_in, "{what}: {request}: {answer}");
    }
}

fn served(test: &str, rules: &str) -> Served {
    let properties = [("trusted-proxies", "127.0.0.1"), ("server-names", NAME)];
    Served::new(test, Some(rules), &properties)
}

/// A port where nobody answers, and one where nobody is.
fn deaf_and_gone() -> (TcpListener, String, String) {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
    let (slow, away) = (url(&deaf), url(&gone));
    (deaf, slow, away)
}

#[test]
fn what_a_webhook_does_not_allow_lets_nobody_in() {
    let (_deaf, slow, away) = deaf_and_gone();
    let says = |status: u16| Asked::new(move |_| answer(status, "")).url;
    for (what, url, let_in) in [
        ("says yes", says(200), true),
        ("says yes without a word", says(204), true),
        ("says no", says(401), false),
        ("forbids", says(403), false),
        ("knows nothing of it", says(404), false),
        ("is ill", says(500), false),
        ("is too busy", says(503), false),
        ("leads elsewhere", says(307), false),
        (
            "babbles",
            Asked::new(|_| "nonsense\r\n\r\n".into()).url,
            false,
        ),
        ("hangs up", Asked::new(|_| String::new()).url, false),
        ("is slow", slow, false),
        ("is away", away, false),
    ] {
        let served = served("asked", &format!("{RULES}ask {url}\n"));
        for (request, needed, refused, answer) in all(&served, "let-me-in") {
            // It is not asked of each part of a list: what it alone allows is in none.
            let is_list = needed == [Action::Record] && request.ends_with("recordings");
            let let_in = needed.is_empty() || (let_in && !is_list);
            assert_eq!(refused, !let_in, "{what}: {request}: {answer}");
        }
    }
}

/// It is asked for each action and stream apart: a yes to one is none to another.
#[test]
fn a_webhooks_yes_is_for_what_it_was_asked() {
    let hook = Asked::new(|body| {
        let yes = body.contains("\"action\":\"read\"") && body.contains("\"path\":\"cam1\"");
        answer(if yes { 200 } else { 401 }, "")
    });
    let served = served("one", &format!("ask {}\n", hook.url));
    for (request, needed, refused, answer) in all(&served, "x") {
        let let_in = needed.iter().all(|action| *action == Action::Play);
        assert_eq!(refused, !let_in, "{request}: {answer}");
    }
    let other = served.ask("POST", "/whep/cam2", NAME, &[STRANGER]);
    assert_eq!(other.0, 401);
}

#[test]
fn tokens_of_a_providers_keys_let_in_and_no_others() {
    let (first, first_jwk) = ed25519("1");
    let (second, second_jwk) = ed25519("2");
    let everything = Grants::all().to_claim();
    let by = |key, id: &str, claim: &serde_json::Value| signed(key, id, id, claim);
    let old = by(&first, "1", &everything);
    let new = by(&second, "2", &everything);
    let nothing = by(&first, "1", &json!({}));
    let elsewhere = grants(&[Action::Publish, Action::Play, Action::Takeover], "cam2");
    let elsewhere = by(&first, "1", &elsewhere.to_claim());
    let set = Arc::new(Mutex::new(json!({ "keys": [first_jwk] }).to_string()));
    let keys = set.clone();
    let provider = Asked::new(move |_| answer(200, &keys.lock().unwrap()));
    let served = served("rotated", &format!("tokens {}\n", provider.url));
    let until = |what: &str, shown: &str| {
        let end = Instant::now() + Duration::from_secs(30);
        let bearer = format!("Bearer {shown}");
        let fields = [STRANGER, ("Authorization", bearer.as_str())];
        while served.ask("GET", "/metrics", NAME, &fields).0 != 200 {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("its keys come", &old);
    expect("its key's", &served, &old, true);
    expect("no permission", &served, &nothing, false);
    for (what, shown) in [
        ("a key that it has not", new.as_str()),
        ("a key under its id", &by(&second, "1", &everything)),
        (
            "a secret under its id",
            &sfu_access_rows::token(SECRET, &Grants::all(), 60),
        ),
    ] {
        expect(what, &served, shown, false);
    }
    for (request, needed, refused, answer) in all(&served, &elsewhere) {
        assert!(refused || needed.is_empty(), "{request}: {answer}");
    }
    // Another one signs from now on.
    *set.lock().unwrap() = json!({ "keys": [second_jwk] }).to_string();
    until("the new key comes", &new);
    expect("the new key's", &served, &new, true);
    expect("the old key's", &served, &old, false);
}

#[test]
fn a_provider_that_tells_no_keys_lets_nobody_in() {
    let (_deaf, slow, away) = deaf_and_gone();
    let (key, jwk) = ed25519("1");
    let right = signed(&key, "1", "a", &Grants::all().to_claim());
    let set = json!({ "keys": [jwk] }).to_string();
    let padded = format!("{set}{}", " ".repeat(300_000));
    let ill = set.clone();
    for (what, url) in [
        ("is slow", slow),
        ("is away", away),
        ("is ill", Asked::new(move |_| answer(500, &ill)).url),
        (
            "tells too much",
            Asked::new(move |_| answer(200, &padded)).url,
        ),
        ("tells nonsense", Asked::new(|_| answer(200, "{")).url),
        (
            "tells none",
            Asked::new(|_| answer(200, r#"{"keys":[]}"#)).url,
        ),
    ] {
        let served = served("unknown", &format!("tokens {url}\n"));
        let began = Instant::now();
        expect(what, &served, &right, false);
        // Nobody waits for it.
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
    }
}
