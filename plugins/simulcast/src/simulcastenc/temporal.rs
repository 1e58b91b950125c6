// SPDX-License-Identifier: MPL-2.0

//! Temporal layers of `vp8enc`: frames that a router may leave out, marked in RTP as RFC 7741 has it (TID, Y, TL0PICIDX).
//!
//! The patterns are those that browsers encode with: a frame of a layer refers to frames of that layer or lower ones alone,
//! and those of the highest layer are referred to by none. An encoder begins its pattern anew at each keyframe.

use gst::prelude::*;

/// What a frame may refer to and replace.
struct Frame {
    layer: i32,
    flags: &'static str,
    /// It refers to frames of the lowest layer alone: a viewer may go up to its layer here.
    sync: bool,
}

const BASE: &str = "no-upd-golden+no-upd-alt+no-ref-golden+no-ref-alt";
const MIDDLE: &str = "no-upd-last+no-upd-alt+no-upd-entropy+no-ref-golden+no-ref-alt";
const TOP: &str = "no-upd-last+no-upd-golden+no-upd-alt+no-upd-entropy+no-ref-golden+no-ref-alt";
/// Refers to the middle layer's frame, too.
const TOP_AFTER_MIDDLE: &str = "no-upd-last+no-upd-golden+no-upd-alt+no-upd-entropy+no-ref-alt";

const fn frame(layer: i32, flags: &'static str, sync: bool) -> Frame {
    Frame { layer, flags, sync }
}

/// A pattern that repeats itself.
struct Pattern {
    frames: &'static [Frame],
    /// Of the whole bitrate, in percent, what the layers up to each one take.
    percent: &'static [u32],
}

const TWO: Pattern = Pattern {
    frames: &[frame(0, BASE, false), frame(1, TOP, true)],
    percent: &[60, 100],
};
const THREE: Pattern = Pattern {
    frames: &[
        frame(0, BASE, false),
        frame(2, TOP, true),
        frame(1, MIDDLE, true),
        frame(2, TOP_AFTER_MIDDLE, false),
    ],
    percent: &[40, 60, 100],
};

/// Lets a `vp8enc` make so many temporal layers.
pub(super) fn set(encoder: &gst::Element, layers: u32, bitrate: u32) -> Result<(), String> {
    let pattern = match layers {
        2 => &TWO,
        3 => &THREE,
        _ => return Ok(()),
    };
    let count = pattern.percent.len();
    let last = count as i32 - 1;
    let bitrates = pattern.percent.iter().map(|p| bitrate / 100 * p);
    let ids = pattern.frames.iter().map(|frame| frame.layer);
    let decimators = (0..=last).map(|layer| 1 << (last - layer));
    let property = |name: &str| format!("temporal-scalability-{name}");
    for (name, value) in [
        ("number-layers", (count as i32).to_value()),
        ("periodicity", (pattern.frames.len() as i32).to_value()),
        ("layer-id", array(ids)),
        ("rate-decimator", array(decimators)),
        ("target-bitrate", array(bitrates.map(|b| b as i32))),
        ("layer-flags", flags(encoder, pattern)?),
        ("layer-sync-flags", syncs(pattern)),
    ] {
        let name = property(name);
        if encoder.find_property(&name).is_none() {
            return Err(format!("vp8enc has no property {name}"));
        }
        encoder.set_property_from_value(&name, &value);
    }
    Ok(())
}

fn array(values: impl Iterator<Item = i32>) -> glib::Value {
    glib::ValueArray::new(values).to_value()
}

fn flags(encoder: &gst::Element, pattern: &Pattern) -> Result<glib::Value, String> {
    let name = "temporal-scalability-layer-flags";
    let missing = || format!("vp8enc does not take {name}");
    let spec = encoder.find_property(name).ok_or_else(missing)?;
    let text: Vec<_> = pattern.frames.iter().map(|frame| frame.flags).collect();
    let text = format!("<{}>", text.join(","));
    glib::Value::deserialize_with_pspec(&text, &spec).map_err(|_| missing())
}

fn syncs(pattern: &Pattern) -> glib::Value {
    gst::Array::new(pattern.frames.iter().map(|frame| frame.sync)).to_value()
}
