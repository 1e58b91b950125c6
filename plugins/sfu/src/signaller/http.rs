// SPDX-License-Identifier: MPL-2.0

//! One connection: HTTP/1.1 (RFC 9112), by TLS also HTTP/2 (RFC 9113), and then maybe a WebSocket, until it ends, takes too long, or the server stops.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::CAT;
use super::body::BrokenOff;
use super::connections::{Connection, Phase};
use super::door::Host;
use super::limits;
use super::server::{App, Refusal};
use super::tls::{Tls, is_handshake};
use super::websocket::Talk;
use crate::properties::lock;

/// What all connections have in common.
#[derive(Debug)]
pub(super) struct Speech {
    routes: axum::Router,
    stopping: watch::Receiver<bool>,
}

impl Speech {
    pub(super) fn new(app: &App) -> Self {
        Self {
            routes: app.clone().routes(),
            stopping: app.stopping.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(routes: axum::Router, stopping: watch::Receiver<bool>) -> Self {
        Self { routes, stopping }
    }
}

/// Returns when the server is to stop.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error is a sender that was dropped, which means stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Serves one connection. With `tls` it may begin with a handshake; plain HTTP there is led to HTTPS.
pub(super) async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    speech: Arc<Speech>,
    tls: Option<Arc<Tls>>,
) {
    let _ = stream.set_nodelay(true);
    cut_who_takes_nothing(&stream);
    in_time(speak(stream, connection.clone(), &speech, tls), &connection).await;
}

/// Polls that until it is over, or has taken too long.
async fn in_time(speaking: impl Future<Output = ()>, connection: &Connection) {
    let mut speaking = pin!(speaking);
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        if speaking.as_mut().poll(context).is_ready() || connection.is_over() {
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

async fn speak(
    stream: TcpStream,
    connection: Arc<Connection>,
    speech: &Speech,
    tls: Option<Arc<Tls>>,
) {
    let encrypted = match tls {
        Some(tls) if is_handshake(&stream).await => Some(tls),
        _ => None,
    };
    let io = Watched {
        stream,
        connection: connection.clone(),
    };
    let Some(tls) = encrypted else {
        return http_1(io, connection, speech).await;
    };
    match tls.accept(io).await {
        Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            connection.set_tls(true);
            http_2(stream, connection, speech).await;
        }
        Ok(stream) => {
            connection.set_tls(false);
            http_1(stream, connection, speech).await;
        }
        Err(error) => {
            gst::debug!(CAT, "a TLS handshake failed: {error}");
            connection.count_failed_handshake();
        }
    }
}

async fn http_1(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    speech: &Speech,
) {
    let talk = Talk::new(speech.stopping.clone());
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(talk.clone());
        answer(&connection, &speech.routes, request)
    });
    let http = http1::Builder::new()
        // What we wait for has its times in `Phase`.
        .header_read_timeout(None)
        .max_headers(limits::FIELDS_MAX)
        .max_buf_size(limits::HEAD_MAX)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    drive(
        http,
        speech,
        http1::UpgradeableConnection::graceful_shutdown,
    )
    .await;
    if let Some(going_on) = talk.take() {
        going_on.await;
    }
}

async fn http_2(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    speech: &Speech,
) {
    let streams = Streams::default();
    let service = service_fn(|request| answer(&connection, &speech.routes, request));
    let http = http2::Builder::new(streams.clone())
        .max_concurrent_streams(limits::STREAMS_MAX)
        .max_header_list_size(limits::HEAD_MAX as u32)
        // All that may come before somebody has taken it: one body of each stream is taken in whole.
        .initial_stream_window_size(limits::BODY_MAX as u32)
        .initial_connection_window_size(2 * limits::BODY_MAX as u32)
        .max_send_buf_size(limits::STREAM_SEND_MAX)
        // Streams that are reset before anybody has looked at them (CVE-2023-44487), and those that we reset.
        .max_pending_accept_reset_streams(limits::STREAMS_MAX as usize)
        .max_local_error_reset_streams(limits::STREAM_ERRORS_MAX)
        .serve_connection(TokioIo::new(io), service);
    let _end = EndStreams(streams);
    drive(http, speech, http2::Connection::graceful_shutdown).await;
}

/// Polls a connection to its end, which it is asked for when the server stops.
async fn drive<C: Future>(connection: C, speech: &Speech, end: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    let mut stopping = speech.stopping.clone();
    let mut stop = pin!(stopped(&mut stopping));
    let mut told = false;
    poll_fn(|context| {
        if !told && stop.as_mut().poll(context).is_ready() {
            told = true;
            end(connection.as_mut());
        }
        connection.as_mut().poll(context).map(|_| ())
    })
    .await;
}

fn answer(
    connection: &Arc<Connection>,
    routes: &axum::Router,
    request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + 'static {
    let whole = request.body().is_end_stream();
    let refused = refusal(&request);
    let begun = connection.begin(if whole { Phase::Busy } else { Phase::Body });
    let mut answering = Answering {
        connection: connection.clone(),
        number: begun.unwrap_or_default(),
        answered: false,
    };
    let refused = match begun {
        Some(_) => refused,
        None => Some(
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "there are as many requests under way as there may be; try again later",
            )
            .with(header::RETRY_AFTER, "5"),
        ),
    };
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(connection.clone());
    let answer = match refused {
        Some(refusal) => Err(refusal.into_response()),
        None => Ok(routes.clone().oneshot(request)),
    };
    async move {
        let response = match answer {
            Ok(answer) => answer.await?,
            Err(refused) => refused,
        };
        answering.answered = response.extensions().get::<BrokenOff>().is_none();
        Ok(response.map(|body| Answer::new(body, answering)))
    }
}

/// What is refused whatever it asks for: `hyper` lets it through.
fn refusal(request: &hyper::Request<Incoming>) -> Option<Refusal> {
    if request.headers().len() > limits::FIELDS_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some(Refusal::new(
            status,
            "there are more than 100 header fields",
        ));
    }
    if let Some(fault) = Host::fault(request.version(), request.headers()) {
        return Some(Refusal::new(StatusCode::BAD_REQUEST, fault));
    }
    if request.method() == Method::CONNECT {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let refusal = Refusal::new(status, "this is no proxy");
        return Some(refusal.with(header::ALLOW, "GET, HEAD, POST, PATCH, DELETE, OPTIONS"));
    }
    None
}

/// Tasks of one connection's streams: no more than the peer may open, and none when it is over.
#[derive(Debug, Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let mut streams = lock(&self.0);
        while streams.try_join_next().is_some() {}
        streams.spawn(stream);
    }
}

/// Streams hold the set that holds them.
struct EndStreams(Streams);

impl Drop for EndStreams {
    fn drop(&mut self) {
        lock(&self.0.0).abort_all();
    }
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
    answered: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connection.finish(self.number, self.answered);
    }
}

/// An answer's body. HTTP/2 has a window for each stream, which the kernel knows nothing of: there it is seen here who
/// takes nothing, and no part is larger than may be left over.
struct Answer {
    body: Body,
    rest: Bytes,
    answering: Answering,
}

impl Answer {
    fn new(body: Body, answering: Answering) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            answering,
        }
    }

    fn part(&mut self) -> Frame<Bytes> {
        let part = self
            .rest
            .split_to(self.rest.len().min(limits::STREAM_SEND_MAX));
        // What waits for the peer does not keep all of the body.
        Frame::data(Bytes::copy_from_slice(&part))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let connection = &this.answering.connection;
        if !connection.is_multiplexed() {
            return Pin::new(&mut this.body).poll_frame(context);
        }
        connection.stream_takes(this.answering.number);
        let frame = if this.rest.is_empty() {
            let frame = Pin::new(&mut this.body).poll_frame(context);
            match frame {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.len() > limits::STREAM_SEND_MAX => {
                        this.rest = data;
                        this.part()
                    }
                    Ok(data) => Frame::data(data),
                    Err(frame) => frame,
                },
                other => return other,
            }
        } else {
            this.part()
        };
        let connection = &this.answering.connection;
        connection.stream_waits(this.answering.number);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + rest);
        }
        hint
    }
}

/// A socket that tells its connection when octets come and go.
#[derive(Debug)]
pub(super) struct Watched {
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
