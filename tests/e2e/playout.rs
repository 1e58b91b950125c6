// SPDX-License-Identifier: MPL-2.0

//! `pipelines/playout`: films with several languages, one or none follow each other, and what can't be played is named.

use std::process::Command;

use sfu_tests::ndi;
use sfu_tests::server::Server;

use crate::srt_in::languages;

#[test]
fn films_with_any_sound_follow_each_other_and_what_is_none_is_named() {
    let folder = ndi::repository().join("target/e2e-logs/playout");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let bad = folder.join("a.mp4");
    std::fs::write(&bad, "no film at all".repeat(300)).unwrap();
    let both = "-map 1:a -map 2:a -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu";
    for (film, tracks) in [
        ("b", both),
        ("c", "-map 1:a -metadata:s:a:0 language=eng"),
        ("d", ""),
    ] {
        let sources = "-nostdin -loglevel error -y -f lavfi -i testsrc2=size=320x180:rate=25 -f lavfi -i sine=440 -f lavfi -i sine=880";
        let codecs = "-map 0:v -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -t 4";
        let made = Command::new("ffmpeg")
            .args(sources.split_whitespace())
            .args(codecs.split_whitespace())
            .args(tracks.split_whitespace())
            .arg(folder.join(format!("{film}.mp4")))
            .status();
        assert!(made.unwrap().success(), "ffmpeg makes no {film}");
    }
    let dir = format!("DIR={}", folder.display());
    let keys = ["STREAM=films", "TRACKS=2", "LAYERS=180:300k", &dir];
    let server = Server::pipeline("playout", "playout", &keys).unwrap();
    // All of them, and the first one again.
    for expected in [&["en", "de"][..], &["en"], &[], &["en", "de"]] {
        let plays = || {
            let live = server.json("/api/streams/films")?["live"] == true;
            Ok((live && languages(&server, "films") == expected).then_some(()))
        };
        server
            .wait_for(&format!("sound in {expected:?}"), plays)
            .unwrap();
    }
    let log = server.log();
    assert!(
        log.contains(&format!("failed at {}: ", bad.display())),
        "{log}"
    );
    // GStreamer's own log has it; who runs it is not warned.
    let warns = |line: &str| line.starts_with("WARNING") && line.contains("Delayed linking");
    assert!(!log.lines().any(warns), "{log}");
    drop(server);
    let _ = std::fs::remove_dir_all(&folder);
}
