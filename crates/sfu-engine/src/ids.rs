// SPDX-License-Identifier: MPL-2.0

//! Names and identifiers, parsed once at the edge so that inside the engine they cannot be wrong.
//!
//! Called by every way in: the signaller's paths, the elements' properties.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// First parts of a stream name that would collide with the paths that the signaller serves.
pub const RESERVED: &[&str] = &[
    "admin",
    "whep",
    "whip",
    "session",
    "api",
    "assets",
    "metrics",
    "healthz",
    "hls",
    "studio",
    "twirp",
    "publish",
    "recordings",
    "room",
    "rtc",
    "gst-webrtc",
    ".well-known",
    // What crawlers and browsers ask for by themselves.
    "robots.txt",
    "favicon.ico",
];

const PART_MAX: usize = 64;
const NAME_MAX: usize = 255;
const RID_MAX: usize = 255;
/// No registered tag is longer (RFC 5646, section 4.4.1).
const LANGUAGE_MAX: usize = 35;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// A stream name breaks the rules of its spelling.
    #[error(
        "stream name {0:?} is not valid: use parts of 1 to 64 characters from A-Z a-z 0-9 . _ - joined by '/', 255 characters at most"
    )]
    Stream(String),
    /// The first part of a stream name is a path of the signaller.
    #[error("stream name {0:?} begins with a reserved word; these are taken: {list}", list = RESERVED.join(", "))]
    Reserved(String),
    /// A restriction identifier (RFC 8851) breaks the rules of its spelling.
    #[error("layer name {0:?} is not valid: use 1 to 255 characters from A-Z a-z 0-9 _ -")]
    Rid(String),
    /// A language tag (BCP 47) breaks the rules of its spelling.
    #[error("language {0:?} is not valid: a tag such as en or pt-BR is expected")]
    Language(String),
    /// Not 32 hexadecimal digits.
    #[error("session {0:?} is not valid: 32 hexadecimal digits are expected")]
    Session(String),
}

/// The name under which a stream is published and watched, such as `cam1` or `news/cam1`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let part_ok = |part: &str| {
            (1..=PART_MAX).contains(&part.len())
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if s.len() > NAME_MAX || !s.split('/').all(part_ok) {
            return Err(NameError::Stream(abbreviated(s)));
        }
        let first = s.split('/').next().unwrap_or_default();
        if RESERVED.contains(&first) {
            return Err(NameError::Reserved(s.to_owned()));
        }
        Ok(Self(s.into()))
    }
}

/// The name of a layer: its restriction identifier (RID, RFC 8851).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rid(Arc<str>);

impl Rid {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the layer with this index, highest first: `0`, `1`, …
    pub fn from_index(index: usize) -> Self {
        Self(index.to_string().into())
    }
}

impl FromStr for Rid {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let ok = (1..=RID_MAX).contains(&s.len())
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if ok {
            Ok(Self(s.into()))
        } else {
            Err(NameError::Rid(abbreviated(s)))
        }
    }
}

/// A language by its tag (BCP 47), such as `en` or `pt-BR`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Language(Arc<str>);

impl Language {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the other one is the same, or a variety of it (RFC 4647, section 3.3.1).
    pub fn covers(&self, other: &Self) -> bool {
        let (wanted, tag) = (self.0.as_bytes(), other.0.as_bytes());
        let begins = tag.get(..wanted.len());
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(wanted))
            && matches!(tag.get(wanted.len()), None | Some(b'-'))
    }
}

impl FromStr for Language {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let part_ok = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let first = s.split('-').next().unwrap_or_default();
        let ok = s.len() <= LANGUAGE_MAX
            && s.split('-').all(part_ok)
            && (first.len() > 1 || s.len() > 2)
            && first.bytes().all(|b| b.is_ascii_alphabetic());
        if ok {
            Ok(Self(s.into()))
        } else {
            Err(NameError::Language(abbreviated(s)))
        }
    }
}

/// The secret identifier of one viewer's session: 128 random bits, shown as 32 hexadecimal digits.
///
/// Whoever knows it may change or end the session, so it is never listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// A session identifier from 128 bits that the caller drew at random.
    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }
}

impl FromStr for SessionId {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        if s.len() == 32
            && s.bytes().all(|b| b.is_ascii_hexdigit())
            && let Ok(bits) = u128::from_str_radix(s, 16)
        {
            return Ok(Self(bits));
        }
        Err(NameError::Session(abbreviated(s)))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The log shows enough to follow one session and too little to take it over.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", (self.0 >> 96) as u32)
    }
}

macro_rules! text_newtype {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_newtype!(StreamName, Rid, Language);

/// What an error message repeats of a wrong input: its beginning, so that a log line stays a line.
fn abbreviated(s: &str) -> String {
    s.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_all_that_is_reserved() {
        let text = include_str!("../../../docs/protocol.md");
        let line = text.lines().find(|line| line.starts_with("not be one of"));
        let told: Vec<_> = line.unwrap().split('`').skip(1).step_by(2).collect();
        for word in RESERVED {
            assert!(told.contains(word), "{word}");
        }
        assert_eq!(told.len(), RESERVED.len());
    }

    #[test]
    fn stream_names_follow_one_rule() {
        let long_part = "a".repeat(65);
        let long_name = ["a".repeat(64).as_str(); 5].join("/");
        for (name, ok) in [
            ("demo", true),
            ("news/cam-1", true),
            ("a.b_c-D9", true),
            ("", false),
            ("/demo", false),
            ("demo/", false),
            ("a//b", false),
            ("../etc", false),
            ("a/..", false),
            (".", false),
            ("a b", false),
            ("ä", false),
            ("a%2fb", false),
            (long_part.as_str(), false),
            (long_name.as_str(), false),
            ("whep", false),
            ("api/x", false),
            ("robots.txt", false),
            ("apis/x", true),
        ] {
            assert_eq!(name.parse::<StreamName>().is_ok(), ok, "{name:?}");
        }
    }

    #[test]
    fn session_ids_read_back() {
        let id = SessionId::from_bits(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("abc".parse::<SessionId>().is_err());
        assert!(
            "+0000000000000000000000000000abc"
                .parse::<SessionId>()
                .is_err()
        );
        assert!(
            !format!("{id:?}").contains("abc"),
            "the log must not give the session away"
        );
    }

    #[test]
    fn languages_follow_one_rule() {
        for (tag, ok) in [
            ("en", true),
            ("pt-BR", true),
            ("zh-Hant-TW", true),
            ("x-comments", true),
            ("", false),
            ("e", false),
            ("1", false),
            ("de_DE", false),
            ("en-", false),
            ("de DE", false),
            ("abcdefghi", false),
            ("a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s", false),
        ] {
            assert_eq!(tag.parse::<Language>().is_ok(), ok, "{tag:?}");
        }
    }

    #[test]
    fn rids_follow_one_rule() {
        for (name, ok) in [
            ("0", true),
            ("hi_1-x", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
        ] {
            assert_eq!(name.parse::<Rid>().is_ok(), ok, "{name:?}");
        }
    }
}
