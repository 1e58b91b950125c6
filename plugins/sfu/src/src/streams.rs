// SPDX-License-Identifier: MPL-2.0

//! What the pads are as streams of one collection, for whoever chooses among them: `decodebin3` and what is built on it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sfu_engine::{Codec, Language, TrackKind};

use crate::properties::lock;

/// The collection, which each pad tells when it is another one.
#[derive(Debug, Default)]
pub(super) struct Collected {
    version: AtomicU64,
    newest: Mutex<Option<gst::StreamCollection>>,
    /// Those that an application wants; all where it has said nothing.
    selected: Mutex<Option<Vec<String>>>,
}

impl Collected {
    pub(super) fn set(&self, collection: gst::StreamCollection) {
        *lock(&self.newest) = Some(collection);
        self.version.fetch_add(1, Relaxed);
    }

    /// The event of a collection that a pad has not told.
    pub(super) fn news(&self, told: &AtomicU64) -> Option<gst::Event> {
        let version = self.version.load(Relaxed);
        if told.swap(version, Relaxed) == version {
            return None;
        }
        let newest = lock(&self.newest);
        Some(gst::event::StreamCollection::new(newest.as_ref()?))
    }

    /// Keeps to these streams from now on, if there are such. Returns the message that says so.
    pub(super) fn select(&self, wanted: Vec<String>) -> Option<gst::Message> {
        let collection = lock(&self.newest).clone()?;
        let is_wanted = |stream: &gst::Stream| {
            let id = stream.stream_id();
            id.is_some_and(|id| wanted.iter().any(|wanted| *wanted == id))
        };
        let chosen: Vec<_> = collection.iter().filter(is_wanted).collect();
        if chosen.is_empty() || chosen.len() < wanted.len() {
            return None;
        }
        let message = gst::message::StreamsSelected::builder(&collection).streams(chosen);
        *lock(&self.selected) = Some(wanted);
        Some(message.build())
    }

    pub(super) fn is_selected(&self, stream: &gst::Stream) -> bool {
        let selected = lock(&self.selected);
        let Some(selected) = &*selected else {
            return true;
        };
        let id = stream.stream_id();
        id.is_some_and(|id| selected.iter().any(|selected| *selected == id))
    }
}

/// What is spoken on a pad's stream, as tags.
pub(super) fn language(language: &Language) -> gst::TagList {
    let mut tags = gst::TagList::new();
    if let Some(tags) = tags.get_mut() {
        let append = gst::TagMergeMode::Append;
        tags.add::<gst::tags::LanguageCode>(&language.as_str(), append);
    }
    tags
}

/// What a pad carries. `layer` is its name, where several are there.
pub(super) fn stream(id: &str, codec: Codec, layer: Option<&str>) -> gst::Stream {
    let kind = match codec.kind() {
        TrackKind::Video => gst::StreamType::VIDEO,
        TrackKind::Audio => gst::StreamType::AUDIO,
    };
    let stream = gst::Stream::new(Some(id), None, kind, gst::StreamFlags::SELECT);
    let mut tags = gst::TagList::new();
    if let Some(tags) = tags.get_mut() {
        let append = gst::TagMergeMode::Append;
        match codec.kind() {
            TrackKind::Video => tags.add::<gst::tags::VideoCodec>(&codec.name(), append),
            TrackKind::Audio => tags.add::<gst::tags::AudioCodec>(&codec.name(), append),
        }
        if let Some(layer) = layer {
            tags.add::<gst::tags::Title>(&layer, append);
        }
    }
    stream.set_tags(Some(&tags));
    stream
}
