// SPDX-License-Identifier: MPL-2.0

//! `rtmpserversrc` against GStreamer's own publisher, `rtmp2sink`, and against clients that misbehave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
        let pipeline = gst::parse::launch(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
             ! x264enc speed-preset=ultrafast bframes={bframes} b-adapt=false rc-lookahead=0 key-int-max=15 ! h264parse ! mux. \
             audiotestsrc is-live=true ! audioconvert ! avenc_aac ! aacparse ! mux. \
             flvmux name=mux streamable=true ! rtmp2sink location=rtmp://127.0.0.1:{}/{path}",
            self.port()
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
    assert_eq!(server.stat("refused"), 3);
    assert_eq!(server.stat("publishers"), 1);
    server.wait_for_frames(20);
    drop(first);
}

/// As far as the end of the handshake.
fn shake_hands(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.write_all(&[3]).unwrap();
    client.write_all(&[0; 1536]).unwrap();
    let mut answer = [0; 1 + 2 * 1536];
    client.read_exact(&mut answer).unwrap();
    client.write_all(&[0; 1536]).unwrap();
    client
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

    let stalling_too = server.connect();
    let cut = server.stat("cut");
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

/// Sends a message, with chunks as long as it is.
fn send(client: &mut TcpStream, kind: u8, timestamp: u8, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    let header = [
        6, 0, 0, timestamp, length[1], length[2], length[3], kind, 1, 0, 0, 0,
    ];
    // It may have been cut already, which is right.
    let _ = client.write_all(&[&header, data].concat());
}

/// A client that publishes by itself.
fn publish(server: &Server) -> TcpStream {
    let publishers = server.stat("publishers");
    let mut client = shake_hands(server);
    send(&mut client, 1, 0, &[0, 0x10, 0, 0]);
    let string = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&length, text.as_bytes()].concat()
    };
    let (number, null) = ([&[0u8][..], &1f64.to_be_bytes()].concat(), [5u8]);
    let connect = [
        &[2],
        &string("connect")[..],
        &number,
        &[3],
        &string("app"),
        &[2],
        &string("live"),
        &[0, 0, 9],
    ];
    send(&mut client, 20, 0, &connect.concat());
    let publish = [
        &[2],
        &string("publish")[..],
        &number,
        &null,
        &[2],
        &string("any"),
        &[2],
        &string("live"),
    ];
    send(&mut client, 20, 0, &publish.concat());
    server.wait("leave to publish", || {
        server.stat("publishers") > publishers
    });
    client
}

#[test]
fn broken_media_ends_its_publisher_at_most() {
    let video = "h264parse ! avdec_h264";
    let audio = "aacparse ! avdec_aac";
    let server = Server::with("", video, audio);
    let record = [
        1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 2, 0x68, 0xee,
    ];
    let header = [&[0x17, 0, 0, 0, 0][..], &record].concat();
    // Whole units of nonsense: that is for the parser and the decoder to shrug off.
    let mut nonsense = publish(&server);
    send(&mut nonsense, 9, 0, &header);
    send(&mut nonsense, 8, 0, &[0xaf, 0, 0x11, 0x90]);
    for n in 0..100u8 {
        let unit: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(n) ^ n).collect();
        send(
            &mut nonsense,
            9,
            n,
            &[&[0x17, 1, 0, 0, 0, 0, 0, 0, 200][..], &unit].concat(),
        );
        send(&mut nonsense, 8, n, &[&[0xaf, 1], &unit[..]].concat());
    }
    server.wait("the nonsense to be taken", || server.stat("frames") >= 100);
    assert_eq!(server.stat("cut"), 0);
    drop(nonsense);
    let idle = || !server.source.property::<bool>("connected");
    server.wait("it to be gone", idle);
    // Units that are not whole, and broken records: that is cut here.
    let broken: [(u8, &[u8]); 3] = [
        (9, &[0x17, 1, 0, 0, 0, 0, 0, 0, 200, 1]),
        (9, &[0x17, 0, 0, 0, 0, 1, 2]),
        (8, &[0xaf, 0, 0]),
    ];
    for (n, (kind, data)) in (1..).zip(broken) {
        let mut client = publish(&server);
        send(&mut client, 9, 0, &header);
        send(&mut client, kind, 0, data);
        server.wait("it to be cut", || server.stat("cut") == n && idle());
    }
    let mut foreign = publish(&server);
    send(&mut foreign, 8, 0, &[0x2f, 0, 0]);
    server.wait("it to be refused", || server.stat("refused") == 1 && idle());
    let _good = server.publisher("live/any", 0);
    server.wait_for_frames(20);
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
