// SPDX-License-Identifier: MPL-2.0
//! Audio channels without positions, which `audioconvert` alone takes into nothing else: each goes to the channel of the
//! same number, whatever number of them comes next.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use gst::prelude::*;
use sfu_elements::mixer::{self, MAX_CHANNELS, Matrix};

use super::imp::CAT;

/// How one caps' channels lie: their number and positions, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    channels: usize,
    mask: u64,
}

impl Layout {
    fn of(caps: &gst::CapsRef) -> Option<Self> {
        let (channels, mask) = mixer::channels(caps)?;
        Some(Self { channels, mask })
    }

    /// Whether `audioconvert` knows by itself how to come from one to the other.
    fn is_known(self, to: Self) -> bool {
        let positioned = |layout: Self| layout.mask != 0 || layout.channels == 1;
        self == to || (positioned(self) && positioned(to))
    }

    /// Whether a matrix helps. Up to eight channels `audioconvert` gives positions to, whatever is asked for; the demuxer
    /// does, too, so that only downstream can have wanted them without.
    fn is_mixed_into(self, to: Self) -> bool {
        let gets_positions = to.mask == 0 && (2..=8).contains(&to.channels);
        self.channels.max(to.channels) <= MAX_CHANNELS && !gets_positions
    }

    /// How to come from one to the other.
    fn matrix(self, to: Self) -> Matrix {
        if self.is_known(to) {
            return Matrix::new();
        }
        let share = |output, input| f32::from(u8::from(output == input));
        let row = |output| (0..self.channels).map(move |input| share(output, input));
        (0..to.channels)
            .map(|output| row(output).collect())
            .collect()
    }
}

/// What mixes whatever comes into `settled`, and leaves out what can't be. It must get its caps directly: what asks first
/// whether a change is accepted would hear that the last number of channels is the only one.
pub(super) fn mixer(settled: &gst::CapsRef) -> Result<gst::Element, glib::BoolError> {
    let to = Layout::of(settled).ok_or_else(|| glib::bool_error!("{settled} have no channels"))?;
    let matrix = move |caps: &gst::CapsRef| {
        let from = Layout::of(caps)?;
        let can = from.is_known(to) || from.is_mixed_into(to);
        can.then(|| from.matrix(to))
    };
    let convert = mixer::mixer(matrix)?;
    let pad = convert.static_pad("sink");
    let pad = pad.ok_or_else(|| glib::bool_error!("the mixer has no pads"))?;
    let refused = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::DATA_DOWNSTREAM, move |pad, info| {
        let caps = match info.event().map(|event| event.view()) {
            Some(gst::EventView::Caps(caps)) => caps.caps_owned(),
            Some(_) => return gst::PadProbeReturn::Ok,
            None if refused.load(Relaxed) => return gst::PadProbeReturn::Drop,
            None => return gst::PadProbeReturn::Ok,
        };
        let Some(from) = Layout::of(&caps) else {
            return gst::PadProbeReturn::Ok;
        };
        let is_refused = !from.is_known(to) && !from.is_mixed_into(to);
        refused.store(is_refused, Relaxed);
        if is_refused {
            gst::warning!(
                CAT,
                obj = pad,
                "audio is left out: {from:?} can't be mixed into {to:?}"
            );
            return gst::PadProbeReturn::Drop;
        }
        gst::PadProbeReturn::Ok
    });
    Ok(convert)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(channels: usize, mask: u64) -> gst::Caps {
        let caps = format!(
            "audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels={channels},channel-mask=(bitmask)0x{mask:x}"
        );
        caps.parse().unwrap()
    }

    /// Every change between layouts goes through, and unpositioned channels keep their places.
    #[test]
    fn any_channels_come_out_as_those_that_were_settled() {
        gst::init().unwrap();
        let layouts = [
            (1, 0x4),
            (2, 0x3),
            (2, 0x0),
            (3, 0x0),
            (6, 0x3f),
            (8, 0x0),
            (16, 0x0),
            (63, 0x0),
        ];
        for (to, to_mask) in layouts {
            let convert = mixer(&caps(to, to_mask)).unwrap();
            let mut harness = gst_check::Harness::with_element(&convert, Some("sink"), Some("src"));
            harness.set_sink_caps(caps(to, to_mask));
            // 64 channels are left out (and what none of GStreamer's elements makes), and the next ones are heard again.
            let more = layouts
                .into_iter()
                .flat_map(|layout| [layout, (64, 0x0), (16, 0x0)]);
            for (from, mask) in more {
                harness.set_src_caps(caps(from, mask));
                let samples = (1..=from).map(|n| n as f32 / 100.0);
                let bytes: Vec<u8> = samples.flat_map(f32::to_le_bytes).collect();
                let _ = harness.push(gst::Buffer::from_slice(bytes));
                let what = format!("{from} {mask:x} to {to} {to_mask:x}");
                let Some(buffer) = harness.try_pull() else {
                    let lost = from == 64 || (to_mask == 0 && (2..=8).contains(&to));
                    assert!(lost, "{what}");
                    continue;
                };
                let map = buffer.map_readable().unwrap();
                assert_eq!(map.len(), to * 4, "{what}");
                let (samples, _) = map.as_chunks::<4>();
                if mask == 0 && from > 1 {
                    let first = f32::from_le_bytes(samples[0]);
                    assert!((first - 0.01).abs() < 0.001, "{what}: {first}");
                }
            }
        }
    }
}
