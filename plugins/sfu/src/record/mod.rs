// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfurecorder
 * @title: sfurecorder
 * @short_description: Records one stream of the router to files that survive whatever ends the process
 * @see_also: sfusrc, sfusignaller
 *
 * `sfurecorder` has no pads: put it anywhere into a pipeline of the process. It takes one stream
 * from the process's router, whether a `sfusink` or a browser (WHIP) publishes it, as it is, and
 * writes it to fragmented MP4 files. It waits for the publisher, outlives it, and begins a new file
 * each time it returns, sends another format, or a file is long or large enough.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e \
 *     sfusignaller recordings-directory=recordings \
 *     sfurecorder stream=cam1 directory=recordings max-duration=600
 * ]|
 * records what a browser publishes at http://localhost:8080/publish/cam1, in files of ten minutes
 * that play at http://localhost:8080/recordings.
 *
 * ## Files
 *
 * `isofmp4mux` (gst-plugin-fmp4) makes each file, which takes H.264, H.265, VP8, VP9, AV1 and Opus.
 * Every `fragment-duration` what came is written, in such an order that a process that is killed at
 * any moment leaves a file that plays from beginning to end without an error. A file that is
 * finished has an index (`sidx`), for which room is kept behind its header, so that browsers seek
 * in it at once. Files that a killed process left, of whatever stream, get theirs when the next
 * `sfurecorder` starts with the same `directory`, and what is no whole fragment is cut off them. Who
 * records to a file has it locked.
 *
 * All audio tracks of the stream are in the file, each with its language where that is known when the file begins.
 *
 * READY finishes all files, within 1.3 seconds. A file whose disk takes longer is left to the next
 * start.
 *
 * The next file begins with the keyframe at which the last one ends: no frame is lost. That
 * keyframe is asked for through the stream's arbiter when the time has come.
 *
 * ## Rooms
 *
 * With `room` it records all that is published in a room of `sfusignaller`, and streams of the server that take part there: each
 * participant's camera and microphone are one file, its screen is another. Who comes is recorded, who goes has its file finished;
 * 100 streams at a time at most. All other properties hold for each of them.
 *
 * |[
 * gst-launch-1.0 -e \
 *     sfusignaller api-keys-file=api.keys recordings-directory=recordings \
 *     sfurecorder room=meeting directory=recordings
 * ]|
 *
 * Files of a room are in sync by the moment at which each one's first picture, or sound, was taken: `start-ms` of the message
 * `sfu-recording`, `start_ms` in `GET /api/v1/recordings` and inside of the file, in ms since 1970, on the one clock of the server.
 * The difference of two is how much later one begins than the other.
 *
 * ## Names
 *
 * `location-template` may hold `{stream}` (the parts of a stream's name are folders), `{date}` and
 * `{time}` (UTC, `2026-11-21` and `10-28-02`) and `{number}`, which counts from 1 and passes over
 * names that are taken. A file that is there is never written over.
 *
 * A publisher who comes and goes, or changes the size of its picture, begins a new file each time, but
 * not more than ten one after the other and one each 5 s: what comes meanwhile is `dropped`.
 *
 * ## Deleting
 *
 * Recordings of this stream, or room, that were finished more than `delete-after` seconds ago are deleted,
 * also those of earlier runs. Only files are that this element has made, which is written in them:
 * a file of somebody else is left alone whatever its name.
 *
 * ## Action signals
 *
 * `split-now` has the next keyframe, which is asked for, begin a new file. `stop` finishes the present
 * one, and nothing is recorded until `start`; the property `recording` says which, and is set before
 * the start where nothing is to be recorded at first.
 *
 * ## When the disk is full
 *
 * Where less than `min-free` bytes are free, or writing fails, recording stops with a warning on
 * the bus. Everything else goes on, and so does recording when there is room.
 *
 * ## Messages
 *
 * The element message `sfu-recording` tells of each file that begins or is finished: `stream`,
 * `state` (`recording`, `finished`), `location`, `start-ms`, in a room `room` and `identity`, and at the end `bytes` and `duration` (GstClockTime). The signals
 * `recording-started` and `recording-finished` have the same as their argument, on a thread that nothing
 * waits for.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod allowance;
mod boxes;
mod disk;
pub(crate) mod file;
pub(crate) mod folder;
mod imp;
mod inbox;
mod input;
mod room;
mod settings;
mod stats;
mod take;
mod template;
mod tracks;
mod worker;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfurecorder",
        gst::DebugColorFlags::empty(),
        Some("SFU stream recorder"),
    )
});

glib::wrapper! {
    pub struct SfuRecorder(ObjectSubclass<imp::SfuRecorder>)
        @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "sfurecorder",
        gst::Rank::NONE,
        SfuRecorder::static_type(),
    )
}
