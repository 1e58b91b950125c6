// SPDX-License-Identifier: MPL-2.0

//! Every route, as strangers and friends ask for it: made from the table of routes, so that a new one is asked for, too.
//! RTSP and SRT have the same rows in `tests/access.rs` of their plugins.

mod ends;
mod lists;
mod pages;
mod passwords;
mod peers;
mod remote;
mod rooms;
mod sentences;
mod who;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use gst::prelude::*;
use sfu_access::Action;
use sfu_access_rows::{KEY, SECRET};

use super::Rule;
use crate::signaller::routes::{ROUTES, Route};

const NAME: &str = "sfu.example";
/// A stranger, as the proxy on this machine tells it.
const STRANGER: (&str, &str) = ("X-Forwarded-For", "203.0.113.9");

struct Served {
    element: gst::Element,
    address: SocketAddr,
    folder: PathBuf,
}

impl Served {
    fn new(test: &str, rules: Option<&str>, properties: &[(&str, &str)]) -> Self {
        gst::init().unwrap();
        // Tests of one process register it more than once.
        let _ = crate::plugin_register_static();
        let name = format!("sfu-matrix-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("hls/cam1")).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("hls/cam1/index.m3u8", "#EXTM3U\nv0.m3u8\n");
        write("hls/cam1/v0.m3u8", "#EXTM3U\n#EXTINF:2,\nv0-1.ts\n");
        write("hls/cam1/v0-1.ts", "segment");
        write("secret", SECRET);
        write("key", KEY);
        let element = gst::ElementFactory::make("sfusignaller").build().unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        for (name, value) in [
            ("listen", "127.0.0.1:0"),
            ("udp-port", "0"),
            ("shards", "1"),
            ("router", test),
            ("hls-directory", &path("hls")),
            ("recordings-directory", &path("recordings")),
        ] {
            element.set_property_from_str(name, value);
        }
        if let Some(rules) = rules {
            write("access", rules);
            element.set_property("access", path("access"));
        }
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        element.set_state(gst::State::Playing).unwrap();
        let port = u16::try_from(element.property::<u32>("port")).unwrap();
        Self {
            element,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            folder,
        }
    }

    /// Status, and all of the answer.
    fn ask(&self, method: &str, path: &str, host: &str, fields: &[(&str, &str)]) -> (u16, String) {
        self.send(method, path, host, fields, "")
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        host: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        let length = body.len();
        self.say(&format!("{request}Content-Length: {length}\r\n\r\n{body}"))
    }

    /// A whole request, by a connection of its own.
    fn say(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.unwrap_or(0), answer)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.element.set_state(gst::State::Null);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One request of each kind that a route takes.
fn requests() -> Vec<(&'static Route, &'static str, String)> {
    let mut requests = Vec::new();
    for route in ROUTES {
        let path = match route.path {
            "" => "/cam1".to_owned(),
            path => path
                .replace("{*stream}", "cam1")
                .replace("{*path}", "cam1/v0-1.ts")
                .replace("{*file}", "cam1/a.mp4")
                .replace("{file}", "style.css")
                .replace("{room}", "meeting")
                .replace("{number}", "1")
                .replace("{token}", "unknown")
                .replace("{method}", "ListRooms")
                .replace("{id}", &"0".repeat(32)),
        };
        assert!(!path.contains('{'), "{path}: what stands for this?");
        for method in route.methods.split(", ").filter(|m| *m != "OPTIONS") {
            requests.push((route, method, path.clone()));
        }
        if route.rule == Rule::Health {
            requests.push((route, "GET", format!("{path}?stream=cam1")));
        }
        if route.rule == Rule::Publish {
            for takeover in ["1", "true"] {
                requests.push((route, "POST", format!("{path}?takeover={takeover}")));
            }
        }
        if route.rule == Rule::Hls {
            requests.push((route, "GET", "/hls/cam1/index.m3u8".to_owned()));
        }
    }
    requests
}

/// What a request needs; none where everyone is let in.
fn needed(rule: Rule, path: &str) -> Vec<Action> {
    match rule {
        Rule::Open | Rule::Player | Rule::Session | Rule::Streams | Rule::Peers | Rule::Room => {
            vec![]
        }
        Rule::Watch | Rule::Hls | Rule::Stream | Rule::Enter => vec![Action::Play],
        Rule::Health if path.contains("stream=") => vec![Action::Play],
        Rule::Health => vec![],
        Rule::Publish if path.contains("takeover") => vec![Action::Publish, Action::Takeover],
        Rule::Publish => vec![Action::Publish],
        Rule::Recordings | Rule::Recording => vec![Action::Record],
        Rule::Metrics => vec![Action::Metrics],
        Rule::Api => vec![Action::Api],
    }
}

fn is_let_in(status: u16) -> bool {
    assert!(status != 0 && status != 500, "{status}");
    ![401, 403, 421, 429, 503].contains(&status) || status == 503
}

const RULES: &str = "tokens secret\nkey key publish=cam1 takeover=cam1\n";
