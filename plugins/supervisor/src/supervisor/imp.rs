// SPDX-License-Identifier: MPL-2.0

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;

use super::CAT;
use super::runner::{Order, Runner, build};
use super::settings::{PROPERTIES, Restart, Settings, StallOf};
use super::stats::Stats;
use crate::lock;

#[derive(Debug, Default)]
pub struct Supervisor {
    settings: Arc<Mutex<Settings>>,
    stats: Arc<Mutex<Stats>>,
    runner: Mutex<Option<Runner>>,
}

#[glib::object_subclass]
impl ObjectSubclass for Supervisor {
    const NAME: &'static str = "GstSupervisor";
    type Type = super::Supervisor;
    type ParentType = gst::Element;
}

impl ObjectImpl for Supervisor {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        let text = || {
            let text = value.get::<Option<String>>().ok().flatten();
            text.unwrap_or_default()
        };
        // What runs now was looked at before it began, and so is what is to follow it.
        if pspec.name() == "pipeline"
            && lock(&self.runner).is_some()
            && let Err(error) = checked(&text())
        {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("pipeline stays as it was, for the new one cannot be run: {error}")
            );
            return;
        }
        let milliseconds = || Duration::from_millis(value.get::<u32>().unwrap_or_default().into());
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "pipeline" => settings.pipeline = text(),
            "files" => settings.files = text(),
            "restart" => settings.restart = value.get::<Restart>().unwrap_or_default(),
            "restart-delay" => settings.delay = milliseconds(),
            "restart-delay-max" => settings.delay_max = milliseconds(),
            "eos-timeout" => settings.eos_timeout = milliseconds(),
            "begin-timeout" => settings.begin_timeout = milliseconds(),
            "stall-timeout" => settings.stall_timeout = milliseconds(),
            "stall-of" => settings.stall_of = value.get::<StallOf>().unwrap_or_default(),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "pipeline" => settings.pipeline.to_value(),
            "files" => settings.files.to_value(),
            "restart" => settings.restart.to_value(),
            "restart-delay" => (settings.delay.as_millis() as u32).to_value(),
            "restart-delay-max" => (settings.delay_max.as_millis() as u32).to_value(),
            "eos-timeout" => (settings.eos_timeout.as_millis() as u32).to_value(),
            "begin-timeout" => (settings.begin_timeout.as_millis() as u32).to_value(),
            "stall-timeout" => (settings.stall_timeout.as_millis() as u32).to_value(),
            "stall-of" => settings.stall_of.to_value(),
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

impl GstObjectImpl for Supervisor {}

impl ElementImpl for Supervisor {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Supervisor",
                "Generic/Bin",
                "Runs a pipeline beside the one that it stands in, and again when it fails. \
                 Example: gst-launch-1.0 -e supervisor pipeline=\"rtspsrc location=rtsp://camera.example/1 ! fakesink\"",
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
            gst::StateChange::PausedToPlaying => self.play()?,
            gst::StateChange::PlayingToPaused => self.order(Order::Pause),
            gst::StateChange::PausedToReady => self.stop(),
            _ => {}
        }
        self.parent_change_state(transition)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        let patience = lock(&self.settings).eos_timeout;
        let runs = match lock(&self.runner).as_ref() {
            Some(runner) => {
                runner.finish(&self.obj(), patience);
                true
            }
            None => false,
        };
        if !runs {
            let obj = self.obj();
            let _ = obj.post_message(gst::message::Eos::builder().src(&*obj).build());
        }
        true
    }
}

impl Supervisor {
    /// Builds the pipeline once, so that a mistake in its description is seen at the start.
    fn check(&self) -> Result<(), gst::StateChangeError> {
        let description = lock(&self.settings).pipeline.clone();
        checked(&description).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::ResourceError::Settings,
                ("The property pipeline cannot be run: {error}. Try it with gst-launch-1.0 first.")
            );
            gst::StateChangeError
        })
    }

    fn play(&self) -> Result<(), gst::StateChangeError> {
        let mut runner = lock(&self.runner);
        if let Some(runner) = runner.as_ref() {
            runner.order(Order::Play);
            return Ok(());
        }
        let settings = self.settings.clone();
        *lock(&self.stats) = Stats::default();
        let started = Runner::start(&self.obj(), settings, self.stats.clone());
        *runner = Some(started.map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::CoreError::Thread,
                ("No thread for the pipeline: {error}")
            );
            gst::StateChangeError
        })?);
        Ok(())
    }

    /// Whether nothing runs any more.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.runner).as_ref().is_none_or(Runner::has_ended)
    }

    fn order(&self, order: Order) {
        gst::debug!(CAT, imp = self, "{order:?}");
        if let Some(runner) = lock(&self.runner).as_ref() {
            runner.order(order);
        }
    }

    fn stop(&self) {
        let runner = lock(&self.runner).take();
        if let Some(runner) = runner {
            runner.stop();
        }
        lock(&self.stats).state = super::stats::State::Stopped;
    }
}

/// Whether that can be run.
fn checked(description: &str) -> Result<(), String> {
    match description.trim() {
        "" => Err("it is empty".to_owned()),
        description => build(description).map(drop),
    }
}
