// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-rtmpserversrc
 * @title: rtmpserversrc
 * @short_description: An RTMP server that encoders publish to
 * @see_also: sfusink
 *
 * `rtmpserversrc` listens for OBS, FFmpeg or a hardware encoder, which publishes to
 * `rtmp://HOST:PORT/APP/KEY`, and gives what it sends on its pads `video` and `audio`, as it is:
 * H.264 and AAC, or what else is below. Its pads are always there and never end. The publisher may come late, go, and
 * come back.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 rtmpserversrc stream-key=secret name=in \
 *     in.video ! h264parse ! avdec_h264 ! videoconvert ! autovideosink \
 *     in.audio ! avdec_aac ! audioconvert ! audioresample ! autoaudiosink
 * ]|
 * shows what `ffmpeg -re -i FILE -c copy -f flv rtmp://localhost/live/secret` sends. Its `avdec_aac` takes AAC alone:
 * with `decode-audio=true` the pad `audio` gives raw audio, whatever each publisher sends.
 *
 * ## Publishers
 *
 * One at a time: who comes while another one sends is told so and has its connection closed, as is
 * who has another `app` or `stream-key`; a query behind either (`live?token=x`) is not looked at. Without `stream-key`
 * the rules of `access` decide: this machine may publish, others by a key or token as the last part of the path. A
 * publisher that has sent nothing for a second makes room for one that comes with the same key,
 * and one that sends nothing for `timeout` is taken for lost. A connection may publish, stop, and
 * publish again.
 *
 * A client that speaks no RTMP, does not finish the handshake within 5 s, has not published 10 s
 * after it came or stopped, or sends a message of more than 4 MiB, is cut. There are 32
 * connections at most; who comes then takes the place of the one that is there for the longest
 * time without publishing.
 *
 * ## RTMPS
 *
 * With `certificate` and `private-key`, two PEM files, it speaks RTMPS alone, as
 * `rtmps://HOST:PORT/APP/KEY`. The files are looked at each second and read again when they have changed;
 * what is wrong with new ones is a warning, and the old ones stay in use. The 5 s of the handshake hold for
 * that of TLS, too.
 *
 * ## Codecs
 *
 * H.264, AAC and MP3, and by Enhanced RTMP HEVC, AV1, and Opus of one or two channels. Of several tracks the first goes on;
 * where the first track of sound can't be used, another one does, and stays. A publisher whose
 * video codec is none of these, or nothing that downstream takes, or whose pictures are larger than
 * 4096x2304 pixels, is refused. Sound of another codec, which downstream does not take, or whose channels have
 * a layout of their own, is left out. Neither is an error here; the application is told by a warning on the bus: once a publisher of
 * sound that is left out, and of those that are refused, by whatever, once in 10 s for each kind of reason.
 *
 * The codec of the sound may change from one publisher to the next, and so do the caps, which most decoders and `decodebin` don't
 * follow. With `decode-audio=true` each codec is decoded here by the best decoder that is installed, and what is linked gets
 * raw audio, whose format may change. What such a decoder fails at is left out, with a warning, and it is tried again a second later.
 *
 * Messages that are broken (frames that are cut short, Annex B, headers without both parameter
 * sets) are left out and counted as `unusable` in `stats`: pictures go on with the next keyframe, by the
 * last header that was good. After a hundred in a row the publisher is told why, and cut; where it is the sound that is
 * broken, or has no configuration, it is left out until that is good, and pictures go on.
 *
 * ## Pictures in several messages
 *
 * Some encoders send each NAL unit of H.264 or HEVC as a message of its own. Slices with one timestamp are joined to the
 * picture that they belong to, and parameter sets and SEI that come by themselves go in front of the next one. Where a
 * picture ends is told by what comes after it alone: a publisher that sends pictures so has each one wait for the next
 * message of video, for sound that goes on for 100 ms, or for half a second without either (2 s once one came so). Others have their first picture
 * wait in that way, and no more. A picture is a keyframe if its message or its slices say so.
 *
 * ## Time
 *
 * The first message of a publisher is dated by its arrival, the others by the distance of their
 * timestamps from it, also when the network held them back. All are dated anew, marked DISCONT, when
 * timestamps step back by more than 0.1 s or ahead of the time that passed by more than 0.5 s, lag
 * for 3 s, or lead further than 5 s away from when they arrive. Each pad's decoding timestamps only grow,
 * also from one publisher to the next. Nothing is given until the first keyframe, nor in PAUSED.
 *
 * ## Messages
 *
 * When a publisher comes or goes an element message `rtmp-publisher-changed` is posted:
 *
 * * `connected` (gboolean): whether one publishes now
 * * `reason` (gchararray): what happened, for a log
 * * `running-time` (GstClockTime as guint64): when, in running time of the element
 *
 * The signals `publisher-joined` and `publisher-left` have the same as their argument, on a thread that nothing
 * waits for. The action signal `kick` ends whoever publishes, who may come again, and returns whether
 * there was somebody; so does `kick-publisher` of `sfusignaller` where a `sfusink` publishes it.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod access;
mod client;
mod decoder;
mod feed;
mod imp;
mod output;
mod server;
mod settings;
mod stats;
mod stream;
mod told;

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
