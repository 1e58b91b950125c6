// SPDX-License-Identifier: MPL-2.0

//! What has a playlist of its own, and how its files are named.

use std::fmt;
use std::path::{Path, PathBuf};

/// Files that are not whole yet begin with a dot, and end with this.
pub(super) const PART: &str = ".part";

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rendition {
    /// The pictures of one layer with the first audio track; or that alone.
    Layer(usize),
    /// Another audio track, by its number.
    Audio(usize),
}

impl Rendition {
    pub(super) fn is_audio(self) -> bool {
        matches!(self, Self::Audio(_))
    }

    pub(super) fn playlist(self) -> String {
        format!("{self}.m3u8")
    }

    pub(super) fn segment(self, sequence: u64) -> String {
        format!("{self}-{sequence}.ts")
    }

    /// Where its next segment is written to.
    pub(super) fn part(self, folder: &Path, slot: u64) -> PathBuf {
        folder.join(format!(".{self}-{slot}{PART}"))
    }

    /// The one whose playlist has this name.
    pub(super) fn of_playlist(name: &str) -> Option<Self> {
        Self::parse(name.strip_suffix(".m3u8")?)
    }

    /// Whether a segment of ours may have this name.
    pub(super) fn is_segment(name: &str) -> bool {
        let parts = name.strip_suffix(".ts").and_then(|n| n.split_once('-'));
        parts.is_some_and(|(which, sequence)| {
            Self::parse(which).is_some() && number::<u64>(sequence).is_some()
        })
    }

    fn parse(name: &str) -> Option<Self> {
        match name.split_at_checked(1)? {
            ("v", layer) => number(layer).map(Self::Layer),
            ("a", track) => number(track).map(Self::Audio),
            _ => None,
        }
    }
}

impl fmt::Display for Rendition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer) => write!(f, "v{layer}"),
            Self::Audio(track) => write!(f, "a{track}"),
        }
    }
}

fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_ours() {
        for which in [
            Rendition::Layer(0),
            Rendition::Layer(12),
            Rendition::Audio(3),
        ] {
            assert_eq!(Rendition::of_playlist(&which.playlist()), Some(which));
            assert!(Rendition::is_segment(&which.segment(17)));
        }
        for name in ["", "v", "a", "index", "v+1", "a-1", "b1", "ä1", "v0-1"] {
            assert_eq!(
                Rendition::of_playlist(&format!("{name}.m3u8")),
                None,
                "{name}"
            );
        }
        for name in [
            "amelie.ts",
            "video.ts",
            "v0.ts",
            "v0-.ts",
            "a1-x.ts",
            "x/v0-1.ts",
            "v0-1.mp4",
        ] {
            assert!(!Rendition::is_segment(name), "{name}");
        }
    }
}
