// SPDX-License-Identifier: MPL-2.0

//! What `sfusrc` tells of a stream. The router is inside its plugin, and nothing of that is linked here.

use std::time::{Duration, Instant};

use gst::prelude::*;

use super::location::Location;

/// How long it is waited for a stream's tracks, once it is live.
const PATIENCE: Duration = Duration::from_secs(3);
/// A stream with one track that has had only that for so long gets no other.
const SETTLED: Duration = Duration::from_millis(700);
/// A track that is declared and silent is left out after this, where another one plays: a player would wait for it in vain.
const SILENT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// A stream's tracks, by the names of their codecs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracks {
    pub(super) video: Option<String>,
    pub(super) audio: Option<String>,
    pub(super) layers: Vec<String>,
    /// Of video and of audio, whether it is declared and nothing of it comes.
    pub(super) silent: (bool, bool),
    /// Since the publisher came.
    uptime: Duration,
}

impl Tracks {
    /// Video and audio.
    fn declared(&self) -> (bool, bool) {
        (self.video.is_some(), self.audio.is_some())
    }

    fn flow(&self) -> (bool, bool) {
        let (video, audio) = self.declared();
        (video && !self.silent.0, audio && !self.silent.1)
    }

    /// Without the one that is silent beside another one.
    fn flowing(mut self) -> Self {
        match self.flow() {
            (true, false) => self.audio = None,
            (false, true) => self.video = None,
            _ => {}
        }
        self
    }

    /// Whether there is a layer with that name, or one can be chosen so.
    fn have(&self, layer: &str) -> bool {
        matches!(layer, "highest" | "lowest") || self.layers.iter().any(|rid| rid == layer)
    }
}

/// The element that gives a stream.
pub(super) fn source(router: &str, stream: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make("sfusrc")
        .property("router", router)
        .property("stream", stream)
        .build()
        .map_err(|_| "element sfusrc is missing: install libgstsfu.so beside this plugin".into())
}

/// The tracks of a stream that is live.
fn look(source: &gst::Element) -> Option<Tracks> {
    let info = source.property::<Option<gst::Structure>>("stream-info")?;
    let text = |field: &str| info.get::<String>(field).ok();
    let layers = info.get::<gst::Array>("layers").ok();
    let layers = layers.iter().flat_map(|layers| layers.iter());
    info.get::<bool>("live")
        .is_ok_and(|live| live)
        .then(|| Tracks {
            video: text("video"),
            audio: text("audio"),
            layers: layers.filter_map(|rid| rid.get().ok()).collect(),
            uptime: Duration::from_millis(info.get("uptime").unwrap_or(0)),
            silent: (
                info.get::<bool>("video-flows") == Ok(false),
                info.get::<bool>("audio-flows") == Ok(false),
            ),
        })
}

/// Whether a stream has a publisher.
pub(super) fn is_live(router: &str, stream: &str) -> bool {
    source(router, stream).is_ok_and(|source| look(&source).is_some())
}

/// The tracks of a stream, as soon as all that is to be expected is there: a publisher declares them one after the
/// other. Nothing where it is not live, has no tracks, or not that layer. Waits, so not for a thread that others need.
pub(super) fn tracks(router: &str, location: &Location) -> Option<Tracks> {
    let source = source(router, &location.stream).ok()?;
    let began = Instant::now();
    let mut last = (Tracks::default(), began);
    loop {
        let tracks = look(&source)?;
        let has = |tracks: &Tracks| (tracks.declared(), tracks.flow());
        if has(&tracks) != has(&last.0) {
            last.1 = Instant::now();
        }
        last.0 = tracks;
        let (tracks, since) = &last;
        let settled = match has(tracks) {
            ((false, false), _) | ((true, true), (false, false)) => false,
            (_, (true, true)) => true,
            ((true, true), _) => since.elapsed().max(tracks.uptime) >= SILENT,
            _ => since.elapsed() >= SETTLED,
        };
        let layer = location.layer.as_deref();
        let wanted = layer.is_none_or(|layer| tracks.have(layer));
        if settled && (wanted || since.elapsed() >= SETTLED) {
            return wanted.then(|| last.0.flowing());
        }
        if began.elapsed() >= PATIENCE {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
