// SPDX-License-Identifier: MPL-2.0

//! What a viewer may be sent, best first: each layer and, as half steps between layers, layers at a lower frame rate.
//!
//! Called by the [`super::Selector`] whenever it chooses; it allocates nothing of its own.

use super::{Candidate, Preference};
use crate::temporal::Limit;

/// A half step that takes more than this share of its layer is none.
const HALF_STEP: f64 = 0.9;

/// A layer, with all of its temporal layers or without the upper ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// The layer's index.
    pub layer: usize,
    /// The temporal layers of it.
    pub limit: Limit,
}

impl Rung {
    /// The layer as a viewer with this preference gets it where the network carries it.
    pub(super) fn full(layers: &[Candidate], layer: usize, preference: &Preference) -> Self {
        let most = preference.max_temporal.map(Limit::up_to);
        let limit = most.filter(|limit| layers[layer].temporal.is_more_than(*limit));
        Self {
            layer,
            limit: limit.unwrap_or(Limit::ALL),
        }
    }

    /// Bit/s that the network must carry for it, where that is known.
    pub(super) fn cost(self, layers: &[Candidate]) -> Option<u64> {
        let layer = &layers[self.layer];
        let part = self.limit.id().and_then(|id| layer.temporal.cost(id));
        part.or(layer.cost)
    }
}

/// Writes down what may be sent of the layers that are there, highest first. At least one is.
pub(super) fn climb(
    layers: &[Candidate],
    active: &[usize],
    preference: &Preference,
    rungs: &mut Vec<Rung>,
) {
    rungs.clear();
    for (position, &layer) in active.iter().enumerate() {
        let full = Rung::full(layers, layer, preference);
        rungs.push(full);
        let below = active.get(position + 1);
        let below = below.map(|&layer| Rung::full(layers, layer, preference).cost(layers));
        half_steps(layers, full, below, rungs);
    }
    let lowest = rungs.last().copied();
    rungs.retain(|rung| preference.admits(&layers[rung.layer], rung.cost(layers)));
    if rungs.is_empty() {
        rungs.extend(lowest);
    }
}

/// One between the layer and the one below, where it takes more than that; all that there are below the lowest layer.
fn half_steps(layers: &[Candidate], full: Rung, below: Option<Option<u64>>, rungs: &mut Vec<Rung>) {
    let Some(whole) = full.cost(layers) else {
        return;
    };
    let top = layers[full.layer].temporal.top;
    let top = full.limit.id().map_or(top, |id| id.min(top));
    for id in (0..top).rev() {
        let limit = Limit::up_to(id);
        let step = Rung { limit, ..full };
        let cost = step.cost(layers).unwrap_or(whole);
        let is_between = below.is_none_or(|below| below.is_some_and(|below| cost > below));
        if is_between && cost as f64 <= whole as f64 * HALF_STEP {
            rungs.push(step);
        }
        if below.is_some() {
            break;
        }
    }
}

/// The rungs that may be taken, best first, and what the network has for them.
pub(super) struct Ladder<'a> {
    pub(super) layers: &'a [Candidate],
    pub(super) rungs: &'a [Rung],
    /// Bit/s.
    pub(super) budget: u64,
}

impl Ladder<'_> {
    pub(super) fn lowest(&self) -> Rung {
        self.rungs[self.rungs.len() - 1]
    }

    /// Where somebody stands who was on a rung that may have gone since: it, or the best one of its layer.
    pub(super) fn standing(&self, rung: Rung) -> Option<Rung> {
        let same = self.rungs.iter().find(|r| **r == rung);
        let near = || self.rungs.iter().find(|r| r.layer == rung.layer);
        same.or_else(near).copied()
    }

    /// Whether the budget is known to be at least this share of what it needs.
    pub(super) fn carries(&self, rung: Rung, share: f64) -> bool {
        let cost = rung.cost(self.layers);
        cost.is_some_and(|cost| self.budget as f64 >= cost as f64 * share)
    }

    /// Whether the budget is known to be less than this share of what it needs.
    pub(super) fn lacks(&self, rung: Rung, share: f64) -> bool {
        let cost = rung.cost(self.layers);
        cost.is_some_and(|cost| (self.budget as f64) < cost as f64 * share)
    }

    pub(super) fn best(&self, share: f64) -> Option<Rung> {
        let mut rungs = self.rungs.iter().copied();
        rungs.find(|&rung| self.carries(rung, share))
    }

    fn rank(&self, rung: Rung) -> Option<usize> {
        self.rungs.iter().position(|&r| r == rung)
    }

    pub(super) fn is_above(&self, rung: Rung, other: Rung) -> bool {
        self.rank(rung) < self.rank(other)
    }

    /// The next better one; from no video it is the lowest.
    pub(super) fn above(&self, rung: Option<Rung>) -> Option<Rung> {
        let Some(rung) = rung else {
            return Some(self.lowest());
        };
        let rank = self.rank(rung)?.checked_sub(1)?;
        self.rungs.get(rank).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::TemporalCosts;
    use crate::layers::tests::layers;
    use crate::temporal::CUTS;

    /// Layers with these costs in kbit/s, each by its temporal layers from the lowest up.
    fn ladder(costs: &[&[u64]]) -> Vec<Candidate> {
        let mut candidates = layers(&vec![true; costs.len()]);
        for (candidate, costs) in candidates.iter_mut().zip(costs) {
            let (whole, parts) = costs.split_last().unwrap();
            candidate.cost = Some(*whole);
            let mut known = [None; CUTS];
            for (known, part) in known.iter_mut().zip(parts) {
                *known = Some(*part);
            }
            candidate.temporal = TemporalCosts::new(parts.len() as u8, known);
        }
        candidates
    }

    fn climbed(costs: &[&[u64]], preference: &Preference) -> Vec<(usize, Option<u8>)> {
        let layers = ladder(costs);
        let order: Vec<_> = (0..layers.len()).collect();
        let mut rungs = Vec::new();
        climb(&layers, &order, preference, &mut rungs);
        rungs.iter().map(|r| (r.layer, r.limit.id())).collect()
    }

    #[test]
    fn half_steps_are_between_layers_and_below_the_lowest() {
        let any = Preference::default();
        for (what, costs, expected) in [
            (
                "none",
                &[&[2_000][..], &[600]][..],
                &[(0, None), (1, None)][..],
            ),
            (
                "two temporal layers",
                &[&[1_200, 2_000], &[360, 600]],
                &[(0, None), (0, Some(0)), (1, None), (1, Some(0))],
            ),
            (
                "three",
                &[&[800, 1_200, 2_000], &[240, 360, 600]],
                &[
                    (0, None),
                    (0, Some(1)),
                    (1, None),
                    (1, Some(1)),
                    (1, Some(0)),
                ],
            ),
            (
                "a half step that takes less than the next layer",
                &[&[550, 900], &[600]],
                &[(0, None), (1, None)],
            ),
            (
                "one that saves next to nothing",
                &[&[1_900, 2_000], &[600]],
                &[(0, None), (1, None)],
            ),
        ] {
            assert_eq!(climbed(costs, &any), expected, "{what}");
        }
    }

    #[test]
    fn a_viewer_may_want_no_more_than_some_temporal_layers() {
        let costs: &[&[u64]] = &[&[800, 1_200, 2_000], &[240, 360, 600]];
        let most = |max| Preference {
            max_temporal: Some(max),
            ..Preference::default()
        };
        let expected = [(0, Some(1)), (0, Some(0)), (1, Some(1)), (1, Some(0))];
        assert_eq!(climbed(costs, &most(1)), expected);
        let expected = [(0, Some(0)), (1, Some(0))];
        assert_eq!(climbed(costs, &most(0)), expected);
        assert_eq!(climbed(&[&[2_000]], &most(0)), [(0, None)]);
        let cheap = Preference {
            max_bitrate: Some(1_300),
            ..Preference::default()
        };
        let expected = [(0, Some(1)), (1, None), (1, Some(1)), (1, Some(0))];
        assert_eq!(climbed(costs, &cheap), expected);
        let nothing = Preference {
            max_bitrate: Some(1),
            ..Preference::default()
        };
        assert_eq!(climbed(costs, &nothing), [(1, Some(0))]);
    }
}
