// SPDX-License-Identifier: MPL-2.0
//! Counts GStreamer's objects before and after something was done many times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use gst::prelude::*;

/// What a process needs for [`assert_none`].
pub fn environment() -> Vec<(&'static str, OsString)> {
    vec![("GST_TRACERS", OsString::from("leaks"))]
}

/// Does something a hundred times, and asserts that no object more is there than after the first ten times, which leave
/// behind what is GStreamer's own: templates, the clock. A plugin may be loaded later, for another encoder to be looked at;
/// what it keeps does not become more when the same is done another hundred times.
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
    let mut more = BTreeMap::new();
    grow(leaks, &mut more);
    assert_eq!(
        more.values().sum::<i64>(),
        1,
        "the tracer must see what is kept"
    );
    drop(probe);
    let first = after_a_hundred(leaks, more, &mut round);
    if !first.is_empty() {
        let again = after_a_hundred(leaks, BTreeMap::new(), &mut round);
        assert!(
            again.is_empty(),
            "objects more than before: {first:?}, and again: {again:?}"
        );
    }
}

/// What is more after the next hundred times than before; nothing where as many went as came.
fn after_a_hundred(
    leaks: &gst::Tracer,
    mut more: BTreeMap<String, i64>,
    round: &mut impl FnMut(),
) -> BTreeMap<String, i64> {
    for _ in 0..100 {
        round();
    }
    // Threads let go a moment after an element has stopped.
    let end = Instant::now() + Duration::from_secs(10);
    grow(leaks, &mut more);
    while more.values().sum::<i64>() > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        grow(leaks, &mut more);
    }
    if more.values().sum::<i64>() <= 0 {
        more.clear();
    }
    more.retain(|_, count| *count != 0);
    more
}

/// Adds how many objects of each type there are more than when this was last asked.
fn grow(leaks: &gst::Tracer, more: &mut BTreeMap<String, i64>) {
    let checkpoint = leaks.emit_by_name::<gst::Structure>("activity-get-checkpoint", &[]);
    for (list, by) in [("objects-created-list", 1), ("objects-removed-list", -1)] {
        let list = checkpoint
            .get::<gst::List>(list)
            .expect("a checkpoint has both lists");
        for object in list.iter() {
            let object = object
                .get::<gst::Structure>()
                .expect("structures are in it");
            let name = object
                .get::<String>("type-name")
                .expect("a type has a name");
            // What stays once a plugin is loaded.
            if name != "GstPlugin" && !name.ends_with("Factory") {
                *more.entry(name).or_insert(0) += by;
            }
        }
    }
}
