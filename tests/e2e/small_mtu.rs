// SPDX-License-Identifier: MPL-2.0

//! Paths that carry less than packets are large, as tunnels and mobile networks do: over namespaces, once with the small link
//! at the server and once behind a router that says so (ICMP).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sfu_tests::load;
use sfu_tests::netns;
use sfu_tests::server::Server;

/// What the small links carry: IPv6's least, and a little more in the middle of a way.
const NEAR: u32 = 1_280;
const FAR: u32 = 1_300;

/// A network of its own, alive as long as this is.
pub(crate) struct Namespace {
    child: Child,
    /// Its process as `/proc` names it: the test has process numbers of its own, `/proc` has not.
    in_proc: String,
}

impl Namespace {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "--kill-child", "--", "sh", "-c"])
            .arg(format!(
                "{}; ip link set lo up && read pid rest < /proc/self/stat && echo $pid && exec sleep 600",
                netns::SETTLED
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (package util-linux)");
        let out = child.stdout.take().expect("a pipe");
        let mut in_proc = String::new();
        let read = BufReader::new(out).read_line(&mut in_proc);
        assert!(
            read.is_ok_and(|octets| octets > 0),
            "the namespace is there"
        );
        let in_proc = in_proc.trim().to_owned();
        Self { child, in_proc }
    }

    /// A program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.in_proc, "-n", "--", program]);
        command
    }

    pub(crate) fn run(&self, line: &str) {
        shell(&format!("{} {line}", self.prefix()));
    }

    /// What a command begins with that runs inside.
    pub(crate) fn prefix(&self) -> String {
        format!("nsenter -t {} -n --", self.in_proc)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn shell(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().expect("a program"))
        .args(words)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
}

/// We, a router, and a viewer behind it. The first link carries `near` octets, the second one `far`.
pub(crate) fn network(near: u32, far: u32) -> (Namespace, Namespace) {
    let (router, viewer) = (Namespace::new(), Namespace::new());
    let (r, v) = (router.child.id(), viewer.child.id());
    shell("ip link add near type veth peer name near0");
    shell(&format!("ip link set near0 netns {r}"));
    router.run(&format!(
        "ip link add far type veth peer name far0 netns {v}"
    ));
    for (namespace, device, mtu, last) in [
        (None, "near", near, "1.1"),
        (Some(&router), "near0", near, "1.2"),
        (Some(&router), "far", far, "2.2"),
        (Some(&viewer), "far0", far, "2.3"),
    ] {
        let (net, host) = last.split_once('.').expect("two parts");
        for line in [
            format!("ip link set {device} mtu {mtu} up"),
            format!("ip addr add 10.99.{net}.{host}/24 dev {device}"),
            format!("ip -6 addr add fd99:{net}::{host}/64 dev {device} nodad"),
        ] {
            match namespace {
                Some(namespace) => namespace.run(&line),
                None => shell(&line),
            }
        }
    }
    router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    shell("ip route add default via 10.99.1.2");
    shell("ip -6 route add default via fd99:1::2");
    viewer.run("ip route add default via 10.99.2.2");
    viewer.run("ip -6 route add default via fd99:2::2");
    (router, viewer)
}

/// A viewer in its namespace, as `sfu-load` plays it, and how many datagrams were too large meanwhile.
pub(crate) fn watch(server: &Server, from: &Namespace, host: &str) -> (Value, u64) {
    let url = server.url("/whep/camera").replace("127.0.0.1", host);
    let too_large = || server.metric("sfu_datagrams_too_large_total").unwrap();
    let before = too_large();
    let output = Command::new("nsenter")
        .args(["-t", &from.in_proc, "-n", "--"])
        // It reads what it takes itself, by its process number.
        .args(["unshare", "--mount", "--mount-proc", "--"])
        .arg(load::tool().expect("./sfu build"))
        .args(["--whep", &url, "--viewers", "1"])
        .args(["--duration", "4s", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("nsenter (package util-linux)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen: Value = serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap();
    println!("{host}: {seen}");
    (seen, too_large() - before)
}

fn server(name: &str, encoder: &str) -> Server {
    let pipeline = format!(
        "udp-address=:: videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 \
         ! {encoder} ! sfusink name=sink stream=camera"
    );
    let server = Server::launch_at("[::]", name, &pipeline).expect("the server starts");
    server.wait_for_stream("camera").expect("it is live");
    server
}

/// Both links, each of them the small one once.
const LINKS: [(u32, u32); 2] = [(NEAR, 1_500), (1_500, FAR)];
const OURS: [&str; 2] = ["10.99.1.1", "[fd99:1::1]"];

#[test]
fn h264_in_large_packets_plays_over_small_paths() {
    let test = "small_mtu::h264_in_large_packets_plays_over_small_paths";
    if !netns::isolated(test, &[]) {
        return;
    }
    for (near, far) in LINKS {
        let (_router, viewer) = network(near, far);
        let server = server(
            "small_mtu_h264",
            "x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=30 \
             ! rtph264pay mtu=1400 config-interval=-1",
        );
        for host in OURS {
            let (seen, too_large) = watch(&server, &viewer, host);
            assert_eq!(seen["viewers_with_picture"], 1, "{near} {far} {host}");
            assert_eq!(seen["unrepaired_packets"], 0, "{near} {far} {host}");
            assert_eq!(seen["broken_frames"], 0, "{near} {far} {host}");
            assert_eq!(too_large, 0, "{near} {far} {host}");
        }
        drop(server);
        shell("ip link del near");
    }
}

#[test]
fn vp8_in_large_packets_leaves_in_fragments_and_is_told() {
    let test = "small_mtu::vp8_in_large_packets_leaves_in_fragments_and_is_told";
    if !netns::isolated(test, &[]) {
        return;
    }
    for (near, far) in LINKS {
        let (_router, viewer) = network(near, far);
        let server = server(
            "small_mtu_vp8",
            "vp8enc deadline=1 cpu-used=8 target-bitrate=1000000 keyframe-max-dist=30 \
             ! rtpvp8pay mtu=1400 picture-id-mode=15-bit",
        );
        for host in OURS {
            let (seen, too_large) = watch(&server, &viewer, host);
            assert!(too_large > 0, "{near} {far} {host}");
            assert_eq!(seen["unrepaired_packets"], 0, "{near} {far} {host}");
            let told = format!("mtu={}", near.min(far));
            let log = server.log();
            let mut lines = log.lines().filter(|l| l.contains("larger than the path"));
            assert!(lines.any(|l| l.contains(&told)), "{told} is told");
        }
        drop(server);
        shell("ip link del near");
    }
}
