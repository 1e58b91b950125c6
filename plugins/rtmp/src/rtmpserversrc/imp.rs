// SPDX-License-Identifier: MPL-2.0
//! The element: properties and states.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib::subclass::Signal;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::kick;
use sfu_elements::properties::may_change;
use sfu_elements::refusal;
use sfu_elements::server;
use sfu_elements::signals::told;
use sfu_tls::Certificates;

use super::CAT;
use super::access::Door;
use super::output::{Kind, Output, TEMPLATES};
use super::server::{JOINED, LEFT, Server, Shared, Tls};
use super::settings::{PROPERTIES, Settings};
use super::stats::Stats;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub struct RtmpServerSrc {
    settings: Mutex<Settings>,
    outputs: [Arc<Output>; 2],
    /// Those of the last start stay when the element stops.
    stats: Mutex<Arc<Stats>>,
    server: Mutex<Option<Server>>,
}

#[glib::object_subclass]
impl ObjectSubclass for RtmpServerSrc {
    const NAME: &'static str = "GstRtmpServerSrc";
    type Type = super::RtmpServerSrc;
    type ParentType = gst::Bin;

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            outputs: Kind::ALL.map(|kind| Arc::new(Output::new(kind))),
            stats: Mutex::default(),
            server: Mutex::default(),
        }
    }
}

impl ObjectImpl for RtmpServerSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn signals() -> &'static [Signal] {
        static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(|| {
            let kick =
                kick::signal::<super::RtmpServerSrc>(false, |element, _| element.imp().kick());
            vec![kick, told(JOINED), told(LEFT)]
        });
        &SIGNALS
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_suppressed_flags(gst::ElementFlags::SOURCE | gst::ElementFlags::SINK);
        obj.set_element_flags(gst::ElementFlags::SOURCE);
        for output in &self.outputs {
            if let Err(err) = output.install(obj.upcast_ref()) {
                gst::error!(CAT, imp = self, "Pad {}: {err}", output.kind.name());
            }
            let weak = obj.downgrade();
            kick::hear(output.pad.upcast_ref(), move || {
                weak.upgrade().is_some_and(|obj| obj.imp().kick())
            });
        }
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        lock(&self.settings).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let connected = || self.shared().is_some_and(|shared| shared.connected());
        match pspec.name() {
            "port" => {
                let server = lock(&self.server);
                u32::from(server.as_ref().map_or(0, |server| server.port)).to_value()
            }
            "connected" => connected().to_value(),
            "stats" => {
                let stats = lock(&self.stats).clone();
                stats.structure(connected()).to_value()
            }
            _ => lock(&self.settings).get(pspec),
        }
    }
}

impl GstObjectImpl for RtmpServerSrc {}

impl ElementImpl for RtmpServerSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP server source",
                "Source/Network/Audio/Video",
                "Listens for an encoder that publishes by RTMP, and gives its H.264 and AAC or Opus. \
                 Try: gst-launch-1.0 rtmpserversrc stream-key=secret name=in \
                 in.video ! h264parse ! avdec_h264 ! videoconvert ! autovideosink",
                "The gst-sfu developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        &TEMPLATES
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        let ends = self.outputs.iter().map(|output| output.end(&event));
        let ended = ends.fold(true, |all, ended| all && ended);
        server::ended(&*self.obj());
        ended
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        use gst::StateChange::{PausedToPlaying, PausedToReady, PlayingToPaused, ReadyToPaused};
        match transition {
            ReadyToPaused => {
                server::begins(&*self.obj());
                self.prepare()?;
            }
            PlayingToPaused => self.set_playing(false),
            // Before the children are flushed: what still comes has nowhere to go.
            PausedToReady => self.stop(),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            ReadyToPaused => {
                self.start()?;
                Ok(gst::StateChangeSuccess::NoPreroll)
            }
            PausedToPlaying => {
                self.set_playing(true);
                Ok(success)
            }
            PlayingToPaused => Ok(gst::StateChangeSuccess::NoPreroll),
            _ => Ok(success),
        }
    }
}

impl BinImpl for RtmpServerSrc {
    /// What is linked to a pad and can't take it is named, and sound that can't be decoded takes no picture away.
    fn handle_message(&self, message: gst::Message) {
        let mut decoders = self.outputs.iter().filter_map(|output| output.decoder());
        if let Some(why) = decoders.find_map(|decoder| decoder.failure(&message)) {
            gst::info!(CAT, imp = self, "A decoder failed: {message:?}");
            if !why.is_empty() {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Decode,
                    ("The sound can't be decoded, and is left out until it can: {why}")
                );
            }
            return;
        }
        if !refusal::tell(self.obj().upcast_ref(), &message) {
            self.parent_handle_message(message);
        }
    }
}

impl RtmpServerSrc {
    fn shared(&self) -> Option<Arc<Shared>> {
        lock(&self.server)
            .as_ref()
            .map(|server| Arc::clone(&server.shared))
    }

    /// Ends whoever publishes. Returns whether there is somebody.
    fn kick(&self) -> bool {
        self.shared().is_some_and(|shared| shared.kick())
    }

    fn prepare(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let latency = settings.latency();
        let latency = i64::try_from(latency.nseconds()).unwrap_or(i64::MAX);
        for output in &self.outputs {
            output.floor.store(0, Relaxed);
            output.source.set_property("min-latency", latency);
            let decoded = output.kind == Kind::Audio && settings.decode_audio;
            let set = output.set_decoded(self.obj().upcast_ref(), decoded);
            set.map_err(|why| {
                gst::element_imp_error!(self, gst::CoreError::Failed, ("decode-audio: {why}"));
                gst::StateChangeError
            })?;
        }
        Ok(())
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let stats = Arc::<Stats>::default();
        *lock(&self.stats) = Arc::clone(&stats);
        let listen = settings.listen.clone();
        let door = Door::open(&settings).map_err(|why| {
            gst::element_imp_error!(self, gst::ResourceError::OpenRead, ("{why}"));
            gst::StateChangeError
        })?;
        let certificates = Certificates::open(&settings.certificate, &settings.private_key);
        let tls = certificates.and_then(Tls::new).map_err(|why| {
            let (certificate, key) = (&settings.certificate, &settings.private_key);
            gst::element_imp_error!(
                self,
                gst::ResourceError::OpenRead,
                ("RTMPS with certificate={certificate} private-key={key}: {why}")
            );
            gst::StateChangeError
        })?;
        let shared = Shared::new(
            &self.obj(),
            settings,
            (door, tls),
            self.outputs.clone(),
            stats,
        );
        match Server::start(shared) {
            Ok(server) => {
                gst::info!(
                    CAT,
                    imp = self,
                    "Listening on {listen}, port {}",
                    server.port
                );
                *lock(&self.server) = Some(server);
                self.obj().notify("port");
                Ok(())
            }
            Err(err) => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::OpenRead,
                    ("It can't be listened on {listen} for RTMP: {err}. Set listen to an ADDRESS:PORT of this \
                         machine that is free.")
                );
                Err(gst::StateChangeError)
            }
        }
    }

    fn stop(&self) {
        // Not with the lock held: its connections' threads post messages, and whoever gets them may look.
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.stop();
        }
    }

    fn set_playing(&self, playing: bool) {
        if let Some(shared) = self.shared() {
            shared.playing.store(playing, Relaxed);
        }
    }
}
