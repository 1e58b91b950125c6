// SPDX-License-Identifier: MPL-2.0

use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::glib::subclass::Signal;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::kick;
use sfu_elements::properties::{hidden, hidden_by_name, may_change};
use sfu_elements::signals::told;

use super::caller;
use super::server::{JOINED, LEFT, Server};
use super::settings::{PROPERTIES, Settings};
use super::stats::Stats;
use crate::lock;

#[derive(Debug, Default)]
pub struct SrtServer {
    settings: Mutex<Settings>,
    /// Those of the last start stay when the element stops.
    stats: Mutex<Arc<Stats>>,
    server: Mutex<Option<Server>>,
}

#[glib::object_subclass]
impl ObjectSubclass for SrtServer {
    const NAME: &'static str = "GstSrtServer";
    type Type = super::SrtServer;
    type ParentType = gst::Element;
}

impl ObjectImpl for SrtServer {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn signals() -> &'static [Signal] {
        static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(|| {
            let kick = kick::signal::<super::SrtServer>(true, |element, stream| {
                element.imp().kick(stream)
            });
            vec![kick, told(JOINED), told(LEFT)]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        let text = || value.get::<Option<String>>().ok().flatten();
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "listen" => settings.listen = text().unwrap_or(Settings::default().listen),
            "pipeline" => settings.pipeline = text().unwrap_or_default(),
            "stream" => settings.stream = text().unwrap_or_default(),
            "passphrase" => settings.passphrase = text().unwrap_or_default(),
            "passphrases" => settings.passphrases = text().unwrap_or_default(),
            "passphrases-file" => settings.passphrases_file = text().unwrap_or_default(),
            "access" => settings.access = text().unwrap_or_default(),
            "latency" => settings.latency_ms = value.get::<u32>().unwrap_or_default(),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "listen" => settings.listen.to_value(),
            "pipeline" => settings.pipeline.to_value(),
            "stream" => settings.stream.to_value(),
            "passphrase" => hidden(&settings.passphrase).to_value(),
            "passphrases" => hidden_by_name(&settings.passphrases).to_value(),
            "passphrases-file" => settings.passphrases_file.to_value(),
            "access" => settings.access.to_value(),
            "latency" => settings.latency_ms.to_value(),
            "port" => {
                let server = lock(&self.server);
                u32::from(server.as_ref().map_or(0, |server| server.port)).to_value()
            }
            "stats" => {
                let stats = lock(&self.stats).clone();
                let server = lock(&self.server);
                let callers = server.as_ref().map_or(0, |server| server.shared.callers());
                stats.structure(callers).to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // A bin sends EOS events to its sources, and waits for the EOS messages of its sinks.
        let flags = gst::ElementFlags::SOURCE | gst::ElementFlags::SINK;
        self.obj().set_element_flags(flags);
    }
}

impl GstObjectImpl for SrtServer {}

impl ElementImpl for SrtServer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SRT server",
                "Source/Network",
                "Listens for encoders that call by SRT, and runs a pipeline for each. \
                 Example: gst-launch-1.0 -e sfusignaller  srtserver pipeline=\"appsrc name=caller ! decodebin \
                 ! videoconvert ! sfusink stream={stream}\"",
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
            gst::StateChange::NullToReady => self.check()?,
            gst::StateChange::PausedToPlaying => self.start()?,
            gst::StateChange::PlayingToPaused => self.stop(),
            _ => {}
        }
        self.parent_change_state(transition)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        // Not on the thread of whoever sends it: pipelines take their time to stop.
        let element = self.obj().clone();
        self.obj().call_async(move |_| {
            element.imp().stop();
            let _ = element.post_message(gst::message::Eos::builder().src(&element).build());
        });
        true
    }
}

impl SrtServer {
    fn fail(&self, message: &str) -> gst::StateChangeError {
        gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
        gst::StateChangeError
    }

    /// Looks at the settings once, so that a mistake is seen at the start.
    fn check(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        if let Err(error) = settings.keys().map(|_| ()).and(settings.door().map(|_| ())) {
            return Err(self.fail(&error));
        }
        match caller::build(&settings.pipeline, "stream") {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fail(&format!(
                "The property pipeline cannot be run: {error}. It begins with: appsrc name=caller ! decodebin"
            ))),
        }
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let listen = settings.listen.clone();
        let stats = Arc::<Stats>::default();
        *lock(&self.stats) = stats.clone();
        match Server::start(&self.obj(), settings, stats) {
            Ok(server) => {
                *lock(&self.server) = Some(server);
                self.obj().notify("port");
                Ok(())
            }
            Err(error) => Err(self.fail(&format!(
                "It can't be listened on {listen} for SRT: {error}. Set listen to an ADDRESS:PORT of this machine \
                 whose UDP port is free."
            ))),
        }
    }

    /// Ends whoever sends a stream. Returns whether there is somebody.
    fn kick(&self, stream: &str) -> bool {
        let server = lock(&self.server);
        let shared = server.as_ref().map(|server| server.shared.clone());
        drop(server);
        shared.is_some_and(|shared| shared.kick(stream))
    }

    fn stop(&self) {
        // Not with the lock held: callers' threads post messages, and whoever gets them may look.
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.stop();
        }
    }
}
