// SPDX-License-Identifier: MPL-2.0

//! The program of the documents, as a Python application has it: it hears by signals of a viewer and its publisher, ends
//! both, and stops everything from within a handler.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sfu_tests::load::{self, Running};
use sfu_tests::{ndi, server};

/// With ports of its own.
fn program(http: u16, udp: u16) -> String {
    let text = std::fs::read_to_string(ndi::repository().join("docs/protocol.md")).unwrap();
    let start = text.find("```python\n").expect("a program") + "```python\n".len();
    let end = start + text[start..].find("```").expect("its end");
    let own = format!(
        "pipeline.add(server)\nserver.set_property('listen', '127.0.0.1:{http}')\nserver.set_property('udp-port', {udp})"
    );
    let program = text[start..end].replace("pipeline.add(server)", &own);
    assert!(program.contains(&own));
    program
}

#[test]
fn a_program_in_python_hears_of_viewers_and_ends_them() {
    let (http, udp) = server::free_ports().unwrap();
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", &program(http, udp)])
        .envs(server::environment().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let url = |path: &str| format!("http://127.0.0.1:{http}{path}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while ureq::get(&url("/healthz")).call().is_err() {
        assert!(Instant::now() < deadline, "it does not answer");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (whip, whep) = (url("/whip/show"), url("/whep/show"));
    let _peers = Command::new(load::tool().unwrap())
        .args(["--whip", &whip, "--whep", &whep])
        .args(["--viewers", "1", "--duration", "60s", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map(Running)
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    let status = loop {
        if let Some(status) = python.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut said = String::new();
    let out = python.0.stdout.as_mut().unwrap();
    out.read_to_string(&mut said).unwrap();
    println!("{said}");
    assert!(status.success(), "{status}");
    let lines: Vec<&str> = said.lines().collect();
    let position = |start: &str| lines.iter().position(|line| line.starts_with(start));
    let joined = position("joined show ").expect("a viewer");
    let left = position("left show ").expect("it left");
    let last = position("publisher left show whip").expect("the publisher left");
    assert!(joined < left && left < last, "{lines:?}");
}
