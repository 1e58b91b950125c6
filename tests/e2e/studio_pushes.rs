// SPDX-License-Identifier: MPL-2.0

//! `pipelines/studio` with `PUSH`: what the studio sends reaches two RTMP services. One of them crashes and comes back:
//! it gets the stream again, and the other one noticed nothing.

use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use sfu_tests::browser;
use sfu_tests::load;
use sfu_tests::rtmp::{Recorded, Service, longest_gap};
use sfu_tests::server::{Server, free_ports};

/// Stream keys, which nobody may read in a log.
const KEYS: [&str; 2] = ["first-secret", "second-secret"];

/// A studio that pushes to the services at these ports.
fn server(name: &str, ports: &[u16]) -> Server {
    let addresses = ports.iter().zip(KEYS);
    let addresses: Vec<_> = addresses
        .map(|(port, key)| format!("rtmp://127.0.0.1:{port}/live/{key}"))
        .collect();
    let push = format!("PUSH={}", addresses.join(", "));
    Server::pipeline(name, "studio", &["STREAM=show", &push]).unwrap()
}

/// Seconds that a recorder may wait for the keyframe that it begins with.
const UNTIL_KEYFRAME: u32 = 2;

/// A browser that is in the studio for so many seconds.
fn on_air(server: &Server, name: &str, codec: &str, seconds: u32) -> JoinHandle<Value> {
    let (base, seconds) = (server.url(""), seconds.to_string());
    let picture = browser::screenshot(name).unwrap();
    let codec = codec.to_owned();
    std::thread::spawn(move || {
        let mut arguments = vec!["--base", &base, "--stream", "show", "--codec", &codec];
        arguments.extend([
            "--seconds",
            &seconds,
            "--screenshot",
            picture.to_str().unwrap(),
        ]);
        browser::run("onair.mjs", &arguments).unwrap()
    })
}

fn check(name: &str, recorded: &Recorded, seconds: f64) {
    let Recorded {
        pictures,
        keyframes,
        sounds,
        ..
    } = recorded;
    println!(
        "{name}: {} pictures, at most {:.3} s apart, keyframes at {keyframes:.3?}; {} sounds, at most {:.3} s apart",
        pictures.len(),
        longest_gap(pictures),
        sounds.len(),
        longest_gap(sounds)
    );
    assert_eq!(recorded.codecs, ["h264", "aac"], "{name}");
    assert_eq!(recorded.broken, "", "{name}");
    for (what, moments) in [("pictures", pictures), ("sounds", sounds)] {
        assert!(moments.is_sorted(), "{name}: {what}");
        let long = moments.last().unwrap() - moments.first().unwrap();
        assert!(long > seconds - 2.0, "{name}: {long} s of {what}");
        assert!(longest_gap(moments) < 1.5, "{name}: a gap in {what}");
    }
    // What services ask for.
    assert!(longest_gap(keyframes) < 4.0, "{name}: {keyframes:?}");
}

#[test]
fn a_service_that_crashes_gets_the_stream_again_and_the_other_has_no_gap() {
    let ports = [free_ports().unwrap().0, free_ports().unwrap().0];
    let first = Service::start("studio_pushes_1", ports[0]).unwrap();
    let second = Service::start("studio_pushes_2", ports[1]).unwrap();
    let server = server("studio_pushes", &ports);
    let browser = on_air(&server, "studio_pushes", "H264", 32);
    server.wait_for_stream("show").unwrap();
    let whole = second
        .record(KEYS[1], "whole.flv", 20 + UNTIL_KEYFRAME)
        .unwrap();
    let before = first
        .record(KEYS[0], "before.flv", 5 + UNTIL_KEYFRAME)
        .unwrap();
    check("before", &before.finish().unwrap(), 5.0);
    assert_eq!(first.publishers().unwrap(), 1);

    drop(first);
    std::thread::sleep(Duration::from_secs(3));
    let first = Service::start("studio_pushes_1", ports[0]).unwrap();
    let after = first
        .record(KEYS[0], "after.flv", 5 + UNTIL_KEYFRAME)
        .unwrap();
    check("after", &after.finish().unwrap(), 5.0);
    check("whole", &whole.finish().unwrap(), 20.0);
    assert_eq!(second.publishers().unwrap(), 1, "the other one was cut");

    let seen = browser.join().unwrap();
    println!("{seen}");
    assert_eq!(seen["state"], "live");
    assert_eq!(seen["reconnects"], 0);
    let figures = seen["figures"].as_str().unwrap();
    assert!(figures.contains("Outputs\n2"), "{figures}");
    let said = server.log() + &server.get("/metrics").unwrap();
    assert!(said.contains("the push of show to"), "{said}");
    for key in KEYS {
        assert!(!said.contains(key), "a stream key is in the log");
    }
}

#[test]
fn a_browser_without_h264_is_encoded_for_the_service() {
    let port = free_ports().unwrap().0;
    let service = Service::start("studio_encodes", port).unwrap();
    let server = server("studio_encodes", &[port]);
    let browser = on_air(&server, "studio_encodes", "VP8", 14);
    server.wait_for_stream("show").unwrap();
    let recorded = service
        .record(KEYS[0], "vp8.flv", 6 + UNTIL_KEYFRAME)
        .unwrap();
    check("encoded", &recorded.finish().unwrap(), 6.0);
    assert_eq!(browser.join().unwrap()["reconnects"], 0);
}

/// What `ffprobe` finds at an address, once something is there: codecs, and how many packets of sound in three seconds.
fn sound_at(address: &str) -> Option<(String, usize)> {
    let mut command = Command::new("timeout");
    command.args(["20", "ffprobe", "-v", "error", "-of", "csv=p=0"]);
    command.args(["-show_entries", "stream=codec_name:packet=pts_time"]);
    command.args(["-read_intervals", "%+3"]);
    if address.starts_with("rtsp") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    let output = command.arg(address).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_codec = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let codecs: Vec<_> = said
        .lines()
        .filter(is_codec)
        .map(|line| line.trim_matches(','))
        .collect();
    let packets = said.lines().filter(|line| !is_codec(line)).count();
    (!codecs.is_empty()).then(|| (codecs.join(" "), packets))
}

/// Sound without a picture goes out by every way that there is.
#[test]
fn sound_alone_goes_out_by_every_way() {
    let (push, rtsp) = (free_ports().unwrap().0, free_ports().unwrap().0);
    let service = Service::start("sound_alone", push).unwrap();
    let logs = sfu_tests::ndi::repository().join("target/e2e-logs/sound_alone");
    let folder = logs.join("files");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let address = format!("rtmp://127.0.0.1:{push}/live/{}", KEYS[0]);
    let folder = folder.display();
    let server = Server::launch(
        "sound_alone",
        &format!(
            "hls-directory={folder}/hls pushes=show={address} audiotestsrc is-live=true wave=ticks ! sfusink stream=show \
             sfuhlssink stream=show directory={folder}/hls segment-duration=1000 \
             sfurecorder stream=show directory={folder}/rec \
             sfurtspserver listen=127.0.0.1:{rtsp}"
        ),
    )
    .unwrap();
    let waits = |what: &str, address: &str, codec: &str| {
        let found = server.wait_for(&format!("sound by {what}"), || Ok(sound_at(address)));
        let (codecs, packets) = found.unwrap();
        // FFmpeg lists what a program of MPEG-TS holds twice.
        let codecs = codecs.split(" ").next().unwrap_or_default();
        println!("{what}: {codecs}, {packets} packets");
        assert_eq!(codecs, codec, "{what}");
        assert!(packets > 50, "{what}: {packets}");
    };
    waits("RTMP push", &address, "aac");
    waits("RTSP", &format!("rtsp://127.0.0.1:{rtsp}/show"), "opus");
    waits("HLS", &server.url("/hls/show/index.m3u8"), "aac");
    let viewers = load::run(&[
        "--whep",
        &server.url("/whep/show"),
        "--viewers",
        "2",
        "--duration",
        "1s",
    ]);
    let viewers = viewers.unwrap();
    println!("{viewers}");
    assert_eq!(viewers["viewers_decrypted"], 2, "{viewers}");
    assert!(service.publishers().unwrap() >= 1);
    assert_eq!(server.metric("sfu_sessions_failed_total").unwrap(), 0);
    assert_eq!(server.stop(), Some(0));
    let recorded = std::fs::read_dir(logs.join("files/rec")).unwrap().flatten();
    let mut files: Vec<_> = recorded.map(|entry| entry.path()).collect();
    while let Some(folder) = files.iter().position(|path| path.is_dir()) {
        let folder = files.remove(folder);
        files.extend(
            std::fs::read_dir(folder)
                .unwrap()
                .flatten()
                .map(|e| e.path()),
        );
    }
    let files: Vec<_> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "mp4"))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let (codecs, packets) = sound_at(files[0].to_str().unwrap()).unwrap();
    println!("recording: {codecs}, {packets} packets");
    assert_eq!(codecs, "opus");
    assert!(packets > 50, "{packets}");
}
