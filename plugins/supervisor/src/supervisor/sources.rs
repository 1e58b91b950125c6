// SPDX-License-Identifier: MPL-2.0

//! What a pipeline takes its media from, as warnings name it: which file was passed over, which camera is away.

use std::path::Path;

use gst::prelude::*;

/// What elements call it.
const PROPERTIES: [&str; 3] = ["location", "uri", "device"];
/// More are not named.
const MOST: usize = 4;
/// Characters of each.
const LONGEST: usize = 160;

/// As it was given, and as it may be shown.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<(String, String)>);

impl Sources {
    /// Of a pipeline that has been built, from this file if it is from one.
    pub(super) fn of(pipeline: Option<&gst::Pipeline>, file: Option<&Path>) -> Self {
        let mut sources = Self::default();
        if let Some(pipeline) = pipeline {
            // `playbin` is a pipeline, and what it plays is its own property.
            sources.add_element(pipeline.upcast_ref());
            for element in pipeline.iterate_sources().into_iter().flatten() {
                sources.add_element(&element);
            }
        }
        if let Some(file) = file
            && sources.0.is_empty()
        {
            sources.add(file.to_string_lossy().into_owned());
        }
        sources
    }

    fn add_element(&mut self, element: &gst::Element) {
        let text = PROPERTIES.iter().find_map(|name| {
            let property = element.find_property(name)?;
            let is_text = property.value_type() == String::static_type()
                && property.flags().contains(glib::ParamFlags::READABLE);
            let text = is_text.then(|| element.property::<Option<String>>(name));
            text.flatten().filter(|text| !text.is_empty())
        });
        if let Some(text) = text {
            self.add(text);
        }
    }

    fn add(&mut self, text: String) {
        if self.0.len() < MOST && self.0.iter().all(|(known, _)| *known != text) {
            let shown = shown(&text);
            self.0.push((text, shown));
        }
    }

    /// As a part of a sentence: ` at A, B`, or nothing.
    pub(super) fn named(&self) -> String {
        let shown: Vec<_> = self.0.iter().map(|(_, shown)| shown.as_str()).collect();
        match shown.is_empty() {
            true => String::new(),
            false => format!(" at {}", shown.join(", ")),
        }
    }

    /// What an element said, without the secrets of what it was given and without its full stop.
    pub(super) fn told(&self, error: &str) -> String {
        let mut told = error.to_owned();
        for (text, shown) in self.0.iter().filter(|(text, shown)| text != shown) {
            told = told.replace(text.as_str(), shown);
        }
        told.trim_end_matches(['.', ' ', '\n']).to_owned()
    }
}

/// Without credentials, short and printable.
fn shown(text: &str) -> String {
    let scheme = |scheme: &str| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        !scheme.is_empty() && scheme.chars().all(is_letter)
    };
    match text.split_once("://") {
        Some((name, rest)) if scheme(name) && name != "file" => {
            let public = printable(&format!("{name}://{}", public(name, rest)));
            let first: String = public.chars().take(LONGEST).collect();
            let is_whole = first.len() == public.len();
            format!("{first}{}", if is_whole { "" } else { "…" })
        }
        // The end of a path tells most.
        _ => {
            let all = printable(text);
            let left_out = all.chars().count().saturating_sub(LONGEST);
            let last: String = all.chars().skip(left_out).collect();
            format!("{}{last}", if left_out == 0 { "" } else { "…" })
        }
    }
}

/// What of an address tells no secret.
fn public(scheme: &str, rest: &str) -> String {
    // Not all who write a password escape what is in it. Where an @ may stand in it as well as in a path or query nothing is shown.
    let (first, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let behind = match first.rfind('@') {
        Some(at) => &rest[at + 1..],
        None if is_user(first) => rest.split_once('@').map_or(rest, |(_, behind)| behind),
        None => rest,
    };
    if behind.contains('@') {
        return "…".to_owned();
    }
    let rest = behind;
    // Keys and passwords are in queries, and in the paths of some cameras (/user=admin&password=…).
    let end = rest.find(['?', '#', ';', '=', '&', ' ']);
    let mut public = rest[..end.unwrap_or(rest.len())].to_owned();
    let mut is_whole = end.is_none();
    // HOST/APPLICATION/KEY
    if scheme.starts_with("rtmp")
        && let Some((at, _)) = public.match_indices('/').nth(1)
    {
        public.truncate(at + 1);
        is_whole = false;
    }
    if !is_whole {
        public.push('…');
    }
    public
}

/// Whether that is the beginning of NAME:PASSWORD, and no HOST or HOST:PORT.
fn is_user(first: &str) -> bool {
    let is_port = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    first
        .split_once(':')
        .is_some_and(|(_, behind)| !first.starts_with('[') && !is_port(behind))
}

fn printable(text: &str) -> String {
    let misleads = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = |c: char| if misleads(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_address_is_shown() {
        for (text, expected) in [
            ("/srv/films/a.mp4", "/srv/films/a.mp4"),
            ("/srv/films/who? me@home.mp4", "/srv/films/who? me@home.mp4"),
            ("file:///srv/a=b@c.mp4", "file:///srv/a=b@c.mp4"),
            ("/dev/video0", "/dev/video0"),
            ("rtsp://192.0.2.7/stream1", "rtsp://192.0.2.7/stream1"),
            ("rtsp://ann:secret@192.0.2.7/1", "rtsp://192.0.2.7/1"),
            (
                "rtsp://ann:sec@ret@[2001:db8::1]/1",
                "rtsp://[2001:db8::1]/1",
            ),
            ("rtsp://ann:s/e?c#ret@192.0.2.7/1", "rtsp://192.0.2.7/1"),
            ("rtsp://192.0.2.7/1?token=secret", "rtsp://192.0.2.7/1…"),
            (
                "rtsp://192.0.2.7:554/user=admin&password=secret&channel=1",
                "rtsp://192.0.2.7:554/user…",
            ),
            (
                "rtmp://live.example/app/secret",
                "rtmp://live.example/app/…",
            ),
            ("rtmps://live.example/app", "rtmps://live.example/app"),
            (
                "srt://192.0.2.7:8890?passphrase=secret",
                "srt://192.0.2.7:8890…",
            ),
            ("srt://192.0.2.7:8890?passphrase=my@secret", "srt://…"),
            ("rtsp://192.0.2.7/user=admin&password=p@ss", "rtsp://…"),
            ("rtmp://192.0.2.7/app/k@ey", "rtmp://…"),
            ("rtsp://ann:secret@192.0.2.7/1?password=p@ss", "rtsp://…"),
            ("rtsp://ann:se@cr/e@t@192.0.2.7/1", "rtsp://…"),
            ("/a\n\u{202e}b", "/a\u{fffd}\u{fffd}b"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_long_is_cut_where_it_tells_least() {
        let long = "é".repeat(500);
        let path = shown(&format!("/{long}/film.mp4"));
        assert!(
            path.starts_with('…') && path.ends_with("/film.mp4"),
            "{path}"
        );
        let address = shown(&format!("http://host/{long}"));
        assert!(address.starts_with("http://host/") && address.ends_with('…'));
        for text in [path, address] {
            assert_eq!(text.chars().count(), LONGEST + 1);
        }
    }

    #[test]
    fn an_error_is_told_without_what_is_not_shown() {
        let mut sources = Sources::default();
        assert_eq!(
            (sources.named(), sources.told("It broke.")),
            (String::new(), "It broke".to_owned())
        );
        sources.add("http://ann:secret@host/a".to_owned());
        sources.add("/b".to_owned());
        sources.add("/b".to_owned());
        assert_eq!(sources.named(), " at http://host/a, /b");
        let told = sources.told("http://ann:secret@host/a is away..");
        assert_eq!(told, "http://host/a is away");
    }

    #[test]
    fn sources_are_found_where_there_are_some() {
        gst::init().unwrap();
        for (line, file, expected) in [
            ("filesrc location=/a.mp4 ! fakesink", None, &["/a.mp4"][..]),
            // What is said to be from a file may use it elsewhere.
            ("fakesrc ! fakesink", Some("/b.mp4"), &["/b.mp4"]),
            (
                "filesrc location=/a.mp4 ! fakesink",
                Some("/a.mp4"),
                &["/a.mp4"],
            ),
            (
                "filesrc location=/a ! fakesink filesrc location=/b ! filesink location=/c",
                None,
                &["/a", "/b"],
            ),
            ("fakesrc ! filesink location=/c", None, &[]),
        ] {
            let pipeline = gst::parse::launch(line).unwrap();
            let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
            let sources = Sources::of(Some(&pipeline), file.map(Path::new));
            let mut named: Vec<_> = sources.0.iter().map(|(_, shown)| shown.as_str()).collect();
            // In whichever order.
            named.sort_unstable();
            assert_eq!(named, expected, "{line}");
        }
    }
}
