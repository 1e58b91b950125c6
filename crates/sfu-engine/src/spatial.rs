// SPDX-License-Identifier: MPL-2.0

//! Spatial layers that share an SSRC (SVC of VP9 and AV1): each becomes a layer of its own with what decodes it, as if it were simulcast.
//!
//! Called by the [`Stream`](crate::stream::Stream) once for each packet that comes in, so that nothing is decided per viewer: a packet that
//! several layers need is in each of them, by reference; in the others its number is used up by nothing, which leaves no gap
//! (see [`arrival`](crate::arrival)). Of three layers, highest first, where only keyframes are predicted across layers
//! (`L3T3_KEY`) and where all pictures are (`L3T3`):
//!
//! | layer | `L3T3_KEY`: keyframes, others | `L3T3` |
//! | --- | --- | --- |
//! | 0 | S0 S1 S2, S2 | S0 S1 S2 |
//! | 1 | S0 S1, S1 | S0 S1 |
//! | 2 | S0, S0 | S0 |
//!
//! In the second case who leaves the upper layers out has all that the lower one needs: it goes down at any picture.
//! The last packet of a picture carries the marker in each layer.

use crate::codec::svc::{MOST, Spatial, Structure};
use crate::codec::{Codec, vp9};
use crate::ids::Rid;
use crate::layers::LayerInfo;
use crate::packet::{Layering, RtpIn};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Splitter {
    codec: Codec,
    /// How many layers the stream has now. It never gets fewer: what is not sent any more is what the next one below has.
    count: usize,
    /// What the last keyframe has.
    structure: Structure,
    /// How many layers are sent now.
    active: usize,
    /// By spatial layer: since the keyframe all of it was needed by the one above, too.
    is_nested: [bool; MOST],
}

/// What becomes of a packet in each spatial layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    is_in: bool,
    marker: bool,
    from_above: u8,
}

impl Splitter {
    /// `None`: the codec has no spatial layers, or the publisher sends several SSRCs.
    pub(crate) fn new(codec: Codec, layers: usize) -> Option<Self> {
        (matches!(codec, Codec::Vp9 | Codec::Av1) && layers == 1).then_some(Self {
            codec,
            count: 1,
            structure: Structure::ONE,
            active: 1,
            is_nested: [false; MOST],
        })
    }

    /// How many layers the stream has.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether keyframes among these have more layers than were known, so that the stream is now split into more.
    pub(crate) fn grows(&mut self, packets: &[RtpIn]) -> bool {
        let told = packets.iter().filter_map(|packet| self.mark(packet)?.1);
        let most = told.map(|structure| structure.count).max();
        let before = self.count;
        self.count = before.max(most.unwrap_or(0));
        self.count > before
    }

    /// What the stream's layers are called, from the name of the one that was declared.
    pub(crate) fn infos(&self, declared: &LayerInfo) -> Vec<LayerInfo> {
        let rid = |index: usize| match index {
            0 => declared.rid.clone(),
            _ if declared.rid == Rid::from_index(0) => Rid::from_index(index),
            _ => format!("{}-{index}", declared.rid.as_str())
                .parse()
                .unwrap_or_else(|_| Rid::from_index(index)),
        };
        let info = |index| LayerInfo {
            rid: rid(index),
            width: None,
            height: None,
            target_bitrate: None,
        };
        (0..self.count).map(info).collect()
    }

    /// The size of a layer, highest first, where it is told.
    pub(crate) fn size(&self, layer: usize) -> Option<(u32, u32)> {
        let spatial = self.count.checked_sub(layer + 1)?;
        self.structure.sizes[self.shown(spatial)]
    }

    /// The spatial layer that is the highest one in this.
    fn shown(&self, spatial: usize) -> usize {
        spatial.min(self.active.min(self.count) - 1)
    }

    /// Where a packet is among spatial layers, and those that begin with it. `None`: nothing says so.
    fn mark(&self, packet: &RtpIn) -> Option<(Spatial, Option<Structure>)> {
        match self.codec {
            Codec::Vp9 => vp9::spatial(&packet.payload),
            _ => {
                let told = packet.layering.descriptor.as_ref()?.says?;
                Some((told.spatial, told.structure))
            }
        }
    }

    /// A keyframe begins what it has. Between keyframes a publisher may leave upper layers out and take them in again,
    /// which who has them can follow only where all that decodes the lower ones is in them, too.
    fn begin(&mut self, mark: Spatial, structure: Option<Structure>) {
        if let Some(structure) = structure {
            self.structure = structure;
            self.active = structure.count;
            self.is_nested = [true; MOST];
        }
        let highest = mark.highest.map(usize::from);
        let is_known = |highest: &usize| *highest < self.structure.count;
        if let Some(highest) = highest.filter(is_known)
            && (structure.is_some()
                || self.is_nested[..self.structure.count - 1]
                    .iter()
                    .all(|n| *n))
        {
            self.active = highest + 1;
        }
    }

    /// Hands the packets over layer by layer, the lowest first: who goes down has not yet got the picture from the layer above.
    pub(crate) fn split(
        &mut self,
        packets: &mut Vec<RtpIn>,
        mut hand_over: impl FnMut(usize, Option<(u32, u32)>, &mut Vec<RtpIn>),
    ) {
        let shares: Vec<_> = packets.iter().map(|packet| self.shares(packet)).collect();
        let mut of_layer = Vec::with_capacity(packets.len());
        for spatial in 0..self.count {
            let of_it = packets.iter().zip(&shares).map(|(packet, shares)| {
                let share = shares[spatial];
                RtpIn {
                    marker: share.marker && share.is_in,
                    payload: match share.is_in {
                        true => packet.payload.clone(),
                        false => Default::default(),
                    },
                    layering: Layering {
                        from_above: share.from_above,
                        ..packet.layering.clone()
                    },
                    ..packet.clone()
                }
            });
            of_layer.extend(of_it);
            let layer = self.count - 1 - spatial;
            hand_over(layer, self.size(layer), &mut of_layer);
            of_layer.clear();
        }
        packets.clear();
    }

    fn shares(&mut self, packet: &RtpIn) -> [Share; MOST] {
        let mut shares = [Share::default(); MOST];
        let shares_used = &mut shares[..self.count];
        let Some((mark, structure)) = self.mark(packet) else {
            // What holds nothing, or is of no layer.
            let whole = Share {
                is_in: !packet.payload.is_empty(),
                marker: packet.marker,
                from_above: 0,
            };
            shares_used.fill(whole);
            return shares;
        };
        self.begin(mark, structure);
        let begins_keyframe = structure.is_some();
        let id = usize::from(mark.id);
        for (spatial, share) in shares_used.iter_mut().enumerate() {
            let highest = self.shown(spatial);
            share.is_in = mark.is_needed[highest];
            share.marker = packet.marker || mark.ends_frame && id == highest;
        }
        for spatial in 1..self.count {
            self.is_nested[spatial - 1] &= !shares[spatial - 1].is_in || shares[spatial].is_in;
        }
        if mark.begins_picture && !begins_keyframe {
            let mut above = 0;
            for spatial in (0..self.count - 1).rev() {
                above = if self.is_nested[spatial] {
                    above + 1
                } else {
                    0
                };
                if shares[spatial].is_in {
                    shares[spatial].from_above = above;
                }
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::TemporalMark;
    use crate::codec::dependency::{Dependency, Descriptor};

    /// A packet of a frame: its spatial layer, whether it is of a keyframe, and is needed by upper layers.
    fn packet(id: u8, key: bool, needed: bool, begins: bool, ends: bool, layers: u8) -> RtpIn {
        let has_structure = key && id == 0 && begins;
        let mut payload = vec![
            0xa0 | u8::from(!key) << 6
                | u8::from(begins) << 3
                | u8::from(ends) << 2
                | u8::from(has_structure) << 1
                | u8::from(!needed),
            5,
            id << 1,
            0,
        ];
        if has_structure {
            payload.push((layers - 1) << 5 | 0x10);
            for id in 0..u16::from(layers) {
                payload.extend((320u16 << id).to_be_bytes());
                payload.extend((180u16 << id).to_be_bytes());
            }
        }
        payload.push(9);
        RtpIn {
            seq: 0,
            timestamp: 0,
            captured: Instant::now(),
            marker: false,
            payload: payload.into(),
            red: None,
            layering: Layering::default(),
        }
    }

    /// One picture of two packets a frame, the last of which has the marker.
    fn picture(key: bool, needed: bool, layers: u8) -> Vec<RtpIn> {
        let frames = (0..layers).flat_map(|id| {
            let needed = needed && id + 1 < layers;
            [(true, false), (false, true)]
                .map(|(begins, ends)| packet(id, key, needed, begins, ends, layers))
        });
        let mut all: Vec<_> = frames.collect();
        all.last_mut().unwrap().marker = true;
        all
    }

    /// By layer, highest first: which packets are in it, which has the marker, and from how far above it may be begun.
    fn split(
        splitter: &mut Splitter,
        mut packets: Vec<RtpIn>,
    ) -> Vec<(Vec<usize>, Vec<usize>, u8)> {
        splitter.grows(&packets);
        let mut layers = vec![(Vec::new(), Vec::new(), 0); splitter.count()];
        splitter.split(&mut packets, |layer, _, packets| {
            let which = |is: &dyn Fn(&RtpIn) -> bool| {
                let all = packets.iter().enumerate().filter(|(_, p)| is(p));
                all.map(|(n, _)| n).collect::<Vec<_>>()
            };
            let steps = packets.iter().map(|p| p.layering.from_above).max();
            layers[layer] = (
                which(&|p| !p.payload.is_empty()),
                which(&|p| p.marker),
                steps.unwrap_or(0),
            );
        });
        layers
    }

    #[test]
    fn each_layer_has_what_decodes_it_and_ends_its_pictures() {
        let mut splitter = Splitter::new(Codec::Vp9, 1).unwrap();
        let key = [
            (vec![0, 1, 2, 3, 4, 5], vec![5], 0),
            (vec![0, 1, 2, 3], vec![3], 0),
            (vec![0, 1], vec![1], 0),
        ];
        assert_eq!(split(&mut splitter, picture(true, true, 3)), key);
        assert_eq!(
            [0, 1, 2].map(|layer| splitter.size(layer)),
            [Some((1280, 720)), Some((640, 360)), Some((320, 180))]
        );
        // All pictures are predicted across layers: who has more may go down.
        let mut nested = key.clone();
        (nested[1].2, nested[2].2) = (1, 2);
        assert_eq!(split(&mut splitter, picture(false, true, 3)), nested);
        // Only keyframes are.
        let apart = [
            (vec![4, 5], vec![5], 0),
            (vec![2, 3], vec![3], 0),
            (vec![0, 1], vec![1], 0),
        ];
        assert_eq!(split(&mut splitter, picture(false, false, 3)), apart);
        let after = split(&mut splitter, picture(false, true, 3));
        assert_eq!(
            [after[1].2, after[2].2],
            [0, 0],
            "not after one that was not"
        );
        // The publisher goes on with fewer: nobody is left without pictures.
        let two = split(&mut splitter, picture(true, true, 2));
        assert_eq!(
            (&two[0].0, &two[1].0),
            (&vec![0, 1, 2, 3], &vec![0, 1, 2, 3])
        );
        assert_eq!(splitter.size(0), Some((640, 360)));
        assert_eq!(splitter.count(), 3);
        let two = split(&mut splitter, picture(false, false, 2));
        assert_eq!(
            (&two[0].0, &two[1].0, &two[2].0),
            (&vec![2, 3], &vec![2, 3], &vec![0, 1])
        );
    }

    /// The same of AV1, of which the header extension tells all.
    fn described(picture: Vec<RtpIn>, active: Option<u8>) -> Vec<RtpIn> {
        let described = |packet: RtpIn| {
            let (mut spatial, structure) = vp9::spatial(&packet.payload).unwrap();
            spatial.highest = active;
            let dependency = Dependency {
                spatial,
                structure,
                temporal: TemporalMark::default(),
            };
            RtpIn {
                payload: [9; 4].into(),
                layering: Layering {
                    descriptor: Some(Descriptor::of(dependency).into()),
                    ..Layering::default()
                },
                ..packet
            }
        };
        picture.into_iter().map(described).collect()
    }

    #[test]
    fn av1_is_split_by_its_header_extension() {
        for needed in [true, false] {
            let mut of_vp9 = Splitter::new(Codec::Vp9, 1).unwrap();
            let mut of_av1 = Splitter::new(Codec::Av1, 1).unwrap();
            for key in [true, false, false] {
                let same = || picture(key, needed || key, 3);
                let expected = split(&mut of_vp9, same());
                assert_eq!(split(&mut of_av1, described(same(), None)), expected);
            }
            assert_eq!(of_av1.size(1), Some((640, 360)));
        }
    }

    #[test]
    fn who_has_a_layer_that_is_not_sent_any_more_gets_the_next_one_where_that_can_be_decoded() {
        for needed in [true, false] {
            let mut splitter = Splitter::new(Codec::Av1, 1).unwrap();
            split(&mut splitter, described(picture(true, true, 3), None));
            split(&mut splitter, described(picture(false, needed, 3), None));
            let two = split(&mut splitter, described(picture(false, needed, 2), Some(1)));
            let whole = [0, 1, 2, 3].repeat(usize::from(needed));
            assert_eq!(two[0].0, whole, "{needed}");
            let three = split(&mut splitter, described(picture(true, true, 3), Some(2)));
            assert_eq!(three[0].0, [0, 1, 2, 3, 4, 5]);
            let two = split(&mut splitter, described(picture(true, true, 3), Some(1)));
            assert_eq!(two[0].0, [0, 1, 2, 3], "a keyframe begins with fewer");
        }
    }

    #[test]
    fn av1_without_the_header_extension_is_left_whole() {
        let mut splitter = Splitter::new(Codec::Av1, 1).unwrap();
        assert!(!splitter.grows(&picture(true, true, 3)));
    }

    #[test]
    fn other_streams_are_left_whole() {
        assert!(Splitter::new(Codec::Vp9, 2).is_none());
        assert!(Splitter::new(Codec::Vp8, 1).is_none());
        let mut splitter = Splitter::new(Codec::Vp9, 1).unwrap();
        assert!(!splitter.grows(&picture(true, true, 1)));
        assert!(!splitter.grows(&picture(true, true, 8)));
        assert_eq!(splitter.count(), 1, "more than anybody sends");
    }

    proptest! {
        /// Whatever comes: each packet has its number in each layer, and there are no more layers than are taken.
        #[test]
        fn nothing_is_lost_and_nothing_grows(
            runs in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..24), 0..6), 0..20)
        ) {
            let mut splitter = Splitter::new(Codec::Vp9, 1).unwrap();
            for run in runs {
                let mut packets: Vec<_> = run
                    .into_iter()
                    .map(|payload| RtpIn { payload: payload.into(), ..packet(0, true, true, true, true, 1) })
                    .collect();
                splitter.grows(&packets);
                prop_assert!((1..=MOST).contains(&splitter.count()));
                let count = packets.len();
                let mut layers = 0;
                splitter.split(&mut packets, |_, _, packets| {
                    assert_eq!(packets.len(), count);
                    layers += 1;
                });
                prop_assert_eq!(layers, splitter.count());
            }
        }
    }
}
