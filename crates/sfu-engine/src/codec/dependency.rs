// SPDX-License-Identifier: MPL-2.0

//! Reads the dependency descriptor, a header extension (RTP payload format for AV1, appendix A).
//!
//! A keyframe brings a structure with templates: for each kind of frame its layers, and whether who decodes up to a certain
//! spatial and temporal layer (a decode target) needs it. All other packets name a template. What is not read here, which frames exactly one is
//! predicted from and by which chains losses are found, stands behind what is.
//!
//! Viewers who have agreed on it get the descriptor as it came, but for the frame's number: all else in it is relative to that, so
//! that frames which a viewer goes without need no other change. The mask of active decode targets stays the publisher's,
//! too. It tells receivers which chains are worth a keyframe, and `libwebrtc` follows no chains: it does not read the mask. mediasoup and LiveKit rewrite
//! it, and to do so must write each descriptor's bits anew for each viewer.

use std::io;

use bitstream_io::{BigEndian, BitRead, BitReader};

use super::TemporalMark;
use super::svc::{MOST, Spatial, Structure};

/// Frames, by their numbers in templates, and decode targets, that there can be.
const NUMBERS: u8 = 64;
const TARGETS: usize = 32;
/// Octets that all descriptors have: more have the flags of what follows.
const SHORT: usize = 3;
/// The most that an extension's element has (RFC 8285, section 4.3).
const LONGEST: usize = 255;
/// Where the number of the frame stands.
const FRAME_NUMBER: std::ops::Range<usize> = 1..SHORT;

/// What a decode target makes of a frame.
const NOT_PRESENT: u64 = 0;
const SWITCH: u64 = 2;

/// What a descriptor says of its packet's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) spatial: Spatial,
    pub(crate) temporal: TemporalMark,
    /// With the first packet of a keyframe.
    pub(crate) structure: Option<Structure>,
}

/// A packet's descriptor, for viewers who are told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    octets: Box<[u8]>,
    /// `None`: it is broken, or of a structure that is not known yet, or has more layers than anybody sends.
    pub(crate) says: Option<Dependency>,
}

/// Reads the descriptors of one SSRC.
#[derive(Debug, Default)]
pub struct Reader {
    /// The newest structure and the one before, whose frames may come late.
    known: [Option<Templates>; 2],
}

#[derive(Debug)]
struct Templates {
    offset: u8,
    templates: Vec<Template>,
    targets: Vec<Layers>,
    structure: Structure,
}

/// A spatial and a temporal layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Layers {
    spatial: u8,
    temporal: u8,
}

#[derive(Debug, Clone, Copy, Default)]
struct Template {
    layers: Layers,
    indications: Indications,
}

/// Two bits a decode target.
#[derive(Debug, Clone, Copy, Default)]
struct Indications(u64);

type Bits<'a> = BitReader<&'a [u8], BigEndian>;

impl Descriptor {
    /// The next one of an SSRC. `None`: it is none.
    pub(crate) fn read(octets: &[u8], reader: &mut Reader) -> Option<Self> {
        (SHORT..=LONGEST).contains(&octets.len()).then(|| Self {
            says: reader.read(octets),
            octets: octets.into(),
        })
    }

    #[cfg(test)]
    pub(crate) fn of(says: Dependency) -> Self {
        Self {
            octets: [0; SHORT].into(),
            says: Some(says),
        }
    }

    /// The number of the packet's frame. Wraps.
    pub(crate) fn frame_number(&self) -> u16 {
        u16::from_be_bytes([self.octets[1], self.octets[2]])
    }

    /// Octets of memory.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.octets.len()
    }

    /// Appends it as it came, with another number for the frame.
    pub(crate) fn write(&self, frame_number: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.octets);
        out[start..][FRAME_NUMBER].copy_from_slice(&frame_number.to_be_bytes());
    }
}

impl Reader {
    /// `None`: it is broken, or of a structure that never came, or has more layers than anybody sends.
    fn read(&mut self, descriptor: &[u8]) -> Option<Dependency> {
        let mut bits = BitReader::endian(descriptor, BigEndian);
        let (starts, ends) = (bits.read_bit().ok()?, bits.read_bit().ok()?);
        let number: u8 = bits.read_unsigned::<6, _>().ok()?;
        bits.skip(16).ok()?;
        let (mut structure, mut active, mut custom) = (None, None, None);
        if descriptor.len() > SHORT {
            let [has_structure, has_active, has_custom] = flags(&mut bits).ok()?;
            if has_structure {
                let templates = Templates::read(&mut bits).ok()?;
                structure = Some(templates.structure);
                self.learn(templates);
            }
            let count = self.find(number)?.0.targets.len();
            if has_active {
                active = Some(bits.read_unsigned_var::<u32>(count as u32).ok()?);
            }
            if has_custom {
                custom = Some(Indications::read(&mut bits, count).ok()?);
            }
        }
        let (templates, template) = self.find(number)?;
        let Layers { spatial, temporal } = template.layers;
        let indications = custom.unwrap_or(template.indications);
        let switches_up = templates.target(template.layers);
        let switches_up = switches_up.is_some_and(|target| indications.of(target) == SWITCH);
        Some(Dependency {
            spatial: Spatial {
                id: spatial,
                begins_picture: starts && spatial == 0,
                ends_frame: ends,
                is_needed: templates.needed(spatial, indications),
                highest: active.and_then(|active| templates.highest(active)),
            },
            temporal: TemporalMark {
                id: temporal,
                switches_up,
            },
            structure: structure.filter(|_| starts && spatial == 0),
        })
    }

    /// A structure that is sent again is the same one.
    fn learn(&mut self, templates: Templates) {
        let [newest, before] = &mut self.known;
        let is_again = newest
            .as_ref()
            .is_some_and(|n| n.offset == templates.offset);
        let left = newest.replace(templates);
        if !is_again {
            *before = left;
        }
    }

    /// The template of this number: those of a structure go on behind the ones of the structure before.
    fn find(&self, number: u8) -> Option<(&Templates, &Template)> {
        let mut known = self.known.iter().flatten();
        known.find_map(|known| {
            let at = (number + NUMBERS - known.offset) % NUMBERS;
            Some((known, known.templates.get(usize::from(at))?))
        })
    }
}

/// Whether there is a structure, a mask of active decode targets, and other indications than the template's. Other
/// differences and chains come behind all that is read.
fn flags(bits: &mut Bits<'_>) -> io::Result<[bool; 3]> {
    let flags = [bits.read_bit()?, bits.read_bit()?, bits.read_bit()?];
    bits.skip(2)?;
    Ok(flags)
}

impl Templates {
    fn read(bits: &mut Bits<'_>) -> io::Result<Self> {
        let offset = bits.read_unsigned::<6, _>()?;
        let count = usize::from(bits.read_unsigned::<5, u8>()?) + 1;
        let mut templates = layers(bits)?;
        for template in &mut templates {
            template.indications = Indications::read(bits, count)?;
        }
        for _ in &templates {
            while bits.read_bit()? {
                bits.skip(4)?;
            }
        }
        skip_chains(bits, count, templates.len())?;
        let spatial = templates.iter().map(|t| t.layers.spatial).max();
        let spatial = usize::from(spatial.unwrap_or(0)) + 1;
        if spatial > MOST {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut structure = Structure {
            count: spatial,
            ..Structure::ONE
        };
        if bits.read_bit()? {
            for size in &mut structure.sizes[..spatial] {
                let mut side = || Ok::<_, io::Error>(bits.read_unsigned::<16, u32>()? + 1);
                *size = Some((side()?, side()?));
            }
        }
        let targets = (0..count).map(|target| reach(&templates, target)).collect();
        Ok(Self {
            offset,
            templates,
            targets,
            structure,
        })
    }

    fn target(&self, layers: Layers) -> Option<usize> {
        self.targets.iter().position(|target| *target == layers)
    }

    /// By spatial layer, whether who decodes it with all its temporal layers needs a frame of the layer `of`.
    fn needed(&self, of: u8, indications: Indications) -> [bool; MOST] {
        std::array::from_fn(|spatial| {
            let targets = self.targets.iter().enumerate();
            let of_it = targets.filter(|(_, target)| usize::from(target.spatial) == spatial);
            match of_it.max_by_key(|(_, target)| target.temporal) {
                Some((target, _)) => indications.of(target) != NOT_PRESENT,
                None => usize::from(of) <= spatial,
            }
        })
    }

    /// The highest spatial layer of the decode targets in a mask, the first of which is its lowest bit.
    fn highest(&self, active: u32) -> Option<u8> {
        let active = |(at, _): &(usize, _)| active >> at & 1 == 1;
        let targets = self.targets.iter().enumerate().filter(active);
        targets.map(|(_, target)| target.spatial).max()
    }
}

/// The layers of the templates: each says how the next one's differ.
fn layers(bits: &mut Bits<'_>) -> io::Result<Vec<Template>> {
    let mut templates = Vec::new();
    let mut layers = Layers::default();
    loop {
        templates.push(Template {
            layers,
            ..Template::default()
        });
        match bits.read_unsigned::<2, u8>()? {
            0 => {}
            1 => layers.temporal += 1,
            2 => {
                layers = Layers {
                    spatial: layers.spatial + 1,
                    temporal: 0,
                }
            }
            _ => return Ok(templates),
        }
        if templates.len() >= usize::from(NUMBERS) {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Up to which layers a decode target goes: those of the highest frames that it needs.
fn reach(templates: &[Template], target: usize) -> Layers {
    let needed = templates
        .iter()
        .filter(|t| t.indications.of(target) != NOT_PRESENT);
    needed.fold(Layers::default(), |most, template| Layers {
        spatial: most.spatial.max(template.layers.spatial),
        temporal: most.temporal.max(template.layers.temporal),
    })
}

fn skip_chains(bits: &mut Bits<'_>, targets: usize, templates: usize) -> io::Result<()> {
    let chains = non_symmetric(bits, targets as u32 + 1)?;
    if chains > 0 {
        for _ in 0..targets {
            non_symmetric(bits, chains)?;
        }
        bits.skip(4 * chains * templates as u32)?;
    }
    Ok(())
}

/// A number below `most`, which takes fewer bits where it is small.
fn non_symmetric(bits: &mut Bits<'_>, most: u32) -> io::Result<u32> {
    let width = u32::BITS - most.leading_zeros();
    let short = (1 << width) - most;
    let value = bits.read_unsigned_var(width - 1)?;
    if value < short {
        return Ok(value);
    }
    Ok((value << 1 | u32::from(bits.read_bit()?)) - short)
}

impl Indications {
    fn read(bits: &mut Bits<'_>, targets: usize) -> io::Result<Self> {
        debug_assert!(targets <= TARGETS);
        let mut all = 0;
        for target in 0..targets {
            all |= bits.read_unsigned::<2, u64>()? << (2 * target);
        }
        Ok(Self(all))
    }

    fn of(self, target: usize) -> u64 {
        self.0 >> (2 * target) & 3
    }
}

#[cfg(test)]
mod tests {
    use bitstream_io::{BitWrite, BitWriter};
    use proptest::prelude::*;

    use super::*;

    const REQUIRED: u64 = 3;

    /// Three spatial layers of two temporal ones, predicted across layers in keyframes only (`L3T2_KEY`): by template, its
    /// layers and what each decode target makes of it.
    const TEMPLATES: [(u8, u8, [u64; 6]); 8] = [
        (0, 0, [SWITCH; 6]),
        (0, 0, [SWITCH, SWITCH, 0, 0, 0, 0]),
        (0, 1, [0, 1, 0, 0, 0, 0]),
        (1, 0, [0, 0, SWITCH, SWITCH, SWITCH, SWITCH]),
        (1, 0, [0, 0, SWITCH, SWITCH, 0, 0]),
        (1, 1, [0, 0, 0, 1, 0, 0]),
        (2, 0, [0, 0, 0, 0, SWITCH, REQUIRED]),
        (2, 1, [0, 0, 0, 0, 0, SWITCH]),
    ];

    #[derive(Clone, Copy, Default)]
    struct Said<'a> {
        starts: bool,
        ends: bool,
        number: u8,
        /// The number of the first template.
        structure: Option<u8>,
        active: Option<u32>,
        custom: Option<&'a [u64]>,
    }

    fn write(said: Said<'_>) -> Vec<u8> {
        let mut bits = BitWriter::endian(Vec::new(), BigEndian);
        bits.write_bit(said.starts).unwrap();
        bits.write_bit(said.ends).unwrap();
        bits.write_unsigned::<6, u8>(said.number).unwrap();
        bits.write_unsigned::<16, u16>(4_711).unwrap();
        if said.structure.is_some() || said.active.is_some() || said.custom.is_some() {
            bits.write_bit(said.structure.is_some()).unwrap();
            bits.write_bit(said.active.is_some()).unwrap();
            bits.write_bit(said.custom.is_some()).unwrap();
            bits.write_unsigned::<2, u8>(0).unwrap();
            if let Some(offset) = said.structure {
                write_structure(&mut bits, offset);
            }
            if let Some(active) = said.active {
                bits.write_unsigned::<6, u32>(active).unwrap();
            }
            for indication in said.custom.into_iter().flatten() {
                bits.write_unsigned::<2, u64>(*indication).unwrap();
            }
        }
        bits.byte_align().unwrap();
        bits.into_writer()
    }

    fn write_structure(bits: &mut BitWriter<Vec<u8>, BigEndian>, offset: u8) {
        bits.write_unsigned::<6, u8>(offset).unwrap();
        bits.write_unsigned::<5, u8>(6 - 1).unwrap();
        for (n, (spatial, temporal, _)) in TEMPLATES.iter().enumerate() {
            let step = match TEMPLATES.get(n + 1) {
                None => 3,
                Some((s, _, _)) if s > spatial => 2,
                Some((_, t, _)) => u8::from(t > temporal),
            };
            bits.write_unsigned::<2, u8>(step).unwrap();
        }
        for indication in TEMPLATES.iter().flat_map(|(_, _, all)| all) {
            bits.write_unsigned::<2, u64>(*indication).unwrap();
        }
        // A difference each, of which some are two.
        for (n, _) in TEMPLATES.iter().enumerate() {
            for _ in 0..n % 3 {
                bits.write_unsigned::<5, u8>(0b1_0111).unwrap();
            }
            bits.write_bit(false).unwrap();
        }
        // Three chains, of at most six: below seven the numbers 1 to 6 have three bits, and below three 1 and 2 have two.
        bits.write_unsigned::<3, u8>(3 + 1).unwrap();
        for chain in [0, 0, 1, 1, 2, 2] {
            match chain {
                0 => bits.write_unsigned::<1, u8>(0).unwrap(),
                _ => bits.write_unsigned::<2, u8>(chain + 1).unwrap(),
            }
        }
        for _ in 0..3 * TEMPLATES.len() {
            bits.write_unsigned::<4, u8>(6).unwrap();
        }
        bits.write_bit(true).unwrap();
        for size in [(320, 180), (640, 360), (1_280, 720)] {
            bits.write_unsigned::<16, u16>(size.0 - 1).unwrap();
            bits.write_unsigned::<16, u16>(size.1 - 1).unwrap();
        }
    }

    fn key(offset: u8) -> Vec<u8> {
        write(Said {
            starts: true,
            number: offset,
            structure: Some(offset),
            ..Said::default()
        })
    }

    fn frame(number: u8) -> Vec<u8> {
        write(Said {
            starts: true,
            ends: true,
            number,
            ..Said::default()
        })
    }

    #[test]
    fn a_keyframe_tells_the_layers_and_others_name_their_template() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(&frame(1)), None, "of no structure");
        let begun = reader.read(&key(0)).unwrap();
        let sizes = [Some((320, 180)), Some((640, 360)), Some((1_280, 720)), None];
        assert_eq!(begun.structure, Some(Structure { count: 3, sizes }));
        assert_eq!(begun.spatial.is_needed[..3], [true; 3]);
        assert!(begun.spatial.begins_picture && !begun.spatial.ends_frame);
        for (number, id, needed, temporal, switches_up) in [
            (1, 0, [true, false, false], 0, true),
            (2, 0, [true, false, false], 1, false),
            (3, 1, [false, true, true], 0, true),
            (4, 1, [false, true, false], 0, true),
            (6, 2, [false, false, true], 0, true),
            (7, 2, [false, false, true], 1, true),
        ] {
            let read = reader.read(&frame(number)).unwrap();
            assert_eq!(read.structure, None, "{number}");
            assert_eq!(read.spatial.id, id, "{number}");
            assert_eq!(read.spatial.is_needed[..3], needed, "{number}");
            assert_eq!(read.spatial.begins_picture, id == 0, "{number}");
            assert!(read.spatial.ends_frame, "{number}");
            let mark = TemporalMark {
                id: temporal,
                switches_up,
            };
            assert_eq!(read.temporal, mark, "{number}");
        }
        assert_eq!(reader.read(&frame(8)), None, "behind the last template");
    }

    #[test]
    fn frames_say_what_is_otherwise_than_in_their_template() {
        let mut reader = Reader::default();
        reader.read(&key(60)).unwrap();
        let read = |reader: &mut Reader, said| reader.read(&write(said)).unwrap();
        // Numbers wrap: this is the third template.
        let custom = [0, SWITCH, 0, REQUIRED, 0, 0];
        let other = Said {
            number: 62,
            custom: Some(&custom),
            ..Said::default()
        };
        let other = read(&mut reader, other);
        assert_eq!(other.spatial.is_needed[..3], [true, true, false]);
        assert!(other.temporal.switches_up);
        for (active, highest) in [
            (0b111111, Some(2)),
            (0b001111, Some(1)),
            (0b11, Some(0)),
            (0, None),
        ] {
            let said = Said {
                number: 0,
                active: Some(active),
                ..Said::default()
            };
            assert_eq!(
                read(&mut reader, said).spatial.highest,
                highest,
                "{active:b}"
            );
        }
    }

    #[test]
    fn what_comes_late_belongs_to_the_structure_before() {
        let mut reader = Reader::default();
        reader.read(&key(0)).unwrap();
        reader.read(&key(8)).unwrap();
        reader.read(&key(8)).unwrap();
        assert_eq!(reader.read(&frame(8 + 4)).unwrap().spatial.id, 1);
        assert_eq!(reader.read(&frame(6)).unwrap().spatial.id, 2);
        reader.read(&key(16)).unwrap();
        assert_eq!(reader.read(&frame(6)), None, "that is long gone");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(
            all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..8),
            cut in 0usize..60,
        ) {
            let mut reader = Reader::default();
            let whole = key(0);
            reader.read(&whole[..cut.min(whole.len())]);
            for descriptor in all {
                reader.read(&descriptor);
            }
        }
    }
}
