// SPDX-License-Identifier: MPL-2.0

//! The thread and the socket of a shard: waits for datagrams, commands and deadlines, and sends what comes of them.

#[cfg(target_os = "linux")]
mod batch;
mod gather;
#[cfg(target_os = "linux")]
mod path;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use crate::engine::EngineError;
use crate::queue::{ShardCommand, ShardInbox, ShardQueue, Wake};
use crate::shard::{Datagrams, Outbox, Shard};
use crate::stats::Counters;
#[cfg(target_os = "linux")]
use batch::Headers;
use gather::Gathered;
#[cfg(target_os = "linux")]
use path::Refused;
use socket::Socket;

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);
/// Commands obeyed before the socket and the deadlines get their turn.
const COMMANDS_A_TURN: usize = 64;
/// Even with nothing to do, the thread looks around this often.
const IDLE: Duration = Duration::from_secs(1);

/// A shard on its thread. Stopped and joined when dropped.
#[derive(Debug)]
pub(crate) struct ShardThread {
    index: usize,
    address: SocketAddr,
    queue: ShardQueue,
    thread: Option<JoinHandle<()>>,
}

impl ShardThread {
    pub(crate) fn start(
        index: usize,
        address: SocketAddr,
        counters: Arc<Counters>,
    ) -> Result<Self, EngineError> {
        let mut socket = Socket::bind(address).map_err(|source| EngineError::Bind {
            address: address.ip(),
            port: address.port(),
            source,
        })?;
        let start = || -> io::Result<Self> {
            let address = socket.local_address()?;
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            poll.registry()
                .register(socket.source(), SOCKET, Interest::READABLE)?;
            let (queue, inbox) = ShardQueue::new(Some(Box::new(MioWake(waker))));
            let shard = Shard::new(queue.clone(), counters.clone(), socket.max_segments());
            let driver = Driver {
                poll,
                socket,
                inbox,
                shard,
                counters,
                gathered: Gathered::default(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("sfu-shard-{index}"))
                .spawn(move || driver.run())?;
            Ok(Self {
                index,
                address,
                queue,
                thread: Some(thread),
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

    pub(crate) fn queue(&self) -> &ShardQueue {
        &self.queue
    }
}

impl Drop for ShardThread {
    fn drop(&mut self) {
        // A full queue means a thread at work: it takes the command as soon as it has room.
        while !self.queue.send(ShardCommand::Stop) {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(shard = self.index, "a shard's thread had panicked");
        }
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
    socket: Socket,
    inbox: ShardInbox,
    shard: Shard,
    counters: Arc<Counters>,
    gathered: Gathered,
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
        let mut events = Events::with_capacity(8);
        let mut sending = Sending::new();
        while !self.shard.is_stopped() {
            let more = self.obey(&mut sending);
            self.read();
            self.handle_timeout(&mut sending);
            self.tell_refused(&mut sending);
            if !more && !self.shard.is_stopped() {
                self.sleep(&mut events, &mut sending);
            }
        }
        self.flush(&mut sending);
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
            let Self {
                shard,
                socket,
                counters,
                ..
            } = self;
            let mut out = |outbox: &mut Outbox| send(socket, counters, outbox, sending);
            shard.handle_sending(Instant::now(), command, &mut out);
            out(shard.outbox());
        }
    }

    fn read(&mut self) {
        let shard = &mut self.shard;
        let result = self.socket.receive(|now, source, destination, data| {
            shard.receive(now, source, destination, data);
        });
        if let Err(error) = result {
            tracing::debug!(%error, "receiving failed");
        }
    }

    fn handle_timeout(&mut self, sending: &mut Sending) {
        let Self {
            shard,
            socket,
            counters,
            ..
        } = self;
        let mut out = |outbox: &mut Outbox| send(socket, counters, outbox, sending);
        shard.handle_timeout_sending(Instant::now(), &mut out);
        out(shard.outbox());
    }

    /// Tells the shard whose datagrams were too large for their paths.
    #[cfg(target_os = "linux")]
    fn tell_refused(&mut self, sending: &mut Sending) {
        let shard = &mut self.shard;
        let refused = &mut sending.refused;
        if refused.is_quiet() {
            return;
        }
        let now = Instant::now();
        refused.tell(now, |viewer, failure| {
            shard.send_failed(now, viewer, failure)
        });
        self.flush(sending);
    }

    #[cfg(not(target_os = "linux"))]
    fn tell_refused(&mut self, _sending: &mut Sending) {}

    fn flush(&mut self, sending: &mut Sending) {
        let outbox = self.shard.outbox();
        send(&self.socket, &self.counters, outbox, sending);
    }

    fn sleep(&mut self, events: &mut Events, sending: &mut Sending) {
        self.inbox.set_asleep(true);
        // Whatever was queued before the flag went up has woken nobody.
        if let Some(command) = self.inbox.try_recv() {
            self.inbox.set_asleep(false);
            self.take(command, sending);
            return;
        }
        let timeout = self.shard.poll_timeout().map_or(IDLE, |at| {
            at.saturating_duration_since(Instant::now()).min(IDLE)
        });
        if let Err(error) = self.poll.poll(events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "waiting for the network failed");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.inbox.set_asleep(false);
    }
}

/// Sends what is to be sent, and empties the outbox.
fn send(socket: &Socket, counters: &Counters, outbox: &mut Outbox, sending: &mut Sending) {
    if outbox.is_empty() {
        return;
    }
    let done = |datagrams: &Datagrams, result: io::Result<()>| {
        let count = datagrams.count() as u64;
        match result {
            Ok(()) => counters.datagrams_out.add(count),
            Err(error) => {
                counters.datagrams_dropped.add(count);
                tracing::trace!(%error, to = %datagrams.destination, "not sent");
            }
        }
    };
    #[cfg(target_os = "linux")]
    socket.send_all(&mut sending.headers, &mut sending.refused, outbox, done);
    #[cfg(not(target_os = "linux"))]
    socket.send_all(sending, outbox, done);
    outbox.clear();
}
