// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-srtserver
 * @title: srtserver
 * @short_description: An SRT server that runs a pipeline for each caller
 * @see_also: supervisor, sfusink, srtsrc
 *
 * `srtserver` listens for encoders that call by SRT, any number of them at one port, and runs the
 * pipeline that its property `pipeline` describes for each: in this process but apart from the
 * pipeline that it stands in, as `supervisor` does. What one caller sends can hurt nobody else.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -e sfusignaller  srtserver pipeline="appsrc name=caller ! decodebin name=in \
 *     sfusink name=out stream={stream} \
 *     in. ! video/x-raw(ANY) ! queue ! videoconvert ! out.video_0 \
 *     in. ! audio/x-raw ! queue ! audioconvert ! audioresample ! out.audio_0"
 * ]|
 * shows at http://localhost:8080/cam1 what `ffmpeg -re -i FILE -f mpegts
 * "srt://localhost:8890?streamid=cam1"` sends.
 *
 * ## Callers
 *
 * The stream id is the stream's name, plain or as `#!::r=NAME,m=publish` (SRT access control, by
 * which players say `m=request`; they are refused), or as Blackmagic's encoders have it,
 * `#!::u=NAME,bmd_uuid=…`. A slash before the name, as in paths, is nothing. Who gives none is the stream of the
 * property `stream`; where that is empty, or the name is none that a stream may have, the caller is refused.
 *
 * Encoders show a refusal as an error of input and output. The first one of each kind is a warning on the bus,
 * which says what the caller asked for and what to do; all are in the log (`GST_DEBUG=srtserver:4`).
 *
 * Where there is no passphrase at all, the rules of `access` say who may publish, as everywhere
 * (docs/access.md): without any, this machine. A token or key is shown as `NAME?token=…` or
 * `#!::r=NAME,s=TOKEN`, a user's password as `#!::r=NAME,u=USER,s=PASSWORD`, in 512 octets in all. Who
 * may no longer is cut within two seconds. With passphrases *and* `access` both are needed.
 *
 * A caller must know the passphrase that `passphrases` or `passphrases-file` have for its stream,
 * or else `passphrase`. Where there are some by stream, but none for this one and no `passphrase`,
 * it is refused.
 *
 * Who calls for a stream that another caller sends is refused, unless that one has sent nothing
 * for a second: then it takes over. There are 32 callers at most.
 *
 * ## The pipeline
 *
 * In the description `{stream}` stands for the stream's name. The element named `caller`, an
 * `appsrc`, gives what the caller sends, MPEG-TS (`video/mpegts`), as a live source.
 *
 * When it fails, or ends because the programs in the stream change, it is built anew and the caller
 * stays. Who brings nothing to a sink for 10 s while sending, or whose pipeline ends five times
 * without that, is cut, with a warning on the bus. Of streams that nothing in the pipeline takes
 * (such as of codecs that there is no decoder for) one warning tells; the rest goes on.
 *
 * What a pipeline does not take in time is left out, from 8 MiB that wait on.
 *
 * ## Messages
 *
 * The element message `srt-caller-changed` tells of each that comes or goes:
 *
 * * `stream` (gchararray), `connected` (gboolean), `callers` (guint)
 * * `reason` (gchararray): where from, or why it went, for a log
 *
 * The signals `caller-joined` and `caller-left` have the same as their argument, on a thread that nothing waits
 * for. The action signal `kick` (a stream's name) ends whoever sends it, who may come again, and returns whether
 * there was somebody; so does `kick-publisher` of `sfusignaller` where a `sfusink` publishes it.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod caller;
mod imp;
mod name;
mod server;
mod settings;
mod stats;
mod told;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "srtserver",
        gst::DebugColorFlags::empty(),
        Some("SRT server with a pipeline for each caller"),
    )
});

glib::wrapper! {
    pub struct SrtServer(ObjectSubclass<imp::SrtServer>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "srtserver",
        gst::Rank::NONE,
        SrtServer::static_type(),
    )
}
