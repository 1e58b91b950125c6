// SPDX-License-Identifier: MPL-2.0

//! Which layer one viewer gets: the best that it wants, that is sent, and that its network carries.
//!
//! One selector a viewer, called by the subscriber a few times a second and whenever something has changed. It knows
//! nothing of packets; the caller makes the change at a keyframe.
//!
//! - Down as soon as the estimate says so, at once where it says so plainly.
//! - Up only where the estimate leaves room, and not within [`HOLD`] after a way down; an upgrade that did not last
//!   doubles that time.
//! - Sound first: what it takes is subtracted from the estimate. Where not even the lowest layer fits, video pauses.

use std::time::{Duration, Instant};

use super::{Candidate, Preference, rank};
use crate::transport::{Demand, Estimate};

/// After a way down, no way up for this long.
pub const HOLD: Duration = Duration::from_secs(10);
/// The longest that failed upgrades extend it to.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// An upgrade that is taken back within this time has failed.
const FAILED_WITHIN: Duration = Duration::from_secs(10);
/// An estimate below the layer's cost must last for this long: where packets are held up or lost, and where they are
/// not. In congestion, one that is far below counts at once.
const PRESSED_FOR: Duration = Duration::from_millis(400);
const DOUBTED_FOR: Duration = Duration::from_millis(1_500);
/// Video pauses when not even the lowest layer has fitted for this long, and for at least this long.
const STARVED_FOR: Duration = Duration::from_secs(3);
/// What was measured before a layer began says nothing of it: no way down for this long after it.
const GRACE: Duration = Duration::from_secs(1);
/// Between two requests to probe for a higher layer.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// How often to look again while there is a choice, and while only the publisher's layers may change it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_SELDOM: Duration = Duration::from_millis(500);

/// Room above a layer's cost that an upgrade needs.
const ROOM_UP: f64 = 1.15;
/// An estimate of this many times what is sent leaves room for bursts.
const HEADROOM: u64 = 2;
/// The same for the layer to fall to while the estimate falls.
const ROOM_FALLING: f64 = 2.0;
/// Below this share of a layer's cost the estimate is too low for it.
const TOO_LOW: f64 = 0.92;
/// Below this share it is so low that the layer must not be sent any longer.
const FAR_TOO_LOW: f64 = 0.65;

/// What a viewer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The layer's index; `None` is no video.
    pub layer: Option<usize>,
    /// Why no better one.
    pub why: Why,
    /// The layer that it had chokes the network: it must not be sent until the new one begins.
    pub cut: bool,
    /// Chosen by the network's upswing: it may wait for a keyframe that comes anyway.
    pub upgrade: bool,
}

/// Why a viewer gets what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Why {
    /// It is the best layer that is sent.
    #[default]
    Highest,
    /// The viewer keeps to it.
    Pinned,
    /// The viewer's caps admit no better one.
    Capped,
    /// The viewer's network carries no better one.
    Bandwidth,
    /// The viewer wants no video.
    Paused,
    /// The viewer's network carries no video.
    NoBandwidth,
    /// What the viewer keeps to is not sent, or nothing is.
    NotSent,
}

impl Why {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::Highest,
        Self::Pinned,
        Self::Capped,
        Self::Bandwidth,
        Self::Paused,
        Self::NoBandwidth,
        Self::NotSent,
    ];

    /// The name in the interfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Highest => "highest",
            Self::Pinned => "pinned",
            Self::Capped => "capped",
            Self::Bandwidth => "bandwidth",
            Self::Paused => "paused",
            Self::NoBandwidth => "no-bandwidth",
            Self::NotSent => "not-sent",
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Selector {
    preference: Preference,
    /// Bit/s that the viewer's network carries, where that is known.
    estimate: Option<u64>,
    /// The estimate is what gets through while packets are held up or lost.
    congested: bool,
    has_choice: bool,
    layer: Option<usize>,
    /// Video is paused for want of bandwidth since then.
    starved: Option<Instant>,
    /// The estimate has been too low for the layer since then.
    pressed: Option<Instant>,
    /// When the layer of the last way up was chosen or, later, began.
    upgraded: Option<Instant>,
    hold: Duration,
    hold_until: Option<Instant>,
    /// Bit/s that the layer needs, and that the next one up would need in all.
    need: u64,
    goal: u64,
    could_rise: bool,
    next_probe: Option<Instant>,
    /// Kept for its memory: all layers, and those that may be sent, highest first.
    order: Vec<usize>,
    allowed: Vec<usize>,
}

impl Selector {
    /// A selector without an estimate: the viewer gets the best that it wants.
    pub fn new(preference: Preference) -> Self {
        Self {
            preference,
            ..Self::default()
        }
    }

    /// The viewer wants something else. What its network was seen not to carry stays known.
    pub fn set_preference(&mut self, preference: Preference) {
        self.preference = preference;
        self.starved = None;
    }

    /// What the network carries.
    pub fn set_estimate(&mut self, estimate: Estimate) {
        self.estimate = Some(estimate.bits_per_second);
        self.congested = estimate.congested;
    }

    /// Bit/s that the network carries, where that is known.
    pub fn estimate(&self) -> Option<u64> {
        self.estimate
    }

    /// The layers are another publisher's: the choice begins anew.
    pub fn forget_layer(&mut self) {
        self.layer = None;
        self.pressed = None;
        self.starved = None;
    }

    /// The chosen layer has reached its keyframe and is being sent.
    pub fn begin(&mut self, now: Instant) {
        if let Some(upgraded) = &mut self.upgraded {
            *upgraded = now;
        }
    }

    /// When to [`choose`](Self::choose) again, where nothing else happens before.
    pub fn look_again(&self, now: Instant) -> Option<Instant> {
        let every = match self.estimate {
            Some(_) => LOOK_EVERY,
            None => LOOK_SELDOM,
        };
        (self.has_choice || self.starved.is_some()).then(|| now + every)
    }

    /// Whether there is more than one layer.
    pub fn has_choice(&self) -> bool {
        self.has_choice
    }

    /// Whether the viewer wants no video.
    pub fn is_paused(&self) -> bool {
        self.preference.video_paused
    }

    /// What to find out about the network. Of use only where there are estimates.
    pub fn demand(&mut self, now: Instant) -> Demand {
        let estimate = self.estimate.unwrap_or(u64::MAX);
        let ready = self
            .hold_until
            .is_none_or(|until| now + PROBE_EVERY / 2 >= until);
        let due = self.next_probe.is_none_or(|at| now >= at);
        let probe =
            self.could_rise && ready && due && estimate < self.goal && self.pressed.is_none();
        if probe {
            self.next_probe = Some(now + PROBE_EVERY);
        }
        Demand {
            goal: self.goal,
            probe,
            spread: estimate < self.need.saturating_mul(HEADROOM),
        }
    }

    /// The layer to send now, of all that there are. `audio` is what sound takes, in bit/s.
    pub fn choose(&mut self, now: Instant, layers: &[Candidate], audio: u64) -> Choice {
        let (mut order, mut allowed) = (
            std::mem::take(&mut self.order),
            std::mem::take(&mut self.allowed),
        );
        rank(layers, &mut order);
        let choice = self.choose_of(now, layers, audio, &order, &mut allowed);
        (self.order, self.allowed) = (order, allowed);
        choice
    }

    fn choose_of(
        &mut self,
        now: Instant,
        layers: &[Candidate],
        audio: u64,
        order: &[usize],
        allowed: &mut Vec<usize>,
    ) -> Choice {
        self.could_rise = false;
        self.has_choice = layers.len() > 1;
        if self.preference.video_paused {
            self.layer = None;
            return settled(None, Why::Paused);
        }
        if let Some((index, why)) = self.pinned(layers, order) {
            self.layer = Some(index);
            return settled(Some(index), why);
        }
        let active = || order.iter().copied().filter(|&i| layers[i].active);
        let (Some(best), Some(lowest)) = (active().next(), active().next_back()) else {
            // Nothing is sent: what comes back first shows.
            self.layer = order.first().copied();
            return settled(self.layer, Why::NotSent);
        };
        allowed.clear();
        allowed.extend(active().filter(|&i| self.preference.admits(&layers[i])));
        if allowed.is_empty() {
            allowed.push(lowest);
        }
        let limit = if allowed[0] == best {
            Why::Highest
        } else {
            Why::Capped
        };
        let Some(estimate) = self.estimate else {
            self.layer = Some(allowed[0]);
            return settled(self.layer, limit);
        };
        let network = Network {
            layers,
            allowed,
            budget: estimate.saturating_sub(audio),
        };
        let choice = self.by_bandwidth(now, &network, limit);
        self.layer = choice.layer;
        let next = network.above(choice.layer);
        let cost = |layer: Option<usize>| layer.and_then(|i| layers[i].cost);
        self.could_rise = next.is_some();
        self.need = cost(choice.layer).unwrap_or(0) + audio;
        let wish = cost(next.or(choice.layer)).unwrap_or(0);
        self.goal = (wish as f64 * ROOM_UP) as u64 + audio;
        choice
    }

    /// The layer that the viewer keeps to, or while that is silent its nearest neighbour, the lower one first.
    fn pinned(&self, layers: &[Candidate], order: &[usize]) -> Option<(usize, Why)> {
        let rid = self.preference.layer.as_ref()?;
        let wish = order.iter().position(|&i| layers[i].info.rid == *rid)?;
        let active = |rank: &usize| layers[order[*rank]].active;
        let rank = (wish..order.len())
            .find(active)
            .or_else(|| (0..wish).rev().find(active))
            .unwrap_or(wish);
        let why = if rank == wish {
            Why::Pinned
        } else {
            Why::NotSent
        };
        Some((order[rank], why))
    }

    fn by_bandwidth(&mut self, now: Instant, network: &Network<'_>, limit: Why) -> Choice {
        if let Some(since) = self.starved {
            return self.while_starved(now, since, network, limit);
        }
        let Some(current) = self.layer.filter(|l| network.allowed.contains(l)) else {
            // Nothing to go down from: begin with what fits.
            let layer = network.best(1.0).unwrap_or(network.lowest());
            self.pressed = None;
            return Choice {
                layer: Some(layer),
                why: network.why(layer, limit),
                cut: false,
                upgrade: false,
            };
        };
        let graced = self
            .upgraded
            .is_some_and(|at| now.saturating_duration_since(at) < GRACE);
        if network.lacks(current, TOO_LOW) && !graced {
            return self.under_pressure(now, current, network, limit);
        }
        self.pressed = None;
        let held = self.hold_until.is_some_and(|until| now < until);
        let higher = network
            .best(ROOM_UP)
            .filter(|&l| network.is_above(l, current));
        match higher {
            Some(layer) if !held => {
                self.upgraded = Some(now);
                Choice {
                    layer: Some(layer),
                    why: network.why(layer, limit),
                    cut: false,
                    upgrade: true,
                }
            }
            _ => settled(Some(current), network.why(current, limit)),
        }
    }

    /// The estimate is below what the layer needs.
    fn under_pressure(
        &mut self,
        now: Instant,
        current: usize,
        network: &Network<'_>,
        limit: Why,
    ) -> Choice {
        let since = *self.pressed.get_or_insert(now);
        let lasting = now.saturating_duration_since(since);
        let far = self.congested && network.lacks(current, FAR_TOO_LOW);
        let patience = if self.congested {
            PRESSED_FOR
        } else {
            DOUBTED_FOR
        };
        if current == network.lowest() {
            if far && lasting >= STARVED_FOR {
                self.starved = Some(now);
                self.pressed = None;
                return settled(None, Why::NoBandwidth);
            }
            return settled(Some(current), network.why(current, limit));
        }
        if !far && lasting < patience {
            return settled(Some(current), network.why(current, limit));
        }
        self.note_downgrade(now);
        // While an estimate is falling, the truth is lower still.
        let room = if far { ROOM_FALLING } else { 1.0 };
        let layer = network.best(room).unwrap_or(network.lowest());
        Choice {
            layer: Some(layer),
            why: Why::Bandwidth,
            cut: far,
            upgrade: false,
        }
    }

    fn note_downgrade(&mut self, now: Instant) {
        let failed = self
            .upgraded
            .is_some_and(|at| now.saturating_duration_since(at) < FAILED_WITHIN);
        self.hold = if failed {
            (self.hold * 2).clamp(HOLD, HOLD_MAX)
        } else {
            HOLD
        };
        self.hold_until = Some(now + self.hold);
        self.upgraded = None;
        self.pressed = None;
    }

    fn while_starved(
        &mut self,
        now: Instant,
        since: Instant,
        network: &Network<'_>,
        limit: Why,
    ) -> Choice {
        let lowest = network.lowest();
        let rested = now.saturating_duration_since(since) >= STARVED_FOR;
        if !rested || !network.carries(lowest, ROOM_UP) {
            return settled(None, Why::NoBandwidth);
        }
        self.starved = None;
        self.hold_until = Some(now + HOLD);
        settled(Some(lowest), network.why(lowest, limit))
    }
}

fn settled(layer: Option<usize>, why: Why) -> Choice {
    Choice {
        layer,
        why,
        cut: false,
        upgrade: false,
    }
}

/// The layers that may be sent, highest first, and what the network has for them.
struct Network<'a> {
    layers: &'a [Candidate],
    allowed: &'a [usize],
    budget: u64,
}

impl Network<'_> {
    fn lowest(&self) -> usize {
        self.allowed[self.allowed.len() - 1]
    }

    /// Whether the budget is known to be at least this share of what the layer needs.
    fn carries(&self, layer: usize, share: f64) -> bool {
        let cost = self.layers[layer].cost;
        cost.is_some_and(|cost| self.budget as f64 >= cost as f64 * share)
    }

    /// Whether the budget is known to be less than this share of what the layer needs.
    fn lacks(&self, layer: usize, share: f64) -> bool {
        let cost = self.layers[layer].cost;
        cost.is_some_and(|cost| (self.budget as f64) < cost as f64 * share)
    }

    fn best(&self, share: f64) -> Option<usize> {
        self.allowed
            .iter()
            .copied()
            .find(|&l| self.carries(l, share))
    }

    fn rank(&self, layer: usize) -> Option<usize> {
        self.allowed.iter().position(|&l| l == layer)
    }

    fn is_above(&self, layer: usize, other: usize) -> bool {
        self.rank(layer) < self.rank(other)
    }

    /// The next better one; from no video it is the lowest.
    fn above(&self, layer: Option<usize>) -> Option<usize> {
        let Some(layer) = layer else {
            return Some(self.lowest());
        };
        let rank = self.rank(layer)?.checked_sub(1)?;
        self.allowed.get(rank).copied()
    }

    fn why(&self, layer: usize, limit: Why) -> Why {
        if layer == self.allowed[0] {
            limit
        } else {
            Why::Bandwidth
        }
    }
}

#[cfg(test)]
mod tests;
