// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfusrc
 * @title: sfusrc
 * @short_description: Gives one stream of the router back to GStreamer
 * @see_also: sfusink, sfusignaller
 *
 * `sfusrc` takes one stream from the process's router, whether a `sfusink` or a browser (WHIP)
 * publishes it, and gives it back to GStreamer, in sync: for HLS, RTMP, recordings or re-encoding.
 * It may start before the publisher, and outlives it.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e sfusignaller \
 *     sfusrc stream=cam1 name=in \
 *     matroskamux name=mux ! filesink location=cam1.mkv \
 *     in.video_0 ! queue ! mux.video_0   in.audio_0 ! queue ! mux.audio_0
 * ]|
 * records what a browser publishes at http://localhost:8080/publish/cam1.
 *
 * The router is one process's: to take a stream from another process or host, play it there with
 * WHEP (`whepclientsrc`).
 *
 * ## Pads
 *
 * Sometimes `video_%u` and `audio_%u`, which come when the publisher declares its tracks;
 * `no-more-pads` follows. They carry `video/x-h264` (avc or byte-stream, as downstream wants it),
 * `video/x-h265`, `video/x-vp8`, `video/x-vp9`, `video/x-av1` and `audio/x-opus`, parsed, and each
 * begins at a keyframe. With `layer=all` there is a `video_%u` for each layer, highest first. There is an
 * `audio_%u` for each audio track, with its language as a tag. A pad
 * that is not linked costs nothing. A publisher that comes back with another codec gets a new pad:
 * the old one ends with EOS and is removed. A pipeline that is made for some codecs names them in
 * `video-codecs` (`none` is sound alone): it waits while the stream has another one, and ends with EOS
 * when it changes to one.
 *
 * ## Time
 *
 * It is a live source. Timestamps are the moments of capture, mapped to running time the same for
 * all pads; the first packet anchors the mapping. They never go backwards; after a publisher's
 * return they go on, with DISCONT. A missing packet is waited for `latency` ms. After a loss
 * that was not repaired, and at the start, video goes on with the next keyframe.
 *
 * ## Keyframes
 *
 * `GstForceKeyUnit` events from downstream become keyframe requests of the stream, merged with
 * those of viewers. Browsers send keyframes only to who asks: with `keyframe-interval` one is asked
 * for when none came for so long, as RTMP services and segments want it.
 *
 * ## Messages
 *
 * The element message `sfu-stream-changed` with `stream` and `live` tells of a publisher that came
 * or went, like the property `live`.
 *
 * ## Streams
 *
 * The pads are streams of one `GstStreamCollection`, which is posted and sent down each pad when it changes, so that `decodebin3` and what
 * is built on it can tell them apart: stream ids are STREAM/PAD, tags name the codec and, with `layer=all`, the layer (title). A
 * `select-streams` event that is sent to the element makes it send those streams alone.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod branch;
mod cadence;
mod feed;
mod imp;
mod reader;
mod settings;
mod streams;
mod timing;

pub(crate) use settings::OnLoss;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfusrc",
        gst::DebugColorFlags::empty(),
        Some("SFU stream source"),
    )
});

glib::wrapper! {
    pub struct SfuSrc(ObjectSubclass<imp::SfuSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    OnLoss::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "sfusrc",
        gst::Rank::NONE,
        SfuSrc::static_type(),
    )
}
