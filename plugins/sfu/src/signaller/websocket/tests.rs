// SPDX-License-Identifier: MPL-2.0

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use async_tungstenite::tokio::client_async;
use axum::extract::State;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::signaller::connections::Connections;
use crate::signaller::http::{Speech, serve};
use crate::signaller::limits::Limits;

const LARGEST: usize = 64 * 1024;
/// For what happens at once on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a route of these tests is told.
#[derive(Clone)]
struct Told {
    ended: Sender<Ended>,
    in_use: bool,
}

/// Repeats all that it hears, and tells how it ended.
async fn echo(State(told): State<Told>, upgrade: Upgrade) -> Response {
    upgrade.begin(LARGEST, async move |mut socket: Socket| {
        socket.set_in_use(told.in_use);
        let ended = loop {
            let said = match socket.next().await {
                Ok(said) => said,
                Err(ended) => break ended,
            };
            if let Err(ended) = socket.send(said).await {
                break ended;
            }
        };
        let _ = told.ended.send(ended);
        let (code, why) = ended.goodbye();
        socket.close(code, why).await;
    })
}

struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    stop: watch::Sender<bool>,
    ended: Receiver<Ended>,
}

async fn server(in_use: bool, most: usize) -> Server {
    let (ended, of_talks) = channel();
    let routes = axum::Router::new()
        .route("/", any(echo))
        .with_state(Told { ended, in_use });
    let (stop, stopping) = watch::channel(false);
    let speech = Arc::new(Speech::of(routes, stopping));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        connections: most,
        per_address: most,
        files: 8,
        media: 8,
    };
    let connections = Connections::new(limits);
    let all = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            if let Ok(connection) = all.admit(peer, false) {
                let task = tokio::spawn(serve(stream, connection.clone(), speech.clone(), None));
                connection.set_task(task.abort_handle());
            }
        }
    });
    Server {
        address,
        connections,
        stop,
        ended: of_talks,
    }
}

impl Server {
    async fn client(&self) -> WebSocketStream<TokioAdapter<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        client_async("ws://localhost/", stream).await.unwrap().0
    }

    async fn ended(&self) -> Ended {
        let began = Instant::now();
        loop {
            if let Ok(ended) = self.ended.try_recv() {
                return ended;
            }
            assert!(began.elapsed() < PATIENCE, "it goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Places are given back.
    async fn is_empty(&self) {
        let began = Instant::now();
        while self.connections.count() > 0 {
            assert!(began.elapsed() < PATIENCE, "a connection is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let whole = async { timeout(PATIENCE * 3, test).await };
    runtime.unwrap().block_on(whole).expect("it takes too long");
}

#[test]
fn both_sides_are_heard_until_one_says_goodbye() {
    run(async {
        let server = server(true, 8).await;
        let mut client = server.client().await;
        let large = "ä".repeat(LARGEST / 2);
        for said in [
            tungstenite::Message::text("hello"),
            tungstenite::Message::text(large),
            tungstenite::Message::binary(vec![0; LARGEST]),
            tungstenite::Message::binary(vec![]),
        ] {
            client.send(said.clone()).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), said);
        }
        // More than may be read at once, and than the pauses between them.
        for _ in 0..MESSAGES_AT_ONCE + 20 {
            client.send(tungstenite::Message::text("x")).await.unwrap();
            assert!(client.next().await.unwrap().unwrap().is_text());
        }
        client.close(None).await.unwrap();
        assert_eq!(server.ended().await, Ended::Closed);
        server.is_empty().await;
    });
}

#[test]
fn who_stops_tells_the_peer() {
    run(async {
        for in_use in [false, true] {
            let server = server(in_use, 8).await;
            let mut client = server.client().await;
            client
                .send(tungstenite::Message::text("hello"))
                .await
                .unwrap();
            client.next().await.unwrap().unwrap();
            server.connections.end_waiting();
            server.stop.send_replace(true);
            let goodbye = client.next().await.unwrap().unwrap();
            let tungstenite::Message::Close(Some(frame)) = goodbye else {
                panic!("{goodbye}");
            };
            assert_eq!(
                (u16::from(frame.code), frame.reason.as_str()),
                (1001, "the server stops")
            );
            assert_eq!(server.ended().await, Ended::Stopping);
            server.is_empty().await;
        }
    });
}

/// The code of the goodbye at the end of what came.
fn code(came: &[u8]) -> Option<u16> {
    // A frame of the server is not masked. The reasons have letters alone.
    let at = came.iter().rposition(|octet| *octet == 0x88)?;
    let code = came.get(at + 2..at + 4)?;
    Some(u16::from_be_bytes([code[0], code[1]]))
}

/// Octets that are no message, or too many for one: one that ends it, and none that grows.
#[test]
fn who_breaks_a_rule_is_told_so_and_cut() {
    use Ended::{NoText, TooLarge, Unruly};
    let masked =
        |first: u8, length: &[u8], octets: &[u8]| [&[first], length, &[0; 4], octets].concat();
    let endless: Vec<u8> = [
        masked(0x01, &[0x80], &[]),
        masked(0x00, &[0x80], &[]).repeat(LARGEST),
    ]
    .concat();
    let too_many = masked(0x00, &[0x81], b"x").repeat(LARGEST);
    let cases = [
        ("unmasked", Unruly, vec![0x81, 1, b'x']),
        ("no UTF-8", NoText, masked(0x81, &[0x81], &[0xff])),
        ("reserved bits", Unruly, masked(0xf1, &[0x81], b"x")),
        ("an unknown frame", Unruly, masked(0x83, &[0x81], b"x")),
        (
            "a continuation of nothing",
            Unruly,
            masked(0x80, &[0x81], b"x"),
        ),
        ("a ping in parts", Unruly, masked(0x09, &[0x80], &[])),
        (
            "a large ping",
            Unruly,
            masked(0x89, &[0xfe, 1, 0], &[0; 256]),
        ),
        (
            "too large",
            TooLarge,
            masked(0x82, &[0xff, 0, 0, 0, 0, 0, 1, 0, 1], &[]),
        ),
        ("immense", TooLarge, masked(0x82, &[0xff; 9], &[])),
        (
            "too many parts",
            TooLarge,
            [masked(0x01, &[0x80], &[]), too_many].concat(),
        ),
        ("empty parts without end", TooLarge, endless),
        (
            "HTTP",
            Unruly,
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
    ];
    run(async {
        let server = server(true, 8).await;
        for (what, ended, octets) in cases {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{what}");
            let (mut reader, mut writer) = stream.into_split();
            // Who is cut may not take all of it.
            let writing = tokio::spawn(async move { writer.write_all(&octets).await });
            let _ = reader.read_to_end(&mut answer).await;
            assert_eq!(server.ended().await, ended, "{what}");
            assert_eq!(code(&answer), Some(ended.goodbye().0), "{what}");
            let _ = writing.await;
            server.is_empty().await;
        }
        // Nobody else noticed.
        let mut client = server.client().await;
        client
            .send(tungstenite::Message::text("hello"))
            .await
            .unwrap();
        client.next().await.unwrap().unwrap();
    });
}

#[test]
fn other_requests_are_refused() {
    const KEY: &str = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    run(async {
        let server = server(true, 8).await;
        for (line, fields, expected) in [
            ("GET / HTTP/1.1", vec![ASK, VERSION, KEY], "101 "),
            ("GET / HTTP/1.1", vec![], "426 "),
            (
                "GET / HTTP/1.1",
                vec!["Upgrade: websocket\r\n", VERSION, KEY],
                "426 ",
            ),
            (
                "GET / HTTP/1.1",
                vec!["Connection: Upgrade\r\nUpgrade: h2c\r\n", VERSION, KEY],
                "426 ",
            ),
            ("POST / HTTP/1.1", vec![ASK, VERSION, KEY], "426 "),
            ("GET / HTTP/1.0", vec![ASK, VERSION, KEY], "426 "),
            ("GET / HTTP/1.1", vec![ASK, KEY], "426 "),
            (
                "GET / HTTP/1.1",
                vec![ASK, "Sec-WebSocket-Version: 8\r\n", KEY],
                "426 ",
            ),
            ("GET / HTTP/1.1", vec![ASK, VERSION], "400 "),
            (
                "GET / HTTP/1.1",
                vec![ASK, VERSION, "Sec-WebSocket-Key: eA==\r\n"],
                "400 ",
            ),
            (
                "GET / HTTP/1.1",
                vec![ASK, VERSION, "Sec-WebSocket-Key: ?\r\n"],
                "400 ",
            ),
        ] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let close = if expected == "101 " {
                ""
            } else {
                "Connection: close\r\n"
            };
            let request = format!("{line}\r\nHost: x\r\n{}{close}\r\n", fields.concat());
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 13];
            stream.read_exact(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.ends_with(expected), "{line} {fields:?}: {answer}");
        }
        server.is_empty().await;
    });
}

#[test]
fn those_that_do_nothing_make_room() {
    run(async {
        for in_use in [false, true] {
            let server = server(in_use, 2).await;
            let mut clients = [server.client().await, server.client().await];
            for client in &mut clients {
                client
                    .send(tungstenite::Message::text("hello"))
                    .await
                    .unwrap();
                client.next().await.unwrap().unwrap();
            }
            let stream = TcpStream::connect(server.address).await.unwrap();
            let third = client_async("ws://localhost/", stream).await;
            assert_eq!(third.is_ok(), !in_use);
            if in_use {
                let [first, _] = &mut clients;
                first
                    .send(tungstenite::Message::text("hello"))
                    .await
                    .unwrap();
                first.next().await.unwrap().unwrap();
            } else {
                let said = clients[0].next().await.unwrap().unwrap();
                let tungstenite::Message::Close(Some(frame)) = said else {
                    panic!("{said}");
                };
                assert_eq!(u16::from(frame.code), 1013);
            }
        }
    });
}

/// Is asked whether it is there, and then, as it seems, not heard for a minute.
async fn quiet(State(tell): State<Sender<Result<Message, Ended>>>, upgrade: Upgrade) -> Response {
    upgrade.begin(LARGEST, async move |mut socket: Socket| {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        socket.ask = now;
        let heard = socket.heard;
        let _ = timeout(second, socket.next()).await;
        assert!(socket.heard > heard && socket.ask > now);
        socket.heard = now - SILENCE - second;
        socket.ask = now;
        let _ = tell.send(socket.next().await);
    })
}

#[test]
fn who_is_silent_is_gone() {
    run(async {
        let (tell, told) = channel();
        let routes = axum::Router::new().route("/", any(quiet)).with_state(tell);
        let (_stop, stopping) = watch::channel(false);
        let speech = Arc::new(Speech::of(routes, stopping));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(Limits::new(8, 8));
        let serving = tokio::spawn(async move {
            let (stream, peer) = listener.accept().await.unwrap();
            let connection = connections.admit(peer, false).unwrap();
            serve(stream, connection, speech, None).await;
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, _) = client_async("ws://localhost/", stream).await.unwrap();
        while let Some(Ok(_)) = client.next().await {}
        serving.await.unwrap();
        assert_eq!(told.try_recv(), Ok(Err(Ended::Silent)));
    });
}

#[test]
fn the_pace_lets_a_burst_through_and_then_so_many_a_second() {
    // Of small messages, and of larger ones as many as have as many parts.
    for (octets, at_once, in_ten_seconds) in [
        (0, 200, 500),
        (MESSAGE_PART - 1, 200, 500),
        (MESSAGE_PART, 100, 250),
        (256 * 1024, 4, 7),
    ] {
        let start = Instant::now();
        let mut pace = Pace(start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut count = |from: u64, to: u64| {
            let mut read: u64 = 0;
            for ms in from..to {
                while pace.due(at(ms)) <= at(ms) {
                    pace.spend(at(ms), octets);
                    read += 1;
                }
            }
            read
        };
        let (first, second, third) = (count(0, 1), count(1, 10_001), count(20_000, 20_001));
        for (read, expected) in [(first, at_once), (second, in_ten_seconds), (third, at_once)] {
            let about = expected - 1..=expected + 1;
            assert!(about.contains(&read), "{read}, not {expected}, of {octets}");
        }
    }
}
