// SPDX-License-Identifier: MPL-2.0
#![doc = "RTSP playback: the element `sfurtspserver`, which serves the streams of an SFU."]

mod sfurtspserver;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    sfurtspserver::register(plugin)
}

gst::plugin_define!(
    sfurtsp,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
