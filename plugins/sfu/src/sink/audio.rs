// SPDX-License-Identifier: MPL-2.0

//! Raw audio of any number of channels, with positions or without: how it becomes the two channels that browsers play.

use std::sync::Mutex;

use gst::glib;
use gst::prelude::*;

use super::CAT;
use crate::properties::lock;

/// Output channels that a matrix may have.
const OUTPUTS: std::ops::RangeInclusive<usize> = 1..=2;
/// Input channels that are mixed: with one more GStreamer's mixer (1.22) reads memory that isn't there.
pub(super) const MAX_INPUTS: usize = 63;

/// For each output channel the share of each input channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MixMatrix(Vec<Vec<f32>>);

impl MixMatrix {
    /// Reads the property: an array of rows, one for each output channel, all of one length.
    pub(super) fn from_value(value: &glib::Value) -> Result<Self, String> {
        let rows = value.get::<gst::Array>();
        let rows = rows.map_err(|error| error.to_string())?;
        let rows: Option<Vec<Vec<f32>>> = rows.iter().map(row_of).collect();
        let rows = rows.ok_or("mix-matrix is an array of arrays of numbers")?;
        let Some(inputs) = rows.first().map(Vec::len) else {
            return Ok(Self::default());
        };
        if !OUTPUTS.contains(&rows.len()) {
            return Err(format!("mix-matrix has {} rows, not 1 or 2", rows.len()));
        }
        if inputs == 0 || inputs > MAX_INPUTS || rows.iter().any(|row| row.len() != inputs) {
            return Err(format!(
                "the rows of mix-matrix have all the same length, of 1 to {MAX_INPUTS}"
            ));
        }
        if rows.iter().flatten().any(|share| !share.is_finite()) {
            return Err("mix-matrix has a number that is not finite".into());
        }
        Ok(Self(rows))
    }

    pub(super) fn to_value(&self) -> glib::Value {
        let row = |row: &Vec<f32>| gst::Array::new(row.iter()).to_send_value();
        gst::Array::from_values(self.0.iter().map(row)).to_value()
    }

    /// What `audioconvert` gets for these caps: empty where it mixes by the channels' positions itself.
    ///
    /// A matrix that the user gave fits any number of channels: what it doesn't speak of is not heard, and what it speaks
    /// of and isn't there is silent. A source may change its channels at any time.
    fn fitted(&self, channels: usize, positioned: bool) -> Self {
        if !self.0.is_empty() {
            let fit = |row: &Vec<f32>| {
                let mut row = row.clone();
                row.resize(channels, 0.0);
                row
            };
            return Self(self.0.iter().map(fit).collect());
        }
        if positioned || channels < 2 {
            return Self::default();
        }
        // Without positions nobody knows what the others are: languages, a clean feed, talkback.
        let only =
            |output: usize| (0..channels).map(move |input| f32::from(u8::from(input == output)));
        Self(OUTPUTS.map(|n| only(n - 1).collect()).collect())
    }
}

fn row_of(value: &glib::SendValue) -> Option<Vec<f32>> {
    let row = value.get::<gst::Array>().ok()?;
    let number = |value: &glib::SendValue| {
        let transformed = value.transform::<f32>().ok()?;
        transformed.get::<f32>().ok()
    };
    row.iter().map(number).collect()
}

/// How audio of these caps is mixed.
fn fitted(matrix: &MixMatrix, caps: &gst::CapsRef) -> Option<MixMatrix> {
    let structure = caps.structure(0)?;
    let channels = usize::try_from(structure.get::<i32>("channels").ok()?).ok()?;
    // One or two channels without a mask are mono and stereo; more are without positions.
    let positioned = match structure.get::<gst::Bitmask>("channel-mask") {
        Ok(mask) => mask.0 != 0,
        Err(_) => channels <= 2,
    };
    Some(matrix.fitted(channels, positioned))
}

/// An `audioconvert` that mixes like this, and by the channels' positions where there is no matrix.
fn convert(matrix: &MixMatrix) -> Result<gst::Element, String> {
    let convert = gst::ElementFactory::make("audioconvert")
        .build()
        .map_err(|_| {
            "element audioconvert is missing: install gstreamer1.0-plugins-base".to_owned()
        })?;
    // What an empty one means is up to the version.
    if *matrix != MixMatrix::default() {
        convert.set_property_from_value("mix-matrix", &matrix.to_value());
    }
    Ok(convert)
}

/// What mixes raw audio by what `matrix` says when caps come.
///
/// In it is an `audioconvert`, and another one from caps on that want another matrix: GStreamer 1.26 takes no matrix that
/// does not fit the caps that are there, and no caps that do not fit the matrix.
pub(super) fn mixer(
    matrix: impl Fn() -> MixMatrix + Send + Sync + 'static,
) -> Result<gst::Element, String> {
    let failed = |error: glib::BoolError| error.to_string();
    let bin = gst::Bin::new();
    let first = convert(&MixMatrix::default())?;
    bin.add(&first).map_err(failed)?;
    let end = |name| first.static_pad(name).ok_or("audioconvert has no pads");
    let sink = gst::GhostPad::with_target(&end("sink")?).map_err(failed)?;
    let src = gst::GhostPad::with_target(&end("src")?).map_err(failed)?;
    for pad in [&sink, &src] {
        bin.add_pad(pad).map_err(failed)?;
    }
    let inner = sink.internal().ok_or("a ghost pad has no inside")?;
    let (weak, current) = (bin.downgrade(), Mutex::new(MixMatrix::default()));
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
        let Some(wanted) = fitted(&matrix(), &caps) else {
            return gst::PadProbeReturn::Ok;
        };
        let before = std::mem::replace(&mut *lock(&current), wanted.clone());
        let ends = ends.0.upgrade().zip(ends.1.upgrade());
        if let Some((sink, src)) = ends.filter(|_| before != wanted) {
            gst::debug!(CAT, obj = bin, "{caps}: {wanted:?}");
            if let Err(error) = replace(&bin, &sink, &src, &wanted) {
                gst::warning!(CAT, obj = bin, "{caps} can't be mixed: {error}");
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
    matrix: &MixMatrix,
) -> Result<(), String> {
    let failed = |error: glib::BoolError| error.to_string();
    let new = convert(matrix)?;
    let old = sink.target().and_then(|pad| pad.parent_element());
    bin.add(&new).map_err(failed)?;
    src.set_target(new.static_pad("src").as_ref())
        .map_err(failed)?;
    new.sync_state_with_parent().map_err(failed)?;
    let entry = new.static_pad("sink").ok_or("audioconvert has no pads")?;
    sink.set_target(Some(&entry)).map_err(failed)?;
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

/// Answers what a pad of raw audio takes: all. A matrix would have `audioconvert` say that the number of channels it is
/// set to is the only one, though there is another one for the next caps.
pub(super) fn take_any_raw(pad: &gst::Pad) {
    pad.add_probe(
        gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH,
        |_, info| {
            let Some(gst::QueryViewMut::Caps(query)) = info.query_mut().map(|q| q.view_mut())
            else {
                return gst::PadProbeReturn::Ok;
            };
            let raw = gst::Caps::builder("audio/x-raw")
                .field("channels", gst::IntRange::new(1, MAX_INPUTS as i32))
                .build();
            let caps = match query.filter_owned() {
                Some(filter) => filter.intersect_with_mode(&raw, gst::CapsIntersectMode::First),
                None => raw,
            };
            query.set_result(&caps);
            gst::PadProbeReturn::Handled
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[f32]]) -> MixMatrix {
        MixMatrix(rows.iter().map(|row| row.to_vec()).collect())
    }

    #[test]
    fn a_matrix_fits_any_number_of_channels() {
        let none = MixMatrix::default();
        for channels in 1..=MAX_INPUTS {
            assert_eq!(none.fitted(channels, true), none, "{channels}");
            let first_two = none.fitted(channels, false);
            if channels == 1 {
                assert_eq!(first_two, none);
                continue;
            }
            for (n, row) in first_two.0.iter().enumerate() {
                let heard: Vec<_> = (0..channels).filter(|i| row[*i] == 1.0).collect();
                assert_eq!((row.len(), heard), (channels, vec![n]));
            }
            let third = matrix(&[&[0.0, 0.0, 1.0]]).fitted(channels, true);
            assert_eq!(third.0[0].len(), channels);
            assert_eq!(third.0[0].get(2).copied(), (channels > 2).then_some(1.0));
        }
    }

    #[test]
    fn the_first_two_are_heard_or_those_that_were_chosen() {
        gst::init().unwrap();
        let chosen = matrix(&[&[0.0, 0.0, 1.0], &[0.0, 1.0, 0.0]]);
        for (matrix, is_chosen) in [(MixMatrix::default(), false), (chosen, true)] {
            let mixer = mixer(move || matrix.clone()).unwrap();
            let mut harness = gst_check::Harness::with_element(&mixer, Some("sink"), Some("src"));
            let stereo = "audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels=2";
            harness.set_sink_caps_str(stereo);
            // One element: the number of channels changes while running.
            for channels in [2, 16, 3, 6, 8, MAX_INPUTS, 2] {
                harness.set_src_caps_str(&format!(
                    "audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels={channels},channel-mask=(bitmask)0"
                ));
                // One frame whose channels are 0.01, 0.02, and so on.
                let samples = (1..=channels).map(|n| n as f32 / 100.0);
                let bytes: Vec<u8> = samples.flat_map(f32::to_le_bytes).collect();
                harness.push(gst::Buffer::from_slice(bytes)).unwrap();
                let buffer = harness.pull().unwrap();
                let map = buffer.map_readable().unwrap();
                let (samples, _) = map.as_chunks::<4>();
                let got: Vec<_> = samples.iter().map(|b| f32::from_le_bytes(*b)).collect();
                let first = match (is_chosen, channels) {
                    (false, _) => 0.01,
                    (true, 2) => 0.0,
                    (true, _) => 0.03,
                };
                let near = got.len() == 2
                    && (got[0] - first).abs() < 0.001
                    && (got[1] - 0.02).abs() < 0.001;
                assert!(near, "{channels}: {got:?}");
            }
        }
    }

    #[test]
    fn matrices_are_read_or_refused() {
        gst::init().unwrap();
        let long: &[f32] = &[0.0; MAX_INPUTS + 1];
        for (given, is_taken) in [
            (matrix(&[]), true),
            (matrix(&[&[1.0]]), true),
            (matrix(&[&[0.0, 0.0, 1.0], &[0.0, 1.0, 0.0]]), true),
            (matrix(&[&[1.0, 0.0], &[1.0]]), false),
            (matrix(&[&[1.0], &[1.0], &[1.0]]), false),
            (matrix(&[&[]]), false),
            (matrix(&[long]), false),
            (matrix(&[&[f32::NAN]]), false),
            (matrix(&[&[f32::INFINITY]]), false),
        ] {
            let read = MixMatrix::from_value(&given.to_value());
            assert_eq!(read.is_ok(), is_taken, "{given:?}: {read:?}");
            assert!(read.is_err() || read == Ok(given));
        }
    }
}
