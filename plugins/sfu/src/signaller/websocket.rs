// SPDX-License-Identifier: MPL-2.0

//! WebSockets (RFC 6455): from a request to messages, until the peer goes, falls silent, or the server stops.
//!
//! The talk is a part of its connection's task, which goes on with it when HTTP is over. So it counts as a connection for as
//! long as it lasts, makes room for others while nothing is under way in it ([`Socket::set_in_use`]), and ends with the
//! server. By HTTP/1.1 alone: browsers open a connection of its own for each.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tokio::TokioAdapter;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Utf8Bytes};
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::CAT;
use super::connections::{Connection, Phase};
use super::http;
use super::server::Refusal;
use crate::properties::lock;

/// So often a peer is asked whether it is there; networks forget connections that are quiet for a minute.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A peer that says nothing for so long, not even that it is there, is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// For a peer to take a message.
const SEND_TIME: Duration = Duration::from_secs(10);
/// For it to say goodbye.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Messages of a peer, pings among them, in the long run and at once: what is beyond waits in the network. Who joins sends
/// an offer and some thirty candidates. Each further part of so many octets is as good as a message. Not tuned.
const MESSAGE_PART: usize = 4 * 1024;
const MESSAGE_EVERY: Duration = Duration::from_millis(20);
const MESSAGES_AT_ONCE: u32 = 200;
/// What may come for one message is so many times its size: fragments have heads, and may hold nothing.
const FRAGMENTS_COST: usize = 4;
/// Kept for each socket while it lasts.
const READ_BUFFER: usize = 4 * 1024;

/// What a connection goes on with when HTTP is over: its requests carry it.
#[derive(Clone)]
pub(super) struct Talk {
    next: Arc<Mutex<Option<Going>>>,
    stopping: watch::Receiver<bool>,
}

type Going = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Talk {
    pub(super) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self {
            next: Arc::default(),
            stopping,
        }
    }

    /// What a request has led to, if anything.
    pub(super) fn take(&self) -> Option<Going> {
        lock(&self.next).take()
    }
}

/// A request that asks for a WebSocket. Another one is refused (426, or 400).
pub(super) struct Upgrade {
    accept: String,
    on: OnUpgrade,
    talk: Talk,
    connection: Arc<Connection>,
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upgrade({})", self.connection.peer())
    }
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        const VERSION: &str = "13";
        let required = |message: &str| Refusal::new(StatusCode::UPGRADE_REQUIRED, message);
        let connection = parts.extensions.get::<Arc<Connection>>().cloned();
        let talk = parts.extensions.get::<Talk>().cloned();
        let asked = parts.method == Method::GET
            && parts.version == Version::HTTP_11
            && says(parts, &header::CONNECTION, "upgrade")
            && says(parts, &header::UPGRADE, "websocket");
        let (true, Some(connection), Some(talk)) = (asked, connection, talk) else {
            let message = "this speaks WebSocket (RFC 6455) over HTTP/1.1 alone";
            return Err(required(message).with(header::UPGRADE, "websocket"));
        };
        if !says(parts, &header::SEC_WEBSOCKET_VERSION, VERSION) {
            let message = "the WebSocket's version is 13";
            return Err(required(message).with(header::SEC_WEBSOCKET_VERSION, VERSION));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let is_key = |key: &&HeaderValue| STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
        let key = key
            .filter(is_key)
            .map(|key| derive_accept_key(key.as_bytes()));
        let on = parts.extensions.remove::<OnUpgrade>();
        let (Some(accept), Some(on)) = (key, on) else {
            let message = "Sec-WebSocket-Key is missing, or no 16 octets in base64";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        };
        Ok(Self {
            accept,
            on,
            talk,
            connection,
        })
    }
}

/// Whether a list in a header names that.
fn says(parts: &Parts, name: &HeaderName, token: &str) -> bool {
    let lines = parts.headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

impl Upgrade {
    /// Answers that we agree, and goes on with that when the answer is sent. No message of the peer may be larger than
    /// `largest`; memory is bounded by that, too.
    pub(super) fn begin<F>(
        self,
        largest: usize,
        talk: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self {
            accept,
            on,
            talk: Talk { next, stopping },
            connection,
        } = self;
        let going_on = async move {
            let upgraded = match on.await {
                Ok(upgraded) => upgraded,
                Err(error) => {
                    gst::debug!(CAT, "a connection broke off before its WebSocket: {error}");
                    return;
                }
            };
            connection.enter(Phase::Open);
            talk(Socket::new(upgraded, connection, largest, stopping).await).await;
        };
        *lock(&next) = Some(Box::pin(going_on));
        let headers = [
            (header::CONNECTION, "Upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl From<Message> for tungstenite::Message {
    fn from(message: Message) -> Self {
        match message {
            Message::Text(text) => Self::Text(text),
            Message::Binary(octets) => Self::Binary(octets),
        }
    }
}

/// Why there is nothing more to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed it.
    Closed,
    /// The connection broke off.
    Broken,
    /// The peer broke a rule of the protocol.
    Unruly,
    /// A text of the peer is none.
    NoText,
    /// The peer sent more for one message than may be sent.
    TooLarge,
    /// The peer says nothing any more, or takes nothing.
    Silent,
    /// Others need its place.
    Crowded,
    /// The server stops.
    Stopping,
}

impl Ended {
    /// What the peer is told of it, where it hears anything: a code (RFC 6455, section 7.4.1; 1013 by IANA's registry) and a
    /// reason.
    pub(super) fn goodbye(self) -> (u16, &'static str) {
        match self {
            // What broke off hears nothing.
            Self::Closed | Self::Broken => (1000, ""),
            Self::Unruly => (1002, "a rule of the protocol was broken"),
            Self::NoText => (1007, "a text is UTF-8"),
            Self::TooLarge => (1009, "a message is too large"),
            Self::Silent => (1001, "nothing was heard for too long"),
            Self::Crowded => (1013, "others need the place: try again later"),
            Self::Stopping => (1001, "the server stops"),
        }
    }

    fn of(error: &tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(_) => Self::TooLarge,
            // Of the parts of a message: see `Metered`.
            tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::TooLarge
            }
            tungstenite::Error::Utf8(_) => Self::NoText,
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Broken
            }
            tungstenite::Error::Protocol(_) => Self::Unruly,
            _ => Self::Broken,
        }
    }
}

/// A WebSocket. Messages are sent by who reads them, so that one task is all there is.
pub(super) struct Socket {
    stream: WebSocketStream<TokioAdapter<Metered>>,
    connection: Arc<Connection>,
    stopping: watch::Receiver<bool>,
    /// When the peer was last heard, and when it is asked next.
    heard: Instant,
    ask: Instant,
    pace: Pace,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.connection.peer())
    }
}

impl Socket {
    async fn new(
        upgraded: Upgraded,
        connection: Arc<Connection>,
        largest: usize,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest));
        let io = TokioAdapter::new(Metered {
            io: TokioIo::new(upgraded),
            left: usize::MAX,
            most: largest.saturating_mul(FRAGMENTS_COST).max(READ_BUFFER),
        });
        let mut stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        stream.get_mut().get_mut().whole();
        let now = Instant::now();
        Self {
            stream,
            connection,
            stopping,
            heard: now,
            ask: now + PING_EVERY,
            pace: Pace(now),
        }
    }

    /// Whether something is under way in it, such as a session. If not it makes room when all connections are taken.
    pub(super) fn set_in_use(&self, in_use: bool) {
        let phase = if in_use { Phase::Busy } else { Phase::Open };
        self.connection.enter(phase);
    }

    /// The next message. May be given up and called again (`select!`).
    pub(super) async fn next(&mut self) -> Result<Message, Ended> {
        loop {
            let now = Instant::now();
            let due = self.pace.due(now);
            let said = tokio::select! {
                biased;
                () = http::stopped(&mut self.stopping) => return Err(Ended::Stopping),
                () = self.connection.is_to_leave() => return Err(Ended::Crowded),
                () = sleep_until(self.ask) => {
                    self.ask().await?;
                    continue;
                }
                () = sleep_until(due), if due > now => continue,
                said = self.stream.next(), if due <= now => said,
            };
            self.heard = Instant::now();
            let octets = match &said {
                Some(Ok(message)) => message.len(),
                _ => 0,
            };
            self.pace.spend(self.heard, octets);
            self.stream.get_mut().get_mut().whole();
            match said {
                Some(Ok(tungstenite::Message::Text(text))) => return Ok(Message::Text(text)),
                Some(Ok(tungstenite::Message::Binary(octets))) => {
                    return Ok(Message::Binary(octets));
                }
                // Pings are answered where they are read.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    gst::debug!(CAT, "a WebSocket ends: {error}");
                    return Err(Ended::of(&error));
                }
                None => return Err(Ended::Closed),
            }
        }
    }

    async fn ask(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if now.saturating_duration_since(self.heard) > SILENCE {
            return Err(Ended::Silent);
        }
        self.ask = now + PING_EVERY;
        self.put(tungstenite::Message::Ping(Bytes::new())).await
    }

    /// Sends that. Who takes nothing for a while has ended it.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), Ended> {
        self.put(message.into()).await
    }

    async fn put(&mut self, message: tungstenite::Message) -> Result<(), Ended> {
        match timeout(SEND_TIME, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Broken),
            Err(_) => Err(Ended::Silent),
        }
    }

    /// Says goodbye, and why: in a few words (123 octets at most). After [`Ended`] the peer may not hear it any more.
    pub(super) async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        let goodbye = async {
            if self.stream.close(Some(frame)).await.is_err() {
                return;
            }
            while let Some(Ok(_)) = self.stream.next().await {}
            // What was sent and is not read when the socket closes resets the connection, and the goodbye is lost.
            let io = self.stream.get_mut().get_mut();
            io.whole();
            let mut sent = [0; READ_BUFFER];
            let _ = io.shutdown().await;
            while io.read(&mut sent).await.is_ok_and(|read| read > 0) {}
        };
        let _ = timeout(CLOSE_TIME, goodbye).await;
    }
}

/// When the next message may be read (a bucket of tokens, as a time).
#[derive(Debug)]
struct Pace(Instant);

impl Pace {
    fn due(&self, now: Instant) -> Instant {
        let burst = MESSAGE_EVERY * MESSAGES_AT_ONCE;
        self.0.checked_sub(burst).unwrap_or(now)
    }

    fn spend(&mut self, now: Instant, octets: usize) {
        let parts = u32::try_from(1 + octets / MESSAGE_PART).unwrap_or(u32::MAX);
        self.0 = self.0.max(now) + MESSAGE_EVERY.saturating_mul(parts);
    }
}

/// A connection that ends when too much comes of a message that is never whole.
struct Metered {
    io: TokioIo<Upgraded>,
    left: usize,
    most: usize,
}

impl Metered {
    /// A message is whole: the next one may begin.
    fn whole(&mut self) {
        self.left = self.most;
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let error = "a message has too many fragments";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        self.left = self.left.saturating_sub(read);
        result
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
