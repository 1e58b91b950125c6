// SPDX-License-Identifier: MPL-2.0

//! How who shows nothing is told what to show, so that programs show it by themselves.

use std::process::Command;

use gst::prelude::*;
use sfu_access::hash_password;
use sfu_access_rows::remote::{Asked, answer};

use super::{STRANGER, Served};

const BEARER: &str = "Bearer realm=\"sfu\"";
const BASIC: &str = "Basic realm=\"sfu\", charset=\"UTF-8\"";

#[test]
fn who_shows_nothing_is_asked_for_what_there_is() {
    let hash = hash_password("horse").unwrap();
    let hook = Asked::new(|_| answer(401, "")).url;
    for (rules, basic, words, makes_tokens) in [
        (None, false, "no access file names", false),
        (
            Some("loopback\n".to_owned()),
            false,
            "no access file names",
            false,
        ),
        (
            Some("key key play\n".to_owned()),
            false,
            "needs a token or key here",
            false,
        ),
        (
            Some("tokens secret\n".to_owned()),
            false,
            "needs a token or key here",
            true,
        ),
        (
            Some(format!("user ann {hash} play\n")),
            true,
            "needs a name and a password here",
            false,
        ),
        (
            Some(format!("tokens secret\nuser ann {hash} play\n")),
            true,
            "needs a token, a key or a password here",
            true,
        ),
        (
            Some(format!("ask {hook}\n")),
            true,
            "needs a token, a key or a password here",
            false,
        ),
    ] {
        let served = Served::new(
            "asks",
            rules.as_deref(),
            &[("trusted-proxies", "127.0.0.1")],
        );
        let (status, answer) = served.ask("POST", "/whip/cam1", "localhost", &[STRANGER]);
        assert_eq!(status, 401, "{rules:?}: {answer}");
        // One field a scheme.
        let asked: Vec<_> = answer
            .lines()
            .filter_map(|line| line.strip_prefix("www-authenticate: "))
            .collect();
        let expected: &[&str] = if basic { &[BEARER, BASIC] } else { &[BEARER] };
        assert_eq!(asked, expected, "{rules:?}");
        assert!(answer.contains(words), "{rules:?}: {answer}");
        assert_eq!(
            answer.contains("./sfu token"),
            makes_tokens,
            "{rules:?}: {answer}"
        );
    }
}

/// A dozen viewers behind one address, with players that ask for several things at a time.
#[test]
fn many_with_one_right_password_are_all_let_in() {
    let hash = hash_password("horse").unwrap();
    let rules = format!("loopback\nuser ann {hash} play=cam1\n");
    let proxies = [("trusted-proxies", "127.0.0.1")];
    let served = Served::new("at-once", Some(&rules), &proxies);
    let ask = || {
        // ann:horse
        let shown = ("Authorization", "Basic YW5uOmhvcnNl");
        let path = "/hls/cam1/index.m3u8";
        served.ask("GET", path, "localhost", &[STRANGER, shown])
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        let ended = asking.into_iter().map(|asking| asking.join().unwrap());
        ended.collect()
    });
    for (status, answer) in answers {
        assert_eq!(status, 200, "{answer}");
    }
}

/// FFmpeg looks for a scheme at the beginning of each field alone.
#[test]
fn ffprobe_shows_a_name_and_a_password() {
    let hash = hash_password("horse").unwrap();
    let rules = format!("loopback\nuser ann {hash} play=cam1\n");
    let served = Served::new("ffprobe", Some(&rules), &[]);
    let segment = served.folder.join("hls/cam1/v0-1.ts");
    let line = format!(
        "audiotestsrc num-buffers=100 ! avenc_mp2 ! mpegtsmux ! filesink location={}",
        segment.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let wait = gst::ClockTime::from_seconds(60);
    let ended = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(wait, &[gst::MessageType::Eos, gst::MessageType::Error]);
    assert_eq!(ended.unwrap().type_(), gst::MessageType::Eos);
    pipeline.set_state(gst::State::Null).unwrap();
    for (who, plays) in [("ann:horse@", true), ("ann:cow@", false), ("", false)] {
        let url = format!("http://{who}{}/hls/cam1/v0-1.ts", served.address);
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_name"])
            .args(["-of", "csv=p=0", &url])
            .output()
            .expect("ffprobe must be installed");
        let seen = String::from_utf8_lossy(&probe.stdout);
        let said = String::from_utf8_lossy(&probe.stderr);
        assert_eq!(seen.contains("mp2"), plays, "{who}: {seen} {said}");
        assert!(plays || said.contains("401"), "{who}: {said}");
    }
}
