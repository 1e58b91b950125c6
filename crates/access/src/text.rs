// SPDX-License-Identifier: MPL-2.0

//! Files that people write: Windows' editors begin UTF-8 with a byte order mark, which is no part of the first line.

use std::path::Path;
use std::{fs, io};

const MARK: &str = "\u{feff}";

/// All of a file of text.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = fs::read_to_string(path)?;
    if text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

/// The same of octets that may be text.
pub(crate) fn without_mark(mut octets: Vec<u8>) -> Vec<u8> {
    if octets.starts_with(MARK.as_bytes()) {
        octets.drain(..MARK.len());
    }
    octets
}
