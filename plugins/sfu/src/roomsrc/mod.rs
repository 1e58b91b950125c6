// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfuroomsrc
 * @title: sfuroomsrc
 * @short_description: Gives all that is published in a room back to GStreamer
 * @see_also: sfusrc, sfuroommixer, sfusignaller
 *
 * `sfuroomsrc` has pads for each participant of a room of `sfusignaller` in the same process, as they come: for mixers and all else
 * that looks at everybody. What is published by one participant together, camera and microphone, or a screen and its sound, is one
 * `sfusrc` inside, and in sync. Streams of the server that take part in the room are among them.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 sfusignaller api-keys-file=api.keys \
 *     sfuroomsrc room=meeting name=in   in. ! decodebin ! autovideosink
 * ]|
 * shows the first picture that there is in a room. `sfuroommixer` makes one picture of all.
 *
 * ## Pads
 *
 * Sometimes `video_%u` and `audio_%u`, numbered in the order in which they come, with the properties `identity` (the participant) and
 * `stream` (what of it). They carry what those of `sfusrc` do. When a participant goes, or unpublishes, the pad ends with EOS and is
 * removed. What comes while a pad is not linked is dropped. Stream ids are STREAM/PAD, where PAD is the inner `sfusrc`'s.
 *
 * ## Time
 *
 * As of `sfusrc`: a live source whose timestamps are the moments of capture, mapped to running time for each stream.
 *
 * ## Messages
 *
 * The element message `sfu-room-changed` with `room`, `identity`, `stream` and `present` tells of each stream that comes or goes. What
 * fails in one stream is a warning: it is taken out, and tried again after 5 s.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod imp;
mod member;
mod pad;

pub(crate) use pad::SfuRoomSrcPad;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfuroomsrc",
        gst::DebugColorFlags::empty(),
        Some("SFU room source"),
    )
});

glib::wrapper! {
    pub struct SfuRoomSrc(ObjectSubclass<imp::SfuRoomSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    SfuRoomSrcPad::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "sfuroomsrc",
        gst::Rank::NONE,
        SfuRoomSrc::static_type(),
    )
}
