// SPDX-License-Identifier: MPL-2.0

//! Accepts HTTP connections and serves each in a task of its own, as long as there is room.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connections::{Connections, NoRoom};
use super::http::{self, Speech};
use super::server::App;
use super::tls::Tls;
use super::{CAT, announced, door, tell};
use crate::runtime;

/// How long answers under way may take when the element stops.
const STOP_GRACE: Duration = Duration::from_millis(400);
/// How long stopping waits for the server's threads, which take a moment where the machine is busy.
const STOP_PATIENCE: Duration = Duration::from_millis(700);
/// Who is refused is told so, as many as this at a time and no longer than that: others are cut.
const REFUSALS: usize = 64;
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// After an error of `accept` that is not the peer's, such as that there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often the log tells of that.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 5\r\n\
    Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\nCache-Control: no-store\r\n\
    Connection: close\r\nContent-Length: 67\r\n\r\nthe server has as many connections as it may have; try again later\n";

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    stop: Arc<watch::Sender<bool>>,
    task: tokio::task::AbortHandle,
    ended: mpsc::Receiver<()>,
}

impl Server {
    /// Serves on sockets that are bound already: the second one is for plain HTTP beside TLS.
    pub(super) fn start(
        listener: TcpListener,
        plain: Option<TcpListener>,
        app: App,
    ) -> Result<Self, String> {
        let runtime = runtime::get().map_err(|e| format!("no threads for signalling: {e}"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let _context = runtime.enter();
        let asynchronous = |listener: TcpListener| {
            listener.set_nonblocking(true).map_err(|e| e.to_string())?;
            tokio::net::TcpListener::from_std(listener).map_err(|e| e.to_string())
        };
        let listener = asynchronous(listener)?;
        let plain = plain.map(asynchronous).transpose()?;
        let stop = app.stop_sender();
        let (end, ended) = mpsc::channel();
        let task = runtime.spawn(async move {
            // Dropped when the task is over, however it ends: that is what `stop` waits for.
            let _end: mpsc::Sender<()> = end;
            let mut beside = JoinSet::new();
            beside.spawn(door::watch(app.clone()));
            beside.spawn(tell::run(app.clone()));
            beside.spawn(announced::watch(app.clone()));
            if let Some(tls) = app.tls.clone() {
                beside.spawn(tls.watch(app.stopping.clone()));
            }
            Acceptor::new(app).run(listener, plain).await;
        });
        Ok(Self {
            port: address.port(),
            stop,
            task: task.abort_handle(),
            ended,
        })
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets answers under way finish for a moment, ends all connections, and returns when that is so.
    pub(super) fn stop(self) {
        self.stop.send_replace(true);
        let timed_out = Err(mpsc::RecvTimeoutError::Timeout);
        if self.ended.recv_timeout(STOP_PATIENCE) == timed_out {
            gst::warning!(CAT, "the HTTP server takes long to end its connections");
            self.task.abort();
        }
    }
}

struct Acceptor {
    app: App,
    speech: Arc<Speech>,
    connections: Arc<Connections>,
    tasks: JoinSet<()>,
    refusals: Arc<Semaphore>,
    complained: Option<Instant>,
}

impl Acceptor {
    fn new(app: App) -> Self {
        Self {
            connections: app.connections.clone(),
            speech: Arc::new(Speech::new(&app)),
            app,
            tasks: JoinSet::new(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            complained: None,
        }
    }

    async fn run(
        mut self,
        listener: tokio::net::TcpListener,
        plain: Option<tokio::net::TcpListener>,
    ) {
        let mut stopping = self.app.stopping.clone();
        let tls = self.app.tls.clone();
        loop {
            let (accepted, tls) = tokio::select! {
                () = http::stopped(&mut stopping) => break,
                Some(_) = self.tasks.join_next() => continue,
                accepted = listener.accept() => (accepted, tls.clone()),
                accepted = accept_if_any(plain.as_ref()) => (accepted, None),
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer, tls),
                Err(error) => self.failed(&error).await,
            }
        }
        drop((listener, plain));
        self.connections.end_waiting();
        let finish = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_GRACE, finish).await;
        self.tasks.shutdown().await;
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>) {
        let exempt = self.app.proxies.trusts(peer.ip());
        match self.connections.admit(peer, exempt) {
            Ok(connection) => {
                let serve = http::serve(stream, connection.clone(), self.speech.clone(), tls);
                connection.set_task(self.tasks.spawn(serve));
            }
            Err(why) => self.refuse(stream, why, tls.is_some()),
        }
    }

    fn refuse(&mut self, mut stream: TcpStream, why: NoRoom, is_tls: bool) {
        gst::debug!(CAT, "a connection was refused: no room ({why:?})");
        // A handshake only to say no is not worth its price.
        if is_tls {
            return;
        }
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else {
            return;
        };
        self.tasks.spawn(async move {
            let _permit = permit;
            let tell = async {
                stream.write_all(REFUSAL.as_bytes()).await?;
                stream.shutdown().await?;
                // What was sent and is not read when the socket closes resets the connection, and the answer is lost.
                let mut sent = [0; 1024];
                while stream.read(&mut sent).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = tokio::time::timeout(REFUSAL_TIME, tell).await;
        });
    }

    /// `accept` failed. Without descriptors it does so at once, again and again, until some are free.
    async fn failed(&mut self, error: &io::Error) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            return;
        }
        let made_room = self.connections.make_room();
        if self
            .complained
            .is_none_or(|at| at.elapsed() > COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            gst::warning!(
                CAT,
                "connections can't be accepted ({error}; made room: {made_room}): raise the limit of descriptors \
                 (ulimit -n), or lower max-connections"
            );
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// The next connection of a listener, if there is one.
async fn accept_if_any(
    listener: Option<&tokio::net::TcpListener>,
) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let (head, body) = REFUSAL.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }
}
