// SPDX-License-Identifier: MPL-2.0

//! `pipelines/rtsp-in`: viewers see what an RTSP server has, whoever starts first, and go on seeing it when it comes back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use sfu_tests::load;
use sfu_tests::ndi;
use sfu_tests::publisher::Publisher;
use sfu_tests::server::{Server, free_ports};

use crate::rtmp_in::watch;

/// An RTSP server with a test picture at `/live`, as a camera is one.
pub(crate) fn camera(name: &str, port: u16) -> Publisher {
    camera_with(name, port, &[])
}

/// The same with what a line says, if there is one.
fn camera_with(name: &str, port: u16, line: &[&str]) -> Publisher {
    let script = ndi::repository().join("tests/rtsp_server.py");
    let script = script.to_str().unwrap();
    let port = port.to_string();
    // The system's Python, for which the packages are.
    let mut arguments = vec![script, &port];
    arguments.extend(line);
    Publisher::start(name, "/usr/bin/python3", &arguments).unwrap()
}

/// Whether pictures come from a stream, as `/healthz` tells.
pub(crate) fn wait_for_health(server: &Server, stream: &str, healthy: bool) {
    let path = format!("/healthz?stream={stream}");
    let what = format!("health={healthy} of {stream}");
    let answer = server.wait_for(&what, || {
        Ok((server.get(&path).is_ok() == healthy).then_some(()))
    });
    answer.unwrap();
}

#[test]
fn what_an_rtsp_server_has_is_seen() {
    for (name, encode) in [("rtsp_in", "ENCODE=auto"), ("rtsp_copy", "ENCODE=never")] {
        let (port, _) = free_ports().unwrap();
        let url = format!("URL=rtsp://127.0.0.1:{port}/live");
        let keys = [encode, "STREAM=demo", "LAYERS=360:700k", &url];
        let server = Server::pipeline(name, "rtsp-in", &keys).unwrap();
        let _camera = camera(&format!("{name}_source"), port);
        watch(&server, "demo");
    }
}

#[test]
fn a_camera_that_returns_is_taken_again() {
    let (port, _) = free_ports().unwrap();
    let url = format!("URL=rtsp://127.0.0.1:{port}/live");
    let keys = ["ENCODE=never", "STREAM=demo", &url];
    let server = Server::pipeline("rtsp_returns", "rtsp-in", &keys).unwrap();
    let first = camera("rtsp_returns_1", port);
    server.wait_for_stream("demo").unwrap();
    let whep = server.url("/whep/demo");
    let tool = load::tool().unwrap();
    let arguments = ["--whep", &whep, "--viewers", "1", "--duration", "300s"];
    let mut viewer =
        Publisher::start("rtsp_returns_viewer", tool.to_str().unwrap(), &arguments).unwrap();
    let packets = || server.metric("sfu_packets_out_total");
    let wait_for_packets = |count| {
        let enough = || Ok(packets()?.checked_sub(count));
        server
            .wait_for(&format!("{count} packets"), enough)
            .unwrap()
    };
    wait_for_packets(100);
    drop(first);
    wait_for_health(&server, "demo", false);
    let before = packets().unwrap();
    let _second = camera("rtsp_returns_2", port);
    let more = wait_for_packets(before + 200);
    println!("{before} packets before, {} after", more + 200);
    assert!(viewer.runs());
    let sessions = server.metric("sfu_sessions").unwrap();
    let started = server.metric("sfu_sessions_opened_total").unwrap();
    assert_eq!((sessions, started), (1, 1), "the viewer kept its session");
}

/// A way to an RTSP server on which each packet comes twice. Returns its port.
fn doubling(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else {
                continue;
            };
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || double(BufReader::new(upstream), client));
        }
    });
    port
}

/// Hands on RTSP's messages, and packets of RTP between them (RFC 2326, 10.12) twice.
fn double(mut from: impl BufRead, mut to: impl Write) -> io::Result<()> {
    while let Some(&first) = from.fill_buf()?.first() {
        if first == b'$' {
            let mut packet = vec![0; 4];
            from.read_exact(&mut packet)?;
            let length = u16::from_be_bytes([packet[2], packet[3]]);
            packet.resize(4 + usize::from(length), 0);
            from.read_exact(&mut packet[4..])?;
            // Odd channels are RTCP's.
            let is_rtp = packet[1].is_multiple_of(2);
            for _ in 0..if is_rtp { 2 } else { 1 } {
                to.write_all(&packet)?;
            }
            continue;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            to.write_all(line.as_bytes())?;
            if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = told.trim().parse().unwrap_or_default();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        io::copy(&mut (&mut from).take(length), &mut to)?;
    }
    Ok(())
}

/// As some cameras send them. No source may be on probation for that.
#[test]
fn packets_that_come_twice_are_seen() {
    let (port, _) = free_ports().unwrap();
    let _camera = camera("rtsp_twice_source", port);
    let url = format!("URL=rtspt://127.0.0.1:{}/live", doubling(port));
    let server = Server::pipeline("rtsp_twice", "rtsp-in", &["STREAM=demo", &url]).unwrap();
    watch(&server, "demo");
}

/// Its connection stays: nothing but the silence tells.
#[test]
fn a_camera_that_goes_silent_is_taken_again() {
    let picture = "videotestsrc is-live=true num-buffers=100 ! video/x-raw,width=320,height=180,framerate=25/1 \
                   ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96";
    let sound = "audiotestsrc is-live=true ! audioconvert ! avenc_aac ! rtpmp4gpay name=pay1 pt=97";
    for (name, sound, says) in [
        ("rtsp_silent", "", "nothing has come"),
        ("rtsp_no_picture", sound, "no picture has come"),
    ] {
        let (port, _) = free_ports().unwrap();
        let _camera = camera_with(
            &format!("{name}_source"),
            port,
            &[&format!("( {picture} {sound} )")],
        );
        let url = format!("URL=rtsp://ann:secret@127.0.0.1:{port}/live");
        let server = Server::pipeline(name, "rtsp-in", &["STREAM=demo", &url]).unwrap();
        for healthy in [true, false, true] {
            wait_for_health(&server, "demo", healthy);
        }
        let (log, camera) = (
            server.log(),
            format!("failed at rtsp://127.0.0.1:{port}/live"),
        );
        assert!(log.contains(&format!("{camera}: {says}")), "{log}");
        assert!(!log.contains("secret"), "{log}");
    }
}

/// Connections are taken, and nothing is said on them.
#[test]
fn a_server_that_never_answers_is_called_again() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("URL=rtsp://127.0.0.1:{port}/live");
    let server = Server::pipeline("rtsp_unanswered", "rtsp-in", &["STREAM=demo", &url]).unwrap();
    let mut calls = (0..2).map(|_| {
        let call = silent.accept().unwrap();
        (std::time::Instant::now(), call)
    });
    let [(first, _one), (second, _other)] = [calls.next().unwrap(), calls.next().unwrap()];
    let between = second.duration_since(first);
    assert!(between.as_secs() < 17, "{between:?}: {}", server.log());
}
