// SPDX-License-Identifier: MPL-2.0

//! Pages that are opened with `?token=`, at the width of a desk and of a phone: it lets in what they ask for, and nobody else
//! learns it.

use sfu_tests::access::Rules;
use sfu_tests::browser;
use sfu_tests::server::Server;

#[test]
fn pages_work_with_a_token_in_their_address() {
    let rules = Rules::new("token", "loopback\ntokens tokens.secret\n").unwrap();
    let permissions = [
        "--publish=*",
        "--takeover=*",
        "--play=*",
        "--api",
        "--metrics",
    ];
    for (name, width, height) in [("desk", "1280", "800"), ("phone", "390", "844")] {
        let log = format!("token_{name}");
        let line = format!("access={} api-keys=test:secret", rules.file().display());
        let server = Server::launch(&log, &line).unwrap();
        let token = rules.token(&permissions, "1h").unwrap();
        let picture = browser::screenshot(&log).unwrap();
        let base = server.url("");
        let arguments = [
            "--base",
            base.as_str(),
            "--token",
            &token,
            "--width",
            width,
            "--height",
            height,
            "--screenshot",
            picture.to_str().unwrap(),
        ];
        let seen = browser::run("token.mjs", &arguments).unwrap();
        let pages = seen["pages"].as_object().unwrap();
        for (page, seen) in pages {
            assert_eq!(seen["overflow"], 0, "{name} {page}: {seen}");
        }
        for page in ["publish", "list", "play", "studio", "lobby", "room"] {
            let links = pages[page]["links"].as_array().unwrap();
            let has_it = |link: &&serde_json::Value| link.as_str().unwrap().contains(&token);
            let without: Vec<_> = links.iter().filter(|link| !has_it(link)).collect();
            assert!(
                without.is_empty(),
                "{name} {page} leads where nobody gets in: {without:?}"
            );
        }
        assert!(
            seen["asked"].as_u64().unwrap() > 30,
            "{name}: {}",
            seen["asked"]
        );
        assert_eq!(
            seen["refused"].as_array().unwrap().len(),
            0,
            "{name}: {}",
            seen["refused"]
        );
        // Not even without the token: an address is nobody's business.
        assert_eq!(
            seen["referers"].as_array().unwrap().len(),
            0,
            "{name}: {}",
            seen["referers"]
        );
        assert!(seen["strangerRefused"].as_u64().unwrap() > 0, "{name}");
        // Two by two is what Chromium makes of a track that nothing has come on.
        assert!(seen["strangerSees"].as_u64().unwrap() <= 2, "{name}");
        let log = server.log();
        let signature = token.rsplit_once('.').unwrap().1;
        assert!(!log.contains(signature), "{name}: the token is in the log");
    }
}
