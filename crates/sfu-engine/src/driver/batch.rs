// SPDX-License-Identifier: MPL-2.0

//! Sends to many viewers in one system call (`sendmmsg`, Linux), each message with segmentation offload and the address
//! to send from. Called by [`super::socket`] with messages that have both in common.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

/// Messages in one system call.
pub(super) const MAX: usize = 64;

/// Headers that are kept from one call to the next. They hold pointers, so they stay on their thread.
///
/// One set for each kind of control messages: the kernel reads as many octets of them as there is room for.
pub(super) struct Headers {
    plain: MultiHeaders<SockaddrStorage>,
    v4: MultiHeaders<SockaddrStorage>,
    v6: MultiHeaders<SockaddrStorage>,
}

impl Headers {
    pub(super) fn new() -> Self {
        Self {
            plain: MultiHeaders::preallocate(MAX, Some(cmsg_space!(u16))),
            v4: MultiHeaders::preallocate(MAX, Some(cmsg_space!(u16, libc::in_pktinfo))),
            v6: MultiHeaders::preallocate(MAX, Some(cmsg_space!(u16, libc::in6_pktinfo))),
        }
    }
}

/// Messages that are gathered for one call.
pub(super) struct Messages<'a> {
    slices: [[IoSlice<'a>; 1]; MAX],
    addresses: [Option<SockaddrStorage>; MAX],
    count: usize,
}

impl<'a> Messages<'a> {
    pub(super) fn new() -> Self {
        Self {
            slices: [[IoSlice::new(&[])]; MAX],
            addresses: [None; MAX],
            count: 0,
        }
    }

    pub(super) fn push(&mut self, destination: SocketAddr, data: &'a [u8]) {
        self.slices[self.count] = [IoSlice::new(data)];
        self.addresses[self.count] = Some(destination.into());
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Sends from the message with this number on. Returns how many were taken, at least one; an error is that of the
    /// first message, and nothing was sent.
    pub(super) fn send(
        &self,
        headers: &mut Headers,
        socket: &impl AsRawFd,
        from: usize,
        segment: u16,
        source: Option<IpAddr>,
    ) -> io::Result<usize> {
        let fd = socket.as_raw_fd();
        let offload = ControlMessage::UdpGsoSegments(&segment);
        match source {
            None => self.call(&mut headers.plain, fd, from, &[offload]),
            Some(IpAddr::V4(ip)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [offload, ControlMessage::Ipv4PacketInfo(&info)];
                self.call(&mut headers.v4, fd, from, &control)
            }
            Some(IpAddr::V6(ip)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let control = [offload, ControlMessage::Ipv6PacketInfo(&info)];
                self.call(&mut headers.v6, fd, from, &control)
            }
        }
    }

    fn call(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        fd: RawFd,
        from: usize,
        control: &[ControlMessage<'_>],
    ) -> io::Result<usize> {
        let slices = &self.slices[from..self.count];
        let addresses = &self.addresses[from..self.count];
        let results = sendmmsg(fd, headers, slices, addresses, control, MsgFlags::empty())?;
        Ok(results.count())
    }
}
