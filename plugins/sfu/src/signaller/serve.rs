// SPDX-License-Identifier: MPL-2.0

//! Accepts HTTP connections and serves each in a task of its own (HTTP/1.1, RFC 9112; HTTP/2 is not spoken), as long as
//! they keep to their times and there is room.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::CAT;
use super::connections::{Connection, Connections, NoRoom, Phase};
use super::door;
use super::held::Held;
use super::limits;
use super::server::App;
use super::tell;
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
    /// Serves on a socket that is bound already.
    pub(super) fn start(listener: TcpListener, app: App) -> Result<Self, String> {
        let runtime = runtime::get().map_err(|e| format!("no threads for signalling: {e}"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| e.to_string())?;
        let stop = app.stop_sender();
        let (end, ended) = mpsc::channel();
        let task = runtime.spawn(async move {
            // Dropped when the task is over, however it ends: that is what `stop` waits for.
            let _end: mpsc::Sender<()> = end;
            let sessions = tokio::spawn(door::watch(app.clone()));
            let telling = tokio::spawn(tell::run(app.clone()));
            Acceptor::new(app).run(listener).await;
            sessions.abort();
            telling.abort();
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
    routes: axum::Router,
    connections: Arc<Connections>,
    tasks: JoinSet<()>,
    refusals: Arc<Semaphore>,
    complained: Option<Instant>,
}

impl Acceptor {
    fn new(app: App) -> Self {
        Self {
            connections: app.connections.clone(),
            routes: app.clone().routes(),
            app,
            tasks: JoinSet::new(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            complained: None,
        }
    }

    async fn run(mut self, listener: tokio::net::TcpListener) {
        let mut stopping = self.app.stopping.clone();
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => break,
                Some(_) = self.tasks.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer),
                    Err(error) => self.failed(&error).await,
                }
            }
        }
        drop(listener);
        self.connections.end_waiting();
        let finish = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_GRACE, finish).await;
        self.tasks.shutdown().await;
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        let exempt = self.app.proxies.trusts(peer.ip());
        match self.connections.admit(peer, exempt) {
            Ok(connection) => {
                let serve = serve(
                    stream,
                    connection.clone(),
                    self.routes.clone(),
                    self.app.stopping.clone(),
                );
                connection.set_task(self.tasks.spawn(serve));
            }
            Err(why) => self.refuse(stream, why),
        }
    }

    fn refuse(&mut self, mut stream: TcpStream, why: NoRoom) {
        gst::debug!(CAT, "a connection was refused: no room ({why:?})");
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

/// Returns when the server is to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error is a sender that was dropped, which means stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Serves one connection until it ends, takes too long, or the server stops.
async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    routes: axum::Router,
    mut stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    cut_who_takes_nothing(&stream);
    let io = Watched {
        stream,
        connection: connection.clone(),
    };
    let of_request = connection.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answering = Answering::begin(&of_request, &request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(of_request.clone());
        let answer = routes.clone().oneshot(request);
        async move {
            let response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Held::new(body, answering)))
        }
    });
    let http = http1::Builder::new()
        // What we wait for has its times in `Phase`.
        .header_read_timeout(None)
        .max_headers(limits::FIELDS_MAX)
        .max_buf_size(limits::HEAD_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut http = pin!(http);
    let mut stop = pin!(stopped(&mut stopping));
    let mut told = false;
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        if !told && stop.as_mut().poll(context).is_ready() {
            told = true;
            http.as_mut().graceful_shutdown();
        }
        if http.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(deadline) = connection.deadline() else {
            return Poll::Pending;
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        let late = sleep.as_mut().poll(context);
        if late.is_ready() {
            connection.count_timeout();
        }
        late
    })
    .await;
}

/// The kernel ends a connection whose peer takes nothing of what it is sent, be it gone or not reading (RFC 5482). Only the
/// kernel sees single segments being taken: `write` tells of a third of its buffer at a time.
fn cut_who_takes_nothing(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        let time = u32::try_from(limits::STALL_TIME.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, time) {
            gst::debug!(CAT, "TCP_USER_TIMEOUT is not taken: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// A request under way: the connection is busy until it is answered, or given up.
struct Answering {
    connection: Arc<Connection>,
    number: u64,
}

impl Answering {
    fn begin(connection: &Arc<Connection>, request: &hyper::Request<Incoming>) -> Self {
        let whole = request.body().is_end_stream();
        Self {
            number: connection.begin(if whole { Phase::Busy } else { Phase::Body }),
            connection: connection.clone(),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connection.finish(self.number);
    }
}

/// A socket that tells its connection when octets come and go.
struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        self.connection.sent(result.is_pending());
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.received();
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, octets);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, octets);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
