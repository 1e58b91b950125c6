// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfurtspserver
 * @title: sfurtspserver
 * @short_description: Serves the streams of the router to RTSP players
 * @see_also: sfusrc, sfusignaller
 *
 * `sfurtspserver` has no pads: put it anywhere into a pipeline of the process whose streams it shall
 * serve. Every live stream of the router is at `rtsp://HOST:8554/STREAM`, copied, not encoded anew:
 * H.264, H.265, VP8, VP9 and Opus, by TCP (interleaved) and UDP. `?layer=lowest` or `?layer=RID`
 * asks for another simulcast layer than the highest.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 sfusignaller sfurtspserver videotestsrc is-live=true ! sfusink stream=test
 * ]|
 * plays with `ffplay rtsp://localhost:8554/test`.
 *
 * Where the publisher has several audio tracks, each is a track of its own, with its language (`a=lang`) where that is known. Who comes
 * after one has come gets that, too.
 *
 * All players of a stream and layer share one `sfusrc`, which runs while there is one. A player that
 * joins gets a keyframe, asked for through the stream's arbiter. A stream without a publisher, or of
 * which nothing is declared yet, is answered with 404. When a publisher goes, its players stay and
 * wait; when one comes back, they go on, unless it sends another codec: then they are disconnected
 * and may come again.
 *
 * ## Who may watch
 *
 * Whom the rules of `access` let play, as everywhere (docs/access.md): without any, everybody. A token
 * or key is shown as `rtsp://HOST:8554/STREAM?token=…` or as the password, a user's password by Basic,
 * or by Digest where the file has an HA1 of that user. With `users` or `users-file` it is those instead.
 * Who may not watch is not told whether a stream is there, and who may no longer is disconnected within
 * two seconds.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod arrivals;
mod auth_param;
mod callers;
mod factory;
mod guard;
mod imp;
mod location;
mod mounts;
mod server;
mod settings;
mod shared_media;
mod stream;
mod users;

pub(crate) use settings::Auth;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfurtspserver",
        gst::DebugColorFlags::empty(),
        Some("SFU RTSP server"),
    )
});

glib::wrapper! {
    pub struct SfuRtspServer(ObjectSubclass<imp::SfuRtspServer>)
        @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Auth::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "sfurtspserver",
        gst::Rank::NONE,
        SfuRtspServer::static_type(),
    )
}
