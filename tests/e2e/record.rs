// SPDX-License-Identifier: MPL-2.0

//! `pipelines/record`: what is on the disk when the process is killed at any moment, when the disk is full, and when it
//! ends as it should; and what a browser plays of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sfu_tests::server::Server;
use sfu_tests::{browser, ndi};

/// Small pictures: what is tested is not the encoder.
const CHEAP: [&str; 4] = ["SOURCE=test", "WIDTH=320", "HEIGHT=240", "LAYERS=240:200k"];
const FRAGMENT: Duration = Duration::from_secs(1);
/// What waits in between: packets that may come late, the frame by which a fragment's end is known, a busy machine.
const ON_THE_WAY: Duration = Duration::from_millis(700);

/// A folder of the test's own, which is kept where the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = ndi::repository().join("target/e2e-logs").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => files.push(path),
                }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn record(name: &str, folder: &Path, keys: &[&str]) -> Server {
    let directory = format!("DIR={}", folder.display());
    let all: Vec<_> = [&CHEAP, keys, &[&directory]].concat();
    Server::pipeline(name, "record", &all).unwrap()
}

/// Decodes a file, which must give no error, and returns how long its pictures are.
fn decoded(file: &Path) -> Duration {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(file)
        // Each frame as it comes: none is left out or repeated for an even rate.
        .args([
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1:90000",
            "-f",
            "null",
            "-",
        ])
        .output()
        .expect("ffmpeg must be installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        file.display()
    );
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-of",
            "json",
            "-count_frames",
            "-show_entries",
        ])
        .args([
            "stream=codec_type,nb_read_frames:packet=codec_type,pts_time",
            "-show_packets",
        ])
        .arg(file)
        .output()
        .expect("ffprobe must be installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        file.display()
    );
    let probed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |list: &str, kind: &str| -> Vec<Value> {
        let all = probed[list].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .filter(|v| v["codec_type"] == kind)
            .collect()
    };
    let packets = of("packets", "video");
    let frames = of("streams", "video")[0]["nb_read_frames"]
        .as_str()
        .unwrap_or("0")
        .to_owned();
    assert_eq!(
        frames,
        packets.len().to_string(),
        "each frame of {} decodes",
        file.display()
    );
    assert!(!of("packets", "audio").is_empty(), "sound");
    let last = packets.last().and_then(|p| p["pts_time"].as_str()).unwrap();
    Duration::from_secs_f64(last.parse().unwrap())
}

/// When a recording began, as the API tells.
fn begun(server: &Server) -> Option<Duration> {
    let list = server.json("/api/recordings").ok()?;
    let first = list["recordings"].as_array()?.last()?;
    Some(Duration::from_millis(first["start_ms"].as_u64()?))
}

/// Records for that long after the first file has begun, and is killed. Returns what is missing at the end.
fn killed(n: u64, after: Duration) -> Duration {
    let folder = Folder::new(&format!("record_killed_{n}"));
    let server = record(&format!("record_killed_{n}"), &folder.0, &["SPLIT_TIME=3"]);
    let begun = server
        .wait_for("a recording", || Ok(begun(&server)))
        .unwrap();
    std::thread::sleep(after);
    server.kill();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let files = folder.files();
    let length: Duration = files.iter().map(|file| decoded(file)).sum();
    let missing = now.saturating_sub(begun).saturating_sub(length);
    println!(
        "killed after {after:?}: {} files, {missing:?} missing",
        files.len()
    );
    missing
}

#[test]
fn killed_at_any_moment_at_most_one_fragment_is_missing() {
    let seed = std::env::var("SFU_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or(20_260_921);
    println!("SFU_SEED={state}");
    let mut moment = || {
        // Knuth's generator; its higher bits are random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(500 + (state >> 33) % 4_000)
    };
    let moments: Vec<_> = (0..20).map(|n| (n, moment())).collect();
    let missing: Vec<_> = moments
        .chunks(4)
        .flat_map(|some| {
            let runs: Vec<_> = some
                .iter()
                .map(|&(n, after)| std::thread::spawn(move || killed(n, after)))
                .collect();
            // All end, also where one fails: none must be left behind.
            let ended: Vec<_> = runs
                .into_iter()
                .map(std::thread::JoinHandle::join)
                .collect();
            ended
                .into_iter()
                .map(|run| run.expect("a run without a failure"))
                .collect::<Vec<_>>()
        })
        .collect();
    let worst = missing.iter().max().unwrap();
    println!("20 kills: {worst:?} missing at most");
    assert!(*worst < FRAGMENT + ON_THE_WAY, "{missing:?}");
}

#[test]
fn what_a_killed_process_left_is_finished_by_the_next_one() {
    let folder = Folder::new("record_again");
    let server = record("record_again_1", &folder.0, &[]);
    server
        .wait_for("a recording", || Ok(begun(&server)))
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    server.kill();
    let left = folder.files();
    let before = decoded(&left[0]);
    let server = record("record_again_2", &folder.0, &["SOURCE=whip"]);
    let finished = server.wait_for("the index", || {
        let list = server.json("/api/recordings")?;
        Ok((list["recordings"][0]["state"] == "finished").then_some(list))
    });
    let listed = finished.unwrap()["recordings"][0]["duration_ms"]
        .as_u64()
        .unwrap();
    assert!(
        before.as_millis().abs_diff(listed.into()) < 200,
        "{before:?} {listed}"
    );
    assert_eq!(decoded(&left[0]), before, "nothing else changed");
    drop(server);
}

/// Packets that a stream has got so far.
fn packets(server: &Server) -> u64 {
    server
        .metric("sfu_stream_packets_in_total{stream=\"demo\"}")
        .unwrap_or_default()
}

/// Runs this test again where it may mount. `true` means: go on, this is in there.
fn may_mount(test: &str) -> bool {
    const INSIDE: &str = "SFU_TEST_MOUNTS";
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return true;
    }
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    let mut command = Command::new("unshare");
    if !root {
        command.arg("--map-root-user");
    }
    let status = command
        // As it is: where `/` is no mount point of its own, as in a chroot, its propagation can't be changed.
        .args(["--mount", "--propagation", "unchanged", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, OsString::from(test))
        .stdin(Stdio::null())
        .status()
        .expect("unshare (package util-linux) must be installed");
    assert!(status.success(), "{test} failed in its mount namespace");
    false
}

#[test]
fn a_full_disk_stops_the_recording_and_nothing_else() {
    if !may_mount("record::a_full_disk_stops_the_recording_and_nothing_else") {
        return;
    }
    let folder = Folder::new("record_full");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(&folder.0)
        .status();
    assert!(
        mounted.is_ok_and(|status| status.success()),
        "mount a tmpfs"
    );
    // MIN_FREE=0: it is the disk itself that says no.
    let server = record("record_full", &folder.0, &["MIN_FREE=0"]);
    server
        .wait_for("a recording", || Ok(begun(&server)))
        .unwrap();
    let ballast = folder.0.join("ballast");
    let taken = std::fs::write(&ballast, vec![1; 8 << 20]);
    assert!(taken.is_err(), "the disk is full");
    let says = |what: &str| {
        let what = what.to_owned();
        server.wait_for(&what, || Ok(server.log().contains(&what).then_some(())))
    };
    says("the disk of").unwrap();
    says("It goes on when there is room").unwrap();
    let before = packets(&server);
    server
        .wait_for("packets", || {
            Ok((packets(&server) > before + 60).then_some(()))
        })
        .unwrap();
    let whole: Vec<_> = folder
        .files()
        .into_iter()
        .filter(|file| *file != ballast)
        .collect();
    assert_eq!(whole.len(), 1);
    decoded(&whole[0]);

    std::fs::remove_file(&ballast).unwrap();
    says("demo is recorded again").unwrap();
    let second = || {
        folder
            .files()
            .into_iter()
            .find(|file| !whole.contains(file))
    };
    let second = server.wait_for("another file", || Ok(second())).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.stop(), Some(0));
    decoded(&second);
}

#[test]
fn files_are_finished_on_ctrl_c_and_a_browser_seeks_in_them() {
    let folder = Folder::new("record_plays");
    let server = record(
        "record_plays",
        &folder.0,
        &["SPLIT_TIME=9", "STREAM=news/cam1"],
    );
    let two = server.wait_for("two files", || {
        let list = server.json("/api/recordings?stream=news/cam1")?;
        let list = list["recordings"].as_array().cloned().unwrap_or_default();
        Ok((list.len() >= 2 && list[1]["state"] == "finished").then_some(list))
    });
    let two = two.unwrap();
    assert_eq!(two[0]["state"], "recording");
    let picture = browser::screenshot("record_plays").unwrap();
    for (width, height) in [("1280", "800"), ("390", "844")] {
        let base = server.url("");
        let arguments = [
            "--base",
            &base,
            "--seek",
            "6",
            "--width",
            width,
            "--height",
            height,
            "--screenshot",
        ];
        let arguments = [&arguments[..], &[picture.to_str().unwrap()]].concat();
        let seen = browser::run("recordings.mjs", &arguments).unwrap();
        println!("{seen}");
        assert_eq!(seen["overflow"], 0, "it fits {width} pixels");
        assert!(seen["duration"].as_f64().unwrap() >= 8.5);
        assert!(seen["seekable"].as_f64().unwrap() >= 8.5);
        for (what, at) in [("forward", 6.0), ("back", 1.0)] {
            let shown = seen[what]["mediaTime"].as_f64().unwrap();
            assert!((shown - at).abs() < 0.5, "{what}: {shown}");
            assert_eq!(seen[what]["height"], 240);
        }
        assert!(seen["after"].as_f64().unwrap() > 6.2, "it plays on");
        assert!(seen["sound"].as_u64().unwrap() > 0);
    }
    let asked = Instant::now();
    assert_eq!(server.stop(), Some(0));
    println!("Ctrl-C: ended after {:?}", asked.elapsed());
    for file in folder.files() {
        assert!(file.starts_with(folder.0.join("news/cam1")));
        let data = std::fs::read(&file).unwrap();
        assert!(
            data.windows(4).take(4_096).any(|w| w == b"sidx"),
            "{} has its index",
            file.display()
        );
        decoded(&file);
    }
}

#[test]
fn only_recordings_are_served() {
    let folder = Folder::new("record_serves");
    std::fs::write(folder.0.join("secret.mp4"), "no recording").unwrap();
    let server = record("record_serves", &folder.0.join("inside"), &[]);
    let listed = server.wait_for("a recording", || {
        let list = server.json("/api/recordings")?;
        Ok(list["recordings"][0]["file"].as_str().map(str::to_owned))
    });
    let file = listed.unwrap();
    std::fs::write(folder.0.join("inside/foreign.mp4"), "no recording").unwrap();
    std::os::unix::fs::symlink(
        folder.0.join("secret.mp4"),
        folder.0.join("inside/link.mp4"),
    )
    .unwrap();
    let curl = |path: &str, more: &[&str]| {
        let output = Command::new("curl")
            .args(["-s", "-i", "--path-as-is"])
            .args(more)
            .arg(server.url(path))
            .output()
            .expect("curl must be installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for path in [
        "foreign.mp4",
        "link.mp4",
        "../secret.mp4",
        "%2e%2e/secret.mp4",
        "/etc/passwd",
        "demo",
    ] {
        let answer = curl(&format!("/recordings/files/{path}"), &[]);
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let part = curl(
        &format!("/recordings/files/{file}?download=1"),
        &["-r", "4-7"],
    )
    .to_lowercase();
    for expected in [
        "http/1.1 206",
        "content-type: video/mp4",
        "content-range: bytes 4-7/",
        "attachment; filename=",
        "ftyp",
    ] {
        assert!(part.contains(expected), "{expected}: {part}");
    }
    let outside = curl(&format!("/recordings/files/{file}"), &["-r", "999999999-"]);
    assert!(outside.starts_with("HTTP/1.1 416"), "{outside}");
    let without = Server::launch("record_serves_nothing", "fakesrc ! fakesink").unwrap();
    let refused = ureq::get(without.url("/recordings"))
        .call()
        .unwrap_err()
        .to_string();
    assert!(refused.contains("404"), "{refused}");
}
