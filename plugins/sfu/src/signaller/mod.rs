// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-sfusignaller
 * @title: sfusignaller
 * @short_description: Serves the streams of this process to browsers by WHEP, and takes theirs by WHIP
 * @see_also: sfusink, sfuhlssink
 *
 * `sfusignaller` has no pads: put it anywhere into a pipeline of the process whose `sfusink`s it
 * shall serve. It answers HTTP on `listen` and sends and receives media on one UDP port a shard,
 * from `udp-port` on.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 sfusignaller  videotestsrc is-live=true ! sfusink stream=test
 * ]|
 * plays at http://localhost:8080/test.
 *
 * ## HTTP
 *
 * * `GET /`: the live streams. `GET /{stream}`: the player. `GET /publish/{stream}`: the publisher.
 * * `POST /whep/{stream}`, optionally with `?layer=RID`: watch (WHEP). `POST /whip/{stream}`,
 *   optionally with `?takeover=1`: publish (WHIP, RFC 9725). Both answer with the session's
 *   `Location`, which takes `PATCH` (trickle ICE, ICE restart) and `DELETE`, `GET` for its figures,
 *   `GET …/clock` and `POST …/latency` for the true latency,
 *   and `POST …/layer` with `{"encodingId": "RID"}` or null for another layer.
 * * `GET /hls/{stream}/index.m3u8`: the HLS that `sfuhlssink` writes into `hls-directory`;
 *   `GET /hls/{stream}`: a page that plays it where the browser does.
 * * `GET /api/streams`, `GET /api/streams/{stream}`: JSON. `GET /metrics`: Prometheus.
 *   `/api/v1/…`: health, sessions, kick, record, for who may; `GET /api/v1/openapi.json` describes it.
 * * `GET /room/{room}`: the page of a room; `POST /rtc/guest/{room}` gives it the token that it joins with.
 * * `GET /rtc`, `GET /rtc/v1`: rooms for LiveKit's clients, with `api-keys` or `api-keys-file`.
 * * `GET /recordings`: the recordings in `recordings-directory`, as `sfurecorder` makes them, to be
 *   played. `GET /api/recordings`: the same as JSON. `GET /recordings/files/{file}`: a file.
 *   `GET /healthz`: 200 while it runs; `GET /healthz?stream=NAME`: 503 while nothing comes from that stream.
 *
 * Sessions, connections and what a publisher sends are bounded (`max-sessions`, `max-sessions-per-address`, `max-bitrate`,
 * `max-connections`, `max-connections-per-address`): who finds no room is answered with 503 and `Retry-After`. Behind a
 * reverse proxy set `trusted-proxies` to its address, or all viewers count as one.
 *
 * With `certificate` and `private-key`, two PEM files, `listen` speaks HTTPS (HTTP/1.1 and 2, TLS 1.2 and 1.3), and plain HTTP
 * there is led to it (308); `plain-listen` is a second port that does only that. The files are read again when they change.
 *
 * ## Messages
 *
 * Element messages tell of what happens: `sfu-publisher-joined`, `sfu-publisher-left`, `sfu-viewer-joined`, `sfu-viewer-left`,
 * `sfu-recording-started`, `sfu-recording-finished`, `sfu-push-started`, `sfu-push-failed`, `sfu-push-finished`, with `stream` and what is known of `session`, `input`, `user`, `address`,
 * `file`, `seconds` and `octets`. `event-webhooks` are told the same, and so are handlers of the signals `publisher-joined` and
 * so on, whose argument is the message's structure. They are called on a thread of their own and may do what they like, also
 * set the pipeline to NULL; while one doesn't return 256 others wait, and what is more is lost to it. `sfu-drained` is posted when a
 * drain is over, which the action signal `drain` begins.
 *
 * The action signals `kick-session` (a session's number) and `kick-publisher` (a stream's name) end what is there, as `DELETE` of
 * `/api/v1` does, and return whether there was something to end. Who is ended may come again: see `access`.
 *
 * ## Addresses
 *
 * Viewers are told the addresses of the machine's interfaces on which the UDP ports really listen,
 * or those of `announce-address` where there is a NAT in front: addresses, or names, which are looked up again after a
 * minute. One that is not found is a warning, and `not_announced` of `/api/v1/server`. Where the NAT maps ports, `HOST:PORT` tells which one is the first shard's; shard i is at that plus i
 * (`docker run -p 9000-9003:8189-8192/udp` with four shards is `HOST:9000`). The sockets stay where they are: what is told
 * and where datagrams arrive are two things. Open the UDP ports in the firewall.
 */
use std::sync::LazyLock;

use gst::prelude::*;

mod acme;
mod address;
mod announced;
mod api;
mod body;
mod conditions;
mod connections;
mod door;
mod drain;
mod events;
mod files;
mod guests;
mod held;
mod hls;
mod http;
mod imp;
mod kick;
mod latency;
mod limits;
mod links;
mod metrics;
mod object;
mod offered;
mod pages;
mod peers;
mod problem;
mod properties;
mod recent;
mod recordings;
mod requests;
mod rooms;
mod routes;
mod serve;
mod server;
mod sessions;
mod settings;
mod tell;
mod tls;
mod turn;
mod twirp;
mod v1;
mod websocket;
mod workers;

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfusignaller",
        gst::DebugColorFlags::empty(),
        Some("SFU signaller"),
    )
});

glib::wrapper! {
    pub struct SfuSignaller(ObjectSubclass<imp::SfuSignaller>)
        @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "sfusignaller",
        gst::Rank::NONE,
        SfuSignaller::static_type(),
    )
}
