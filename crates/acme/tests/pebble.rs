// SPDX-License-Identifier: MPL-2.0

//! Against a real ACME server, Let's Encrypt's `pebble`: accounts, bindings, and what it says when it finds nobody.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sfu_acme::{Acme, Challenges, Config, News};

const LIMIT: Duration = Duration::from_secs(60);
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// It takes no port 0: one that was free just now.
fn free() -> u16 {
    listener().1
}

/// A server, names that lead to this machine, and where it asks.
struct Pebble {
    folder: PathBuf,
    port: u16,
    names: u16,
    http: u16,
    _names: Running,
}

impl Pebble {
    fn new(test: &str) -> (Self, TcpListener) {
        let folder = std::env::temp_dir().join(format!("sfu-pebble-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        certificates(&folder);
        let (listener, http) = listener();
        let (names, port) = (free(), free());
        let challenges = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .arg("-dns01")
            .arg(format!("127.0.0.1:{names}"))
            .arg("-management")
            .arg(format!("127.0.0.1:{}", free()))
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv (package pebble)");
        let pebble = Self {
            folder,
            port,
            names,
            http,
            _names: Running(challenges),
        };
        (pebble, listener)
    }

    /// One that knows nobody yet. `life` is that of its certificates, in seconds.
    fn start(&self, is_bound: bool, life: u64) -> Running {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", free()),
            "certificate": self.folder.join("own.pem"),
            "privateKey": self.folder.join("own.key"),
            "httpPort": self.http,
            "tlsPort": free(),
            "certificateValidityPeriod": life,
            "externalAccountBindingRequired": is_bound,
            "externalAccountMACKeys": { "customer": KEY },
        }});
        let file = self.folder.join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let log = fs::File::create(self.folder.join("pebble.log")).unwrap();
        let pebble = Command::new("pebble")
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.names)])
            .arg("-config")
            .arg(&file)
            .env("PEBBLE_VA_NOSLEEP", "1")
            // As in the open: some nonces are no longer good.
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pebble");
        Running(pebble)
    }

    fn config(&self) -> Config {
        Config {
            domains: "sfu.example.org,b.example.org".into(),
            contact: "me@example.org".into(),
            directory: format!("https://localhost:{}/dir", self.port),
            authority: self.folder.join("ca.pem").to_string_lossy().into_owned(),
            folder: self.folder.join("cache"),
            pause: Duration::from_millis(200),
            ..Config::default()
        }
    }

    fn account(&self) -> serde_json::Value {
        let text = fs::read(self.folder.join("cache/account.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// An authority, and a certificate of it for the ACME server's own HTTPS.
fn certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap();
    fs::write(folder.join("own.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("own.key"), own.serialize_pem()).unwrap();
}

/// Plain HTTP, where an ACME server looks.
fn answer(listener: TcpListener, challenges: Challenges) {
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut line = String::new();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let _ = reader.read_line(&mut line);
            let path = line.split(' ').nth(1).unwrap_or_default();
            let token = path.strip_prefix("/.well-known/acme-challenge/");
            let text = token.and_then(|token| challenges.answer(token));
            let (status, text) = match text {
                Some(text) => ("200 OK", text),
                None => ("404 Not Found", String::new()),
            };
            let length = text.len();
            let _ = write!(
                socket,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
            );
        }
    });
}

fn start(acme: &Acme) -> Receiver<News> {
    let (sender, told) = channel();
    acme.start(move |news| {
        let _ = sender.send(news);
    })
    .unwrap();
    told
}

/// The server is there a moment after it was started.
fn failure(told: &Receiver<News>, words: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match told.recv_timeout(left) {
            Ok(News::Failed(why)) if why.contains(words) => return,
            Ok(News::Failed(why)) if why.contains("refused") => {}
            other => panic!("{words}: {other:?}"),
        }
    }
}

fn renewal(told: &Receiver<News>) {
    let end = Instant::now() + LIMIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match told.recv_timeout(left) {
            Ok(News::Renewed) => return,
            Ok(News::Failed(why)) if why.contains("refused") => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_certificate_comes_and_is_renewed_and_a_server_that_forgot_us_is_told_again() {
    let (pebble, listener) = Pebble::new("renewed");
    let running = pebble.start(false, 9);
    let acme = Acme::open(&pebble.config()).unwrap();
    answer(listener, acme.challenges());
    let told = start(&acme);
    renewal(&told);
    let first = pebble.account();
    assert_eq!(first["account"]["contact"][0], "mailto:me@example.org");
    let text = fs::read_to_string(acme.file()).unwrap();
    assert!(text.contains("PRIVATE KEY") && text.contains("BEGIN CERTIFICATE"));
    renewal(&told);
    assert_eq!(pebble.account(), first, "the account is the same");
    assert_ne!(fs::read_to_string(acme.file()).unwrap(), text);
    drop(running);
    let _running = pebble.start(false, 9);
    renewal(&told);
    assert_ne!(pebble.account(), first);
}

#[test]
fn an_account_is_bound_to_a_customer_and_its_contact_changes() {
    let (pebble, listener) = Pebble::new("bound");
    let _running = pebble.start(true, 3_600);
    let key = pebble.folder.join("eab.key");
    fs::write(&key, KEY).unwrap();
    let with = |kid: &str, contact: &str| Config {
        eab_kid: kid.to_owned(),
        eab_key: match kid {
            "" => PathBuf::new(),
            _ => key.clone(),
        },
        contact: contact.to_owned(),
        ..pebble.config()
    };
    for (kid, words) in [("", "externalAccountRequired"), ("nobody", "unauthorized")] {
        let acme = Acme::open(&with(kid, "")).unwrap();
        failure(&start(&acme), words);
    }
    let acme = Acme::open(&with("customer", "me@example.org")).unwrap();
    answer(listener, acme.challenges());
    renewal(&start(&acme));
    assert_eq!(pebble.account()["account"]["binding"], "customer");
    // Another name is wanted, and another contact: by the same account.
    let config = Config {
        domains: "sfu.example.org,c.example.org".into(),
        ..with("customer", "you@example.org")
    };
    let before = pebble.account();
    let acme = Acme::open(&config).unwrap();
    // Nobody answers for it. The account was asked for first.
    failure(&start(&acme), "unauthorized");
    let after = pebble.account();
    assert_eq!(
        after["account"]["credentials"],
        before["account"]["credentials"]
    );
    assert_eq!(after["account"]["contact"][0], "mailto:you@example.org");
}

#[test]
fn whom_it_does_not_find_it_tells_why() {
    let (pebble, listener) = Pebble::new("nobody");
    let _running = pebble.start(false, 3_600);
    // Somebody else is there.
    answer(listener, Challenges::default());
    let acme = Acme::open(&pebble.config()).unwrap();
    failure(&start(&acme), "unauthorized");
    let text = fs::read_to_string(acme.file()).unwrap();
    assert!(text.contains("BEGIN CERTIFICATE"), "there is one to serve");
}
