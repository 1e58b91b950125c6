// SPDX-License-Identifier: MPL-2.0

//! Raw audio of any number of channels, mixed as each caps want it.

use std::sync::{Mutex, PoisonError};

use gst::glib;
use gst::prelude::*;

/// With one more GStreamer's mixer (1.22) reads memory that isn't there.
pub const MAX_CHANNELS: usize = 63;

/// For each output channel the share of each input channel; empty where channels have positions to be mixed by.
pub type Matrix = Vec<Vec<f32>>;

/// A matrix as `audioconvert` takes it.
pub fn to_value(matrix: &Matrix) -> glib::Value {
    let row = |row: &Vec<f32>| gst::Array::new(row.iter()).to_send_value();
    gst::Array::from_values(matrix.iter().map(row)).to_value()
}

/// The channels of caps, and the mask of their positions: 0 where they have none.
pub fn channels(caps: &gst::CapsRef) -> Option<(usize, u64)> {
    let structure = caps.structure(0)?;
    let channels = usize::try_from(structure.get::<i32>("channels").ok()?).ok()?;
    let mask = structure.get::<gst::Bitmask>("channel-mask");
    // One or two channels without a mask are mono and stereo; more are without positions.
    let mask = mask.map_or(if channels <= 2 { 0x3 } else { 0 }, |mask| mask.0);
    Some((channels, mask))
}

fn convert(matrix: &Matrix) -> Result<gst::Element, glib::BoolError> {
    let convert = gst::ElementFactory::make("audioconvert")
        .build()
        .map_err(|_| {
            glib::bool_error!("element audioconvert is missing: install gstreamer1.0-plugins-base")
        })?;
    // What an empty one means is up to the version.
    if !matrix.is_empty() {
        convert.set_property_from_value("mix-matrix", &to_value(matrix));
    }
    Ok(convert)
}

fn no_pads() -> glib::BoolError {
    glib::bool_error!("a pad of audioconvert is missing")
}

/// What mixes raw audio by what `wanted` says when caps come; as before where it says nothing.
///
/// In it is an `audioconvert`, and another one from caps on that want another matrix: GStreamer 1.26 takes no matrix that
/// does not fit the caps that are there, and no caps that do not fit the matrix.
pub fn mixer(
    wanted: impl Fn(&gst::CapsRef) -> Option<Matrix> + Send + Sync + 'static,
) -> Result<gst::Element, glib::BoolError> {
    let bin = gst::Bin::new();
    let first = convert(&Matrix::new())?;
    bin.add(&first)?;
    let end = |name| first.static_pad(name).ok_or_else(no_pads);
    let sink = gst::GhostPad::with_target(&end("sink")?)?;
    let src = gst::GhostPad::with_target(&end("src")?)?;
    for pad in [&sink, &src] {
        bin.add_pad(pad)?;
    }
    let inner = sink.internal().ok_or_else(no_pads)?;
    let (weak, current) = (bin.downgrade(), Mutex::new(Matrix::new()));
    // The probe belongs to the pad: it must not hold it.
    let ends = (sink.downgrade(), src.downgrade());
    inner.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let caps = info.event().and_then(|event| match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps_owned()),
            _ => None,
        });
        let (Some(bin), Some(caps)) = (weak.upgrade(), caps) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(wanted) = wanted(&caps) else {
            return gst::PadProbeReturn::Ok;
        };
        let before = {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, wanted.clone())
        };
        let ends = ends.0.upgrade().zip(ends.1.upgrade());
        if let Some((sink, src)) = ends.filter(|_| before != wanted) {
            gst::debug!(gst::CAT_DEFAULT, obj = bin, "{caps}: {wanted:?}");
            if let Err(error) = replace(&bin, &sink, &src, &wanted) {
                gst::warning!(
                    gst::CAT_DEFAULT,
                    obj = bin,
                    "{caps} can't be mixed: {error}"
                );
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(bin.upcast())
}

/// Puts in another `audioconvert`. Called on the thread that brings the audio.
fn replace(
    bin: &gst::Bin,
    sink: &gst::GhostPad,
    src: &gst::GhostPad,
    matrix: &Matrix,
) -> Result<(), glib::BoolError> {
    let new = convert(matrix)?;
    let old = sink.target().and_then(|pad| pad.parent_element());
    bin.add(&new)?;
    src.set_target(new.static_pad("src").as_ref())?;
    new.sync_state_with_parent()?;
    let entry = new.static_pad("sink").ok_or_else(no_pads)?;
    sink.set_target(Some(&entry))?;
    // It is to come before the caps, which are on their way.
    let inner = sink.internal();
    if let Some(start) = inner.and_then(|pad| pad.sticky_event::<gst::event::StreamStart>(0)) {
        entry.send_event(start);
    }
    if let Some(old) = old {
        // What is stopped must not follow the bin any more.
        old.set_locked_state(true);
        let _ = old.set_state(gst::State::Null);
        let _ = bin.remove(&old);
    }
    Ok(())
}
