// SPDX-License-Identifier: MPL-2.0

//! What a parser says of a peer's SDP, as a part of one sentence that the peer may read.
//!
//! `str0m`'s says where it stopped as an address in our memory (`combine`'s `PointerOffset`), over several lines.

use std::fmt::Display;

/// What a peer is told of its mistake at most, in characters: the parser repeats what it read.
const MOST: usize = 300;

/// See the module's description.
pub(super) fn complaint(error: &dyn Display) -> String {
    let text = error.to_string();
    let mut out = String::new();
    let mut left = MOST;
    for line in text.lines() {
        let line = match line.find("Parse error at") {
            Some(at) => line[..at].trim_end_matches([' ', ':']),
            None => line.trim(),
        };
        if line.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push_str("; ");
        }
        let shown = line.chars().filter(|c| !c.is_control()).take(left);
        let before = out.len();
        out.extend(shown);
        left = left.saturating_sub(out.len() - before);
        if left == 0 {
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_left_out_and_lines_become_one() {
        for (said, told) in [
            ("it is none", "it is none"),
            (
                "SDP parse: Parse error at 140234567890123\nUnexpected `h`\nExpected `v=`\n",
                "SDP parse; Unexpected `h`; Expected `v=`",
            ),
            (
                "Parse error at PointerOffset(0x7f0012345678)\nUnexpected end of input",
                "Unexpected end of input",
            ),
            ("", ""),
            ("a\u{7}b", "ab"),
        ] {
            assert_eq!(complaint(&said), told);
        }
    }

    #[test]
    fn it_stays_a_sentence() {
        for text in ["ä".repeat(70_000), "ab\n".repeat(70_000)] {
            assert!(complaint(&text).chars().count() < 2 * MOST);
        }
    }
}
