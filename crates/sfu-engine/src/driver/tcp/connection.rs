// SPDX-License-Identifier: MPL-2.0

//! One TCP connection of a peer. Called by [`super`].

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
#[cfg(target_os = "linux")]
use nix::{libc, setsockopt_impl, sockopt_impl};

use super::frames::{Garbage, Queue, Reader};
use crate::address::{self, ConnectionId};
use crate::shard::Shard;

/// Who belongs to no session for so long is cut.
const NOBODY: Duration = Duration::from_secs(10);
/// What somebody may say who belongs to no session: checks for that time.
const NOBODY_FRAMES: u32 = 200;
/// Who takes nothing of what waits for so long is cut.
const STALLED: Duration = Duration::from_secs(10);
/// Octets that the kernel holds unsent: what waits is better where it can be dropped.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;

#[cfg(target_os = "linux")]
sockopt_impl!(
    /// Octets that wait unsent in the kernel before it takes no more.
    NotSentLowat,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By the peer, or the network.
    Closed,
    SessionOver,
    Garbage,
    Nobody,
    /// Others need its place, and it belongs to nobody.
    Crowded,
    Stalled,
}

impl Ended {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed by the peer",
            Self::SessionOver => "its session is over",
            Self::Garbage => "what it says are no datagrams of ICE",
            Self::Nobody => "it has named no session",
            Self::Crowded => "it has named no session, and others need its place",
            Self::Stalled => "it takes nothing of what it is sent",
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    /// What sessions know it as.
    address: SocketAddr,
    local: SocketAddr,
    reader: Reader,
    pub(super) queue: Queue,
    /// It is a session's.
    pub(super) known: bool,
    /// What it has said before.
    frames: u32,
    /// When it came, and when it last took something.
    since: Instant,
    took: Instant,
    pub(super) writable: bool,
    /// It is among those that are to be read.
    pub(super) readable: bool,
    broken: bool,
}

impl Connection {
    pub(super) fn begin(
        now: Instant,
        stream: TcpStream,
        peer: SocketAddr,
        id: ConnectionId,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        hold_little(&stream);
        let local = address::plain(&stream.local_addr()?);
        Ok(Self {
            stream,
            id,
            peer,
            address: address::of_connection(peer, id),
            local,
            reader: Reader::default(),
            queue: Queue::default(),
            known: false,
            frames: 0,
            since: now,
            took: now,
            writable: true,
            readable: false,
            broken: false,
        })
    }

    /// Reads some of what has come. Returns whether there may be more.
    pub(super) fn read(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        shard: &mut Shard,
    ) -> Result<bool, Ended> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(Ended::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(_) => return Err(Ended::Closed),
        };
        let data = buffer.get(..count).unwrap_or_default();
        let (local, address) = (self.local, self.address);
        let (known, frames) = (&mut self.known, &mut self.frames);
        let take = |frame: &[u8]| {
            if !*known {
                *frames += 1;
                if !is_stun(frame) || *frames > NOBODY_FRAMES {
                    return Err(Garbage);
                }
            }
            shard.receive(now, address, local, frame);
            *known = *known || shard.knows(&address);
            Ok(())
        };
        let read = self.reader.read(data, take);
        read.map_err(|Garbage| Ended::Garbage)?;
        Ok(true)
    }

    /// Sends frames, or keeps what is not taken in so much room. Returns how many were dropped.
    pub(super) fn write(&mut self, now: Instant, frames: &[u8], room: usize) -> u64 {
        let mut dropped = 0;
        if self.queue.is_empty() {
            self.took = now;
        } else {
            dropped = self.queue.drop_late(now);
            self.flush_at(now);
        }
        let gone = match self.queue.is_empty() && self.writable {
            true => self.try_write(frames),
            false => 0,
        };
        dropped + self.queue.push(now, frames, gone, room)
    }

    /// Sends what waits, as far as it is taken.
    pub(super) fn flush(&mut self) {
        self.flush_at(Instant::now());
    }

    fn flush_at(&mut self, now: Instant) {
        while self.writable && !self.queue.is_empty() {
            let mut stream = &self.stream;
            let taken = match stream.write(self.queue.next()) {
                Ok(taken) => taken,
                Err(error) => {
                    self.refused(&error);
                    continue;
                }
            };
            self.took = now;
            self.queue.left(taken);
        }
    }

    /// Returns how many octets were taken.
    fn try_write(&mut self, octets: &[u8]) -> usize {
        let mut gone = 0;
        while self.writable && gone < octets.len() {
            match self.stream.write(octets.get(gone..).unwrap_or_default()) {
                Ok(taken) => gone += taken,
                Err(error) => self.refused(&error),
            }
        }
        gone
    }

    fn refused(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            // It is told when there is room again.
            io::ErrorKind::WouldBlock => self.writable = false,
            _ => {
                self.writable = false;
                self.broken = true;
            }
        }
    }

    /// Whether it has had its time.
    pub(super) fn look(&mut self, now: Instant, shard: &Shard) -> Option<Ended> {
        let long = |since: Instant, time: Duration| now.saturating_duration_since(since) >= time;
        if self.broken {
            return Some(Ended::Closed);
        }
        let is_sessions = shard.knows(&self.address);
        if !is_sessions && self.known {
            return Some(Ended::SessionOver);
        }
        self.known = is_sessions;
        if !is_sessions && long(self.since, NOBODY) {
            return Some(Ended::Nobody);
        }
        (!self.queue.is_empty() && long(self.took, STALLED)).then_some(Ended::Stalled)
    }
}

/// A check, as whoever begins must send one (RFC 8489, section 5).
fn is_stun(frame: &[u8]) -> bool {
    matches!(frame, [0..=3, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..])
}

#[cfg(target_os = "linux")]
fn hold_little(stream: &TcpStream) {
    use nix::sys::socket::setsockopt;
    if let Err(error) = setsockopt(stream, NotSentLowat, &UNSENT) {
        tracing::debug!(%error, "the kernel holds what it likes of a TCP connection");
    }
}
