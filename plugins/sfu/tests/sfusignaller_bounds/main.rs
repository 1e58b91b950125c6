// SPDX-License-Identifier: MPL-2.0
//! What strangers may do to `sfusignaller`'s HTTP port: each is answered or cut in its time, costs nobody else anything, and
//! keeps no port when the element stops.

mod answers;
mod crowds;
mod requests;
#[path = "../running/mod.rs"]
mod running;
mod sessions;
mod stop;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// What NULL may take from any state.
pub(crate) const STOP: Duration = Duration::from_secs(2);
/// An answer that takes longer than this is none, on a machine that is shared with other tests.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

/// The tests have descriptors, the log and the machine in common: one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An element of its own router, so that tests don't meet.
pub(crate) fn signaller(properties: &[(&str, &str)]) -> gst::Element {
    running::init();
    let element = gst::ElementFactory::make("sfusignaller").build().unwrap();
    element.set_property("listen", "127.0.0.1:0");
    element.set_property("udp-port", 0u32);
    element.set_property("shards", 1u32);
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    element
}

pub(crate) fn started(properties: &[(&str, &str)]) -> (gst::Element, SocketAddr) {
    let element = signaller(properties);
    element.set_state(gst::State::Playing).unwrap();
    let address = address(&element);
    (element, address)
}

pub(crate) fn address(element: &gst::Element) -> SocketAddr {
    let port = u16::try_from(element.property::<u32>("port")).unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream.set_write_timeout(Some(PROMPT)).unwrap();
    stream
}

pub(crate) fn sending(address: SocketAddr, octets: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    // It may be answered, and closed, before all was sent.
    let _ = stream.write_all(octets);
    stream
}

/// One answer with its body, where the connection ends with it.
pub(crate) fn ask(address: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = sending(address, request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (status(&answer), answer)
}

pub(crate) fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.unwrap_or(0)
}

/// Nothing that was tried costs anybody else anything.
pub(crate) fn still_serves(address: SocketAddr) {
    let since = Instant::now();
    let (status, answer) = ask(address, "GET /healthz", "");
    assert_eq!(status, 200, "{answer}");
    assert!(since.elapsed() < PROMPT);
}

pub(crate) fn offer(direction: &str) -> String {
    let mut sdp = String::from(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789abcdef01234567\r\na=setup:actpass\r\na=mid:0\r\na=rtcp-mux\r\n\
         a=rtpmap:96 H264/90000\r\n\
         a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtcp-fb:96 nack pli\r\n",
    );
    let print = ["AB"; 32].join(":");
    write!(sdp, "a=fingerprint:sha-256 {print}\r\na={direction}\r\n").unwrap();
    sdp
}

pub(crate) fn post(address: SocketAddr, path: &str, fields: &str, offer: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/sdp{fields}\r\nX: ");
    ask(address, &head, offer)
}

/// The path of a session that was set up.
pub(crate) fn session(answer: &str) -> String {
    let line = answer.lines().find(|l| l.starts_with("location: "));
    line.expect("a session")["location: ".len()..]
        .trim()
        .to_owned()
}

pub(crate) fn publish(address: SocketAddr, stream: &str) -> String {
    let (status, answer) = post(address, &format!("/whip/{stream}"), "", &offer("sendonly"));
    assert_eq!(status, 201, "{answer}");
    // Its shard tells the stream what it sends: until then viewers are told to come again.
    let end = Instant::now() + PROMPT;
    while !ask(address, &format!("GET /api/streams/{stream}"), "")
        .1
        .contains("\"video\":{")
    {
        assert!(Instant::now() < end, "the stream does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    session(&answer)
}

pub(crate) fn statistic(element: &gst::Element, name: &str) -> u64 {
    element
        .property::<gst::Structure>("stats")
        .get(name)
        .unwrap()
}

/// Whether the other end has closed or reset the connection, once it has sent what it had to.
pub(crate) fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    let end = Instant::now() + within;
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if Instant::now() > end {
                    return false;
                }
            }
            Err(_) => return true,
        }
    }
}

pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sfusignaller-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder with a segment that no socket buffer holds.
pub(crate) fn with_a_large_file(name: &str) -> Folder {
    let folder = Folder::new(name);
    std::fs::create_dir_all(folder.0.join("cam")).unwrap();
    std::fs::write(folder.0.join("cam/v0-1.ts"), vec![0x47; 64 << 20]).unwrap();
    folder
}
