// SPDX-License-Identifier: MPL-2.0

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetBool;
use nix::{libc, setsockopt_impl};

use super::*;

/// Without UDP checksums the kernel refuses segmentation (EINVAL), and sends all else.
#[derive(Debug, Clone, Copy)]
struct NoCheck;
setsockopt_impl!(NoCheck, libc::SOL_SOCKET, libc::SO_NO_CHECK, bool, SetBool);

fn socket(bind: &str) -> Socket {
    let outgoing = Outgoing {
        send_buffer: 1 << 20,
        dscp: false,
    };
    Socket::bind(bind.parse().unwrap(), outgoing).unwrap()
}

fn viewers<const N: usize>() -> ([UdpSocket; N], [SocketAddr; N]) {
    let viewers = std::array::from_fn(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    for viewer in &viewers {
        viewer
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
    }
    let addresses = viewers.each_ref().map(|v| v.local_addr().unwrap());
    (viewers, addresses)
}

/// Three datagrams to each, of which two are equal.
fn outbox(socket: &Socket, destinations: &[SocketAddr]) -> Outbox {
    let source = SocketAddr::new([127, 0, 0, 1].into(), socket.local_address().port());
    let mut outbox = Outbox::new(socket.max_segments());
    for destination in destinations {
        for data in [[1u8; 100].as_slice(), &[2; 100], &[3; 40]] {
            outbox.push(source, *destination, data);
        }
    }
    outbox
}

/// Sends, and returns how many datagrams to each destination left and failed.
fn send(
    socket: &mut Socket,
    outbox: &mut Outbox,
    destinations: &[SocketAddr],
) -> Vec<(usize, usize)> {
    let mut outcomes = vec![(0, 0); destinations.len()];
    let (mut headers, mut refused) = (Headers::new(), Refused::new());
    let now = Instant::now();
    let none = |_: &Outbox, _| panic!("none is by TCP");
    let refusal = socket.send_all(now, &mut headers, &mut refused, outbox, none, |outcome| {
        let at = destinations.iter().position(|d| *d == outcome.destination);
        let (left, failed) = &mut outcomes[at.unwrap()];
        match outcome.result {
            Ok(()) => *left += outcome.datagrams,
            Err(_) => *failed += outcome.datagrams,
        }
    });
    assert_eq!(refusal, None);
    assert!(outbox.is_empty());
    outcomes
}

fn expect_all(viewer: &UdpSocket, what: &str) {
    for expected in [100, 100, 40] {
        let (len, from) = viewer.recv_from(&mut [0; 200]).unwrap();
        assert_eq!(len, expected, "{what}");
        assert_eq!(from.ip().to_string(), "127.0.0.1");
    }
}

#[test]
fn one_viewers_error_costs_others_neither_packets_nor_segmentation() {
    for bind in ["0.0.0.0:0", "127.0.0.1:0", "[::]:0"] {
        for bad in ["127.0.0.1:0", "255.255.255.255:9", "240.0.0.1:9"] {
            let bad: SocketAddr = bad.parse().unwrap();
            let (viewers, good) = viewers::<3>();
            let to = [bad, good[0], good[1], bad, good[2]];
            let mut socket = socket(bind);
            for _ in 0..3 {
                let mut outbox = outbox(&socket, &to);
                let outcomes = send(&mut socket, &mut outbox, &to);
                let what = format!("{bad} from {bind}: {outcomes:?}");
                assert_eq!(outcomes[0], (0, 6), "{what}");
                assert_eq!(
                    [outcomes[1], outcomes[2], outcomes[4]],
                    [(3, 0); 3],
                    "{what}"
                );
                for viewer in &viewers {
                    expect_all(viewer, &what);
                }
                assert!(socket.segments.takes(good[0]), "{what}");
            }
        }
    }
}

#[test]
fn what_the_network_says_of_one_viewer_fails_nobody_elses_send() {
    let (viewers, good) = viewers::<2>();
    // Nobody is there any more: each datagram is answered by ICMP, which comes back with the next send.
    let gone = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let to = [gone, good[0], gone, good[1]];
    let mut socket = socket("0.0.0.0:0");
    for round in 0..200 {
        let mut outbox = outbox(&socket, &to);
        let outcomes = send(&mut socket, &mut outbox, &to);
        assert_eq!([outcomes[1], outcomes[3]], [(3, 0); 2], "round {round}");
        for viewer in &viewers {
            expect_all(viewer, "beside one who is gone");
        }
        socket.read_errors(|_| {});
    }
}

#[test]
fn without_segmentation_single_datagrams_leave_at_once() {
    let (viewers, to) = viewers::<3>();
    let mut socket = socket("127.0.0.1:0");
    setsockopt(&socket.io, NoCheck, &true).unwrap();
    assert!(socket.max_segments() > 1, "or this tests nothing");
    for round in 0..20 {
        let mut outbox = outbox(&socket, &to);
        assert_eq!(send(&mut socket, &mut outbox, &to), [(3, 0); 3], "{round}");
        for viewer in &viewers {
            expect_all(viewer, "without segmentation");
        }
    }
    assert!(to.iter().all(|to| !socket.segments.takes(*to)));
}

#[test]
fn a_machine_without_segmentation_is_known_at_start() {
    let socket = socket("127.0.0.1:0");
    setsockopt(&socket.io, NoCheck, &true).unwrap();
    assert!(!socket.probe());
    setsockopt(&socket.io, NoCheck, &false).unwrap();
    assert!(socket.probe());
    let mut received = 0;
    let mut socket = socket;
    let read = socket.receive(|_, _, _, _| received += 1);
    assert!(read.failed.is_none(), "{:?}", read.failed);
    assert_eq!(received, 0, "the probe is no datagram of a peer's");
}

#[test]
fn more_than_one_call_holds_are_sent() {
    let (_viewers, [a, b]) = viewers::<2>();
    let mut socket = socket("127.0.0.1:0");
    let source = socket.local_address();
    let mut outbox = Outbox::new(socket.max_segments());
    // Of all sizes, alone and many, in every order.
    for n in 0..500usize {
        let to = if n % 3 == 0 { a } else { b };
        for _ in 0..=n % 4 {
            outbox.push(source, to, &vec![0; 20 + n % 7]);
        }
    }
    let of = |n: usize| n % 4 + 1;
    let to_a: usize = (0..500).filter(|n| n % 3 == 0).map(of).sum();
    let to_b: usize = (0..500).filter(|n| n % 3 != 0).map(of).sum();
    assert_eq!(
        send(&mut socket, &mut outbox, &[a, b]),
        [(to_a, 0), (to_b, 0)]
    );
}
