// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-supervisor
 * @title: supervisor
 * @short_description: Runs a pipeline beside the others, and again when it fails
 * @see_also: sfusrc, sfusink, fallbacksrc
 *
 * `supervisor` runs the pipeline that its property `pipeline` describes, in the words of
 * gst-launch-1.0, in this process but apart from the pipeline that it stands in: with a bus and a
 * clock of its own. What fails in there (a camera that is unplugged, a server that hangs up, a disk
 * that is full) ends nothing else, and is started again. The two meet in elements that meet by
 * name, such as `sfusink` and `sfusrc`, or `intersink` and `intersrc`.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e sfusignaller \
 *     supervisor pipeline="rtspsrc location=rtsp://camera.example/1 latency=100 ! rtph264depay \
 *         ! h264parse ! sfusink stream=camera" \
 *     supervisor pipeline="sfusrc stream=camera ! h264parse \
 *         ! splitmuxsink location=camera-%05d.mp4 max-size-time=600000000000"
 * ]|
 * shows a camera in browsers and records it; either goes on when the other fails.
 *
 * ## When it starts again
 *
 * After an error, and with `restart=always` also after EOS, the pipeline is taken down and built
 * anew from its description after `restart-delay` ms. The delay doubles with each failure, up to
 * `restart-delay-max`, and is back at its beginning once the pipeline ran for ten seconds.
 * A description that cannot be built is the element's error when it starts.
 *
 * What only goes silent fails after `begin-timeout` (nothing has come to any sink) and `stall-timeout`
 * (nothing has come to any sink once something had, if only what it would be). One sink, or one pad of
 * `sfusink`, that still gets something is enough: a camera whose microphone is off goes on. With
 * `stall-of=video` pictures that stop are a failure also where sound goes on. Where a new start does not
 * bring them back, they are waited for twice as long each time, up to 32 times; what never had pictures
 * goes on without. With `files` that is for each file by itself.
 *
 * The delay does not grow after an EOS that came a second after the start or later. With `files`, which is
 * `FOLDER/PATTERN` with `*` for anything in the pattern, `{file}` in the description stands for the
 * next file at each start, in the order of their names and again from the first: `supervisor
 * files=/srv/films/… pipeline="filesrc location={file} ! decodebin ! …"`. One that can't be played is
 * passed over.
 *
 * ## Messages
 *
 * A failure is a warning on the bus, which names what the pipeline's sources read from (`location`,
 * `uri` or `device`, without the credentials and the query of an address), and the element message
 * `supervisor` with `state` (`running`, `waiting`, `ended`), `starts`, `failures` and `error` tells of
 * each change. The same is in the property `stats`. Other element messages and warnings of the inner
 * pipeline are passed on, but for those of links that wait for a pad which does not come: a film may
 * have no sound.
 *
 * ## EOS
 *
 * An EOS event sent to the element (Ctrl-C under `gst-launch-1.0 -e`) goes to the inner pipeline,
 * which finishes its files; the element's EOS message follows when it has, after `eos-timeout` ms at
 * the latest (and 0.3 s more where it hangs), or at once where nothing has come to a sink yet.
 * NULL waits 1.5 s for a pipeline that hangs, such as one that opens a named pipe, and leaves it
 * behind with a warning. With `restart=never` or
 * `on-error` an inner pipeline that ends by itself is the element's EOS as well.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod files;
mod flow;
mod imp;
mod runner;
mod settings;
mod sources;
mod stats;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "supervisor",
        gst::DebugColorFlags::empty(),
        Some("Runs a pipeline, and again when it fails"),
    )
});

glib::wrapper! {
    pub struct Supervisor(ObjectSubclass<imp::Supervisor>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for kind in [
        settings::Restart::static_type(),
        settings::StallOf::static_type(),
    ] {
        kind.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "supervisor",
        gst::Rank::NONE,
        Supervisor::static_type(),
    )
}
