// SPDX-License-Identifier: MPL-2.0

//! The element: properties and states.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;
use sfu_elements::server;

use super::CAT;
use super::server::Server;
use super::settings::{PROPERTIES, Settings};

#[derive(Debug, Default)]
pub struct SfuRtspServer {
    settings: Mutex<Settings>,
    server: Mutex<Option<Server>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for SfuRtspServer {
    const NAME: &'static str = "GstSfuRtspServer";
    type Type = super::SfuRtspServer;
    type ParentType = gst::Element;
}

impl ObjectImpl for SfuRtspServer {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        lock(&self.settings).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "port" => {
                let server = lock(&self.server);
                server.as_ref().map_or(0, Server::port).to_value()
            }
            "stats" => {
                let stats = lock(&self.server).as_ref().map(Server::stats);
                stats.map(|stats| stats.structure()).to_value()
            }
            _ => lock(&self.settings).get(pspec),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        server::constructed(&*self.obj());
    }
}

impl GstObjectImpl for SfuRtspServer {}

impl ElementImpl for SfuRtspServer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU RTSP server",
                "Network/RTSP",
                "Serves the streams of this process to RTSP players at rtsp://HOST:8554/STREAM. \
                 Example: gst-launch-1.0 sfurtspserver  videotestsrc is-live=true ! sfusink stream=test",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            server::begins(&*self.obj());
            self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::OpenReadWrite, ("{message}"));
                gst::StateChangeError
            })?;
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::ReadyToNull
            || (transition == gst::StateChange::NullToReady && result.is_err())
        {
            self.stop();
        }
        result
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        server::ended(&*self.obj());
        true
    }
}

impl SfuRtspServer {
    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let server = Server::start(settings)?;
        gst::info!(CAT, imp = self, "RTSP on port {}", server.port());
        *lock(&self.server) = Some(server);
        self.obj().notify("port");
        Ok(())
    }

    fn stop(&self) {
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.stop();
            self.obj().notify("port");
        }
    }
}
