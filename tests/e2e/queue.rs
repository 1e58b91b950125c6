// SPDX-License-Identifier: MPL-2.0

//! Through a device with a queue, as real links have one: what the kernel does not take is not lost, and keyframes of many
//! viewers do not overrun what is behind it. By the benchmark's rig, for a few seconds.

use std::process::{Command, Stdio};

use serde_json::Value;
use sfu_tests::{load, ndi};

/// Plays viewers through the rig. `None`: no namespaces can be made here.
fn rig(options: &[&str]) -> Option<Value> {
    let probe = format!("sfuprobe{}", std::process::id());
    let ip = |action: &str| {
        let status = Command::new("ip").args(["netns", action, &probe]).status();
        status.is_ok_and(|status| status.success())
    };
    if !ip("add") {
        eprintln!("skipped: network namespaces can't be made here (they need root)");
        return None;
    }
    ip("delete");
    let tool = load::tool().unwrap();
    let output = Command::new(ndi::repository().join("bench/rig.sh"))
        .args(["--plugins", tool.parent().unwrap().to_str().unwrap()])
        .args(["--load", tool.to_str().unwrap(), "--duration", "7s"])
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("the rig starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let seen: Value = serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"));
    println!("{seen}");
    Some(seen)
}

fn count(seen: &Value, name: &str) -> u64 {
    seen[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name}: {seen}"))
}

/// Everybody sees nearly every frame. How late they are depends on who else is on the machine.
fn all_play(seen: &Value) {
    assert_eq!(count(seen, "viewers_with_picture"), count(seen, "viewers"));
    assert_eq!(count(seen, "unrepaired_packets"), 0);
    assert_eq!(count(seen, "broken_frames"), 0);
    let frames = seen["frames_per_second_per_viewer"].as_f64().unwrap();
    assert!(frames > 29.0, "{frames} frames a second");
}

#[test]
fn a_large_queue_fills_the_sockets_buffer_and_nothing_is_lost() {
    if let Some(seen) = rig(&["--queue", "large", "--viewers", "60"]) {
        all_play(&seen);
        assert_eq!(count(&seen, "lost_packets"), 0);
        assert_eq!(count(&seen, "audio_lost_packets"), 0);
        assert_eq!(count(&seen, "queue_drops"), 0);
    }
}

#[test]
fn a_small_queue_drops_little_until_its_size_is_known() {
    if let Some(seen) = rig(&["--queue", "small", "--viewers", "60"]) {
        all_play(&seen);
        let drops = count(&seen, "queue_drops");
        assert!(drops <= 10, "{drops} dropped");
    }
}

/// Buffers beyond what an unprivileged process gets change nothing.
#[test]
fn a_large_buffer_loses_nothing_either() {
    let options = ["--queue", "large", "--viewers", "60", "--privileged"];
    if let Some(seen) = rig(&[&options[..], &["--send-buffer", "0"]].concat()) {
        all_play(&seen);
        assert_eq!(count(&seen, "lost_packets"), 0);
    }
}

/// What can't be sent to one viewer costs the others nothing.
#[test]
fn a_viewer_that_cannot_be_sent_to_harms_no_other() {
    if let Some(seen) = rig(&["--queue", "none", "--viewers", "30", "--bad-address"]) {
        all_play(&seen);
        assert_eq!(count(&seen, "lost_packets"), 0);
        let metrics = seen["metrics"].as_object().unwrap();
        // It was answered in vain, or not at all.
        let noticed = ["dropped", "unknown"].map(|what| {
            let value = &metrics[&format!("sfu_datagrams_{what}_total")];
            value.as_str().is_some_and(|count| count != "0")
        });
        assert_ne!(noticed, [false; 2], "the stranger came: {seen}");
        for (name, value) in metrics.iter().filter(|(n, _)| n.contains("segmentation")) {
            assert_ne!(value, "0", "{name}: all leave one by one");
        }
    }
}
