// SPDX-License-Identifier: MPL-2.0

//! A server behind a NAT, and a viewer behind another one, over namespaces: addresses are translated both ways, and the
//! server's own address is unknown on the other side.

use std::time::Duration;

use sfu_tests::netns;
use sfu_tests::server::Server;

use crate::small_mtu::{Namespace, network, shell, watch};

const LIMIT: Duration = Duration::from_secs(90);
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

fn plays(test: &str, name: &str, announce: &str, rules: impl Fn(u16) -> Vec<String>) {
    if !netns::isolated(test, &[], LIMIT) {
        return;
    }
    let (router, viewer) = network(1_500, 1_500);
    viewer.run("ip route del default via 10.99.2.2");
    let pipeline = format!(
        "announce-address={announce} shards=1 videotestsrc is-live=true \
         ! video/x-raw,width=640,height=360,framerate=30/1 ! {ENCODER} ! sfusink name=sink stream=camera"
    );
    let server = Server::launch_at("0.0.0.0", name, &pipeline).expect("the server starts");
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
