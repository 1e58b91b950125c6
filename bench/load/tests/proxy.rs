// SPDX-License-Identifier: MPL-2.0

//! The proxy as a process, as other tests start it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(to: SocketAddr, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sfu-load"))
            .args(["proxy", "--to", &to.to_string()])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        Self {
            address: address.parse().unwrap(),
            child,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let patience = Some(Duration::from_secs(5));
    socket.set_read_timeout(patience).unwrap();
    socket
}

#[test]
fn clients_keep_apart_and_the_link_changes_while_it_runs() {
    let server = socket();
    let mut proxy = Proxy::start(server.local_addr().unwrap(), &["--delay", "50ms"]);
    let (a, b) = (socket(), socket());
    let mut buffer = [0; 1_500];
    let mut sources = Vec::new();
    for (client, name) in [(&a, b"a"), (&b, b"b")] {
        let start = Instant::now();
        client.send_to(name, proxy.address).unwrap();
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], name);
        server.send_to(&buffer[..len], from).unwrap();
        let (len, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], name);
        let took = start.elapsed().as_millis();
        assert!((100..400).contains(&took), "{took} ms there and back");
        sources.push(from);
    }
    assert_ne!(sources[0], sources[1]);
    // 12 datagrams of 1,000 octets take a second at 100 kbit/s; perfect otherwise.
    let stdin = proxy.child.stdin.as_mut().unwrap();
    stdin.write_all(b"--rate 100k --queue 2s\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    for _ in 0..12 {
        server.send_to(&[0; 1_000], sources[0]).unwrap();
    }
    for _ in 0..12 {
        a.recv_from(&mut buffer).unwrap();
    }
    let took = start.elapsed().as_millis();
    assert!((900..1_500).contains(&took), "{took} ms for 12 datagrams");
}

#[test]
fn wrong_arguments_end_with_status_2_and_a_message() {
    for (arguments, word) in [
        (
            &["--whep", "http://127.0.0.1:1/x", "--viewers", "many"][..],
            "many",
        ),
        (&["proxy"][..], "--to"),
        (&[][..], "--whep"),
        (&["--loss", "2"][..], "100%"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sfu-load"))
            .args(arguments)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(word), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}
