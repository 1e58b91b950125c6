// SPDX-License-Identifier: MPL-2.0

//! Hundreds of viewers at once: each has a picture, and no packet stays lost.

use sfu_tests::load;
use sfu_tests::server::Server;

fn play(server: &Server, stream: &str, publish: bool, arguments: &[&str]) {
    let whep = server.url(&format!("/whep/{stream}"));
    let whip = server.url(&format!("/whip/{stream}"));
    let pid = server.pid().to_string();
    let mut all = vec!["--whep", &whep, "--pid", &pid];
    if publish {
        all.extend(["--whip", &whip]);
    }
    all.extend(arguments);
    let seen = load::run(&all).unwrap();
    println!("{seen}");
    assert_eq!(seen["status"], 0);
    assert_eq!(seen["viewers_with_picture"], seen["viewers"]);
    assert_eq!(seen["unrepaired_packets"], 0);
    assert_eq!(seen["broken_frames"], 0);
    assert!(seen["packets_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn three_hundred_viewers_have_a_picture_with_and_without_loss() {
    let server = Server::pipeline("load", "sfu", &[]).unwrap();
    let viewers = ["--viewers", "300", "--duration", "10s"];
    play(&server, "clean", true, &viewers);
    let lossy = ["--viewers", "300", "--duration", "10s", "--loss", "2%"];
    play(&server, "lossy", true, &lossy);
}

#[test]
fn fifty_viewers_watch_the_test_picture() {
    let keys = ["STREAM=demo", "LAYERS=360:700k", "WIDTH=640", "HEIGHT=360"];
    let server = Server::pipeline("load_test_picture", "test-to-webrtc", &keys).unwrap();
    server.wait_for_stream("demo").unwrap();
    play(
        &server,
        "demo",
        false,
        &["--viewers", "50", "--duration", "10s"],
    );
}

#[test]
fn a_room_of_publishers_and_listeners() {
    let server = Server::pipeline("load_room", "rooms", &["API_KEYS=key:secret"]).unwrap();
    let (url, pid) = (server.url(""), server.pid().to_string());
    let mut all = vec!["--room", &url, "--api-key", "key:secret", "--pid", &pid];
    all.extend([
        "--publishers",
        "3",
        "--viewers",
        "4",
        "--layers",
        "3",
        "--audio",
    ]);
    all.extend(["--bitrate", "600k", "--duration", "3s"]);
    let seen = load::run(&all).unwrap();
    println!("{seen}");
    assert_eq!(seen["status"], 0);
    assert_eq!(
        (&seen["participants"], &seen["receiving"]),
        (&7.into(), &7.into())
    );
    // A picture and a sound of each of the others.
    assert_eq!(seen["streams"], 3 * 4 + 4 * 6);
    assert!(seen["us_per_packet"].as_f64().unwrap() > 0.0);
    let packets = seen["packets_per_second"].as_f64().unwrap();
    all.extend(["--pictures", "small", "--room-name", "small"]);
    let small = load::run(&all).unwrap();
    println!("{small}");
    assert_eq!(
        (&small["status"], &small["receiving"]),
        (&0.into(), &7.into())
    );
    assert!(small["packets_per_second"].as_f64().unwrap() < 0.9 * packets);
}
