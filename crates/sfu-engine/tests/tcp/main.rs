// SPDX-License-Identifier: MPL-2.0

//! The engine over real sockets: who gets no UDP through watches and publishes by TCP, and who means no good by it costs
//! nobody anything.

mod peer;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_engine::{
    Codec, CountersSnapshot, Engine, EngineConfig, Feedback, LayerInfo, PublishOptions,
    PublishRequest, Publisher, Router, RtpIn, StreamName, SubscribeRequest, TrackKind,
};
use str0m::media::Direction;

use peer::{By, Peer, candidates};

const LIMIT: Duration = Duration::from_secs(40);

struct Nobody;

impl Feedback for Nobody {
    fn keyframe_request(&self, _layer: usize) {}
}

struct Host {
    engine: Engine,
    router: Arc<Router>,
}

fn name() -> StreamName {
    "camera".parse().unwrap()
}

impl Host {
    /// An engine of one shard; each test has a router of its own.
    fn start(test: &str, config: EngineConfig) -> Self {
        let config = EngineConfig {
            shards: 1,
            ..config
        };
        Self::start_all(test, config)
    }

    /// The same of as many shards as it says.
    fn start_all(test: &str, config: EngineConfig) -> Self {
        let router = Router::get(test);
        let config = EngineConfig {
            udp_port: 0,
            ..config
        };
        let engine = Engine::start(router.clone(), config).unwrap();
        Self { engine, router }
    }

    fn on_loopback(test: &str) -> Self {
        let config = EngineConfig {
            udp_address: "127.0.0.1".parse().unwrap(),
            ..EngineConfig::default()
        };
        Self::start(test, config)
    }

    fn camera(&self) -> Camera {
        let options = PublishOptions {
            keyframe_min_interval: Duration::from_millis(500),
            feedback: Arc::new(Nobody),
        };
        let publisher = self.router.publish(name(), options).unwrap();
        publisher.set_video(
            Codec::H264,
            vec![LayerInfo {
                rid: "a".parse().unwrap(),
                width: None,
                height: None,
                target_bitrate: None,
            }],
        );
        let mut camera = Camera {
            publisher,
            seq: 0,
            start: Instant::now(),
            frames: 0,
        };
        camera.frame(1);
        camera
    }

    fn offered(&self, offer: &str) -> String {
        let request = SubscribeRequest {
            stream: &name(),
            offer,
            preference: sfu_engine::Preference::default(),
            peer: None,
        };
        self.engine.subscribe(&request).unwrap().answer
    }

    fn viewer(&self, by: By) -> Peer {
        let (mut peer, offer) = Peer::new(Direction::RecvOnly);
        peer.accept(&self.offered(&offer), by);
        peer
    }

    fn counters(&self) -> CountersSnapshot {
        self.engine.counters()
    }

    /// Where it listens for TCP.
    fn tcp(&self) -> SocketAddr {
        SocketAddr::new([127, 0, 0, 1].into(), self.engine.udp_ports()[0])
    }

    fn wait_for(&self, what: &str, mut done: impl FnMut(&CountersSnapshot) -> bool) {
        let end = Instant::now() + LIMIT;
        while !done(&self.counters()) {
            assert!(Instant::now() < end, "{what}: {:?}", self.counters());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Pictures of so many packets, a keyframe each second.
struct Camera {
    publisher: Publisher,
    seq: u16,
    start: Instant,
    frames: u32,
}

impl Camera {
    fn frame(&mut self, packets: usize) {
        let now = Instant::now();
        let is_key = self.frames.is_multiple_of(50);
        self.frames += 1;
        let packets: Vec<_> = (1..=packets)
            .map(|n| {
                // A fragment, of which the first begins an IDR picture.
                let begins = if n == 1 { 0x80 } else { 0 };
                let mut payload = vec![0x7c, if is_key { 0x05 } else { 0x01 } | begins];
                payload.resize(1_100, 7);
                self.seq = self.seq.wrapping_add(1);
                RtpIn {
                    seq: self.seq,
                    timestamp: ((now - self.start).as_millis() * 90) as u32,
                    captured: now,
                    marker: n == packets,
                    payload: payload.into(),
                    red: None,
                    layering: sfu_engine::Layering::default(),
                }
            })
            .collect();
        self.publisher.push(TrackKind::Video, 0, packets);
    }
}

/// Lets the peers and the camera go on, a picture each 20 ms, until it is done or the time is over.
fn go_on(
    camera: &mut Camera,
    packets: usize,
    peers: &mut [&mut Peer],
    time: Duration,
    mut done: impl FnMut(&[&mut Peer]) -> bool,
) -> bool {
    let end = Instant::now() + time;
    let mut next = Instant::now();
    while Instant::now() < end {
        if Instant::now() >= next {
            next += Duration::from_millis(20);
            camera.frame(packets);
        }
        for peer in &mut *peers {
            peer.turn();
        }
        if done(peers) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// How many numbers are missing between the first and the last that came.
fn gaps(peer: &Peer) -> u64 {
    let (Some(first), Some(last)) = (peer.numbers.first(), peer.numbers.last()) else {
        return 0;
    };
    last - first + 1 - peer.numbers.len() as u64
}

#[test]
fn viewers_play_by_tcp_beside_those_by_udp() {
    for address in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
        let config = EngineConfig {
            udp_address: address.parse().unwrap(),
            ..EngineConfig::default()
        };
        let host = Host::start(&format!("plays {address}"), config);
        let mut camera = host.camera();
        let mut by_tcp = host.viewer(By::Tcp);
        let mut by_udp = host.viewer(By::Udp);
        let both = &mut [&mut by_tcp, &mut by_udp];
        let seen = go_on(&mut camera, 3, both, LIMIT, |peers| {
            peers.iter().all(|p| p.connected && p.numbers.len() > 300)
        });
        let counters = host.counters();
        assert!(
            seen,
            "{address}: {} and {} packets, {counters:?}",
            by_tcp.numbers.len(),
            by_udp.numbers.len()
        );
        assert_eq!(
            (gaps(&by_tcp), counters.tcp_datagrams_dropped),
            (0, 0),
            "{address}"
        );
        assert_eq!(
            (counters.tcp_connections, counters.tcp_connections_closed),
            (1, 0)
        );
        // What ends a session ends its connection, and the other way round.
        drop(by_tcp);
        host.wait_for("the connection to be over", |c| {
            c.tcp_connections_closed == 1
        });
    }
}

/// Media has no name in it: two sessions of one socket are told apart by the port that it comes to.
#[test]
fn sessions_of_one_socket_go_to_different_shards_while_there_are_some() {
    let config = EngineConfig {
        udp_address: "127.0.0.1".parse().unwrap(),
        shards: 2,
        ..EngineConfig::default()
    };
    let host = Host::start_all("one socket", config);
    let _camera = host.camera();
    let port = |named: Option<u16>| {
        let (_, mut offer) = Peer::new(Direction::RecvOnly);
        if let Some(port) = named {
            offer += &format!("a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host\r\n");
        }
        candidates(&host.offered(&offer), By::Udp)[0].port()
    };
    let ports = host.engine.udp_ports();
    let first = port(Some(5_000));
    assert_eq!(first, ports[0], "all are free");
    assert_eq!(port(None), ports[1], "the one with fewer sessions");
    assert_eq!(
        port(Some(5_000)),
        ports[1],
        "not where the address is known"
    );
    assert_eq!(port(Some(5_001)), ports[0], "another address");
    // All have it: the one before may be dead.
    let third = port(Some(5_000));
    assert!(ports.contains(&third));
}

#[test]
fn a_peer_publishes_by_tcp() {
    let host = Host::on_loopback("publishes");
    let (mut publisher, offer) = Peer::new(Direction::SendOnly);
    let request = PublishRequest {
        stream: &name(),
        offer: &offer,
        takeover: false,
        peer: None,
    };
    let answer = host.engine.publish(&request).unwrap().answer;
    publisher.accept(&answer, By::Tcp);
    let end = Instant::now() + LIMIT;
    let mut viewer: Option<Peer> = None;
    let mut count = 0u32;
    while viewer.as_ref().is_none_or(|v| v.numbers.len() < 100) {
        assert!(Instant::now() < end, "{:?}", host.counters());
        assert!(publisher.turn(), "its connection goes on");
        if publisher.connected {
            let mut payload = vec![if count.is_multiple_of(50) { 0x65 } else { 0x41 }];
            payload.resize(900, 1);
            publisher.publish(payload);
            count += 1;
            if count == 20 {
                viewer = Some(host.viewer(By::Udp));
            }
        }
        if let Some(viewer) = &mut viewer {
            viewer.turn();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let stream = host.router.stream(&name()).unwrap();
    assert!(stream.packets_in >= 100);
}

#[test]
fn answers_have_tcp_addresses_as_they_are_announced() {
    let table: [(&str, usize, &[&str], &[&str]); 5] = [
        ("", 10, &["127.0.0.1:P"], &["127.0.0.1:P"]),
        ("", 0, &["127.0.0.1:P"], &[]),
        ("192.0.2.7", 10, &["192.0.2.7:P"], &["192.0.2.7:P"]),
        (
            "192.0.2.7:9000",
            10,
            &["192.0.2.7:9000"],
            &["192.0.2.7:9000"],
        ),
        (
            "tcp:192.0.2.7:443",
            10,
            &["127.0.0.1:P"],
            &["192.0.2.7:443"],
        ),
    ];
    for (announce, tcp_connections, by_udp, by_tcp) in table {
        let config = EngineConfig {
            udp_address: "127.0.0.1".parse().unwrap(),
            announce: announce
                .split_terminator(',')
                .map(|a| a.parse().unwrap())
                .collect(),
            tcp_connections,
            ..EngineConfig::default()
        };
        let host = Host::start("announced", config);
        let _camera = host.camera();
        let (_, offer) = Peer::new(Direction::RecvOnly);
        let answer = host.offered(&offer);
        let port = host.tcp().port().to_string();
        for (by, expected) in [(By::Udp, by_udp), (By::Tcp, by_tcp)] {
            let expected: Vec<SocketAddr> = expected
                .iter()
                .map(|e| e.replace('P', &port).parse().unwrap())
                .collect();
            assert_eq!(candidates(&answer, by), expected, "{announce:?} {by:?}");
        }
        assert_eq!(TcpStream::connect(host.tcp()).is_ok(), tcp_connections > 0);
    }
}

/// How long a connection goes on.
fn lasts(stream: &mut TcpStream, limit: Duration) -> Option<Duration> {
    let begun = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    while begun.elapsed() < limit {
        match stream.read(&mut [0; 2_000]) {
            Ok(0) => return Some(begun.elapsed()),
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => return Some(begun.elapsed()),
        }
    }
    None
}

fn framed(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

/// A Binding request under this name.
fn check(name: &[u8]) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    data.extend([9; 12]);
    data.extend([0, 6, 0, name.len() as u8]);
    data.extend(name);
    data.resize(data.len().next_multiple_of(4), 0);
    let length = (data.len() - 20) as u16;
    data[2..4].copy_from_slice(&length.to_be_bytes());
    data
}

#[test]
fn who_speaks_something_else_is_cut_at_once() {
    let host = Host::on_loopback("garbage");
    let flood = framed(&check(b"nobody:me")).repeat(1_000);
    for (what, octets) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("STUN without frames", check(b"nobody:me").repeat(2)),
        ("a frame too large", vec![0x08, 0x01, 0, 0]),
        ("media first", framed(&[0x80; 100])),
        ("DTLS first", framed(&[22; 100])),
        ("half a header", framed(&[0, 1, 0, 0])),
        ("no cookie", framed(&[0; 40])),
        ("checks for nobody, without end", flood),
    ] {
        let before = host.counters().tcp_cut_garbage;
        let mut stream = TcpStream::connect(host.tcp()).unwrap();
        let _ = stream.write_all(&octets);
        let lasted = lasts(&mut stream, Duration::from_secs(5));
        assert!(lasted.is_some(), "{what}");
        host.wait_for(what, |c| c.tcp_cut_garbage == before + 1);
    }
    let counters = host.counters();
    assert_eq!(counters.tcp_connections, counters.tcp_connections_closed);
    assert_eq!(counters.sessions_failed, 0);
}

#[test]
fn who_names_nobody_has_ten_seconds() {
    let host = Host::on_loopback("silent");
    let begun = Instant::now();
    let mut silent = TcpStream::connect(host.tcp()).unwrap();
    let mut half = TcpStream::connect(host.tcp()).unwrap();
    half.write_all(&framed(&check(b"nobody:me"))[..9]).unwrap();
    let mut asking = TcpStream::connect(host.tcp()).unwrap();
    asking.write_all(&framed(&check(b"nobody:me"))).unwrap();
    for stream in [&mut silent, &mut half, &mut asking] {
        assert!(lasts(stream, LIMIT).is_some());
    }
    let lasted = begun.elapsed();
    assert!((9..20).contains(&lasted.as_secs()), "{lasted:?}");
    assert_eq!(host.counters().tcp_cut_unknown, 3);
}

#[test]
fn strangers_make_room_and_one_address_never_has_all() {
    let config = EngineConfig {
        udp_address: "0.0.0.0".parse().unwrap(),
        tcp_connections: 4,
        ..EngineConfig::default()
    };
    let host = Host::start("crowded", config);
    let mut camera = host.camera();
    let mut viewer = host.viewer(By::Tcp);
    let plays = |p: &[&mut Peer]| p[0].numbers.len() > 50;
    assert!(go_on(&mut camera, 3, &mut [&mut viewer], LIMIT, plays));
    let port = host.tcp().port();
    let from = |last: u8| {
        let socket =
            std::net::TcpStream::connect(SocketAddr::new(IpAddr::from([127, 0, 0, last]), port));
        socket.unwrap()
    };
    // All from one address: the third place of it is the last, whoever is there.
    let strangers: Vec<_> = (0..20).map(|_| from(1)).collect();
    host.wait_for("the rest to be refused", |c| {
        c.tcp_refused + c.tcp_cut_unknown >= 17
    });
    let counters = host.counters();
    assert!(
        counters.tcp_connections - counters.tcp_connections_closed <= 4,
        "{counters:?}"
    );
    let more = viewer.numbers.len() + 50;
    let goes_on = |p: &[&mut Peer]| p[0].numbers.len() > more;
    assert!(
        go_on(&mut camera, 3, &mut [&mut viewer], LIMIT, goes_on),
        "who plays is not cut"
    );
    drop(strangers);
}

/// Its window is shut, and it says that it is there all the same.
#[test]
fn a_reader_that_stops_costs_others_nothing() {
    let host = Host::on_loopback("stops");
    let mut camera = host.camera();
    let mut deaf = host.viewer(By::Tcp);
    let mut by_tcp = host.viewer(By::Tcp);
    let mut by_udp = host.viewer(By::Udp);
    let plays = |p: &[&mut Peer]| p.iter().all(|p| p.numbers.len() > 100);
    let all = &mut [&mut deaf, &mut by_tcp, &mut by_udp];
    assert!(go_on(&mut camera, 20, all, LIMIT, plays));
    let before = memory();
    deaf.deaf = true;
    // 10 Mbit/s of which one takes nothing.
    let all = &mut [&mut deaf, &mut by_tcp, &mut by_udp];
    let cut = go_on(&mut camera, 20, all, LIMIT, |_| {
        host.counters().tcp_cut_stalled == 1
    });
    let counters = host.counters();
    assert!(cut, "{counters:?}");
    assert!(counters.tcp_datagrams_dropped > 1_000, "{counters:?}");
    assert_eq!((gaps(&by_tcp), gaps(&by_udp)), (0, 0));
    let grown = memory().saturating_sub(before);
    assert!(grown < 8_192, "{grown} kB more");
}

/// Resident memory, in kB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok())
        .unwrap()
}

#[test]
fn stopping_takes_no_time_with_connections_open() {
    let host = Host::on_loopback("ends");
    let mut camera = host.camera();
    let mut viewer = host.viewer(By::Tcp);
    let connected = |p: &[&mut Peer]| p[0].connected;
    assert!(go_on(&mut camera, 3, &mut [&mut viewer], LIMIT, connected));
    viewer.deaf = true;
    go_on(
        &mut camera,
        300,
        &mut [&mut viewer],
        Duration::from_secs(1),
        |_| false,
    );
    let tcp = host.tcp();
    let mut silent = TcpStream::connect(tcp).unwrap();
    let begun = Instant::now();
    host.engine.stop();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(lasts(&mut silent, Duration::from_secs(2)).is_some());
    assert!(TcpStream::connect(tcp).is_err(), "the port is free");
}
