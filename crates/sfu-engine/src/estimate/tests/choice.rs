// SPDX-License-Identifier: MPL-2.0

//! Layers are chosen by the estimate, and the estimate is of what the layers send.

use std::time::Instant;

use sfu_impair::{Conditions, Rng};

use super::link::{FIRST, MS, SECOND, Source, World, deep, link, seeds};
use crate::estimate::Estimator;
use crate::ids::Rid;
use crate::layers::{Candidate, LayerInfo, Preference, Selector, TemporalCosts};
use crate::transport::Estimate;

/// What each layer takes on the wire, in bit/s, and sound.
const LAYERS: [u64; 3] = [2_600_000, 900_000, 310_000];
const AUDIO: u64 = 48_000;
/// Keyframes come this often, or so long after they are asked for.
const KEYFRAME_EVERY: u32 = 2_000;
const ASKED: u32 = 60;

/// Chooses for one viewer as a forwarder does.
struct Watching {
    selector: Selector,
    layer: Option<usize>,
    /// The layer to begin, and when its keyframe comes.
    pending: Option<(usize, Instant)>,
    look: Instant,
    last: Option<Estimate>,
}

impl Watching {
    fn new(now: Instant) -> Self {
        let mut selector = Selector::new(Preference::default());
        selector.set_estimate(Estimate {
            bits_per_second: FIRST,
            congested: false,
            guessed: true,
        });
        Self {
            selector,
            layer: None,
            pending: None,
            look: now,
            last: None,
        }
    }

    fn step(&mut self, world: &mut World, index: usize, layers: &[Candidate]) {
        let now = world.now;
        if let Some((layer, at)) = self.pending
            && now >= at
        {
            self.pending = None;
            self.layer = Some(layer);
            self.selector.begin(now);
        }
        let estimate = world.estimate_of(index);
        let changed = self.last.replace(estimate) != Some(estimate);
        if changed || now >= self.look {
            self.look = now + 200 * MS;
            self.selector.set_estimate(estimate);
            let choice = self.selector.choose(now, layers, AUDIO);
            self.follow(now, world.start, choice.layer(), choice.cut, choice.upgrade);
            let demand = self.selector.demand(now);
            world.viewers[index].estimator.set_demand(now, demand);
        }
        world.viewers[index].source = match self.layer {
            Some(layer) => Source::Video(LAYERS[layer]),
            None => Source::Sound,
        };
    }

    fn follow(&mut self, now: Instant, start: Instant, to: Option<usize>, cut: bool, up: bool) {
        let Some(to) = to else {
            (self.layer, self.pending) = (None, None);
            return;
        };
        if self.layer == Some(to) || self.pending.is_some_and(|(layer, _)| layer == to) {
            if self.layer == Some(to) {
                self.pending = None;
            }
            return;
        }
        let passed = (now - start).as_millis() as u32 % KEYFRAME_EVERY;
        let wait = if up { KEYFRAME_EVERY - passed } else { ASKED };
        self.pending = Some((to, now + MS * wait));
        if cut {
            self.layer = None;
        }
    }
}

fn candidates() -> Vec<Candidate> {
    let layer = |(index, &rate): (usize, &u64)| Candidate {
        info: LayerInfo {
            rid: Rid::from_index(index),
            width: None,
            height: None,
            target_bitrate: Some(rate),
        },
        bitrate: Some(rate),
        cost: Some(rate * 103 / 100),
        most: None,
        active: true,
        temporal: TemporalCosts::default(),
        from_above: 0,
    };
    LAYERS.iter().enumerate().map(layer).collect()
}

/// Viewers, each with its choice.
struct Audience {
    world: World,
    watching: Vec<Watching>,
    layers: Vec<Candidate>,
}

impl Audience {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed),
            watching: Vec::new(),
            layers: candidates(),
        }
    }

    fn join(&mut self, link: usize) {
        self.world.add_viewer(link, Source::Sound);
        self.watching.push(Watching::new(self.world.now));
    }

    fn run_for(&mut self, time: std::time::Duration) {
        let (watching, layers) = (&mut self.watching, &self.layers);
        self.world.run_until(time, |world| {
            for (index, watching) in watching.iter_mut().enumerate() {
                watching.step(world, index, layers);
            }
            false
        });
    }

    fn layer(&self, viewer: usize) -> Option<usize> {
        self.watching[viewer].layer
    }
}

#[test]
fn a_drop_is_followed_within_a_second_and_a_recovery_within_15() {
    for seed in seeds(20) {
        let mut audience = Audience::new(seed);
        let delay = MS * (10 + seed as u32 % 20 * 2);
        let some = |rate| Conditions {
            delay,
            ..deep(rate)
        };
        audience.world.add_link(some(5_000_000));
        audience.join(0);
        audience.run_for(12 * SECOND);
        assert_eq!(audience.layer(0), Some(0), "seed {seed}: the top");
        audience.world.links[0].set(some(600_000));
        audience.run_for(SECOND);
        assert_eq!(audience.layer(0), Some(2), "seed {seed}: within a second");
        audience.run_for(14 * SECOND);
        assert_eq!(audience.layer(0), Some(2), "seed {seed}: stays");
        audience.world.links[0].set(some(5_000_000));
        audience.run_for(15 * SECOND);
        assert_eq!(audience.layer(0), Some(0), "seed {seed}: back");
    }
}

#[test]
fn two_hundred_viewers_are_each_on_the_layer_that_their_link_carries() {
    const SECONDS: usize = 45;
    let mut audience = Audience::new(seeds(1).start);
    let mut rng = Rng::new(1);
    // From 450 kbit/s to 10 Mbit/s, as many in each octave.
    let rates: Vec<u64> = (0..200)
        .map(|_| (450_000.0 * (10_000.0f64 / 450.0).powf(rng.unit())) as u64)
        .collect();
    for &rate in &rates {
        let link = audience.world.add_link(link(rate));
        audience.join(link);
        audience.run_for(20 * MS);
    }
    audience.run_for(12 * SECOND);
    let mut seen = vec![Vec::new(); rates.len()];
    for _ in 0..SECONDS * 5 {
        audience.run_for(200 * MS);
        for (viewer, seen) in seen.iter_mut().enumerate() {
            seen.push(audience.layer(viewer));
        }
    }
    let needs = LAYERS.map(|l| l + AUDIO);
    for (seen, &rate) in seen.iter().zip(&rates) {
        // Where a layer would leave no room for bursts and repairs, the one below it is right, too.
        let carried = |room: f64| needs.iter().position(|n| *n as f64 * room <= rate as f64);
        let right = [carried(1.0), carried(1.4)];
        let on_it = seen.iter().filter(|layer| right.contains(layer)).count();
        let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(
            on_it * 100 >= seen.len() * 95,
            "{rate} bit/s carries {right:?}; it had it {on_it} of {} times: {seen:?}",
            seen.len()
        );
        assert!(changes <= 4, "{rate} bit/s: {changes} changes");
    }
}

#[test]
fn two_viewers_of_layers_share_a_bottleneck() {
    for seed in seeds(10) {
        for (rate, least) in [(2_500_000, 1), (3_900_000, 1), (6_500_000, 0)] {
            let mut audience = Audience::new(seed);
            let shared = audience.world.add_link(link(rate));
            audience.join(shared);
            audience.run_for(15 * SECOND);
            audience.join(shared);
            audience.run_for(30 * SECOND);
            let (mut good, mut blind) = ([0, 0], [0, 0]);
            for _ in 0..300 {
                audience.run_for(200 * MS);
                for (viewer, good) in good.iter_mut().enumerate() {
                    let layer = audience.layer(viewer);
                    *good += u32::from(layer.is_some_and(|l| l <= least));
                    // A layer that chokes the network ends before the next one begins.
                    blind[viewer] = if layer.is_some() {
                        0
                    } else {
                        blind[viewer] + 1
                    };
                    assert!(
                        blind[viewer] < 5,
                        "seed {seed}, {rate}: {viewer} sees nothing"
                    );
                }
            }
            assert!(
                good.iter().all(|g| *g >= 150),
                "seed {seed}, {rate}: of 300 times, {good:?} on layer {least} or above"
            );
        }
    }
}

#[test]
fn loss_without_congestion_leaves_a_viewer_where_it_is() {
    for seed in seeds(10) {
        for loss in [0.02, 0.1] {
            let mut audience = Audience::new(seed);
            for rate in [6_000_000, 1_600_000] {
                let link = audience.world.add_link(Conditions { loss, ..link(rate) });
                audience.join(link);
            }
            audience.run_for(15 * SECOND);
            for _ in 0..150 {
                let layers = [audience.layer(0), audience.layer(1)];
                assert_eq!(layers, [Some(0), Some(1)], "seed {seed}, loss {loss}");
                audience.run_for(200 * MS);
            }
        }
    }
}

#[test]
fn where_nothing_fits_video_pauses_and_comes_back() {
    for seed in seeds(10) {
        let mut audience = Audience::new(seed);
        audience.world.add_link(deep(5_000_000));
        audience.join(0);
        audience.run_for(10 * SECOND);
        audience.world.links[0].set(deep(150_000));
        audience.run_for(15 * SECOND);
        assert_eq!(audience.layer(0), None, "seed {seed}");
        audience.world.links[0].set(deep(5_000_000));
        audience.run_for(25 * SECOND);
        assert_eq!(audience.layer(0), Some(0), "seed {seed}: all is well again");
    }
}
