// SPDX-License-Identifier: MPL-2.0

//! NDI senders on the network as devices that make `ndilivesrc` elements: for `gst-device-monitor-1.0` and lists of sources in
//! applications. The finding is that of gst-plugin-ndi's provider, whose devices make `ndisrc`.

mod device;
mod provider;

use gst::prelude::*;

glib::wrapper! {
    pub struct DeviceProvider(ObjectSubclass<provider::DeviceProvider>)
        @extends gst::DeviceProvider, gst::Object;
}

glib::wrapper! {
    pub struct Device(ObjectSubclass<device::Device>)
        @extends gst::Device, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::DeviceProvider::register(
        Some(plugin),
        "ndilivedeviceprovider",
        gst::Rank::PRIMARY,
        DeviceProvider::static_type(),
    )
}
