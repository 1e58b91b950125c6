// SPDX-License-Identifier: MPL-2.0

//! The audio tracks of a stream, in different languages mostly, and which of them a viewer gets.
//!
//! The stream keeps a [`Track`] for each, viewers look at [`View`]s of them in its snapshot.

use std::fmt;
use std::str::FromStr;

use crate::codec::Codec;
use crate::health::Health;
use crate::ids::{Language, NameError};
use crate::packet::LayerReader;
use crate::rate::RateMeter;

/// What a track takes until it is measured, in bit/s.
const BITRATE: u64 = 64_000;

/// One audio track as its publisher declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTrack {
    /// Its number among those of the stream. The lowest is for who asks for none.
    pub number: usize,
    /// Its codec.
    pub codec: Codec,
    /// What is spoken, where the publisher tells it.
    pub language: Option<Language>,
}

/// Which audio track a viewer wants. Where there is none like it, it gets the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioChoice {
    /// The one with this number.
    Track(usize),
    /// The first one in this language.
    Language(Language),
}

impl AudioChoice {
    fn is(&self, track: &AudioTrack) -> bool {
        match self {
            Self::Track(number) => track.number == *number,
            Self::Language(wanted) => track.language.as_ref().is_some_and(|l| wanted.covers(l)),
        }
    }
}

impl FromStr for AudioChoice {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        match s.parse() {
            Ok(number) => Ok(Self::Track(number)),
            Err(_) => s.parse().map(Self::Language),
        }
    }
}

impl fmt::Display for AudioChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Track(number) => number.fmt(f),
            Self::Language(language) => language.fmt(f),
        }
    }
}

/// A track as viewers see it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) track: AudioTrack,
    /// What it takes, in bit/s.
    pub(crate) bitrate: u64,
}

/// The track that a viewer gets.
pub(crate) fn pick<'a>(tracks: &'a [View], choice: Option<&AudioChoice>) -> Option<&'a View> {
    let wanted = choice.and_then(|choice| tracks.iter().find(|view| choice.is(&view.track)));
    wanted.or(tracks.first())
}

/// A track as the stream keeps it: one that is not declared any more goes on in its numbers when it comes again.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) number: usize,
    pub(crate) codec: Option<Codec>,
    language: Option<Language>,
    pub(crate) reader: LayerReader,
    pub(crate) rate: RateMeter,
    pub(crate) health: Health,
}

impl Track {
    pub(crate) fn declared(&self) -> Option<AudioTrack> {
        Some(AudioTrack {
            number: self.number,
            codec: self.codec?,
            language: self.language.clone(),
        })
    }

    pub(crate) fn view(&self) -> Option<View> {
        Some(View {
            track: self.declared()?,
            bitrate: self.rate.peak().unwrap_or(BITRATE),
        })
    }
}

/// Declares a track among those that there are, which stay in the order of their numbers.
pub(crate) fn declare(tracks: &mut Vec<Track>, declared: AudioTrack) {
    let place = tracks.partition_point(|track| track.number < declared.number);
    match tracks.get_mut(place) {
        Some(track) if track.number == declared.number => {
            track.codec = Some(declared.codec);
            track.language = declared.language;
        }
        _ => tracks.insert(
            place,
            Track {
                number: declared.number,
                codec: Some(declared.codec),
                language: declared.language,
                reader: LayerReader::default(),
                rate: RateMeter::default(),
                health: Health::default(),
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_number_or_a_language_and_else_the_first() {
        let mut tracks = Vec::new();
        for (number, language) in [(2, "pt-BR"), (0, "de"), (1, "pt"), (3, "x-original")] {
            let language = Some(language.parse().unwrap());
            let codec = Codec::Opus;
            declare(
                &mut tracks,
                AudioTrack {
                    number,
                    codec,
                    language,
                },
            );
        }
        let views: Vec<View> = tracks.iter().filter_map(Track::view).collect();
        for (choice, number) in [
            ("", 0),
            ("1", 1),
            ("7", 0),
            ("pt", 1),
            ("PT-br", 2),
            ("p", 0),
            ("fr", 0),
            ("x-original", 3),
        ] {
            let wanted = choice.parse().ok();
            let picked = pick(&views, wanted.as_ref()).unwrap();
            assert_eq!(picked.track.number, number, "{choice:?}");
        }
    }
}
