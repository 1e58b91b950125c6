// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfuroommixer
 * @title: sfuroommixer
 * @short_description: Makes one picture and one sound of all that is published in a room
 * @see_also: sfuroomsrc, sfusignaller, sfusink
 *
 * `sfuroommixer` is `sfuroomsrc` with decoders, `compositor` and `audiomixer` behind it: what an MCU does, for who can take one
 * stream only, as a service, a recording, or a viewer of a webinar. It takes a decoder for each participant, and an encoder behind it.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e sfusignaller api-keys-file=api.keys \
 *     sfuroommixer room=meeting name=mix   mix.video ! sfusink stream=mixed name=out   mix.audio ! out.audio_0
 * ]|
 * shows the room at http://localhost:8080/mixed, from where it can be recorded and pushed as any other stream.
 *
 * ## Pads
 *
 * Always `video` and `audio`. They begin at once, black and silent while nobody is there, and what is not linked is dropped.
 *
 * ## Layouts
 *
 * `grid` has all pictures in one size; `speaker` has who spoke last large, and a screen rather than a speaker. Pictures keep their
 * shape. One of which nothing comes for three seconds, as of a camera that is switched off, leaves its place black.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod imp;
mod input;
mod layout;

pub(crate) use layout::Layout;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfuroommixer",
        gst::DebugColorFlags::empty(),
        Some("SFU room mixer"),
    )
});

glib::wrapper! {
    pub struct SfuRoomMixer(ObjectSubclass<imp::SfuRoomMixer>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Layout::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "sfuroommixer",
        gst::Rank::NONE,
        SfuRoomMixer::static_type(),
    )
}
