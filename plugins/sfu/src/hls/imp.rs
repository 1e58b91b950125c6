// SPDX-License-Identifier: MPL-2.0

use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;

use super::CAT;
use super::output::Output;
use super::settings::{PROPERTIES, Settings};
use super::worker::{Order, Orders, Stats, Worker, end_left_at};
use crate::properties::{lock, number_of, text_of};

#[derive(Debug, Default)]
pub struct SfuHlsSink {
    settings: Arc<Mutex<Settings>>,
    running: Mutex<Option<Running>>,
    stats: Arc<Mutex<Stats>>,
}

/// What there is between READY and PAUSED and back.
#[derive(Debug)]
struct Running {
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

#[glib::object_subclass]
impl ObjectSubclass for SfuHlsSink {
    const NAME: &'static str = "GstSfuHlsSink";
    type Type = super::SfuHlsSink;
    type ParentType = gst::Element;
}

impl ObjectImpl for SfuHlsSink {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        let text = || text_of(value);
        let number = || number_of(value);
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "stream" => settings.stream = text(),
            "router" => settings.router = text(),
            "directory" => settings.directory = text(),
            "segment-duration" => settings.segment_ms = number(),
            "playlist-length" => settings.length = number(),
            "latency" => settings.latency_ms = number(),
            "on-loss" => settings.on_loss = value.get().unwrap_or_default(),
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "stream" => settings.stream.to_value(),
            "router" => settings.router.to_value(),
            "directory" => settings.directory.to_value(),
            "segment-duration" => settings.segment_ms.to_value(),
            "playlist-length" => settings.length.to_value(),
            "latency" => settings.latency_ms.to_value(),
            "on-loss" => settings.on_loss.to_value(),
            "stats" => lock(&self.stats).structure().to_value(),
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

impl GstObjectImpl for SfuHlsSink {}

impl ElementImpl for SfuHlsSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU HLS sink",
                "Sink/Network/HLS",
                "Writes one stream of this process's router as HLS into a folder: H.264 as it comes, sound as AAC, \
                 a playlist for each simulcast layer. \
                 Example: gst-launch-1.0 -e sfusignaller hls-directory=/tmp/hls  sfuhlssink stream=cam1 directory=/tmp/hls",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::OpenWrite, ("{message}"));
                gst::StateChangeError
            })?;
        }
        let result = self.parent_change_state(transition);
        let failed = transition == gst::StateChange::ReadyToPaused && result.is_err();
        if transition == gst::StateChange::PausedToReady || failed {
            self.stop();
        }
        result
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        if let Some(running) = &*lock(&self.running) {
            running.orders.give(Order::Finish);
        }
        true
    }
}

impl SfuHlsSink {
    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let name = settings.name()?;
        let folder = settings.folder()?;
        let output = Output::open(folder.clone(), settings.rules(), settings.length as usize);
        let output = output
            .map_err(|error| format!("the folder {} can't be used: {error}", folder.display()))?;
        if !output.is_alone() {
            let folder = folder.display();
            gst::warning!(
                CAT,
                imp = self,
                "another process writes to {folder} as well"
            );
        }
        *lock(&self.stats) = Stats::default();
        let orders = Arc::new(Orders::default());
        let worker = Worker {
            element: self.obj().downgrade(),
            settings,
            current: self.settings.clone(),
            name,
            orders: orders.clone(),
            output,
            stats: self.stats.clone(),
            said: None,
            end_left_at: end_left_at(),
        };
        let thread = std::thread::Builder::new()
            .name("sfuhlssink".into())
            .spawn(move || worker.run())
            .map_err(|e| format!("no thread could be started: {e}"))?;
        *lock(&self.running) = Some(Running { orders, thread });
        Ok(())
    }

    fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.orders.give(Order::Stop);
            if running.thread.join().is_err() {
                gst::error!(CAT, imp = self, "the element's thread has panicked");
            }
        }
    }
}
