// SPDX-License-Identifier: MPL-2.0

//! Data channels with peers that are not ours, unmodified and by name, over a network that loses 2 % both ways: Chromium, and
//! libdatachannel. Each begins with an offer of channels alone, and offers anew while messages go; and each is offered channels.
//!
//! A shard on a socket of its own, and a program that speaks lines of JSON: `tests/browser/channels.mjs`,
//! `tests/stacks/channels.mjs`. `SFU_MESSAGES` says how many messages on each channel.

mod host;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use host::{Host, Way};

const NEGOTIATIONS: u64 = 100;
/// For each thousand messages.
const PATIENCE: Duration = Duration::from_secs(200);

fn messages() -> u64 {
    let said = std::env::var("SFU_MESSAGES").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(1_000)
}

/// A program that is killed when dropped.
struct Program {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<Value>,
}

impl Program {
    fn start(script: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests")
            .join(script);
        let modules = script.with_file_name("node_modules");
        assert!(
            modules.exists(),
            "{modules:?} is not there: ./sfu test installs it"
        );
        let mut child = Command::new("node")
            .arg(script)
            .args([messages().to_string(), NEGOTIATIONS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node must be installed");
        let (tell, said) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line)
                    && tell.send(value).is_err()
                {
                    return;
                }
            }
        });
        Self {
            stdin: child.stdin.take().unwrap(),
            child,
            said,
        }
    }

    fn tell(&mut self, value: &Value) {
        writeln!(self.stdin, "{value}").expect("the program listens");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays the whole thing with a program. Returns what it saw.
fn play(script: &str) {
    let mut program = Program::start(script);
    let mut host = Host::new(0.02, 5);
    program.tell(&json!({ "offer": host.offer() }));
    let (end, mut seen) = (
        Instant::now() + PATIENCE * messages().div_ceil(1_000) as u32,
        None,
    );
    loop {
        assert!(
            Instant::now() < end,
            "{script}: it takes too long\n{host:?}"
        );
        let ended = program.child.try_wait().unwrap();
        assert!(ended.is_none(), "{script} ended with {ended:?}\n{host:?}");
        host.run();
        host.speak(messages());
        if let Ok(mut said) = program.said.try_recv() {
            if let Some(offer) = said["offer"].as_str() {
                let told = match host.answer(offer) {
                    Ok(answer) => json!({ "answer": answer }),
                    Err(error) => json!({ "error": error }),
                };
                program.tell(&told);
            } else if let Some(answer) = said["answer"].as_str() {
                host.take(answer);
            } else if said.get("seen").is_some() {
                seen = Some(said["seen"].take());
            }
        }
        if let Some(seen) = &seen
            && host.is_done(messages())
        {
            check_seen(script, seen);
            break;
        }
    }
    host.check(script, messages());
    program.tell(&json!({ "end": true }));
}

/// What came back to the peer.
fn check_seen(script: &str, seen: &Value) {
    println!("{script}: {} {}", seen["echoed"], seen["state"]);
    assert_eq!(seen["state"], "connected", "{script}");
    assert_eq!(seen["negotiations"], NEGOTIATIONS, "{script}");
    assert_eq!(seen["echoed"], json!(["", 0, 262_144]), "{script}");
    for (label, got) in seen["got"].as_object().unwrap() {
        let got: Vec<u64> = got
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect();
        Way::of(label).check(
            &format!("{script} {label}, there and back"),
            &got,
            messages(),
        );
    }
}

#[test]
fn chromium_keeps_its_channels_over_a_hundred_negotiations() {
    play("browser/channels.mjs");
}

#[test]
fn libdatachannel_keeps_its_channels_over_a_hundred_negotiations() {
    play("stacks/channels.mjs");
}
