// SPDX-License-Identifier: MPL-2.0
//! HTTPS of `sfusignaller`: both versions of HTTP and of TLS, a certificate that changes while it serves, plain HTTP that is
//! led there, and what strangers may do to handshakes and to HTTP/2.

mod client;
mod hostile;
#[path = "../running/mod.rs"]
mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_tls::rustls::version::{TLS12, TLS13};

use client::{H2, Identity, plain, tls};

/// What NULL may take from any state.
const STOP: Duration = Duration::from_secs(2);

/// For a machine that is shared with other tests.
const LATE: Duration = Duration::from_secs(15);

/// The tests have descriptors and the machine in common: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An element with a certificate, on a port that the system chose.
struct Served {
    element: gst::Element,
    address: SocketAddr,
    identity: Identity,
    folder: PathBuf,
}

impl Served {
    fn new(test: &str, properties: &[(&str, &str)]) -> Self {
        running::init();
        let folder = std::env::temp_dir().join(format!("sfu-https-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let identity = Identity::new("localhost");
        let (certificate, key) = identity.write(&folder);
        let element = gst::ElementFactory::make("sfusignaller").build().unwrap();
        for (name, value) in [
            ("listen", "127.0.0.1:0"),
            ("udp-port", "0"),
            ("shards", "1"),
            ("router", test),
            ("certificate", &certificate),
            ("private-key", &key),
        ]
        .iter()
        .chain(properties)
        {
            element.set_property_from_str(name, value);
        }
        element.set_state(gst::State::Playing).unwrap();
        let port = u16::try_from(element.property::<u32>("port")).unwrap();
        Self {
            element,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            identity,
            folder,
        }
    }

    fn stat(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.element.property("stats");
        stats.get::<u64>(name).unwrap()
    }

    /// It counts at least so many: a peer may see its connection's end before that is counted.
    fn counts(&self, name: &str, least: u64) {
        let began = Instant::now();
        while self.stat(name) < least {
            assert!(began.elapsed() < LATE, "{name} is {}", self.stat(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// It answers others.
    fn serves(&self) {
        let answer = tls(self.address, &self.identity, &TLS13)
            .ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn stop(&self) {
        let began = Instant::now();
        self.element.set_state(gst::State::Null).unwrap();
        assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.element.set_state(gst::State::Null);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn both_versions_of_http_and_of_tls_are_spoken() {
    let _alone = alone();
    let served = Served::new("versions", &[]);
    for version in [&TLS12, &TLS13] {
        let answer = tls(served.address, &served.identity, version)
            .ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut h2 = H2::connect(served.address, &served.identity, version);
        for stream in [1, 3, 5] {
            h2.request(stream, "GET", "/healthz", &[], true);
            assert_eq!(h2.status(stream), 200, "{version:?}");
        }
        // All of a page, in parts.
        h2.request(7, "GET", "/assets/studio.js", &[], true);
        let page = h2.body(7);
        let answer = tls(served.address, &served.identity, version)
            .ask("GET /assets/studio.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(page.len() > 10_000 && page == body.as_bytes());
        // And what is written.
        h2.request(
            9,
            "POST",
            "/whep/a",
            &[("content-type", "text/plain")],
            false,
        );
        h2.data(9, b"v=0", true);
        assert_eq!(h2.status(9), 415);
    }
    served.stop();
}

#[test]
fn who_is_local_and_which_page_asks_is_told_by_http_2_as_well() {
    let _alone = alone();
    let served = Served::new("pages", &[]);
    let mut h2 = H2::connect(served.address, &served.identity, &TLS13);
    let port = served.address.port();
    let ours = format!("https://localhost:{port}");
    let plain = format!("http://localhost:{port}");
    for (stream, authority, fields, status) in [
        (1, "localhost", &[][..], 200),
        (3, "evil.example", &[], 401),
        (5, "localhost", &[("x-forwarded-for", "192.0.2.1")], 401),
        (7, "localhost", &[("origin", "https://evil.example")], 403),
        (9, "localhost", &[("origin", &*ours)], 200),
        // Read without TLS, it may be from whoever is on the way.
        (11, "localhost", &[("origin", &*plain)], 403),
        (13, "localhost", &[("host", "evil.example")], 401),
    ] {
        let authority = format!("{authority}:{port}");
        h2.request_to(stream, &authority, "GET", "/metrics", fields, true);
        assert_eq!(h2.status(stream), status, "{authority} {fields:?}");
    }
}

#[test]
fn plain_http_is_led_to_https() {
    let _alone = alone();
    let served = Served::new(
        "plain",
        &[
            ("plain-listen", "127.0.0.1:0"),
            ("server-names", "sfu.example"),
        ],
    );
    let port = served.address.port();
    for (head, host, status) in [
        ("GET /cam1?token=a", "sfu.example:80", 308),
        ("GET /", &*format!("sfu.example:{port}"), 308),
        ("POST /whip/cam1", "192.0.2.1:80", 308),
        ("DELETE /session/0123", "[2001:db8::1]:80", 308),
        ("OPTIONS /whep/cam1", "sfu.example:80", 204),
        // This machine's own tools.
        ("GET /healthz", "localhost:80", 200),
        ("GET /healthz", "127.0.0.1", 200),
        ("GET /", "evil.example", 421),
        ("GET /", "sfu.example/evil.example", 400),
    ] {
        let answer = plain(
            served.address,
            &format!("{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        );
        let found: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(found, status, "{head} {host}: {answer}");
        let location = answer.lines().find_map(|l| l.strip_prefix("location: "));
        let path = head.split_once(' ').unwrap().1;
        let expected = (status == 308).then(|| format!("https://{host}{path}"));
        assert_eq!(location, expected.as_deref(), "{answer}");
    }
    // Without a name there is nowhere to go.
    let answer = plain(served.address, "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 421"), "{answer}");
    served.stop();
    let open = Served::new("plain-nameless", &[]);
    let answer = plain(open.address, "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 426"), "{answer}");
    let through = Served::new("plain-proxy", &[("trusted-proxies", "127.0.0.1")]);
    let answer = plain(
        through.address,
        "GET / HTTP/1.1\r\nHost: sfu.example\r\nConnection: close\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "a proxy has taken TLS off: {answer}"
    );
}

#[test]
fn the_port_beside_leads_there_too() {
    let _alone = alone();
    let beside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = beside.local_addr().unwrap();
    drop(beside);
    let served = Served::new("beside", &[("plain-listen", &address.to_string())]);
    let host = format!("sfu.example:{}", address.port());
    let answer = plain(
        address,
        &format!(
            "POST /whip/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    let location = format!(
        "location: https://sfu.example:{}/whip/a\r\n",
        served.address.port()
    );
    assert!(answer.contains(&location), "{answer}");
    served.stop();
    // The port is free again.
    std::net::TcpListener::bind(address).unwrap();
}

#[test]
fn wrong_settings_are_refused_with_a_sentence() {
    let _alone = alone();
    running::init();
    let folder = std::env::temp_dir().join(format!("sfu-https-wrong-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = Identity::new("localhost").write(&folder);
    for (properties, sentence) in [
        (&[("certificate", &*certificate)][..], "belong together"),
        (&[("private-key", &key)], "belong together"),
        (
            &[("certificate", "/nowhere"), ("private-key", "/nowhere")],
            "/nowhere can't be read",
        ),
        (
            &[("certificate", &key), ("private-key", &key)],
            "no certificate",
        ),
        (&[("plain-listen", "127.0.0.1:0")], "needs certificate"),
        (
            &[
                ("certificate", &certificate),
                ("private-key", &key),
                ("plain-listen", "x"),
            ],
            "plain-listen",
        ),
    ] {
        let mut line = "sfusignaller name=s listen=127.0.0.1:0 udp-port=0 shards=1".to_owned();
        for (name, value) in properties {
            line += &format!(" {name}={value}");
        }
        let running = running::Running::start(&line);
        let error = running.error();
        assert!(error.contains(sentence), "{error}");
    }
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_new_certificate_is_taken_while_it_serves() {
    let _alone = alone();
    let served = Served::new("renewed", &[]);
    let mut kept = H2::connect(served.address, &served.identity, &TLS13);
    kept.request(1, "GET", "/healthz", &[], true);
    assert_eq!(kept.status(1), 200);
    let next = Identity::new("localhost");
    next.write(&served.folder);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !next.is_shown(served.address) {
        assert!(
            Instant::now() < deadline,
            "the new certificate was not taken"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // Who is connected stays so.
    kept.request(3, "GET", "/healthz", &[], true);
    assert_eq!(kept.status(3), 200);
    std::fs::write(served.folder.join("certificate.pem"), "broken").unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(next.is_shown(served.address), "the old one stays");
    served.stop();
}
