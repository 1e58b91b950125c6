// SPDX-License-Identifier: MPL-2.0

//! One UDP socket with the kernel's offloads: many datagrams a system call, and the address each came to.
//!
//! `quinn-udp` receives, and sends to one viewer in a call; on Linux `sendmmsg` sends to many.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::event::Source;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

#[cfg(target_os = "linux")]
use super::batch::{Headers, MAX, Messages};
#[cfg(target_os = "linux")]
use super::path::{self, Refused};
use crate::shard::{Datagrams, Outbox};

/// Room in the kernel for the packets of a second of a few hundred viewers. The kernel may grant less.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;
/// Reads in a row before queued frames get their turn.
const READS_A_TURN: usize = 16;
/// The largest datagram that can come.
const DATAGRAM_MAX: usize = 2_048;

pub(super) struct Socket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    buffers: Vec<Vec<u8>>,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        for result in [
            state.set_send_buffer_size((&socket).into(), KERNEL_BUFFER),
            state.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER),
        ] {
            if let Err(error) = result {
                tracing::debug!(%error, "the kernel's default buffer size stays");
            }
        }
        let local = socket.local_addr()?;
        #[cfg(target_os = "linux")]
        path::refuse_too_large(&socket, local.is_ipv6());
        let size = DATAGRAM_MAX * state.gro_segments().max(1);
        Ok(Self {
            io: mio::net::UdpSocket::from_std(socket),
            state,
            local,
            buffers: vec![vec![0; size]; BATCH_SIZE],
        })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        &mut self.io
    }

    /// How many equal datagrams the kernel takes in one send.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends all that there is, and tells of each what became of it. An error of one viewer's does not hold up others'.
    #[cfg(target_os = "linux")]
    pub(super) fn send_all(
        &self,
        headers: &mut Headers,
        refused: &mut Refused,
        outbox: &Outbox,
        mut done: impl FnMut(&Datagrams, io::Result<()>),
    ) {
        let offloads = self.max_segments() > 1;
        let mut sends = outbox.iter().peekable();
        while let Some((first, data)) = sends.next() {
            let alone = sends.peek().is_none_or(|(next, _)| !alike(first, next));
            if alone || !offloads {
                done(first, self.send_one(refused, first, data));
                continue;
            }
            let mut messages = Messages::new();
            let mut gathered = [(first, data); MAX];
            messages.push(self.to_socket(first.destination), data);
            while messages.count() < MAX
                && let Some((next, data)) = sends.next_if(|(next, _)| alike(first, next))
            {
                gathered[messages.count()] = (next, data);
                messages.push(self.to_socket(next.destination), data);
            }
            self.send_messages(headers, refused, &messages, &gathered, &mut done);
        }
    }

    /// Sends messages that differ in their destination only.
    #[cfg(target_os = "linux")]
    fn send_messages(
        &self,
        headers: &mut Headers,
        refused: &mut Refused,
        messages: &Messages<'_>,
        gathered: &[(&Datagrams, &[u8]); MAX],
        done: &mut impl FnMut(&Datagrams, io::Result<()>),
    ) {
        let (first, _) = gathered[0];
        let source = self.source_of(first);
        // The kernel's limit of a datagram is below this.
        let segment = u16::try_from(first.segment).unwrap_or(u16::MAX);
        let mut at = 0;
        while at < messages.count() {
            let call = || messages.send(headers, &self.io, at, segment, source);
            match self.io.try_io(call) {
                Ok(sent) => {
                    for (datagrams, _) in &gathered[at..at + sent] {
                        done(datagrams, Ok(()));
                    }
                    at += sent;
                }
                Err(_) => {
                    // The first one is at fault. By itself it gets what `quinn-udp` knows about kernels.
                    let (datagrams, data) = gathered[at];
                    done(datagrams, self.send_one(refused, datagrams, data));
                    at += 1;
                }
            }
        }
    }

    /// Sends datagrams to one viewer; those that are too large for its path leave in fragments.
    #[cfg(target_os = "linux")]
    fn send_one(
        &self,
        refused: &mut Refused,
        datagrams: &Datagrams,
        data: &[u8],
    ) -> io::Result<()> {
        let is_one = data.len() <= datagrams.segment;
        match self.send(datagrams, data) {
            Err(error) if path::is_too_large(&error) => {}
            // Linux before 6.14 says so of segments that are too large.
            Err(error) if !is_one && error.kind() == io::ErrorKind::InvalidInput => {}
            sent => return sent,
        }
        let mut all = Ok(());
        for one in data.chunks(datagrams.segment.max(1)) {
            let mut sent = self.send(datagrams, one);
            if sent.as_ref().is_err_and(path::is_too_large) && refused.add(datagrams.destination) {
                let again = || self.send(datagrams, one);
                sent = path::in_fragments(&self.io, self.local.is_ipv6(), again);
            }
            all = all.and(sent);
        }
        all
    }

    /// Sends all that there is, and tells of each what became of it.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn send_all(
        &self,
        _sending: &mut super::Sending,
        outbox: &Outbox,
        mut done: impl FnMut(&Datagrams, io::Result<()>),
    ) {
        for (datagrams, data) in outbox.iter() {
            done(datagrams, self.send(datagrams, data));
        }
    }

    /// The address to send from, where the socket has several.
    fn source_of(&self, datagrams: &Datagrams) -> Option<IpAddr> {
        let any = self.local.ip().is_unspecified();
        any.then_some(datagrams.source.ip())
    }

    /// Sends datagrams to one viewer, from the address at which it reached us.
    fn send(&self, datagrams: &Datagrams, data: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.to_socket(datagrams.destination),
            ecn: None,
            contents: data,
            segment_size: (data.len() > datagrams.segment).then_some(datagrams.segment),
            src_ip: self.source_of(datagrams),
        };
        self.io
            .try_io(|| self.state.try_send((&self.io).into(), &transmit))
    }

    /// Reads what has come, a bounded number of times, and hands over each datagram.
    pub(super) fn receive(
        &mut self,
        mut take: impl FnMut(Instant, SocketAddr, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        let (io, state, port, bound) = (&self.io, &self.state, self.local.port(), self.local.ip());
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        for _ in 0..READS_A_TURN {
            let mut slices: Vec<IoSliceMut<'_>> = self
                .buffers
                .iter_mut()
                .map(|b| IoSliceMut::new(b))
                .collect();
            let received = io.try_io(|| state.recv(io.into(), &mut slices, &mut metas));
            let count = match received {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // ICMP errors of earlier sends come back here: they concern one viewer only.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            for (meta, buffer) in metas.iter().zip(&self.buffers).take(count) {
                let destination = meta.dst_ip.unwrap_or(bound).to_canonical();
                let destination = SocketAddr::new(destination, port);
                let source = canonical(meta.addr);
                for data in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    take(now, source, destination, data);
                }
            }
        }
        Ok(())
    }

    /// A socket of both families wants IPv4 addresses in their IPv6 form.
    fn to_socket(&self, address: SocketAddr) -> SocketAddr {
        match (self.local.ip(), address.ip()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

/// Whether two messages can leave in one call.
#[cfg(target_os = "linux")]
fn alike(a: &Datagrams, b: &Datagrams) -> bool {
    a.segment == b.segment && a.source == b.source
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// Sends equal messages to viewers of which some can't be reached, and returns what became of each.
    fn sent_to(bind: &str, destinations: &[SocketAddr]) -> Vec<bool> {
        let socket = Socket::bind(bind.parse().unwrap()).unwrap();
        let port = socket.local_address().unwrap().port();
        let source = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
        let mut outbox = Outbox::new(socket.max_segments());
        for destination in destinations {
            for data in [[1u8; 100].as_slice(), &[2; 100], &[3; 40]] {
                outbox.push(source, *destination, data);
            }
        }
        let mut outcomes = Vec::new();
        socket.send_all(
            &mut Headers::new(),
            &mut Refused::new(),
            &outbox,
            |_, result| {
                outcomes.push(result.is_ok());
            },
        );
        outcomes
    }

    #[test]
    fn one_viewers_error_does_not_cost_others_their_packets() {
        let unreachable: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for bind in ["0.0.0.0:0", "127.0.0.1:0", "[::]:0"] {
            let viewers: Vec<UdpSocket> = (0..3)
                .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
                .collect();
            let to: Vec<_> = viewers.iter().map(|v| v.local_addr().unwrap()).collect();
            let outcomes = sent_to(bind, &[unreachable, to[0], to[1], unreachable, to[2]]);
            assert_eq!(outcomes, [false, true, true, false, true], "{bind}");
            for viewer in &viewers {
                viewer
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                for expected in [100, 100, 40] {
                    let (len, from) = viewer.recv_from(&mut [0; 200]).unwrap();
                    assert_eq!(len, expected, "{bind}");
                    assert_eq!(from.ip().to_string(), "127.0.0.1");
                }
            }
        }
    }

    #[test]
    fn more_than_one_call_holds_are_sent() {
        let viewer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (a, b) = (viewer.local_addr().unwrap(), other.local_addr().unwrap());
        let to: Vec<_> = (0..200).map(|n| if n % 2 == 0 { a } else { b }).collect();
        assert_eq!(sent_to("127.0.0.1:0", &to), vec![true; 200]);
    }
}
