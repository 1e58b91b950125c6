// SPDX-License-Identifier: MPL-2.0
//! `sfusignaller` alone: ports, properties, errors. What it answers is in `tests/e2e/bad_input.rs`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use gst::prelude::*;

fn signaller(properties: &[(&str, &str)]) -> gst::Element {
    gst::init().unwrap();
    gstsfu::plugin_register_static().unwrap();
    let element = gst::ElementFactory::make("sfusignaller").build().unwrap();
    element.set_property("listen", "127.0.0.1:0");
    element.set_property("udp-port", 0u32);
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    element
}

fn get(port: u32, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap_or(0)))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The one error with which an element does not start.
fn error(element: &gst::Element) -> String {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus
        .pop_filtered(&[gst::MessageType::Error])
        .expect("an error");
    assert!(
        bus.pop_filtered(&[gst::MessageType::Error]).is_none(),
        "one is enough"
    );
    match message.view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        _ => unreachable!("only errors are popped"),
    }
}

#[test]
fn it_answers_while_it_runs_and_frees_its_ports() {
    let element = signaller(&[("shards", "2")]);
    for _ in 0..3 {
        element.set_state(gst::State::Ready).unwrap();
        let port: u32 = element.property("port");
        let page = get(port, "/metrics").unwrap();
        assert!(
            page.contains("# TYPE sfu_sessions gauge\nsfu_sessions 0\n"),
            "{page}"
        );
        assert!(page.contains("# HELP sfu_datagrams_in_total "), "{page}");
        let stats = element.property::<gst::Structure>("stats");
        assert_eq!(stats.get::<gst::Array>("udp-ports").unwrap().len(), 2);
        element.set_state(gst::State::Null).unwrap();
        assert_eq!(element.property::<u32>("port"), 0);
        assert!(get(port, "/healthz").is_err(), "the port is closed");
    }
}

/// What a request is answered with, as head and body.
fn ask(port: u32, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn hls_is_served_as_players_and_caches_want_it() {
    let root = std::env::temp_dir().join(format!("sfusignaller-hls-{}", std::process::id()));
    let folder = root.join("hls/news/cam1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.m3u8"), "#EXTM3U\n").unwrap();
    std::fs::write(folder.join("v0-7.ts"), "0123456789").unwrap();
    std::fs::write(folder.join("notes.txt"), "secret").unwrap();
    std::fs::write(folder.join(".v0-8.part"), "secret").unwrap();
    std::fs::write(root.join("outside.m3u8"), "secret").unwrap();
    std::os::unix::fs::symlink(root.join("outside.m3u8"), folder.join("link.m3u8")).unwrap();
    let directory = root.join("hls");
    let element = signaller(&[("hls-directory", directory.to_str().unwrap())]);
    element.set_state(gst::State::Ready).unwrap();
    let port: u32 = element.property("port");

    let (head, body) = ask(port, "GET /hls/news/cam1/index.m3u8 HTTP/1.1");
    assert!(
        head.starts_with("http/1.1 200") && body == "#EXTM3U\n",
        "{head}"
    );
    for line in [
        "content-type: application/vnd.apple.mpegurl",
        "cache-control: no-cache",
        "access-control-allow-origin: *",
        "last-modified: ",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    let (head, body) = ask(
        port,
        "GET /hls/news/cam1/v0-7.ts HTTP/1.1\r\nRange: bytes=2-4",
    );
    assert!(head.starts_with("http/1.1 206") && body == "234", "{head}");
    assert!(head.contains("content-range: bytes 2-4/10"), "{head}");
    assert!(head.contains("content-type: video/mp2t"), "{head}");
    assert!(head.contains("immutable"), "{head}");
    let (head, body) = ask(port, "HEAD /hls/news/cam1/v0-7.ts HTTP/1.1");
    assert!(
        head.contains("content-length: 10") && body.is_empty(),
        "{head}"
    );
    let (head, _) = ask(port, "OPTIONS /hls/news/cam1/v0-7.ts HTTP/1.1");
    assert!(
        head.contains("access-control-allow-headers: ") && head.contains(" range,"),
        "{head}"
    );
    let (head, body) = ask(port, "GET /hls/news/cam1 HTTP/1.1");
    assert!(
        head.contains("text/html") && body.contains("/assets/hls.js"),
        "{head}"
    );
    let (head, _) = ask(port, "GET /hls/news%2Fcam1/?token=a HTTP/1.1");
    assert!(head.contains("location: /hls/news/cam1?token=a"), "{head}");
    for path in [
        "news/cam1/link.m3u8",
        "news/cam1/other.m3u8",
        "../outside.m3u8",
        "..%2foutside.m3u8",
        "news/../../outside.m3u8",
        "news/%2e%2e/%2e%2e/outside.m3u8",
        "news/cam1/..%2f..%2f..%2foutside.m3u8",
        "news/cam1%00/index.m3u8",
        "%2fetc%2fpasswd",
        "/etc/passwd.ts",
    ] {
        let (head, body) = ask(port, &format!("GET /hls/{path} HTTP/1.1"));
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
        assert!(!body.contains("secret"), "{path}");
    }
    // As far as anyone can tell these are streams' names, of which there are pages.
    for path in ["news/cam1/notes.txt", "news/cam1/.v0-8.part"] {
        let (_, body) = ask(port, &format!("GET /hls/{path} HTTP/1.1"));
        assert!(body.starts_with("<!doctype html>"), "{path}: {body}");
    }
    let (head, body) = ask(port, "GET /hls/camera/index.m3u8 HTTP/1.1");
    assert!(
        head.contains("retry-after: 1") && body.contains("sfuhlssink"),
        "{head} {body}"
    );
    let (head, _) = ask(
        port,
        "POST /hls/news/cam1/index.m3u8 HTTP/1.1\r\nContent-Length: 0",
    );
    assert!(head.starts_with("http/1.1 405"), "{head}");
    element.set_state(gst::State::Null).unwrap();
    std::fs::remove_dir_all(root).unwrap();

    let off = signaller(&[]);
    off.set_state(gst::State::Ready).unwrap();
    let (head, body) = ask(off.property("port"), "GET /hls/a/index.m3u8 HTTP/1.1");
    assert!(
        head.starts_with("http/1.1 404") && body.contains("hls-directory"),
        "{body}"
    );
    off.set_state(gst::State::Null).unwrap();
}

#[test]
fn what_crawlers_and_browsers_ask_for_is_no_player() {
    let element = signaller(&[]);
    element.set_state(gst::State::Ready).unwrap();
    let port = element.property("port");
    let (head, body) = ask(port, "GET /robots.txt HTTP/1.1");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert_eq!(body, "User-agent: *\nDisallow: /\n");
    let (head, _) = ask(port, "GET /favicon.ico HTTP/1.1");
    assert!(head.starts_with("http/1.1 404"), "{head}");
    for prefix in ["", "/publish", "/studio", "/room"] {
        let (head, _) = ask(port, &format!("GET {prefix}/news%2Fcam1?a=b HTTP/1.1"));
        assert!(head.starts_with("http/1.1 308"), "{prefix}: {head}");
        let to = format!("location: {prefix}/news/cam1?a=b");
        assert!(head.contains(&to), "{prefix}: {head}");
    }
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn an_address_that_is_not_found_is_told_once() {
    // It gives no answer.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = format!("stun:{}", silent.local_addr().unwrap());
    let element = signaller(&[("announce-address", server.as_str())]);
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    element.set_state(gst::State::Ready).unwrap();
    let warnings = [gst::MessageType::Warning];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &warnings);
    let message = message.expect("a warning");
    let gst::MessageView::Warning(warning) = message.view() else {
        unreachable!("only warnings are popped");
    };
    let told = warning.error().message().to_owned();
    assert!(told.contains(&server), "{told}");
    let (_, body) = ask(element.property("port"), "GET /api/v1/server HTTP/1.1");
    let named = format!("\"not_announced\":[\"{server}: ");
    assert!(body.contains(&named), "{body}");
    let again = bus.timed_pop_filtered(gst::ClockTime::from_seconds(3), &warnings);
    assert!(again.is_none());
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn two_signallers_have_a_port_each() {
    let (one, two) = (signaller(&[]), signaller(&[("router", "second")]));
    for element in [&one, &two] {
        element.set_state(gst::State::Playing).unwrap();
    }
    let ports = [&one, &two].map(|e| e.property::<u32>("port"));
    assert_ne!(ports[0], ports[1]);
    for port in ports {
        assert!(get(port, "/healthz").unwrap().ends_with("ok\n"));
        let health = get(port, "/healthz?stream=nobody").unwrap();
        assert!(health.contains(" 503 "), "{health}");
        assert!(health.contains("the stream nobody"), "{health}");
    }
    for element in [one, two] {
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn what_is_wrong_is_one_error_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let udp_port = udp.local_addr().unwrap().port().to_string();
    for (property, value, says) in [
        ("listen", address.as_str(), "Choose another listen"),
        ("listen", "nonsense", "HOST:PORT"),
        ("udp-port", udp_port.as_str(), "Choose another udp-port"),
        ("udp-address", "example.org", "udp-address"),
        ("announce-address", "192.0.2.7,here:", "announce-address"),
        ("ice-servers", "stun.example.org", "stun:HOST"),
    ] {
        let element = signaller(&[(property, value)]);
        let error = error(&element);
        assert!(error.contains(says), "{property}={value}: {error}");
        element.set_state(gst::State::Null).unwrap();
    }
}
