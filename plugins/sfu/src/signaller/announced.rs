// SPDX-License-Identifier: MPL-2.0

//! Tells the application which names of `announce-address` are not found: who is behind a NAT loses all viewers by that.

use std::collections::BTreeSet;
use std::time::Duration;

use gst::prelude::*;
use sfu_engine::NotAnnounced;

use super::server::App;

/// A name that has no answer takes seconds to be given up.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks until the server stops. Each is told of once.
pub(super) async fn watch(app: App) {
    let mut told = BTreeSet::new();
    let mut stopping = app.stopping.clone();
    loop {
        for missing in app.engine.not_announced() {
            let warning = warning(&missing);
            if told.insert(missing.host) {
                tell(&app, warning);
            }
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn warning(missing: &NotAnnounced) -> String {
    let NotAnnounced { host, why } = missing;
    format!(
        "announce-address: {host} has no address ({why}), so that viewers are told the other addresses alone or, without any, those of \
         this machine. Correct it, or give the address itself; it is looked up again for offers, once a minute"
    )
}

/// On another thread: who hears it may take its time.
fn tell(app: &App, warning: String) {
    if let Some(element) = app.element.upgrade() {
        element.call_async(move |element| {
            gst::element_warning!(element, gst::ResourceError::NotFound, ("{warning}"));
        });
    }
}
