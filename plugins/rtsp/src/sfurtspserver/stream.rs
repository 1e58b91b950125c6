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
/// Audio tracks with higher numbers are left out: each costs its players a port, or two.
const AUDIO_TRACKS: u32 = 8;

/// One audio track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Audio {
    number: u32,
    pub(super) codec: String,
    /// What is spoken (BCP 47).
    pub(super) language: Option<String>,
    silent: bool,
}

impl Audio {
    fn of(info: &gst::StructureRef) -> Option<Self> {
        Some(Self {
            number: info.get("number").ok()?,
            codec: info.get("codec").ok()?,
            language: info.get("language").ok(),
            silent: info.get::<bool>("flows") == Ok(false),
        })
    }

    /// The pad of `sfusrc` that it comes by.
    pub(super) fn pad(&self) -> String {
        format!("audio_{}", self.number)
    }

    /// Whether the track of a pad would be taken.
    pub(super) fn is_taken(pad: &str) -> bool {
        let number = pad.strip_prefix("audio_").map(str::parse::<u32>);
        number.is_some_and(|number| number.is_ok_and(|n| n < AUDIO_TRACKS))
    }
}

/// A stream's tracks, by the names of their codecs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracks {
    pub(super) video: Option<String>,
    /// In the order of their numbers.
    pub(super) audio: Vec<Audio>,
    pub(super) layers: Vec<String>,
    /// Video is declared and nothing of it comes.
    pub(super) silent: bool,
    /// Since the publisher came.
    uptime: Duration,
}

/// Whether there is video, and how many audio tracks.
type Count = (bool, usize);

impl Tracks {
    fn declared(&self) -> Count {
        (self.video.is_some(), self.audio.len())
    }

    fn flow(&self) -> Count {
        let audio = self.audio.iter().filter(|audio| !audio.silent);
        (self.video.is_some() && !self.silent, audio.count())
    }

    /// Without those that are silent beside others.
    fn flowing(mut self) -> Self {
        let (video, audio) = self.flow();
        if video || audio > 0 {
            self.audio.retain(|audio| !audio.silent);
            self.video.take_if(|_| !video);
        }
        self
    }

    /// Whether all that is to be expected is there, of which nothing has changed for so long.
    fn have_settled(&self, for_so_long: Duration) -> bool {
        let (declared, flow) = (self.declared(), self.flow());
        match (declared, flow) {
            ((false, 0), _) | ((true, 1..), (false, 0)) => false,
            ((true, 1..), _) if declared == flow => true,
            ((true, 1..) | (false, 2..), _) if declared != flow => {
                for_so_long.max(self.uptime) >= SILENT
            }
            _ => for_so_long >= SETTLED,
        }
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
    let audio = info.get::<gst::Array>("audio-tracks").ok();
    let audio = audio.iter().flat_map(|tracks| tracks.iter());
    let audio = audio.filter_map(|track| track.get::<gst::Structure>().ok());
    let audio = audio.filter_map(|track| Audio::of(&track));
    info.get::<bool>("live")
        .is_ok_and(|live| live)
        .then(|| Tracks {
            video: text("video"),
            audio: audio
                .filter(|track| Audio::is_taken(&track.pad()))
                .collect(),
            layers: layers.filter_map(|rid| rid.get().ok()).collect(),
            uptime: Duration::from_millis(info.get("uptime").unwrap_or(0)),
            silent: info.get::<bool>("video-flows") == Ok(false),
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
        let settled = tracks.have_settled(since.elapsed());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_waited_for_what_is_to_be_expected() {
        let tracks = |video: Option<bool>, audio: &[bool]| Tracks {
            video: video.map(|_| "H264".to_owned()),
            silent: video == Some(false),
            audio: (0..)
                .zip(audio)
                .map(|(number, flows)| Audio {
                    number,
                    silent: !flows,
                    ..Audio::default()
                })
                .collect(),
            ..Tracks::default()
        };
        // Whether it has settled at once, after a second, after long; and what is left of it then.
        for (video, audio, settles, left) in [
            (None, &[][..], [false, false, false], (false, 0)),
            (Some(true), &[], [false, true, true], (true, 0)),
            (Some(true), &[true], [true, true, true], (true, 1)),
            (Some(true), &[false], [false, false, true], (true, 0)),
            (Some(false), &[true], [false, false, true], (false, 1)),
            (Some(false), &[false], [false, false, false], (true, 1)),
            (Some(true), &[true, true], [true, true, true], (true, 2)),
            (Some(true), &[true, false], [false, false, true], (true, 1)),
            (None, &[true], [false, true, true], (false, 1)),
            (None, &[true, true], [false, true, true], (false, 2)),
            (None, &[false, true], [false, false, true], (false, 1)),
        ] {
            let tracks = tracks(video, audio);
            let after = [0, 1_000, 5_000].map(Duration::from_millis);
            let settled = after.map(|time| tracks.have_settled(time));
            assert_eq!(settled, settles, "{tracks:?}");
            assert_eq!(tracks.clone().flowing().declared(), left, "{tracks:?}");
        }
    }
}
