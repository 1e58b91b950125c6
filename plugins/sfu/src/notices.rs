// SPDX-License-Identifier: MPL-2.0

//! What happens to publishers, viewers, recordings and pushes: told once, and heard by whoever listens. Nobody who tells waits.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::SystemTime;

use gst::glib;
use gst::glib::subclass::Signal;
use gst::prelude::*;
use serde::Serialize;
use sfu_elements::signals;
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
    /// A service takes what it is sent.
    PushStarted,
    /// It does not, and is tried again: told once until it does.
    PushFailed,
    /// Nothing more goes there, by the API's wish or since the publisher is gone.
    PushFinished,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::PublisherJoined,
        Self::PublisherLeft,
        Self::ViewerJoined,
        Self::ViewerLeft,
        Self::RecordingStarted,
        Self::RecordingFinished,
        Self::PushStarted,
        Self::PushFailed,
        Self::PushFinished,
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
            Self::PushStarted => "push-started",
            Self::PushFailed => "push-failed",
            Self::PushFinished => "push-finished",
        }
    }

    /// The signal of it, whose argument is what the message has.
    pub(crate) fn signal(self) -> Signal {
        signals::told(self.name())
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
    /// The number of a push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) push: Option<u64>,
    /// Where it goes, without application and key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
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
            push: None,
            service: None,
            reason: None,
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
        if let Some(push) = self.push {
            told.set("push", push);
        }
        if let Some(input) = self.input {
            told.set("input", input);
        }
        for (name, text) in [
            ("user", &self.user),
            ("address", &self.address),
            ("file", &self.file),
            ("service", &self.service),
            ("reason", &self.reason),
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

    /// Emits its signal. No lock may be held: a handler may do what it likes.
    pub(crate) fn emit(&self, element: &gst::Element) {
        element.emit_by_name::<()>(self.kind.name(), &[&self.structure()]);
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
    let notice = Arc::new(notice);
    ViewerSignals::tell(router, &notice);
    // Nobody may listen.
    let _ = sender(router).send(notice);
}

/// Hears of everything from now on.
pub(crate) fn listen(router: &str) -> broadcast::Receiver<Arc<Notice>> {
    sender(router).subscribe()
}

/// What is done with each notice that is put into the queue, on a thread of its own.
pub(crate) fn handlers(
    name: &str,
    element: glib::WeakRef<gst::Element>,
    act: impl Fn(&gst::Element, &Notice) + Send + 'static,
) -> io::Result<SyncSender<Arc<Notice>>> {
    signals::handlers(name, element, move |element, notice: &Arc<Notice>| {
        act(element, notice);
    })
}

/// Emits the signals of what happens to the viewers of one stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct ViewerSignals {
    router: String,
    stream: String,
    queue: Arc<Queue>,
}

type Queue = SyncSender<Arc<Notice>>;
type ByStream = HashMap<String, Vec<Weak<Queue>>>;

/// By router.
static VIEWERS: LazyLock<Mutex<HashMap<String, ByStream>>> = LazyLock::new(Mutex::default);

impl ViewerSignals {
    /// Those that an element has which publishes a stream.
    pub(crate) const KINDS: [Kind; 2] = [Kind::ViewerJoined, Kind::ViewerLeft];

    pub(crate) fn start(
        element: &impl IsA<gst::Element>,
        router: &str,
        stream: &str,
    ) -> io::Result<Self> {
        let element = element.upcast_ref::<gst::Element>().downgrade();
        let emit = |element: &gst::Element, notice: &Notice| notice.emit(element);
        let queue = Arc::new(handlers("sfu-signals", element, emit)?);
        let mut routers = lock(&VIEWERS);
        let streams = routers.entry(router.to_owned()).or_default();
        let queues = streams.entry(stream.to_owned()).or_default();
        queues.push(Arc::downgrade(&queue));
        Ok(Self {
            router: router.to_owned(),
            stream: stream.to_owned(),
            queue,
        })
    }

    fn tell(router: &str, notice: &Arc<Notice>) {
        if !Self::KINDS.contains(&notice.kind) {
            return;
        }
        let routers = lock(&VIEWERS);
        let streams = routers.get(router);
        let queues = streams.and_then(|streams| streams.get(&notice.stream));
        for queue in queues.into_iter().flatten().filter_map(Weak::upgrade) {
            // Whoever is that slow loses it.
            let _ = queue.try_send(notice.clone());
        }
    }
}

impl Drop for ViewerSignals {
    fn drop(&mut self) {
        let mut routers = lock(&VIEWERS);
        let Some(streams) = routers.get_mut(&self.router) else {
            return;
        };
        if let Some(queues) = streams.get_mut(&self.stream) {
            let ours = Arc::as_ptr(&self.queue);
            queues.retain(|queue| queue.as_ptr() != ours);
            if queues.is_empty() {
                streams.remove(&self.stream);
            }
        }
    }
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
