// SPDX-License-Identifier: MPL-2.0

//! A thread that plays many viewers: a socket each, one epoll, one tick. Links are simulated here, in both directions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use quinn_udp::{RecvMeta, UdpSocketState};
use sfu_impair::Link;

use crate::args::LinkArgs;
use crate::clock;
use crate::joins::PATIENCE;
use crate::stats::Histogram;
use crate::viewer::{Out, Start, Summary, Tally, Viewer};

const WAKE: Token = Token(usize::MAX);
/// Viewers' timers are looked at this often.
const TICK: Duration = Duration::from_millis(10);
/// Messages read in one system call, each of many datagrams that the kernel joined.
const MESSAGES: usize = 4;
const MESSAGE_MAX: usize = 65_536;
const KERNEL_BUFFER: usize = 1 << 20;
/// IP and UDP headers, which take room on a real link.
const OVERHEAD: usize = 28;

/// What the thread is asked.
enum Command {
    Add(Box<Start>, std::net::UdpSocket),
    Snapshot(Sender<Snapshot>),
    Steady(bool),
    Stop,
}

/// A viewer that was to leave when it had a picture, and has left.
#[derive(Debug)]
pub struct Passed {
    pub index: usize,
    /// From its request to its first picture, or why it got none.
    pub join: Result<Duration, String>,
}

/// The state of all viewers of a thread.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub viewers: Vec<Summary>,
    pub delays: Histogram,
    pub audio_delays: Histogram,
    pub keyframe_ends: Histogram,
    /// Datagrams that the simulated links lost.
    pub dropped: u64,
}

/// The thread. Viewers say good-bye when it is stopped.
#[derive(Debug)]
pub struct Swarm {
    commands: Sender<Command>,
    passed: Receiver<Passed>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Swarm {
    /// Starts the thread.
    pub fn start(link: LinkArgs, seed: u64) -> Result<Self> {
        let poll = Poll::new().context("epoll")?;
        let waker = Waker::new(poll.registry(), WAKE).context("eventfd")?;
        let (commands, inbox) = channel();
        let (left, passed) = channel();
        let engine = Engine {
            poll,
            inbox,
            left,
            members: Vec::new(),
            buffers: vec![vec![0; MESSAGE_MAX]; MESSAGES],
            tally: Tally::default(),
            link,
            seed,
            delayed: BinaryHeap::new(),
            order: 0,
            out: Vec::new(),
            stopped: false,
        };
        let thread = std::thread::Builder::new()
            .name("viewers".into())
            .spawn(move || engine.run())
            .context("thread")?;
        Ok(Self {
            commands,
            passed,
            waker,
            thread: Some(thread),
        })
    }

    fn send(&self, command: Command) -> Result<()> {
        self.commands
            .send(command)
            .map_err(|_| anyhow!("the viewers' thread has ended"))?;
        self.waker.wake().context("eventfd")
    }

    /// Adds a viewer with its socket.
    pub fn add(&self, start: Start, socket: std::net::UdpSocket) -> Result<()> {
        self.send(Command::Add(Box::new(start), socket))
    }

    /// From now on delays count, or don't.
    pub fn set_steady(&self, steady: bool) -> Result<()> {
        self.send(Command::Steady(steady))
    }

    /// Who has left since the last call.
    pub fn passed(&self) -> impl Iterator<Item = Passed> {
        self.passed.try_iter()
    }

    /// The state of all viewers that stay.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let (reply, answer) = channel();
        self.send(Command::Snapshot(reply))?;
        answer
            .recv_timeout(Duration::from_secs(10))
            .context("the viewers' thread does not answer")
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if self.send(Command::Stop).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("sfu-load: the viewers' thread had panicked");
        }
    }
}

struct Member {
    viewer: Viewer,
    index: usize,
    /// Leaves when it has a picture; it asked to join then.
    passing: Option<Instant>,
    socket: UdpSocket,
    state: UdpSocketState,
    /// Down and up, where the link is not perfect.
    links: Option<Box<(Link, Link)>>,
}

/// A datagram on a simulated link, by its arrival and then by order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    at: Instant,
    order: u64,
    member: usize,
    down: bool,
    peer: SocketAddr,
    data: Vec<u8>,
}

struct Engine {
    poll: Poll,
    inbox: Receiver<Command>,
    left: Sender<Passed>,
    /// A viewer's place stays empty when it has left.
    members: Vec<Option<Member>>,
    buffers: Vec<Vec<u8>>,
    tally: Tally,
    link: LinkArgs,
    seed: u64,
    delayed: BinaryHeap<Reverse<Delayed>>,
    order: u64,
    out: Out,
    stopped: bool,
}

impl Engine {
    fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        let mut tick = Instant::now();
        while !self.stopped {
            let now = Instant::now();
            let next = self
                .delayed
                .peek()
                .map_or(tick, |Reverse(d)| d.at.min(tick));
            let timeout = next.saturating_duration_since(now);
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                eprintln!("sfu-load: epoll: {error}");
                return;
            }
            for event in &events {
                if event.token() != WAKE {
                    self.read(event.token().0);
                }
            }
            while let Ok(command) = self.inbox.try_recv() {
                self.obey(command);
            }
            let now = Instant::now();
            self.release(now);
            if now >= tick {
                tick = now + TICK;
                for member in 0..self.members.len() {
                    if let Some(m) = &mut self.members[member] {
                        m.viewer.poll(now, &mut self.out);
                        self.flush(member, now);
                        self.let_pass(member, now);
                    }
                }
            }
        }
        self.close();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(start, socket) => {
                let index = start.index;
                if let Err(error) = self.add(*start, socket) {
                    eprintln!("sfu-load: viewer {index}: {error:#}");
                }
            }
            Command::Snapshot(reply) => {
                let now = Instant::now();
                let dropped = |m: &Member| {
                    m.links
                        .as_ref()
                        .map_or(0, |l| l.0.dropped() + l.1.dropped())
                };
                // Who asked may be gone.
                let staying = || {
                    let members = self.members.iter().flatten();
                    members.filter(|m| m.passing.is_none())
                };
                let _ = reply.send(Snapshot {
                    viewers: staying().map(|m| m.viewer.summary(now)).collect(),
                    delays: self.tally.delays.clone(),
                    audio_delays: self.tally.audio_delays.clone(),
                    keyframe_ends: self.tally.keyframe_ends.clone(),
                    dropped: self.members.iter().flatten().map(dropped).sum(),
                });
            }
            Command::Steady(steady) => self.tally.steady = steady,
            Command::Stop => self.stopped = true,
        }
    }

    /// Takes a viewer out who has seen what it came for, or has waited too long. It says good-bye, as browsers do.
    fn let_pass(&mut self, member: usize, now: Instant) {
        let Some(place) = self.members.get_mut(member) else {
            return;
        };
        let leaves = |m: &mut Member| {
            let asked = m.passing?;
            let late = now - asked > PATIENCE;
            let viewer = &m.viewer;
            let in_vain = || format!("no picture after {PATIENCE:?}: {}", viewer.how_far());
            viewer.passed().or_else(|| late.then(|| Err(in_vain())))
        };
        let Some(join) = place.as_mut().and_then(leaves) else {
            return;
        };
        let Some(mut member) = place.take() else {
            return;
        };
        member.viewer.close(&mut self.out);
        for (peer, data) in self.out.drain(..) {
            let _ = member.socket.send_to(&data, peer);
        }
        // The socket is closed anyway.
        let _ = self.poll.registry().deregister(&mut member.socket);
        // Who asked may be gone.
        let _ = self.left.send(Passed {
            index: member.index,
            join,
        });
    }

    fn add(&mut self, start: Start, socket: std::net::UdpSocket) -> Result<()> {
        let state = UdpSocketState::new((&socket).into()).context("socket options")?;
        // Where the kernel grants less, it is less.
        let _ = state.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER);
        let mut socket = UdpSocket::from_std(socket);
        let token = Token(self.members.len());
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)
            .context("epoll")?;
        let links = (!self.link.is_perfect()).then(|| {
            let seed = self
                .seed
                .wrapping_mul(1_000_003)
                .wrapping_add(2 * start.index as u64);
            Box::new((
                Link::new(self.link.down(), seed),
                Link::new(self.link.up(), seed + 1),
            ))
        });
        let index = start.index;
        let passing = start.passing.then_some(start.asked_at);
        let viewer = Viewer::new(start, Instant::now())?;
        self.members.push(Some(Member {
            viewer,
            index,
            passing,
            socket,
            state,
            links,
        }));
        // What came before the registration makes no event.
        self.read(token.0);
        let now = Instant::now();
        if let Some(m) = &mut self.members[token.0] {
            m.viewer.hurry(now, &mut self.out);
        }
        self.flush(token.0, now);
        Ok(())
    }

    /// Reads all that a viewer's socket has.
    fn read(&mut self, member: usize) {
        loop {
            let Self {
                members, buffers, ..
            } = self;
            let Some(Some(m)) = members.get(member) else {
                return;
            };
            let mut metas = [RecvMeta::default(); MESSAGES];
            let mut slices: Vec<IoSliceMut<'_>> =
                buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            let received = m
                .socket
                .try_io(|| m.state.recv((&m.socket).into(), &mut slices, &mut metas));
            let count = match received {
                Ok(count) => count,
                // ICMP errors of what was sent: the server is not there yet, or no more.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            self.take(member, &metas[..count]);
            // Fewer than there was room for: the socket is empty.
            if count < MESSAGES {
                return;
            }
        }
    }

    fn take(&mut self, member: usize, metas: &[RecvMeta]) {
        let (now, now_ns) = (Instant::now(), clock::now_ns());
        for (n, meta) in metas.iter().enumerate() {
            let Some(m) = &mut self.members[member] else {
                return;
            };
            let from = meta.addr;
            for data in self.buffers[n][..meta.len].chunks(meta.stride.max(1)) {
                let Some(links) = &mut m.links else {
                    m.viewer
                        .receive(now, now_ns, from, data, &mut self.tally, &mut self.out);
                    continue;
                };
                if let Some(at) = links.0.pass(now, data.len() + OVERHEAD) {
                    self.order += 1;
                    self.delayed.push(Reverse(Delayed {
                        at,
                        order: self.order,
                        member,
                        down: true,
                        peer: from,
                        data: data.to_vec(),
                    }));
                }
            }
        }
        if let Some(m) = &mut self.members[member] {
            m.viewer.hurry(now, &mut self.out);
        }
        self.flush(member, now);
        self.let_pass(member, now);
    }

    /// Sends what a viewer has to send, by its link.
    fn flush(&mut self, member: usize, now: Instant) {
        let Some(m) = &mut self.members[member] else {
            return;
        };
        for (peer, data) in self.out.drain(..) {
            let Some(links) = &mut m.links else {
                // A full buffer loses it, as a network might.
                let _ = m.socket.send_to(&data, peer);
                continue;
            };
            if let Some(at) = links.1.pass(now, data.len() + OVERHEAD) {
                self.order += 1;
                self.delayed.push(Reverse(Delayed {
                    at,
                    order: self.order,
                    member,
                    down: false,
                    peer,
                    data,
                }));
            }
        }
    }

    /// Delivers what has arrived at the end of a simulated link.
    fn release(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|Reverse(d)| d.at <= now) {
            let Some(Reverse(delayed)) = self.delayed.pop() else {
                return;
            };
            let Some(m) = &mut self.members[delayed.member] else {
                continue;
            };
            if delayed.down {
                let now_ns = clock::now_ns();
                let (peer, data) = (delayed.peer, &delayed.data);
                m.viewer
                    .receive(now, now_ns, peer, data, &mut self.tally, &mut self.out);
                m.viewer.hurry(now, &mut self.out);
                self.flush(delayed.member, now);
                self.let_pass(delayed.member, now);
            } else {
                let _ = m.socket.send_to(&delayed.data, delayed.peer);
            }
        }
    }

    fn close(&mut self) {
        for member in self.members.iter_mut().flatten() {
            member.viewer.close(&mut self.out);
            for (peer, data) in self.out.drain(..) {
                let _ = member.socket.send_to(&data, peer);
            }
        }
    }
}
