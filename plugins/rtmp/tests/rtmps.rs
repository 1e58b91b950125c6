// SPDX-License-Identifier: MPL-2.0

//! `rtmpserversrc` with a certificate: encoders publish by RTMPS, and by nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gst::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        // Tests of one process each have their own.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(format!("rtmps-{process}-{count}"));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Another certificate and its key.
    fn certify(&self) -> [PathBuf; 2] {
        let files = ["cert.pem", "key.pem"].map(|name| self.0.join(name));
        let line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost";
        let made = Command::new("openssl")
            .args(line.split(' '))
            .arg("-keyout")
            .arg(&files[1])
            .arg("-out")
            .arg(&files[0])
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server(gst::Pipeline);

impl Server {
    fn prepare([certificate, key]: &[PathBuf; 2]) -> Self {
        let line = format!(
            "rtmpserversrc name=in listen=127.0.0.1:0 certificate={} private-key={} in.video ! fakesink name=out sync=false async=false",
            certificate.display(),
            key.display()
        );
        Self(gst::parse::launch(&line).unwrap().downcast().unwrap())
    }

    fn port(&self) -> u16 {
        let port = self.0.by_name("in").unwrap().property::<u32>("port");
        u16::try_from(port).unwrap()
    }

    fn stat(&self, name: &str) -> u64 {
        let stats = self
            .0
            .by_name("in")
            .unwrap()
            .property::<gst::Structure>("stats");
        stats.get(name).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let began = Instant::now();
        self.0.set_state(gst::State::Null).unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
}

struct Encoder(Child);

impl Encoder {
    fn start(protocol: &str, port: u16) -> Self {
        let address = format!("{protocol}://127.0.0.1:{port}/live/any");
        let line = "-v error -re -f lavfi -i testsrc=s=160x120:r=25 -c:v libx264 -preset ultrafast -tune zerolatency -g 25 -f flv";
        let encoder = Command::new("ffmpeg")
            .args(line.split(' '))
            .arg(address)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(encoder.unwrap())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstrtmpserver::plugin_register_static().unwrap();
    });
}

/// The certificate that a server shows.
fn shown(port: u16) -> Vec<u8> {
    let asked = Command::new("sh")
        .arg("-c")
        .arg(format!("openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -outform der"))
        .output();
    asked.unwrap().stdout
}

#[test]
fn encoders_publish_by_rtmps_and_the_certificate_may_change() {
    init();
    let folder = Folder::new();
    let files = folder.certify();
    let server = Server::prepare(&files);
    let frames = Arc::new(AtomicU64::new(0));
    let seen = frames.clone();
    let sink = server.0.by_name("out").unwrap().static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        seen.fetch_add(1, Relaxed);
        gst::PadProbeReturn::Ok
    });
    server.0.set_state(gst::State::Playing).unwrap();
    let port = server.port();
    // Who begins, and goes on with a byte now and then, is cut; who speaks RTMP is, too.
    let slow = std::thread::spawn(move || {
        let mut slow = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let began = Instant::now();
        for byte in [0x16, 3, 1, 0x40, 0]
            .into_iter()
            .chain(std::iter::repeat(1))
        {
            if slow.write_all(&[byte]).is_err() {
                return began.elapsed();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        began.elapsed()
    });
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(&[3; 1537]).unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(
        said.len() < 100,
        "an alert, and not an answer of {} octets",
        said.len()
    );

    let encoder = Encoder::start("rtmps", port);
    until("frames", || frames.load(Relaxed) > 25);
    let first = shown(port);
    assert!(first.len() > 100);
    // A certificate that is not that of the key leaves the old ones in use, which is said.
    std::fs::write(&files[0], "nonsense").unwrap();
    let bus = server.0.bus().unwrap();
    let warning = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(10),
        &[gst::MessageType::Warning],
    );
    assert!(warning.is_some(), "it is said");
    assert!(shown(port) == first);
    folder.certify();
    until("another certificate", || {
        let now = shown(port);
        now.len() > 100 && now != first
    });
    let before = frames.load(Relaxed);
    until("more frames", || frames.load(Relaxed) > before + 25);
    drop(encoder);
    until("room", || {
        server.stat("cut") > 0
            && !server
                .0
                .by_name("in")
                .unwrap()
                .property::<bool>("connected")
    });
    let _again = Encoder::start("rtmps", port);
    let before = frames.load(Relaxed);
    until("frames again", || frames.load(Relaxed) > before + 25);
    let slow = slow.join().unwrap();
    assert!(slow < Duration::from_secs(8), "{slow:?}");
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_at_the_start() {
    init();
    let folder = Folder::new();
    let files = folder.certify();
    let wrong = |certificate: &Path, key: &Path| {
        let server = Server::prepare(&[certificate.to_owned(), key.to_owned()]);
        assert!(server.0.set_state(gst::State::Playing).is_err());
        let bus = server.0.bus().unwrap();
        let error = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        match error.view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => unreachable!(),
        }
    };
    let missing = folder.0.join("missing.pem");
    assert!(wrong(&missing, &files[1]).contains("missing.pem"));
    assert!(wrong(&files[1], &files[0]).contains("key.pem"));
}
