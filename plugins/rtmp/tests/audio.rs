// SPDX-License-Identifier: MPL-2.0

//! `rtmpserversrc` with audio of all codecs, of one after the other, and with such as nothing can be done with; and what the
//! application is told of that.

mod client;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{ask_to_publish, connect, frame, header, send};
use gst::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// What came out of the pad `audio`, in the end.
#[derive(Debug, Clone)]
struct Seen {
    caps: gst::Caps,
    data: Vec<u8>,
}

struct Server {
    pipeline: gst::Pipeline,
    source: gst::Element,
    heard: Arc<Mutex<Vec<Seen>>>,
    pictures: Arc<Mutex<usize>>,
    warnings: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstrtmpserver::plugin_register_static().unwrap();
    });
}

impl Server {
    /// With these properties, and these elements behind the pad `audio`.
    fn start(properties: &str, audio: &str) -> Self {
        init();
        let line = format!(
            "rtmpserversrc name=in listen=127.0.0.1:0 {properties} \
             in.video ! fakesink name=video async=false sync=false \
             in.audio ! {audio} ! fakesink name=audio async=false sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let (warnings, errors) = <[Arc<Mutex<Vec<String>>>; 2]>::default().into();
        let (warned, failed) = (warnings.clone(), errors.clone());
        let bus = pipeline.bus().unwrap();
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Warning(warning) => {
                    let text = warning.error().message().to_owned();
                    warned.lock().unwrap().push(text);
                }
                gst::MessageView::Error(error) => {
                    failed.lock().unwrap().push(format!("{error:?}"));
                }
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        let pad = |name| pipeline.by_name(name).unwrap().static_pad("sink").unwrap();
        let heard = Arc::<Mutex<Vec<Seen>>>::default();
        let list = heard.clone();
        pad("audio").add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            list.lock().unwrap().push(Seen {
                caps: pad.current_caps().unwrap(),
                data: info.buffer().unwrap().map_readable().unwrap().to_vec(),
            });
            gst::PadProbeReturn::Ok
        });
        let pictures = Arc::<Mutex<usize>>::default();
        let counted = pictures.clone();
        pad("video").add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            *counted.lock().unwrap() += 1;
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Self {
            source: pipeline.by_name("in").unwrap(),
            pipeline,
            heard,
            pictures,
            warnings,
            errors,
        }
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            let stats: gst::Structure = self.source.property("stats");
            let warnings = self.warnings.lock().unwrap();
            assert!(
                Instant::now() < end,
                "waited in vain for {what}: {stats} {warnings:?}"
            );
            drop(warnings);
            std::thread::sleep(Duration::from_millis(20));
        }
        let errors = self.errors.lock().unwrap();
        assert!(errors.is_empty(), "{what}: {errors:?}");
    }

    fn stat(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.source.property("stats");
        stats.get(name).unwrap()
    }

    fn client(&self) -> TcpStream {
        let port = u16::try_from(self.source.property::<u32>("port")).unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connect(client, "live", &[])
    }

    fn publish(&self) -> TcpStream {
        let publishers = self.stat("publishers");
        let mut client = self.client();
        ask_to_publish(&mut client, "any");
        self.wait("leave to publish", || self.stat("publishers") > publishers);
        client
    }

    fn leave(&self, client: TcpStream) {
        drop(client);
        self.wait("it to be gone", || {
            !self.source.property::<bool>("connected")
        });
    }

    /// A keyframe comes through.
    fn picture(&self, client: &mut TcpStream, timestamp: u8) {
        let before = *self.pictures.lock().unwrap();
        send(client, VIDEO, timestamp, &header());
        send(client, VIDEO, timestamp, &frame(0x17, &[0x65, 0x88]));
        self.wait("the picture", || *self.pictures.lock().unwrap() > before);
    }

    /// What comes out next, of what is still to come and has something in it that can be heard.
    fn hear(&self, what: &str) -> Seen {
        let loud = |seen: &Seen| {
            let (samples, _) = seen.data.as_chunks::<2>();
            samples.iter().any(|s| i16::from_le_bytes(*s).abs() > 1_000)
        };
        self.wait(what, || self.heard.lock().unwrap().iter().any(loud));
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.into_iter().find(loud).unwrap()
    }

    fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A tone of a codec, as messages: the header, if there is one, and the frames.
#[derive(Debug, Clone)]
struct Tone {
    header: Option<Vec<u8>>,
    frames: Vec<Vec<u8>>,
}

impl Tone {
    fn made(encoder: &str, head: &[u8]) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        init();
        let line = format!(
            "audiotestsrc num-buffers=40 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 \
             ! audioconvert ! {encoder} ! fakesink name=out sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let pad = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
        let (encoded, config) = <(Arc<Mutex<Vec<_>>>, Arc<Mutex<Option<_>>>)>::default();
        let (list, codec_data) = (encoded.clone(), config.clone());
        let head = head.to_vec();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let data = info.buffer().unwrap().map_readable().unwrap().to_vec();
            list.lock().unwrap().push([&head[..], &data].concat());
            let caps = pad.current_caps().unwrap();
            let config = caps.structure(0).unwrap().get::<gst::Buffer>("codec_data");
            *codec_data.lock().unwrap() = config
                .ok()
                .map(|config| config.map_readable().unwrap().to_vec());
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let bus = pipeline.bus().unwrap();
        let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &ends);
        assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
        pipeline.set_state(gst::State::Null).unwrap();
        let frames = std::mem::take(&mut *encoded.lock().unwrap());
        assert!(frames.len() > 20, "{encoder}: {}", frames.len());
        let config = config.lock().unwrap().take();
        (config, frames)
    }

    fn aac() -> Self {
        let (config, frames) = Self::made("avenc_aac", &[0xaf, 1]);
        let header = Some([&[0xaf, 0][..], &config.unwrap()].concat());
        Self { header, frames }
    }

    fn opus() -> Self {
        let (_, frames) = Self::made("audioresample ! opusenc", b"\x91Opus");
        let header = Some(opus_head(2, 0));
        Self { header, frames }
    }

    fn mp3() -> Self {
        let (_, frames) = Self::made("lamemp3enc", &[0x2f]);
        let header = None;
        Self { header, frames }
    }

    /// As an encoder does, over 200 ms.
    fn send(&self, client: &mut TcpStream) {
        if let Some(header) = &self.header {
            send(client, AUDIO, 0, header);
        }
        for (n, frame) in (0u8..).zip(self.frames.iter().take(20)) {
            send(client, AUDIO, n * 10, frame);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn opus_head(channels: u8, family: u8) -> Vec<u8> {
    let fields = [1, channels, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, family];
    [&b"\x90OpusOpusHead"[..], &fields].concat()
}

const RAW: &str = "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=2,layout=interleaved";

#[test]
fn all_codecs_come_out_as_they_are() {
    let server = Server::start("", "identity");
    let mut mp3 = vec![0xff, 0xfb, 0x94, 0xc4];
    mp3.resize(384, 7);
    for (what, header, message, caps, data) in [
        (
            "AAC",
            Some(vec![0xaf, 0, 0x11, 0x90]),
            vec![0xaf, 1, 1, 2],
            "audio/mpeg,mpegversion=4,stream-format=raw,rate=48000,channels=2",
            vec![1, 2],
        ),
        (
            "Opus",
            Some(opus_head(1, 0)),
            b"\x91Opus\xfc\x01".to_vec(),
            "audio/x-opus,channel-mapping-family=0,rate=48000,channels=1",
            vec![0xfc, 1],
        ),
        (
            "MP3",
            None,
            [&[0x2e][..], &mp3].concat(),
            "audio/mpeg,mpegversion=1,layer=3,rate=48000,channels=1",
            mp3.clone(),
        ),
        (
            "MP3 by its name",
            None,
            [&b"\x91.mp3"[..], &mp3].concat(),
            "audio/mpeg,mpegversion=1,layer=3,rate=48000,channels=1",
            mp3.clone(),
        ),
    ] {
        let mut client = server.publish();
        if let Some(header) = header {
            send(&mut client, AUDIO, 0, &header);
        }
        send(&mut client, AUDIO, 0, &message);
        server.wait(what, || !server.heard.lock().unwrap().is_empty());
        let heard = std::mem::take(&mut *server.heard.lock().unwrap());
        assert_eq!(heard[0].data, data, "{what}");
        let caps: gst::Caps = caps.parse().unwrap();
        assert!(heard[0].caps.can_intersect(&caps), "{what}: {heard:?}");
        server.leave(client);
    }
    assert_eq!(server.take_warnings(), [""; 0]);
    assert_eq!(server.stat("unusable"), 0);
}

#[test]
fn audio_of_one_codec_after_the_other_is_decoded() {
    let server = Server::start("decode-audio=true", RAW);
    let (aac, opus, mp3) = (Tone::aac(), Tone::opus(), Tone::mp3());
    for (what, tone) in [
        ("AAC", &aac),
        ("Opus after AAC", &opus),
        ("MP3 after Opus", &mp3),
        ("AAC after MP3", &aac),
        ("AAC again", &aac),
    ] {
        let mut client = server.publish();
        server.picture(&mut client, 0);
        tone.send(&mut client);
        server.hear(what);
        server.leave(client);
        server.heard.lock().unwrap().clear();
    }
    // One publisher changes its mind.
    let mut client = server.publish();
    for (what, tone) in [("Opus", &opus), ("AAC", &aac), ("Opus again", &opus)] {
        tone.send(&mut client);
        server.hear(what);
        std::thread::sleep(Duration::from_millis(100));
        server.heard.lock().unwrap().clear();
    }
    server.picture(&mut client, 0);
    assert_eq!(server.take_warnings(), [""; 0]);
}

#[test]
fn it_stops_and_starts_with_and_without_decoding() {
    let server = Server::start("decode-audio=true", "identity");
    let (aac, opus) = (Tone::aac(), Tone::opus());
    for (decoded, tone) in [(true, &aac), (false, &opus), (true, &opus), (true, &aac)] {
        server.pipeline.set_state(gst::State::Ready).unwrap();
        server.source.set_property("decode-audio", decoded);
        server.heard.lock().unwrap().clear();
        server.pipeline.set_state(gst::State::Playing).unwrap();
        let mut client = server.publish();
        tone.send(&mut client);
        server.wait("sound", || !server.heard.lock().unwrap().is_empty());
        let caps = server.heard.lock().unwrap()[0].caps.clone();
        let name = caps.structure(0).unwrap().name();
        assert_eq!(name == "audio/x-raw", decoded, "{caps}");
    }
}

#[test]
fn what_can_not_be_decoded_takes_no_picture_away() {
    let server = Server::start("decode-audio=true", RAW);
    let (aac, opus) = (Tone::aac(), Tone::opus());
    for tone in [&aac, &opus] {
        let mut client = server.publish();
        send(&mut client, AUDIO, 0, tone.header.as_ref().unwrap());
        for n in 0..100u8 {
            let mut nonsense = tone.frames[usize::from(n) % tone.frames.len()].clone();
            for byte in nonsense.iter_mut().skip(6) {
                *byte = byte.wrapping_mul(31) ^ n;
            }
            send(&mut client, AUDIO, n, &nonsense);
        }
        server.picture(&mut client, 100);
        server.leave(client);
    }
    server.take_warnings();
    server.heard.lock().unwrap().clear();
    // The decoder says that it has failed.
    let mut client = server.publish();
    opus.send(&mut client);
    server.hear("Opus");
    let source = server.source.downcast_ref::<gst::Bin>().unwrap();
    let bin = source.by_name("audio-decoder").unwrap();
    let decoder = bin.downcast_ref::<gst::Bin>().unwrap().children().remove(0);
    for _ in 0..3 {
        gst::element_error!(decoder, gst::StreamError::Decode, ["as if"]);
    }
    opus.send(&mut client);
    server.picture(&mut client, 200);
    let warnings = server.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("can't be decoded"), "{warnings:?}");
    // It is tried again.
    std::thread::sleep(Duration::from_millis(1_200));
    server.heard.lock().unwrap().clear();
    opus.send(&mut client);
    server.hear("Opus after the failure");
    server.leave(client);
    // Whole configurations that decoders know nothing of: SSR, error resilience, and CELP.
    for config in [[0x19, 0x90], [0x89, 0x90], [0x41, 0x90]] {
        let mut client = server.publish();
        send(&mut client, AUDIO, 0, &[&[0xaf, 0][..], &config].concat());
        for n in 0..50 {
            send(&mut client, AUDIO, n, &[0xaf, 1, 0x21, 0x10, 4, 0x60]);
        }
        server.picture(&mut client, 50);
        server.leave(client);
    }
    println!("{:?}", server.take_warnings());
    server.heard.lock().unwrap().clear();
    let mut client = server.publish();
    aac.send(&mut client);
    server.hear("AAC after those");
    assert_eq!(server.stat("cut"), 0);
}

#[test]
fn a_decoder_of_aac_alone_goes_on_with_the_next_publisher_of_aac() {
    let server = Server::start("", &format!("avdec_aac ! {RAW}"));
    let (aac, opus) = (Tone::aac(), Tone::opus());
    for round in 0..2 {
        let mut client = server.publish();
        aac.send(&mut client);
        server.hear("AAC");
        server.leave(client);
        server.heard.lock().unwrap().clear();
        let mut client = server.publish();
        opus.send(&mut client);
        server.picture(&mut client, 0);
        opus.send(&mut client);
        server.leave(client);
        assert!(server.heard.lock().unwrap().is_empty());
        // Once a publisher.
        let warnings = server.take_warnings();
        assert_eq!(warnings.len(), 1, "{round}: {warnings:?}");
        assert!(warnings[0].contains("takes Opus"), "{warnings:?}");
        assert!(warnings[0].contains("decode-audio"), "{warnings:?}");
    }
}

#[test]
fn where_the_first_track_has_no_way_through_another_is_heard() {
    let both = |packet_type: u8, first: &[u8], second: &[u8]| {
        let size = |body: &[u8]| u32::try_from(body.len()).unwrap().to_be_bytes()[1..].to_vec();
        [
            &[0x95, 0x20 | packet_type][..],
            b"fLaC\x00",
            &size(first),
            first,
            b"Opus\x01",
            &size(second),
            second,
        ]
        .concat()
    };
    let one = |packet_type: u8, codec: &[u8], track: u8, body: &[u8]| {
        [&[0x95, packet_type][..], codec, &[track], body].concat()
    };
    let head = &opus_head(2, 0)[5..];
    let packet = [0xfc, 9];
    let server = Server::start("", "identity");
    for (what, headers, frames) in [
        (
            "both in each message",
            vec![both(0, &[1], head)],
            vec![both(1, &[2], &packet)],
        ),
        (
            "the other one first",
            vec![one(0, b"Opus", 1, head), one(0, b"fLaC", 0, &[1])],
            vec![one(1, b"Opus", 1, &packet), one(1, b"fLaC", 0, &[1])],
        ),
        (
            "the other one later, and a third one",
            vec![
                one(0, b"fLaC", 0, &[1]),
                one(0, b"Opus", 1, head),
                one(0, b"mp4a", 2, &[0x11, 0x90]),
            ],
            vec![one(1, b"mp4a", 2, &[1]), one(1, b"Opus", 1, &packet)],
        ),
    ] {
        let mut client = server.publish();
        for message in headers {
            send(&mut client, AUDIO, 0, &message);
        }
        for n in 0..5 {
            for message in &frames {
                send(&mut client, AUDIO, n * 20, message);
            }
        }
        server.wait(what, || server.heard.lock().unwrap().len() >= 5);
        let heard = std::mem::take(&mut *server.heard.lock().unwrap());
        assert!(heard.iter().all(|seen| seen.data == packet), "{what}");
        let warnings = server.take_warnings();
        assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
        assert!(warnings[0].contains("track 0"), "{what}: {warnings:?}");
        assert!(warnings[0].contains("fLaC"), "{what}: {warnings:?}");
        server.leave(client);
    }
}

#[test]
fn the_application_is_told_once_of_what_is_left_out_and_refused() {
    let server = Server::start("stream-key=secret", "identity");
    let publish = || {
        let publishers = server.stat("publishers");
        let mut client = server.client();
        ask_to_publish(&mut client, "secret");
        server.wait("leave to publish", || {
            server.stat("publishers") > publishers
        });
        client
    };
    // Sound that is left out, with a codec's name that is none.
    for (message, says) in [
        (&b"\x91\x1b\x07\n!"[..], "???!"),
        (&[0xb2, 0], "Speex"),
        (&opus_head(6, 1), "Opus of 6 channels"),
    ] {
        let mut client = publish();
        for n in 0..50 {
            send(&mut client, AUDIO, n, message);
        }
        server.picture(&mut client, 50);
        let warnings = server.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in [says, "127.0.0.1", "left out", "AAC"] {
            assert!(warnings[0].contains(part), "{part}: {warnings:?}");
        }
        server.leave(client);
    }
    // Publishers that are refused, of each kind once in a while.
    for _ in 0..3 {
        let refused = server.stat("refused");
        let mut stranger = server.client();
        ask_to_publish(&mut stranger, "guessed\n");
        server.wait("the refusal", || server.stat("refused") > refused);
        let mut client = publish();
        send(&mut client, VIDEO, 0, &[0x12, 0, 0]);
        server.wait("the codec's", || server.stat("refused") > refused + 1);
        server.leave(client);
    }
    let warnings = server.take_warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("stream-key"), "{warnings:?}");
    assert!(!warnings[0].contains("guessed"), "{warnings:?}");
    assert!(warnings[1].contains("Sorenson"), "{warnings:?}");
    let printable = |text: &String| text.chars().all(|c| !c.is_control()) && text.len() < 500;
    assert!(warnings.iter().all(printable), "{warnings:?}");
}
