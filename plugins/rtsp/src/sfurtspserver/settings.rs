// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::LazyLock;

use gst::prelude::*;
use gst_rtsp::{RTSPAuthMethod, RTSPLowerTrans};
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{RTSP_ADDRESS_POOL_ANY_IPV4, RTSP_ADDRESS_POOL_ANY_IPV6, RTSPAddressPool};

/// How players are asked for their passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSfuRtspAuth")]
#[repr(u32)]
pub(crate) enum Auth {
    #[default]
    #[enum_value(name = "Basic or Digest, as the player likes", nick = "both")]
    Both,
    #[enum_value(name = "Basic: passwords cross the network as text", nick = "basic")]
    Basic,
    #[enum_value(name = "Digest", nick = "digest")]
    Digest,
}

impl Auth {
    pub(super) fn methods(self) -> RTSPAuthMethod {
        match self {
            Self::Basic => RTSPAuthMethod::Basic,
            Self::Digest => RTSPAuthMethod::Digest,
            // It is an enumeration whose values are bits.
            Self::Both => RTSPAuthMethod::__Unknown(3),
        }
    }
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) listen: String,
    pub(super) router: String,
    pub(super) layer: String,
    pub(super) latency_ms: u32,
    pub(super) protocols: RTSPLowerTrans,
    pub(super) udp_ports: String,
    pub(super) auth: Auth,
    pub(super) access: String,
    pub(super) users: String,
    pub(super) users_file: String,
    pub(super) max_clients: u32,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the passwords.
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("router", &self.router)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8554".into(),
            router: "default".into(),
            layer: "highest".into(),
            latency_ms: 100,
            protocols: RTSPLowerTrans::TCP | RTSPLowerTrans::UDP,
            udp_ports: String::new(),
            auth: Auth::default(),
            access: String::new(),
            users: String::new(),
            users_file: String::new(),
            max_clients: 256,
        }
    }
}

impl Settings {
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        let text = || {
            let text = value.get::<Option<String>>().ok().flatten();
            text.unwrap_or_default()
        };
        let number = || value.get::<u32>().unwrap_or_default();
        match name {
            "listen" => self.listen = text(),
            "router" => self.router = text(),
            "layer" => self.layer = text(),
            "latency" => self.latency_ms = number(),
            "protocols" => self.protocols = value.get().unwrap_or(RTSPLowerTrans::TCP),
            "udp-ports" => self.udp_ports = text(),
            "auth" => self.auth = value.get().unwrap_or_default(),
            "access" => self.access = text(),
            "users" => self.users = text(),
            "users-file" => self.users_file = text(),
            "max-clients" => self.max_clients = number(),
            _ => {}
        }
    }

    pub(super) fn get(&self, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "listen" => self.listen.to_value(),
            "router" => self.router.to_value(),
            "layer" => self.layer.to_value(),
            "latency" => self.latency_ms.to_value(),
            "protocols" => self.protocols.to_value(),
            "udp-ports" => self.udp_ports.to_value(),
            "auth" => self.auth.to_value(),
            "access" => self.access.to_value(),
            "users-file" => self.users_file.to_value(),
            "max-clients" => self.max_clients.to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    pub(super) fn listen_address(&self) -> Result<SocketAddr, String> {
        let wrong = || {
            format!(
                "listen={:?} is not HOST:PORT, such as 0.0.0.0:8554, 127.0.0.1:8554 or [::]:8554",
                self.listen
            )
        };
        let mut addresses = self.listen.to_socket_addrs().map_err(|_| wrong())?;
        addresses.next().ok_or_else(wrong)
    }

    /// The ports that media is sent from, or nothing where the system chooses them.
    pub(super) fn ports(&self) -> Result<Option<RTSPAddressPool>, String> {
        if self.udp_ports.is_empty() {
            return Ok(None);
        }
        let wrong = || {
            format!(
                "udp-ports={:?} is not FIRST-LAST, such as 20000-20099; a track takes four",
                self.udp_ports
            )
        };
        let (first, last) = self.udp_ports.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || first >= last {
            return Err(wrong());
        }
        let pool = RTSPAddressPool::new();
        for any in [RTSP_ADDRESS_POOL_ANY_IPV4, RTSP_ADDRESS_POOL_ANY_IPV6] {
            let added = pool.add_range(any, any, first, last, 0);
            added.map_err(|e| e.to_string())?;
        }
        Ok(Some(pool))
    }
}

fn text(name: &str, nick: &str, blurb: &str, default: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(Some(default))
        .build()
}

fn number(name: &str, nick: &str, blurb: &str, maximum: u32, default: u32) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(blurb)
        .maximum(maximum)
        .default_value(default)
        .build()
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let mut properties = configuration();
    properties.extend(figures());
    properties
});

fn configuration() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    vec![
        text(
            "listen",
            "Listen",
            "HOST:PORT of the RTSP server; port 0 lets the system choose (see `port`)",
            &defaults.listen,
        ),
        text(
            "router",
            "Router",
            "Name of the process-wide router whose streams to serve",
            &defaults.router,
        ),
        text(
            "layer",
            "Layer",
            "Which simulcast layer players get that ask for none: highest, lowest, or a layer's name (RID)",
            &defaults.layer,
        ),
        number(
            "latency",
            "Latency",
            "How long a packet that is missing is waited for, in ms",
            10_000,
            defaults.latency_ms,
        ),
        glib::ParamSpecFlags::builder::<RTSPLowerTrans>("protocols")
            .default_value(defaults.protocols)
            .nick("Protocols")
            .blurb("How media may be sent: tcp is inside of the RTSP connection")
                .build(),
        text(
            "udp-ports",
            "UDP ports",
            "Ports that media is sent from, FIRST-LAST: a track takes four, two of IPv4 and two of IPv6 (empty: the system chooses)",
            &defaults.udp_ports,
        ),
        glib::ParamSpecEnum::builder_with_default("auth", defaults.auth)
            .nick("Authentication")
            .blurb("How players are asked for their passwords. By the rules of access, both means Digest only where all that they know is users with an HA1")
                .build(),
        text(
            "access",
            "Access",
            "File of rules that say who may watch, where there are neither users nor users-file (docs/access.md; default: \
             what the environment's GST_SFU_ACCESS names; without any everybody may)",
            &defaults.access,
        ),
        glib::ParamSpecString::builder("users")
            .nick("Users")
            .blurb("Who may watch, instead of whom access lets in: NAME:PASSWORD, separated by commas. It can't be read back")
            .write_only()
                .build(),
        text(
            "users-file",
            "Users' file",
            "More users: a file with NAME:PASSWORD a line, # begins a comment. It is read at the start",
            &defaults.users_file,
        ),
        number(
            "max-clients",
            "Most clients",
            "Connections at the same time, three quarters of them of one address; each has a thread",
            10_000,
            defaults.max_clients,
        ),
    ]
}

fn figures() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("TCP port that it really listens on, 0 while it does not")
            .maximum(65_535)
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("clients, sessions and streams (that are played) now; connections and refused (for max-clients, and for requests without an end) since the start")
            .read_only()
            .build(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_range() {
        let ports = |text: &str| Settings {
            udp_ports: text.into(),
            ..Settings::default()
        };
        gst::init().unwrap();
        assert!(ports("").ports().unwrap().is_none());
        assert!(ports("20000-20099").ports().unwrap().is_some());
        for text in ["20000", "0-9", "9-9", "a-b", "20000-99999"] {
            assert!(ports(text).ports().unwrap_err().contains("FIRST-LAST"));
        }
    }
}
