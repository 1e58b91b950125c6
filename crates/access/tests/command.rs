// SPDX-License-Identifier: MPL-2.0
//! What `./sfu token` and `./sfu password` print opens the door.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sfu_access::{Access, Action, Credential, Visitor, Want};

fn run(access: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sfu-access"))
        .args(arguments)
        .env("GST_SFU_ACCESS", access)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without reading it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sfu-command-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn may(access: &Access, credential: Credential<'_>, action: Action, stream: &str) -> bool {
    let visitor = Visitor {
        credential: Some(credential),
        ..Visitor::default()
    };
    let stream = Some(stream.to_owned());
    access
        .check_and_wait(&visitor, &[Want { action, stream }])
        .is_ok()
}

#[test]
fn a_token_allows_what_was_asked_for() {
    let folder = folder("token");
    let path = folder.join("access");
    let (code, key, _) = run(&path, &["init"], "");
    assert!(code == 0 && key.contains("publish.key"), "{key}");
    assert_eq!(run(&path, &["init"], ""), (0, String::new(), String::new()));
    let arguments = [
        "token",
        "--record",
        "cam1",
        "--publish=studio*",
        "--for",
        "30m",
        "--url",
        "https://sfu.example/",
    ];
    let (code, out, _) = run(&path, &arguments, "");
    assert_eq!(code, 0);
    let (token, address) = out.trim().split_once('\n').unwrap();
    assert_eq!(
        address,
        format!("https://sfu.example/recordings?token={token}")
    );
    let access = Access::open(Some(&path)).unwrap();
    for (action, stream, allowed) in [
        (Action::Record, "cam1", true),
        (Action::Record, "cam2", false),
        (Action::Publish, "studio/a", true),
        (Action::Publish, "cam1", false),
        (Action::Takeover, "studio", false),
    ] {
        let found = may(&access, Credential::Bearer(token), action, stream);
        assert_eq!(found, allowed, "{action:?} {stream}");
    }
    for wrong in [
        &["token"][..],
        &["token", "--for", "2h"],
        &["token", "--fly", "a"],
        &["token", "--play"],
        &["token", "play"],
        &["token", "--play", "a b"],
        &["token", "--play", "a", "--for", "2"],
        &["token", "--play", "a", "--for", "0h"],
        &["token", "--play", "a", "--for", "ä"],
        &["token", "--play", "a", "--for", "99999999999999999999d"],
        &["token", "--play", "a", "--for", "367d"],
        &["fly"],
        &[],
    ] {
        let (code, out, error) = run(&path, wrong, "");
        assert!(
            code != 0 && out.is_empty() && !error.is_empty(),
            "{wrong:?}"
        );
        assert!(!error.contains("panicked"), "{error}");
    }
    for (option, name, says) in [
        ("--play", "whip/x", Some("path of the server")),
        ("--play", "whep/*", Some("path of the server")),
        ("--publish", "publish", Some("path of the server")),
        ("--record", "recordings/cam1", Some("path of the server")),
        ("--room", "room/meeting", Some("path of the server")),
        ("--room", "meeting*", Some("one room")),
        (
            "--room",
            "my room",
            Some("--room \"my room\": a room's name"),
        ),
        ("--room", "", Some("--room \"\": a room's name")),
        ("--play", "my cam", Some("--play=\"my cam\": a pattern")),
        ("--play", "/cam1", Some("has parts of")),
        ("--play", "cam1/", Some("has parts of")),
        ("--play", "../cam1", Some("has parts of")),
        ("--play", "whips/x", None),
        ("--play", "whip*", None),
        ("--play", "news/*", None),
        ("--play", "cam1,cam2", None),
        ("--play", "cam1,whip/x", Some("path of the server")),
        ("--play", "cam1,", Some("--play")),
        ("--play", "*", None),
        ("--room", "meeting", None),
    ] {
        let (code, out, error) = run(&path, &["token", option, name], "");
        let is_refused = code != 0 && out.is_empty();
        assert_eq!(is_refused, says.is_some(), "{option} {name}: {error}");
        assert!(error.contains(says.unwrap_or_default()), "{name}: {error}");
        // It speaks of what was typed.
        let spoken = option != "--room" || !error.contains("play=");
        assert!(spoken, "{option} {name}: {error}");
    }
    // An address is printed where there is one.
    for (name, lines) in [("cam1", 2), ("cam*", 1), ("cam1,cam2", 1)] {
        let (_, out, error) = run(&path, &["token", "--play", name], "");
        assert_eq!(out.lines().count(), lines, "{name}: {out}");
        assert_eq!(error.contains("several streams"), lines == 1, "{error}");
    }
    // What servers don't take as a secret makes no token.
    for secret in [
        "",
        "\n",
        "short",
        "0123456789abcdef 0123456789abcdef",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
        "{\"keys\":[]}",
        "{\"kty\":\"oct\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}",
    ] {
        std::fs::write(folder.join("tokens.secret"), secret).unwrap();
        let (code, out, error) = run(&path, &["token", "--play", "cam1"], "");
        assert!(code == 1 && out.is_empty(), "{secret:?}: {out}");
        assert!(error.contains("tokens.secret"), "{secret:?}: {error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_asks_for_help_gets_it() {
    for arguments in [
        &["token", "--help"][..],
        &["token", "-h"],
        &["token", "--play", "cam1", "--help"],
        &["password", "--help"],
        &["password", "-h"],
    ] {
        // Nobody's password is read for it, and no file.
        let (code, out, error) = run(Path::new("/nowhere"), arguments, "");
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
        assert!(
            out.starts_with("usage: ./sfu token"),
            "{arguments:?}: {out}"
        );
    }
}

#[test]
fn a_hash_is_for_a_line_of_the_access_file() {
    let folder = folder("password");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("access");
    let (code, hash, _) = run(&path, &["password"], "correct horse\n");
    assert_eq!(code, 0);
    std::fs::write(&path, format!("user ann {} play", hash.trim())).unwrap();
    let access = Access::open(Some(&path)).unwrap();
    for (password, allowed) in [
        ("correct horse", true),
        ("correct horse\n", false),
        ("", false),
    ] {
        let credential = Credential::Basic {
            user: "ann",
            password,
        };
        assert_eq!(
            may(&access, credential, Action::Play, "cam1"),
            allowed,
            "{password:?}"
        );
    }
    for (arguments, password, is_good) in [
        (&["password"][..], "\n".to_owned(), false),
        (&["password"][..], "x".repeat(256), true),
        (&["password"][..], "x".repeat(257), false),
        (&["password"][..], "ä".repeat(129), false),
        (&["password", "ann"][..], "horse".to_owned(), true),
        (&["password", "änn-1@x"][..], "horse".to_owned(), true),
        (&["password", ""][..], "horse".to_owned(), false),
        (&["password", "ann b"][..], "horse".to_owned(), false),
        (&["password", "ann:b"][..], "horse".to_owned(), false),
        (&["password", "ann\nb"][..], "horse".to_owned(), false),
        (&["password", "ann\u{a0}b"][..], "horse".to_owned(), false),
        (&["password", "ann\u{1b}"][..], "horse".to_owned(), false),
    ] {
        let (code, out, error) = run(&path, arguments, &password);
        assert_eq!(code == 0, is_good, "{arguments:?} {password}: {error}");
        assert_eq!(out.is_empty(), !is_good, "{arguments:?}: {out}");
        assert!(is_good || error.lines().count() == 1, "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
