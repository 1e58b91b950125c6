// SPDX-License-Identifier: MPL-2.0
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]
//! Servers that are asked, as tests need them: a webhook, and an identity provider with its keys.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

type Decide = dyn Fn(&str) -> String + Send + Sync;

/// A server that answers each request by its body, and keeps those.
#[derive(Debug)]
pub struct Asked {
    /// Where it is.
    pub url: String,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Asked {
    /// On a port of its own; it stays until the process ends.
    pub fn new(decide: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/auth", listener.local_addr().unwrap());
        let bodies = Arc::<Mutex<Vec<String>>>::default();
        let (kept, decide) = (
            bodies.clone(),
            Arc::<Decide>::from(Box::new(decide) as Box<Decide>),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, decide) = (kept.clone(), decide.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &kept, &*decide));
            }
        });
        Self { url, bodies }
    }

    /// Of requests.
    pub fn count(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }

    /// The last request's body.
    pub fn last(&self) -> String {
        self.bodies
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<String>>, decide: &Decide) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let answer = decide(&body);
        kept.lock().unwrap().push(body);
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// An HTTP answer.
pub fn answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A pair of keys of that id, and the public one as a JWK.
pub fn ed25519(id: &str) -> (EncodingKey, Value) {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let private = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x });
    (EncodingKey::from_ed_der(private.as_ref()), jwk)
}

/// A token that lasts, and has that claim `sfu`.
pub fn signed(key: &EncodingKey, id: &str, jti: &str, sfu: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(id.to_owned());
    let claims = json!({ "exp": 4_000_000_000u64, "jti": jti, "sfu": sfu });
    encode(&header, &claims, key).unwrap()
}
