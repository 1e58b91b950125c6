// SPDX-License-Identifier: MPL-2.0

//! The layers of a video track and their order; which of them a viewer gets is the [`selector`]'s choice.

mod ladder;
mod preference;
pub mod selector;

use std::time::Duration;

pub use ladder::Rung;
pub use preference::Preference;
pub use selector::{Choice, Selector, Why};

use crate::ids::Rid;
use crate::temporal::{CUTS, Limit};

/// What a publisher says of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its name.
    pub rid: Rid,
    /// Picture width in pixels, where known.
    pub width: Option<u32>,
    /// Picture height in pixels, where known.
    pub height: Option<u32>,
    /// The bitrate that the encoder aims at, in bit/s, where known.
    pub target_bitrate: Option<u64>,
}

/// Layers whose highest bitrates differ by less are not told apart by them: simulcast layers have a half of the sides each,
/// and at least twice the bitrate. Not tuned.
const PLAINLY: f64 = 1.25;
/// A layer that has sent nothing for this long counts as not sent.
pub const ACTIVE_FOR: Duration = Duration::from_secs(2);

/// One layer as far as the choice depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What the publisher says of it.
    pub info: LayerInfo,
    /// Bit/s: measured over the last second, else what the encoder aims at.
    pub bitrate: Option<u64>,
    /// Bit/s that a viewer's network must carry: the highest of the last seconds.
    pub cost: Option<u64>,
    /// Bit/s: the most that was ever measured. While pictures stand still the others are close to each other, and say
    /// nothing of which layer is the better one.
    pub most: Option<u64>,
    /// Whether it is being sent.
    pub active: bool,
    /// What it costs without its upper temporal layers.
    pub temporal: TemporalCosts,
    /// Whoever has one of so many layers above it goes down to it without a keyframe.
    pub from_above: u8,
}

impl Candidate {
    /// Something is known of it: it is or was sent, or its publisher says what it will be.
    fn is_seen(&self) -> bool {
        self.active || height(self).is_some() || bitrate(self).is_some()
    }
}

/// The temporal layers of a layer, and what the lower ones cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TemporalCosts {
    /// The highest one's number; 0 where there is only one.
    pub top: u8,
    costs: [Option<u64>; CUTS],
}

impl TemporalCosts {
    /// `costs` are of those up to number 0, 1 and 2, in bit/s that a viewer's network must carry.
    pub fn new(top: u8, costs: [Option<u64>; CUTS]) -> Self {
        Self { top, costs }
    }

    fn cost(&self, up_to: u8) -> Option<u64> {
        self.costs.get(usize::from(up_to)).copied().flatten()
    }

    /// Whether some do not pass the limit.
    fn is_more_than(&self, limit: Limit) -> bool {
        limit.id().is_some_and(|id| id < self.top)
    }
}

/// The indices of the layers, highest first: by height, then by the highest bitrate, then as the publisher lists them.
///
/// Publishers list simulcast layers in either direction (RFC 8853 sets none), so the list's order says little. Layers that are
/// offered and never sent, as a camera's highest one whose picture is too small for it, stand below all of which something is known.
pub fn ranked(layers: &[Candidate]) -> Vec<usize> {
    let mut order = Vec::new();
    rank(layers, &mut order);
    order
}

/// The same into memory that is there already, for those who look several times a second.
pub fn rank(layers: &[Candidate], order: &mut Vec<usize>) {
    let known = |key: fn(&Candidate) -> Option<u64>| {
        let mut seen = layers.iter().filter(|l| l.is_seen());
        seen.all(|l| key(l).is_some())
    };
    let by_height = known(height);
    let by_bitrate = known(bitrate);
    let is_above = |a: usize, b: usize| {
        let (a, b) = (&layers[a], &layers[b]);
        if a.is_seen() != b.is_seen() {
            return a.is_seen();
        }
        match by_height && height(a) != height(b) {
            true => height(a) > height(b),
            false => by_bitrate && has_more(a, b),
        }
    };
    order.clear();
    // There are few, and what is hardly a difference is no order that a sort could rely on.
    for layer in 0..layers.len() {
        let below = order.iter().rposition(|&other| !is_above(layer, other));
        order.insert(below.map_or(0, |place| place + 1), layer);
    }
}

fn height(layer: &Candidate) -> Option<u64> {
    layer.info.height.map(u64::from)
}

fn bitrate(layer: &Candidate) -> Option<u64> {
    let measured = layer.most.or(layer.bitrate);
    layer.info.target_bitrate.or(measured)
}

/// Whether a layer is the better one by its bitrate: what is aimed at counts as it is, what was measured by a margin.
fn has_more(a: &Candidate, b: &Candidate) -> bool {
    if let (Some(a), Some(b)) = (a.info.target_bitrate, b.info.target_bitrate) {
        return a > b;
    }
    let more = |a: u64, b: u64| a as f64 > b as f64 * PLAINLY;
    bitrate(a).zip(bitrate(b)).is_some_and(|(a, b)| more(a, b))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(super) fn layers(active: &[bool]) -> Vec<Candidate> {
        let layer = |(index, &active): (usize, &bool)| Candidate {
            info: LayerInfo {
                rid: Rid::from_index(index),
                width: None,
                height: None,
                target_bitrate: None,
            },
            bitrate: None,
            cost: None,
            most: None,
            active,
            temporal: TemporalCosts::default(),
            from_above: 0,
        };
        active.iter().enumerate().map(layer).collect()
    }

    #[test]
    fn what_is_never_sent_stands_below_what_is() {
        // By the place in the list of the highest one, of the one in the middle, and of the lowest.
        for places in [[2, 1, 0], [0, 1, 2], [1, 0, 2]] {
            for missing in 0..3 {
                for by_height in [true, false] {
                    let mut three = layers(&[true; 3]);
                    for (rank, place) in places.into_iter().enumerate() {
                        if rank == missing {
                            three[place].active = false;
                        } else if by_height {
                            three[place].info.height = Some(720 >> rank);
                        } else {
                            three[place].most = Some(2_000_000 >> (2 * rank));
                        }
                    }
                    let sent = (0..3).filter(|rank| *rank != missing);
                    let mut expected: Vec<_> = sent.map(|rank| places[rank]).collect();
                    expected.push(places[missing]);
                    assert_eq!(ranked(&three), expected, "{places:?} without {missing}");
                }
            }
        }
    }

    #[test]
    fn height_ranks_before_bitrate_before_the_list() {
        let mut three = layers(&[true; 3]);
        assert_eq!(ranked(&three), [0, 1, 2]);
        for (layer, bitrate) in three.iter_mut().zip([100, 300, 200]) {
            layer.bitrate = Some(bitrate);
        }
        assert_eq!(ranked(&three), [1, 2, 0]);
        for (layer, most) in three.iter_mut().zip([900, 2_000, 1_000]) {
            (layer.most, layer.bitrate) = (Some(most), Some(10));
        }
        assert_eq!(
            ranked(&three),
            [1, 0, 2],
            "pictures stand still; 900 and 1,000 are as good as the same"
        );
        for (layer, height) in three.iter_mut().zip([180, 360, 720]) {
            layer.info.height = Some(height);
        }
        assert_eq!(ranked(&three), [2, 1, 0]);
    }
}
