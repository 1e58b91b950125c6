// SPDX-License-Identifier: MPL-2.0

//! `rtmpserversrc` with publishers whose messages are others than most encoders': pictures in several, keyframes that nothing
//! tells of, sound without its configuration.

mod client;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{ask_to_publish, connect, frame, header, send};
use gst::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);
const PICTURES: u8 = 25;
/// In ms: all come at once, and must not look like a jump.
const STEP: u8 = 10;
/// How much later than decoded each picture is shown, in ms.
const OFFSET: u8 = 80;
const SEI: &[u8] = &[6, 5, 1, 0x80];
const DELIMITER: &[u8] = &[9, 0xf0];

#[derive(Debug, Clone)]
struct Seen {
    dts: gst::ClockTime,
    pts: gst::ClockTime,
    keyframe: bool,
    data: Vec<u8>,
}

struct Server {
    pipeline: gst::Pipeline,
    source: gst::Element,
    /// What came out of `video` and `audio`.
    seen: [Arc<Mutex<Vec<Seen>>>; 2],
}

impl Server {
    fn start() -> Self {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            gst::init().unwrap();
            gstrtmpserver::plugin_register_static().unwrap();
        });
        let line = "rtmpserversrc name=in listen=127.0.0.1:0 \
             in.video ! fakesink name=video async=false sync=false \
             in.audio ! fakesink name=audio async=false sync=false";
        let pipeline = gst::parse::launch(line).unwrap();
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

    fn stat(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.source.property("stats");
        stats.get(name).unwrap()
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            let stats: gst::Structure = self.source.property("stats");
            assert!(Instant::now() < end, "waited in vain for {what}: {stats}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What has come out of a pad, when it is so much.
    fn take(&self, what: &str, stream: usize, count: usize) -> Vec<Seen> {
        self.wait(what, || self.seen[stream].lock().unwrap().len() >= count);
        std::mem::take(&mut *self.seen[stream].lock().unwrap())
    }

    fn publish(&self) -> TcpStream {
        let publishers = self.stat("publishers");
        let port = u16::try_from(self.source.property::<u32>("port")).unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut client = connect(client, "live", &[]);
        ask_to_publish(&mut client, "any");
        self.wait("leave to publish", || self.stat("publishers") > publishers);
        client
    }

    fn wait_until_idle(&self) {
        self.wait("it to be gone", || {
            !self.source.property::<bool>("connected")
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn record(pipeline: &gst::Pipeline, sink: &str) -> Arc<Mutex<Vec<Seen>>> {
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    let list = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            list.lock().unwrap().push(Seen {
                dts: buffer.dts().unwrap_or_default(),
                pts: buffer.pts().unwrap_or_default(),
                keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                data: buffer.map_readable().unwrap().to_vec(),
            });
        }
        gst::PadProbeReturn::Ok
    });
    seen
}

/// The three slices of a picture; each fifth one is a keyframe.
fn slices(n: u8) -> [Vec<u8>; 3] {
    let kind = if n.is_multiple_of(5) { 0x65 } else { 0x41 };
    // Of the first macroblock, and of the second and third.
    [0x80, 0x40, 0x60].map(|macroblock| vec![kind, macroblock, n])
}

fn sized(units: &[&[u8]]) -> Vec<u8> {
    let sized = |unit: &&[u8]| [&u32::try_from(unit.len()).unwrap().to_be_bytes(), *unit].concat();
    units.iter().flat_map(sized).collect()
}

/// A message, of which nothing but its units says whether it is a keyframe's.
fn message(units: &[&[u8]]) -> Vec<u8> {
    [&[0x27, 1, 0, 0, OFFSET][..], &sized(units)].concat()
}

/// A name, the messages of picture `n`, and its units as they come out.
type Case = (&'static str, fn(u8) -> Vec<Vec<u8>>, fn(u8) -> Vec<u8>);

#[test]
fn pictures_come_out_whole_however_their_messages_are_cut() {
    let whole = |n: u8| sized(&slices(n).each_ref().map(Vec::as_slice));
    let with_sei = |n: u8| {
        let [first, second, third] = &slices(n);
        sized(&[SEI, first, second, third])
    };
    let cases: [Case; 5] = [
        (
            "pictures in one message",
            |n| vec![message(&slices(n).each_ref().map(Vec::as_slice))],
            whole,
        ),
        (
            "a slice a message",
            |n| slices(n).map(|slice| message(&[&slice])).to_vec(),
            whole,
        ),
        (
            "a unit a message",
            |n| {
                let [first, second, third] = &slices(n);
                let units: [&[u8]; 5] = [DELIMITER, SEI, first, second, third];
                units.map(|unit| message(&[unit])).to_vec()
            },
            with_sei,
        ),
        (
            "SEI of its own",
            |n| {
                let [first, second, third] = &slices(n);
                vec![message(&[SEI]), message(&[first, second, third])]
            },
            with_sei,
        ),
        (
            "two slices, and the rest",
            |n| {
                let [first, second, third] = &slices(n);
                vec![message(&[first, second]), message(&[third])]
            },
            whole,
        ),
    ];
    let server = Server::start();
    for (what, messages, expected) in cases {
        let mut client = server.publish();
        send(&mut client, 9, 0, &header());
        for n in 0..PICTURES {
            for message in messages(n) {
                send(&mut client, 9, n * STEP, &message);
            }
        }
        let seen = server.take(what, 0, usize::from(PICTURES));
        assert_eq!(seen.len(), usize::from(PICTURES), "{what}");
        for (n, seen) in (0..PICTURES).zip(&seen) {
            assert_eq!(seen.data, expected(n), "{what}, picture {n}");
            assert_eq!(seen.keyframe, n.is_multiple_of(5), "{what}, picture {n}");
            let offset = gst::ClockTime::from_mseconds(OFFSET.into());
            assert_eq!(seen.pts, seen.dts + offset, "{what}, picture {n}");
        }
        let step = gst::ClockTime::from_mseconds(STEP.into());
        let even = |pair: &[Seen]| pair[1].dts == pair[0].dts + step;
        assert!(seen.windows(2).all(even), "{what}: {seen:?}");
        drop(client);
        server.wait_until_idle();
    }
    assert_eq!((server.stat("unusable"), server.stat("cut")), (0, 0));
    assert_eq!(server.stat("dropped-frames"), 0);
}

#[test]
fn a_picture_in_several_messages_does_not_wait_for_long() {
    let server = Server::start();
    let mut client = server.publish();
    send(&mut client, 9, 0, &header());
    send(&mut client, 8, 0, &[0xaf, 0, 0x11, 0x90]);
    for (n, ends) in [(0, "sound"), (1, "silence"), (2, "a goodbye")] {
        for slice in slices(n) {
            send(&mut client, 9, n * 50, &message(&[&slice]));
        }
        match ends {
            // It goes on, so that there is no silence.
            "sound" => {
                for at in (0..=200).step_by(20) {
                    send(&mut client, 8, at, &[0xaf, 1, 1, 2]);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            "a goodbye" => {
                let command = [client::string("deleteStream"), client::number(6.0), vec![5]];
                send(&mut client, 20, 0, &command.concat());
            }
            _ => {}
        }
        assert_eq!(server.take(ends, 0, 1).len(), 1, "{ends}");
    }
    server.wait_until_idle();
}

#[test]
fn sound_without_its_configuration_does_not_take_the_picture_away() {
    let server = Server::start();
    // It never comes, comes late, or nothing but what is broken does.
    for sound in [&[0xaf, 1, 1, 2][..], &[0xaf], &[0xaf, 0, 0]] {
        let mut client = server.publish();
        send(&mut client, 9, 0, &header());
        for n in 0..250 {
            send(&mut client, 8, n, sound);
        }
        send(&mut client, 9, 250, &frame(0x17, &[0x65, 0x88]));
        assert_eq!(server.take("the picture", 0, 1).len(), 1);
        // From then on it is taken.
        send(&mut client, 8, 250, &[0xaf, 0, 0x11, 0x90]);
        send(&mut client, 8, 251, &[0xaf, 1, 1, 2]);
        assert_eq!(server.take("the sound", 1, 1)[0].data, [1, 2]);
        drop(client);
        server.wait_until_idle();
    }
    assert_eq!((server.stat("refused"), server.stat("cut")), (0, 0));
}
