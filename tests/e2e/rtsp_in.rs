// SPDX-License-Identifier: MPL-2.0

//! `pipelines/rtsp-in`: viewers see what an RTSP server has.

use sfu_tests::ndi;
use sfu_tests::publisher::Publisher;
use sfu_tests::server::{Server, free_ports};

use crate::rtmp_in::watch;

#[test]
fn what_an_rtsp_server_has_is_seen() {
    let (port, _) = free_ports().unwrap();
    let script = ndi::repository().join("tests/rtsp_server.py");
    let script = script.to_str().unwrap();
    // The system's Python, for which the packages are.
    let port = port.to_string();
    let _source = Publisher::start("rtsp_source", "/usr/bin/python3", &[script, &port]).unwrap();
    let address = format!("127.0.0.1:{port}");
    for _ in 0..100 {
        if std::net::TcpStream::connect(&address).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for (name, encode) in [("rtsp_in", "ENCODE=always"), ("rtsp_copy", "ENCODE=never")] {
        let url = format!("URL=rtsp://{address}/live");
        let keys = [encode, "STREAM=demo", "LAYERS=360:700k", &url];
        let server = Server::pipeline(name, "rtsp-in", &keys).unwrap();
        watch(&server, "demo");
    }
}
