// SPDX-License-Identifier: MPL-2.0

//! Certificates from a real ACME server, Let's Encrypt's `pebble`: got, served, kept and renewed, and no server stops for want of one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sfu_tests::load::Running;
use sfu_tests::server::Server;
use sfu_tests::{ndi, netns};

const NAME: &str = "sfu.example.org";
/// Where the ACME server asks.
const HTTP: u16 = 5002;
/// A certificate's life, in seconds: it is renewed after two thirds.
const LIFE: u64 = 24;
/// What its customers' accounts are bound by.
const EAB_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const LIMIT: Duration = Duration::from_secs(60);

fn until(what: &str, server: Option<&Server>, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        let log = server.map(Server::log_tail).unwrap_or_default();
        assert!(Instant::now() < end, "{what}\n{log}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn shell(folder: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euc", script])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An authority, and a certificate of it for the ACME server's own HTTPS.
const AUTHORITY: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -out ca.pem -keyout ca.key
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -out own.csr -keyout own.key
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >own.ext
openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile own.ext -out own.pem
"#;

/// `pebble`, and names that lead to this machine.
fn pebble(folder: &Path) -> [Running; 2] {
    shell(folder, AUTHORITY);
    let config = serde_json::json!({ "pebble": {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": folder.join("own.pem"),
        "privateKey": folder.join("own.key"),
        "httpPort": HTTP,
        "tlsPort": 5001,
        "certificateValidityPeriod": LIFE,
        "externalAccountBindingRequired": true,
        "externalAccountMACKeys": { "customer": EAB_KEY },
    }});
    fs::write(folder.join("eab.key"), EAB_KEY).unwrap();
    fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
    let log = |name: &str| fs::File::create(folder.join(name)).unwrap();
    let names = Command::new("pebble-challtestsrv")
        .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
        .args(["-dns01", "127.0.0.1:8053", "-management", "127.0.0.1:8055"])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
        .stdout(log("names.log"))
        .stderr(log("names.err"))
        .spawn()
        .expect("pebble-challtestsrv (package pebble)");
    let names = Running(names);
    let pebble = Command::new("pebble")
        .args(["-dnsserver", "127.0.0.1:8053", "-config"])
        .arg(folder.join("pebble.json"))
        .env("PEBBLE_VA_NOSLEEP", "1")
        // As in the open: some numbers are no longer good.
        .env("PEBBLE_WFE_NONCEREJECT", "20")
        .stdout(log("pebble.log"))
        .stderr(log("pebble.err"))
        .spawn()
        .expect("pebble");
    let pebble = Running(pebble);
    let ask = "curl -s --cacert ca.pem https://localhost:14000/dir || true";
    until("pebble answers", None, || {
        shell(folder, ask).contains("newOrder")
    });
    shell(
        folder,
        "curl -sk https://localhost:15000/roots/0 -o root.pem",
    );
    [names, pebble]
}

/// Whether a client that believes the ACME server's root alone is served.
fn is_believed(folder: &Path, port: &str) -> bool {
    let ask = format!(
        "curl -s --cacert root.pem --resolve {NAME}:{port}:127.0.0.1 https://{NAME}:{port}/healthz || true"
    );
    shell(folder, &ask) == "ok\n"
}

fn serial(folder: &Path, port: &str) -> String {
    let ask = format!(
        "openssl s_client -connect 127.0.0.1:{port} -servername {NAME} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    shell(folder, &ask)
}

#[test]
fn certificates_come_from_an_acme_server_and_are_renewed() {
    let test = "acme::certificates_come_from_an_acme_server_and_are_renewed";
    if !netns::isolated(test, &[]) {
        return;
    }
    let folder = ndi::repository().join("target/e2e-logs/acme");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let acme = pebble(&folder);
    let pipeline = format!(
        "shards=1 plain-listen=127.0.0.1:{HTTP} acme-domains={NAME} acme-contact=me@example.org \
         acme-directory=https://localhost:14000/dir acme-cache={0}/cache acme-ca={0}/ca.pem \
         acme-eab-kid=customer acme-eab-key={0}/eab.key",
        folder.display()
    );
    let server = Server::launch("acme", &pipeline).unwrap();
    let port = server.url("").rsplit_once(':').unwrap().1.to_owned();
    until("a certificate comes", Some(&server), || {
        is_believed(&folder, &port)
    });
    for (file, expected) in [
        ("cache", 0o700),
        ("cache/sfu.example.org.pem", 0o600),
        ("cache/account.json", 0o600),
    ] {
        let mode = fs::metadata(folder.join(file)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, expected, "{file}");
    }
    // In time, and without a break.
    let first = serial(&folder, &port);
    assert!(first.starts_with("serial="), "{first}");
    until("another one comes", Some(&server), || {
        serial(&folder, &port) != first
    });
    assert!(is_believed(&folder, &port), "{}", server.log_tail());
    // Where nobody gives any, a server begins with what it has, and goes on.
    drop(acme);
    let before = serial(&folder, &port);
    assert_eq!(server.stop(), Some(0));
    let server = Server::launch("acme_again", &pipeline).unwrap();
    let port = server.url("").rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(serial(&folder, &port), before);
    until("it is said", Some(&server), || {
        server
            .log()
            .contains("no certificate from the ACME server yet")
    });
    assert_eq!(server.get("/healthz").unwrap(), "ok\n");
    assert_eq!(server.stop(), Some(0));
}
