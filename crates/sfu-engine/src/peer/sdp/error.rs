// SPDX-License-Identifier: MPL-2.0

//! Why an offer was not answered, as a sentence that its sender reads.

use std::fmt::Write as _;

use thiserror::Error;

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OfferError {
    /// It is not SDP, or lacks what a session needs.
    #[error("the offer was not understood: {0}")]
    Invalid(String),
    /// It is understood, and asks for what is not done, or for too much.
    #[error("the offer can't be taken: {0}")]
    Unacceptable(String),
    /// Nothing in it can play or carry the stream.
    #[error("{0}")]
    NoCommonCodec(String),
}

impl OfferError {
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    pub(super) fn unacceptable(why: impl Into<String>) -> Self {
        Self::Unacceptable(why.into())
    }
}

/// What the peer wrote, short and printable.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 40;
    /// Octets, with what makes them printable.
    const LONGEST: usize = 80;
    let mut out = String::from("\"");
    let mut characters = text.chars();
    for character in characters.by_ref().take(MOST) {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    if characters.next().is_some() && !out.ends_with('…') {
        out.push('…');
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_is_shown_is_short_and_printable() {
        for (text, expected) in [
            ("v", "\"v\"".to_owned()),
            ("a\u{7}\"\u{202e}", "\"a\\u{7}\\\"\u{202e}\"".to_owned()),
            (&"ä".repeat(41), format!("\"{}…\"", "ä".repeat(40))),
            (&"\0".repeat(41), format!("\"{}…\"", "\\u{0}".repeat(16))),
            (&"𝄞".repeat(41), format!("\"{}…\"", "𝄞".repeat(20))),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
