// SPDX-License-Identifier: MPL-2.0
#![doc = "One raw video into aligned simulcast layers: the element `simulcastenc`."]

mod simulcastenc;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    simulcastenc::register(plugin)
}

gst::plugin_define!(
    simulcast,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
