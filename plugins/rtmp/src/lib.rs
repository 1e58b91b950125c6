// SPDX-License-Identifier: MPL-2.0
#![doc = "RTMP ingest: the element `rtmpserversrc`, a server that encoders publish to."]

mod protocol;
mod rtmpserversrc;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    rtmpserversrc::register(plugin)
}

gst::plugin_define!(
    rtmpserver,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
