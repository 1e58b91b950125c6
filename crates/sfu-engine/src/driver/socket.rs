// SPDX-License-Identifier: MPL-2.0

//! One UDP socket with the kernel's offloads: many datagrams a system call, and the address each came to.
//!
//! `quinn-udp` receives; on Linux `sendmmsg` sends to many viewers in a call, elsewhere `quinn-udp` to one.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Instant;

use mio::event::Source;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

#[cfg(target_os = "linux")]
use super::batch::{Headers, Messages};
#[cfg(target_os = "linux")]
use super::path::{self, Refused};
#[cfg(target_os = "linux")]
use super::segments::Segments;
use super::window::Refusal;
use crate::address;
use crate::shard::{Outbox, Progress};

#[cfg(target_os = "linux")]
const ENOBUFS: i32 = nix::libc::ENOBUFS;
#[cfg(all(unix, not(target_os = "linux")))]
const ENOBUFS: i32 = 55;
/// Room in the kernel for what comes from some hundred viewers in a second. The kernel may grant less.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Reads in a row before queued frames get their turn.
const READS_A_TURN: usize = 16;
/// The largest datagram that can come.
const DATAGRAM_MAX: usize = 2_048;
/// RFC 8837, table 1, priority medium: sound, and interactive video. What else there is goes with the video.
#[cfg(target_os = "linux")]
const EF: i32 = 46;
#[cfg(target_os = "linux")]
const AF42: i32 = 36;
/// A send may bring the errors of so many earlier ones (ICMP) before it is at fault itself.
const EARLIER_ERRORS: usize = 2;
/// Errors of earlier sends that are read at a time: more than a socket's queue holds.
const ERRORS_A_TURN: usize = 1_024;

pub(super) struct Socket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    buffers: Vec<Vec<u8>>,
    send_buffer: SendBuffer,
    marking: Marking,
    #[cfg(target_os = "linux")]
    segments: Segments,
}

/// The room for datagrams on their way out, in octets as the application asks for them: the kernel counts twice as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendBuffer {
    pub(super) wanted: usize,
    pub(super) granted: usize,
}

/// How datagrams leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    /// The send buffer to ask the kernel for, in octets.
    pub(crate) send_buffer: usize,
    /// Mark sound and pictures for networks that treat them apart (RFC 8837).
    pub(crate) dscp: bool,
}

/// Differentiated services code points, and which one the socket has: that of sound or of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marking {
    Off,
    On(Option<bool>),
}

/// What became of reading.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// There is nothing more.
    pub(super) drained: bool,
    pub(super) failed: Option<io::Error>,
}

/// What became of a send to one destination.
pub(super) struct Outcome {
    pub(super) destination: SocketAddr,
    pub(super) datagrams: usize,
    pub(super) result: io::Result<()>,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr, outgoing: Outgoing) -> io::Result<Self> {
        let Outgoing { send_buffer, dscp } = outgoing;
        let socket = std::net::UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        if let Err(error) = state.set_recv_buffer_size((&socket).into(), RECEIVE_BUFFER) {
            tracing::debug!(%error, "the kernel's default size of the receive buffer stays");
        }
        // A full queue is told (ENOBUFS), and so is what a network says of our datagrams (ICMP).
        if let Err(error) = state.enable_transport_errors((&socket).into()) {
            tracing::debug!(%error, "the network's errors are not told");
        }
        let local = socket.local_addr()?;
        let size = DATAGRAM_MAX * state.gro_segments().max(1);
        let mut socket = Self {
            io: mio::net::UdpSocket::from_std(socket),
            #[cfg(target_os = "linux")]
            segments: Segments::new(state.max_gso_segments() > 1),
            state,
            local,
            buffers: vec![vec![0; size]; BATCH_SIZE],
            marking: match dscp {
                true => Marking::On(None),
                false => Marking::Off,
            },
            send_buffer: SendBuffer {
                wanted: send_buffer,
                granted: 0,
            },
        };
        #[cfg(target_os = "linux")]
        if !socket.probe() {
            tracing::info!("no UDP segmentation offload here: each datagram leaves by itself");
            socket.segments = Segments::new(false);
        }
        #[cfg(target_os = "linux")]
        path::begin(&socket.io, local.is_ipv6());
        socket.set_send_buffer(send_buffer);
        socket.send_buffer.granted = socket.send_buffer_size();
        Ok(socket)
    }

    /// Whether the kernel takes several datagrams in one message, tried on the way to ourselves.
    #[cfg(target_os = "linux")]
    fn probe(&self) -> bool {
        let to = match self.local.ip() {
            ip if !ip.is_unspecified() => self.local,
            IpAddr::V4(_) => (std::net::Ipv4Addr::LOCALHOST, self.local.port()).into(),
            IpAddr::V6(_) => (std::net::Ipv6Addr::LOCALHOST, self.local.port()).into(),
        };
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents: &[0; 2],
            segment_size: Some(1),
            src_ip: None,
        };
        // A state of its own: `quinn-udp` would turn the offload off for good.
        let Ok(state) = UdpSocketState::new((&self.io).into()) else {
            return false;
        };
        let works = state.max_gso_segments() > 1
            && self
                .io
                .try_io(|| state.try_send((&self.io).into(), &transmit))
                .is_ok();
        // It is no peer's. On the way to ourselves it has arrived by now.
        while self.io.recv(&mut [0; 2]).is_ok() {}
        works
    }

    /// Sets the room for datagrams on their way out, past the system's limit where we may.
    #[cfg(target_os = "linux")]
    pub(super) fn set_send_buffer(&self, octets: usize) {
        use nix::sys::socket::{setsockopt, sockopt};
        if setsockopt(&self.io, sockopt::SndBufForce, &octets).is_ok() {
            return;
        }
        if let Err(error) = setsockopt(&self.io, sockopt::SndBuf, &octets) {
            tracing::debug!(%error, "the size of the send buffer stays");
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set_send_buffer(&self, octets: usize) {
        if let Err(error) = self.state.set_send_buffer_size((&self.io).into(), octets) {
            tracing::debug!(%error, "the size of the send buffer stays");
        }
    }

    fn send_buffer_size(&self) -> usize {
        let size = self.state.send_buffer_size((&self.io).into()).unwrap_or(0);
        match cfg!(target_os = "linux") {
            true => size / 2,
            false => size,
        }
    }

    pub(super) fn send_buffer(&self) -> SendBuffer {
        self.send_buffer
    }

    pub(super) fn local_address(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        &mut self.io
    }

    /// How many equal datagrams the kernel takes in one send.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Whether several datagrams leave as one message.
    #[cfg(target_os = "linux")]
    pub(super) fn segments(&self) -> bool {
        self.segments.is_on()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn segments(&self) -> bool {
        self.max_segments() > 1
    }

    /// Sends what the kernel takes, forgets it, and tells of each what became of it. What it did not take stays.
    ///
    /// An error of one viewer's does not hold up others'. What is for a TCP connection is handed to `by_tcp`, which
    /// returns how many sends that were.
    #[cfg(target_os = "linux")]
    pub(super) fn send_all(
        &mut self,
        now: Instant,
        headers: &mut Headers,
        refused: &mut Refused,
        outbox: &mut Outbox,
        mut by_tcp: impl FnMut(&Outbox, usize) -> usize,
        mut done: impl FnMut(Outcome),
    ) -> Option<Refusal> {
        self.segments.renew(now);
        let v6 = self.local.is_ipv6();
        let by_kind = self.marking != Marking::Off;
        let mut at = Progress::default();
        let mut refusal = None;
        while refusal.is_none()
            && let Some((head, _)) = outbox.get(at.sends)
        {
            if address::is_tcp(&head.destination) {
                at.sends += by_tcp(outbox, at.sends);
                continue;
            }
            let to_socket = |address| to_socket(v6, address);
            let gathered = Messages::gather(outbox, at, &self.segments, by_kind, to_socket);
            let Some(messages) = gathered else {
                break;
            };
            self.mark(messages.is_audio());
            let over;
            (over, refusal) = self.send_messages(now, headers, refused, &messages, &mut done);
            at = messages.progress(at, over);
        }
        outbox.forget(at);
        refusal
    }

    /// Sends messages in one call, or in as many as errors make of it. Returns how many are over, and why it ended
    /// before the last, if the kernel takes no more. Where the others are to be gathered anew, there is no reason.
    #[cfg(target_os = "linux")]
    fn send_messages(
        &mut self,
        now: Instant,
        headers: &mut Headers,
        refused: &mut Refused,
        messages: &Messages<'_>,
        done: &mut impl FnMut(Outcome),
    ) -> (usize, Option<Refusal>) {
        let source = self.source_of(messages.source());
        let mut over = 0;
        let mut earlier_errors = EARLIER_ERRORS;
        while over < messages.count() {
            let rest = over..messages.count();
            let call = || messages.send(headers, &self.io, rest, source);
            let error = match self.io.try_io(call) {
                Ok(sent) => {
                    for message in messages.iter(over..over + sent) {
                        if message.datagrams > 1 {
                            self.segments.took();
                        }
                        done(Outcome {
                            destination: message.destination,
                            datagrams: message.datagrams,
                            result: Ok(()),
                        });
                    }
                    over += sent;
                    earlier_errors = EARLIER_ERRORS;
                    continue;
                }
                Err(error) => error,
            };
            if let Some(refusal) = refusal(&error) {
                return (over, Some(refusal));
            }
            // What the network said of an earlier datagram to somebody else comes with whatever is sent next.
            if earlier_errors > 0 {
                earlier_errors -= 1;
                continue;
            }
            let Some(message) = messages.iter(over..over + 1).next().copied() else {
                break;
            };
            if messages.is_segmented() && is_of_segmentation(&error) {
                self.segments.refuse(now, message.destination);
                break;
            }
            let mut result = Err(error);
            if !result.as_ref().is_err_and(path::is_too_large) {
                self.segments.acquit(message.destination);
            } else if refused.add(message.destination) {
                result = path::in_fragments(&self.io, self.local.is_ipv6(), || {
                    let mut call = || messages.send(headers, &self.io, over..over + 1, source);
                    let mut sent = self.io.try_io(&mut call);
                    for _ in 0..EARLIER_ERRORS {
                        if sent.as_ref().err().is_none_or(|e| refusal(e).is_some()) {
                            break;
                        }
                        sent = self.io.try_io(&mut call);
                    }
                    sent.map(|_| ())
                });
                if let Some(refusal) = result.as_ref().err().and_then(refusal) {
                    refused.take_back(message.destination);
                    return (over, Some(refusal));
                }
            }
            done(Outcome {
                destination: message.destination,
                datagrams: message.datagrams,
                result,
            });
            over += 1;
        }
        (over, None)
    }

    /// Sends what the system takes, forgets it, and tells of each what became of it. What it did not take stays.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn send_all(
        &mut self,
        _now: Instant,
        outbox: &mut Outbox,
        mut by_tcp: impl FnMut(&Outbox, usize) -> usize,
        mut done: impl FnMut(Outcome),
    ) -> Option<Refusal> {
        let v6 = self.local.is_ipv6();
        let mut progress = Progress::default();
        let mut refused = None;
        while let Some((datagrams, data)) = outbox.get(progress.sends) {
            if address::is_tcp(&datagrams.destination) {
                progress.sends += by_tcp(outbox, progress.sends);
                continue;
            }
            let transmit = quinn_udp::Transmit {
                destination: to_socket(v6, datagrams.destination),
                ecn: None,
                contents: data,
                segment_size: (data.len() > datagrams.segment).then_some(datagrams.segment),
                src_ip: self.source_of(datagrams.source),
            };
            let call = || self.state.try_send((&self.io).into(), &transmit);
            let result = self.io.try_io(call);
            if let Some(refusal) = result.as_ref().err().and_then(refusal) {
                refused = Some(refusal);
                break;
            }
            done(Outcome {
                destination: datagrams.destination,
                datagrams: datagrams.count(),
                result,
            });
            progress.sends += 1;
        }
        outbox.forget(progress);
        refused
    }

    /// Gives what leaves from now on the mark of its kind, where that is wanted.
    #[cfg(target_os = "linux")]
    fn mark(&mut self, is_audio: bool) {
        use nix::sys::socket::{setsockopt, sockopt};
        let Marking::On(last) = &mut self.marking else {
            return;
        };
        if last.replace(is_audio) == Some(is_audio) {
            return;
        }
        // The upper six bits: the others are the network's (ECN).
        let octet = if is_audio { EF } else { AF42 } << 2;
        let v4 = setsockopt(&self.io, sockopt::Ipv4Tos, &octet);
        let v6 = match self.local.is_ipv6() {
            true => setsockopt(&self.io, sockopt::Ipv6TClass, &octet),
            false => Ok(()),
        };
        if let Err(error) = v4.and(v6) {
            tracing::debug!(%error, "datagrams could not be marked");
        }
    }

    /// Hands over what networks and hosts say of our datagrams (ICMP), each once, with the address that says so.
    pub(super) fn read_errors(&self, mut take: impl FnMut(quinn_udp::TransportError)) {
        for _ in 0..ERRORS_A_TURN {
            match self.state.recv_transport_error((&self.io).into()) {
                Ok(Some(error)) => take(error),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// What leaves for there leaves in single datagrams for a while.
    #[cfg(target_os = "linux")]
    pub(super) fn split(&mut self, now: Instant, destination: SocketAddr) {
        self.segments.refuse(now, destination);
    }

    /// The address to send from, where the socket has several.
    fn source_of(&self, source: SocketAddr) -> Option<IpAddr> {
        let any = self.local.ip().is_unspecified() && !source.ip().is_unspecified();
        any.then_some(source.ip())
    }

    /// Reads what has come, a bounded number of times, and hands over each datagram.
    pub(super) fn receive(
        &mut self,
        mut take: impl FnMut(Instant, SocketAddr, SocketAddr, &[u8]),
    ) -> Read {
        let (io, state, port, bound) = (&self.io, &self.state, self.local.port(), self.local.ip());
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut read = Read::default();
        for _ in 0..READS_A_TURN {
            let mut slices: Vec<IoSliceMut<'_>> = self
                .buffers
                .iter_mut()
                .map(|b| IoSliceMut::new(b))
                .collect();
            let received = io.try_io(|| state.recv(io.into(), &mut slices, &mut metas));
            let count = match received {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    read.drained = true;
                    break;
                }
                // Errors of earlier sends (ICMP) come back here: they concern one viewer only.
                Err(error) => {
                    read.failed = Some(error);
                    continue;
                }
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
            // There was no more. What comes from here on is told of anew; elsewhere only once a read has found nothing.
            if cfg!(target_os = "linux") && count < self.buffers.len() {
                read.drained = true;
                break;
            }
        }
        read
    }
}

/// A socket of both families wants IPv4 addresses in their IPv6 form.
fn to_socket(v6: bool, address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) if v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

/// Whether the kernel takes nothing more for now, whoever it is for.
fn refusal(error: &io::Error) -> Option<Refusal> {
    if error.kind() == io::ErrorKind::WouldBlock {
        return Some(Refusal::BufferFull);
    }
    #[cfg(unix)]
    if error.raw_os_error() == Some(ENOBUFS) {
        return Some(Refusal::QueueFull);
    }
    None
}

/// Whether it may be segmentation that a route refuses: EIO without checksum offload, EINVAL and EMSGSIZE where a
/// segment does not fit, EOPNOTSUPP.
#[cfg(target_os = "linux")]
fn is_of_segmentation(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP)
    )
}

/// One name for each peer. The zone stays: without it nobody reaches a link-local address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match (address, address.ip().to_canonical()) {
        (SocketAddr::V6(v6), IpAddr::V6(ip)) => {
            SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into()
        }
        (_, ip) => SocketAddr::new(ip, address.port()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
