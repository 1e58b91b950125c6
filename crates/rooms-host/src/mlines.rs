// SPDX-License-Identifier: MPL-2.0

//! Other payload types on an offer's m-lines than the client wrote: what stands first in an answer is what browsers send.

use std::borrow::Cow;
use std::collections::HashSet;

/// The offer with the m-lines that `change` gives: it gets each m-line, and the lines below it. What is no SDP is as it was: it is
/// refused where it is read.
pub(crate) fn changed(
    offer: &str,
    change: impl Fn(&str, &[&str]) -> Option<String>,
) -> Cow<'_, str> {
    let mut out = String::with_capacity(offer.len());
    let lines: Vec<_> = offer.split_inclusive('\n').collect();
    for section in lines.chunk_by(|_, next| !next.starts_with("m=")) {
        let Some((first, rest)) = section.split_first() else {
            continue;
        };
        match change(first, rest) {
            Some(line) => out.push_str(&line),
            None => out.push_str(first),
        }
        out.extend(rest.iter().copied());
    }
    Cow::Owned(out)
}

/// The id of a section's track, by which its client has announced it.
pub(crate) fn cid<'a>(rest: &[&'a str]) -> Option<&'a str> {
    let mut msids = rest.iter().filter_map(|line| line.strip_prefix("a=msid:"));
    let (_, cid) = msids.next()?.trim_end().split_once(' ')?;
    Some(cid)
}

/// The payload types of an encoding, of which an offer may name thousands.
pub(crate) fn payload_types<'a>(rest: &[&'a str], name: &str) -> HashSet<&'a str> {
    let maps = rest.iter().filter_map(|l| l.strip_prefix("a=rtpmap:"));
    let types = maps.filter_map(|map| {
        let (pt, encoding) = map.split_once(' ')?;
        let encoding = encoding.split('/').next()?.trim();
        encoding.eq_ignore_ascii_case(name).then_some(pt)
    });
    types.collect()
}

/// The m-line with what becomes of its payload types; nothing where it would have none.
pub(crate) fn with_types<'a>(
    line: &'a str,
    become_of: impl FnOnce(&[&'a str]) -> Vec<&'a str>,
) -> Option<String> {
    let trimmed = line.trim_end();
    let words: Vec<_> = trimmed.split(' ').collect();
    let (head, types) = words.split_at_checked(3)?;
    let types = become_of(types);
    let all = [head, &types].concat().join(" ");
    (!types.is_empty()).then(|| all + &line[trimmed.len()..])
}
