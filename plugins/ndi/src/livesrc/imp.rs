// SPDX-License-Identifier: MPL-2.0
//! The element: properties, states, and what its children say.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread::JoinHandle;

use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;
use sfu_elements::server;

use super::ingest::{self, Ingest};
use super::pads;
use super::settings::{PROPERTIES, Settings};
use super::shared::{Event, Kind, Shared, lock};
use super::stream::{Missing, Stream};
use super::supervisor::Supervisor;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "ndilivesrc",
        gst::DebugColorFlags::empty(),
        Some("NDI ingest that never ends"),
    )
});

/// What is in the bin from READY up.
#[derive(Debug)]
struct Parts {
    ingest: Ingest,
    streams: [Arc<Stream>; 2],
}

#[derive(Debug)]
pub struct NdiLiveSrc {
    settings: Mutex<Settings>,
    shared: Arc<Shared>,
    pads: [gst::GhostPad; 2],
    parts: Mutex<Option<Parts>>,
    supervisor: Mutex<Option<JoinHandle<Supervisor>>>,
    /// The threads that hand the application's end on.
    endings: Mutex<Vec<JoinHandle<()>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for NdiLiveSrc {
    const NAME: &'static str = "GstNdiLiveSrc";
    type Type = super::NdiLiveSrc;
    type ParentType = gst::Bin;

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            shared: Arc::default(),
            pads: Kind::ALL.map(pads::ghost),
            parts: Mutex::default(),
            supervisor: Mutex::default(),
            endings: Mutex::default(),
        }
    }
}

impl ObjectImpl for NdiLiveSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // A source whatever is inside it at the moment.
        obj.set_suppressed_flags(gst::ElementFlags::SOURCE | gst::ElementFlags::SINK);
        obj.set_element_flags(gst::ElementFlags::SOURCE);
        for pad in &self.pads {
            obj.add_pad(pad).expect("the pads have different names");
        }
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        gst::debug!(CAT, imp = self, "{} = {value:?}", pspec.name());
        let mut settings = lock(&self.settings);
        settings.set(pspec.name(), value);
        drop(settings);
        if matches!(pspec.name(), "ndi-name" | "url-address") {
            self.shared.send(Event::SourceChanged);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "connected" => self.shared.connected.load(Relaxed).to_value(),
            "stats" => self.shared.stats().to_value(),
            name => lock(&self.settings).get(name),
        }
    }
}

impl GstObjectImpl for NdiLiveSrc {}

impl ElementImpl for NdiLiveSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NDI live source",
                "Source/Network/Audio/Video",
                "Receives an NDI source for ever: starts before it, shows a slate while it is away, returns by itself. \
                 Try: gst-launch-1.0 ndilivesrc ndi-name=\"STUDIO (CAM 1)\" name=ndi \
                 ndi.video ! queue ! videoconvert ! autovideosink \
                 ndi.audio ! queue ! audioconvert ! audioresample ! autoaudiosink",
                "The gst-sfu developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        &pads::TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        use gst::StateChange::{
            NullToReady, PausedToPlaying, PausedToReady, PlayingToPaused, ReadyToNull,
            ReadyToPaused,
        };
        match transition {
            NullToReady => self.prepare()?,
            ReadyToPaused => {
                server::begins(&*self.obj());
                self.check_source()?;
            }
            PausedToPlaying => self.shared.resume(),
            PlayingToPaused => self.shared.playing.store(false, Relaxed),
            _ => {}
        }
        // Stopped before the children are, so that it starts none of them again; dismantled after,
        // when nothing flows that could hold it up.
        let stopped = if transition == PausedToReady {
            self.stop()
        } else {
            None
        };
        let result = self.parent_change_state(transition);
        if let Some(supervisor) = stopped {
            supervisor.dismantle();
        }
        if transition == PausedToReady {
            for ending in std::mem::take(&mut *lock(&self.endings)) {
                let _ = ending.join();
            }
        }
        if transition == ReadyToNull {
            self.unprepare();
        }
        let success = result?;
        match transition {
            ReadyToPaused => {
                self.start()?;
                Ok(gst::StateChangeSuccess::NoPreroll)
            }
            PlayingToPaused => Ok(gst::StateChangeSuccess::NoPreroll),
            _ => Ok(success),
        }
    }

    fn send_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::Eos => {}
            // Live, which GstBin cannot know while no sink is in it.
            gst::EventType::Seek => return false,
            _ => return self.parent_send_event(event),
        }
        self.shared.finished.store(true, Relaxed);
        self.shared.send(Event::Finished);
        // Not in this thread, and each in one of its own: a sink that has not prerolled yet holds
        // its end up until the other one has, too.
        for kind in Kind::ALL {
            let (obj, event) = (self.obj().clone(), event.clone());
            let ending = std::thread::spawn(move || obj.imp().finish(kind, event));
            lock(&self.endings).push(ending);
        }
        server::ended(&*self.obj());
        true
    }
}

impl BinImpl for NdiLiveSrc {
    fn handle_message(&self, message: gst::Message) {
        let inner = message
            .src()
            .is_some_and(|src| src.name().starts_with(ingest::PREFIX));
        if !inner {
            return self.parent_handle_message(message);
        }
        match message.view() {
            gst::MessageView::Error(err) => {
                gst::info!(
                    CAT,
                    imp = self,
                    "Source failed: {} ({:?})",
                    err.error(),
                    err.debug()
                );
                let attempt = self.shared.attempt.load(Relaxed);
                self.shared.send(Event::Gone {
                    reason: err.error().to_string(),
                    attempt,
                });
            }
            gst::MessageView::Warning(warning) => {
                gst::info!(CAT, imp = self, "Source warns: {}", warning.error());
            }
            _ => self.parent_handle_message(message),
        }
    }
}

impl NdiLiveSrc {
    pub(super) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// NULL to READY: everything that may be missing is found missing here.
    fn prepare(&self) -> Result<(), gst::StateChangeError> {
        let parts = self.build_parts().map_err(|missing| {
            missing.report(&self.obj());
            gst::StateChangeError
        });
        if parts.is_err() {
            self.unprepare();
        }
        let ingest = parts?;
        if ingest.load_runtime().is_err() {
            gst::element_imp_error!(
                self,
                gst::LibraryError::Init,
                ("The NDI runtime could not be loaded: libndi.so.6 was not found. Install the NDI runtime 6 \
                     (from https://ndi.video/tools/) and set NDI_RUNTIME_DIR_V6 to the folder that holds libndi.so.6."),
                [
                    "NDI_RUNTIME_DIR_V6 is {:?}",
                    std::env::var_os("NDI_RUNTIME_DIR_V6")
                ]
            );
            self.unprepare();
            return Err(gst::StateChangeError);
        }
        Ok(())
    }

    fn build_parts(&self) -> Result<Ingest, Missing> {
        let obj = self.obj();
        let bin = obj.upcast_ref::<gst::Bin>();
        let ingest = Ingest::new(bin, &self.shared)?;
        let stream = |kind: Kind| {
            let pad = &self.pads[kind as usize];
            Stream::new(bin, kind, pad, &self.shared).map(Arc::new)
        };
        let streams = [stream(Kind::Video)?, stream(Kind::Audio)?];
        *lock(&self.parts) = Some(Parts {
            ingest: ingest.clone(),
            streams,
        });
        Ok(ingest)
    }

    /// Empties the bin, also if it was filled only in part.
    fn unprepare(&self) {
        lock(&self.parts).take();
        for pad in &self.pads {
            let _ = pad.set_target(None::<&gst::Pad>);
        }
        let obj = self.obj();
        for element in obj.children() {
            let _ = element.set_state(gst::State::Null);
            let _ = obj.remove(&element);
        }
    }

    fn check_source(&self) -> Result<(), gst::StateChangeError> {
        if self.settings().has_source() {
            return Ok(());
        }
        gst::element_imp_error!(
            self,
            gst::ResourceError::Settings,
            ("No source is named. Set ndi-name to 'MACHINE (SOURCE)', or url-address to ADDRESS:PORT.")
        );
        Err(gst::StateChangeError)
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let (sender, events) = mpsc::channel();
        let Some((ingest, streams)) = lock(&self.parts)
            .as_ref()
            .map(|parts| (parts.ingest.clone(), parts.streams.clone()))
        else {
            return Err(gst::StateChangeError);
        };
        let settings = self.settings();
        streams.iter().for_each(|stream| stream.set_up(&settings));
        self.shared.start(sender, settings.fallback);
        let supervisor = Supervisor::new(&self.obj(), events, ingest, streams);
        let thread = std::thread::Builder::new().name("ndilivesrc".into());
        match thread.spawn(move || supervisor.run()) {
            Ok(thread) => {
                *lock(&self.supervisor) = Some(thread);
                Ok(())
            }
            Err(err) => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Failed,
                    ("The system gives no thread to watch over the source: {err}")
                );
                Err(gst::StateChangeError)
            }
        }
    }

    fn stop(&self) -> Option<Supervisor> {
        self.shared.send(Event::Stop);
        let thread = lock(&self.supervisor).take()?;
        let supervisor = thread.join();
        self.shared.stop();
        match supervisor {
            Ok(supervisor) => Some(supervisor),
            Err(_) => {
                gst::error!(CAT, imp = self, "The supervisor has panicked");
                None
            }
        }
    }

    /// Ends a stream downstream, which only the application may ask for.
    fn finish(&self, kind: Kind, event: gst::Event) {
        let pad = &self.pads[kind as usize];
        if pad.sticky_event::<gst::event::StreamStart>(0).is_none() {
            let id = pad.create_stream_id(&*self.obj(), Some(kind.name()));
            pad.push_event(gst::event::StreamStart::new(&id));
        }
        pad.push_event(event);
    }
}
