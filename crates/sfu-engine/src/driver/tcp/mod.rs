// SPDX-License-Identifier: MPL-2.0

//! TCP for who gets no UDP through (passive ICE-TCP, RFC 6544): a listener on the number of the shard's UDP port, and its
//! connections. Called by the driver.
//!
//! A connection's datagrams are a session's as those of any address ([`crate::address`]): its first check names it. Who
//! belongs to no session has ten seconds and little room to change that. What a peer does not take waits in a queue of
//! bounded length and time, and is dropped in whole datagrams beyond that: to its session they were lost on the way.

mod connection;
mod frames;
mod limits;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Registry, Token};
use slab::Slab;

use crate::address::{self, ConnectionId};
use crate::shard::{Outbox, Shard};
use crate::stats::Counters;
use connection::{Connection, Ended};
use limits::Places;
pub(crate) use limits::TcpLimits;

/// The listener's token; connections have those above it.
pub(super) const LISTENER: Token = Token(2);
const FIRST: usize = 3;
/// Connections that are taken, and that are read, before others get their turn.
const ACCEPTS_A_TURN: usize = 16;
const READS_A_TURN: usize = 64;
/// What is read of one at a time, in octets.
const READ: usize = 16 * 1024;
/// How often connections are looked after.
const SWEEP: Duration = Duration::from_secs(1);
/// That none can be taken is told once in this time.
const COMPLAINT: Duration = Duration::from_secs(10);
/// Octets that wait for all of a shard's peers, at most.
const QUEUES_MAX: usize = 32 * 1024 * 1024;

/// See the module's description.
pub(super) struct Tcp {
    listener: TcpListener,
    registry: Registry,
    connections: Slab<Connection>,
    places: Places,
    /// Those that belong to nobody yet, the oldest first; and who has found a session since.
    strangers: VecDeque<ConnectionId>,
    serial: u32,
    /// There may be more to be taken, and to be read.
    accepting: bool,
    readable: VecDeque<usize>,
    swept: Instant,
    /// When it was last told that none can be taken.
    complained: Option<Instant>,
    /// Octets that wait in all queues.
    queued: usize,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Tcp {
    /// Listens there.
    pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(super) fn new(
        listener: std::net::TcpListener,
        limits: TcpLimits,
        poll: &Poll,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::from_std(listener);
        let registry = poll.registry().try_clone()?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            listener,
            registry,
            connections: Slab::new(),
            places: Places::new(limits),
            strangers: VecDeque::new(),
            serial: 0,
            accepting: true,
            readable: VecDeque::new(),
            swept: Instant::now(),
            complained: None,
            queued: 0,
            buffer: vec![0; READ],
            scratch: Vec::new(),
        })
    }

    /// Something happened to the listener or a connection.
    pub(super) fn notice(&mut self, event: &Event) {
        if event.token() == LISTENER {
            self.accepting = true;
            return;
        }
        let Some(slot) = event.token().0.checked_sub(FIRST) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        if event.is_writable() {
            connection.writable = true;
        }
        if (event.is_readable() || event.is_read_closed() || event.is_error())
            && !std::mem::replace(&mut connection.readable, true)
        {
            self.readable.push_back(slot);
        }
        // What it did not take before leaves with the next turn.
        if event.is_writable() && !connection.queue.is_empty() {
            self.flush(slot);
        }
    }

    /// Whether something is left to do at once.
    pub(super) fn is_busy(&self) -> bool {
        self.accepting || !self.readable.is_empty()
    }

    /// Takes new connections, reads what has come, and ends what has had its time.
    pub(super) fn turn(&mut self, now: Instant, shard: &mut Shard, counters: &Counters) {
        if self.accepting {
            self.accept(now, counters);
        }
        for _ in 0..READS_A_TURN.min(self.readable.len()) {
            let Some(slot) = self.readable.pop_front() else {
                break;
            };
            self.read(now, slot, shard, counters);
        }
        if now >= self.swept + SWEEP {
            self.sweep(now, shard, counters);
        }
    }

    fn accept(&mut self, now: Instant, counters: &Counters) {
        for _ in 0..ACCEPTS_A_TURN {
            match self.listener.accept() {
                Ok((stream, peer)) => self.admit(now, stream, peer, counters),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    return;
                }
                Err(error) if is_of_one(&error) => {}
                // No descriptors: those who wait are looked at again with the next sweep.
                Err(error) => {
                    let is_recent = |at| now.saturating_duration_since(at) < COMPLAINT;
                    if !self.complained.is_some_and(is_recent) {
                        self.complained = Some(now);
                        tracing::warn!(%error, "TCP connections of peers can't be taken");
                    }
                    counters.tcp_refused.add(1);
                    self.accepting = false;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, now: Instant, stream: TcpStream, peer: SocketAddr, counters: &Counters) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if self.places.is_full() {
            self.make_room(counters);
        }
        if !self.places.take(peer.ip()) {
            counters.tcp_refused.add(1);
            tracing::debug!(%peer, "a TCP connection was refused: there are too many");
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        let id = ConnectionId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX >> 1),
            serial: self.serial,
        };
        let begun = Connection::begin(now, stream, peer, id).and_then(|mut connection| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(FIRST + slot);
            self.registry
                .register(&mut connection.stream, token, interest)?;
            Ok(connection)
        });
        match begun {
            Ok(connection) => {
                entry.insert(connection);
                self.strangers.push_back(id);
                counters.tcp_connections.add(1);
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "a TCP connection was over at once");
                self.places.leave(peer.ip());
            }
        }
    }

    /// Who belongs to nobody for longest makes room.
    fn make_room(&mut self, counters: &Counters) {
        while let Some(id) = self.strangers.pop_front() {
            let slot = id.slot as usize;
            let stranger = self.connections.get(slot);
            if stranger.is_some_and(|c| c.id == id && !c.known) {
                self.end(slot, Ended::Crowded, counters);
                return;
            }
        }
    }

    fn read(&mut self, now: Instant, slot: usize, shard: &mut Shard, counters: &Counters) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.readable = false;
        match connection.read(now, &mut self.buffer, shard) {
            Ok(true) => {
                connection.readable = true;
                self.readable.push_back(slot);
            }
            Ok(false) => {}
            Err(ended) => self.end(slot, ended, counters),
        }
    }

    /// Sends what the outbox has for one connection, from its `at`th message on. Returns how many messages that were; none is left.
    pub(super) fn send(
        &mut self,
        now: Instant,
        outbox: &Outbox,
        at: usize,
        counters: &Counters,
    ) -> usize {
        let Some((first, _)) = outbox.get(at) else {
            return 0;
        };
        let destination = first.destination;
        self.scratch.clear();
        let mut messages = 0;
        let mut datagrams = 0;
        while let Some((message, data)) = outbox.get(at + messages) {
            if message.destination != destination {
                break;
            }
            messages += 1;
            for datagram in data.chunks(message.segment.max(1)) {
                datagrams += u64::from(frames::append(&mut self.scratch, datagram));
            }
        }
        let id = address::connection(&destination);
        match id.and_then(|id| self.write(now, id)) {
            Some(dropped) => {
                // Some of them may have been counted as sent before.
                counters.datagrams_out.add(datagrams);
                counters.tcp_datagrams_dropped.add(dropped);
            }
            None => counters.datagrams_dropped.add(datagrams),
        }
        messages
    }

    /// Sends the scratch. Returns how many datagrams were dropped of what waits; `None`: there is no such connection any more.
    fn write(&mut self, now: Instant, id: ConnectionId) -> Option<u64> {
        let connection = self.connections.get_mut(id.slot as usize);
        let connection = connection.filter(|c| c.id == id)?;
        let before = connection.queue.len();
        let room = before + QUEUES_MAX.saturating_sub(self.queued);
        let dropped = connection.write(now, &self.scratch, room);
        self.queued = self.queued + connection.queue.len() - before;
        Some(dropped)
    }

    fn flush(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot) {
            let before = connection.queue.len();
            connection.flush();
            self.queued = self.queued + connection.queue.len() - before;
        }
    }

    fn sweep(&mut self, now: Instant, shard: &Shard, counters: &Counters) {
        self.swept = now;
        // Descriptors may be there again.
        self.accepting = true;
        for slot in 0..self.connections.capacity() {
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            if let Some(ended) = connection.look(now, shard) {
                self.end(slot, ended, counters);
            }
        }
        let connections = &self.connections;
        self.strangers.retain(|id| {
            let found = connections.get(id.slot as usize);
            found.is_some_and(|c| c.id == *id && !c.known)
        });
    }

    fn end(&mut self, slot: usize, ended: Ended, counters: &Counters) {
        let Some(mut connection) = self.connections.try_remove(slot) else {
            return;
        };
        let (peer, known) = (connection.peer, connection.known);
        tracing::debug!(%peer, known, why = ended.as_str(), "a TCP connection ended");
        match ended {
            Ended::Closed | Ended::SessionOver => {}
            Ended::Garbage => counters.tcp_cut_garbage.add(1),
            Ended::Nobody | Ended::Crowded => counters.tcp_cut_unknown.add(1),
            Ended::Stalled => counters.tcp_cut_stalled.add(1),
        }
        counters.tcp_connections_closed.add(1);
        self.queued -= connection.queue.len();
        self.places.leave(peer.ip());
        // Closing it would do, but for a descriptor that somebody has a copy of.
        let _ = self.registry.deregister(&mut connection.stream);
    }
}

/// Whether a connection was over before it was taken.
fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
