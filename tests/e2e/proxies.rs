// SPDX-License-Identifier: MPL-2.0

//! The recipes in `deploy/`, with real proxies before the server: who is let in by what, whose an address is, and that media's
//! signalling and event streams get through as they should.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sfu_tests::server::{Server, free_ports};
use sfu_tests::{browser, ndi, netns};

const NAME: &str = "sfu.example.org";
const KEY: &str = "a-key-that-nobody-guesses";
/// Who is let see the figures by his address alone.
const FRIEND: &str = "127.0.0.9";

/// A proxy, ended when dropped.
struct Proxy {
    child: Child,
    port: u16,
    certificate: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// What `curl` says: a status, and what came.
    fn ask(&self, path: &str, more: &[&str]) -> (u16, String) {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "10",
                "-w",
                "\n%{http_code}",
                "--resolve",
            ])
            .arg(format!("{NAME}:{}:127.0.0.1", self.port))
            .arg("--cacert")
            .arg(&self.certificate)
            .args(more)
            .arg(format!("https://{NAME}:{}{path}", self.port))
            .output()
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        let errors = String::from_utf8_lossy(&output.stderr);
        (status.parse().unwrap_or(0), format!("{body}{errors}"))
    }
}

fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=test", "-addext"])
        .arg(format!("subjectAltName=DNS:{NAME},DNS:localhost"))
        .args(["-out".as_ref(), certificate.as_os_str()])
        .args(["-keyout".as_ref(), key.as_os_str()])
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "openssl");
    (certificate, key)
}

/// The recipe with this test's ports and certificate.
fn recipe(file: &str, changes: &[(&str, &str)]) -> String {
    let path = ndi::repository().join("deploy").join(file);
    let text = fs::read_to_string(path).unwrap();
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{file} has no {from}");
        text.replace(from, to)
    })
}

fn nginx(folder: &Path, server: u16) -> Proxy {
    let (certificate, key) = certificate(folder);
    let (port, _) = free_ports().unwrap();
    let site = recipe(
        "nginx.conf",
        &[
            ("listen 80;", "listen 127.0.0.1:80;"),
            ("listen 443 ", &format!("listen 127.0.0.1:{port} ")),
            (
                "server_name sfu.example.org;",
                "server_name sfu.example.org localhost;",
            ),
            ("127.0.0.1:8080", &format!("127.0.0.1:{server}")),
            (
                "/etc/letsencrypt/live/sfu.example.org/fullchain.pem",
                certificate.to_str().unwrap(),
            ),
            (
                "/etc/letsencrypt/live/sfu.example.org/privkey.pem",
                key.to_str().unwrap(),
            ),
        ],
    );
    let folder = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .concat();
    let all = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n{paths}{site}}}\n"
    );
    let path = format!("{folder}/nginx.conf");
    fs::write(&path, all).unwrap();
    let child = Command::new("nginx")
        .args(["-c", &path, "-e", "stderr"])
        .spawn()
        .expect("nginx");
    Proxy {
        child,
        port,
        certificate,
    }
}

fn caddy(folder: &Path, server: u16) -> Proxy {
    let (certificate, key) = certificate(folder);
    let (port, _) = free_ports().unwrap();
    let tls = format!(
        "sfu.example.org:{port}, localhost:{port} {{\n\ttls {} {}\n",
        certificate.display(),
        key.display()
    );
    let site = recipe(
        "Caddyfile",
        &[
            ("\nsfu.example.org {\n", &format!("\n{tls}")),
            ("127.0.0.1:8080", &format!("127.0.0.1:{server}")),
        ],
    );
    let path = folder.join("Caddyfile");
    // No port 80, and nothing that is the machine's: without `skip_install_trust` Caddy makes an authority of its own one that
    // the machine trusts.
    fs::write(
        &path,
        format!("{{\n\tadmin off\n\tauto_https off\n\tskip_install_trust\n}}\n{site}"),
    )
    .unwrap();
    let child = Command::new("caddy")
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&path)
        .env("HOME", folder)
        .env("XDG_DATA_HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .stderr(Stdio::null())
        .spawn()
        .expect("caddy");
    Proxy {
        child,
        port,
        certificate,
    }
}

/// Who is let in through it.
fn doors(proxy: &Proxy) {
    let bearer = format!("Authorization: Bearer {KEY}");
    let sdp = [
        "-X",
        "POST",
        "-H",
        "Content-Type: application/sdp",
        "-d",
        "v=0",
    ];
    let with = |more: &[&'static str]| [&sdp[..], more].concat();
    let metrics = "/metrics";
    for (path, more, status) in [
        ("/healthz", vec![], 200),
        ("/cam1", vec![], 200),
        // Through a proxy nobody is this machine, whatever he says.
        (metrics, vec![], 401),
        (
            metrics,
            vec!["-H", "Authorization: Bearer nonsense-nonsense"],
            401,
        ),
        (metrics, vec!["-H", &bearer], 200),
        (
            metrics,
            vec!["-H", &bearer, "-H", "Origin: https://evil.example"],
            403,
        ),
        // An address is what the proxy says, and not what the client says.
        (metrics, vec!["--interface", FRIEND], 200),
        (metrics, vec!["-H", "X-Forwarded-For: 127.0.0.9"], 401),
        (metrics, vec!["-H", "Forwarded: for=127.0.0.9"], 401),
        (metrics, vec!["-H", "X-Real-IP: 127.0.0.9"], 401),
        (metrics, vec!["-H", "X-Forwarded-Host: localhost"], 401),
        (
            metrics,
            vec![
                "-H",
                "X-Forwarded-For: 127.0.0.1",
                "-H",
                "Forwarded: for=127.0.0.1",
            ],
            401,
        ),
        ("/whip/cam1?takeover=1", with(&[]), 401),
        (
            "/whip/cam1",
            with(&["-H", "Origin: https://evil.example"]),
            403,
        ),
        (
            "/whep/cam1",
            with(&["-H", "Origin: https://evil.example"]),
            404,
        ),
        ("/recordings/files/cam1/a.mp4", vec![], 401),
        (
            "/session/00000000000000000000000000000000",
            vec!["-X", "DELETE"],
            404,
        ),
        // A WebSocket, which stays until curl gives up.
        (
            "/gst-webrtc",
            vec![
                "--http1.1",
                "--max-time",
                "2",
                "-H",
                "Connection: Upgrade",
                "-H",
                "Upgrade: websocket",
                "-H",
                "Sec-WebSocket-Version: 13",
                "-H",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ],
            101,
        ),
        ("/hls/cam1/index.m3u8", vec![], 200),
        ("/hls/cam1/index.m3u8", vec!["--http1.1"], 200),
    ] {
        let (found, answer) = proxy.ask(path, &more);
        assert_eq!(found, status, "{path} {more:?}: {answer}");
    }
    let (_, answer) = proxy.ask("/whep/cam1", &["-X", "OPTIONS", "-i"]);
    assert!(
        answer
            .to_lowercase()
            .contains("accept-post: application/sdp"),
        "{answer}"
    );
    let (_, list) = proxy.ask("/hls/cam1/index.m3u8", &[]);
    assert!(list.starts_with("#EXTM3U"), "{list}");
}

fn works_through(test: &str, name: &str, start: fn(&Path, u16) -> Proxy) {
    if !netns::isolated(test, &[]) {
        return;
    }
    let folder = ndi::repository().join("target/e2e-logs").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("hls/cam1")).unwrap();
    fs::write(folder.join("hls/cam1/index.m3u8"), "#EXTM3U\nv0.m3u8\n").unwrap();
    fs::write(folder.join("key"), KEY).unwrap();
    let rules = format!("anyone play publish\nfrom {FRIEND} metrics\nkey key metrics\n");
    fs::write(folder.join("access"), rules).unwrap();
    let pipeline = format!(
        "shards=1 trusted-proxies=127.0.0.1 server-names={NAME},localhost access={0}/access hls-directory={0}/hls",
        folder.display()
    );
    let server = Server::launch(name, &pipeline).expect("the server starts");
    let port = server.url("").rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = start(&folder, port);
    let end = Instant::now() + Duration::from_secs(20);
    while proxy.ask("/healthz", &[]).0 != 200 {
        assert!(Instant::now() < end, "the proxy does not answer");
        std::thread::sleep(Duration::from_millis(100));
    }
    doors(&proxy);
    // A page that publishes, plays, trickles, and listens to events.
    let url = format!("https://localhost:{}", proxy.port);
    let picture = browser::screenshot(name).unwrap();
    let arguments = [
        "--url",
        &url,
        "--seconds",
        "4",
        "--settle",
        "2",
        "--screenshot",
    ];
    let arguments = [&arguments[..], &[picture.to_str().unwrap()]].concat();
    let seen = browser::run("far.mjs", &arguments).unwrap();
    println!("{seen}");
    assert!(seen["frames"].as_u64().unwrap() > 40, "{}", server.log());
    assert!(
        seen["told"].as_u64().unwrap() > 0,
        "events come at once: {seen}"
    );
    // What the page ended by DELETE is gone.
    let bearer = format!("Authorization: Bearer {KEY}");
    let gone = server.wait_for("the page's sessions to be gone", || {
        let (_, figures) = proxy.ask("/metrics", &["-H", &bearer]);
        Ok(figures.contains("\nsfu_sessions 0\n").then_some(()))
    });
    gone.unwrap();
}

#[test]
fn nginx_as_in_deploy() {
    works_through("proxies::nginx_as_in_deploy", "proxy_nginx", nginx);
}

#[test]
fn caddy_as_in_deploy() {
    works_through("proxies::caddy_as_in_deploy", "proxy_caddy", caddy);
}
