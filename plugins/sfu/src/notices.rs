// SPDX-License-Identifier: MPL-2.0

//! What happens to publishers, viewers and recordings: told once, and heard by whoever listens. Nobody who tells waits.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::broadcast;

use crate::properties::lock;

/// So many may wait for a listener; older ones are lost to it.
const KEPT: usize = 1_024;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Media comes from a publisher.
    PublisherJoined,
    /// It is gone.
    PublisherLeft,
    /// A viewer is connected.
    ViewerJoined,
    /// It is gone.
    ViewerLeft,
    /// A file has begun.
    RecordingStarted,
    /// A file is whole.
    RecordingFinished,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::PublisherJoined,
        Self::PublisherLeft,
        Self::ViewerJoined,
        Self::ViewerLeft,
        Self::RecordingStarted,
        Self::RecordingFinished,
    ];

    /// The name in the interfaces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PublisherJoined => "publisher-joined",
            Self::PublisherLeft => "publisher-left",
            Self::ViewerJoined => "viewer-joined",
            Self::ViewerLeft => "viewer-left",
            Self::RecordingStarted => "recording-started",
            Self::RecordingFinished => "recording-finished",
        }
    }
}

/// Something that has happened, and to whom. What is not known is left out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Notice {
    #[serde(skip)]
    pub(crate) kind: Kind,
    #[serde(skip)]
    pub(crate) at: SystemTime,
    pub(crate) stream: String,
    /// The number of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<u64>,
    /// How a publisher's media comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<&'static str>,
    /// Who showed a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// Of a recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// How long it was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// What it sent, or was sent, of media; the size of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) octets: Option<u64>,
}

impl Notice {
    pub(crate) fn new(kind: Kind, stream: &str) -> Self {
        Self {
            kind,
            at: SystemTime::now(),
            stream: stream.to_owned(),
            session: None,
            input: None,
            user: None,
            address: None,
            file: None,
            seconds: None,
            octets: None,
        }
    }

    /// The element message of it.
    pub(crate) fn structure(&self) -> gst::Structure {
        let mut told = gst::Structure::new_empty(format!("sfu-{}", self.kind.name()));
        told.set("stream", &self.stream);
        if let Some(session) = self.session {
            told.set("session", session);
        }
        if let Some(input) = self.input {
            told.set("input", input);
        }
        for (name, text) in [
            ("user", &self.user),
            ("address", &self.address),
            ("file", &self.file),
        ] {
            if let Some(text) = text {
                told.set(name, text);
            }
        }
        if let Some(seconds) = self.seconds {
            told.set("seconds", seconds);
        }
        if let Some(octets) = self.octets {
            told.set("octets", octets);
        }
        told
    }
}

type Sender = broadcast::Sender<Arc<Notice>>;

/// By router, as streams are.
static ROUTERS: LazyLock<Mutex<HashMap<String, Sender>>> = LazyLock::new(Mutex::default);

fn sender(router: &str) -> Sender {
    let mut routers = lock(&ROUTERS);
    let make = || broadcast::channel(KEPT).0;
    routers
        .entry(router.to_owned())
        .or_insert_with(make)
        .clone()
}

/// Tells all who listen.
pub(crate) fn tell(router: &str, notice: Notice) {
    // Nobody may listen.
    let _ = sender(router).send(Arc::new(notice));
}

/// Hears of everything from now on.
pub(crate) fn listen(router: &str) -> broadcast::Receiver<Arc<Notice>> {
    sender(router).subscribe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_listen_holds_nobody_up_and_loses_the_oldest() {
        let mut slow = listen("slow");
        for n in 0..3 * KEPT as u64 {
            let mut notice = Notice::new(Kind::ViewerJoined, "cam1");
            notice.session = Some(n);
            tell("slow", notice);
        }
        tell("another", Notice::new(Kind::ViewerLeft, "cam1"));
        let lost = slow.try_recv();
        assert!(
            matches!(lost, Err(broadcast::error::TryRecvError::Lagged(n)) if n == 2 * KEPT as u64)
        );
        assert_eq!(slow.try_recv().unwrap().session, Some(2 * KEPT as u64));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        gst::init().unwrap();
        let mut notice = Notice::new(Kind::ViewerLeft, "cam1");
        notice.seconds = Some(1.5);
        let json = serde_json::to_string(&notice).unwrap();
        assert_eq!(json, r#"{"stream":"cam1","seconds":1.5}"#);
        let told = notice.structure();
        assert_eq!(told.name(), "sfu-viewer-left");
        assert_eq!(told.get::<f64>("seconds"), Ok(1.5));
        assert!(!told.has_field("user"));
    }
}
