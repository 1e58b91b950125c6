// SPDX-License-Identifier: MPL-2.0

//! What an RTSP address asks for: a stream, and one of its layers.
//!
//! Players are led from `/cam1?layer=q` to the path `/cam1/layer=q`, below which the tracks are (`/cam1/layer=q/stream=0`):
//! of an address with a query it differs from player to player where they put a track's name. No name of a stream
//! has a `=`, so the two can't be confused.

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) stream: String,
    pub(super) layer: Option<String>,
}

impl Location {
    /// What an address asks for, and what follows that names a track.
    pub(super) fn parse(address: &str) -> Option<(Self, Option<&str>)> {
        let (_, rest) = address.split_once("://")?;
        let (_, rest) = rest.split_once('/')?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut layer = query.split('&').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            (key == "layer").then(|| value.to_owned())
        });
        let (mut stream, mut track) = (Vec::new(), None);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if track.is_none() => stream.push(part),
                Some(("layer", value)) => layer = Some(value.to_owned()),
                Some(("stream", _)) => track = Some(part),
                _ => return None,
            }
        }
        let stream = stream.join("/");
        (!stream.is_empty()).then_some((Self { stream, layer }, track))
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> String {
        match &self.layer {
            Some(layer) => format!("/{}/layer={layer}", self.stream),
            None => format!("/{}", self.stream),
        }
    }

    /// The same for the log: strangers choose what is in it, and terminals obey control characters.
    pub(super) fn shown(&self) -> String {
        self.path().escape_debug().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_writes_control_characters_into_the_log() {
        for (address, shown) in [
            ("rtsp://h/a/b-1?layer=q", "/a/b-1/layer=q"),
            ("rtsp://h/a\u{1b}[31m", "/a\\u{1b}[31m"),
            (
                "rtsp://h/a?layer=\u{1b}]0;x\u{7}",
                "/a/layer=\\u{1b}]0;x\\u{7}",
            ),
            ("rtsp://h/a\r\n0:00:01 ERROR", "/a\\r\\n0:00:01 ERROR"),
            ("rtsp://h/a\u{9b}31m\u{202e}", "/a\\u{9b}31m\\u{202e}"),
        ] {
            let (location, _) = Location::parse(address).unwrap();
            assert_eq!(location.shown(), shown);
        }
    }

    #[test]
    fn an_address_names_stream_layer_and_track() {
        for (address, path, track) in [
            ("rtsp://h:8554/cam1", "/cam1", None),
            ("rtsp://h/a/b-1/", "/a/b-1", None),
            ("rtsp://h/a?layer=q", "/a/layer=q", None),
            ("rtsp://h/a?x=1&layer=lowest", "/a/layer=lowest", None),
            ("rtsp://h/a/stream=0", "/a", Some("stream=0")),
            (
                "rtsp://h/a/layer=q/stream=1",
                "/a/layer=q",
                Some("stream=1"),
            ),
            (
                "rtsp://h/a/stream=1?layer=q",
                "/a/layer=q",
                Some("stream=1"),
            ),
        ] {
            let (location, named) = Location::parse(address).unwrap();
            assert_eq!((location.path().as_str(), named), (path, track));
            let again = format!("rtsp://h{path}");
            assert_eq!(Location::parse(&again), Some((location, None)), "{again}");
        }
        for address in [
            "",
            "*",
            "rtsp://h",
            "rtsp://h/",
            "rtsp://h/?layer=q",
            "rtsp://h/a/x=1",
        ] {
            assert_eq!(Location::parse(address), None, "{address}");
        }
    }
}
