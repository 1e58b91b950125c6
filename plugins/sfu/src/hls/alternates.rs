// SPDX-License-Identifier: MPL-2.0

//! The further audio tracks of a publisher, each on its way into segments of its own.
//!
//! They come into the pipeline of a session while it runs. One that the publisher has no more stays there and is silent: who
//! plays it would stop otherwise, and it may come again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gst::prelude::*;
use sfu_engine::StreamInfo;

use super::CAT;
use super::layer::{Common, Layer};
use super::master::Sound;
use super::rendition::Rendition;
use super::session::{MUXER_LATENCY, mixer, silence_at_end};
use crate::aac;

/// How many audio tracks there may be, as many as `sfusink` has. Each is encoded.
const MOST: usize = 8;

/// The audio tracks of a stream that HLS takes, the first one first.
pub(super) fn sound(info: Option<&StreamInfo>) -> Vec<Sound> {
    let tracks = info.into_iter().flat_map(|info| &info.audio);
    let tracks = tracks.map(|audio| Sound {
        number: audio.track.number,
        language: audio.track.language.clone(),
    });
    // Numbers go up, and name files.
    tracks.filter(|sound| sound.number < MOST).collect()
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Alternates {
    tracks: BTreeMap<usize, Arc<Layer>>,
    /// Those that could not be made.
    failed: BTreeSet<usize>,
}

impl Alternates {
    /// Takes what is there of these tracks and was not taken yet. Returns what went wrong.
    pub(super) fn take(
        &mut self,
        tracks: &[Sound],
        pipeline: &gst::Pipeline,
        common: &Arc<Common>,
        silenced: &Arc<AtomicBool>,
    ) -> Result<(), String> {
        for track in tracks.iter().skip(1).map(|sound| sound.number) {
            if self.tracks.contains_key(&track) || self.failed.contains(&track) {
                continue;
            }
            let source = pipeline.by_name("in");
            let pad = source.and_then(|source| source.static_pad(&format!("audio_{track}")));
            let Some(pad) = pad.filter(|pad| !pad.is_linked()) else {
                continue;
            };
            let layer = Layer::new(common.clone(), Rendition::Audio(track), false);
            let layer = Arc::new(layer);
            let added = add(pipeline, &pad, &layer, silenced);
            added.map_err(|error| {
                self.failed.insert(track);
                format!("audio track {track} is not in HLS: {error}")
            })?;
            self.tracks.insert(track, layer);
        }
        Ok(())
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Arc<Layer>> {
        self.tracks.values()
    }
}

fn description(encoder: &str) -> String {
    format!(
        "queue name=track {} ! queue name=first ! capsfilter name=into ! mux.sink_65 \
         mpegtsmux name=mux latency={MUXER_LATENCY} ! appsink name=sink sync=false async=false",
        mixer("track", encoder)
    )
}

/// Puts the elements of a track behind its pad.
fn add(
    pipeline: &gst::Pipeline,
    from: &gst::Pad,
    layer: &Arc<Layer>,
    silenced: &Arc<AtomicBool>,
) -> Result<(), String> {
    let text = |e: glib::BoolError| e.to_string();
    let description = description(aac::encoder()?);
    let bin = gst::parse::bin_from_description(&description, true);
    let bin = bin.map_err(|e| e.to_string())?;
    let pad = |element: &str, pad: &str| {
        let found = bin.by_name(element).and_then(|e| e.static_pad(pad));
        found.ok_or_else(|| format!("{element} has no pad {pad}"))
    };
    let into = pad("into", "src")?;
    layer.watch_input(&pad("first", "src")?, &into);
    silence_at_end(&pad("silence", "src")?, silenced);
    let sink = bin.by_name("sink").and_downcast::<gst_app::AppSink>();
    layer.watch_output(&sink.ok_or("a sink is no appsink")?);
    pipeline.add(&bin).map_err(text)?;
    let linked = bin.sync_state_with_parent().map_err(text).and_then(|()| {
        let entry = bin.static_pad("sink").ok_or("a bin has no pad")?;
        from.link(&entry).map_err(|e| e.to_string())
    });
    match linked {
        Ok(_) => {
            gst::info!(CAT, obj = from, "is a track of its own");
            Ok(())
        }
        Err(error) => {
            crate::sink::take_out(pipeline.upcast_ref(), bin.upcast_ref());
            Err(error)
        }
    }
}
