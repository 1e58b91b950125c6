// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;

use sfu_access::Door;

use super::{CAT, name};
use crate::libsrt::Reject;

/// What SRT's key exchange takes.
const PASSPHRASE: std::ops::RangeInclusive<usize> = 10..=79;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) listen: String,
    pub(super) pipeline: String,
    pub(super) stream: String,
    pub(super) passphrase: String,
    pub(super) passphrases: String,
    pub(super) passphrases_file: String,
    pub(super) access: String,
    pub(super) latency_ms: u32,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without what is secret.
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8890".into(),
            pipeline: String::new(),
            stream: String::new(),
            passphrase: String::new(),
            passphrases: String::new(),
            passphrases_file: String::new(),
            access: String::new(),
            latency_ms: 125,
        }
    }
}

impl Settings {
    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        let found = self.listen.to_socket_addrs();
        let first = found.map_err(|e| e.to_string())?.next();
        first.ok_or_else(|| "it has no address".into())
    }

    pub(super) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms.into())
    }

    /// Who may publish by what they show, unless knowing a passphrase is the permission.
    pub(super) fn door(&self) -> Result<Option<Door>, String> {
        let secrets = [&self.passphrase, &self.passphrases, &self.passphrases_file];
        let by_passphrase = secrets.iter().any(|text| !text.is_empty());
        if by_passphrase && self.access.is_empty() {
            return Ok(None);
        }
        let warn = |why: &str| gst::warning!(CAT, "{why}");
        let door = Door::open(&self.access, warn).map_err(|e| format!("access: {e}"))?;
        gst::info!(CAT, "who may publish: {}", door.summary());
        Ok(Some(door))
    }

    /// Who may call, with what the file says now.
    pub(super) fn keys(&self) -> Result<Keys, String> {
        let mut keys = Keys {
            // A file that has no lines yet lets nobody in.
            is_open: self.passphrases.is_empty() && self.passphrases_file.is_empty(),
            ..Keys::default()
        };
        if !self.passphrase.is_empty() {
            keys.all = Some(passphrase("passphrase", &self.passphrase)?);
        }
        let mut named = self.passphrases.replace(',', "\n");
        if !self.passphrases_file.is_empty() {
            let text = sfu_access::read_text(&self.passphrases_file);
            named.push('\n');
            named += &text.map_err(|e| format!("{} can't be read: {e}", self.passphrases_file))?;
            if is_open_to_others(&self.passphrases_file) {
                gst::warning!(
                    CAT,
                    "{} can be read by others: chmod 600",
                    self.passphrases_file
                );
            }
        }
        for line in named.lines().map(str::trim).filter(|l| !l.is_empty()) {
            // A line may be a password alone: it is not repeated.
            let pair = line
                .split_once(':')
                .filter(|(stream, _)| name::is_name(stream));
            let (stream, secret) = pair.ok_or("passphrases are STREAM:PASSPHRASE, one a line")?;
            let secret = passphrase(stream, secret)?;
            keys.named.insert(stream.to_owned(), secret);
        }
        Ok(keys)
    }
}

/// Whether whoever has an account here reads the secrets.
fn is_open_to_others(file: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.mode() & 0o077 != 0)
}

fn passphrase(of: &str, text: &str) -> Result<String, String> {
    match PASSPHRASE.contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => {
            let (least, most) = (PASSPHRASE.start(), PASSPHRASE.end());
            Err(format!(
                "{of}: a passphrase of SRT has {least} to {most} characters"
            ))
        }
    }
}

/// Passphrases.
#[derive(Default)]
pub(super) struct Keys {
    all: Option<String>,
    named: BTreeMap<String, String>,
    /// Nothing says which streams there may be.
    is_open: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without what is secret.
        f.debug_set().entries(self.named.keys()).finish()
    }
}

impl Keys {
    /// What a caller must know who sends this stream; nothing, or nobody may.
    pub(super) fn of(&self, stream: &str) -> Result<String, Reject> {
        match self.named.get(stream).or(self.all.as_ref()) {
            Some(passphrase) => Ok(passphrase.clone()),
            None if self.is_open => Ok(String::new()),
            None => Err(Reject::Forbidden),
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let text = |name: &'static str, nick: &'static str, blurb: &'static str, default: &str| {
        glib::ParamSpecString::builder(name)
            .nick(nick)
            .blurb(blurb)
            .default_value(Some(default))
            .mutable_ready()
            .build()
    };
    let default = Settings::default();
    vec![
        text(
            "listen",
            "Listen address",
            "ADDRESS:PORT (UDP) to listen on for callers; port 0 for any free one, see port (default: 0.0.0.0:8890)",
            &default.listen,
        ),
        text(
            "pipeline",
            "Pipeline",
            "What is run for each caller, in the words of gst-launch-1.0: {stream} is its stream, the appsrc named caller what it sends",
            "",
        ),
        text(
            "stream",
            "Stream",
            "The stream of callers who name none by their stream id; empty refuses them (default: empty)",
            "",
        ),
        text(
            "passphrase",
            "Passphrase",
            "What callers must know whose stream has no passphrase of its own, 10 to 79 characters (default: empty, which is \
             nothing). Read back hidden",
            "",
        ),
        text(
            "passphrases",
            "Passphrases by stream",
            "STREAM:PASSPHRASE,…: what callers must know who send these streams; others are refused then, unless there is \
             passphrase. Read back without them",
            "",
        ),
        text(
            "passphrases-file",
            "File of passphrases",
            "A file with more of them, one STREAM:PASSPHRASE a line, which is read at the start (default: none)",
            "",
        ),
        text(
            "access",
            "Access",
            "File of rules that say who may publish, by what stream ids show (docs/access.md). Without it and without \
             passphrases: what the environment's GST_SFU_ACCESS names, or else this machine alone",
            "",
        ),
        glib::ParamSpecUInt::builder("latency")
            .nick("Latency")
            .blurb("How long SRT may take to repeat what was lost, in ms; a caller may want more")
            .maximum(10_000)
            .default_value(default.latency_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("The UDP port that is listened on; 0 while the element does not run")
            .maximum(u16::MAX.into())
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("callers (now), and since the start: accepted, refused (stream id, passphrase's stream, taken, or too many), cut (nothing that can be shown), restarts (of callers' pipelines), bytes, dropped (messages that a pipeline did not take in time), last-cut (why)")
            .read_only()
            .build(),
    ]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_its_passphrase_or_that_of_all_or_is_refused() {
        let mut settings = Settings::default();
        assert_eq!(settings.keys().unwrap().of("a"), Ok(String::new()));
        settings.passphrases = "a:first-secret, b/c:with:a:colon".into();
        let keys = settings.keys().unwrap();
        assert_eq!(keys.of("a").as_deref(), Ok("first-secret"));
        assert_eq!(keys.of("b/c").as_deref(), Ok("with:a:colon"));
        assert_eq!(keys.of("d"), Err(Reject::Forbidden));
        settings.passphrase = "for-all-others".into();
        let keys = settings.keys().unwrap();
        assert_eq!(keys.of("d").as_deref(), Ok("for-all-others"));
        assert_eq!(keys.of("a").as_deref(), Ok("first-secret"));
        let file = std::env::temp_dir().join(format!("srt-mark-{}", std::process::id()));
        std::fs::write(&file, "\u{feff}a:first-secret\r\nd:second-secret\r\n").unwrap();
        let marked = Settings {
            passphrases_file: file.to_str().unwrap().into(),
            ..Settings::default()
        };
        let keys = marked.keys().unwrap();
        assert_eq!(keys.of("a").as_deref(), Ok("first-secret"));
        assert_eq!(keys.of("d").as_deref(), Ok("second-secret"));
        std::fs::remove_file(&file).unwrap();
        let empty = Settings {
            passphrases_file: "/dev/null".into(),
            ..Settings::default()
        };
        assert_eq!(empty.keys().unwrap().of("a"), Err(Reject::Forbidden));
    }

    #[test]
    fn what_can_be_no_passphrase_is_refused_without_being_told() {
        for wrong in [
            "short-",
            "alone-and-secret",
            "a b:long-enough-one",
            "a:",
            "a:short",
        ] {
            let settings = Settings {
                passphrases: wrong.into(),
                ..Settings::default()
            };
            let Err(why) = settings.keys() else {
                panic!("{wrong} is taken");
            };
            assert!(!why.contains("secret") && !why.contains("short"), "{why}");
        }
        let settings = Settings {
            passphrases_file: "/nowhere/at/all".into(),
            ..Settings::default()
        };
        assert!(settings.keys().is_err());
    }
}
