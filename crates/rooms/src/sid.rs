// SPDX-License-Identifier: MPL-2.0

//! Names that the server gives: `RM_` a room, `PA_` a participant, `TR_` a track, `DTR_` a data track.

use std::fmt;
use std::sync::Arc;

use livekit_protocol::TrackSource;

const LETTERS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 58 to the power of 12 are 70 bits: nobody guesses one.
const LENGTH: usize = 12;

/// See the module's description.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid(Arc<str>);

impl Sid {
    pub(crate) fn room() -> Self {
        Self::new("RM_")
    }

    /// Of something that has happened.
    pub(crate) fn event() -> Self {
        Self::new("EV_")
    }

    /// A new participant's.
    pub fn participant() -> Self {
        Self::new("PA_")
    }

    /// Clients tell a track's source by its name's next letters in logs, as they do with LiveKit's own.
    pub fn track(source: TrackSource) -> Self {
        Self::new(match source {
            TrackSource::Camera => "TR_VC",
            TrackSource::Microphone => "TR_AM",
            TrackSource::ScreenShare => "TR_VS",
            TrackSource::ScreenShareAudio => "TR_AS",
            TrackSource::Unknown => "TR_",
        })
    }

    pub(crate) fn data_track() -> Self {
        Self::new("DTR_")
    }

    fn new(prefix: &str) -> Self {
        let mut sid = String::with_capacity(prefix.len() + LENGTH);
        sid.push_str(prefix);
        while sid.len() < prefix.len() + LENGTH {
            let mut random = [0; LENGTH];
            getrandom::fill(&mut random).expect("the system has randomness");
            // What lies above the last whole multiple would make some letters likelier.
            let fair = random.iter().filter(|r| **r < 232);
            let letters = fair.map(|r| char::from(LETTERS[usize::from(*r) % LETTERS.len()]));
            sid.extend(letters.take(prefix.len() + LENGTH - sid.len()));
        }
        Self(sid.into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Sid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&Sid> for String {
    fn from(sid: &Sid) -> Self {
        sid.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike_and_each_tells_what_it_is() {
        let all: std::collections::BTreeSet<_> = (0..10_000).map(|_| Sid::participant()).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|sid| sid.as_str().len() == 15));
        let camera = Sid::track(TrackSource::Camera);
        assert!(camera.as_str().starts_with("TR_VC"), "{camera}");
    }
}
