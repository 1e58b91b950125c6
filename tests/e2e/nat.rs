// SPDX-License-Identifier: MPL-2.0

//! A server behind a NAT, and a viewer behind another one, over namespaces: addresses are translated both ways, and the
//! server's own address is unknown on the other side.

use std::process::Stdio;
use std::time::{Duration, Instant};

use sfu_tests::server::Server;
use sfu_tests::{browser, ndi, netns};

use crate::small_mtu::{Namespace, network, shell, watch};

const ENCODER: &str = "x264enc tune=zerolatency speed-preset=ultrafast bitrate=1000 key-int-max=30 \
    ! rtph264pay mtu=1100 config-interval=-1";

/// The router has one more address outside, and what comes to it goes to us.
fn translate(router: &Namespace, outside: &str, rules: &[String]) {
    router.run(&format!("ip addr add {outside}/24 dev far"));
    // No way from outside to the address inside but this.
    router.run("nft add table ip nat");
    router.run("nft add chain ip nat before { type nat hook prerouting priority -100 ; }");
    router.run("nft add chain ip nat after { type nat hook postrouting priority 100 ; }");
    router.run("nft add rule ip nat after oifname near0 masquerade");
    router.run(&format!(
        "nft add rule ip nat after oifname far ip saddr 10.99.1.1 snat to {outside}"
    ));
    for rule in rules {
        router.run(&format!(
            "nft add rule ip nat before ip daddr {outside} {rule}"
        ));
    }
}

fn line(announce: &str) -> String {
    format!(
        "announce-address={announce} shards=1 videotestsrc is-live=true \
         ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 ! {ENCODER} ! sfusink name=sink stream=camera"
    )
}

fn plays(test: &str, name: &str, announce: &str, rules: impl Fn(u16) -> Vec<String>) {
    if !netns::isolated(test, &[]) {
        return;
    }
    let (router, viewer) = network(1_500, 1_500);
    viewer.run("ip route del default via 10.99.2.2");
    let server = Server::launch_at("0.0.0.0", name, &line(announce)).expect("the server starts");
    server.wait_for_stream("camera").expect("it is live");
    translate(&router, "10.99.2.7", &rules(server.udp_port()));
    let (seen, _) = watch(&server, &viewer, "10.99.2.7");
    assert_eq!(seen["viewers_with_picture"], 1, "{}", server.log());
    drop(server);
    shell("ip link del near");
}

#[test]
fn behind_a_nat_of_one_to_one_viewers_play() {
    let test = "nat::behind_a_nat_of_one_to_one_viewers_play";
    plays(test, "nat", "10.99.2.7", |_| {
        vec!["dnat to 10.99.1.1".into()]
    });
}

#[test]
fn behind_mapped_ports_viewers_play() {
    let test = "nat::behind_mapped_ports_viewers_play";
    plays(test, "nat_ports", "10.99.2.7:9000", |udp| {
        vec![
            "ip protocol tcp dnat to 10.99.1.1".into(),
            format!("udp dport 9000 dnat to 10.99.1.1:{udp}"),
        ]
    });
}

/// What a page in Chromium that is behind a NAT publishes, and sees of it.
#[test]
fn chromium_behind_a_nat_publishes_and_plays() {
    let test = "nat::chromium_behind_a_nat_publishes_and_plays";
    if !netns::isolated(test, &[]) {
        return;
    }
    let (router, viewer) = network(1_500, 1_500);
    viewer.run("ip route del default via 10.99.2.2");
    translate(&router, "10.99.2.7", &["dnat to 10.99.1.1".into()]);
    // Who publishes is on another machine.
    let rules = ndi::repository().join("target/e2e-logs/nat_chromium.access");
    std::fs::create_dir_all(rules.parent().unwrap()).unwrap();
    std::fs::write(&rules, "anyone play publish\n").unwrap();
    let rules = rules.display();
    let pipeline = format!("announce-address=10.99.2.7 ice-tcp=false shards=1 access={rules}");
    let server =
        Server::launch_at("0.0.0.0", "nat_chromium", &pipeline).expect("the server starts");
    let url = server.url("").replace("127.0.0.1", "10.99.2.7");
    let picture = browser::screenshot("nat_chromium").unwrap();
    let picture = picture.to_str().unwrap();
    let arguments = ["--url", &url, "--seconds", "5", "--settle", "3"];
    let arguments = [&arguments[..], &["--screenshot", picture]].concat();
    let seen = browser::run_in(viewer.command("node"), "far.mjs", &arguments).unwrap();
    println!("{seen}");
    assert_eq!(seen["by"], "udp");
    assert!(seen["frames"].as_u64().unwrap() > 60, "{}", server.log());
    drop(server);
    shell("ip link del near");
}

/// coturn, outside of the NAT, says which address the server has there.
#[test]
fn a_stun_server_tells_what_to_announce() {
    let test = "nat::a_stun_server_tells_what_to_announce";
    if !netns::isolated(test, &[]) {
        return;
    }
    let (router, viewer) = network(1_500, 1_500);
    viewer.run("ip route del default via 10.99.2.2");
    translate(&router, "10.99.2.7", &["dnat to 10.99.1.1".into()]);
    let mut stun = viewer.command("turnserver");
    stun.args(["--stun-only", "--no-cli", "--listening-ip=10.99.2.3"]);
    stun.args(["--log-file=stdout", "--pidfile=/dev/null", "-n"]);
    let mut stun = stun.stdout(Stdio::null()).spawn().expect("coturn");
    let server = Server::launch_at("0.0.0.0", "nat_stun", &line("stun:10.99.2.3:3478"));
    let server = server.expect("the server starts");
    server.wait_for_stream("camera").expect("it is live");
    let (seen, _) = watch(&server, &viewer, "10.99.2.7");
    let _ = stun.kill();
    let _ = stun.wait();
    assert_eq!(seen["viewers_with_picture"], 1, "{}", server.log());
    drop(server);
    // Without a server that answers it begins all the same, and tells its own addresses.
    let begun = Instant::now();
    let server = Server::launch_at("0.0.0.0", "nat_no_stun", &line("stun:10.99.2.3:3478"));
    let server = server.expect("the server starts");
    assert!(begun.elapsed() < Duration::from_secs(10));
    server.wait_for_stream("camera").expect("it is live");
    let (seen, _) = watch(&server, &viewer, "10.99.2.7");
    assert_eq!(seen["viewers_with_picture"], 0);
    assert!(server.log().contains("no address was found"));
    drop(server);
    shell("ip link del near");
}
