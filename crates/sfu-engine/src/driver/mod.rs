// SPDX-License-Identifier: MPL-2.0

//! The thread and the socket of a shard: waits for datagrams, commands and deadlines, and sends what comes of them.

#[cfg(target_os = "linux")]
mod batch;
mod gather;
#[cfg(target_os = "linux")]
mod path;
#[cfg(target_os = "linux")]
mod segments;
mod socket;
mod tcp;
mod window;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use crate::engine::EngineError;
use crate::queue::{ShardCommand, ShardInbox, ShardQueue, Wake};
use crate::shard::{Outbox, Progress, Shard};
use crate::stats::{Carried, Counters, Network, NetworkInfo, Traffic};
#[cfg(target_os = "linux")]
use batch::Headers;
use gather::Gathered;
#[cfg(target_os = "linux")]
use path::Refused;
pub(crate) use socket::Outgoing;
use socket::{Outcome, Read, SendBuffer, Socket};
use tcp::Tcp;
pub(crate) use tcp::TcpLimits;
use window::{Refusal, Verdict, Window};

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);
/// Commands obeyed before the socket and the deadlines get their turn.
const COMMANDS_A_TURN: usize = 64;
/// Even with nothing to do, the thread looks around this often.
const IDLE: Duration = Duration::from_secs(1);
/// With so many octets that the network does not take, nothing is read: each datagram that comes may cause one that
/// leaves.
const HELD_MAX: usize = 4 * 1_024 * 1_024;
/// How long goodbyes may wait for the network at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Ports that are tried until one is free for UDP and for TCP, where the system chooses.
const BINDS: usize = 16;

/// A shard on its thread. Stopped and joined when dropped.
#[derive(Debug)]
pub(crate) struct ShardThread {
    index: usize,
    address: SocketAddr,
    queue: ShardQueue,
    network: Arc<Network>,
    traffic: Arc<Traffic>,
    by_tcp: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ShardThread {
    pub(crate) fn start(
        index: usize,
        address: SocketAddr,
        outgoing: Outgoing,
        tcp: Option<TcpLimits>,
        counters: Arc<Counters>,
    ) -> Result<Self, EngineError> {
        let bound = bind(address, outgoing, tcp.is_some());
        let (mut socket, listener) = bound.map_err(|source| EngineError::Bind {
            address: address.ip(),
            port: address.port(),
            source,
        })?;
        let start = || -> io::Result<Self> {
            let address = socket.local_address();
            let network = Arc::new(Network::default());
            let traffic = Arc::new(Traffic::default());
            let buffer = socket.send_buffer();
            warn_of_small_buffer(index, buffer);
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            poll.registry()
                .register(socket.source(), SOCKET, Interest::READABLE)?;
            let tcp = match listener.zip(tcp) {
                Some((listener, limits)) => Some(Tcp::new(listener, limits, &poll)?),
                None => None,
            };
            let by_tcp = tcp.is_some();
            let (queue, inbox) = ShardQueue::new(Some(Box::new(MioWake(waker))));
            let shard = Shard::new(queue.clone(), counters.clone(), socket.max_segments());
            let mut driver = Driver {
                poll,
                inbox,
                shard,
                gathered: Gathered::default(),
                link: Link {
                    socket,
                    tcp,
                    window: Window::new(buffer.granted),
                    network: network.clone(),
                    traffic: traffic.clone(),
                    segmentation: false,
                    may_be_read: true,
                    counters,
                },
            };
            driver.link.tell();
            let thread = std::thread::Builder::new()
                .name(format!("sfu-shard-{index}"))
                .spawn(move || driver.run())?;
            Ok(Self {
                index,
                address,
                queue,
                network,
                traffic,
                by_tcp,
                thread: Mutex::new(Some(thread)),
            })
        };
        start().map_err(EngineError::Thread)
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether peers reach it by TCP, too, at the same port.
    pub(crate) fn by_tcp(&self) -> bool {
        self.by_tcp
    }

    pub(crate) fn queue(&self) -> &ShardQueue {
        &self.queue
    }

    /// What the network takes of this shard.
    pub(crate) fn network(&self) -> NetworkInfo {
        self.network.info()
    }

    /// What it has carried, and on which thread.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Ends the thread, and with it the socket.
    pub(crate) fn stop(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else {
            return;
        };
        // A full queue means a thread at work: it takes the command as soon as it has room.
        while !self.queue.send(ShardCommand::Stop) && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            tracing::error!(shard = self.index, "a shard's thread had panicked");
        }
    }
}

/// The UDP socket, and what listens on the same number for TCP, where that can be had.
fn bind(
    address: SocketAddr,
    outgoing: Outgoing,
    by_tcp: bool,
) -> io::Result<(Socket, Option<std::net::TcpListener>)> {
    let mut tries = match address.port() {
        0 => BINDS,
        _ => 1,
    };
    loop {
        let socket = Socket::bind(address, outgoing)?;
        if !by_tcp {
            return Ok((socket, None));
        }
        let local = socket.local_address();
        let error = match Tcp::bind(local) {
            Ok(listener) => return Ok((socket, Some(listener))),
            Err(error) => error,
        };
        tries -= 1;
        if tries == 0 {
            tracing::warn!(
                port = local.port(), %error,
                "TCP can't be used on the media port: who gets no UDP through won't connect. Choose another udp-port, or stop \
                 what uses it"
            );
            return Ok((socket, None));
        }
    }
}

/// Says once which limit of the system is too low.
fn warn_of_small_buffer(shard: usize, buffer: SendBuffer) {
    if buffer.granted < buffer.wanted {
        tracing::warn!(
            shard,
            granted = buffer.granted,
            wanted = buffer.wanted,
            "the kernel grants a small send buffer: on a fast network the sender wakes up more often. \
             Set sysctl net.core.wmem_max to what is wanted, or give the process CAP_NET_ADMIN"
        );
    }
}

impl Drop for ShardThread {
    fn drop(&mut self) {
        self.stop();
    }
}

struct MioWake(Waker);

impl Wake for MioWake {
    fn wake(&self) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }
}

struct Driver {
    poll: Poll,
    inbox: ShardInbox,
    shard: Shard,
    gathered: Gathered,
    link: Link,
}

/// The socket, and what is known of the network behind it.
struct Link {
    socket: Socket,
    tcp: Option<Tcp>,
    window: Window,
    network: Arc<Network>,
    traffic: Arc<Traffic>,
    /// Whether many datagrams leave as one message, as it was told last.
    segmentation: bool,
    /// The system has told of something since all had been read, as it does once.
    may_be_read: bool,
    counters: Arc<Counters>,
}

/// What sending keeps from one call to the next. It is made on the thread that sends.
struct Sending {
    #[cfg(target_os = "linux")]
    headers: Headers,
    #[cfg(target_os = "linux")]
    refused: Refused,
}

impl Sending {
    fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            headers: Headers::new(),
            #[cfg(target_os = "linux")]
            refused: Refused::new(),
        }
    }
}

impl Driver {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut sending = Sending::new();
        self.link.traffic.runs_here();
        while !self.shard.is_stopped() {
            let more = self.obey(&mut sending);
            let drained = self.read() & self.read_tcp();
            self.link.traffic.set_received(self.shard.received());
            // What is due comes before frames that wait: they would leave no room for it.
            self.flush(&mut sending);
            self.handle_timeout(&mut sending);
            self.go_on(&mut sending);
            self.tell_refused(&mut sending);
            // The socket tells of what comes next, not of what is there already.
            let unread = !drained && self.shard.outbox().octets() <= HELD_MAX;
            if !more && !unread && !self.shard.is_stopped() {
                self.sleep(&mut events, &mut sending);
            }
        }
        self.say_goodbye(&mut events, &mut sending);
    }

    /// Obeys what is queued. Returns whether there may be more.
    ///
    /// Packets of one track that queued up go out together: a publishing peer's come one by one, and each viewer would be
    /// visited, and sent to, for each of them.
    fn obey(&mut self, sending: &mut Sending) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            let Some(command) = self.inbox.try_recv() else {
                self.forward(sending);
                return false;
            };
            self.take(command, sending);
        }
        self.forward(sending);
        true
    }

    fn take(&mut self, command: ShardCommand, sending: &mut Sending) {
        match command {
            ShardCommand::Media { stream, batch } => self.gathered.add(stream, batch),
            command => {
                // The order stays: what was queued before it goes first.
                self.forward(sending);
                self.shard.handle(Instant::now(), command);
                self.flush(sending);
            }
        }
    }

    fn forward(&mut self, sending: &mut Sending) {
        while let Some((stream, batch)) = self.gathered.next() {
            let command = ShardCommand::Media { stream, batch };
            let Self { shard, link, .. } = self;
            let mut out = |outbox: &mut Outbox| link.send(outbox, sending);
            shard.handle_sending(Instant::now(), command, &mut out);
            out(shard.outbox());
        }
    }

    /// Returns whether all has been read that has come.
    fn read(&mut self) -> bool {
        let Self { shard, link, .. } = self;
        if !link.may_be_read {
            return true;
        }
        if shard.outbox().octets() > HELD_MAX {
            return false;
        }
        let counters = &link.counters;
        let result = link.socket.receive(|now, source, destination, data| {
            if source.port() == 0 {
                // Nobody can be answered there.
                counters.datagrams_in.add(1);
                counters.datagrams_unknown.add(1);
            } else {
                shard.receive(now, source, destination, data);
            }
        });
        let Read { drained, failed } = result;
        if let Some(error) = failed {
            tracing::debug!(%error, "receiving failed");
            link.read_errors();
        }
        link.may_be_read = !drained;
        drained
    }

    /// Returns whether all has been read that has come.
    fn read_tcp(&mut self) -> bool {
        let Self { shard, link, .. } = self;
        let Some(tcp) = &mut link.tcp else {
            return true;
        };
        if shard.outbox().octets() <= HELD_MAX {
            tcp.turn(Instant::now(), shard, &link.counters);
        }
        !tcp.is_busy()
    }

    /// What the network did not take before may leave now.
    fn go_on(&mut self, sending: &mut Sending) {
        let Self { shard, link, .. } = self;
        if shard.outbox().is_empty() && !shard.is_held_up() {
            return;
        }
        let mut out = |outbox: &mut Outbox| link.send(outbox, sending);
        let now = out(shard.outbox());
        if !shard.outbox().is_full() {
            shard.go_on(now, &mut out);
        }
    }

    fn handle_timeout(&mut self, sending: &mut Sending) {
        let Self { shard, link, .. } = self;
        let mut out = |outbox: &mut Outbox| link.send(outbox, sending);
        shard.handle_timeout_sending(Instant::now(), &mut out);
        out(shard.outbox());
    }

    /// Tells the shard whose datagrams were too large for their paths.
    #[cfg(target_os = "linux")]
    fn tell_refused(&mut self, sending: &mut Sending) {
        let Self { shard, link, .. } = self;
        let refused = &mut sending.refused;
        if refused.is_quiet() {
            return;
        }
        // Each refusal lies in the socket's queue of errors, where it takes room from what comes in.
        link.read_errors();
        let now = Instant::now();
        refused.tell(now, |viewer, failure| {
            shard.send_failed(now, viewer, failure);
        });
        self.flush(sending);
    }

    #[cfg(not(target_os = "linux"))]
    fn tell_refused(&mut self, _sending: &mut Sending) {}

    fn flush(&mut self, sending: &mut Sending) {
        self.link.send(self.shard.outbox(), sending);
    }

    fn sleep(&mut self, events: &mut Events, sending: &mut Sending) {
        self.inbox.set_asleep(true);
        // Whatever was queued before the flag went up has woken nobody.
        if let Some(command) = self.inbox.try_recv() {
            self.inbox.set_asleep(false);
            self.take(command, sending);
            return;
        }
        let due = match self.shard.outbox().is_empty() {
            true if self.shard.is_held_up() => Some(Instant::now()),
            true => self.shard.poll_timeout(),
            // Nothing of ours can be done before the network takes something.
            false => self.link.window.poll_timeout(),
        };
        self.wait(events, due);
        self.inbox.set_asleep(false);
    }

    /// Waits for the network, a command, or this moment.
    fn wait(&mut self, events: &mut Events, due: Option<Instant>) {
        let Self { poll, link, .. } = self;
        let for_writing = link.window.waits_for_socket();
        if for_writing {
            link.wait_for_writing(poll, true);
        }
        let timeout = due.map_or(IDLE, |at| {
            at.saturating_duration_since(Instant::now()).min(IDLE)
        });
        if let Err(error) = poll.poll(events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "waiting for the network failed");
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(tcp) = &mut link.tcp {
            let others = events.iter().filter(|e| e.token() >= tcp::LISTENER);
            others.for_each(|event| tcp.notice(event));
        }
        let mut of_socket = events.iter().filter(|e| e.token() == SOCKET);
        // Also an error: it may have cut a read short.
        link.may_be_read |= of_socket.clone().next().is_some();
        if of_socket.clone().any(mio::event::Event::is_error) {
            link.read_errors();
        }
        if for_writing && of_socket.any(mio::event::Event::is_writable) {
            link.window.writable();
            link.wait_for_writing(poll, false);
        }
    }

    /// What is still to be sent leaves, if the network takes it in time.
    fn say_goodbye(&mut self, events: &mut Events, sending: &mut Sending) {
        let until = Instant::now() + FAREWELL;
        self.flush(sending);
        while !self.shard.outbox().is_empty() && Instant::now() < until {
            let due = self.link.window.poll_timeout().unwrap_or(until);
            self.wait(events, Some(due.min(until)));
            self.flush(sending);
        }
    }
}

impl Link {
    /// Sends what the network takes of what is to be sent. The rest stays. Returns the time.
    fn send(&mut self, outbox: &mut Outbox, sending: &mut Sending) -> Instant {
        let now = Instant::now();
        if outbox.is_empty() || !self.window.is_open(now) {
            return now;
        }
        let before = outbox.octets();
        let mut datagrams = 0;
        let counters = &self.counters;
        let tcp = &mut self.tcp;
        let by_tcp = |outbox: &Outbox, at| match tcp {
            Some(tcp) => tcp.send(now, outbox, at, counters),
            None => 1,
        };
        let done = |outcome: Outcome| match outcome.result {
            Ok(()) => {
                datagrams += outcome.datagrams as u64;
                counters.datagrams_out.add(outcome.datagrams as u64);
            }
            Err(error) => {
                counters.datagrams_dropped.add(outcome.datagrams as u64);
                tracing::trace!(%error, to = %outcome.destination, "not sent");
            }
        };
        #[cfg(target_os = "linux")]
        let refusal = {
            let Sending { headers, refused } = sending;
            self.socket
                .send_all(now, headers, refused, outbox, by_tcp, done)
        };
        #[cfg(not(target_os = "linux"))]
        let refusal = {
            let Sending {} = sending;
            self.socket.send_all(now, outbox, by_tcp, done)
        };
        let octets = before.saturating_sub(outbox.octets());
        let sent = octets > 0;
        let octets = octets as u64;
        self.traffic.add_sent(Carried { datagrams, octets });
        self.learn(now, refusal, sent);
        if refusal == Some(Refusal::QueueFull) {
            self.judge(now, outbox);
        }
        if self.segmentation != self.socket.segments() {
            self.tell();
        }
        outbox.set_held_up(self.window.is_tight(now));
        now
    }

    /// One message that a queue never takes must not stop all others.
    fn judge(&mut self, now: Instant, outbox: &mut Outbox) {
        let verdict = self.window.verdict();
        let Some((head, _)) = outbox.get(0).filter(|_| verdict != Verdict::Wait) else {
            return;
        };
        let datagrams = head.count();
        if verdict == Verdict::Split {
            #[cfg(target_os = "linux")]
            self.socket.split(now, head.destination);
            return;
        }
        tracing::debug!(to = %head.destination, "a queue takes nothing to there");
        self.counters.datagrams_dropped.add(datagrams as u64);
        outbox.forget(Progress {
            sends: 1,
            datagrams: 0,
        });
    }

    /// Adapts how much may wait in the kernel.
    fn learn(&mut self, now: Instant, refusal: Option<Refusal>, sent: bool) {
        let size = match refusal {
            None => {
                self.window.took();
                self.window.grow(now)
            }
            Some(refusal) => {
                match refusal {
                    Refusal::BufferFull => self.counters.sends_blocked.add(1),
                    Refusal::QueueFull => self.counters.sends_refused.add(1),
                }
                self.window.refused(now, refusal, sent)
            }
        };
        if let Some(size) = size {
            tracing::debug!(size, "what may wait in the kernel has changed");
            self.socket.set_send_buffer(size);
            self.tell();
        }
    }

    /// Publishes what is known.
    fn tell(&mut self) {
        self.segmentation = self.socket.segments();
        self.network.set(NetworkInfo {
            send_buffer_wanted: self.socket.send_buffer().wanted,
            send_buffer_granted: self.socket.send_buffer().granted,
            send_buffer: self.window.size(),
            segmentation: self.segmentation,
        });
    }

    fn wait_for_writing(&mut self, poll: &Poll, on: bool) {
        let interest = match on {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let registry = poll.registry();
        if let Err(error) = registry.reregister(self.socket.source(), SOCKET, interest) {
            tracing::error!(%error, "a socket could not be watched");
            // Then it is tried again and again.
            self.window.writable();
        }
    }

    /// What networks and hosts say of our datagrams: each concerns one viewer, whose checks will tell.
    fn read_errors(&mut self) {
        self.socket.read_errors(|error| {
            tracing::trace!(?error, "the network refused a datagram");
        });
    }
}
