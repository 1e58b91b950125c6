// SPDX-License-Identifier: MPL-2.0
//! Audio channels without positions, which `audioconvert` alone takes into nothing else: each goes to the channel of the
//! same number, whatever number of them comes next.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use gst::prelude::*;

use super::imp::CAT;

/// With one more GStreamer's mixer (1.22) reads memory that isn't there.
const MAX_CHANNELS: usize = 63;

/// How one caps' channels lie: their number and positions, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    channels: usize,
    mask: u64,
}

impl Layout {
    fn of(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let channels = usize::try_from(structure.get::<i32>("channels").ok()?).ok()?;
        let mask = structure.get::<gst::Bitmask>("channel-mask");
        // Without a mask one and two channels are mono and stereo.
        let mask = mask.map_or(if channels <= 2 { 0x3 } else { 0 }, |mask| mask.0);
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
}

fn matrix(from: usize, to: usize) -> glib::Value {
    let share = |output, input| if output == input { 1f32 } else { 0.0 };
    let row =
        |output| gst::Array::new((0..from).map(move |input| share(output, input))).to_send_value();
    gst::Array::from_values((0..to).map(row)).to_value()
}

/// Has `convert` mix whatever comes into `settled`. It must get its caps directly: what asks first whether a change is
/// accepted would hear that the last number of channels is the only one.
pub(super) fn follow(convert: &gst::Element, settled: &gst::CapsRef) {
    let Some((pad, to)) = convert.static_pad("sink").zip(Layout::of(settled)) else {
        return;
    };
    let weak = convert.downgrade();
    let refused = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::DATA_DOWNSTREAM, move |_, info| {
        let caps = match info.event().map(|event| event.view()) {
            Some(gst::EventView::Caps(caps)) => caps.caps_owned(),
            Some(_) => return gst::PadProbeReturn::Ok,
            None if refused.load(Relaxed) => return gst::PadProbeReturn::Drop,
            None => return gst::PadProbeReturn::Ok,
        };
        let (Some(convert), Some(from)) = (weak.upgrade(), Layout::of(&caps)) else {
            return gst::PadProbeReturn::Ok;
        };
        let is_known = from.is_known(to);
        let is_refused = !is_known && !from.is_mixed_into(to);
        refused.store(is_refused, Relaxed);
        if is_refused {
            gst::warning!(
                CAT,
                obj = convert,
                "audio is left out: {from:?} can't be mixed into {to:?}"
            );
            return gst::PadProbeReturn::Drop;
        }
        let (inputs, outputs) = if is_known {
            (0, 0)
        } else {
            (from.channels, to.channels)
        };
        // Untouched as long as there is none: what an empty one means is up to the version.
        if outputs > 0 || !convert.property::<gst::Array>("mix-matrix").is_empty() {
            convert.set_property_from_value("mix-matrix", &matrix(inputs, outputs));
        }
        gst::PadProbeReturn::Ok
    });
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
            let convert = gst::ElementFactory::make("audioconvert").build().unwrap();
            follow(&convert, &caps(to, to_mask));
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
