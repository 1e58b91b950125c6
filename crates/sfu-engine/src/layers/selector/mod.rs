// SPDX-License-Identifier: MPL-2.0

//! Which layer one viewer gets: the best that it wants, that is sent, and that its network carries.
//!
//! One selector a viewer, called by the forwarder a few times a second and whenever something has changed. It knows
//! nothing of packets; the caller makes the change at a keyframe.
//!
//! - Down as soon as the estimate says so, at once where it says so plainly.
//! - Up only where the estimate leaves room, and not within [`HOLD`] after a way down; an upgrade that did not last
//!   doubles that time.
//! - Sound first: what it takes, and other pictures to the same peer, is subtracted from the estimate. Where not even the lowest layer fits, video pauses.

use std::time::{Duration, Instant};

use super::ladder::{Ladder, climb};
use super::{Candidate, Preference, Rung, rank};
use crate::temporal::Limit;
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
/// Between two requests to probe for a higher layer; and for the highest one while nothing is known of the network.
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBE_SOON: Duration = Duration::from_millis(500);
/// How often to look again while there is a choice, and while only the publisher's layers may change it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_SELDOM: Duration = Duration::from_millis(500);

/// Room above a layer's cost that an upgrade needs.
pub(crate) const ROOM_UP: f64 = 1.15;
/// An estimate of this many times what is sent leaves room for bursts. It grows so far by itself where nothing is held up.
pub(crate) const HEADROOM: f64 = 1.3;
/// The same for the layer to fall to while the estimate falls.
const ROOM_FALLING: f64 = 2.0;
/// Below this share of a layer's cost the estimate is too low for it.
const TOO_LOW: f64 = 0.92;
/// Below this share it is so low that the layer must not be sent any longer.
const FAR_TOO_LOW: f64 = 0.65;

/// What a viewer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The layer and its temporal layers; `None` is no video.
    pub rung: Option<Rung>,
    /// Why no better one.
    pub why: Why,
    /// The layer that it had chokes the network: it must not be sent until the new one begins.
    pub cut: bool,
    /// Chosen by the network's upswing: it may wait for a keyframe that comes anyway.
    pub upgrade: bool,
}

/// Where a viewer's pictures stand among the rungs that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// From the lowest up; `None` shows nothing, or what is no choice.
    pub step: Option<usize>,
    /// Nothing was chosen yet: this is the least that it is to have.
    pub is_new: bool,
    /// Bit/s.
    pub cost: u64,
}

impl Choice {
    /// The layer's index.
    pub fn layer(&self) -> Option<usize> {
        self.rung.map(|rung| rung.layer)
    }
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
    /// The way to the viewer does not carry packets as large as the publisher made them. The selector does not know of
    /// this: the session is told by whoever sends.
    PacketTooLarge,
    /// The publisher sends a codec that the viewer's offer did not have. Nor does it know of this.
    NoCommonCodec,
}

impl Why {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Highest,
        Self::Pinned,
        Self::Capped,
        Self::Bandwidth,
        Self::Paused,
        Self::NoBandwidth,
        Self::NotSent,
        Self::PacketTooLarge,
        Self::NoCommonCodec,
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
            Self::PacketTooLarge => "packet-too-large",
            Self::NoCommonCodec => "no-common-codec",
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
    /// It is the guess that all begin with.
    guessed: bool,
    /// There is more than one layer, and more than one rung on the ladder.
    has_layers: bool,
    has_choice: bool,
    rung: Option<Rung>,
    /// Video is paused for want of bandwidth since then.
    starved: Option<Instant>,
    /// The peer gets other pictures, for which there is enough if these ones pause.
    expendable: bool,
    /// It is not to begin before more is known of the network.
    waits: bool,
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
    /// At the last look it was sought what a network of which nothing is known carries.
    seeks: bool,
    /// Kept for its memory: all layers, then those that are sent, highest first; what may be sent of them, best first.
    order: Vec<usize>,
    active: Vec<usize>,
    rungs: Vec<Rung>,
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
        self.guessed = estimate.guessed;
    }

    /// Whether nothing is known of the network but what is taken for granted at first.
    pub fn is_guess(&self) -> bool {
        self.guessed
    }

    /// Bit/s that the network carries, where that is known.
    pub fn estimate(&self) -> Option<u64> {
        self.estimate
    }

    /// The layers are another publisher's: the choice begins anew.
    pub fn forget_layer(&mut self) {
        self.rung = None;
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
        let may_change = self.has_choice || self.starved.is_some() || self.waits;
        may_change.then(|| now + every)
    }

    /// Whether there is more than one layer.
    pub fn has_layers(&self) -> bool {
        self.has_layers
    }

    /// Whether there is a better layer than the one that was last chosen, where the network carries it.
    pub fn could_rise(&self) -> bool {
        self.could_rise
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
        if std::mem::replace(&mut self.seeks, self.guessed) && !self.guessed {
            // It has just been answered.
            self.next_probe = Some(now + PROBE_EVERY);
        }
        let due = self.next_probe.is_none_or(|at| now >= at);
        let probe =
            self.could_rise && ready && due && estimate < self.goal && self.pressed.is_none();
        if probe {
            let every = if self.guessed {
                PROBE_SOON
            } else {
                PROBE_EVERY
            };
            self.next_probe = Some(now + every);
        }
        Demand {
            goal: self.goal,
            probe,
            spread: (estimate as f64) < self.need as f64 * HEADROOM,
        }
    }

    /// Whether the peer gets other pictures, for which there is enough if these ones pause.
    pub fn set_expendable(&mut self, expendable: bool) {
        self.expendable = expendable;
    }

    /// Whether it is not to begin before more is known of the network, since other pictures do.
    pub fn set_waits(&mut self, waits: bool) {
        self.waits = waits;
    }

    /// How much more it matters than what else the peer gets.
    pub fn priority(&self) -> u8 {
        self.preference.priority
    }

    /// The layer to send now, of all that there are. `others` is what all else takes of the network, in bit/s: sound, and
    /// other pictures.
    pub fn choose(&mut self, now: Instant, layers: &[Candidate], others: u64) -> Choice {
        self.survey(layers);
        let order = std::mem::take(&mut self.order);
        let rungs = std::mem::take(&mut self.rungs);
        let choice = self.choose_of(now, layers, others, &order, &rungs);
        self.rung = choice.rung;
        (self.order, self.rungs) = (order, rungs);
        choice
    }

    /// What there is to choose from.
    fn survey(&mut self, layers: &[Candidate]) {
        let Self { order, active, .. } = self;
        rank(layers, order);
        active.clear();
        active.extend(order.iter().copied().filter(|&i| layers[i].active));
        climb(layers, active, &self.preference, &mut self.rungs);
        self.has_layers = layers.len() > 1;
        self.has_choice = self.has_layers || self.rungs.len() > 1;
    }

    /// Where it stands, for whoever shares the network out. `None`: it wants nothing, or there is nothing.
    pub fn stand(&mut self, layers: &[Candidate]) -> Option<Stand> {
        if self.preference.video_paused {
            return None;
        }
        self.survey(layers);
        let order = std::mem::take(&mut self.order);
        let pinned = self.pinned(layers, &order);
        self.order = order;
        if let Some((layer, _)) = pinned {
            let cost = Rung::full(layers, layer, &self.preference).cost(layers);
            return Some(Stand {
                step: None,
                is_new: false,
                cost: cost.unwrap_or(0),
            });
        }
        let lowest = self.rungs.last()?.cost(layers).unwrap_or(0);
        if self.starved.is_some() {
            return Some(Stand {
                step: None,
                is_new: false,
                cost: 0,
            });
        }
        let ladder = Ladder {
            layers,
            rungs: &self.rungs,
            budget: 0,
        };
        let standing = self.rung.and_then(|rung| ladder.standing(rung));
        let rank = standing.and_then(|rung| self.rungs.iter().position(|r| *r == rung));
        let cost = standing.and_then(|rung| rung.cost(layers));
        Some(Stand {
            step: Some(rank.map_or(0, |rank| self.rungs.len() - 1 - rank)),
            is_new: rank.is_none(),
            cost: rank.map_or(lowest, |_| cost.unwrap_or(0)),
        })
    }

    /// What a rung costs, counted from the lowest up, in bit/s. `None`: there is none, or no choice.
    pub fn cost_of(&self, layers: &[Candidate], step: usize) -> Option<u64> {
        if self.preference.layer.is_some() {
            return None;
        }
        let rank = self.rungs.len().checked_sub(step + 1)?;
        Some(self.rungs[rank].cost(layers).unwrap_or(0))
    }

    fn choose_of(
        &mut self,
        now: Instant,
        layers: &[Candidate],
        others: u64,
        order: &[usize],
        rungs: &[Rung],
    ) -> Choice {
        self.could_rise = false;
        if self.preference.video_paused {
            return settled(None, Why::Paused);
        }
        let full = |layer| Rung::full(layers, layer, &self.preference);
        if let Some((layer, why)) = self.pinned(layers, order) {
            return settled(Some(full(layer)), why);
        }
        let Some(&best) = rungs.first() else {
            // Nothing is sent: what comes back first shows.
            return settled(order.first().copied().map(full), Why::NotSent);
        };
        let highest = order.iter().find(|&&layer| layers[layer].active);
        let limit = match highest.is_some_and(|&layer| best == full(layer)) {
            true if best.limit == Limit::ALL => Why::Highest,
            _ => Why::Capped,
        };
        let Some(estimate) = self.estimate else {
            return settled(Some(best), limit);
        };
        let ladder = Ladder {
            layers,
            rungs,
            budget: estimate.saturating_sub(others),
        };
        let choice = self.by_bandwidth(now, &ladder, limit);
        let next = ladder.above(choice.rung);
        let cost = |rung: Option<Rung>| rung.and_then(|r| r.cost(layers));
        self.could_rise = next.is_some();
        self.need = cost(choice.rung).unwrap_or(0) + others;
        // Of a network of which nothing is known, all that can be used is to be found out at once.
        let wish = if self.guessed {
            Some(best)
        } else {
            next.or(choice.rung)
        };
        // Layers that have just begun are not measured yet.
        let goal = cost(wish).map(|wish| (wish as f64 * ROOM_UP) as u64 + others);
        self.goal = goal.unwrap_or(0);
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

    fn by_bandwidth(&mut self, now: Instant, ladder: &Ladder<'_>, limit: Why) -> Choice {
        let why = |rung: Rung| match rung == ladder.rungs[0] {
            true => limit,
            false => Why::Bandwidth,
        };
        if let Some(since) = self.starved {
            return match self.is_fed(now, since, ladder) {
                true => settled(Some(ladder.lowest()), why(ladder.lowest())),
                false => settled(None, Why::NoBandwidth),
            };
        }
        let Some(current) = self.rung.and_then(|rung| ladder.standing(rung)) else {
            if self.expendable {
                return self.starve(now);
            }
            if self.waits {
                return settled(None, Why::Bandwidth);
            }
            // Nothing to go down from: begin with what fits.
            let rung = ladder.best(1.0).unwrap_or(ladder.lowest());
            self.pressed = None;
            return settled(Some(rung), why(rung));
        };
        let graced = self
            .upgraded
            .is_some_and(|at| now.saturating_duration_since(at) < GRACE);
        // A guess takes nothing away.
        if ladder.lacks(current, TOO_LOW) && !graced && !self.guessed {
            let stay = settled(Some(current), why(current));
            return self.under_pressure(now, current, ladder, stay);
        }
        self.pressed = None;
        let held = self.hold_until.is_some_and(|until| now < until);
        let higher = ladder
            .best(ROOM_UP)
            .filter(|&rung| ladder.is_above(rung, current));
        match higher {
            // While it is being found out what the network carries, each step would cost a keyframe.
            Some(rung) if !held && !self.guessed => {
                self.upgraded = Some(now);
                Choice {
                    upgrade: true,
                    ..settled(Some(rung), why(rung))
                }
            }
            _ => settled(Some(current), why(current)),
        }
    }

    /// The estimate is below what the layer needs.
    fn under_pressure(
        &mut self,
        now: Instant,
        current: Rung,
        ladder: &Ladder<'_>,
        stay: Choice,
    ) -> Choice {
        let since = *self.pressed.get_or_insert(now);
        let lasting = now.saturating_duration_since(since);
        let far = self.congested && ladder.lacks(current, FAR_TOO_LOW);
        let patience = if self.congested {
            PRESSED_FOR
        } else {
            DOUBTED_FOR
        };
        if current == ladder.lowest() {
            let is_long = lasting
                >= if self.expendable {
                    patience
                } else {
                    STARVED_FOR
                };
            return match far && is_long {
                true => self.starve(now),
                false => stay,
            };
        }
        if !far && lasting < patience {
            return stay;
        }
        self.note_downgrade(now);
        // While an estimate is falling, the truth is lower still.
        let room = if far { ROOM_FALLING } else { 1.0 };
        let rung = ladder.best(room).unwrap_or(ladder.lowest());
        Choice {
            cut: far,
            ..settled(Some(rung), Why::Bandwidth)
        }
    }

    fn starve(&mut self, now: Instant) -> Choice {
        self.starved = Some(now);
        self.pressed = None;
        settled(None, Why::NoBandwidth)
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

    /// Whether video that paused for want of bandwidth may go on.
    fn is_fed(&mut self, now: Instant, since: Instant, ladder: &Ladder<'_>) -> bool {
        let rested = now.saturating_duration_since(since) >= STARVED_FOR;
        let fed = rested && ladder.carries(ladder.lowest(), ROOM_UP);
        if fed {
            self.starved = None;
            self.hold_until = Some(now + HOLD);
        }
        fed
    }
}

fn settled(rung: Option<Rung>, why: Why) -> Choice {
    Choice {
        rung,
        why,
        cut: false,
        upgrade: false,
    }
}

#[cfg(test)]
mod tests;
