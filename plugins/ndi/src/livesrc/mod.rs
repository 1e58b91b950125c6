// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-ndilivesrc
 * @title: ndilivesrc
 * @short_description: NDI ingest that never ends
 * @see_also: ndisrc, ndisrcdemux, fallbackswitch
 *
 * `ndilivesrc` makes an NDI source fit for a channel that runs for months. Its pads `video` and
 * `audio` are always there, their caps are settled once, and they never end: while the NDI source
 * is away they carry a slate (see the property `fallback`) and silence, and when it comes back
 * they carry it again, all without a restart of anything downstream.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 ndilivesrc ndi-name="STUDIO (CAM 1)" name=ndi \
 *     ndi.video ! queue ! videoconvert ! autovideosink \
 *     ndi.audio ! queue ! audioconvert ! audioresample ! autoaudiosink
 * ]|
 *
 * ## Caps
 *
 * Each pad's caps are settled once per start, from the properties `width`, `height`, `framerate`
 * or `rate`, `channels`, from what downstream accepts, and for what these leave open from the
 * first source seen. If no source has shown itself `start-timeout` after the start (2 s, which
 * discovery by name may well take), the open ones become 1920x1080 at 30/1 and 48 kHz stereo, and
 * whatever comes later is scaled and resampled into that. Until its caps are settled a pad carries
 * nothing; properties that leave nothing open settle them at once. A source whose format is
 * already right passes through untouched.
 *
 * ## Messages
 *
 * At each change an element message `ndi-live-source-changed` is posted:
 *
 * * `connected` (gboolean): whether video or audio of the source arrives now
 * * `source` (gchararray): the property `ndi-name`, or else `url-address`
 * * `reason` (gchararray): what happened, for a log
 * * `running-time` (GstClockTime as guint64): when, in running time of the element
 *
 * ## NDI timecode
 *
 * Buffers that come from the source carry `GstReferenceTimestampMeta` with the reference
 * `timestamp/x-ndi-timecode` and, if the sender gave one, `timestamp/x-ndi-timestamp`. Slate and
 * silence carry none.
 *
 * ## What it needs
 *
 * The NDI runtime 6 (`libndi.so.6`), found through the linker's path or the environment variable
 * `NDI_RUNTIME_DIR_V6`; the elements `ndisrc`, `ndisrcdemux` and `fallbackswitch` of
 * gst-plugins-rs; GStreamer's base and good plugins.
 */
use gst::prelude::*;

mod branch;
mod caps;
mod imp;
mod ingest;
mod mix;
mod pads;
mod settings;
mod shared;
mod slate;
mod stream;
mod supervisor;
mod timecode;

pub(crate) use settings::Fallback;

glib::wrapper! {
    pub struct NdiLiveSrc(ObjectSubclass<imp::NdiLiveSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Fallback::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "ndilivesrc",
        gst::Rank::NONE,
        NdiLiveSrc::static_type(),
    )
}
