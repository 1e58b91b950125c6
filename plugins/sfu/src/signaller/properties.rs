// SPDX-License-Identifier: MPL-2.0

//! How the element's properties are declared. What changes while it runs is `live`; all else is read on the way to READY.

use std::sync::LazyLock;

use gst::prelude::*;

use super::settings::Settings;
use crate::properties::{live_number, live_text, number_at_start as number, text_at_start as text};

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    vec![
        text(
            "listen",
            "Listen",
            "HOST:PORT of the HTTP server; port 0 lets the system choose (see `port`)",
            &defaults.listen,
        ),
        text(
            "udp-address",
            "UDP address",
            "Local IP address of the media ports; 0.0.0.0 is all of IPv4, :: all of both",
            &defaults.udp_address,
        ),
        number(
            "udp-port",
            "UDP port",
            "First media port: shard i uses this plus i; 0 lets the system choose each",
            0..=65_535,
            defaults.udp_port,
        ),
        number(
            "shards",
            "Shards",
            "Media threads, each with its own UDP port; 0 is one for each core",
            0..=256,
            defaults.shards,
        ),
        number(
            "send-buffer",
            "Send buffer",
            "Octets that may wait in the kernel for each media port (SO_SNDBUF; 0 is 1048576). Past net.core.wmem_max only \
             with CAP_NET_ADMIN; /metrics tells what was granted",
            0..=1 << 30,
            defaults.send_buffer,
        ),
        glib::ParamSpecBoolean::builder("dscp")
            .nick("DSCP")
            .blurb("Mark media for networks that treat it by kind (RFC 8837): sound EF, pictures AF42")
            .default_value(defaults.dscp)
            .build(),
        text(
            "announce-address",
            "Announce address",
            "Addresses or DNS names to tell peers, separated by commas (empty: those of the interfaces), where a NAT is in \
             front; HOST:PORT where it maps ports: shard i is at PORT plus i; udp: or tcp: before it for that alone; \
             stun:HOST[:PORT] asks a STUN server each minute",
            &defaults.announce_address,
        ),
        glib::ParamSpecBoolean::builder("ice-tcp")
            .nick("ICE over TCP")
            .blurb("Take media by TCP, too, on the numbers of the UDP ports, from peers whose networks block UDP")
            .default_value(defaults.ice_tcp)
            .build(),
        number(
            "max-tcp-connections",
            "Max TCP connections",
            "TCP connections of peers' media at most, three quarters of them of one address; 0 is a sixteenth of the limit of \
             open files (ulimit -n), 64 from 256 files on, 4096 at most",
            0..=1_000_000,
            defaults.max_tcp_connections,
        ),
        text(
            "router",
            "Router",
            "Name of the process-wide router whose streams to serve",
            &defaults.router,
        ),
        glib::ParamSpecUInt::builder("publisher-timeout")
            .nick("Publisher timeout")
            .blurb("A publisher by WebRTC (WHIP, rooms) from which nothing comes for this many ms is gone; its viewers stay and wait")
            .minimum(2_000)
            .maximum(3_600_000)
            .default_value(defaults.publisher_timeout)
            .mutable_playing()
            .build(),
        live_text(
            "ice-servers",
            "ICE servers",
            "STUN and TURN servers to tell clients (Link headers), separated by commas: stun:HOST[:PORT], \
             turn:USER:PASSWORD@HOST[:PORT][?transport=tcp]",
            &defaults.ice_servers,
        ),
        text(
            "turn-servers",
            "TURN servers",
            "TURN servers to tell clients with credentials of each session's own, separated by commas: \
             turn:HOST[:PORT][?transport=tcp], turns:HOST[:PORT]; with turn-secret",
            &defaults.turn_servers,
        ),
        text(
            "turn-secret",
            "TURN secret",
            "File with the secret that the turn-servers share with us (static-auth-secret of coturn)",
            &defaults.turn_secret,
        ),
        text(
            "hls-directory",
            "HLS directory",
            "Folder that sfuhlssink writes to, served at /hls (empty: not at all)",
            &defaults.hls_directory,
        ),
        text(
            "recordings-directory",
            "Recordings directory",
            "Folder of the recordings to list and play at /recordings, the directory of sfurecorder (empty: none)",
            &defaults.recordings_directory,
        ),
        text(
            "playout-delay",
            "Playout delay",
            "MIN/MAX in ms (steps of 10) for which viewers may keep pictures back to show them evenly; \
             auto: 0/0, and where packets are lost as long as it takes to send them again (250 ms at most); \
             empty leaves it to them",
            &defaults.playout_delay,
        ),
        live_number(
            "max-sessions",
            "Max sessions",
            "Sessions of viewers and publishers at most; further offers are answered with 503",
            1..=1_000_000,
            defaults.max_sessions,
        ),
        live_number(
            "max-sessions-per-address",
            "Max sessions per address",
            "Sessions of one address (IPv6: of one /64) that have not connected yet at most; connected ones don't count",
            1..=1_000_000,
            defaults.max_sessions_per_address,
        ),
        live_number(
            "max-bitrate",
            "Max bitrate",
            "What a publisher by WebRTC (WHIP, rooms) may send in all, in bit/s: what is more is dropped, and for more than 10 s ends it; \
             0 is no limit",
            0..=u32::MAX,
            defaults.max_bitrate,
        ),
        number(
            "max-connections",
            "Max connections",
            "HTTP connections at most; 0 is what the limit of open files leaves (ulimit -n less a quarter, or less 256 if that is more), \
             8192 at most",
            0..=1_000_000,
            defaults.max_connections,
        ),
        number(
            "max-connections-per-address",
            "Max connections per address",
            "HTTP connections of one address (IPv6: of one /64) at most, trusted proxies' excepted; 0 is three quarters of \
             max-connections, 2048 at most",
            0..=1_000_000,
            defaults.max_connections_per_address,
        ),
        text(
            "trusted-proxies",
            "Trusted proxies",
            "Addresses and networks (CIDR) of reverse proxies, separated by commas, whose Forwarded and X-Forwarded-For \
             headers say which address a viewer or publisher has",
            &defaults.trusted_proxies,
        ),
        text(
            "access",
            "Access",
            "File of rules that say who may do what (docs/access.md), read again when it changes; empty: the one that \
             GST_SFU_ACCESS names in the environment, or, without it, this machine may do everything and others may play",
            &defaults.access,
        ),
        text(
            "api-keys",
            "API keys",
            "KEY:SECRET, several with commas between: rooms for LiveKit's clients, at /rtc, by tokens that these sign (empty, \
             and no api-keys-file: no rooms). Read back without the secrets",
            &defaults.api_keys,
        ),
        text(
            "api-keys-file",
            "API keys file",
            "File with such keys, one a line, which nobody else may read (mode 0600)",
            &defaults.api_keys_file,
        ),
        number(
            "last-n",
            "Last N",
            "So many pictures, and sounds, of a room's participants are forwarded to each of the others: those who spoke last; \
             0: all",
            0..=1_000,
            defaults.last_n,
        ),
        live_text(
            "room-streams",
            "Room streams",
            "Streams of this server that are participants of rooms whenever they have a publisher, as ROOM=STREAM,STREAM,ROOM=STREAM \
             (empty: none). The API may add and remove more",
            &defaults.room_streams,
        ),
        text(
            "room-webhooks",
            "Room webhooks",
            "Addresses that are told of what happens in rooms, separated by commas, as LiveKit's server tells it; signed by the \
             first of the API keys by name (empty: none)",
            &defaults.room_webhooks,
        ),
        text(
            "allowed-origins",
            "Allowed origins",
            "Web sites whose pages may ask for everything, separated by commas, such as https://www.example.org, or *; empty: \
             pages of this server for everything, and those of all sites to play",
            &defaults.allowed_origins,
        ),
        text(
            "server-names",
            "Server names",
            "DNS names that this server goes by, separated by commas: requests to others are refused (421); empty: others \
             are answered, but then no address counts for anything",
            &defaults.server_names,
        ),
        text(
            "event-webhooks",
            "Event webhooks",
            "Addresses that are told of publishers, viewers, recordings and pushes that come and go, separated by commas, by signed POSTs \
             (docs/protocol.md)",
            &defaults.event_webhooks,
        ),
        text(
            "event-webhook-secret",
            "Event webhook secret",
            "File that holds what event webhooks are signed by: whsec_ and base64, or a text, of 24 octets or more",
            &defaults.event_webhook_secret,
        ),
        text(
            "pushes",
            "Pushes",
            "RTMP services that streams are sent on to from the start, as POST /api/v1/pushes does it: \
             STREAM=rtmp://HOST/APPLICATION/KEY or rtmps://, with blanks or commas between them. Read back without the keys",
            &defaults.pushes,
        ),
        live_number(
            "drain-timeout",
            "Drain timeout",
            "On SIGTERM (./sfu run) and by the action signal drain, take nobody any more, tell viewers to reconnect, and end when \
             they have gone or after so many ms; 0: on SIGTERM it ends at once",
            0..=86_400_000,
            defaults.drain_timeout,
        ),
        live_text(
            "drain-redirect",
            "Drain redirect",
            "Another server, such as https://other.example.org, that newcomers (307) and viewers are sent to then; empty: newcomers \
             get 503",
            &defaults.drain_redirect,
        ),
        text(
            "certificate",
            "Certificate",
            "PEM file of the certificate and its chain: listen then speaks HTTPS, and plain HTTP there is led to it; read again \
             when it changes",
            &defaults.certificate,
        ),
        text(
            "private-key",
            "Private key",
            "PEM file of the certificate's private key; read again when it changes",
            &defaults.private_key,
        ),
        text(
            "plain-listen",
            "Plain listen",
            "HOST:PORT of a second port where plain HTTP is led to HTTPS, such as 0.0.0.0:80 (empty: none)",
            &defaults.plain_listen,
        ),
        text(
            "acme-domains",
            "ACME domains",
            "DNS names of this server, separated by commas, for which an ACME server such as Let's Encrypt gives a certificate: \
             listen then speaks HTTPS. It must reach this server by plain HTTP at port 80 of each (plain-listen). Its terms are \
             agreed to (empty: certificate and private-key, if any)",
            &defaults.acme_domains,
        ),
        text(
            "acme-contact",
            "ACME contact",
            "E-mail addresses that the ACME server may write to, separated by commas",
            &defaults.acme_contact,
        ),
        text(
            "acme-directory",
            "ACME directory",
            "Address of the ACME server's directory (empty: https://acme-v02.api.letsencrypt.org/directory)",
            &defaults.acme_directory,
        ),
        text(
            "acme-cache",
            "ACME cache",
            "Folder for the account, keys and certificates, which only its owner may read; it is made where it is not there",
            &defaults.acme_cache,
        ),
        text(
            "acme-ca",
            "ACME certificate authority",
            "PEM file of the authority that has signed the ACME server's own certificate (empty: those of the system)",
            &defaults.acme_ca,
        ),
        text(
            "acme-eab-kid",
            "ACME external account",
            "What the ACME server's authority calls its customer, where it asks for an external account binding (empty: it does not)",
            &defaults.acme_eab_kid,
        ),
        text(
            "acme-eab-key",
            "ACME external account key",
            "File that holds the HMAC key of acme-eab-kid as base64url, as the authority shows it",
            &defaults.acme_eab_key,
        ),
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("TCP port that the HTTP server really listens on, 0 while it does not")
            .maximum(65_535)
            .read_only()
            .build(),
        glib::ParamSpecUInt::builder("viewers")
            .nick("Viewers")
            .blurb("Sessions of viewers and publishers that this element set up and that still run")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("udp-ports, sessions, and the engine's counters since the start")
            .read_only()
            .build(),
    ]
});
