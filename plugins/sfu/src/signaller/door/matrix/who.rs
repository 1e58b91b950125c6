// SPDX-License-Identifier: MPL-2.0

//! Whom tokens, keys and places let in, and whom they don't.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sfu_access::Action;
use sfu_access_rows::{ANOTHER_STREAM, SECRET, grants, token, wrong};

use super::super::Rule;
use super::super::origins::Share;
use super::{NAME, RULES, STRANGER, Served, is_let_in, needed, requests};

#[test]
fn nobody_gets_in_by_what_is_not_right() {
    let served = Served::new(
        "matrix",
        Some(RULES),
        &[("trusted-proxies", "127.0.0.1"), ("server-names", NAME)],
    );
    for (route, method, path) in requests() {
        let needed = needed(route.rule, &path);
        // A file that is none is of no stream.
        let pattern = if route.rule == Rule::Recording {
            "*"
        } else {
            "cam1"
        };
        let right = token(SECRET, &grants(&needed, pattern), 60);
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
        for (what, shown) in wrong(&needed, pattern) {
            // A list holds what may be seen: of recordings of another stream, none of this one.
            let is_list = route.rule == Rule::Recordings && what == ANOTHER_STREAM;
            all(what, &shown, needed.is_empty() || is_list, &[], NAME);
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
            Rule::Watch
                | Rule::Hls
                | Rule::Session
                | Rule::Player
                | Rule::Room
                | Rule::Open
                | Rule::Health
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
            let shared =
                route.rule.share() == Share::All || matches!(route.rule, Rule::Open | Rule::Health);
            let let_in = is_here || (everyone(route.rule, &path) && (!is_foreign || shared));
            assert_eq!(
                is_let_in(status),
                let_in,
                "{method} {path} {host} {fields:?}: {answer}"
            );
        }
        for origin in ["https://evil.example", "null", "http://localhost:81"] {
            let (status, _) = served.ask(method, &path, "localhost:8080", &[("Origin", origin)]);
            let shared =
                route.rule.share() == Share::All || matches!(route.rule, Rule::Open | Rule::Health);
            let let_in = everyone(route.rule, &path) && shared;
            assert_eq!(is_let_in(status), let_in, "{method} {path} from {origin}");
        }
    }
    // As nginx asks that was told nothing but where to.
    for (version, status) in [("1.1", 200), ("1.0", 401)] {
        let request =
            format!("GET /metrics HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (told, answer) = served.say(&request);
        assert_eq!(told, status, "{version}: {answer}");
    }
}

/// As docs/access.md and deploy/ say: what comes from a trusted proxy's address without its header may be anybody's.
#[test]
fn beside_a_proxy_on_this_machine_figures_need_a_token() {
    let proxy = [("trusted-proxies", "127.0.0.1")];
    let served = Served::new("beside", Some("loopback metrics\ntokens secret\n"), &proxy);
    let right = token(SECRET, &grants(&[Action::Metrics], "*"), 60);
    let bearer = format!("Bearer {right}");
    let ask = |fields: &[(&str, &str)]| served.ask("GET", "/metrics", "localhost", fields).0;
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[("Authorization", &bearer)]), 200);
    let served = Served::new("direct", Some("loopback metrics\n"), &[]);
    assert_eq!(served.ask("GET", "/metrics", "localhost", &[]).0, 200);
}
