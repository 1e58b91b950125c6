// SPDX-License-Identifier: MPL-2.0

//! LiveKit's SDKs for Node and Python, as npm and PyPI have them, by the tests that come with each: people who connect, send data,
//! texts and files, call each other (RPC), publish sound and pictures in each codec, choose layers, encrypt end to end, resume and
//! reconnect. The tests are as they were published; what tests/stacks/livekit has beside them runs them, and a few of our own: what is published
//! again at once, and a room that an application administers.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use sfu_tests::ndi::repository;
use sfu_tests::netns;
use sfu_tests::server::{self, Server};

const KEY: &str = "key";
const SECRET: &str = "a-secret-of-the-test-that-is-long-enough";

fn stacks() -> PathBuf {
    repository().join("tests/stacks")
}

/// The server with its rooms, in a namespace of its own with an interface: libwebrtc leaves loopback alone.
fn server(name: &str) -> Option<Server> {
    let environment = server::environment().unwrap();
    if !netns::isolated(&format!("rooms_sdks::{name}"), &environment) {
        return None;
    }
    netns::add_interface();
    Some(Server::launch(name, &format!("api-keys={KEY}:{SECRET}")).unwrap())
}

/// Whether an SDK's tests pass at the server. What they say is in the log.
fn pass(server: &Server, name: &str, tests: &mut Command) -> bool {
    let log = repository().join(format!("target/e2e-logs/{name}-tests.log"));
    let said = std::fs::File::create(&log).unwrap();
    let status = tests
        .env("LIVEKIT_URL", server.url("").replace("http://", "ws://"))
        .env("LIVEKIT_API_KEY", KEY)
        .env("LIVEKIT_API_SECRET", SECRET)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .status()
        .expect("tests/stacks is not installed: run tests/stacks/setup.sh, or ./sfu test");
    println!("{}", std::fs::read_to_string(&log).unwrap());
    status.success()
}

#[test]
fn nodes_own_tests() {
    let name = "nodes_own_tests";
    let Some(server) = server(name) else {
        return;
    };
    let mut tests = Command::new("node");
    tests
        .current_dir(stacks())
        .args([
            "node_modules/vitest/vitest.mjs",
            "run",
            "--root",
            ".",
            "--config",
            "livekit/vitest.config.mjs",
        ])
        .args(["--reporter", "verbose", "--disable-console-intercept"]);
    assert!(pass(&server, name, &mut tests), "{}", server.log_tail());
}

#[test]
fn pythons_own_tests() {
    const FILES: [&str; 7] = [
        "audio",
        "basic",
        "change_video_quality",
        "dc",
        "e2ee_per_participant",
        "e2ee_shared_key",
        "video",
    ];
    let name = "pythons_own_tests";
    let Some(server) = server(name) else {
        return;
    };
    let tests = |more: &[&str]| {
        let theirs = FILES.map(|file| format!("venv/livekit/tests/test_{file}.py"));
        let mut tests = Command::new(stacks().join("venv/bin/python"));
        tests
            .current_dir(stacks())
            .env("PYTHONPATH", stacks().join("livekit"))
            .args(["-m", "pytest", "--asyncio-mode=auto", "-v"])
            .args(["--rootdir=venv/livekit", "-o", "cache_dir=.pytest_cache"])
            .args(theirs)
            // By v1 they don't offer the dependency descriptor on what they receive: docs/limits.md.
            .args(["-k", "not av1-svc"])
            .args(["livekit/test_again.py", "livekit/test_service.py"])
            .args(more);
        tests
    };
    // They give themselves times of their own, which are short on a machine that does much else.
    let passed =
        pass(&server, name, &mut tests(&[])) || pass(&server, name, &mut tests(&["--last-failed"]));
    assert!(passed, "{}", server.log_tail());
}
