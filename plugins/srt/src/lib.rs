// SPDX-License-Identifier: MPL-2.0
#![doc = "SRT's way in: the element `srtserver`."]

mod libsrt;
mod srtserver;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a mutex holds, also after a panic elsewhere: what is kept here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    srtserver::register(plugin)
}

gst::plugin_define!(
    srtserver,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
