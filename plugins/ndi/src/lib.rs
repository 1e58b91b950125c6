// SPDX-License-Identifier: MPL-2.0
#![doc = "NDI ingest for channels that never end: the element `ndilivesrc`, and the device provider of its senders."]

mod devices;
mod livesrc;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    livesrc::register(plugin)?;
    devices::register(plugin)
}

gst::plugin_define!(
    ndilive,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
