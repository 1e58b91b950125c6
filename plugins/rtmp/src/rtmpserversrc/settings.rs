// SPDX-License-Identifier: MPL-2.0
//! The properties of `rtmpserversrc`.

use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;
use sfu_elements::properties::hidden;

/// What a user sets.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) listen: String,
    pub(super) app: String,
    pub(super) stream_key: String,
    pub(super) access: String,
    pub(super) stream: String,
    pub(super) certificate: String,
    pub(super) private_key: String,
    pub(super) timeout_ms: u32,
    pub(super) latency_ms: u32,
    pub(super) decode_audio: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:1935".into(),
            app: "live".into(),
            stream_key: String::new(),
            access: String::new(),
            stream: String::new(),
            certificate: String::new(),
            private_key: String::new(),
            timeout_ms: 10_000,
            latency_ms: 200,
            decode_audio: false,
        }
    }
}

impl Settings {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }

    pub(super) fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.latency_ms.into())
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        let text = || value.get::<Option<String>>().ok().flatten();
        let number = || value.get::<u32>().unwrap_or_default();
        match name {
            "listen" => self.listen = text().unwrap_or(Self::default().listen),
            "app" => self.app = text().unwrap_or_default(),
            "stream-key" => self.stream_key = text().unwrap_or_default(),
            "access" => self.access = text().unwrap_or_default(),
            "stream" => self.stream = text().unwrap_or_default(),
            "certificate" => self.certificate = text().unwrap_or_default(),
            "private-key" => self.private_key = text().unwrap_or_default(),
            "timeout" => self.timeout_ms = number(),
            "latency" => self.latency_ms = number(),
            "decode-audio" => self.decode_audio = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    pub(super) fn get(&self, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "listen" => self.listen.to_value(),
            "app" => self.app.to_value(),
            "stream-key" => hidden(&self.stream_key).to_value(),
            "access" => self.access.to_value(),
            "stream" => self.stream.to_value(),
            "certificate" => self.certificate.to_value(),
            "private-key" => self.private_key.to_value(),
            "timeout" => self.timeout_ms.to_value(),
            "latency" => self.latency_ms.to_value(),
            "decode-audio" => self.decode_audio.to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    /// Whether this is our app, and the key ours where there is one. Takes as long whichever byte differs.
    pub(super) fn permits(&self, app: &str, key: &str) -> bool {
        let same = |a: &str, b: &str| {
            let differing = a
                .bytes()
                .zip(b.bytes())
                .fold(0, |all, (a, b)| all | (a ^ b));
            a.len() == b.len() && differing == 0
        };
        // What follows on a question mark is for somebody else, if it is not part of our own name.
        let permits = |ours: &str, theirs: &str| same(ours, theirs) | same(ours, bare(theirs));
        let key = self.stream_key.is_empty() || permits(&self.stream_key, key);
        key && permits(self.app.trim_matches('/'), app.trim_matches('/'))
    }
}

/// An app or key without the query that some encoders append, `live?token=x`.
pub(super) fn bare(name: &str) -> &str {
    let end = name.find('?').unwrap_or(name.len());
    name[..end].trim_matches('/')
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    let text = |name: &'static str, nick: &'static str, blurb: &'static str, default: &str| {
        glib::ParamSpecString::builder(name)
            .nick(nick)
            .blurb(blurb)
            .default_value(Some(default))
            .mutable_ready()
            .build()
    };
    let number = |name, nick, blurb, (minimum, maximum), default| {
        glib::ParamSpecUInt::builder(name)
            .nick(nick)
            .blurb(blurb)
            .minimum(minimum)
            .maximum(maximum)
            .default_value(default)
            .mutable_ready()
            .build()
    };
    vec![
        text(
            "listen",
            "Listen address",
            "ADDRESS:PORT to listen on for publishers; port 0 for any free one, see port (default: 0.0.0.0:1935)",
            &default.listen,
        ),
        text(
            "app",
            "Application",
            "The first part of the path that publishers must use: rtmp://HOST:PORT/APP/KEY (default: live)",
            &default.app,
        ),
        text(
            "stream-key",
            "Stream key",
            "The last part of the path, which is the permission to publish; empty leaves it to access (default: empty). Read back \
             hidden",
            "",
        ),
        text(
            "access",
            "Access",
            "Without stream-key: file of rules that say who may publish (docs/access.md), by a key or token as the last part of \
             the path, or behind ?token=; empty: the one that GST_SFU_ACCESS names in the environment, or, without it, this \
             machine alone",
            &default.access,
        ),
        text(
            "stream",
            "Stream",
            "Name of the stream that the rules of access are asked for (default: the last part of the path)",
            &default.stream,
        ),
        text(
            "certificate",
            "Certificate",
            "PEM file with the certificate and its chain, with which only RTMPS is spoken; read again when it changes (default: \
             empty, RTMP)",
            &default.certificate,
        ),
        text(
            "private-key",
            "Private key",
            "PEM file with the certificate's private key; read again when it changes (default: empty)",
            &default.private_key,
        ),
        number(
            "timeout",
            "Timeout",
            "How long a publisher may send nothing until it is taken for lost, in ms (default: 10000)",
            (1_000, 600_000),
            default.timeout_ms,
        ),
        number(
            "latency",
            "Latency",
            "How late what the network held up may be for sinks that keep time, in ms (default: 200)",
            (0, 10_000),
            default.latency_ms,
        ),
        glib::ParamSpecBoolean::builder("decode-audio")
            .nick("Decode audio")
            .blurb("Whether the pad audio gives raw audio, whatever codec each publisher has (default: false, as it comes)")
            .default_value(default.decode_audio)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("The TCP port that is listened on; 0 while the element does not run")
            .maximum(u16::MAX.into())
            .read_only()
            .build(),
        glib::ParamSpecBoolean::builder("connected")
            .nick("Connected")
            .blurb("Whether someone publishes now")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the start: connected, connections, publishers, refused (wrong app, key or codec, too large, or not the first), cut (misuse, stalling or silence), bytes, frames, dropped-frames, unusable (broken messages, and sound of other codecs), last-cut (why)")
            .read_only()
            .build(),
    ]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_app_and_key_are_permitted() {
        let settings = Settings {
            stream_key: "secret".into(),
            ..Settings::default()
        };
        assert!(settings.permits("live", "secret"));
        for (app, key) in [
            ("live", "secre"),
            ("live", "secret1"),
            ("live", ""),
            ("other", "secret"),
            ("", "secret"),
            ("?live", "secret"),
            ("live", "?secret"),
        ] {
            assert!(!settings.permits(app, key), "{app}/{key}");
        }
        assert!(Settings::default().permits("live", "whatever"));
        for (app, key) in [
            ("live?token=x", "secret"),
            ("live/?token=x", "secret?a=b&c=d"),
            ("live", "secret?"),
            ("live", "secret/"),
        ] {
            assert!(settings.permits(app, key), "{app}/{key}");
        }
        let asking = Settings {
            stream_key: "secret?of=mine".into(),
            ..Settings::default()
        };
        assert!(asking.permits("live", "secret?of=mine"));
        assert!(!asking.permits("live", "secret"));
    }
}
