// SPDX-License-Identifier: MPL-2.0

//! Which layer a viewer should get. Called by the subscriber when anything that the choice depends on has changed.
//!
//! Today a viewer's own wish decides, else the highest layer that is sent. The choice by the viewer's bandwidth enters
//! here, as one more input of [`choose`].

use std::time::Duration;

use crate::ids::Rid;

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

/// A layer that has sent nothing for this long counts as not sent.
pub const ACTIVE_FOR: Duration = Duration::from_secs(2);

/// The index of the layer to forward, out of `layers` (highest first) and whether each is being sent.
///
/// A wish for a layer that exists is honoured even while it is silent, if no other one is sent either; otherwise the
/// next lower one that is sent steps in, then the next higher one.
pub fn choose(wanted: Option<&Rid>, layers: &[(LayerInfo, bool)]) -> Option<usize> {
    let wish = wanted.and_then(|rid| layers.iter().position(|(layer, _)| layer.rid == *rid));
    let start = wish.unwrap_or(0);
    let active = |index: &usize| layers.get(*index).is_some_and(|(_, active)| *active);
    (start..layers.len())
        .find(active)
        .or_else(|| (0..start).rev().find(active))
        .or_else(|| (start < layers.len()).then_some(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_counts_then_the_highest_that_is_sent() {
        for (wanted, active, expected) in [
            (None, &[true, true, true][..], Some(0)),
            (None, &[false, true, true], Some(1)),
            (Some("1"), &[true, true, true], Some(1)),
            (Some("1"), &[true, false, true], Some(2)),
            (Some("2"), &[true, true, false], Some(1)),
            (Some("1"), &[false, false, false], Some(1)),
            (Some("9"), &[true, true], Some(0)),
            (None, &[], None),
        ] {
            let layers: Vec<_> = active
                .iter()
                .enumerate()
                .map(|(index, &active)| {
                    let layer = LayerInfo {
                        rid: Rid::from_index(index),
                        width: None,
                        height: None,
                        target_bitrate: None,
                    };
                    (layer, active)
                })
                .collect();
            let wanted = wanted.map(|w: &str| w.parse().unwrap());
            assert_eq!(
                choose(wanted.as_ref(), &layers),
                expected,
                "{wanted:?} of {active:?}"
            );
        }
    }
}
