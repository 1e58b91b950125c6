// SPDX-License-Identifier: MPL-2.0
//! A client that writes its messages by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

/// As far as the end of the handshake.
pub(crate) fn shake_hands(mut client: TcpStream) -> TcpStream {
    client.write_all(&[3]).unwrap();
    client.write_all(&[0; 1536]).unwrap();
    let mut answer = [0; 1 + 2 * 1536];
    client.read_exact(&mut answer).unwrap();
    client.write_all(&[0; 1536]).unwrap();
    client
}

/// Sends a message, with chunks as long as it is.
pub(crate) fn send(client: &mut TcpStream, kind: u8, timestamp: u8, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    let header = [
        6, 0, 0, timestamp, length[1], length[2], length[3], kind, 1, 0, 0, 0,
    ];
    // It may have been cut already, which is right.
    let _ = client.write_all(&[&header, data].concat());
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&[2][..], &length, text.as_bytes()].concat()
}

pub(crate) fn field(name: &str, value: &[u8]) -> Vec<u8> {
    [&string(name)[1..], value].concat()
}

pub(crate) fn number(value: f64) -> Vec<u8> {
    [&[0][..], &value.to_be_bytes()].concat()
}

/// Connects to an app, with these fields more.
pub(crate) fn connect(client: TcpStream, app: &str, more: &[u8]) -> TcpStream {
    let mut client = shake_hands(client);
    send(&mut client, 1, 0, &[0, 0x10, 0, 0]);
    let app = field("app", &string(app));
    let object = [&[3][..], more, &app, &[0, 0, 9]].concat();
    let connect = [string("connect"), number(1.0), object].concat();
    send(&mut client, 20, 0, &connect);
    client
}

pub(crate) fn ask_to_publish(client: &mut TcpStream, key: &str) {
    let publish = [
        string("publish"),
        number(5.0),
        vec![5],
        string(key),
        string("live"),
    ];
    send(client, 20, 0, &publish.concat());
}

/// As x264 writes it, of 320x180.
const RECORD: [u8; 43] = [
    1, 0xf4, 0, 0x0d, 0xff, 0xe1, 0, 0x19, 0x67, 0xf4, 0, 0x0d, 0x91, 0x9b, 0x28, 0x28, 0x33, 0xf1,
    0xb8, 8, 0x80, 0, 0, 3, 0, 0x80, 0, 0, 0x1e, 7, 0x8a, 0x14, 0xcb, 1, 0, 6, 0x68, 0xeb, 0xe3,
    0xc4, 0x48, 0x44, 0,
];

pub(crate) fn header() -> Vec<u8> {
    [&[0x17, 0, 0, 0, 0][..], &RECORD].concat()
}

/// A message with one unit.
pub(crate) fn frame(first: u8, unit: &[u8]) -> Vec<u8> {
    let length = u32::try_from(unit.len()).unwrap().to_be_bytes();
    [&[first, 1, 0, 0, 0][..], &length, unit].concat()
}
