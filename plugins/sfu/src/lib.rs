// SPDX-License-Identifier: MPL-2.0
#![doc = "SFU fan-out to WebRTC viewers: the elements `sfusink`, `sfusrc`, `sfuroomsrc`, `sfuroommixer`, `sfuhlssink`, `sfurecorder` and `sfusignaller`."]

mod aac;
mod ending;
mod hls;
mod log;
mod notices;
mod properties;
mod push;
mod record;
mod roommixer;
mod roomsrc;
mod runtime;
mod signaller;
mod sink;
mod src;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    log::forward();
    sink::register(plugin)?;
    src::register(plugin)?;
    roomsrc::register(plugin)?;
    roommixer::register(plugin)?;
    hls::register(plugin)?;
    record::register(plugin)?;
    signaller::register(plugin)
}

gst::plugin_define!(
    sfu,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
