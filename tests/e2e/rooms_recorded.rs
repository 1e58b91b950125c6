// SPDX-License-Identifier: MPL-2.0

//! A room of thirty with sound alone, all recorded: a file for each, and what was said at the same time is at the same time in all.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sfu_tests::server::Server;
use sfu_tests::{load, ndi};

const PEOPLE: usize = 30;
/// How long all are there.
const TALK: f64 = 20.0;
/// Of sound each 20 ms.
const PACKETS: f64 = 50.0;
/// What the load tool writes into each packet: this, and when it was sent (CLOCK_MONOTONIC) in parts of seven bits, the lowest first.
const MAGIC: [u8; 4] = [0xa5, 0x5a, 0xc3, 0x3c];

/// When the sound in this packet was sent, in ms.
fn sent_at(packet: &[u8]) -> f64 {
    let at = packet.windows(4).position(|w| w == MAGIC).expect("a stamp");
    let parts = packet[at + 4..at + 13].iter().enumerate();
    let ns = parts.fold(0, |ns, (n, part)| ns | u64::from(part & 0x7f) << (7 * n));
    ns as f64 / 1e6
}

/// Of each packet of a file when it is played (ms since the file's beginning), and when it was sent.
fn packets(file: &Path) -> Vec<(f64, f64)> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_entries"])
        .args(["packet=pts_time,pos,size"])
        .arg(file)
        .output()
        .expect("ffprobe must be installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let probed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let octets = std::fs::read(file).unwrap();
    let number = |packet: &Value, what: &str| -> f64 {
        let text = packet[what].as_str().expect("ffprobe tells it");
        text.parse().unwrap()
    };
    let packets = probed["packets"].as_array().unwrap().iter();
    let packets = packets.map(|packet| {
        let at = number(packet, "pos") as usize;
        let octets = &octets[at..at + number(packet, "size") as usize];
        (1_000.0 * number(packet, "pts_time"), sent_at(octets))
    });
    packets.collect()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The recordings of the room, once all are finished.
fn recordings(server: &Server) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let all = server.json("/api/recordings").unwrap();
        let all = all["recordings"].as_array().unwrap().clone();
        if all.iter().all(|r| r["state"] == "finished") || Instant::now() > end {
            return all;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_voice_room_of_thirty_is_thirty_files_in_sync() {
    let folder: PathBuf = ndi::repository().join("target/e2e-logs/rooms_recorded");
    let _ = std::fs::remove_dir_all(&folder);
    let dir = folder.display();
    let line = format!(
        "api-keys=key:secret last-n=9 recordings-directory={dir} sfurecorder room=voices directory={dir}"
    );
    let server = Server::launch("rooms_recorded", &line).unwrap();
    let (url, people) = (server.url(""), PEOPLE.to_string());
    let mut all = vec!["--room", &url, "--api-key", "key:secret"];
    all.extend(["--room-name", "voices", "--sound-only", "--ramp", "10/s"]);
    all.extend([
        "--publishers",
        &people,
        "--viewers",
        "0",
        "--duration",
        "20s",
    ]);
    let seen = load::run(&all).unwrap();
    println!("{seen}");
    assert_eq!(
        (&seen["status"], &seen["receiving"]),
        (&0.into(), &PEOPLE.into())
    );
    let recordings = recordings(&server);
    let mut identities: Vec<_> = recordings
        .iter()
        .map(|r| r["identity"].to_string())
        .collect();
    identities.sort();
    identities.dedup();
    assert_eq!((recordings.len(), identities.len()), (PEOPLE, PEOPLE));
    // By each file's clock, when what was sent at the same moment of the machine's clock is heard.
    let mut heard = Vec::new();
    for recording in &recordings {
        let name = recording["file"].as_str().unwrap();
        assert_eq!(
            (&recording["state"], &recording["room"]),
            (&"finished".into(), &"voices".into())
        );
        let packets = packets(&folder.join(name));
        let least = 0.95 * TALK * PACKETS;
        assert!(
            packets.len() as f64 > least,
            "{name}: {} packets",
            packets.len()
        );
        let start = recording["start_ms"].as_f64().unwrap();
        let offsets: Vec<_> = packets
            .iter()
            .map(|(pts, sent)| start + pts - sent)
            .collect();
        // It goes on at the same speed to its end.
        let (first, last) = offsets.split_at(offsets.len() / 2);
        let drift = median(last.to_vec()) - median(first.to_vec());
        assert!(drift.abs() < 20.0, "{name} drifts by {drift} ms");
        heard.push(median(offsets));
    }
    heard.sort_by(f64::total_cmp);
    let apart = heard[heard.len() - 1] - heard[0];
    println!("{apart:.1} ms apart");
    // What the way to the server differs by, on a busy machine; lips and voice may be some 100 ms apart.
    assert!(apart < 60.0, "{heard:?}");
    drop(server);
    let _ = std::fs::remove_dir_all(&folder);
}
