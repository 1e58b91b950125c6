// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-simulcastenc
 * @title: simulcastenc
 * @short_description: One raw video into aligned simulcast layers
 * @see_also: sfusink
 *
 * `simulcastenc` encodes one raw video several times, each time smaller, for viewers with
 * different networks. Request a pad `src_%u` for each layer of the property `layers`, before the
 * element leaves the NULL state: `src_0` is the highest layer.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 videotestsrc is-live=true ! video/x-raw,width=1280,height=720 \
 *     ! simulcastenc layers="720:2500k,360:700k" name=enc \
 *     enc.src_0 ! fakesink  enc.src_1 ! fakesink
 * ]|
 *
 * ## Layers
 *
 * `layers` is a list of HEIGHT:BITRATE, with the height in lines and the bitrate in bit/s (k and M
 * multiply). The width follows from the picture's shape. A layer that is higher than the source is
 * encoded at the source's size: nothing is ever scaled up. Interlaced video is deinterlaced.
 *
 * ## Keyframes
 *
 * Every `keyframe-interval` all layers get a keyframe on the same frame, so that a viewer can
 * change layers there and segments can be cut there. An upstream `GstForceKeyUnit` event on one of
 * the pads makes the next frame of that layer alone a keyframe.
 *
 * ## Temporal layers
 *
 * With `codec=vp8 temporal-layers=2` half of the frames can be left out for viewers whose network
 * does not carry the whole layer, with 3 also three quarters. `rtpvp8pay` marks them as RFC 7741 has
 * it. `vp8enc` is taken for it; no encoder here makes them in H.264. They cost some quality, since a
 * frame refers to one further back.
 *
 * ## Encoders
 *
 * The best one installed that starts is taken, hardware first; `encoder` forces one by its factory
 * name, and `encoders` tells what was taken. All are set for low latency: no B-frames, no
 * lookahead, a bitrate that holds over half a second. Each layer is encoded on its own thread
 * behind a queue of two frames; an encoder that can't keep up loses frames, which `stats` counts,
 * and delays nothing else.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod chain;
mod encoders;
mod imp;
mod layers;
mod settings;
mod temporal;

pub(crate) use settings::{Codec, Speed};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "simulcastenc",
        gst::DebugColorFlags::empty(),
        Some("Simulcast encoder"),
    )
});

/// What comes out as H.264. avc first: as a byte stream every frame would get an access unit delimiter.
pub(crate) fn encoded_h264() -> gst::Caps {
    gst::Caps::builder("video/x-h264")
        .field("stream-format", gst::List::new(["avc", "byte-stream"]))
        .field("alignment", "au")
        .build()
}

glib::wrapper! {
    pub struct SimulcastEnc(ObjectSubclass<imp::SimulcastEnc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Speed::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    Codec::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "simulcastenc",
        gst::Rank::NONE,
        SimulcastEnc::static_type(),
    )
}
