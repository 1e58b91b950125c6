// SPDX-License-Identifier: MPL-2.0

//! A bad link before the server under test, for peers that know nothing of it: media goes through the load tool's proxy, and what is
//! said over HTTP through a relay that tells them the proxy's port instead of the server's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::load;
use crate::server::Server;

/// The longest body that is relayed.
const BODY: u64 = 1 << 20;

/// See the module's description. The server has one shard.
#[derive(Debug)]
pub struct Lossy {
    proxy: Child,
    address: SocketAddr,
}

#[derive(Debug)]
struct Relay {
    /// The server's.
    base: String,
    /// How its candidates end, and how they are to.
    ports: (String, String),
}

impl Lossy {
    /// A link to the server, as `link` says (options of `sfu-load proxy`). `host` is the address that its candidates have.
    pub fn new(server: &Server, host: &str, link: &[&str]) -> Result<Self> {
        let udp = server.udp_port();
        let mut proxy = Command::new(load::tool()?)
            .args(["proxy", "--listen", &format!("{host}:0")])
            .args(["--to", &format!("{host}:{udp}")])
            .args(link)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = proxy.stdout.take().context("the proxy's output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().context("the proxy's port")?;
        let relay = Arc::new(Relay {
            base: server.url(""),
            ports: (format!(" {udp} typ host"), format!(" {port} typ host")),
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let relay = relay.clone();
                // Who breaks off has what it wanted.
                std::thread::spawn(move || drop(relay.pass(&stream)));
            }
        });
        Ok(Self { proxy, address })
    }

    /// The address of a path on the server, over the relay.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Relay {
    fn pass(&self, stream: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ');
        let (method, path) = (words.next(), words.next());
        let (method, path) = method.zip(path).context("a request")?;
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "content-type" | "if-match" => request = request.header(name, value.trim()),
                _ => {}
            }
        }
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .build();
        let mut response = ureq::Agent::from(agent).run(request.body(body)?)?;
        let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", response.status());
        for name in ["content-type", "location", "etag", "accept-patch"] {
            if let Some(value) = response.headers().get(name) {
                head += &format!("{name}: {}\r\n", value.to_str()?);
            }
        }
        let body = response.body_mut().with_config().limit(BODY);
        let body = body.read_to_string()?.replace(&self.ports.0, &self.ports.1);
        let mut stream = stream;
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
        Ok(())
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}
