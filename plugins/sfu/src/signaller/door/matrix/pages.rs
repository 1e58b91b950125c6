// SPDX-License-Identifier: MPL-2.0

//! Which pages of other sites browsers let ask.

use super::super::origins::Share;
use super::{Served, requests};

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
                Share::All => shared,
                Share::Ours => ours,
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
