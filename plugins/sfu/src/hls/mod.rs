// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfuhlssink
 * @title: sfuhlssink
 * @short_description: Writes one stream of the router as HLS into a folder
 * @see_also: sfusink, sfusrc, sfusignaller
 *
 * `sfuhlssink` takes one stream from the process's router, whether a `sfusink` or a browser (WHIP)
 * publishes it, and writes it as HLS (RFC 8216) into DIRECTORY/STREAM: H.264 as it comes, sound as
 * AAC, in MPEG-TS segments. It has no pads: put it anywhere into a pipeline of the process. It may
 * start before the publisher, and outlives it.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e sfusignaller hls-directory=/tmp/hls \
 *     sfuhlssink stream=cam1 directory=/tmp/hls
 * ]|
 * is at http://localhost:8080/hls/cam1/index.m3u8 what a browser publishes at
 * http://localhost:8080/publish/cam1. `nginx` or a CDN may serve the same folder.
 *
 * ## Files
 *
 * `index.m3u8` is the multivariant playlist with a line for each simulcast layer, `v0.m3u8` (the
 * highest), `v1.m3u8` and so on are their playlists, `v0-NUMBER.ts` their segments. The first audio track is in all of
 * them. Where the publisher has several (languages), the others have playlists of their own without pictures, `a1.m3u8`,
 * `a2.m3u8` and so on, which `index.m3u8` names with their languages as renditions to choose from (EXT-X-MEDIA); up to
 * eight tracks are taken. Each file comes
 * into its place at one stroke. Segments that left the playlists are removed when no viewer can
 * want them any more, and what an earlier run left behind when the element starts. A run goes on
 * with the numbers of the one before.
 *
 * ## Segments
 *
 * All layers' segments lie on one grid of `segment-duration`. Keyframes are asked for a fifth of a
 * second before they are due, through the arbiter of each layer. Where none comes in time, the segment
 * begins without one, rather than that it breaks the target duration. The segments of all layers are
 * published together; where a layer has none, since the browser does not send it at the moment, the
 * next lower one stands in for it. That, and a publisher that comes back, is a discontinuity in all
 * playlists.
 *
 * Sound and pictures go on without each other: where no sound comes there is silence, and where no
 * picture comes for 2 s the last keyframe stands in until the next one (`stats` then says `stalled`).
 * Pictures that were promised and do not come at all are not waited for: sound alone is written after
 * 3 s, and playlists with pictures follow it when these come.
 *
 * Audio tracks may come and go: players learn of one that comes as soon as its playlist has three segments, and who plays one that
 * went goes on in silence, or with the first one, instead of coming to a stop. Only where the first track itself is another one
 * everything begins anew, with a discontinuity.
 *
 * ## What it can't carry
 *
 * Video that is not H.264: a warning says what to do, and the next publisher is waited for.
 *
 * ## End
 *
 * EOS and the state READY end the playlists (EXT-X-ENDLIST), with what came until then, within a
 * second; so does the publisher's end with `on-loss=eos`. What fails inside, a full disk for example,
 * is a warning, and the element tries again.
 *
 * A process that was killed leaves playlists without an end. Whichever `sfuhlssink` runs next with the
 * same `directory` ends those, of all streams, that nobody goes on with within 20 seconds. Who writes
 * a stream's folder has it locked.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod alternates;
mod cuts;
mod imp;
mod layer;
mod left;
mod master;
mod output;
mod rendition;
mod session;
mod settings;
mod slots;
mod standstill;
mod window;
mod worker;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfuhlssink",
        gst::DebugColorFlags::empty(),
        Some("SFU stream into HLS"),
    )
});

glib::wrapper! {
    pub struct SfuHlsSink(ObjectSubclass<imp::SfuHlsSink>)
        @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "sfuhlssink",
        gst::Rank::NONE,
        SfuHlsSink::static_type(),
    )
}
