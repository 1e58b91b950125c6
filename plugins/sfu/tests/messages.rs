// SPDX-License-Identifier: MPL-2.0
//! What is wrong is an error on the bus that names the element, the cause, and what to do: `not-negotiated` never stands
//! alone. A table of wrong formats, properties, files, addresses and what is not installed.

mod running;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use gst::prelude::*;
use running::Running;

/// What everybody has to know to read it is not what it says.
const BARE: &[&str] = &[
    "not-negotiated",
    "not-linked",
    "Internal data stream error",
    "Internal data flow error",
    "Could not initialize",
    "State change failed",
    "No such file or directory (os error 2)",
];

fn init() {
    running::init();
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap();
    for name in ["rtmpserver", "sfurtsp", "srtserver", "supervisor", "fmp4"] {
        let file = built.join(format!("libgst{name}.so"));
        gst::Plugin::load_file(file).expect("all plugins must be built: ./sfu build");
    }
}

/// The first error, or what is warned of: who says it, and what.
fn said(line: &str) -> (String, String) {
    let built = gst::parse::launch_full(line, None, gst::ParseFlags::FATAL_ERRORS);
    let running = match built {
        Ok(_) => Running::prepare(line),
        Err(error) => return ("the line".into(), error.message().to_owned()),
    };
    running.play();
    let message = running.next(&[gst::MessageType::Error, gst::MessageType::Warning]);
    let from = message.src().map(|src| src.name().to_string());
    let text = match message.view() {
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
        _ => unreachable!("only these are popped"),
    };
    (from.unwrap_or_default(), text)
}

/// A format that comes whatever is behind, which may say that it takes any.
fn format(caps: &str) -> String {
    let file = std::env::current_exe().unwrap();
    format!(
        "filesrc location={} ! typefind force-caps=\"{caps}\"",
        file.display()
    )
}

const VIDEO: &str = "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=64";

#[test]
fn whatever_is_wrong_is_said_with_its_cause_and_what_to_do() {
    init();
    let folder = std::env::temp_dir().join(format!("sfu-messages-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("file"), b"no PEM and no rules").unwrap();
    std::fs::write(folder.join("closed"), b"").unwrap();
    std::fs::set_permissions(
        folder.join("closed"),
        std::fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = tcp.local_addr().unwrap();
    let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = bound.local_addr().unwrap();
    // Who says it, and words of what is said: the cause, and what to do.
    let rows: Vec<(String, &str, Vec<&str>)> = vec![
        // Formats.
        (format!("{} ! sfusink name=x stream=m1", format("image/jpeg")), "x", vec!["video_0", "image/jpeg", "takes"]),
        (format!("{} ! sfusink name=x stream=m2", format("video/x-theora")), "x", vec!["video_0", "video/x-theora", "video/x-h264"]),
        (format!("{} ! x.audio_0 sfusink name=x stream=m3", format("audio/mpeg,mpegversion=4")), "x", vec!["audio_0", "audio/mpeg", "audio/x-opus"]),
        (format!("{} ! x.audio_0 sfusink name=x stream=m4", format("audio/x-opus,channels=6,channel-mapping-family=1")), "x", vec!["audio_0", "one or two channels"]),
        (format!("{} ! x.video_0 sfusink name=x stream=m5", format("application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG")), "x", vec!["encoding-name", "H264"]),
        (format!("{} ! simulcastenc name=x ! fakesink", format("video/x-h264")), "x", vec!["video/x-h264", "video/x-raw"]),
        // Settings.
        ("sfusink name=x stream=\"no name /\"".to_owned(), "x", vec!["stream", "no name"]),
        (format!("{VIDEO} ! sfusink name=x stream=m7 encoder=nosuchenc"), "simulcastenc", vec!["nosuchenc"]),
        (format!("{VIDEO} ! simulcastenc name=x encoder=nosuchenc ! fakesink"), "x", vec!["nosuchenc"]),
        (format!("{VIDEO} ! simulcastenc name=x encoder=opusenc ! fakesink"), "x", vec!["opusenc"]),
        ("sfusrc name=x stream=\"\"".to_owned(), "x", vec!["stream", "not valid"]),
        ("sfusrc name=x stream=m8 video-codecs=MPEG2".to_owned(), "x", vec!["MPEG2", "H264"]),
        ("sfuhlssink name=x stream=m9".to_owned(), "x", vec!["directory", "empty"]),
        (format!("sfuhlssink name=x stream=m10 directory={}", path("file")), "x", vec!["directory", "file"]),
        (format!("sfurecorder name=x stream=m11 directory={}", path("file")), "x", vec!["directory", "file"]),
        ("sfurecorder name=x stream=m12 directory=/tmp location-template=../{number}.mp4".to_owned(), "x", vec!["location-template"]),
        ("sfurecorder name=x stream=m13 directory=/proc/nowhere".to_owned(), "x", vec!["/proc/nowhere"]),
        ("supervisor name=x pipeline=\"nosuchelement ! fakesink\"".to_owned(), "x", vec!["nosuchelement", "gst-launch-1.0"]),
        ("supervisor name=x pipeline=\"filesrc location=/nowhere/at.all ! fakesink\"".to_owned(), "x", vec!["filesrc", "not found"]),
        ("srtserver name=x listen=127.0.0.1:0 pipeline=\"fakesrc ! fakesink\"".to_owned(), "x", vec!["appsrc name=caller"]),
        ("srtserver name=x listen=127.0.0.1:0 pipeline=\"appsrc name=caller ! nosuchelement\"".to_owned(), "x", vec!["nosuchelement"]),
        ("srtserver name=x listen=127.0.0.1:0 passphrase=short pipeline=\"appsrc name=caller ! fakesink\"".to_owned(), "x", vec!["passphrase", "10"]),
        // Addresses.
        (format!("sfusignaller name=x listen={held} udp-port=0"), "x", vec!["in use", "listen"]),
        ("sfusignaller name=x listen=nowhere udp-port=0".to_owned(), "x", vec!["listen", "nowhere", "PORT"]),
        ("sfusignaller name=x listen=192.0.2.1:8080 udp-port=0".to_owned(), "x", vec!["192.0.2.1:8080", "listen"]),
        (format!("sfusignaller name=x listen=127.0.0.1:0 udp-address=127.0.0.1 udp-port={} shards=1", udp.port()), "x", vec!["in use", "udp-port"]),
        (format!("rtmpserversrc name=x listen={held}"), "x", vec!["in use", "listen"]),
        ("rtmpserversrc name=x listen=nowhere".to_owned(), "x", vec!["nowhere", "ADDRESS:PORT"]),
        (format!("srtserver name=x listen={udp} pipeline=\"appsrc name=caller ! fakesink\""), "x", vec!["listen", "free"]),
        (format!("sfurtspserver name=x listen={held}"), "x", vec!["in use", "listen"]),
        // Files.
        ("sfusignaller name=x listen=127.0.0.1:0 udp-port=0 certificate=/nowhere/c.pem private-key=/nowhere/k.pem".to_owned(), "x", vec!["/nowhere/c.pem", "certificate"]),
        (format!("sfusignaller name=x listen=127.0.0.1:0 udp-port=0 certificate={0} private-key={0}", path("file")), "x", vec!["file", "certificate"]),
        (format!("sfusignaller name=x listen=127.0.0.1:0 udp-port=0 certificate={}", path("file")), "x", vec!["private-key"]),
        ("sfusignaller name=x listen=127.0.0.1:0 udp-port=0 access=/nowhere/access".to_owned(), "x", vec!["/nowhere/access", "access"]),
        (format!("sfusignaller name=x listen=127.0.0.1:0 udp-port=0 access={}", path("file")), "x", vec!["access", "file"]),
        ("rtmpserversrc name=x listen=127.0.0.1:0 certificate=/nowhere/c.pem private-key=/nowhere/k.pem".to_owned(), "x", vec!["/nowhere/c.pem", "certificate"]),
        ("rtmpserversrc name=x listen=127.0.0.1:0 access=/nowhere/access".to_owned(), "x", vec!["/nowhere/access"]),
        ("srtserver name=x listen=127.0.0.1:0 passphrases-file=/nowhere/p pipeline=\"appsrc name=caller ! fakesink\"".to_owned(), "x", vec!["/nowhere/p"]),
        ("sfurtspserver name=x listen=127.0.0.1:0 access=/nowhere/access".to_owned(), "x", vec!["/nowhere/access"]),
        ("peerwatch name=x element=nobody fakesrc ! fakesink".to_owned(), "x", vec!["nobody", "element"]),
    ];
    let mut wrong = Vec::new();
    for (line, who, words) in &rows {
        let (from, text) = said(line);
        println!("{line}\n    {from}: {text}");
        let lacks: Vec<_> = words
            .iter()
            .filter(|word| !text.to_lowercase().contains(&word.to_lowercase()))
            .collect();
        let bare: Vec<_> = BARE
            .iter()
            .filter(|bare| text.contains(**bare) && text.len() < bare.len() + 20)
            .collect();
        if !from.starts_with(who) || !lacks.is_empty() || !bare.is_empty() {
            wrong.push(format!(
                "{line}\n    {from}: {text}\n    lacks {lacks:?}, bare {bare:?}"
            ));
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    told(&wrong, rows.len());
}

/// Whatever stands between a source and the element that refuses its format, the element says so.
#[test]
fn what_stands_between_keeps_no_cause_back() {
    init();
    let mut wrong = Vec::new();
    let ends = [
        (
            "image/jpeg",
            "sfusink name=x stream=",
            &["video_0", "image/jpeg", "takes"],
        ),
        (
            "audio/mpeg,mpegversion=4",
            "x.audio_0 sfusink name=x stream=",
            &["audio_0", "audio/mpeg", "takes"],
        ),
        (
            "application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG",
            "x.video_0 sfusink name=x stream=",
            &["video_0", "encoding-name", "H264"],
        ),
        (
            "video/x-h264",
            "simulcastenc name=x ! fakesink",
            &["sink", "video/x-h264", "video/x-raw"],
        ),
    ];
    let between = [
        "",
        "queue",
        "identity",
        "queue ! identity",
        "tee ! queue",
        "identity ! queue ! valve",
        "queue2",
        "funnel",
        "input-selector ! queue",
    ];
    for (n, elements) in between.iter().enumerate() {
        for (m, (caps, end, words)) in ends.iter().enumerate() {
            let stream = if end.ends_with('=') {
                format!("between{n}x{m}")
            } else {
                String::new()
            };
            let link = if elements.is_empty() {
                String::new()
            } else {
                format!("! {elements} ")
            };
            let line = format!("{} {link}! {end}{stream}", format(caps));
            let (from, text) = said(&line);
            println!("{line}\n    {from}: {text}");
            if !from.starts_with('x') || words.iter().any(|word| !text.contains(word)) {
                wrong.push(format!("{line}\n    {from}: {text}"));
            }
        }
    }
    told(&wrong, between.len() * ends.len());
}

fn told(wrong: &[String], rows: usize) {
    assert!(
        wrong.is_empty(),
        "{} of {rows}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
