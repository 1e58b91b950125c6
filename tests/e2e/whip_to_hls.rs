// SPDX-License-Identifier: MPL-2.0

//! `pipelines/whip-to-hls`: a browser publishes by WHIP, and Chromium's own player, hls.js, OvenPlayer, FFmpeg and VLC play it by HLS.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sfu_tests::hls::{Checker, Playlist};
use sfu_tests::server::Server;
use sfu_tests::{browser, load, ndi};

const LIMIT: Duration = Duration::from_secs(40);

/// A folder for this test's HLS, which the next run empties.
fn folder(name: &str) -> PathBuf {
    let folder = ndi::repository().join("target/e2e-logs").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn checker(server: &Server, stream: &str) -> Checker {
    let base = server.url(&format!("/hls/{stream}/"));
    Checker::new(Box::new(move |name| {
        let mut response = ureq::get(format!("{base}{name}")).call().ok()?;
        response.body_mut().read_to_vec().ok()
    }))
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// A player of its own, killed when dropped.
struct Player {
    child: Child,
    log: PathBuf,
}

impl Player {
    fn start(name: &str, command: &mut Command) -> Self {
        let log = ndi::repository().join(format!("target/e2e-logs/{name}.log"));
        let output = File::create(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stderr(output.try_clone().unwrap());
        let child = command.stdout(output).spawn();
        let child = child
            .unwrap_or_else(|e| panic!("{name} does not start ({e}): run ./sfu packages test"));
        Self { child, log }
    }

    /// Decodes so many seconds, and says what is wrong with them.
    fn ffmpeg(url: &str, seconds: &str) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "warning", "-i", url, "-t", seconds]);
        // Else its own output has two pictures of one time where the camera's are close together.
        command.args(["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
        command.args(["-f", "null", "-"]);
        Self::start("whip_to_hls_ffmpeg", &mut command)
    }

    /// Plays for so many seconds, into nothing. VLC refuses to be root.
    fn vlc(url: &str, seconds: &str) -> Self {
        let is_root = Command::new("id")
            .arg("-u")
            .output()
            .is_ok_and(|o| o.stdout == b"0\n");
        let mut command = match is_root {
            true => Command::new("runuser"),
            false => Command::new("cvlc"),
        };
        if is_root {
            command.args(["-u", "nobody", "--", "cvlc"]);
        }
        let time = format!("--run-time={seconds}");
        command.args([
            "-vv",
            &time,
            "--play-and-exit",
            "--vout=dummy",
            "--aout=dummy",
        ]);
        command.args(["--no-media-library", url, "vlc://quit"]);
        command
            .env("HOME", std::env::temp_dir())
            .current_dir(std::env::temp_dir());
        Self::start("whip_to_hls_vlc", &mut command)
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has said when it ended well.
    fn said(mut self) -> String {
        let end = Instant::now() + LIMIT;
        while !self.is_over() {
            assert!(Instant::now() < end, "{} goes on", self.log.display());
            std::thread::sleep(Duration::from_millis(100));
        }
        let text = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a page with a player has seen: pictures, sound, and no error.
fn check_page(name: &str, seen: &Value, seconds: f64) {
    println!("{name}: {seen}");
    let (begun, played) = (&seen["begun"], &seen["played"]);
    let more = |key: &str| number(&played[key]) - number(&begun[key]);
    assert!(
        more("time") > seconds * 0.7,
        "{name}: {} s of {seconds} s",
        more("time")
    );
    assert!(more("frames") > 10.0, "{name}: {} pictures", more("frames"));
    assert!(more("audioBytes") > 0.0, "{name}: no sound");
    assert!(number(&played["height"]) > 0.0, "{name}");
    assert!(played["error"].is_null(), "{name}");
}

/// H.264 and AAC, as ffprobe sees them.
fn probe(url: &str) {
    let entries = ["-show_entries", "stream=codec_name", "-of", "csv=p=0"];
    let output = Command::new("ffprobe")
        .args(["-v", "error"])
        .args(entries)
        .arg(url)
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("h264") && text.contains("aac"), "{text}");
}

fn is_whole(folder: &Path) -> bool {
    let mut files = std::fs::read_dir(folder).unwrap();
    files.all(|file| {
        !file
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".part")
    })
}

#[test]
fn every_player_plays_what_a_browser_publishes() {
    let directory = folder("whip_to_hls");
    let dir = format!("DIR={}", directory.display());
    let server = Server::pipeline("whip_to_hls", "whip-to-hls", &[&dir, "SEGMENTS=5"]).unwrap();
    let base = server.url("");
    let browser = std::thread::spawn(move || {
        let picture = browser::screenshot("whip_to_hls").unwrap();
        let picture = picture.to_str().unwrap();
        let arguments = [
            "--base",
            &base,
            "--seconds",
            "5",
            "--keep",
            "8",
            "--screenshot",
            picture,
        ];
        browser::run("hls.mjs", &arguments).unwrap()
    });
    let mut checker = checker(&server, "demo");
    let begun = checker.until("three layers", LIMIT, |all| all.len() == 3);
    let url = server.url("/hls/demo/index.m3u8");
    let mut ffmpeg = Player::ffmpeg(&url, "20");
    let whep = server.url("/whep/demo");
    let watched = load::run(&["--whep", &whep, "--viewers", "2", "--duration", "2s"]).unwrap();
    assert_eq!(watched["viewers_with_picture"], 2, "by WHEP as well");
    let vlc = Player::vlc(&url, "6");
    probe(&url);
    while !ffmpeg.is_over() {
        let all = checker.look().unwrap();
        // The publisher's own layers, no longer than that after the camera.
        let behind = all.values().filter_map(Playlist::behind).max().unwrap();
        assert!(behind < Duration::from_secs(12), "{behind:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(ffmpeg.said(), "", "FFmpeg warns of nothing");
    let said = vlc.said();
    assert!(said.contains("Received first picture"), "VLC shows nothing");
    assert!(
        said.contains("faad") || said.contains("mp4a"),
        "VLC plays no sound"
    );
    let seen = browser.join().unwrap();
    if !seen["native"].is_null() {
        check_page("Chromium's own player", &seen["native"], 5.0);
    }
    check_page("hls.js", &seen["hlsjs"], 5.0);
    assert_eq!(seen["hlsjs"]["played"]["levels"], 3);
    assert_eq!(seen["hlsjs"]["played"]["faults"], serde_json::json!([]));
    check_page("OvenPlayer", &seen["ovenplayer"], 5.0);
    assert_eq!(
        seen["ovenplayer"]["played"]["faults"],
        serde_json::json!([])
    );
    println!(
        "hls.js is {} ms behind",
        seen["hlsjs"]["played"]["latencyMs"]
    );
    assert!(checker.seen > 3 * 5, "{}", checker.seen);
    let info = server.json("/api/streams").unwrap();
    println!("{info} {begun:?}");
    drop(server);
    // Ctrl-C: the playlists end, and nothing half is left.
    let last = std::fs::read_to_string(directory.join("demo/v0.m3u8")).unwrap();
    assert!(last.ends_with("#EXT-X-ENDLIST\n"), "{last}");
    assert!(is_whole(&directory.join("demo")));
}
