// SPDX-License-Identifier: MPL-2.0

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;

use super::CAT;
use crate::lock;

/// How often statistics are looked at; the sink renews its own as often.
const LOOK: Duration = Duration::from_secs(1);
/// What changes with each report of a peer: the highest sequence number and the time that it speaks of.
const REPORTED: [&str; 2] = ["rb-exthighestseq", "rb-lsr"];

#[derive(Debug, Clone)]
struct Settings {
    element: String,
    timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            element: String::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// The thread that looks, and what ends it when it is dropped.
#[derive(Debug)]
struct Running {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
pub struct PeerWatch {
    /// What of it may change is looked at anew each time.
    settings: Arc<Mutex<Settings>>,
    running: Mutex<Option<Running>>,
}

#[glib::object_subclass]
impl ObjectSubclass for PeerWatch {
    const NAME: &'static str = "GstPeerWatch";
    type Type = super::PeerWatch;
    type ParentType = gst::Element;
}

impl ObjectImpl for PeerWatch {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("element")
                    .nick("Element")
                    .blurb("Name of the WebRTC sink in the same pipeline whose peer is watched")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("timeout")
                    .nick("Timeout")
                    .blurb("How long the peer may send no report, in ms; peers send them some seconds apart")
                    .minimum(5_000)
                    .maximum(3_600_000)
                    .default_value(Settings::default().timeout.as_millis() as u32)
                    .mutable_playing()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "element" => {
                let text = value.get::<Option<String>>().ok().flatten();
                settings.element = text.unwrap_or_default();
            }
            "timeout" => {
                let ms = value.get::<u32>().unwrap_or_default();
                settings.timeout = Duration::from_millis(ms.into());
            }
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings);
        match pspec.name() {
            "element" => settings.element.to_value(),
            "timeout" => (settings.timeout.as_millis() as u32).to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for PeerWatch {}

impl ElementImpl for PeerWatch {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "WebRTC peer watch",
                "Generic",
                "Fails when the peer of a WebRTC sink no longer answers, so that a supervisor begins anew. \
                 Example: gst-launch-1.0 supervisor pipeline=\"peerwatch element=out  videotestsrc is-live=true \
                 ! whipclientsink name=out signaller::whip-endpoint=http://localhost:8080/whip/cam\"",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::PausedToPlaying => self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
                gst::StateChangeError
            })?,
            gst::StateChange::PlayingToPaused => self.stop(),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl PeerWatch {
    fn start(&self) -> Result<(), String> {
        let Settings { element, timeout } = lock(&self.settings).clone();
        let settings = self.settings.clone();
        let bin = self.obj().parent().and_downcast::<gst::Bin>();
        let watched = bin.and_then(|bin| bin.by_name(&element));
        let watched = watched.filter(|watched| watched.find_property("stats").is_some());
        let watched = watched.ok_or_else(|| {
            format!(
                "element={element:?}: there is none of that name with statistics in the pipeline"
            )
        })?;
        let (stop, stopped) = mpsc::channel();
        let (watch, watched) = (self.obj().downgrade(), watched.downgrade());
        let run = move || {
            let mut peer = Peer::new(timeout, Instant::now());
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                peer.timeout = lock(&settings).timeout;
                let Some(watched) = watched.upgrade() else {
                    return;
                };
                let stats = watched.property::<Option<gst::Structure>>("stats");
                if peer.is_gone(stats.as_deref(), Instant::now()) {
                    if let Some(watch) = watch.upgrade() {
                        let what = format!(
                            "The peer of {element} has reported nothing for {:?}",
                            peer.timeout
                        );
                        gst::element_error!(watch, gst::ResourceError::Read, ("{what}"));
                    }
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("peerwatch".into())
            .spawn(run)
            .map_err(|e| format!("no thread could be started: {e}"))?;
        *lock(&self.running) = Some(Running { stop, thread });
        Ok(())
    }

    fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(Running { stop, thread }) = running {
            drop(stop);
            if thread.join().is_err() {
                gst::error!(CAT, imp = self, "the element's thread has panicked");
            }
        }
    }
}

/// What is known of a peer's reports.
#[derive(Debug)]
struct Peer {
    timeout: Duration,
    last: Vec<u32>,
    since: Instant,
}

impl Peer {
    fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            timeout,
            last: Vec::new(),
            since: now,
        }
    }

    /// Whether nothing was reported for too long. Without a session there is nobody who could.
    fn is_gone(&mut self, stats: Option<&gst::StructureRef>, now: Instant) -> bool {
        let Some(stats) = stats.filter(|stats| stats.n_fields() > 0) else {
            self.since = now;
            return false;
        };
        let mut reports = Vec::new();
        collect(stats, &mut reports);
        if reports != self.last {
            self.last = reports;
            self.since = now;
        }
        now.duration_since(self.since) >= self.timeout
    }
}

/// Finds what peers reported, however deep.
fn collect(stats: &gst::StructureRef, into: &mut Vec<u32>) {
    for (name, value) in stats {
        if let Ok(inner) = value.get::<gst::Structure>() {
            collect(&inner, into);
        } else if REPORTED.contains(&name.as_str()) {
            into.extend(value.get::<u32>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(highest: u32) -> gst::Structure {
        let source = gst::Structure::builder("application/x-rtp-source-stats")
            .field("rb-exthighestseq", highest)
            .field("packets-sent", 5u64)
            .build();
        let outbound = gst::Structure::builder("outbound")
            .field("gst-rtpsource-stats", source)
            .build();
        let session = gst::Structure::builder("s").field("out", outbound).build();
        gst::Structure::builder("stats")
            .field("unique", session)
            .build()
    }

    #[test]
    fn a_peer_is_gone_when_its_reports_stop() {
        gst::init().unwrap();
        let t0 = Instant::now();
        let at = |s| t0 + Duration::from_secs(s);
        let mut peer = Peer::new(Duration::from_secs(10), t0);
        let none = gst::Structure::new_empty("stats");
        assert!(!peer.is_gone(Some(&none), at(60)), "there is no session");
        for s in 61..100 {
            assert!(!peer.is_gone(Some(&stats(s)), at(s.into())), "{s}");
        }
        assert!(!peer.is_gone(Some(&stats(99)), at(108)));
        assert!(peer.is_gone(Some(&stats(99)), at(109)));
    }

    #[test]
    fn a_session_without_a_report_is_one_with_nobody() {
        gst::init().unwrap();
        let t0 = Instant::now();
        let mut peer = Peer::new(Duration::from_secs(10), t0);
        let silent = gst::Structure::builder("stats")
            .field("unique", 1i32)
            .build();
        assert!(!peer.is_gone(Some(&silent), t0 + Duration::from_secs(9)));
        assert!(peer.is_gone(Some(&silent), t0 + Duration::from_secs(10)));
    }
}
