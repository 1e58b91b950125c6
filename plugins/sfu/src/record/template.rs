// SPDX-License-Identifier: MPL-2.0

//! The template by which recordings are named.

use std::path::PathBuf;

/// What a template may hold, and what each stands for.
const PLACES: &[&str] = &["stream", "date", "time", "number"];
const EXTENSION: &str = ".mp4";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(&'static str),
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("location-template={text:?}: {why}"));
        let Some(pieces) = pieces(text) else {
            return wrong("it may hold {stream}, {date}, {time} and {number}, and no other braces");
        };
        if !text.ends_with(EXTENSION) {
            return wrong("it must end with .mp4");
        }
        if !pieces
            .iter()
            .any(|p| matches!(p, Piece::Place("number" | "time")))
        {
            return wrong("it must hold {number} or {time}, or all recordings would have one name");
        }
        let odd = |part: &str| matches!(part, "" | "." | "..");
        if text.split('/').any(odd) || text.contains(char::is_control) {
            return wrong(
                "it is a path inside of directory: no / at its beginning, no . or .. in it",
            );
        }
        Ok(Self(pieces))
    }
}

fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, more) = after.split_once('}')?;
        let place = PLACES.iter().find(|place| **place == name)?;
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Place(place));
        rest = more;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    let closed = |piece: &Piece| !matches!(piece, Piece::Text(text) if text.contains('}'));
    pieces.iter().all(closed).then_some(pieces)
}

impl Template {
    /// The path of a recording that begins at `now` (UTC), relative to the directory. Where no number is asked for,
    /// `number` above 1 tells those of one second apart.
    pub(super) fn path(&self, stream: &str, now: &glib::DateTime, number: u64) -> PathBuf {
        let time = |format: &str| now.format(format).map(String::from).unwrap_or_default();
        let mut path = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Place("stream") => path.push_str(stream),
                Piece::Place("date") => path.push_str(&time("%Y-%m-%d")),
                Piece::Place("time") => path.push_str(&time("%H-%M-%S")),
                Piece::Place(_) => path.push_str(&format!("{number:05}")),
            }
        }
        if !self.is_numbered() && number > 1 {
            path.truncate(path.len() - EXTENSION.len());
            path.push_str(&format!("-{number}{EXTENSION}"));
        }
        path.into()
    }

    /// Whether it holds the number, which then goes on from file to file.
    pub(super) fn is_numbered(&self) -> bool {
        self.0.contains(&Piece::Place("number"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_are_filled_in() {
        let now = glib::DateTime::from_utc(2026, 3, 4, 5, 6, 7.0).unwrap();
        for (template, number, path) in [
            (
                "{stream}/{date}_{time}_{number}.mp4",
                7,
                "a/b/2026-03-04_05-06-07_00007.mp4",
            ),
            ("all/{time}.mp4", 1, "all/05-06-07.mp4"),
            ("all/{time}.mp4", 2, "all/05-06-07-2.mp4"),
            ("x{number}{number}.mp4", 12, "x0001200012.mp4"),
        ] {
            let template: Template = template.parse().unwrap();
            assert_eq!(template.path("a/b", &now, number), Path::new(path));
        }
    }

    #[test]
    fn wrong_templates_are_refused_with_what_is_right() {
        for (template, says) in [
            ("", "end with .mp4"),
            ("{number}.mkv", "end with .mp4"),
            ("{stream}.mp4", "{number} or {time}"),
            ("{nummer}.mp4", "{stream}, {date}"),
            ("{number.mp4", "no other braces"),
            ("number}.mp4", "no other braces"),
            ("/tmp/{number}.mp4", "inside of directory"),
            ("../{number}.mp4", "inside of directory"),
            ("a/./{number}.mp4", "inside of directory"),
            ("a//{number}.mp4", "inside of directory"),
            ("{stream}/../{number}.mp4", "inside of directory"),
            ("{number}\n.mp4", "inside of directory"),
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(says), "{template}: {error}");
        }
    }
}
