// SPDX-License-Identifier: MPL-2.0
//! A source is found by its name, whether it is there already or comes later.

use std::path::Path;
use std::time::{Duration, Instant};

use sfu_tests::ndi::{self, Sender};
use sfu_tests::netns;

use crate::ndi_source_returns::{Shown, Watched};

/// Discovery, which asks again every few seconds, is slower than an address.
const FOUND_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn ndi_by_name() {
    let mut environment = ndi::environment();
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ndi_by_name");
    ndi::discovery_on_loopback(&config).expect("a folder for the configuration");
    environment.push(("NDI_CONFIG_DIR", config.into()));
    if !netns::isolated("ndi_by_name::ndi_by_name", &environment) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host has a name");
    let host = host.trim().to_uppercase();

    let started = Instant::now();
    let watched = Watched::start(&format!(
        "ndi-name=\"{host} (camera one)\" width=640 height=360"
    ));
    std::thread::sleep(Duration::from_secs(2));
    assert!(watched.changes().is_empty(), "a source that nobody sends");

    let _sender = Sender::start(&["--name", "camera one"]).expect("a sender");
    let sent = Instant::now();
    let is_picture = |frame: &_| {
        matches!(
            frame,
            crate::ndi_source_returns::Frame {
                shown: Shown::Code { .. },
                ..
            }
        )
    };
    let found = watched.wait_for(sent, FOUND_WITHIN, is_picture);
    println!(
        "found after {found:?}, {:?} after the start",
        started.elapsed()
    );
    assert!(
        found.is_some(),
        "{host} (camera one) was not found within {FOUND_WITHIN:?}"
    );
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(watched.changes(), [true]);
}
