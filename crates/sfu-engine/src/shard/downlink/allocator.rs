// SPDX-License-Identifier: MPL-2.0

//! One estimate of a peer's network, shared among all that it is sent.
//!
//! Sound comes first. What is left goes to the pictures: each selector is told what all others take, and chooses within the
//! rest as if it were alone. Where there is too little, who is above the lowest rung goes down, the costliest of the least
//! important ones first; they also do for a more important one that could go up then. What is left over is shown to one only,
//! the cheapest of the most important ones that can use it, so that it is not taken twice.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::super::backlog::Network;
use super::Forwarder;
use crate::layers::selector::{HEADROOM, ROOM_UP};
use crate::transport::{Demand, Estimate};

/// So long those wait for which there is no room in the guess that all begin with: it is found out within two round trips and
/// a tenth of a second. Not tuned.
const WAIT: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    /// Where that is known.
    estimate: Option<Estimate>,
    /// When it was first told. A guess does not keep anybody from beginning for long.
    since: Option<Instant>,
    /// Who may have what is left over.
    riser: Option<usize>,
    /// Bit/s that all of them take, sound as well.
    used: u64,
    /// Bit/s that are of use, as far as they are worth finding out at once.
    useful: u64,
    /// Kept for its memory.
    places: Vec<Place>,
}

/// What one forwarder's pictures are to have.
#[derive(Debug, Clone, Copy)]
struct Place {
    forwarder: usize,
    priority: u8,
    /// Where it stands on its ladder, from the lowest up; `None` shows nothing, or nothing else than it does.
    step: Option<usize>,
    /// It has not begun: where it stands is free to be chosen.
    is_new: bool,
    /// Nothing is left for it, but something for others.
    is_expendable: bool,
    /// Bit/s.
    cost: u64,
}

impl Allocator {
    pub(super) fn estimate(&self) -> Option<Estimate> {
        self.estimate
    }

    pub(super) fn set_estimate(&mut self, now: Instant, estimate: Estimate) {
        self.since.get_or_insert(now);
        self.estimate = Some(estimate);
    }

    /// Tells each forwarder what all others take, where sound takes `audio` bit/s.
    pub(super) fn share(&mut self, now: Instant, audio: u64, forwarders: &mut [Forwarder]) {
        for forwarder in forwarders.iter_mut() {
            forwarder.others = audio;
            forwarder.share = None;
        }
        self.riser = None;
        let (Some(known), 2..) = (self.estimate, forwarders.len()) else {
            return;
        };
        let estimate = known.bits_per_second;
        let is_young = |since| now.saturating_duration_since(since) < WAIT;
        let waits = known.guessed && self.since.is_none_or(is_young);
        let room = estimate.saturating_sub(audio);
        self.look(forwarders);
        self.useful = match self.worth_finding(forwarders) {
            // Nothing has been measured yet.
            0 => 0,
            worth => audio + (worth as f64 * ROOM_UP) as u64,
        };
        self.lower(room, forwarders);
        // Those that begin together begin with a keyframe each: while little is known there is to be room for them.
        let free = if known.guessed { room / 2 } else { room };
        self.raise_new(free, forwarders);
        let pictures = self.pictures();
        self.used = audio + pictures;
        let spare = room.saturating_sub(pictures);
        let promoted = self.promote(spare, forwarders);
        self.riser = promoted.or_else(|| self.next_to_rise(spare, forwarders));
        // Any of them may be replaying something, or all.
        let each = spare / self.places.len().max(1) as u64;
        for place in &self.places {
            let more = if self.riser == Some(place.forwarder) {
                spare
            } else {
                0
            };
            let forwarder = &mut forwarders[place.forwarder];
            forwarder.others = estimate.saturating_sub(place.cost + more);
            let is_doubtful = place.is_new && known.guessed;
            // The first one begins as if it were alone.
            let is_first = is_doubtful && place.step.is_none() && !place.is_expendable;
            forwarder.share = (!is_first).then_some(Network::Carries {
                rate: place.cost + more,
                room: place.cost + each,
            });
            let selector = &mut forwarder.selector;
            selector.set_expendable(place.is_expendable && !is_doubtful);
            selector.set_waits(place.is_expendable && is_doubtful && waits);
        }
    }

    /// What is to be found out about the network, after all have chosen.
    pub(super) fn demand(&self, now: Instant, forwarders: &mut [Forwarder]) -> Demand {
        if let [only] = forwarders {
            return only.selector.demand(now);
        }
        let riser = self.riser.and_then(|riser| forwarders.get_mut(riser));
        let demand = riser.map_or(Demand::NONE, |riser| riser.selector.demand(now));
        let used = self.used as f64 * HEADROOM;
        let is_near = |estimate: Estimate| (estimate.bits_per_second as f64) < used;
        let is_guess = self.estimate.is_some_and(|estimate| estimate.guessed);
        Demand {
            goal: demand.goal.max(if is_guess { self.useful } else { 0 }),
            spread: self.estimate.is_some_and(is_near),
            ..demand
        }
    }

    fn pictures(&self) -> u64 {
        self.places.iter().map(|place| place.cost).sum()
    }

    /// What all would take on the second rung, or on the only one.
    fn worth_finding(&self, forwarders: &[Forwarder]) -> u64 {
        let places = self.places.iter().map(|place| {
            let forwarder = &forwarders[place.forwarder];
            let cost = |step| forwarder.selector.cost_of(&forwarder.layers, step);
            cost(1).or_else(|| cost(0)).unwrap_or(place.cost)
        });
        places.sum()
    }

    /// Where everybody stands. Who begins is to have the lowest rung at least.
    fn look(&mut self, forwarders: &mut [Forwarder]) {
        self.places.clear();
        for (n, forwarder) in forwarders.iter_mut().enumerate() {
            let stand = forwarder.selector.stand(&forwarder.layers);
            self.places.extend(stand.map(|stand| Place {
                forwarder: n,
                priority: forwarder.selector.priority(),
                step: stand.step,
                is_new: stand.is_new,
                is_expendable: false,
                cost: stand.cost,
            }));
        }
    }

    /// Takes from the costliest until all have room or nobody is above the lowest rung. Then the least important ones are left
    /// with too little for that, and all but one with nothing.
    fn lower(&mut self, room: u64, forwarders: &[Forwarder]) {
        let mut used = self.pictures();
        while used > room {
            let above = self.places.iter_mut();
            let above = above.filter(|place| place.step.is_some_and(|step| step > 0));
            let Some(place) = above.max_by_key(|place| (Reverse(place.priority), place.cost))
            else {
                break;
            };
            used -= step_down(place, forwarders);
        }
        while used > room {
            let places = self.places.iter_mut();
            let shown = places.filter(|place| place.step.is_some() && place.cost > 0);
            let Some(last) = shown.max_by_key(|p| (Reverse(p.priority), p.cost, p.forwarder))
            else {
                break;
            };
            let taken = last.cost.min(used - room);
            used -= taken;
            last.cost -= taken;
            last.step = None;
            if used > last.cost {
                used -= std::mem::take(&mut last.cost);
                last.is_expendable = true;
            }
        }
    }

    /// Those that begin get what fits, evenly.
    fn raise_new(&mut self, room: u64, forwarders: &[Forwarder]) {
        let mut used = self.pictures();
        loop {
            let new = self.places.iter_mut();
            let new = new.filter(|place| place.is_new && place.step.is_some());
            let next = new.filter_map(|place| {
                let (step, cost) = next(place, forwarders)?;
                (used - place.cost + cost <= room).then_some((place, step, cost))
            });
            let evenly = next.min_by_key(|(place, _, cost)| (Reverse(place.priority), *cost));
            let Some((place, step, cost)) = evenly else {
                break;
            };
            used = used - place.cost + cost;
            (place.step, place.cost) = (Some(step), cost);
        }
    }

    /// Makes room for an important one that could go up if less important ones went down. It goes up when they have.
    fn promote(&mut self, spare: u64, forwarders: &[Forwarder]) -> Option<usize> {
        let least = self.places.iter().map(|place| place.priority).min()?;
        let important = self.places.iter().filter(|place| place.priority > least);
        let could = important.filter_map(|place| Some((*place, next(place, forwarders)?.1)));
        let (first, cost) = could.min_by_key(|(place, _)| (Reverse(place.priority), place.cost))?;
        let wanted = (cost as f64 * ROOM_UP) as u64;
        let missing = wanted.saturating_sub(first.cost + spare);
        let below = |place: &&Place| place.priority < first.priority;
        let floor = |place: &Place| {
            let forwarder = &forwarders[place.forwarder];
            let lowest = forwarder.selector.cost_of(&forwarder.layers, 0);
            place.step.and(lowest).unwrap_or(place.cost)
        };
        let others = self.places.iter().filter(below);
        let takeable: u64 = others.map(|p| p.cost.saturating_sub(floor(p))).sum();
        if missing == 0 || takeable < missing {
            return None;
        }
        let mut taken = 0;
        while taken < missing {
            let others = self.places.iter_mut().filter(|place| {
                place.priority < first.priority && place.step.is_some_and(|step| step > 0)
            });
            let place = others.max_by_key(|place| (Reverse(place.priority), place.cost))?;
            taken += step_down(place, forwarders);
        }
        Some(first.forwarder)
    }

    /// Whom what is left over is enough for; else whoever could use more, so that it is found out whether there is more.
    fn next_to_rise(&self, spare: u64, forwarders: &[Forwarder]) -> Option<usize> {
        let could = self.places.iter();
        let could = could.filter_map(|place| Some((place, next(place, forwarders)?.1)));
        let fits = |place: &Place, cost| (place.cost + spare) as f64 >= cost as f64 * ROOM_UP;
        let first = could
            .min_by_key(|(place, cost)| (!fits(place, *cost), Reverse(place.priority), place.cost));
        first.map(|(place, _)| place.forwarder)
    }
}

/// Puts somebody on the next lower rung. Returns what that saves, in bit/s.
fn step_down(place: &mut Place, forwarders: &[Forwarder]) -> u64 {
    let step = place.step.unwrap_or(0).saturating_sub(1);
    let forwarder = &forwarders[place.forwarder];
    let cost = forwarder.selector.cost_of(&forwarder.layers, step);
    let before = std::mem::replace(&mut place.cost, cost.unwrap_or(0));
    place.step = Some(step);
    before.saturating_sub(place.cost)
}

/// The rung above the one that somebody stands on, and what it costs.
fn next(place: &Place, forwarders: &[Forwarder]) -> Option<(usize, u64)> {
    let forwarder = &forwarders[place.forwarder];
    let step = place.step.map_or(0, |step| step + 1);
    let cost = forwarder.selector.cost_of(&forwarder.layers, step)?;
    Some((step, cost))
}
