// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gst::prelude::*;
use sfu_engine::{AdmissionLimits, Announce, EngineConfig, PlayoutDelay, SEND_BUFFER};
use sfu_tls::Certificates;

use super::door::{Door, Names, Origins};
use super::drain;
use super::limits::Limits;
use super::turn::IceServers;
use crate::properties::{live_number, live_text, number_at_start as number, text_at_start as text};

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) listen: String,
    pub(super) udp_address: String,
    pub(super) udp_port: u32,
    pub(super) shards: u32,
    pub(super) send_buffer: u32,
    pub(super) dscp: bool,
    pub(super) ice_tcp: bool,
    pub(super) max_tcp_connections: u32,
    pub(super) announce_address: String,
    pub(super) router: String,
    pub(super) publisher_timeout: u32,
    pub(super) ice_servers: String,
    pub(super) turn_servers: String,
    pub(super) turn_secret: String,
    pub(super) playout_delay: String,
    pub(super) hls_directory: String,
    pub(super) recordings_directory: String,
    pub(super) max_sessions: u32,
    pub(super) max_sessions_per_address: u32,
    pub(super) max_bitrate: u32,
    pub(super) max_connections: u32,
    pub(super) max_connections_per_address: u32,
    pub(super) trusted_proxies: String,
    pub(super) access: String,
    pub(super) api_keys: String,
    pub(super) api_keys_file: String,
    pub(super) last_n: u32,
    pub(super) allowed_origins: String,
    pub(super) server_names: String,
    pub(super) event_webhooks: String,
    pub(super) event_webhook_secret: String,
    pub(super) drain_timeout: u32,
    pub(super) drain_redirect: String,
    pub(super) certificate: String,
    pub(super) private_key: String,
    pub(super) plain_listen: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".into(),
            udp_address: "0.0.0.0".into(),
            udp_port: 8189,
            shards: 0,
            send_buffer: 0,
            dscp: false,
            ice_tcp: true,
            max_tcp_connections: 0,
            announce_address: String::new(),
            router: "default".into(),
            publisher_timeout: 15_000,
            ice_servers: String::new(),
            turn_servers: String::new(),
            turn_secret: String::new(),
            playout_delay: "auto".into(),
            hls_directory: String::new(),
            recordings_directory: String::new(),
            max_sessions: 10_000,
            max_sessions_per_address: 2_000,
            max_bitrate: 50_000_000,
            max_connections: 0,
            max_connections_per_address: 0,
            trusted_proxies: String::new(),
            access: String::new(),
            api_keys: String::new(),
            api_keys_file: String::new(),
            last_n: 9,
            allowed_origins: String::new(),
            server_names: String::new(),
            event_webhooks: String::new(),
            event_webhook_secret: String::new(),
            drain_timeout: 0,
            drain_redirect: String::new(),
            certificate: String::new(),
            private_key: String::new(),
            plain_listen: String::new(),
        }
    }
}

impl Settings {
    pub(super) fn listen_address(&self) -> Result<SocketAddr, String> {
        address_of("listen", &self.listen)
    }

    /// Where plain HTTP is led to HTTPS, if there is such a place.
    pub(super) fn plain_listen(&self) -> Result<Option<SocketAddr>, String> {
        match (self.plain_listen.is_empty(), self.certificate.is_empty()) {
            (true, _) => Ok(None),
            (false, false) => address_of("plain-listen", &self.plain_listen).map(Some),
            (false, true) => {
                let what = "plain-listen leads to HTTPS, which needs certificate and private-key";
                Err(what.into())
            }
        }
    }

    /// What clients are told.
    pub(super) fn ice_servers(&self) -> Result<IceServers, String> {
        IceServers::new(&self.ice_servers, &self.turn_servers, &self.turn_secret)
    }

    /// How it ends where nobody says.
    pub(super) fn drain_defaults(&self) -> Result<drain::Defaults, String> {
        Ok(drain::Defaults {
            timeout: Duration::from_millis(self.drain_timeout.into()),
            redirect: drain::checked(&self.drain_redirect)
                .map_err(|e| format!("drain-redirect: {e}"))?,
        })
    }

    /// For HTTPS, if it is spoken.
    pub(super) fn certificates(&self) -> Result<Option<Arc<Certificates>>, String> {
        let opened = Certificates::open(&self.certificate, &self.private_key);
        opened.map_err(|e| format!("certificate, private-key: {e}"))
    }

    /// Where HLS is, if it is served.
    pub(super) fn hls_directory(&self) -> Option<Arc<Path>> {
        (!self.hls_directory.is_empty()).then(|| Path::new(&self.hls_directory).into())
    }

    /// Who may do what.
    pub(super) fn door(&self) -> Result<Door, String> {
        let origins = Origins::parse(&self.allowed_origins)?;
        let names = Names::new(&self.server_names, &self.announce_address)?;
        Door::open(&self.access, origins, names)
    }

    fn playout_delay(&self) -> Result<Option<PlayoutDelay>, String> {
        let text = self.playout_delay.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text == "auto" {
            return Ok(Some(PlayoutDelay::AUTO));
        }
        let number = |part: &str| part.trim().parse().ok();
        let delay = text
            .split_once('/')
            .and_then(|(min, max)| PlayoutDelay::from_millis(number(min)?, number(max)?));
        delay.map(Some).ok_or_else(|| {
            format!(
                "playout-delay={text:?} is neither auto nor MIN/MAX in ms, such as 0/0 or 100/500, at most 40950; \
                 empty leaves it to the viewers"
            )
        })
    }

    pub(super) fn engine(&self) -> Result<EngineConfig, String> {
        let address = |name: &str, text: &str| {
            let parsed: Result<IpAddr, _> = text.trim().parse();
            parsed.map_err(|_| format!("{name}: {text:?} is not an IP address"))
        };
        let announce = self
            .announce_address
            .split(',')
            .filter(|part| !part.trim().is_empty());
        let announce: Result<Vec<Announce>, _> = announce
            .map(|text| {
                text.parse().map_err(|()| {
                    format!(
                        "announce-address: {text:?} is not an address, a name, ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT, with udp: or \
                         tcp: before it for that alone, nor stun:HOST or stun:HOST:PORT"
                    )
                })
            })
            .collect();
        let tcp_connections = match self.max_tcp_connections as usize {
            _ if !self.ice_tcp => 0,
            0 => Limits::new(0, 0).media,
            most => most,
        };
        Ok(EngineConfig {
            tcp_connections,
            udp_address: address("udp-address", &self.udp_address)?,
            udp_port: u16::try_from(self.udp_port).unwrap_or_default(),
            shards: self.shards as usize,
            send_buffer: match self.send_buffer as usize {
                0 => SEND_BUFFER,
                octets => octets,
            },
            dscp: self.dscp,
            announce: announce?,
            publisher_timeout: Duration::from_millis(u64::from(self.publisher_timeout)),
            playout_delay: self.playout_delay()?,
            admission: AdmissionLimits {
                sessions: self.max_sessions as usize,
                unconnected_per_address: self.max_sessions_per_address as usize,
            },
            publisher_max_bitrate: (self.max_bitrate > 0).then_some(self.max_bitrate.into()),
            ..EngineConfig::default()
        })
    }
}

fn address_of(property: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        format!(
            "{property}={text:?} is not HOST:PORT, such as 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080"
        )
    };
    let mut addresses = text.to_socket_addrs().map_err(|_| wrong())?;
    addresses.next().ok_or_else(wrong)
}

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
             open files (ulimit -n), 64 at least if that has so many, 4096 at most",
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
            .blurb("A WHIP publisher from which nothing comes for this many ms is gone; its viewers stay and wait")
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
            "What a WHIP publisher may send in all, in bit/s: what is more is dropped, and for more than 10 s ends it; \
             0 is no limit",
            0..=u32::MAX,
            defaults.max_bitrate,
        ),
        number(
            "max-connections",
            "Max connections",
            "HTTP connections at most; 0 is what the limit of open files leaves (ulimit -n less a quarter, or less 256), \
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
            "Addresses that are told of publishers, viewers and recordings that come and go, separated by commas, by signed POSTs \
             (docs/protocol.md)",
            &defaults.event_webhooks,
        ),
        text(
            "event-webhook-secret",
            "Event webhook secret",
            "File that holds what event webhooks are signed by: whsec_ and base64, or a text, of 24 octets or more",
            &defaults.event_webhook_secret,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playout_delays_are_checked() {
        let delay = |text: &str| Settings {
            playout_delay: text.into(),
            ..Settings::default()
        };
        let of = |text: &str| delay(text).engine().map(|e| e.playout_delay);
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("auto"), Ok(Some(PlayoutDelay::AUTO)));
        assert_eq!(of("0/0"), Ok(Some(PlayoutDelay::default())));
        assert_eq!(of(" 100 / 500 "), Ok(PlayoutDelay::from_millis(100, 500)));
        for wrong in ["0", "10/0", "-1/0", "0/50000", "a/b"] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains("MIN/MAX"), "{error}");
        }
    }

    #[test]
    fn addresses_are_checked_before_anything_starts() {
        let listen = |text: &str| Settings {
            listen: text.into(),
            ..Settings::default()
        };
        for text in ["0.0.0.0:8080", "127.0.0.1:0", "[::]:8080"] {
            assert!(listen(text).listen_address().is_ok(), "{text}");
        }
        for text in ["", "8080", ":x", "0.0.0.0:99999"] {
            let error = listen(text).listen_address().unwrap_err();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
        let announce = |text: &str| Settings {
            announce_address: text.into(),
            ..Settings::default()
        };
        let two = announce("192.0.2.7, 2001:db8::7,")
            .engine()
            .unwrap()
            .announce;
        assert_eq!(two.len(), 2);
        for text in [
            "sfu.example.org",
            "192.0.2.7:9000,[2001:db8::7]:9000",
            "udp:192.0.2.7:9000,tcp:192.0.2.7:443",
            "stun:stun.example.org:3478,tcp:192.0.2.7:443",
        ] {
            assert!(announce(text).engine().is_ok(), "{text}");
        }
        for text in [
            "192.0.2.7,0.0.0.0",
            "here:",
            "http://here",
            "192.0.2.7:0",
            "stun:",
            "tcp:0.0.0.0:1",
        ] {
            let error = announce(text).engine().unwrap_err();
            assert!(error.contains("announce-address"), "{error}");
        }
    }
}
