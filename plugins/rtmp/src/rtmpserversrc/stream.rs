// SPDX-License-Identifier: MPL-2.0
//! How a connection's bytes travel: as they are, or by TLS (RTMPS).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_tls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A handshake reads until it is done, however slowly its bytes come: nothing is read for longer than this in one go.
const READ: Duration = Duration::from_millis(500);

/// A socket that gives back control when a read of TLS has taken long enough.
pub(super) struct Socket {
    socket: TcpStream,
    until: Option<Instant>,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.until {
            Some(until) if Instant::now() >= until => Err(ErrorKind::WouldBlock.into()),
            _ => self.socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// See the module's description.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, Socket>>),
}

impl Stream {
    pub(super) fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else {
            return Ok(Self::Plain(socket));
        };
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let socket = Socket {
            socket,
            until: None,
        };
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock.socket,
        }
    }

    /// How long reading and writing may wait.
    pub(super) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        let socket = self.socket();
        socket.set_read_timeout(Some(read))?;
        socket.set_write_timeout(Some(write))?;
        socket.set_nodelay(true)
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// What else is written would be for nobody.
    pub(super) fn shutdown(&mut self, how: std::net::Shutdown) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            let _ = stream.conn.complete_io(&mut stream.sock);
        }
        self.socket().shutdown(how)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => {
                stream.sock.until = Some(Instant::now() + READ);
                stream.read(buffer)
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
