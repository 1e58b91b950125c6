// SPDX-License-Identifier: MPL-2.0

//! `rtmpserversrc` against GStreamer's own publisher, `rtmp2sink`, and against clients that misbehave.

mod client;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{ask_to_publish, field, frame, header, number, send, string};
use gst::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
struct Seen {
    dts: gst::ClockTime,
    pts: gst::ClockTime,
    discontinuous: bool,
    keyframe: bool,
}

/// A running server, and what came out of its pads.
struct Server {
    pipeline: gst::Pipeline,
    source: gst::Element,
    seen: [Arc<Mutex<Vec<Seen>>>; 2],
}

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstrtmpserver::plugin_register_static().unwrap();
    });
}

fn record(pipeline: &gst::Pipeline, sink: &str) -> Arc<Mutex<Vec<Seen>>> {
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    let list = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            list.lock().unwrap().push(Seen {
                dts: buffer.dts_or_pts().unwrap_or_default(),
                pts: buffer.pts().unwrap_or_default(),
                discontinuous: buffer.flags().contains(gst::BufferFlags::DISCONT),
                keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            });
        }
        gst::PadProbeReturn::Ok
    });
    seen
}

impl Server {
    fn start(properties: &str) -> Self {
        Self::with(properties, "identity", "identity")
    }

    /// With these elements behind the pads.
    fn with(properties: &str, video: &str, audio: &str) -> Self {
        init();
        let line = format!(
            "rtmpserversrc name=in listen=127.0.0.1:0 {properties} \
             in.video ! {video} ! fakesink name=video async=false sync=false \
             in.audio ! {audio} ! fakesink name=audio async=false sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("in").unwrap();
        let seen = ["video", "audio"].map(|sink| record(&pipeline, sink));
        pipeline.set_state(gst::State::Playing).unwrap();
        Self {
            pipeline,
            source,
            seen,
        }
    }

    fn port(&self) -> u16 {
        self.source.property::<u32>("port").try_into().unwrap()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port())).unwrap()
    }

    fn stat(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.source.property("stats");
        stats.get(name).unwrap()
    }

    fn count(&self, stream: usize) -> usize {
        self.seen[stream].lock().unwrap().len()
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            let bus = self.pipeline.bus().unwrap();
            let bad = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Eos]);
            assert!(bad.is_none(), "{bad:?}");
            let stats: gst::Structure = self.source.property("stats");
            assert!(Instant::now() < end, "waited in vain for {what}: {stats}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_frames(&self, more: usize) {
        let (video, audio) = (self.count(0), self.count(1));
        self.wait("frames", || {
            self.count(0) >= video + more && self.count(1) >= audio + more
        });
    }

    /// Publishes until it is dropped; `bframes` of them between two others.
    fn publisher(&self, path: &str, bframes: u32) -> Publisher {
        self.publisher_to(self.port(), path, bframes)
    }

    fn publisher_to(&self, port: u16, path: &str, bframes: u32) -> Publisher {
        let pipeline = gst::parse::launch(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
             ! x264enc speed-preset=ultrafast bframes={bframes} b-adapt=false rc-lookahead=0 key-int-max=15 ! h264parse ! mux. \
             audiotestsrc is-live=true ! audioconvert ! avenc_aac ! aacparse ! mux. \
             flvmux name=mux streamable=true ! rtmp2sink location=rtmp://127.0.0.1:{port}/{path}"
        ));
        let pipeline = pipeline.unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Publisher(pipeline)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

struct Publisher(gst::Element);

impl Publisher {
    /// What it failed with.
    fn error(&self) -> String {
        let bus = self.0.bus().unwrap();
        let timeout = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let message = bus.timed_pop_filtered(timeout, &[gst::MessageType::Error]);
        let message = message.expect("the publisher goes on");
        match message.view() {
            gst::MessageView::Error(err) => format!("{} {:?}", err.error(), err.debug()),
            _ => unreachable!(),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

#[test]
fn publishers_come_and_go_and_time_goes_on() {
    let server = Server::start("stream-key=secret");
    let mut begins = Vec::new();
    for (n, bframes) in [(1, 0), (2, 2)] {
        begins.push(server.count(0));
        let publisher = server.publisher("live/secret", bframes);
        server.wait_for_frames(40);
        assert!(server.source.property::<bool>("connected"));
        drop(publisher);
        server.wait("the publisher to be gone", || {
            !server.source.property::<bool>("connected")
        });
        assert_eq!(server.stat("publishers"), n);
    }
    let pad = server.source.static_pad("video").unwrap();
    let caps = pad.current_caps().unwrap();
    let expected = "video/x-h264, stream-format=avc, alignment=au";
    assert!(caps.can_intersect(&expected.parse::<gst::Caps>().unwrap()));
    let caps = server.source.static_pad("audio").unwrap().current_caps();
    let caps = caps.unwrap();
    let structure = caps.structure(0).unwrap();
    assert_eq!(structure.get::<i32>("rate").unwrap(), 44_100);
    assert_eq!(structure.get::<&str>("stream-format").unwrap(), "raw");

    for seen in &server.seen {
        let seen = seen.lock().unwrap();
        assert!(seen.windows(2).all(|pair| pair[0].dts < pair[1].dts));
    }
    let video = server.seen[0].lock().unwrap();
    for begin in begins {
        assert!(video[begin].discontinuous && video[begin].keyframe);
    }
    let discontinuities = video.iter().filter(|seen| seen.discontinuous).count();
    assert_eq!(discontinuities, 2);
    let last = &video[video.len() - 30..];
    assert!(last.iter().any(|seen| seen.pts > seen.dts), "no B-frames");
    assert_eq!((server.stat("cut"), server.stat("refused")), (0, 0));
    assert!(server.stat("bytes") > 10_000);
}

#[test]
fn who_may_not_publish_is_told_so() {
    let server = Server::start("stream-key=secret");
    let first = server.publisher("live/secret", 0);
    server.wait_for_frames(5);
    for path in ["live/secret", "live/guess", "other/secret"] {
        let error = server.publisher(path, 0).error();
        println!("{path}: {error}");
    }
    // Counted when it has been told.
    server.wait("all to be counted", || server.stat("refused") == 3);
    assert_eq!(server.stat("publishers"), 1);
    server.wait_for_frames(20);
    drop(first);
}

#[test]
fn who_misbehaves_is_cut_and_costs_nobody_anything() {
    let server = Server::start("");
    let publisher = server.publisher("live/any", 0);
    server.wait_for_frames(5);
    let began = Instant::now();
    let stalling = server.connect();
    let mut garbage = server.connect();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    server.wait("the garbage to be cut", || server.stat("cut") == 1);

    let mut endless = shake_hands(&server);
    let header = [6, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0];
    endless.write_all(&header).unwrap();
    server.wait("the endless message to be cut", || server.stat("cut") == 2);
    let mut unasked = shake_hands(&server);
    unasked
        .write_all(&[6, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0, 0x17])
        .unwrap();
    server.wait("unasked media to be cut", || server.stat("cut") == 3);
    // More than there is room for: the oldest make room, never the publisher.
    let flood: Vec<_> = (0..40).map(|_| server.connect()).collect();
    server.wait("the flood to be thinned", || server.stat("cut") >= 3 + 9);
    drop(flood);

    // One more may be cut on the way.
    let mut cut = 0;
    while cut != server.stat("cut") {
        cut = server.stat("cut");
        std::thread::sleep(Duration::from_millis(300));
    }
    let stalling_too = server.connect();
    server.wait("who stalls to be cut", || server.stat("cut") > cut);
    let after = began.elapsed();
    assert!(after > Duration::from_secs(4), "{after:?}");
    drop((stalling, stalling_too));

    server.wait_for_frames(20);
    assert_eq!(server.stat("publishers"), 1);
    let video = server.seen[0].lock().unwrap();
    let gaps = video.windows(2).map(|pair| pair[1].dts - pair[0].dts);
    let longest = gaps.max().unwrap();
    assert!(longest < gst::ClockTime::from_seconds(1), "{longest}");
    drop(publisher);
}

fn shake_hands(server: &Server) -> TcpStream {
    client::shake_hands(server.connect())
}

/// A client that has connected to an app, with these fields more.
fn connect(server: &Server, app: &str, more: &[u8]) -> TcpStream {
    client::connect(server.connect(), app, more)
}

/// A client that publishes by itself.
fn publish(server: &Server) -> TcpStream {
    publish_as(server, connect(server, "live", &[]), "any")
}

fn publish_as(server: &Server, mut client: TcpStream, key: &str) -> TcpStream {
    let publishers = server.stat("publishers");
    ask_to_publish(&mut client, key);
    server.wait("leave to publish", || {
        server.stat("publishers") > publishers
    });
    client
}

/// What the server says until it ends the connection.
fn said(mut client: TcpStream) -> String {
    let mut said = Vec::new();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = client.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn nonsense_is_for_the_decoders_to_shrug_off() {
    let server = Server::with("", "h264parse ! avdec_h264", "aacparse ! avdec_aac");
    let mut nonsense = publish(&server);
    send(&mut nonsense, 9, 0, &header());
    send(&mut nonsense, 8, 0, &[0xaf, 0, 0x11, 0x90]);
    for n in 0..100u8 {
        let unit: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(n) ^ n).collect();
        // Not as a parameter set, which would be looked at.
        let unit = [&[0x65], &unit[..]].concat();
        send(&mut nonsense, 9, n, &frame(0x17, &unit));
        send(&mut nonsense, 8, n, &[&[0xaf, 1], &unit[..]].concat());
    }
    server.wait("the nonsense to be taken", || server.stat("frames") >= 100);
    assert_eq!(server.stat("cut"), 0);
    drop(nonsense);
    let idle = || !server.source.property::<bool>("connected");
    server.wait("it to be gone", idle);
    let _good = server.publisher("live/any", 0);
    server.wait_for_frames(20);
}

/// What is no message of H.264 or AAC, though its length may be right.
fn broken_messages() -> Vec<(&'static str, u8, Vec<u8>)> {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut header = header();
        change(&mut header);
        header
    };
    vec![
        (
            "a frame that is cut short",
            9,
            vec![0x17, 1, 0, 0, 0, 0, 0, 0, 200, 1],
        ),
        ("empty units alone", 9, vec![0x17, 1, 0, 0, 0, 0, 0, 0, 0]),
        (
            "Annex B",
            9,
            vec![0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65, 1, 2, 3, 4, 5],
        ),
        (
            "a header that is cut short",
            9,
            vec![0x17, 0, 0, 0, 0, 1, 2],
        ),
        (
            "a header in Annex B",
            9,
            vec![0x17, 0, 0, 0, 0, 0, 0, 0, 1, 0x67, 0xf4, 0],
        ),
        (
            "a header without PPS",
            9,
            with(|header| {
                header.truncate(5 + 8 + 25);
                header.push(0);
            }),
        ),
        ("a random SPS", 9, with(|header| header[14..38].fill(0xa5))),
        ("an SPS of zeros", 9, with(|header| header[14..38].fill(0))),
        (
            "a broken SPS in a frame",
            9,
            frame(0x17, &[0x67, 0xff, 0xff, 0xff]),
        ),
        ("a message of one octet", 9, vec![0x17]),
        ("an extended one of one octet", 9, vec![0x91]),
        ("sound without a configuration", 8, vec![0xaf, 0, 0]),
        ("sound of one octet", 8, vec![0xaf]),
    ]
}

#[test]
fn broken_messages_are_left_out_and_the_publisher_goes_on() {
    let server = Server::start("");
    let mut client = publish(&server);
    send(&mut client, 9, 0, &header());
    send(&mut client, 8, 0, &[0xaf, 0, 0x11, 0x90]);
    for (n, (what, kind, message)) in (1..).zip(broken_messages()) {
        send(&mut client, kind, 0, &message);
        server.wait(what, || server.stat("unusable") == n);
        // By the last good header, from the next keyframe on.
        let seen = [server.count(0), server.count(1)];
        send(&mut client, 9, 0, &frame(0x27, &[0x41, 1]));
        send(&mut client, 9, 0, &frame(0x17, &[0x65, 1]));
        send(&mut client, 8, 0, &[0xaf, 1, 1, 2]);
        server.wait(what, || {
            server.count(0) > seen[0] && server.count(1) > seen[1]
        });
        let video = server.seen[0].lock().unwrap();
        let dropped = usize::from(kind == 8);
        assert_eq!(video[seen[0]].keyframe, dropped == 0, "{what}");
    }
    assert_eq!(server.stat("cut"), 0);
    assert_eq!(server.stat("publishers"), 1);
    // Empty units beside others are left out alone.
    let seen = server.count(0);
    let padded = [&frame(0x17, &[0x65, 1])[..], &[0; 4]].concat();
    send(&mut client, 9, 0, &padded);
    server.wait("the padded frame", || server.count(0) > seen);
}

#[test]
fn who_goes_on_sending_what_is_broken_is_told_why_and_cut() {
    let server = Server::start("");
    for (n, (what, kind, message)) in (1..).zip(broken_messages()) {
        let mut client = publish(&server);
        for _ in 0..101 {
            send(&mut client, kind, 0, &message);
        }
        let said = said(client);
        assert!(
            said.contains("NetStream.Publish.Rejected"),
            "{what}: {said}"
        );
        assert!(said.contains("in a row"), "{what}: {said}");
        server.wait(what, || {
            server.stat("cut") == n && !server.source.property::<bool>("connected")
        });
    }
}

#[test]
fn sound_of_other_codecs_does_not_take_the_picture_away() {
    let server = Server::start("");
    // Nellymoser, Speex, FLAC and AC-3 by Enhanced RTMP, and AAC whose channels have a layout of its own.
    for sound in [
        &[0x6f, 0, 0][..],
        &[0xb2, 0],
        b"\x91fLaC\0",
        b"\x91ac-3\0",
        &[0xaf, 0, 0x11, 0x80],
    ] {
        let mut client = publish(&server);
        let seen = server.count(0);
        send(&mut client, 8, 0, sound);
        // Its frames too, as many as there are.
        for _ in 0..150 {
            let own = sound[0] == 0xaf;
            send(
                &mut client,
                8,
                0,
                if own { &[0xaf, 1, 2, 3] } else { sound },
            );
        }
        send(&mut client, 9, 0, &header());
        send(&mut client, 9, 0, &frame(0x17, &[0x65, 1]));
        server.wait("the picture", || server.count(0) > seen);
        drop(client);
        server.wait("it to be gone", || {
            !server.source.property::<bool>("connected")
        });
    }
    assert_eq!((server.stat("refused"), server.stat("cut")), (0, 0));
    assert_eq!(server.stat("unusable"), 4 * 151 + 1);
    let mut foreign = publish(&server);
    send(&mut foreign, 9, 0, &[0x12, 0, 0]);
    assert!(said(foreign).contains("Sorenson"));
    assert_eq!(server.stat("refused"), 1);
}

#[test]
fn who_is_silent_for_a_second_is_replaced_by_one_of_the_same_key() {
    let server = Server::start("");
    let mut silent = publish(&server);
    send(&mut silent, 9, 0, &header());
    send(&mut silent, 9, 0, &frame(0x17, &[0x65, 1]));
    for _ in 0..3 {
        let began = Instant::now();
        let mut other = connect(&server, "live", &[]);
        ask_to_publish(&mut other, "else");
        assert!(said(other).contains("Someone else publishes here"));
        let again = connect(&server, "live?again", &[]);
        let mut again = publish_as(&server, again, "any?token=x");
        let waited = began.elapsed();
        println!("taken over after {waited:?}");
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        let seen = server.count(0);
        send(&mut again, 9, 0, &header());
        send(&mut again, 9, 0, &frame(0x17, &[0x65, 1]));
        server.wait("its picture", || server.count(0) > seen);
        assert!(server.source.property::<bool>("connected"));
        // The former one is cut off.
        drop(said(std::mem::replace(&mut silent, again)));
    }
    assert_eq!(server.stat("publishers"), 4);
}

#[test]
fn the_application_hears_of_publishers_and_ends_them() {
    let server = Server::start("");
    let (told, heard) = std::sync::mpsc::channel();
    for name in ["publisher-joined", "publisher-left"] {
        let told = told.clone();
        server.source.connect(name, false, move |values| {
            let about = values[1].get::<gst::Structure>().unwrap();
            let _ = told.send((name, about.get::<String>("reason").unwrap()));
            // As long as it likes.
            std::thread::sleep(Duration::from_millis(300));
            None
        });
    }
    let kick = || server.source.emit_by_name::<bool>("kick", &[]);
    assert!(!kick(), "nobody is there");
    let upstream = || {
        let sink = server.pipeline.by_name("video").unwrap();
        sfu_elements::kick::tell(&sink.static_pad("sink").unwrap())
    };
    assert!(!upstream(), "nobody is there");
    for by_upstream in [false, true] {
        let mut client = publish(&server);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap().0, "publisher-joined");
        send(&mut client, 9, 0, &header());
        assert!(if by_upstream { upstream() } else { kick() });
        let said = said(client);
        assert!(said.contains("The server ended it"), "{said}");
        let (name, reason) = heard.recv_timeout(PATIENCE).unwrap();
        assert_eq!(name, "publisher-left");
        assert!(reason.contains("The server ended it"), "{reason}");
    }
    // Others are not meant.
    let _client = publish(&server);
    std::thread::sleep(Duration::from_millis(600));
    assert!(server.source.property::<bool>("connected"));
}

#[test]
fn one_connection_publishes_stops_and_publishes_again() {
    let server = Server::start("");
    let mut client = connect(&server, "live", &[]);
    for stop in ["FCUnpublish", "closeStream", "deleteStream"] {
        client = publish_as(&server, client, "any");
        let seen = server.count(0);
        send(&mut client, 9, 0, &header());
        send(&mut client, 9, 0, &frame(0x17, &[0x65, 1]));
        server.wait("its picture", || server.count(0) > seen);
        let command = [string(stop), number(6.0), vec![5], string("any")].concat();
        send(&mut client, 20, 0, &command);
        server.wait("it to stop", || {
            !server.source.property::<bool>("connected")
        });
        send(&mut client, 9, 0, &frame(0x17, &[0x65, 1]));
        let _other = publish(&server);
    }
    assert_eq!((server.stat("cut"), server.stat("publishers")), (0, 6));
}

#[test]
fn commands_may_have_values_of_all_types() {
    let server = Server::start("stream-key=secret");
    let date = [&[11][..], &[0; 8], &[0, 0]].concat();
    let long = [&[12][..], &70_000u32.to_be_bytes(), &[b'x'; 70_000]].concat();
    let typed = [&[16, 0, 1, b'T'][..], &field("a", &[5]), &[0, 0, 9]].concat();
    let strict = [10, 0, 0, 0, 1, 6];
    for (name, value) in [
        ("date", &date[..]),
        ("tcUrl", &long),
        ("typed", &typed),
        ("list", &strict),
    ] {
        let client = connect(&server, "live?token=x", &field(name, value));
        drop(publish_as(&server, client, "secret?user=me"));
        server.wait("it to be gone", || {
            !server.source.property::<bool>("connected")
        });
    }
    assert_eq!((server.stat("cut"), server.stat("publishers")), (0, 4));
}

/// What a publisher of GStreamer's sends in two seconds, by a server in between.
fn recorded_session(server: &Server) -> Vec<u8> {
    let between = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = between.local_addr().unwrap().port();
    let publisher = server.publisher_to(port, "live/any", 0);
    let (mut client, _) = between.accept().unwrap();
    let mut upstream = server.connect();
    let (mut answers, mut back) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
    let (mut recorded, mut buffer) = (Vec::new(), [0; 4096]);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let read = client.read(&mut buffer).unwrap();
        upstream.write_all(&buffer[..read]).unwrap();
        recorded.extend_from_slice(&buffer[..read]);
    }
    drop(publisher);
    recorded
}

#[test]
fn random_octets_anywhere_in_a_session_end_nothing_but_it() {
    let server = Server::start("");
    let session = recorded_session(&server);
    server.wait("it to be gone", || {
        !server.source.property::<bool>("connected")
    });
    assert!(session.len() > 20_000, "{} bytes", session.len());
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut random: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("SEED={random}, {} bytes", session.len());
    let mut next = move |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for round in 0..60 {
        let mut broken = session.clone();
        for _ in 0..1 << (round % 10) {
            let at = 1 + 2 * 1536 + next(broken.len() - 1 - 2 * 1536);
            broken[at] = u8::try_from(next(256)).unwrap();
        }
        let mut client = server.connect();
        client
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        for part in broken.chunks(8_192) {
            if client.write_all(part).is_err() {
                break;
            }
        }
        let _ = client.read(&mut [0; 4096]);
    }
    server.wait("them to be gone", || {
        !server.source.property::<bool>("connected")
    });
    let _good = server.publisher("live/any", 0);
    server.wait_for_frames(20);
    let stats: gst::Structure = server.source.property("stats");
    println!("{stats}");
}

#[test]
fn nobody_has_to_be_linked_or_there() {
    init();
    let line = "rtmpserversrc name=in listen=127.0.0.1:0 in.audio ! fakesink async=false";
    let pipeline = gst::parse::launch(line).unwrap();
    for _ in 0..2 {
        pipeline.set_state(gst::State::Playing).unwrap();
        let source = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("in");
        assert!(source.unwrap().property::<u32>("port") > 0);
        pipeline.set_state(gst::State::Null).unwrap();
    }
    let bus = pipeline.bus().unwrap();
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

#[test]
fn an_address_that_is_taken_is_an_error_that_says_so() {
    let server = Server::start("");
    let second = gst::ElementFactory::make("rtmpserversrc")
        .property("listen", format!("127.0.0.1:{}", server.port()))
        .build()
        .unwrap();
    let bus = gst::Bus::new();
    second.set_bus(Some(&bus));
    assert!(second.set_state(gst::State::Paused).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(err) = message.view() else {
        unreachable!();
    };
    assert!(err.error().to_string().contains("listen"), "{err:?}");
    second.set_state(gst::State::Null).unwrap();
}
