// SPDX-License-Identifier: MPL-2.0

//! NDI senders are devices that make `ndilivesrc`, while they are there, however often it is asked for them.

use std::path::Path;
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_tests::ndi::{self, Sender};
use sfu_tests::netns;

const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(20);

fn next(bus: &gst::Bus, kind: gst::MessageType) -> gst::Device {
    let message = bus.timed_pop_filtered(LIMIT, &[kind]);
    let message = message.unwrap_or_else(|| panic!("no {kind:?}"));
    match message.view() {
        gst::MessageView::DeviceAdded(added) => added.device(),
        gst::MessageView::DeviceRemoved(removed) => removed.device(),
        _ => unreachable!("nothing else was asked for"),
    }
}

fn stopped(provider: &gst::DeviceProvider) {
    let before = Instant::now();
    provider.stop();
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[test]
fn ndi_devices() {
    let mut environment = ndi::environment();
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ndi_devices");
    ndi::discovery_on_loopback(&config).expect("a folder for the configuration");
    environment.push(("NDI_CONFIG_DIR", config.into()));
    if !netns::isolated("ndi_devices::ndi_devices", &environment) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let provider = gst::DeviceProviderFactory::by_name("ndilivedeviceprovider");
    let provider = provider.expect("the provider is in the plugin");
    let bus = provider.bus();
    provider.start().expect("it starts without any sender");
    let sender = Sender::start(&["--name", "camera one"]).expect("a sender");
    let device = next(&bus, gst::MessageType::DeviceAdded);
    let name = device.display_name();
    assert!(name.ends_with(" (camera one)"), "{name}");
    let element = device.create_element(None).expect("an element");
    assert_eq!(element.factory().unwrap().name(), "ndilivesrc");
    assert_eq!(element.property::<String>("ndi-name"), name);
    stopped(&provider);
    // Again, which upstream's provider does not find.
    bus.set_flushing(true);
    bus.set_flushing(false);
    provider.start().expect("it starts again");
    assert_eq!(
        next(&bus, gst::MessageType::DeviceAdded).display_name(),
        name
    );
    assert_eq!(provider.devices().iter().count(), 1);
    drop(sender);
    assert_eq!(
        next(&bus, gst::MessageType::DeviceRemoved).display_name(),
        name
    );
    stopped(&provider);
    // Whoever only looks.
    let before = Instant::now();
    assert_eq!(provider.devices().iter().count(), 0);
    assert!(before.elapsed() < Duration::from_secs(4));
}
