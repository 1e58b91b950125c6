// SPDX-License-Identifier: MPL-2.0

//! A UDP proxy that is a bad link: clients send to it, and it talks to the server from one socket for each client.
//!
//! The bottleneck's rate applies from the server to the clients; loss, delay, jitter and disorder in both directions. All clients
//! share the link, as they would share a line.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use sfu_impair::Link;

use crate::args::{LinkArgs, ProxyArgs, ProxyLine};

const LISTEN: Token = Token(0);
const WAKE: Token = Token(usize::MAX);
/// Clients are their token's number less this.
const FIRST_CLIENT: usize = 1;
/// A client of which nothing was heard for this is forgotten.
const IDLE: Duration = Duration::from_secs(120);
const DATAGRAM_MAX: usize = 65_536;
/// IP and UDP headers, which take room on a real link.
const OVERHEAD: usize = 28;

struct Client {
    address: SocketAddr,
    upstream: UdpSocket,
    heard: Instant,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    at: Instant,
    order: u64,
    client: usize,
    down: bool,
    data: Vec<u8>,
}

struct Proxy {
    poll: Poll,
    listen: UdpSocket,
    to: SocketAddr,
    clients: HashMap<usize, Client>,
    by_address: HashMap<SocketAddr, usize>,
    next_client: usize,
    down: Link,
    up: Link,
    delayed: BinaryHeap<Reverse<Delayed>>,
    order: u64,
    changes: Receiver<LinkArgs>,
}

/// Runs until the process is ended.
pub fn run(args: &ProxyArgs) -> Result<()> {
    let poll = Poll::new().context("epoll")?;
    let mut listen =
        UdpSocket::bind(args.listen).with_context(|| format!("listening on {}", args.listen))?;
    let address = listen.local_addr().context("UDP socket")?;
    poll.registry()
        .register(&mut listen, LISTEN, Interest::READABLE)
        .context("epoll")?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).context("eventfd")?);
    let (send, changes) = channel();
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || read_changes(&send, &waker))
        .context("thread")?;
    println!("listening on {address}");
    io::stdout().flush().context("stdout")?;
    let mut proxy = Proxy {
        poll,
        listen,
        to: args.to,
        clients: HashMap::new(),
        by_address: HashMap::new(),
        next_client: FIRST_CLIENT,
        down: Link::new(args.link.down(), args.seed),
        up: Link::new(args.link.up(), args.seed.wrapping_add(1)),
        delayed: BinaryHeap::new(),
        order: 0,
        changes,
    };
    proxy.serve()
}

/// Each line of stdin holds new conditions. At its end the last ones stay.
fn read_changes(send: &Sender<LinkArgs>, waker: &Waker) {
    for line in io::stdin().lock().lines().map_while(io::Result::ok) {
        if line.trim().is_empty() {
            continue;
        }
        match ProxyLine::try_parse_from(line.split_whitespace()) {
            Ok(change) => {
                eprintln!("sfu-load: now {}", line.trim());
                if send.send(change.link).is_err() || waker.wake().is_err() {
                    return;
                }
            }
            Err(error) => eprintln!("sfu-load: {error}"),
        }
    }
}

impl Proxy {
    fn serve(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(64);
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let now = Instant::now();
            let next = self
                .delayed
                .peek()
                .map(|Reverse(d)| d.at.saturating_duration_since(now));
            match self.poll.poll(&mut events, next.or(Some(IDLE))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error).context("epoll");
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTEN => self.read_clients(&mut buffer)?,
                    WAKE => {}
                    Token(client) => self.read_server(client, &mut buffer),
                }
            }
            while let Ok(link) = self.changes.try_recv() {
                self.down.set(link.down());
                self.up.set(link.up());
            }
            self.release(Instant::now());
        }
    }

    fn read_clients(&mut self, buffer: &mut [u8]) -> Result<()> {
        loop {
            let (len, from) = match self.listen.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // ICMP errors concern one client.
                Err(_) => continue,
            };
            let now = Instant::now();
            let client = self.client(from, now)?;
            if let Some(at) = self.up.pass(now, len + OVERHEAD) {
                self.push(at, client, false, &buffer[..len]);
            }
        }
    }

    fn read_server(&mut self, client: usize, buffer: &mut [u8]) {
        while let Some(upstream) = self.clients.get(&client).map(|c| &c.upstream) {
            let len = match upstream.recv(buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let now = Instant::now();
            if let Some(at) = self.down.pass(now, len + OVERHEAD) {
                self.push(at, client, true, &buffer[..len]);
            }
        }
    }

    /// The number of the client with this address, which may be new.
    fn client(&mut self, address: SocketAddr, now: Instant) -> Result<usize> {
        if let Some(number) = self.by_address.get(&address) {
            if let Some(client) = self.clients.get_mut(number) {
                client.heard = now;
            }
            return Ok(*number);
        }
        self.clients.retain(|_, client| now - client.heard < IDLE);
        self.by_address
            .retain(|_, number| self.clients.contains_key(number));
        let number = self.next_client;
        self.next_client += 1;
        let any: SocketAddr = if self.to.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let mut upstream = UdpSocket::bind(any).context("UDP socket")?;
        upstream
            .connect(self.to)
            .with_context(|| format!("no route to {}", self.to))?;
        self.poll
            .registry()
            .register(&mut upstream, Token(number), Interest::READABLE)
            .context("epoll")?;
        self.by_address.insert(address, number);
        self.clients.insert(
            number,
            Client {
                address,
                upstream,
                heard: now,
            },
        );
        Ok(number)
    }

    fn push(&mut self, at: Instant, client: usize, down: bool, data: &[u8]) {
        self.order += 1;
        self.delayed.push(Reverse(Delayed {
            at,
            order: self.order,
            client,
            down,
            data: data.to_vec(),
        }));
    }

    /// Passes on what has come to the end of the link. What can't be sent is lost, as it would be on a line.
    fn release(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|Reverse(d)| d.at <= now) {
            let Some(Reverse(delayed)) = self.delayed.pop() else {
                return;
            };
            let Some(client) = self.clients.get(&delayed.client) else {
                continue;
            };
            let _ = if delayed.down {
                self.listen.send_to(&delayed.data, client.address)
            } else {
                client.upstream.send(&delayed.data)
            };
        }
    }
}
