// SPDX-License-Identifier: MPL-2.0
//! `sfurtspserver` alone: what is set wrongly is said. What it serves is in `tests/e2e/rtsp_out.rs`.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use gio::prelude::*;
use gst::prelude::*;

fn server(properties: &[(&str, &str)]) -> gst::Element {
    gst::init().unwrap();
    // Tests of one process register them more than once.
    let _ = gstsfu::plugin_register_static();
    let _ = gstsfurtsp::plugin_register_static();
    let element = gst::ElementFactory::make("sfurtspserver").build().unwrap();
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    element
}

/// The one error with which an element does not start.
fn error(element: &gst::Element) -> String {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]);
    match message.expect("an error").view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        _ => unreachable!("only errors are popped"),
    }
}

#[test]
fn what_is_set_wrongly_is_said() {
    for (name, value, says) in [
        ("listen", "8554", "HOST:PORT"),
        (
            "users",
            "ann:a,hunter2",
            "users: entry 2 is not NAME:PASSWORD",
        ),
        ("users-file", "/nowhere/users", "can't be read"),
        ("udp-ports", "20000", "FIRST-LAST"),
    ] {
        let message = error(&server(&[("listen", "127.0.0.1:0"), (name, value)]));
        assert!(message.contains(says), "{name}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn passwords_cannot_be_read_back() {
    let server = server(&[("users", "ann:hunter2")]);
    let users = server.find_property("users").unwrap();
    assert!(!users.flags().contains(glib::ParamFlags::READABLE));
    server.set_state(gst::State::Null).unwrap();
}

/// Also where its thread has not begun yet.
#[test]
fn it_stops_as_soon_as_it_has_started() {
    let server = server(&[("listen", "127.0.0.1:0"), ("router", "stops")]);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for state in [gst::State::Ready, gst::State::Paused, gst::State::Playing] {
            for _ in 0..50 {
                server.set_state(state).unwrap();
                server.set_state(gst::State::Null).unwrap();
            }
        }
        let _ = done.send(());
    });
    let ended = ended.recv_timeout(std::time::Duration::from_secs(60));
    assert!(ended.is_ok(), "it hangs");
}

/// From an address of this machine.
fn connect(from: [u8; 4], port: u16) -> TcpStream {
    let family = gio::SocketFamily::Ipv4;
    let protocol = gio::SocketProtocol::Tcp;
    let socket = gio::Socket::new(family, gio::SocketType::Stream, protocol).unwrap();
    let address = |of: [u8; 4], port| {
        let address = gio::InetAddress::from(IpAddr::from(of));
        gio::InetSocketAddress::new(&address, port)
    };
    socket.bind(&address(from, 0), false).unwrap();
    let server = address([127, 0, 0, 1], port);
    SocketExt::connect(&socket, &server, gio::Cancellable::NONE).unwrap();
    // The socket closes its own.
    let descriptor = socket.as_fd().try_clone_to_owned().unwrap();
    let stream = TcpStream::from(descriptor);
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Whether the server answers on it.
fn is_served(connection: &mut TcpStream) -> bool {
    let patience = Some(Duration::from_secs(20));
    connection.set_read_timeout(patience).unwrap();
    let request = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n";
    let mut answer = [0; 8];
    connection.write_all(request).is_ok()
        && connection.read_exact(&mut answer).is_ok()
        && answer == *b"RTSP/1.0"
}

#[test]
fn one_address_leaves_places_for_others() {
    let server = server(&[
        ("listen", "127.0.0.1:0"),
        ("router", "places"),
        ("max-clients", "8"),
    ]);
    server.set_state(gst::State::Playing).unwrap();
    let port = u16::try_from(server.property::<u32>("port")).unwrap();
    let greedy = || connect([127, 0, 0, 2], port);
    let mut first: Vec<_> = (0..6).map(|_| greedy()).collect();
    assert!(first.iter_mut().all(is_served));
    assert!(!is_served(&mut greedy()), "three quarters");
    for other in [[127, 0, 0, 3], [127, 0, 0, 4]] {
        let mut other = connect(other, port);
        assert!(is_served(&mut other), "others");
    }
    // Who leaves gives its place back.
    first.pop();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !is_served(&mut greedy()) {
        assert!(std::time::Instant::now() < until, "no place is given back");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.set_state(gst::State::Null).unwrap();
}

/// Of gst-rtsp-server's own it has none: it keeps all lines that come.
#[test]
fn a_request_has_an_end() {
    let server = server(&[("listen", "127.0.0.1:0"), ("router", "heads")]);
    server.set_state(gst::State::Playing).unwrap();
    let port = u16::try_from(server.property::<u32>("port")).unwrap();
    let mut patient = connect([127, 0, 0, 1], port);
    let mut ask_often = || {
        let long = "x".repeat(400);
        for _ in 0..100 {
            let request = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX-Long: {long}\r\n\r\n");
            patient.write_all(request.as_bytes()).unwrap();
        }
        read_answers(&mut patient, 100);
    };
    for _ in 0..5 {
        ask_often();
    }
    let mut endless = connect([127, 0, 0, 1], port);
    let limit = Some(Duration::from_secs(20));
    endless.set_write_timeout(limit).unwrap();
    endless
        .write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n")
        .unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let line = format!("X-More: {}\r\n", "x".repeat(1_000));
    let mut sent = 0;
    while endless.write_all(line.as_bytes()).is_ok() {
        sent += line.len();
        assert!(
            std::time::Instant::now() < until,
            "it has no end after {sent}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    // Others go on.
    ask_often();
    server.set_state(gst::State::Null).unwrap();
}

fn read_answers(connection: &mut TcpStream, count: usize) {
    let patience = Some(Duration::from_secs(20));
    connection.set_read_timeout(patience).unwrap();
    let mut read = Vec::new();
    while read.windows(8).filter(|w| w == b"RTSP/1.0").count() < count {
        let mut some = [0; 4_096];
        let octets = connection.read(&mut some).unwrap();
        assert!(octets > 0, "closed");
        read.extend_from_slice(&some[..octets]);
    }
}
