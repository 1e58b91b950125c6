// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-rtmpserversrc
 * @title: rtmpserversrc
 * @short_description: An RTMP server that encoders publish to
 * @see_also: sfusink
 *
 * `rtmpserversrc` listens for OBS, FFmpeg or a hardware encoder, which publishes to
 * `rtmp://HOST:PORT/APP/KEY`, and gives what it sends on its pads `video` and `audio`, as it is:
 * H.264 and AAC. Its pads are always there and never end. The publisher may come late, go, and
 * come back.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 rtmpserversrc stream-key=secret name=in \
 *     in.video ! h264parse ! avdec_h264 ! videoconvert ! autovideosink \
 *     in.audio ! avdec_aac ! audioconvert ! audioresample ! autoaudiosink
 * ]|
 * shows what `ffmpeg -re -i FILE -c copy -f flv rtmp://localhost/live/secret` sends.
 *
 * ## Publishers
 *
 * One at a time: who comes while another one sends is told so and has its connection closed, as is
 * who has another `app` or `stream-key`. A publisher that sends nothing for `timeout` is taken for
 * lost.
 *
 * A client that speaks no RTMP, does not finish the handshake within 5 s, has not published 10 s
 * after it came, sends a message of more than 4 MiB, or broken media, is cut. There are 32
 * connections at most; who comes then takes the place of the one that is there for the longest
 * time without publishing.
 *
 * ## Codecs
 *
 * H.264 and AAC, and by Enhanced RTMP HEVC and AV1. A publisher whose codec is none of these, or
 * nothing that downstream takes, is refused; that is no error here.
 *
 * ## Time
 *
 * The first message of a publisher is dated by its arrival, the others by the distance of their
 * timestamps from it, and all of them anew, marked DISCONT, when that leads further than 5 s away
 * from when they arrive. Each pad's decoding timestamps only grow, also from one publisher to the next.
 * Nothing is given until the first keyframe, nor in PAUSED.
 *
 * ## Messages
 *
 * When a publisher comes or goes an element message `rtmp-publisher-changed` is posted:
 *
 * * `connected` (gboolean): whether one publishes now
 * * `reason` (gchararray): what happened, for a log
 * * `running-time` (GstClockTime as guint64): when, in running time of the element
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod client;
mod feed;
mod imp;
mod output;
mod server;
mod settings;
mod stats;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmpserversrc",
        gst::DebugColorFlags::empty(),
        Some("RTMP server that encoders publish to"),
    )
});

glib::wrapper! {
    pub struct RtmpServerSrc(ObjectSubclass<imp::RtmpServerSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "rtmpserversrc",
        gst::Rank::NONE,
        RtmpServerSrc::static_type(),
    )
}
