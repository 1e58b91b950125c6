// SPDX-License-Identifier: MPL-2.0

//! A publisher whose spatial layers share an SSRC (VP9, AV1): each viewer gets one of them with what decodes it, whatever is lost on
//! both ways and however its network changes.

use std::collections::BTreeSet;
use std::time::Duration;

use sfu_engine::{Codec, DescriptorReader, LayerInfo, Layering, Preference, Rid, RtpIn, TrackKind};
use sfu_impair::{Conditions, Rng};

use crate::descriptor;
use crate::net::good;
use crate::publisher::FRAME;
use crate::viewer::Pictures;
use crate::world::World;

/// Packets of a frame of each spatial layer: 270 kbit/s, 800 and 1,900 with those below.
const PACKETS: [u8; 3] = [1, 2, 4];
const PACKET: usize = 1_100;
const MAGIC: &[u8] = b"SVC!";

/// How frames are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Across layers in keyframes only: `L3T3_KEY`.
    Key,
    /// Across layers in all: `L3T3`.
    Full,
}

/// What a packet's payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) frame: u32,
    pub(crate) key: bool,
    pub(crate) full: bool,
    pub(crate) spatial: u8,
    pub(crate) index: u8,
    /// Since the keyframe.
    pub(crate) phase: u8,
}

struct Encoder {
    codec: Codec,
    reader: DescriptorReader,
    mode: Mode,
    /// Spatial layers that it sends now.
    layers: u8,
    frame: u32,
    key_at: u32,
    seq: u16,
    lowest: u8,
    asked: usize,
    rng: Rng,
    loss: f64,
    late: Vec<RtpIn>,
}

impl Encoder {
    fn new(world: &World, codec: Codec, mode: Mode, seed: u64, loss: f64) -> Self {
        let info = LayerInfo {
            rid: Rid::from_index(0),
            width: None,
            height: None,
            target_bitrate: None,
        };
        let lease = world.publisher.lease;
        world.stream.set_video(lease, codec, vec![info]);
        Self {
            codec,
            reader: DescriptorReader::default(),
            mode,
            layers: 3,
            frame: 0,
            key_at: 0,
            seq: 65_000,
            lowest: 0,
            asked: 0,
            rng: Rng::new(seed),
            loss,
            late: Vec::new(),
        }
    }

    /// Sends the next picture; what was lost of the one before comes again first.
    fn picture(&mut self, world: &World) {
        let asked = world.publisher.encoder.requests.lock().unwrap().len();
        let key = self.frame.is_multiple_of(90) || asked > self.asked;
        self.asked = asked;
        if key {
            self.key_at = self.frame;
        }
        let mut packets = std::mem::take(&mut self.late);
        let phase = ((self.frame - self.key_at) % 4) as u8;
        self.lowest = self.lowest.wrapping_add(u8::from(phase == 0));
        for spatial in 0..self.layers {
            for index in 0..PACKETS[usize::from(spatial)] {
                let packet = self.packet(world, key, phase, spatial, index);
                match self.rng.chance(self.loss) && self.frame > 0 {
                    true => self.late.push(packet),
                    false => packets.push(packet),
                }
            }
        }
        self.frame += 1;
        let (stream, lease) = (&world.stream, world.publisher.lease);
        stream.push(world.now, lease, TrackKind::Video, 0, packets);
    }

    fn packet(&mut self, world: &World, key: bool, phase: u8, spatial: u8, index: u8) -> RtpIn {
        let last = index + 1 == PACKETS[usize::from(spatial)];
        let top = spatial + 1 == self.layers;
        let mark = Mark {
            frame: self.frame,
            key,
            full: self.mode == Mode::Full,
            spatial,
            index,
            phase,
        };
        let structure = key && spatial == 0 && index == 0;
        let mut payload = match self.codec {
            // A frame in one element, of which a new sequence begins with the first.
            Codec::Av1 => vec![0x10 | u8::from(structure) << 3, 0x30],
            _ => self.vp9_descriptor(mark, structure, last),
        };
        payload.extend(MAGIC);
        payload.extend(self.frame.to_be_bytes());
        payload.extend([u8::from(key), u8::from(mark.full), spatial, index, phase]);
        payload.resize(PACKET, 0);
        let layering = match self.codec {
            Codec::Av1 => {
                let octets = descriptor::write(mark, structure, last);
                Layering::described(&mut self.reader, &octets)
            }
            _ => Layering::default(),
        };
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        RtpIn {
            seq,
            timestamp: self.frame * 2_970,
            captured: world.now,
            marker: top && last,
            payload: payload.into(),
            red: None,
            layering,
        }
    }

    fn vp9_descriptor(&self, mark: Mark, structure: bool, last: bool) -> Vec<u8> {
        let Mark {
            key,
            spatial,
            index,
            phase,
            ..
        } = mark;
        let top = spatial + 1 == self.layers;
        let needed_above = !top && (key || self.mode == Mode::Full);
        let temporal = [0u8, 2, 1, 2][usize::from(phase)];
        let [high, low] = (self.frame as u16 | 0x8000).to_be_bytes();
        let mut payload = vec![
            0xa0 | u8::from(!key) << 6
                | u8::from(index == 0) << 3
                | u8::from(last) << 2
                | u8::from(structure) << 1
                | u8::from(!needed_above),
            high,
            low,
            temporal << 5 | 0x10 | spatial << 1 | u8::from(key && spatial > 0),
            self.lowest,
        ];
        if structure {
            payload.push((self.layers - 1) << 5 | 0x10);
            for spatial in 0..u16::from(self.layers) {
                payload.extend((320u16 << spatial).to_be_bytes());
                payload.extend((180u16 << spatial).to_be_bytes());
            }
        }
        payload
    }
}

pub(crate) fn read(payload: &[u8]) -> Option<Mark> {
    let at = payload.windows(MAGIC.len()).position(|w| w == MAGIC)?;
    let [a, b, c, d, key, full, spatial, index, phase, ..] = payload.get(at + MAGIC.len()..)?
    else {
        return None;
    };
    Some(Mark {
        frame: u32::from_be_bytes([*a, *b, *c, *d]),
        key: *key == 1,
        full: *full == 1,
        spatial: *spatial,
        index: *index,
        phase: *phase,
    })
}

/// What a decoder makes of what came.
#[derive(Debug, Default)]
struct Decoded {
    /// Pictures by their highest spatial layer.
    pictures: [u64; 3],
    /// Frames whose references or packets are not there, though no packet is missing.
    broken: u64,
    /// Pictures that end without the marker, or go on after it.
    markers: u64,
    gaps: u64,
    /// The spatial layer of the last picture.
    last: Option<u8>,
}

fn decoded(pictures: &Pictures) -> Decoded {
    let mut result = Decoded::default();
    let mut have: BTreeSet<(u32, u8)> = BTreeSet::new();
    let mut picture: Vec<Mark> = Vec::new();
    let (mut expected, mut timestamp, mut ended, mut lost) = (None, None, true, true);
    let all = pictures.raw.as_ref().unwrap();
    for (&seq, packet) in all {
        if expected.is_some_and(|expected| expected != seq) {
            result.gaps += 1;
            lost = true;
            have.clear();
        }
        expected = Some(seq + 1);
        if packet.payload.is_empty() {
            continue;
        }
        let mark = read(&packet.payload).expect("our payload");
        if timestamp.replace(packet.timestamp) != Some(packet.timestamp) {
            result.markers += u64::from(!ended && !lost);
            decode(&picture, &mut have, &mut result, lost);
            picture.clear();
            lost &= !mark.key;
        } else {
            result.markers += u64::from(ended && !lost);
        }
        ended = packet.marker;
        picture.push(mark);
    }
    result
}

fn decode(picture: &[Mark], have: &mut BTreeSet<(u32, u8)>, result: &mut Decoded, lost: bool) {
    let Some(first) = picture.first() else {
        return;
    };
    if lost {
        return;
    }
    if first.key {
        have.clear();
    }
    let mut highest = None;
    for frame in picture.chunk_by(|a, b| a.spatial == b.spatial) {
        let Mark {
            frame: number,
            key,
            full,
            spatial,
            phase,
            ..
        } = frame[0];
        let whole = frame
            .iter()
            .zip(0..)
            .filter(|(m, n)| m.index == *n && m.frame == number);
        let is_whole = whole.count() == usize::from(PACKETS[usize::from(spatial)]);
        let before = number.wrapping_sub([4, 1, 2, 1][usize::from(phase)]);
        let in_time = key || have.contains(&(before, spatial));
        let needs_below = spatial > 0 && (key || full);
        let in_picture = !needs_below || have.contains(&(number, spatial - 1));
        if is_whole && in_time && in_picture {
            have.insert((number, spatial));
            highest = Some(spatial);
        } else {
            result.broken += 1;
        }
    }
    if let Some(highest) = highest {
        result.pictures[usize::from(highest)] += 1;
        result.last = Some(highest);
    }
}

fn world(seed: u64, mode: Mode, loss: f64) -> (World, Encoder) {
    world_of(Codec::Vp9, seed, mode, loss)
}

fn world_of(codec: Codec, seed: u64, mode: Mode, loss: f64) -> (World, Encoder) {
    let mut world = World::new(seed, 1);
    world.publisher_paused = true;
    let mut encoder = Encoder::new(&world, codec, mode, seed, loss);
    encoder.picture(&world);
    (world, encoder)
}

fn join(world: &mut World, link: Conditions, preference: Preference) -> usize {
    let viewer = world.join_with(link, preference);
    world.viewers[viewer].0.pictures.raw = Some(Default::default());
    viewer
}

fn run(world: &mut World, encoder: &mut Encoder, seconds: u32) {
    for _ in 0..seconds * 30 {
        world.run_for(FRAME);
        encoder.picture(world);
    }
    world.run_for(FRAME);
}

fn of(world: &World, viewer: usize) -> Decoded {
    decoded(&world.viewers[viewer].0.pictures)
}

fn pinned(layer: &str) -> Preference {
    Preference::pin(layer.parse().unwrap())
}

#[test]
fn spatial_layers_are_layers_of_the_stream() {
    for mode in [Mode::Key, Mode::Full] {
        let (mut world, mut encoder) = world(1, mode, 0.0);
        run(&mut world, &mut encoder, 3);
        let layers = world.stream.info(world.now).video.unwrap().layers;
        let told: Vec<_> = layers
            .iter()
            .map(|l| {
                (
                    l.rid.as_str().to_owned(),
                    l.height,
                    l.active,
                    l.temporal_layers,
                )
            })
            .collect();
        let expected = [("0", 720), ("1", 360), ("2", 180)];
        let expected = expected.map(|(rid, height)| (rid.to_owned(), Some(height), true, 3));
        assert_eq!(told, expected, "{mode:?}");
        let rates: Vec<_> = layers.iter().map(|l| l.bitrate.unwrap()).collect();
        assert!(rates.is_sorted_by(|a, b| a > b), "{rates:?}");
        assert!(rates[2] < 350_000, "{rates:?}");
    }
}

#[test]
fn each_viewer_gets_its_layer_whole_and_a_late_joiner_a_picture() {
    for mode in [Mode::Key, Mode::Full] {
        let (mut world, mut encoder) = world(2, mode, 0.0);
        let viewers = ["2", "1", "0"].map(|layer| join(&mut world, good(), pinned(layer)));
        run(&mut world, &mut encoder, 4);
        let late = join(&mut world, good(), Preference::default());
        run(&mut world, &mut encoder, 5);
        // By itself a viewer begins with what it can be shown at once.
        for (viewer, spatial) in viewers.into_iter().zip(0u8..).chain([(late, 2)]) {
            let seen = of(&world, viewer);
            let clean = (seen.broken, seen.markers, seen.gaps);
            assert_eq!(clean, (0, 0, 0), "{mode:?} {spatial}: {seen:?}");
            assert_eq!(seen.last, Some(spatial), "{mode:?}: {seen:?}");
            let shown: u64 = seen.pictures.iter().sum();
            assert!(shown >= 130, "{mode:?} {spatial}: {seen:?}");
        }
    }
}

#[test]
fn going_down_needs_no_keyframe_where_upper_layers_build_on_lower_ones() {
    for (mode, asks) in [(Mode::Full, false), (Mode::Key, true)] {
        let (mut world, mut encoder) = world(3, mode, 0.0);
        let viewer = join(&mut world, good(), Preference::default());
        run(&mut world, &mut encoder, 5);
        assert_eq!(of(&world, viewer).last, Some(2));
        let before = world.publisher.encoder.requests.lock().unwrap().len();
        world.set_preference(viewer, pinned("2"));
        for _ in 0..5 {
            world.run_for(FRAME);
            encoder.picture(&world);
        }
        world.run_for(FRAME);
        let asked = world.publisher.encoder.requests.lock().unwrap().len();
        assert_eq!(asked > before, asks, "{mode:?}");
        run(&mut world, &mut encoder, 2);
        world.set_preference(viewer, pinned("0"));
        run(&mut world, &mut encoder, 4);
        let seen = of(&world, viewer);
        assert_eq!(seen.last, Some(2), "{mode:?}: {seen:?}");
        assert!(seen.pictures[0] >= 50, "{mode:?}: {seen:?}");
        let clean = (seen.broken, seen.markers, seen.gaps);
        assert_eq!(clean, (0, 0, 0), "{mode:?}: {seen:?}");
    }
}

#[test]
fn who_publishes_fewer_layers_later_leaves_nobody_without_pictures() {
    for mode in [Mode::Key, Mode::Full] {
        let (mut world, mut encoder) = world(4, mode, 0.0);
        let viewer = join(&mut world, good(), pinned("0"));
        run(&mut world, &mut encoder, 3);
        encoder.layers = 2;
        encoder.frame = encoder.frame.next_multiple_of(90);
        run(&mut world, &mut encoder, 4);
        let seen = of(&world, viewer);
        assert_eq!(seen.last, Some(1), "{mode:?}: {seen:?}");
        assert!(seen.pictures[1] >= 110, "{mode:?}: {seen:?}");
        encoder.layers = 3;
        encoder.frame = encoder.frame.next_multiple_of(90);
        run(&mut world, &mut encoder, 3);
        let seen = of(&world, viewer);
        assert_eq!(seen.last, Some(2), "{mode:?}: {seen:?}");
        assert_eq!((seen.broken, seen.markers), (0, 0), "{mode:?}: {seen:?}");
    }
}

#[test]
fn no_viewer_is_sent_a_frame_that_it_cannot_decode() {
    for seed in 10..16 {
        let mode = [Mode::Key, Mode::Full][seed as usize % 2];
        let (mut world, mut encoder) = world(seed, mode, 0.02);
        let link = |rate, loss| Conditions {
            delay: Duration::from_millis(20),
            rate: Some(rate),
            loss,
            ..Conditions::default()
        };
        let links = [(8_000_000, 0.02), (1_300_000, 0.01), (500_000, 0.0)];
        let viewers = links.map(|(rate, loss)| {
            let viewer = join(&mut world, link(rate, loss), Preference::default());
            run(&mut world, &mut encoder, 1);
            viewer
        });
        run(&mut world, &mut encoder, 30);
        let mut most = Vec::new();
        for viewer in viewers {
            let seen = of(&world, viewer);
            let clean = (seen.broken, seen.markers);
            assert_eq!(clean, (0, 0), "seed {seed} {mode:?}: {seen:?}");
            let shown: u64 = seen.pictures.iter().sum();
            assert!(shown >= 300, "seed {seed} {mode:?}: {seen:?}");
            most.push(seen.pictures);
        }
        assert!(
            most[0][2] > 2 * most[2][2],
            "seed {seed} {mode:?}: {most:?}"
        );
        assert!(most[2][0] > most[0][0], "seed {seed} {mode:?}: {most:?}");
    }
}

/// By the descriptors that came, as a browser does it.
#[test]
fn who_takes_descriptors_is_shown_all_layers_of_av1_and_who_does_not_the_lowest() {
    for (mode, loss) in [(Mode::Key, 0.0), (Mode::Full, 0.0), (Mode::Key, 0.01)] {
        let (mut world, mut encoder) = world_of(Codec::Av1, 5, mode, loss);
        world.viewers_take_descriptors = true;
        let told = join(&mut world, good(), Preference::default());
        let narrow = Conditions {
            rate: Some(500_000),
            ..good()
        };
        let narrow = join(&mut world, narrow, Preference::default());
        world.viewers_take_descriptors = false;
        let untold = join(&mut world, good(), Preference::default());
        run(&mut world, &mut encoder, 15);
        let seen = [told, narrow, untold].map(|viewer| of(&world, viewer));
        for seen in &seen {
            assert_eq!((seen.broken, seen.markers), (0, 0), "{mode:?}: {seen:?}");
        }
        assert_eq!(seen[0].last, Some(2), "{mode:?}: {seen:?}");
        assert!(seen[0].pictures[2] > 250, "{mode:?}: {seen:?}");
        // Of the middle one that may be the lower temporal layers.
        assert!(seen[1].last < Some(2), "{mode:?}: {seen:?}");
        assert!(seen[1].pictures[2] < 100, "{mode:?}: {seen:?}");
        assert_eq!(seen[2].pictures[1..], [0, 0], "{mode:?}: {seen:?}");
        for (viewer, pictures) in [(told, &seen[0].pictures), (narrow, &seen[1].pictures)] {
            let shown = descriptor::decoded(&world.viewers[viewer].0.pictures);
            assert_eq!(shown.broken, 0, "{mode:?}: {shown:?}");
            let all = pictures.iter().sum::<u64>();
            // The last picture may not be whole yet.
            assert!(shown.pictures >= all, "{mode:?}: {shown:?} of {all}");
        }
        let packets = world.viewers[untold].0.pictures.raw.as_ref().unwrap();
        assert!(packets.values().all(|packet| packet.descriptor.is_none()));
    }
}

#[test]
fn who_takes_descriptors_goes_down_and_up_with_its_network() {
    for mode in [Mode::Key, Mode::Full] {
        let (mut world, mut encoder) = world_of(Codec::Av1, 6, mode, 0.0);
        world.viewers_take_descriptors = true;
        let viewer = join(&mut world, good(), Preference::default());
        run(&mut world, &mut encoder, 12);
        assert_eq!(of(&world, viewer).last, Some(2), "{mode:?}");
        let narrow = Conditions {
            rate: Some(800_000),
            ..good()
        };
        world.set_link(viewer, narrow);
        let before = of(&world, viewer);
        run(&mut world, &mut encoder, 12);
        let seen = of(&world, viewer);
        let lower = seen.pictures[0] + seen.pictures[1];
        let lower_before = before.pictures[0] + before.pictures[1];
        // The highest one alone takes 1.1 Mbit/s where only keyframes are predicted across layers, and else 1.9.
        assert!(lower > lower_before + 100, "{mode:?}: {before:?} {seen:?}");
        world.set_link(viewer, good());
        run(&mut world, &mut encoder, 30);
        let seen = of(&world, viewer);
        assert_eq!(seen.last, Some(2), "{mode:?}: {seen:?}");
        assert_eq!((seen.broken, seen.markers), (0, 0), "{mode:?}: {seen:?}");
        let shown = descriptor::decoded(&world.viewers[viewer].0.pictures);
        assert_eq!(shown.broken, 0, "{mode:?}: {shown:?}");
    }
}
