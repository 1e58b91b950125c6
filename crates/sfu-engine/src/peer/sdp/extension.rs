// SPDX-License-Identifier: MPL-2.0

//! Header extensions that we know, under the numbers that an offer gives them (RFC 8285).

use super::lines::word;
use super::media::Direction;

/// The highest number of an extension with a header of one octet.
pub(super) const ONE_OCTET: u8 = 14;

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    Twcc,
    PlayoutDelay,
    CaptureTime,
    AudioLevel,
    Dependency,
}

impl Extension {
    const ALL: [(Self, &str); 8] = [
        (Self::Mid, "urn:ietf:params:rtp-hdrext:sdes:mid"),
        (Self::Rid, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
        (
            Self::RepairedRid,
            "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
        ),
        (
            Self::Twcc,
            "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        ),
        (
            Self::PlayoutDelay,
            "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        ),
        (
            Self::CaptureTime,
            "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
        ),
        (
            Self::AudioLevel,
            "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        ),
        (
            Self::Dependency,
            "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
        ),
    ];

    pub(super) fn uri(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn of(uri: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|(_, known)| *known == uri);
        known.map(|(extension, _)| extension)
    }
}

/// An extension as an offer maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) id: u8,
    /// Where the offer says one.
    pub(super) direction: Option<Direction>,
}

/// The extensions of an m-line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extensions([Option<Mapped>; Extension::ALL.len()]);

impl Extensions {
    /// `3/sendonly URI attributes`.
    pub(super) fn read(&mut self, value: &str) {
        let (number, rest) = word(value);
        let (id, direction) = match number.split_once('/') {
            Some((id, direction)) => (id, Direction::parse(direction)),
            None => (number, None),
        };
        // 0 and 255 stand for padding and for what is yet to be numbered, as do those above.
        let id = id.parse().ok().filter(|id| (1..=254).contains(id));
        if let (Some(id), Some(extension)) = (id, Extension::of(word(rest).0)) {
            let mapped = Mapped { id, direction };
            self.0[extension as usize].get_or_insert(mapped);
        }
    }

    /// What is not said here is as it is for the session.
    pub(super) fn inherit(&mut self, session: &Self) {
        for (own, theirs) in self.0.iter_mut().zip(session.0) {
            *own = own.or(theirs);
        }
    }

    pub(super) fn get(&self, extension: Extension) -> Option<Mapped> {
        self.0[extension as usize]
    }

    /// Only these, with numbers up to the `highest` of each.
    pub(super) fn only(&self, wanted: &[Extension], highest: impl Fn(Extension) -> u8) -> Self {
        let mut only = Self::default();
        for extension in wanted {
            let mapped = self.get(*extension);
            let mapped = mapped.filter(|m| m.id <= highest(*extension));
            only.0[*extension as usize] = mapped;
        }
        only
    }

    pub(super) fn remove(&mut self, extension: Extension) {
        self.0[extension as usize] = None;
    }

    /// Forgets those for which this is not so.
    pub(super) fn retain(&mut self, keep: impl Fn(Mapped) -> bool) {
        for mapped in &mut self.0 {
            *mapped = mapped.filter(|mapped| keep(*mapped));
        }
    }

    /// All that there are, by their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Extension, Mapped)> {
        let known = Extension::ALL.into_iter().zip(self.0);
        known.filter_map(|((extension, _), mapped)| Some((extension, mapped?)))
    }

    /// The number of one.
    pub(super) fn id(&self, extension: Extension) -> Option<u8> {
        Some(self.get(extension)?.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_extensions_are_found_under_their_numbers() {
        let mid = "urn:ietf:params:rtp-hdrext:sdes:mid";
        for (value, id) in [
            (format!("4 {mid}"), Some(4)),
            (format!("4/sendonly  {mid} attribute"), Some(4)),
            (format!("15 {mid}"), Some(15)),
            (format!("0 {mid}"), None),
            (format!("255 {mid}"), None),
            (format!("4096 {mid}"), None),
            (format!("x {mid}"), None),
            (format!("4 {mid}x"), None),
            ("4".to_owned(), None),
        ] {
            let mut extensions = Extensions::default();
            extensions.read(&value);
            assert_eq!(extensions.id(Extension::Mid), id, "{value}");
        }
    }

    #[test]
    fn an_m_line_goes_before_the_session() {
        let (mut session, mut own) = (Extensions::default(), Extensions::default());
        for extension in [Extension::Mid, Extension::Twcc] {
            session.read(&format!("1 {}", extension.uri()));
        }
        own.read(&format!("7/recvonly {}", Extension::Twcc.uri()));
        own.read(&format!("8 {}", Extension::Twcc.uri()));
        own.inherit(&session);
        let found: Vec<_> = own.iter().map(|(e, m)| (e, m.id)).collect();
        assert_eq!(found, [(Extension::Mid, 1), (Extension::Twcc, 7)]);
        assert_eq!(own.only(&[Extension::Mid], |_| ONE_OCTET).iter().count(), 1);
        assert_eq!(own.only(&[Extension::Twcc], |_| 6).iter().count(), 0);
    }
}
