// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfusink
 * @title: sfusink
 * @short_description: Publishes one stream to any number of WebRTC viewers
 * @see_also: sfusignaller, simulcastenc
 *
 * `sfusink` hands one stream to the process's router, from where a `sfusignaller` with the same
 * `router` serves it to viewers. Every packet is encoded and payloaded once, however many watch.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 sfusignaller \
 *     videotestsrc is-live=true ! sfusink stream=test name=out \
 *     audiotestsrc is-live=true ! out.
 * ]|
 * plays at http://localhost:8080/test.
 *
 * ## Pads
 *
 * Request `video_%u` and `audio_%u`. Each takes what is linked to it:
 *
 * * raw video: encoded by `simulcastenc` to the layers of the property `layers`. It must be the
 *   only video pad.
 * * `video/x-h264`, `video/x-vp8`, `video/x-vp9`, `video/x-h265` or `video/x-av1` (which, to go
 *   on as it is, needs `rtpav1pay`): one simulcast layer a pad, `video_0` the highest; a pad that comes later is a layer of
 *   its own, whatever its number. Not all browsers know H.265 and AV1.
 * * raw audio: encoded to Opus. `audio/x-opus`, mono or stereo: as it is.
 *   Channels with positions (5.1) are mixed to stereo by them. Of channels without positions (SDI,
 *   NDI) the first two are taken, however many come. `mix-matrix` chooses others: rows of output
 *   channels, as `audioconvert` has it. Their number may change while running.
 * * `application/x-rtp` with H264, VP8, VP9, H265, AV1 or OPUS: as it is, without its header extensions.
 *
 * Pads can be requested and released in any state.
 *
 * ## Languages
 *
 * Each `audio_%u` is a track of its own, 8 at most, and each viewer hears one: the first, or the one that it chooses. A
 * track's language is that of the tag `language-code`, which demuxers send; elsewhere `taginject` does:
 *
 * |[
 * gst-launch-1.0 sfusignaller sfusink name=out stream=test \
 *     videotestsrc is-live=true ! out. \
 *     audiotestsrc is-live=true ! taginject tags=language-code=de ! out.audio_0 \
 *     audiotestsrc is-live=true freq=880 ! taginject tags=language-code=en ! out.audio_1
 * ]|
 *
 * Anything else is refused with an error that says what is possible; audio beside video with a
 * warning alone, and the picture goes on without it. What comes may change while running, its size and its codec,
 * also to what is encoded or decoded here, but not on one of several video pads; viewers get it as another publisher's.
 *
 * ## What browsers can't show
 *
 * What comes encoded on the only video pad is looked at, and with `encode=auto` decoded and encoded anew to `layers` where
 * it has to be. That is told as an info message; where it can't be (`encode=never`, several video pads) a warning on the bus
 * says once what is wrong. `stats` has `pictures-out-of-order` and `encoded-anew`. RTP is not looked at.
 *
 * * B-frames: see below.
 * * H.264 and H.265 of other colours than 4:2:0, of more than 8 bits, or interlaced: no browser offers to decode those.
 * * H.264 and H.265 without keyframes (an infinite group of pictures, intra refresh): who joins would see nothing. Where there
 *   was none for 10 s or 300 pictures upstream is asked for one, and where none has come 2 s later, it is encoded anew, and as it
 *   is again after three shorter groups of pictures.
 * * AV1, where `rtpav1pay` is missing.
 *
 * ## B-frames
 *
 * WebRTC has no place for pictures that come in another order than that in which they are shown: browsers would
 * show one of each group of pictures. H.264 and H.265 are looked at (parameter sets and the order of timestamps),
 * and encoded anew where they have B-frames: from the first picture where the parameter sets say so, else from the second one
 * out of order, and no longer when a publisher comes whose parameter sets exclude them. Uneven timestamps of what has none are
 * made to go on.
 *
 * ## Encoders
 *
 * `encoder`, `encoder-properties`, `deinterlace`, `deinterlace-fields` and the signal `encoder-setup` with
 * (consumer-id, pad-name, encoder) are those of `simulcastenc`: the consumer is the layer's number, the pad
 * this element's. `layers` may change while playing: layers that stay change with the next frame, others come
 * or go, for which viewers get a keyframe.
 *
 * ## Viewers
 *
 * The signals `viewer-joined` and `viewer-left` tell of the stream's viewers by WebRTC, with the structure that the messages of
 * `sfusignaller` have. They are called on a thread of their own.
 *
 * ## Keyframes
 *
 * Viewers' requests are merged: upstream gets at most one `GstForceKeyUnit` event each
 * `keyframe-min-interval` and layer.
 *
 * ## Time
 *
 * Live input is sent as it comes, other input in its own time, with nothing left out of it: files,
 * playlists (`concat`), pause and resume. Where the latency query says nothing the sources behind
 * what does not answer it are asked.
 *
 * Timestamps may step forward or back, repeat, wrap or be missing: behind the pads time goes on,
 * each frame as long after the one before it as it came, and tracks and layers that step together
 * stay together. `timestamp-steps` of `stats` counts them.
 *
 * Viewers are told when what they see was captured: at its running time by the pipeline's clock,
 * or, where video brings `GstReferenceTimestampMeta` with an NDI timecode, an NDI timestamp, or
 * Unix or NTP time of the last ten seconds, at that time.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod audio;
mod begins;
mod branch;
mod clock;
mod decoder;
mod encoded;
mod feedback;
mod imp;
mod inputs;
mod keyframes;
mod media;
mod order;
mod publish;
mod sender;
mod settings;
mod stats;
mod timeline;
mod way;

pub(crate) use branch::take_out;
pub(crate) use settings::{Codec, Deinterlace, Encode, Fields};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfusink",
        gst::DebugColorFlags::empty(),
        Some("SFU fan-out sink"),
    )
});

glib::wrapper! {
    pub struct SfuSink(ObjectSubclass<imp::SfuSink>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for api in [
        Codec::static_type(),
        Encode::static_type(),
        Deinterlace::static_type(),
        Fields::static_type(),
    ] {
        api.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "sfusink",
        gst::Rank::NONE,
        SfuSink::static_type(),
    )
}
