// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-simulcastenc
 * @title: simulcastenc
 * @short_description: One raw video into aligned simulcast layers
 * @see_also: sfusink
 *
 * `simulcastenc` encodes one raw video several times, each time smaller, for viewers with
 * different networks. Request a pad `src_%u` for each layer of the property `layers`: `src_0` is the
 * highest layer.
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
 * `layers` is a list of HEIGHT:BITRATE or HEIGHT:BITRATE@FPS, with the height in lines, the bitrate in
 * bit/s (k and M multiply), and the frames a second at most (`30`, `12.5`, `30000/1001`). The width
 * follows from the picture's shape. A layer that is higher than the source is encoded at the source's
 * size: nothing is ever scaled up. `layers` may change while playing: the next frame has it. A layer that
 * it has no more rests; pads may be requested and released in any state.
 *
 * ## Interlaced video
 *
 * It is deinterlaced, also of 10 bits (v210) and with one field a buffer (`interlace-mode=alternate`).
 * 1080i50 becomes 1080p25, from the top fields. `deinterlace-fields=all` makes 1080p50 of it, which
 * moves as smoothly as on television and costs twice as much to encode. `deinterlace=all` is for sources
 * that don't say what they are, `deinterlace=off` for those that say so wrongly.
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
 * The best one installed that works is taken, hardware first; `encoders` tells which. One that fails, also
 * while playing, is replaced by the next. Ranks count: `GST_PLUGIN_FEATURE_RANK=openh264enc:MAX` puts it
 * before all others, `vah264enc:NONE` takes it out, and any encoder with a rank above primary is tried.
 * `encoder` forces one by its factory name. All are set for low latency: no B-frames, no
 * lookahead, a bitrate that holds over half a second (of VP8 frames are left out where the coarsest
 * pictures are too large). `encoder-properties` sets others: of all encoders, of a layer's, or of one
 * factory's alone,
 * |[
 * encoder-properties="props,threads=1,layer-0=[props,speed-preset=faster],vp8enc=[props,cpu-used=6]"
 * ]|
 * and so may an application, in the signal `encoder-setup` with (consumer-id, pad-name, encoder), as
 * upstream's `webrtcsink` has it: here the consumer is the layer's number, and the pad the layer's.
 * It comes for each encoder that is made, after everything else was set; a handler that returns TRUE is the
 * last one. What an encoder does not have is warned of.
 *
 * Pictures in memory of another kind (`memory:VAMemory`, and so on) go to encoders that take it as they are,
 * scaled where they lie, or else are brought to the system's memory, by whatever element is installed for it.
 * Each layer is encoded on its own thread
 * behind a queue of two frames; an encoder that can't keep up loses frames, which `stats` counts,
 * and delays nothing else.
 */
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;

mod elements;
mod encoders;
mod front;
mod imp;
mod layer;
mod rate;
mod scalers;
mod settings;
mod stage;
mod stats;
mod temporal;
mod weave;
mod whole;

pub(crate) use settings::{Codec, Deinterlace, Fields, Speed};

/// What a mutex holds, also after a panic elsewhere: what is kept here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "simulcastenc",
        gst::DebugColorFlags::empty(),
        Some("Simulcast encoder"),
    )
});

impl SimulcastEnc {
    fn set_up(&self, encoder: &gst::Element, index: usize, properties: Option<&gst::Structure>) {
        use gst::subclass::prelude::ObjectSubclassIsExt;
        self.imp().set_up(encoder, index, properties);
    }
}

glib::wrapper! {
    pub struct SimulcastEnc(ObjectSubclass<imp::SimulcastEnc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for api in [
        Speed::static_type(),
        Codec::static_type(),
        Deinterlace::static_type(),
        Fields::static_type(),
    ] {
        api.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "simulcastenc",
        gst::Rank::NONE,
        SimulcastEnc::static_type(),
    )
}
