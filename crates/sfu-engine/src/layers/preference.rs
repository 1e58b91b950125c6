// SPDX-License-Identifier: MPL-2.0

//! What a viewer asks for itself: the input of the [`super::Selector`] that people set.

use super::Candidate;
use crate::audio::AudioChoice;
use crate::ids::Rid;

/// See the module's description. The default asks for nothing: the best layer that the network carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preference {
    /// Keep to this layer, whatever the network carries. `None` is automatic.
    pub layer: Option<Rid>,
    /// No picture higher than this, in pixels.
    pub max_height: Option<u32>,
    /// No video of more than this, in bit/s.
    pub max_bitrate: Option<u64>,
    /// No temporal layer above this number: fewer frames a second, where the stream has such layers.
    pub max_temporal: Option<u8>,
    /// No video, only sound.
    pub video_paused: bool,
    /// Which audio track, where there are several. `None` is the first one.
    pub audio: Option<AudioChoice>,
    /// How much more it matters than what else the same peer gets: where the network is short, the least go down first.
    pub priority: u8,
}

impl Preference {
    /// A preference for one layer.
    pub fn pin(layer: Rid) -> Self {
        Self {
            layer: Some(layer),
            ..Self::default()
        }
    }

    /// Whether a layer that costs so many bit/s keeps to the caps. What is not known of it does not count against it.
    pub(super) fn admits(&self, layer: &Candidate, cost: Option<u64>) -> bool {
        let within = |value: Option<u64>, max: Option<u64>| match (value, max) {
            (Some(value), Some(max)) => value <= max,
            _ => true,
        };
        within(
            layer.info.height.map(u64::from),
            self.max_height.map(u64::from),
        ) && within(cost, self.max_bitrate)
    }
}
