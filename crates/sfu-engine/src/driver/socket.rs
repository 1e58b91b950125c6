// SPDX-License-Identifier: MPL-2.0

//! One UDP socket with the kernel's offloads (`quinn-udp`): many datagrams a system call, and the address each came to.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::event::Source;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

use crate::shard::Datagrams;

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

    /// Sends datagrams to one viewer, from the address at which it reached us.
    pub(super) fn send(&self, datagrams: &Datagrams, data: &[u8]) -> io::Result<()> {
        let source = datagrams.source.ip();
        let transmit = Transmit {
            destination: self.to_socket(datagrams.destination),
            ecn: None,
            contents: data,
            segment_size: (data.len() > datagrams.segment).then_some(datagrams.segment),
            src_ip: self.local.ip().is_unspecified().then_some(source),
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

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
