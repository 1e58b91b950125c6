// SPDX-License-Identifier: MPL-2.0

//! `pipelines/srt-in`: encoders call by SRT, each with a stream and its passphrase, and viewers see them, also when they
//! call again after a crash; what some of twenty send that is broken hurts nobody else.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sfu_tests::publisher::Publisher;
use sfu_tests::server::{Server, free_ports};
use sfu_tests::{load, ndi};

use crate::rtmp_in::{kick, watch};

/// How long the files are that callers send again and again.
const SECONDS: u64 = 4;
/// A datagram of seven packets of a transport stream.
const DATAGRAM: usize = 7 * 188;

fn wait_until_gone(server: &Server, stream: &str) {
    let gone = || {
        let info = server.json(&format!("/api/streams/{stream}"));
        Ok(info.map_or(Some(()), |info| (info["live"] == false).then_some(())))
    };
    server.wait_for("the stream to be gone", gone).unwrap();
}

#[test]
fn an_encoder_that_calls_is_seen_and_comes_back() {
    let port = free_ports().unwrap().1;
    let srt_port = format!("SRT_PORT={port}");
    let keys = [
        "KEY=correct-horse",
        "KEYS=news/cam1:battery-staple",
        "STREAM=demo",
        &srt_port,
    ];
    let server = Server::pipeline("srt_in", "srt-in", &keys).unwrap();
    let call = |id: &str, key: &str| {
        let id = id.replace('#', "%23");
        format!("srt://127.0.0.1:{port}?mode=caller&passphrase={key}&streamid={id}")
    };
    for (name, id, key, stream) in [
        ("srt_1", "", "correct-horse", "demo"),
        ("srt_2", "", "correct-horse", "demo"),
        ("srt_3", "news/cam1", "battery-staple", "news/cam1"),
        (
            "srt_4",
            "#!::r=studio2,m=publish",
            "correct-horse",
            "studio2",
        ),
    ] {
        let strangers = [("demo", "wrong-horse"), ("news/cam1", "correct-horse")];
        let _strangers = strangers.map(|(id, key)| {
            let stranger = format!("{name}_stranger");
            Publisher::ffmpeg(&stranger, false, "mpegts", &call(id, key)).unwrap()
        });
        // FFmpeg encodes, srt-live-transmit is who calls: it is SRT's own program.
        let from = free_ports().unwrap().1;
        let local = format!("udp://127.0.0.1:{from}");
        let transmit = ["-q", "-a:no", &local, &call(id, key)];
        let caller = Publisher::start(name, "srt-live-transmit", &transmit).unwrap();
        let encoder = format!("{name}_encoder");
        let local = format!("{local}?pkt_size=1316");
        let _encoder = Publisher::ffmpeg(&encoder, false, "mpegts", &local).unwrap();
        watch(&server, stream);
        if name == "srt_4" {
            // The API ends it.
            kick(&server, stream);
            caller.ended(name).unwrap();
        } else {
            drop(caller);
        }
        wait_until_gone(&server, stream);
    }
}

/// A transport stream of a few seconds, and where it is.
fn file(name: &str, codecs: &str) -> (PathBuf, Vec<u8>) {
    let path = ndi::repository().join(format!("target/e2e-logs/srt_{name}.ts"));
    let sources = "-nostdin -loglevel error -y -f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=440";
    let made = Command::new("ffmpeg")
        .args(sources.split_whitespace())
        .args(codecs.split_whitespace())
        .args(["-t", &SECONDS.to_string(), "-f", "mpegts"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success(), "ffmpeg makes no {name}");
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

/// With which languages a stream has sound.
pub(crate) fn languages(server: &Server, stream: &str) -> Vec<String> {
    let info = server.json(&format!("/api/streams/{stream}"));
    let tracks = info
        .ok()
        .and_then(|info| info["audio"]["tracks"].as_array().cloned());
    let tracks = tracks.unwrap_or_default();
    let language = |track: &serde_json::Value| track["language"].as_str().map(str::to_owned);
    tracks
        .iter()
        .map(|track| language(track).unwrap_or_default())
        .collect()
}

#[test]
fn several_languages_are_taken_and_one_is_not_waited_for() {
    let port = free_ports().unwrap().1;
    let srt_port = format!("SRT_PORT={port}");
    let server = Server::pipeline("srt_languages", "srt-in", &["TRACKS=2", &srt_port]).unwrap();
    let codecs = "-c:v libx264 -preset ultrafast -bf 0 -g 30 -pix_fmt yuv420p -c:a aac -map 0:v";
    for (stream, tracks, expected) in [
        (
            "two",
            "-map 1:a -map 1:a -metadata:s:a:0 language=eng -metadata:s:a:1 language=ger",
            &["en", "de"][..],
        ),
        ("one", "-map 1:a -metadata:s:a:0 language=eng", &["en"]),
        ("none", "", &[]),
    ] {
        let (_, bytes) = file(stream, &format!("{codecs} {tracks}"));
        let _caller = Raw::call(port, stream, bytes);
        server.wait_for_stream(stream).unwrap();
        let has = || Ok((languages(&server, stream) == expected).then_some(()));
        server
            .wait_for(&format!("sound in {expected:?}"), has)
            .unwrap();
    }
}

/// Who calls with these bytes, again and again, as if they were a stream of so many seconds.
struct Raw {
    _caller: Publisher,
    ends: Arc<AtomicBool>,
    sends: Option<JoinHandle<()>>,
}

impl Raw {
    fn call(port: u16, id: &str, bytes: Vec<u8>) -> Self {
        let from = free_ports().unwrap().1;
        let local = format!("udp://127.0.0.1:{from}");
        let call = format!("srt://127.0.0.1:{port}?mode=caller&streamid={id}");
        let name = format!("srt_many_{id}");
        let arguments = ["-q", &local, &call];
        let caller = Publisher::start(&name, "srt-live-transmit", &arguments).unwrap();
        let ends = Arc::<AtomicBool>::default();
        let over = ends.clone();
        let sends = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let each = Duration::from_secs(SECONDS) * DATAGRAM as u32 / bytes.len() as u32;
            let start = Instant::now();
            for (n, datagram) in (0u32..).zip(bytes.chunks(DATAGRAM).cycle()) {
                if over.load(Relaxed) {
                    return;
                }
                std::thread::sleep((each * n).saturating_sub(start.elapsed()));
                // Nobody may listen yet, or any more.
                let _ = socket.send_to(datagram, ("127.0.0.1", from));
            }
        });
        Self {
            _caller: caller,
            ends,
            sends: Some(sends),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let _ = self.sends.take().map(JoinHandle::join);
    }
}

/// Pictures and sound that cannot be read.
fn scrambled(mut bytes: Vec<u8>) -> Vec<u8> {
    for packet in bytes.chunks_exact_mut(188) {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        if pid == 0x100 || pid == 0x101 {
            packet[3] |= 0x80;
            packet[12..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
    }
    bytes
}

fn random(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

#[test]
fn of_twenty_callers_five_are_broken_and_the_others_do_not_notice() {
    const H264: &str =
        "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 30 -b:v 300k";
    let port = free_ports().unwrap().1;
    let srt_port = format!("SRT_PORT={port}");
    let server = Server::pipeline("srt_many", "srt-in", &["ENCODE=never", &srt_port]).unwrap();
    let (path, good) = file("good", &format!("{H264} -c:a aac"));
    let path = path.to_str().unwrap();
    let good_names: Vec<_> = (0..15).map(|n| format!("good{n}")).collect();
    let mut callers: Vec<_> = good_names
        .iter()
        .map(|id| {
            let call = format!("srt://127.0.0.1:{port}?mode=caller&pkt_size=1316&streamid={id}");
            let again = "-nostdin -loglevel warning -re -stream_loop -1 -i";
            let mut arguments: Vec<_> = again.split_whitespace().collect();
            arguments.extend([path, "-c", "copy", "-f", "mpegts", &call]);
            Publisher::start(&format!("srt_many_{id}"), "ffmpeg", &arguments).unwrap()
        })
        .collect();
    let hevc = "-c:v libx265 -preset ultrafast -g 30 -b:v 300k -x265-params log-level=error";
    let hevc = file("hevc", &format!("{hevc} -c:a aac")).1;
    let mpeg2 = file("mpeg2", "-c:v mpeg2video -b:v 500k -c:a mp2").1;
    // The programs change with the codecs and their places, and back.
    let other = file(
        "other",
        &format!("{H264} -c:a ac3 -mpegts_start_pid 0x200 -mpegts_pmt_start_pid 0x1100"),
    )
    .1;
    let changes = [&good[..], &other, &mpeg2].concat();
    let broken = [
        ("hevc", hevc),
        ("mpeg2", mpeg2),
        ("changes", changes),
        ("scrambled", scrambled(good.clone())),
        ("random", random(good.len())),
    ];
    let _broken: Vec<_> = broken
        .into_iter()
        .map(|(id, bytes)| Raw::call(port, id, bytes))
        .collect();
    for id in &good_names {
        server.wait_for_stream(id).unwrap();
    }
    // What there is of them that can be played: the sound.
    for id in ["hevc", "mpeg2"] {
        let sound = || {
            let info = server.json(&format!("/api/streams/{id}"))?;
            Ok((info["audio"]["codec"] == "opus" && info["live"] == true).then_some(()))
        };
        server.wait_for(id, sound).unwrap();
    }
    let cut = |id: &str| {
        let said = format!("of stream {id} is cut: ");
        server.wait_for(&said, || Ok(server.log().contains(&said).then_some(())))
    };
    cut("random").unwrap();
    cut("scrambled").unwrap();
    for id in ["good0", "good14"] {
        let whep = server.url(&format!("/whep/{id}"));
        let seen = load::run(&["--whep", &whep, "--viewers", "1", "--duration", "4s"]).unwrap();
        println!("{id}: {seen}");
        assert_eq!(
            (&seen["viewers_with_picture"], &seen["broken_frames"]),
            (&1.into(), &0.into())
        );
    }
    for (id, caller) in good_names.iter().zip(&mut callers) {
        assert!(caller.runs(), "{id} was cut");
        server.wait_for_stream(id).unwrap();
    }
    let log = server.log();
    for id in ["hevc", "mpeg2"] {
        let said = format!("sends as stream {id} this is not used");
        let warnings = log
            .lines()
            .filter(|l| l.starts_with("sfu-run: WARNING") && l.contains(&said));
        assert_eq!(warnings.count(), 1, "{id}");
    }
    assert_eq!(server.stop(), Some(0));
}
