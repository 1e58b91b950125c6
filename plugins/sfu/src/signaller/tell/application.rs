// SPDX-License-Identifier: MPL-2.0

//! What the application is told: element messages on the pipeline's bus, and the element's signals.

use std::sync::Arc;
use std::sync::mpsc::TrySendError;

use gst::prelude::*;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::notices::{Kind, Notice, handlers};
use crate::signaller::CAT;
use crate::signaller::server::App;

/// Posts each notice, and emits its signal. Messages wait for no handler of a signal, and handlers for none of a message.
pub(super) async fn tell(app: App, mut notices: broadcast::Receiver<Arc<Notice>>) {
    let element = app.element.upgrade().map(Cast::upcast::<gst::Element>);
    let Some(element) = element.map(|e| e.downgrade()) else {
        return;
    };
    let post = |element: &gst::Element, notice: &Notice| {
        if let (Kind::PushFailed, Some(service)) = (notice.kind, &notice.service) {
            let (stream, why) = (&notice.stream, notice.reason.as_deref().unwrap_or_default());
            gst::element_warning!(
                element,
                gst::ResourceError::Write,
                ("the push of {stream} to {service} failed and is tried again: {why}")
            );
        }
        let message = gst::message::Element::builder(notice.structure()).src(element);
        let _ = element.post_message(message.build());
    };
    let emit = |element: &gst::Element, notice: &Notice| notice.emit(element);
    let queues = [
        handlers("sfu-messages", element.clone(), post),
        handlers("sfu-signals", element, emit),
    ];
    let mut open = Vec::new();
    for queue in queues {
        match queue {
            Ok(queue) => open.push(queue),
            Err(error) => gst::warning!(CAT, "no thread for messages or signals: {error}"),
        }
    }
    loop {
        match notices.recv().await {
            Ok(notice) => {
                app.measures.happened(notice.kind);
                for queue in &open {
                    if let Err(TrySendError::Full(_)) = queue.try_send(notice.clone()) {
                        app.measures.lost(1);
                    }
                }
            }
            Err(RecvError::Lagged(lost)) => app.measures.lost(lost),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::notices::{ViewerSignals, tell};
    use crate::signaller::SfuSignaller;

    const LIMIT: Duration = Duration::from_secs(20);

    fn signaller(router: &str) -> (SfuSignaller, gst::Bus) {
        gst::init().unwrap();
        let element = glib::Object::new::<SfuSignaller>();
        element.set_property("listen", "127.0.0.1:0");
        element.set_property("udp-port", 0u32);
        element.set_property("router", router);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        element.set_state(gst::State::Ready).unwrap();
        // It listens from when its first task runs.
        std::thread::sleep(Duration::from_millis(300));
        (element, bus)
    }

    fn joined(router: &str, session: u64) {
        let mut notice = Notice::new(Kind::ViewerJoined, "cam1");
        notice.session = Some(session);
        tell(router, notice);
    }

    fn next(bus: &gst::Bus) -> u64 {
        let limit = gst::ClockTime::try_from(LIMIT).unwrap();
        let message = bus.timed_pop_filtered(limit, &[gst::MessageType::Element]);
        let message = message.expect("a message");
        let told = message.structure().unwrap();
        assert_eq!(told.name(), "sfu-viewer-joined");
        told.get("session").unwrap()
    }

    /// What handlers saw, by `emitted`.
    fn session_of(values: &[glib::Value]) -> u64 {
        let told = values[1].get::<gst::Structure>().unwrap();
        told.get("session").unwrap()
    }

    #[test]
    fn each_kind_has_a_signal_with_what_the_message_has() {
        let (element, _bus) = signaller("signals");
        let (emitted, seen) = channel();
        for kind in Kind::ALL {
            let emitted = emitted.clone();
            element.connect(kind.name(), false, move |values| {
                let told = values[1].get::<gst::Structure>().unwrap();
                emitted.send(told).unwrap();
                None
            });
        }
        for kind in Kind::ALL {
            let mut notice = Notice::new(kind, "cam1");
            notice.octets = Some(7);
            let told = notice.structure();
            tell("signals", notice);
            assert_eq!(seen.recv_timeout(LIMIT).unwrap(), told);
        }
        element.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn a_handler_that_blocks_holds_up_neither_messages_nor_the_end() {
        let (element, bus) = signaller("blocked");
        let (release, wait) = channel::<()>();
        let (emitted, seen) = channel();
        let wait = std::sync::Mutex::new(wait);
        element.connect("viewer-joined", false, move |values| {
            emitted.send(session_of(values)).unwrap();
            let _ = wait.lock().unwrap().recv();
            None
        });
        // More than wait for it.
        for session in 0..600 {
            joined("blocked", session);
            assert_eq!(next(&bus), session);
        }
        assert_eq!(seen.recv_timeout(LIMIT), Ok(0));
        let before = Instant::now();
        element.set_state(gst::State::Null).unwrap();
        assert!(before.elapsed() < Duration::from_secs(2));
        drop(release);
        // Those that waited come one right after the other.
        let patience = Duration::from_secs(2);
        let last = std::iter::from_fn(|| seen.recv_timeout(patience).ok()).count();
        assert!((1..600).contains(&last), "bounded: {last}");
    }

    fn stopped(done: &Receiver<()>, element: &gst::Element) {
        done.recv_timeout(LIMIT).unwrap();
        assert_eq!(element.current_state(), gst::State::Null);
    }

    #[test]
    fn a_handler_may_kick_and_set_null() {
        let (element, _bus) = signaller("null");
        let (done, wait) = channel();
        element.connect("viewer-joined", false, move |values| {
            let element = values[0].get::<gst::Element>().unwrap();
            let kicked = element.emit_by_name::<bool>("kick-session", &[&session_of(values)]);
            let publisher = element.emit_by_name::<bool>("kick-publisher", &[&"cam1"]);
            assert!(!kicked && !publisher, "there is none");
            element.set_state(gst::State::Null).unwrap();
            let none = element.emit_by_name::<bool>("kick-publisher", &[&"no name /"]);
            assert!(!none);
            done.send(()).unwrap();
            None
        });
        joined("null", 1);
        stopped(&wait, element.upcast_ref());
    }

    #[test]
    fn who_publishes_a_stream_is_told_of_its_viewers_alone_until_it_stops() {
        gst::init().unwrap();
        let element: gst::Element = glib::Object::new::<crate::sink::SfuSink>().upcast();
        let (emitted, seen) = channel();
        element.connect("viewer-joined", false, move |values| {
            emitted.send(session_of(values)).unwrap();
            None
        });
        let signals = ViewerSignals::start(&element, "one", "cam1").unwrap();
        let mut other = Notice::new(Kind::ViewerJoined, "cam2");
        other.session = Some(1);
        tell("one", other);
        joined("another", 2);
        joined("one", 3);
        assert_eq!(seen.recv_timeout(LIMIT), Ok(3));
        drop(signals);
        joined("one", 4);
        assert!(seen.recv_timeout(Duration::from_millis(200)).is_err());
        let null = element.set_state(gst::State::Null);
        assert!(null.is_ok());
    }
}
