// SPDX-License-Identifier: MPL-2.0

//! The provider: one thread that turns what another one finds into devices of ours, between start and stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "ndilivedeviceprovider",
        gst::DebugColorFlags::empty(),
        Some("NDI senders as devices"),
    )
});

pub(super) const CLASSES: &str = "Source/Audio/Video/Network";
/// Who finds senders.
const FINDER: &str = "ndideviceprovider";
/// Anybody on the network may announce senders; further ones are left out.
const MAX_DEVICES: usize = 256;
/// How often it is looked whether it is to stop.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(50);
/// How long the first sender is waited for at a start, or in a look at what is there: who starts a monitor and asks at once would
/// else find nothing.
const FIRST: Duration = Duration::from_millis(1_500);
/// Those that announce themselves together come within this.
const TOGETHER: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct DeviceProvider {
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    finder: gst::DeviceProvider,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The devices that there are, by the senders' names.
#[derive(Debug, Default)]
struct Devices {
    known: BTreeMap<String, super::Device>,
    full: bool,
}

impl Devices {
    /// A device for a sender that is not known yet.
    fn add(&mut self, name: &str) -> Option<super::Device> {
        if self.known.contains_key(name) {
            return None;
        }
        if self.known.len() >= MAX_DEVICES {
            if !std::mem::replace(&mut self.full, true) {
                gst::warning!(
                    CAT,
                    "more than {MAX_DEVICES} NDI senders: the others are left out"
                );
            }
            return None;
        }
        let device = super::Device::new(name);
        self.known.insert(name.to_owned(), device.clone());
        Some(device)
    }

    fn remove(&mut self, name: &str) -> Option<super::Device> {
        self.known.remove(name)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DeviceProvider {
    const NAME: &'static str = "GstNdiLiveDeviceProvider";
    type Type = super::DeviceProvider;
    type ParentType = gst::DeviceProvider;
}

impl ObjectImpl for DeviceProvider {}

impl GstObjectImpl for DeviceProvider {}

impl DeviceProviderImpl for DeviceProvider {
    fn metadata() -> Option<&'static gst::subclass::DeviceProviderMetadata> {
        static METADATA: LazyLock<gst::subclass::DeviceProviderMetadata> = LazyLock::new(|| {
            gst::subclass::DeviceProviderMetadata::new(
                "NDI senders",
                CLASSES,
                "Lists the NDI senders on the network, as devices that make ndilivesrc elements",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    /// What there is, for who has not started it.
    fn probe(&self) -> Vec<gst::Device> {
        let finder = match finder() {
            Ok(finder) => finder,
            Err(error) => {
                error.log();
                return Vec::new();
            }
        };
        let mut devices = Devices::default();
        let bus = finder.bus();
        let start = Instant::now();
        let mut last = None;
        let waits = |last: Option<Instant>| match last {
            Some(at) => at.elapsed() < TOGETHER,
            None => start.elapsed() < FIRST,
        };
        while waits(last) {
            let found = bus.timed_pop_filtered(LOOK, &[gst::MessageType::DeviceAdded]);
            if found
                .as_ref()
                .and_then(sender)
                .is_some_and(|(name, _)| devices.add(&name).is_some())
            {
                last = Some(Instant::now());
            }
        }
        finder.stop();
        devices.known.into_values().map(Cast::upcast).collect()
    }

    fn start(&self) -> Result<(), gst::LoggableError> {
        let finder = finder()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (found, first) = std::sync::mpsc::channel();
        let (bus, weak, stopping) = (finder.bus(), self.obj().downgrade(), stop.clone());
        let follow = move || {
            let mut devices = Devices::default();
            let kinds = [
                gst::MessageType::DeviceAdded,
                gst::MessageType::DeviceRemoved,
            ];
            while !stopping.load(Relaxed) {
                let message = bus.timed_pop_filtered(LOOK, &kinds);
                let Some(provider) = weak.upgrade() else {
                    return;
                };
                match message.as_ref().and_then(sender) {
                    Some((name, true)) => {
                        if let Some(device) = devices.add(&name) {
                            provider.device_add(&device);
                            // Nobody may wait any more.
                            let _ = found.send(());
                        }
                    }
                    Some((name, false)) => {
                        if let Some(device) = devices.remove(&name) {
                            provider.device_remove(&device);
                        }
                    }
                    None => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("ndi-devices".into());
        let thread = match thread.spawn(follow) {
            Ok(thread) => thread,
            Err(error) => {
                finder.stop();
                return Err(gst::loggable_error!(
                    CAT,
                    "no thread could be started: {error}"
                ));
            }
        };
        let running = Running {
            finder,
            stop,
            thread,
        };
        *self.running() = Some(running);
        if first.recv_timeout(FIRST).is_ok() {
            while first.recv_timeout(TOGETHER).is_ok() {}
        }
        Ok(())
    }

    fn stop(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.stop.store(true, Relaxed);
            if running.thread.join().is_err() {
                gst::error!(CAT, imp = self, "the provider's thread has panicked");
            }
            // Its own thread ends by itself, some seconds later.
            running.finder.stop();
        }
    }
}

impl DeviceProvider {
    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A finder that has started. Each time another one: it finds nothing after it was stopped and started again.
fn finder() -> Result<gst::DeviceProvider, gst::LoggableError> {
    let missing = || {
        gst::loggable_error!(
            CAT,
            "{FINDER} of gst-plugin-ndi is missing: install gst-plugin-ndi, or set GST_PLUGIN_PATH to its folder"
        )
    };
    let factory = gst::DeviceProviderFactory::find(FINDER).ok_or_else(missing)?;
    let factory = factory.load().map_err(|_| missing())?;
    let factory = factory
        .downcast::<gst::DeviceProviderFactory>()
        .map_err(|_| missing())?;
    let finder = glib::Object::with_type(factory.device_provider_type());
    let finder = finder
        .downcast::<gst::DeviceProvider>()
        .map_err(|_| missing())?;
    finder.start().map_err(|_| {
        gst::loggable_error!(CAT, "the NDI runtime was not found: install NDI 6, or set NDI_RUNTIME_DIR_V6 to the folder that holds libndi.so.6")
    })?;
    Ok(finder)
}

/// Of which sender a message speaks, and whether it has come.
fn sender(message: &gst::Message) -> Option<(String, bool)> {
    let (device, came) = match message.view() {
        gst::MessageView::DeviceAdded(added) => (added.device(), true),
        gst::MessageView::DeviceRemoved(removed) => (removed.device(), false),
        _ => return None,
    };
    let name = device.properties()?.get::<String>("ndi-name").ok()?;
    (!name.is_empty()).then_some((name, came))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_sender_and_there_are_so_many_and_no_more() {
        gst::init().unwrap();
        let mut devices = Devices::default();
        for n in 0..3 * MAX_DEVICES {
            let name = format!("HOST (camera {n})");
            assert_eq!(devices.add(&name).is_some(), n < MAX_DEVICES, "{n}");
            assert!(devices.add(&name).is_none(), "known");
        }
        let gone = devices.remove("HOST (camera 7)").unwrap();
        assert_eq!(gone.display_name(), "HOST (camera 7)");
        assert!(devices.remove("HOST (camera 7)").is_none());
        assert!(devices.remove("HOST (camera 300)").is_none());
        assert!(devices.add("ÄÖÜ (\u{1f3a5} \"x\")").is_some());
        assert!(gone.has_classes("Source/Video") && gone.has_classes("Source/Audio"));
    }

    #[test]
    fn elements_have_the_senders_name() {
        gst::init().unwrap();
        crate::plugin_register_static().unwrap();
        let device = super::super::Device::new("HOST (camera)");
        let element = device.create_element(Some("source")).unwrap();
        assert_eq!(element.name(), "source");
        assert_eq!(element.factory().unwrap().name(), "ndilivesrc");
        assert_eq!(element.property::<String>("ndi-name"), "HOST (camera)");
        let other = super::super::Device::new("HOST (other)");
        other.reconfigure_element(&element).unwrap();
        assert_eq!(element.property::<String>("ndi-name"), "HOST (other)");
        let foreign = gst::ElementFactory::make("fakesrc").build().unwrap();
        assert!(other.reconfigure_element(&foreign).is_err());
    }
}
