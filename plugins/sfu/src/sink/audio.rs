// SPDX-License-Identifier: MPL-2.0

//! Raw audio of any number of channels, with positions or without: how it becomes the two channels that browsers play.

use gst::glib;
use gst::prelude::*;
use sfu_elements::mixer::{self, MAX_CHANNELS, Matrix};
use sfu_engine::TrackKind;

use super::media;

/// Output channels that a matrix may have.
const OUTPUTS: std::ops::RangeInclusive<usize> = 1..=2;

/// For each output channel the share of each input channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MixMatrix(Matrix);

impl MixMatrix {
    /// Reads the property: an array of rows, one for each output channel, all of one length.
    pub(super) fn from_value(value: &glib::Value) -> Result<Self, String> {
        let rows = value.get::<gst::Array>();
        let rows = rows.map_err(|error| error.to_string())?;
        let rows: Option<Matrix> = rows.iter().map(row_of).collect();
        let rows = rows.ok_or("mix-matrix is an array of arrays of numbers")?;
        let Some(inputs) = rows.first().map(Vec::len) else {
            return Ok(Self::default());
        };
        if !OUTPUTS.contains(&rows.len()) {
            return Err(format!("mix-matrix has {} rows, not 1 or 2", rows.len()));
        }
        if inputs == 0 || inputs > MAX_CHANNELS || rows.iter().any(|row| row.len() != inputs) {
            return Err(format!(
                "the rows of mix-matrix have all the same length, of 1 to {MAX_CHANNELS}"
            ));
        }
        if rows.iter().flatten().any(|share| !share.is_finite()) {
            return Err("mix-matrix has a number that is not finite".into());
        }
        Ok(Self(rows))
    }

    pub(super) fn to_value(&self) -> glib::Value {
        mixer::to_value(&self.0)
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

/// What mixes raw audio by what `matrix` says when caps come.
pub(super) fn mixer(
    matrix: impl Fn() -> MixMatrix + Send + Sync + 'static,
) -> Result<gst::Element, String> {
    let mixer = mixer::mixer(move |caps| {
        let (channels, mask) = mixer::channels(caps)?;
        Some(matrix().fitted(channels, mask != 0).0)
    });
    mixer.map_err(|error| error.to_string())
}

/// Answers what a pad takes to which raw audio came: all. A matrix would have `audioconvert` say that the number of channels it is
/// set to is the only one, though there is another one for the next caps.
pub(super) fn take_any_raw(pad: &gst::Pad) {
    pad.add_probe(
        gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH,
        |_, info| {
            let Some(gst::QueryViewMut::Caps(query)) = info.query_mut().map(|q| q.view_mut())
            else {
                return gst::PadProbeReturn::Ok;
            };
            let mut takes = gst::Caps::builder("audio/x-raw")
                .field("channels", gst::IntRange::new(1, MAX_CHANNELS as i32))
                .build();
            // It may also come encoded from now on.
            let all = media::template_caps(TrackKind::Audio);
            let others = all.iter().filter(|one| one.name() != "audio/x-raw");
            let others = others.map(ToOwned::to_owned).collect();
            takes.make_mut().append(others);
            let caps = match query.filter_owned() {
                Some(filter) => filter.intersect_with_mode(&takes, gst::CapsIntersectMode::First),
                None => takes,
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
        for channels in 1..=MAX_CHANNELS {
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
            for channels in [2, 16, 3, 6, 8, MAX_CHANNELS, 2] {
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
        let long: &[f32] = &[0.0; MAX_CHANNELS + 1];
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
