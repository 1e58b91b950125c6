// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sfu_acme::Acme;
use sfu_engine::{AdmissionLimits, Announce, EngineConfig, PlayoutDelay, SEND_BUFFER, StreamName};
use sfu_tls::Certificates;

use super::door::{Door, Names, Origins};
use super::drain;
use super::limits::Limits;
use super::turn::IceServers;
use crate::push::Address;

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
    pub(super) room_streams: String,
    pub(super) room_webhooks: String,
    pub(super) allowed_origins: String,
    pub(super) server_names: String,
    pub(super) event_webhooks: String,
    pub(super) event_webhook_secret: String,
    pub(super) pushes: String,
    pub(super) drain_timeout: u32,
    pub(super) drain_redirect: String,
    pub(super) certificate: String,
    pub(super) private_key: String,
    pub(super) plain_listen: String,
    pub(super) acme_domains: String,
    pub(super) acme_contact: String,
    pub(super) acme_directory: String,
    pub(super) acme_cache: String,
    pub(super) acme_ca: String,
    pub(super) acme_eab_kid: String,
    pub(super) acme_eab_key: String,
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
            room_streams: String::new(),
            room_webhooks: String::new(),
            allowed_origins: String::new(),
            server_names: String::new(),
            event_webhooks: String::new(),
            event_webhook_secret: String::new(),
            pushes: String::new(),
            drain_timeout: 0,
            drain_redirect: String::new(),
            certificate: String::new(),
            private_key: String::new(),
            plain_listen: String::new(),
            acme_domains: String::new(),
            acme_contact: String::new(),
            acme_directory: String::new(),
            acme_cache: String::new(),
            acme_ca: String::new(),
            acme_eab_kid: String::new(),
            acme_eab_key: String::new(),
        }
    }
}

impl Settings {
    pub(super) fn listen_address(&self) -> Result<SocketAddr, String> {
        address_of("listen", &self.listen)
    }

    /// Where plain HTTP is led to HTTPS, if there is such a place.
    pub(super) fn plain_listen(&self) -> Result<Option<SocketAddr>, String> {
        let has_none = self.certificate.is_empty() && self.acme_domains.is_empty();
        match (self.plain_listen.is_empty(), has_none) {
            (true, _) => Ok(None),
            (false, false) => address_of("plain-listen", &self.plain_listen).map(Some),
            (false, true) => {
                let what = "plain-listen leads to HTTPS, which needs certificate and private-key, or acme-domains";
                Err(what.into())
            }
        }
    }

    /// What clients are told.
    pub(super) fn ice_servers(&self) -> Result<IceServers, String> {
        IceServers::new(&self.ice_servers, &self.turn_servers, &self.turn_secret)
    }

    /// Where streams are sent on to from the start. What is told of a wrong one does not repeat it: stream keys are in it.
    pub(super) fn pushes(&self) -> Result<Vec<(StreamName, Address)>, String> {
        let parts = self.pushes.split([',', ' ', '\n']);
        let parts = parts.filter(|part| !part.is_empty()).enumerate();
        let pushes = parts.map(|(index, part)| {
            let wrong = |why: &str| {
                format!(
                    "pushes: number {} is not STREAM=rtmp://HOST/APPLICATION/KEY: {why}",
                    index + 1
                )
            };
            let (stream, address) = part.split_once('=').ok_or_else(|| wrong("there is no ="))?;
            let stream = stream
                .parse::<StreamName>()
                .map_err(|_| wrong("the stream has no valid name"))?;
            let address = Address::parse(address).map_err(wrong)?;
            Ok((stream, address))
        });
        pushes.collect()
    }

    /// How it ends where nobody says.
    pub(super) fn drain_defaults(&self) -> Result<drain::Defaults, String> {
        Ok(drain::Defaults {
            timeout: Duration::from_millis(self.drain_timeout.into()),
            redirect: drain::checked(&self.drain_redirect)
                .map_err(|e| format!("drain-redirect: {e}"))?,
        })
    }

    /// For HTTPS, if it is spoken: the user's, or what an ACME server gives.
    pub(super) fn certificates(
        &self,
        acme: Option<&Acme>,
    ) -> Result<Option<Arc<Certificates>>, String> {
        let Some(acme) = acme else {
            let opened = Certificates::open(&self.certificate, &self.private_key);
            return opened.map_err(|e| format!("certificate, private-key: {e}"));
        };
        if !self.certificate.is_empty() || !self.private_key.is_empty() {
            return Err(
                "acme-domains gets the certificate: leave certificate and private-key empty".into(),
            );
        }
        let file = acme.file().to_string_lossy();
        Certificates::open(&file, &file).map_err(|e| format!("acme-cache: {e}"))
    }

    /// Who gets certificates, if they are not the user's.
    pub(super) fn acme(&self) -> Result<Option<Acme>, String> {
        if self.acme_domains.is_empty() {
            return Ok(None);
        }
        let config = sfu_acme::Config {
            domains: self.acme_domains.clone(),
            contact: self.acme_contact.clone(),
            directory: self.acme_directory.clone(),
            authority: self.acme_ca.clone(),
            eab_kid: self.acme_eab_kid.clone(),
            eab_key: self.acme_eab_key.clone().into(),
            folder: self.acme_cache.clone().into(),
            ..sfu_acme::Config::default()
        };
        Acme::open(&config).map(Some).map_err(|e| e.to_string())
    }

    /// Where HLS is, if it is served.
    pub(super) fn hls_directory(&self) -> Option<Arc<Path>> {
        (!self.hls_directory.is_empty()).then(|| Path::new(&self.hls_directory).into())
    }

    /// Who may do what.
    pub(super) fn door(&self) -> Result<Door, String> {
        let origins = Origins::parse(&self.allowed_origins)?;
        // An ACME server calls us as the certificate is to.
        let names = match self.server_names.is_empty() || self.acme_domains.is_empty() {
            true => self.server_names.clone(),
            false => format!("{},{}", self.server_names, self.acme_domains),
        };
        let names = Names::new(&names, &self.announce_address)?;
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
