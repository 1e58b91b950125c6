// SPDX-License-Identifier: MPL-2.0

//! Sends to many viewers in one system call (`sendmmsg`, Linux). Called by [`super::socket`].
//!
//! Messages of one call have the address that they leave from and their control messages in common: with segmentation
//! offload they are equal in the size of their datagrams, without they are one datagram each.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::segments::Segments;
use crate::address;
use crate::shard::{Datagrams, Outbox, Progress};

/// Messages in one system call.
pub(super) const MAX: usize = 64;

/// Headers that are kept from one call to the next. They hold pointers, so they stay on their thread.
///
/// One set for each kind of control messages: the kernel reads as many octets of them as there is room for.
pub(super) struct Headers {
    single: Kinds,
    segmented: Kinds,
}

/// By the address to send from.
struct Kinds {
    any: MultiHeaders<SockaddrStorage>,
    v4: MultiHeaders<SockaddrStorage>,
    v6: MultiHeaders<SockaddrStorage>,
}

impl Headers {
    pub(super) fn new() -> Self {
        let set = |space: Option<Vec<u8>>| MultiHeaders::preallocate(MAX, space);
        Self {
            single: Kinds {
                any: set(None),
                v4: set(Some(cmsg_space!(libc::in_pktinfo))),
                v6: set(Some(cmsg_space!(libc::in6_pktinfo))),
            },
            segmented: Kinds {
                any: set(Some(cmsg_space!(u16))),
                v4: set(Some(cmsg_space!(u16, libc::in_pktinfo))),
                v6: set(Some(cmsg_space!(u16, libc::in6_pktinfo))),
            },
        }
    }
}

/// What one message holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    /// Of the outbox, counted from its first.
    pub(super) send: usize,
    pub(super) datagrams: usize,
    pub(super) destination: SocketAddr,
    /// Whether it ends what there is of that send.
    ends: bool,
}

/// Messages that are gathered for one call.
pub(super) struct Messages<'a> {
    slices: [[IoSlice<'a>; 1]; MAX],
    addresses: [Option<SockaddrStorage>; MAX],
    about: [Option<Message>; MAX],
    count: usize,
    /// The address to send from, where the socket has several.
    source: SocketAddr,
    is_audio: bool,
    /// The size that datagrams are cut at; `None`: each message is one.
    segment: Option<usize>,
}

impl<'a> Messages<'a> {
    /// What leaves in the next call, from `at` on. `None`: there is nothing more.
    ///
    /// `by_kind`: sound leaves apart from all else. `to_socket` gives addresses the form that the socket wants.
    pub(super) fn gather(
        outbox: &'a Outbox,
        at: Progress,
        segments: &Segments,
        by_kind: bool,
        to_socket: impl Fn(SocketAddr) -> SocketAddr,
    ) -> Option<Self> {
        let (first, _) = outbox.get(at.sends)?;
        let mut messages = Self {
            slices: [[IoSlice::new(&[])]; MAX],
            addresses: [None; MAX],
            about: [None; MAX],
            count: 0,
            source: first.source,
            is_audio: first.is_audio,
            segment: None,
        };
        let mut skip = at.datagrams;
        for index in at.sends.. {
            let alike = |s: &Datagrams| {
                s.source == first.source
                    && (!by_kind || s.is_audio == first.is_audio)
                    && !address::is_tcp(&s.destination)
            };
            let Some((send, data)) = outbox.get(index).filter(|(s, _)| alike(s)) else {
                break;
            };
            let data = &data[(skip * send.segment).min(data.len())..];
            skip = 0;
            let count = data.len().div_ceil(send.segment.max(1));
            let whole = count > 1 && segments.takes(send.destination);
            let (size, segment) = match whole {
                true => (data.len(), Some(send.segment)),
                false => (send.segment, None),
            };
            if !messages.takes(segment, data.len(), segments.takes(send.destination)) {
                break;
            }
            let address = to_socket(send.destination);
            let mut parts = data.chunks(size.max(1)).peekable();
            while let Some(part) = parts.next() {
                let message = Message {
                    send: index,
                    datagrams: if whole { count } else { 1 },
                    destination: send.destination,
                    ends: parts.peek().is_none(),
                };
                messages.push(message, address, part);
                if messages.count == MAX {
                    return Some(messages);
                }
            }
        }
        Some(messages)
    }

    /// Whether what is cut at `segment`, or is single datagrams, can go along.
    fn takes(&mut self, segment: Option<usize>, octets: usize, offload: bool) -> bool {
        if self.count == 0 {
            self.segment = segment;
            return true;
        }
        match (self.segment, segment) {
            (Some(a), Some(b)) => a == b,
            // One datagram that is no longer than a segment is cut nowhere.
            (Some(a), None) => offload && octets <= a,
            (None, None) => true,
            (None, Some(_)) => false,
        }
    }

    fn push(&mut self, message: Message, address: SocketAddr, data: &'a [u8]) {
        self.slices[self.count] = [IoSlice::new(data)];
        self.addresses[self.count] = Some(address.into());
        self.about[self.count] = Some(message);
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn source(&self) -> SocketAddr {
        self.source
    }

    pub(super) fn iter(&self, range: Range<usize>) -> impl Iterator<Item = &Message> {
        self.about[range].iter().flatten()
    }

    pub(super) fn is_audio(&self) -> bool {
        self.is_audio
    }

    pub(super) fn is_segmented(&self) -> bool {
        self.segment.is_some()
    }

    /// How far the outbox is sent when so many of these messages are over.
    pub(super) fn progress(&self, from: Progress, over: usize) -> Progress {
        let mut progress = from;
        for message in self.iter(0..over) {
            if message.ends {
                progress.sends = message.send + 1;
                progress.datagrams = 0;
            } else {
                progress.datagrams += message.datagrams;
            }
        }
        progress
    }

    /// Sends these messages. Returns how many were taken, at least one; an error is that of the
    /// first message, and nothing was sent.
    pub(super) fn send(
        &self,
        headers: &mut Headers,
        socket: &impl AsRawFd,
        range: Range<usize>,
        source: Option<IpAddr>,
    ) -> io::Result<usize> {
        let fd = socket.as_raw_fd();
        // The kernel's limit of a datagram is below this.
        let segment = self.segment.map(|s| u16::try_from(s).unwrap_or(u16::MAX));
        let offload = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let kinds = match segment {
            Some(_) => &mut headers.segmented,
            None => &mut headers.single,
        };
        match (source, offload) {
            (None, None) => self.call(&mut kinds.any, fd, range, &[]),
            (None, Some(offload)) => self.call(&mut kinds.any, fd, range, &[offload]),
            (Some(IpAddr::V4(ip)), offload) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let info = ControlMessage::Ipv4PacketInfo(&info);
                match offload {
                    Some(offload) => self.call(&mut kinds.v4, fd, range, &[offload, info]),
                    None => self.call(&mut kinds.v4, fd, range, &[info]),
                }
            }
            (Some(IpAddr::V6(ip)), offload) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let info = ControlMessage::Ipv6PacketInfo(&info);
                match offload {
                    Some(offload) => self.call(&mut kinds.v6, fd, range, &[offload, info]),
                    None => self.call(&mut kinds.v6, fd, range, &[info]),
                }
            }
        }
    }

    fn call(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        fd: RawFd,
        range: Range<usize>,
        control: &[ControlMessage<'_>],
    ) -> io::Result<usize> {
        let slices = &self.slices[range.clone()];
        let addresses = &self.addresses[range];
        let results = sendmmsg(fd, headers, slices, addresses, control, MsgFlags::empty())?;
        Ok(results.count())
    }
}
