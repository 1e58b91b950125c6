// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-peerwatch
 * @title: peerwatch
 * @short_description: Fails when the peer of a WebRTC sink no longer answers
 * @see_also: supervisor, whipclientsink
 *
 * `whipclientsink` (gst-plugin-webrtc) goes on sending for ever when the server that it publishes to
 * was killed: nothing tells it. `peerwatch`, which has no pads, looks at that element's `stats`, and
 * posts an error when the peer has sent no report (RTCP) for `timeout`. In a `supervisor` that means
 * that the pipeline begins anew.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e supervisor pipeline="peerwatch element=out  videotestsrc is-live=true \
 *     ! whipclientsink name=out signaller::whip-endpoint=http://sfu.example:8080/whip/cam"
 * ]|
 * publishes, and does so again when the server was away.
 *
 * The time counts from when the element has a session: one that never gets a report fails as well.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod imp;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "peerwatch",
        gst::DebugColorFlags::empty(),
        Some("Fails when a WebRTC peer no longer answers"),
    )
});

glib::wrapper! {
    pub struct PeerWatch(ObjectSubclass<imp::PeerWatch>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "peerwatch",
        gst::Rank::NONE,
        PeerWatch::static_type(),
    )
}
