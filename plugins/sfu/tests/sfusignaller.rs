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
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
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
        ("announce-address", "192.0.2.7,here", "announce-address"),
        ("ice-servers", "stun.example.org", "stun:HOST"),
    ] {
        let element = signaller(&[(property, value)]);
        let error = error(&element);
        assert!(error.contains(says), "{property}={value}: {error}");
        element.set_state(gst::State::Null).unwrap();
    }
}
