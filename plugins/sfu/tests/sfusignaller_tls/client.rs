// SPDX-License-Identifier: MPL-2.0

//! Clients that do what they are told: TLS with one trusted certificate, and HTTP/2 frame by frame (RFC 9113).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use sfu_tls::rustls::crypto::aws_lc_rs::default_provider;
use sfu_tls::rustls::pki_types::{CertificateDer, ServerName};
use sfu_tls::rustls::version::TLS13;
use sfu_tls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

/// An answer that takes longer than this is none, on a machine that is shared with other tests.
pub(crate) const PROMPT: Duration = Duration::from_secs(20);

/// A certificate, and its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().der().clone(),
            key: key.serialize_der(),
        }
    }

    /// The paths of both.
    pub(crate) fn write(&self, folder: &Path) -> (String, String) {
        let write = |name: &str, label: &str, der: &[u8]| {
            let path = folder.join(name);
            let text = STANDARD.encode(der);
            let text = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        (
            write("certificate.pem", "CERTIFICATE", &self.certificate),
            write("key.pem", "PRIVATE KEY", &self.key),
        )
    }

    /// Whether a server there has it.
    pub(crate) fn is_shown(&self, address: SocketAddr) -> bool {
        let mut stream = tls(address, self, &TLS13).0;
        stream.flush().is_ok() && stream.conn.complete_io(&mut stream.sock).is_ok()
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream.set_write_timeout(Some(PROMPT)).unwrap();
    stream
}

pub(crate) fn plain(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) struct Tls(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    /// All of the answer. The connection has to end with it.
    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.0.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = self.0.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub(crate) fn tls(
    address: SocketAddr,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
) -> Tls {
    speaking(address, identity, version, b"http/1.1")
}

fn speaking(
    address: SocketAddr,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
    protocol: &[u8],
) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    Tls(StreamOwned::new(connection, connect(address)))
}

/// One frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// HTTP/2.
pub(crate) struct H2 {
    stream: Tls,
    seen: Vec<Frame>,
}

impl H2 {
    pub(crate) fn connect(
        address: SocketAddr,
        identity: &Identity,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut h2 = Self::silent(address, identity, version);
        h2.stream
            .0
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        // No table of fields (HPACK): what is answered stands for itself.
        h2.send(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        // The connection's window is not what is looked at here.
        h2.send(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
        h2
    }

    /// Nothing but the handshake.
    pub(crate) fn silent(
        address: SocketAddr,
        identity: &Identity,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut stream = speaking(address, identity, version, b"h2");
        stream.0.conn.complete_io(&mut stream.0.sock).unwrap();
        assert_eq!(stream.0.conn.alpn_protocol(), Some(&b"h2"[..]));
        Self {
            stream,
            seen: Vec::new(),
        }
    }

    pub(crate) fn try_send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap();
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.0.write_all(&frame)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(kind, flags, stream, payload).unwrap();
    }

    pub(crate) fn request(
        &mut self,
        stream: u32,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        whole: bool,
    ) {
        self.request_to(stream, "localhost", method, path, fields, whole);
    }

    pub(crate) fn request_to(
        &mut self,
        stream: u32,
        authority: &str,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        whole: bool,
    ) {
        let block = block(authority, method, path, fields);
        let end = if whole { END_STREAM } else { 0 };
        self.send(HEADERS, END_HEADERS | end, stream, &block);
    }

    pub(crate) fn data(&mut self, stream: u32, octets: &[u8], end: bool) {
        self.send(DATA, if end { END_STREAM } else { 0 }, stream, octets);
    }

    /// The next frame, `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.0.read_exact(&mut payload).ok()?;
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        };
        if frame.kind == DATA && !frame.payload.is_empty() {
            let more = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
            let _ = self.try_send(WINDOW_UPDATE, 0, frame.stream, &more);
        }
        Some(frame)
    }

    /// The next one of those that are asked for; others are kept.
    pub(crate) fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        if let Some(at) = self.seen.iter().position(&wanted) {
            return Some(self.seen.remove(at));
        }
        loop {
            let frame = self.next()?;
            if wanted(&frame) {
                return Some(frame);
            }
            self.seen.push(frame);
        }
    }

    /// Of an answer; 0 where there is none.
    pub(crate) fn status(&mut self, stream: u32) -> u16 {
        let head = self.find(|f| f.stream == stream && matches!(f.kind, HEADERS | RST_STREAM));
        head.filter(|f| f.kind == HEADERS)
            .map_or(0, |head| status(&head.payload))
    }

    /// All of an answer's body.
    pub(crate) fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(frame) = self.find(|f| f.stream == stream && f.kind == DATA) {
            body.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
        body
    }
}

/// HPACK (RFC 7541) without a table.
pub(crate) fn block(authority: &str, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // :scheme https is in the static table; the other names are as well.
    let mut block = vec![0x87];
    for (name, value) in [(0x02, method), (0x04, path), (0x01, authority)] {
        block.push(name);
        string(&mut block, value);
    }
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

fn string(block: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(0x80 | (rest % 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend(text.as_bytes());
}

/// `:status` is what a block begins with.
fn status(block: &[u8]) -> u16 {
    const TABLE: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Changes of the table's size come first.
    let at = block.iter().position(|b| b & 0xe0 != 0x20).unwrap();
    match block[at] {
        b @ 0x88..=0x8e => TABLE[usize::from(b - 0x88)],
        // A literal, by one of the names' numbers; the digits are in Huffman's code or not.
        _ => {
            let text = &block[at + 2..];
            match block[at + 1] {
                // No status, but another name.
                _ if !matches!(block[at] & 0x0f, 8..=14) => 0,
                3 => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
                length => digits(&text[..usize::from(length & 0x7f)]),
            }
        }
    }
}

/// Huffman's code of digits (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn digits(octets: &[u8]) -> u16 {
    let bits: Vec<u8> = octets
        .iter()
        .flat_map(|octet| (0..8).rev().map(move |n| octet >> n & 1))
        .collect();
    let (mut at, mut number) = (0, 0);
    let value = |range: &[u8]| range.iter().fold(0u8, |v, b| v << 1 | b);
    while at + 5 <= bits.len() {
        let five = value(&bits[at..at + 5]);
        if five <= 2 {
            number = number * 10 + u16::from(five);
            at += 5;
        } else if at + 6 <= bits.len() && (0x19..=0x1f).contains(&value(&bits[at..at + 6])) {
            number = number * 10 + u16::from(value(&bits[at..at + 6]) - 0x19 + 3);
            at += 6;
        } else {
            break;
        }
    }
    number
}
