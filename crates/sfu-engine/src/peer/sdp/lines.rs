// SPDX-License-Identifier: MPL-2.0

//! An SDP's lines, whatever ends them (RFC 8866, section 5).

/// One line: its letter, and what follows `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) letter: u8,
    pub(super) value: &'a str,
}

/// The lines in their order. What is none, such as a blank one, is passed over; so is a byte order mark.
pub(super) fn lines(sdp: &str) -> impl Iterator<Item = Line<'_>> {
    let sdp = sdp.trim_start_matches('\u{feff}');
    sdp.split(['\n', '\r']).filter_map(|line| {
        let (letter, value) = line.trim().split_once('=')?;
        let &[letter] = letter.as_bytes() else {
            return None;
        };
        let value = value.trim();
        Some(Line { letter, value })
    })
}

impl<'a> Line<'a> {
    /// Name and value of an attribute. One without a value has an empty one.
    pub(super) fn attribute(self) -> Option<(&'a str, &'a str)> {
        if self.letter != b'a' {
            return None;
        }
        let (name, value) = self.value.split_once(':').unwrap_or((self.value, ""));
        Some((name.trim(), value.trim()))
    }
}

/// The first word, and the rest.
pub(super) fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_any_way() {
        for text in [
            "v=0\r\na=mid: 1 \r\n",
            "v=0\na=mid:1",
            "v=0\ra=mid:1\r",
            "\u{feff}v=0\r\n\r\n \na=mid:1\n\n",
            "v=0\n garbage\n=\n==\naa=b\nä=b\n a=mid:1\n",
        ] {
            let read: Vec<_> = lines(text).map(|l| (l.letter, l.value)).collect();
            assert_eq!(read.len(), 2, "{text:?} {read:?}");
            let last = lines(text).last().and_then(Line::attribute);
            assert_eq!(last, Some(("mid", "1")), "{text:?}");
        }
    }

    #[test]
    fn attributes_have_a_value_or_none() {
        let of = |text| lines(text).next().and_then(Line::attribute);
        assert_eq!(of("a=rtcp-mux"), Some(("rtcp-mux", "")));
        assert_eq!(of("a=fmtp:96 a=b:c"), Some(("fmtp", "96 a=b:c")));
        assert_eq!(of("b=AS:5"), None);
        assert_eq!(word("96  a b"), ("96", "a b"));
        assert_eq!(word(""), ("", ""));
    }
}
