// SPDX-License-Identifier: MPL-2.0
//! Counts GStreamer's objects before and after something was done many times.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use gst::prelude::*;

/// What a process needs for [`assert_none`].
pub fn environment() -> Vec<(&'static str, OsString)> {
    vec![("GST_TRACERS", OsString::from("leaks"))]
}

/// Does something a hundred times, and asserts that no object more is there than after the first ten times, which leave
/// behind what is GStreamer's own: factories, templates, the clock.
pub fn assert_none(mut round: impl FnMut()) {
    let tracers = gst::active_tracers();
    let leaks = tracers
        .iter()
        .find(|tracer| tracer.type_().name() == "GstLeaksTracer");
    let leaks = leaks.expect("the process runs with leaks::environment()");
    for _ in 0..10 {
        round();
    }
    std::thread::sleep(Duration::from_secs(1));
    leaks.emit_by_name::<()>("activity-start-tracking", &[]);
    let probe = gst::Buffer::new();
    assert_eq!(growth(leaks), 1, "the tracer must see what is kept");
    drop(probe);
    for _ in 0..100 {
        round();
    }
    // Threads let go a moment after an element has stopped.
    let end = Instant::now() + Duration::from_secs(10);
    let mut more = 1 + growth(leaks);
    while more > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        more += growth(leaks);
    }
    assert!(more <= 0, "{more} objects more than before");
}

/// By how many objects there are more than when this was last asked.
fn growth(leaks: &gst::Tracer) -> i64 {
    let checkpoint = leaks.emit_by_name::<gst::Structure>("activity-get-checkpoint", &[]);
    let count = |list: &str| {
        let list = checkpoint
            .get::<gst::List>(list)
            .expect("a checkpoint has both lists");
        i64::try_from(list.len()).expect("few enough")
    };
    count("objects-created-list") - count("objects-removed-list")
}
