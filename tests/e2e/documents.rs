// SPDX-License-Identifier: MPL-2.0

//! Each line of README.md and docs/ that plays something is typed as it stands, on a machine of its own (a network and a
//! `/srv` that nobody else has, with a certificate where certbot would have put one), and has to play until Ctrl-C.

use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sfu_tests::ndi;

/// How long each plays, and how long its beginning and its end are waited for.
const PLAYS: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the documents have a certificate, and where one is made.
const CERTBOT: &str = "/etc/letsencrypt/live/sfu.example.org/";
const MADE: &str = "/srv/";

/// The lines of fenced blocks that play, with continued lines joined.
fn lines() -> Vec<String> {
    let root = ndi::repository();
    let documents = std::fs::read_dir(root.join("docs")).unwrap();
    let documents = documents.map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let mut lines = Vec::new();
    for document in [root.join("README.md")].into_iter().chain(documents) {
        let text = std::fs::read_to_string(document).unwrap();
        // Every second part is inside of a fence; the language stands on its first line.
        for block in text.split("\n```").skip(1).step_by(2) {
            let block = block.replace("\\\n", " ");
            lines.extend(block.lines().skip(1).map(|line| line.trim().to_owned()));
        }
    }
    let plays = |line: &String| {
        let run = line.starts_with("./sfu run ") && !line.ends_with("--print");
        run || line.starts_with("gst-launch-1.0 ")
    };
    lines.retain(plays);
    lines.sort();
    lines.dedup();
    lines
}

/// Waits until it is so, or it has waited for too long.
fn within(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

/// What is wrong with a line. Ctrl-C reaches all of it, as it does at a terminal.
fn wrong(line: &str) -> Option<String> {
    let script = "ip link set lo up; mount -t tmpfs tmpfs /srv; mount -t tmpfs tmpfs /tmp
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=sfu.example.org \
            -keyout /srv/privkey.pem -out /srv/fullchain.pem 2>/dev/null
        exec bash -c \"exec $1\"";
    let line = line.replace(CERTBOT, MADE);
    let says = tempfile::tempfile().unwrap();
    let mut typed = Command::new("unshare")
        .args(["-n", "-m", "bash", "-c", script, "bash", &line])
        .current_dir(ndi::repository())
        .envs(ndi::environment())
        .stdin(Stdio::null())
        .stdout(says.try_clone().unwrap())
        .stderr(says.try_clone().unwrap())
        .process_group(0)
        .spawn()
        .expect("unshare needs root");
    let said = || {
        let mut text = vec![0; says.metadata().unwrap().len() as usize];
        says.read_exact_at(&mut text, 0).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    let signal = |signal: &str, typed: &Child| {
        let group = format!("-{}", typed.id());
        let _ = Command::new("kill").args([signal, "--", &group]).status();
    };
    let mut played = false;
    within(|| {
        let said = said();
        let signs = ["playing", "Setting pipeline to PLAYING"];
        played = signs.iter().any(|sign| said.contains(sign));
        played || typed.try_wait().unwrap().is_some()
    });
    std::thread::sleep(PLAYS);
    signal("-INT", &typed);
    if !within(|| typed.try_wait().unwrap().is_some()) {
        signal("-KILL", &typed);
    }
    let status = typed.wait().unwrap();
    let said = said();
    let good = status.success() && played && !said.contains("ERROR");
    (!good).then(|| format!("{line}: {status}, played: {played}\n{said}"))
}

#[test]
fn each_command_of_the_documents_plays_as_it_is_typed() {
    let lines = lines();
    assert!(lines.len() > 20, "{lines:?}");
    // Two at a time, each with a network of its own.
    let (first, second) = lines.split_at(lines.len() / 2);
    let type_all =
        |lines: &[String]| -> Vec<String> { lines.iter().filter_map(|l| wrong(l)).collect() };
    let wrong = std::thread::scope(|scope| {
        let others = scope.spawn(|| type_all(second));
        let mut wrong = type_all(first);
        wrong.extend(others.join().unwrap());
        wrong
    });
    println!("{} commands typed", lines.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
