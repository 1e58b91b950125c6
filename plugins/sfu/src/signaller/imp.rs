// SPDX-License-Identifier: MPL-2.0

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::glib::subclass::Signal;
use gst::glib::subclass::signal::SignalBuilder;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_acme::Acme;
use sfu_elements::properties::{hidden_by_name, may_change};
use sfu_elements::server;
use sfu_engine::{Engine, Router};

use super::CAT;
use super::acme;
use super::address::TrustedProxies;
use super::connections::Connections;
use super::drain;
use super::kick::{self, Kicked};
use super::limits::Limits;
use super::properties::PROPERTIES;
use super::recent::Recent;
use super::recordings::Recordings;
use super::rooms;
use super::serve::Server;
use super::server::{App, Parts};
use super::settings::Settings;
use super::tell::{RoomWebhooks, Viewers, Webhooks};
use super::tls::Tls;
use super::v1::{Pushes, Recorders};
use crate::notices::Kind;
use crate::properties::{lock, number_of, text_of};

#[derive(Debug, Default)]
pub struct SfuSignaller {
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    server: Server,
    engine: Arc<Engine>,
    connections: Arc<Connections>,
    recorders: Arc<Recorders>,
    pushes: Arc<Pushes>,
    app: App,
    /// Ends when it is dropped.
    _acme: Option<Acme>,
}

#[glib::object_subclass]
impl ObjectSubclass for SfuSignaller {
    const NAME: &'static str = "GstSfuSignaller";
    type Type = super::SfuSignaller;
    type ParentType = gst::Element;
}

impl ObjectImpl for SfuSignaller {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(|| {
            let drain = Signal::builder("drain").action().class_handler(|args| {
                element(args)?.imp().drain();
                None
            });
            let kick_session = Signal::builder("kick-session")
                .param_types([u64::static_type()])
                .return_type::<bool>()
                .action()
                .class_handler(|args| {
                    let number = args.get(1)?.get().ok()?;
                    let engine = element(args)?.imp().engine();
                    let kicked = engine.map(|engine| kick::session(&engine, number));
                    Some((kicked == Some(Kicked::Ended)).to_value())
                });
            let kick_publisher = Signal::builder("kick-publisher")
                .param_types([String::static_type()])
                .return_type::<bool>()
                .action()
                .class_handler(|args| {
                    let stream = text_of(args.get(1)?).parse().ok();
                    let imp = element(args)?;
                    let imp = imp.imp();
                    let router = Router::get(&lock(&imp.settings).router);
                    let kicked = imp.engine().zip(stream);
                    let kicked =
                        kicked.map(|(engine, stream)| kick::publisher(&engine, &router, &stream));
                    Some((kicked == Some(Kicked::Ended)).to_value())
                });
            let told = Kind::ALL.map(Kind::signal);
            [drain, kick_session, kick_publisher]
                .map(SignalBuilder::build)
                .into_iter()
                .chain(told)
                .collect()
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        // What runs takes a change over first, or refuses it.
        let mut wanted = lock(&self.settings).clone();
        set(&mut wanted, pspec.name(), value);
        match self.follow(&wanted) {
            Ok(()) => set(&mut lock(&self.settings), pspec.name(), value),
            Err(why) => gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("{} stays as it was: {why}", pspec.name())
            ),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "listen" => settings.listen.to_value(),
            "udp-address" => settings.udp_address.to_value(),
            "udp-port" => settings.udp_port.to_value(),
            "shards" => settings.shards.to_value(),
            "send-buffer" => settings.send_buffer.to_value(),
            "dscp" => settings.dscp.to_value(),
            "announce-address" => settings.announce_address.to_value(),
            "ice-tcp" => settings.ice_tcp.to_value(),
            "max-tcp-connections" => settings.max_tcp_connections.to_value(),
            "router" => settings.router.to_value(),
            "publisher-timeout" => settings.publisher_timeout.to_value(),
            "ice-servers" => settings.ice_servers.to_value(),
            "turn-servers" => settings.turn_servers.to_value(),
            "turn-secret" => settings.turn_secret.to_value(),
            "playout-delay" => settings.playout_delay.to_value(),
            "hls-directory" => settings.hls_directory.to_value(),
            "recordings-directory" => settings.recordings_directory.to_value(),
            "max-sessions" => settings.max_sessions.to_value(),
            "max-sessions-per-address" => settings.max_sessions_per_address.to_value(),
            "max-bitrate" => settings.max_bitrate.to_value(),
            "max-connections" => settings.max_connections.to_value(),
            "max-connections-per-address" => settings.max_connections_per_address.to_value(),
            "trusted-proxies" => settings.trusted_proxies.to_value(),
            "access" => settings.access.to_value(),
            // Who may read the element's properties need not know the secrets.
            "api-keys" => hidden_by_name(&settings.api_keys).to_value(),
            "api-keys-file" => settings.api_keys_file.to_value(),
            "last-n" => settings.last_n.to_value(),
            "room-streams" => settings.room_streams.to_value(),
            "room-webhooks" => settings.room_webhooks.to_value(),
            "allowed-origins" => settings.allowed_origins.to_value(),
            "server-names" => settings.server_names.to_value(),
            "event-webhooks" => settings.event_webhooks.to_value(),
            "event-webhook-secret" => settings.event_webhook_secret.to_value(),
            "pushes" => without_keys(&settings.pushes).to_value(),
            "drain-timeout" => settings.drain_timeout.to_value(),
            "drain-redirect" => settings.drain_redirect.to_value(),
            "certificate" => settings.certificate.to_value(),
            "private-key" => settings.private_key.to_value(),
            "plain-listen" => settings.plain_listen.to_value(),
            "acme-domains" => settings.acme_domains.to_value(),
            "acme-contact" => settings.acme_contact.to_value(),
            "acme-directory" => settings.acme_directory.to_value(),
            "acme-cache" => settings.acme_cache.to_value(),
            "acme-ca" => settings.acme_ca.to_value(),
            "acme-eab-kid" => settings.acme_eab_kid.to_value(),
            "acme-eab-key" => settings.acme_eab_key.to_value(),
            "port" => {
                let running = lock(&self.running);
                running
                    .as_ref()
                    .map_or(0, |r| u32::from(r.server.port()))
                    .to_value()
            }
            "viewers" => {
                let sessions = self.engine().map_or(0, |e| e.sessions());
                u32::try_from(sessions).unwrap_or(u32::MAX).to_value()
            }
            "stats" => {
                let running = lock(&self.running);
                let parts = running
                    .as_ref()
                    .map(|r| (r.engine.clone(), r.connections.clone()));
                drop(running);
                stats(parts).to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        server::constructed(&*self.obj());
    }
}

impl GstObjectImpl for SfuSignaller {}

impl ElementImpl for SfuSignaller {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU signaller",
                "Network/WebRTC",
                "Serves the streams of this process to browsers (WHEP, player page), and takes theirs (WHIP). \
                 Example: gst-launch-1.0 sfusignaller  videotestsrc is-live=true ! sfusink stream=test",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            server::begins(&*self.obj());
            self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::OpenReadWrite, ("{message}"));
                gst::StateChangeError
            })?;
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::ReadyToNull
            || (transition == gst::StateChange::NullToReady && result.is_err())
        {
            self.stop();
        }
        result
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        server::ended(&*self.obj());
        true
    }
}

impl SfuSignaller {
    /// The action signal `drain`: returns at once.
    fn drain(&self) {
        let app = lock(&self.running)
            .as_ref()
            .map(|running| running.app.clone());
        if let Some(app) = app {
            let defaults = app.drain_defaults();
            drain::begin(&app, defaults.within(), defaults.redirect);
        }
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        lock(&self.running).as_ref().map(|r| r.engine.clone())
    }

    /// Takes over what may change while it runs: all of it or nothing.
    fn follow(&self, settings: &Settings) -> Result<(), String> {
        let running = lock(&self.running);
        let app = running.as_ref().map(|running| running.app.clone());
        drop(running);
        let Some(app) = app else {
            return Ok(());
        };
        let limits = settings.engine()?.limits();
        let ice_servers = settings.ice_servers()?;
        let drain_defaults = settings.drain_defaults()?;
        let streams = rooms::streams(&settings.room_streams)?;
        let before = lock(&self.settings).room_streams.clone();
        if before != settings.room_streams {
            let before = rooms::streams(&before).unwrap_or_default();
            rooms::follow_streams(app.rooms.as_deref(), &before, &streams)?;
        }
        app.engine.set_limits(limits);
        app.ice_servers.follow(&ice_servers);
        app.set_drain_defaults(drain_defaults);
        Ok(())
    }

    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let listen = settings.listen_address()?;
        let config = settings.engine()?;
        let ice_servers = Arc::new(settings.ice_servers()?);
        let room_keys = rooms::keys(&settings.api_keys, &settings.api_keys_file)?;
        let room_streams = rooms::streams(&settings.room_streams)?;
        let room_webhooks = RoomWebhooks::new(&settings.room_webhooks, room_keys.as_ref())?;
        let room_webhooks = Arc::new(room_webhooks);
        let proxies = TrustedProxies::parse(&settings.trusted_proxies)?;
        let door = Arc::new(settings.door()?);
        let webhooks = Webhooks::new(&settings.event_webhooks, &settings.event_webhook_secret)?;
        gst::info!(CAT, imp = self, "{}", door.summary());
        let drain_defaults = settings.drain_defaults()?;
        let acme = settings.acme()?;
        let certificates = settings.certificates(acme.as_ref())?;
        let from_the_start = settings.pushes()?;
        let listener = bind("listen", listen)?;
        let plain = settings.plain_listen()?;
        let plain = plain.map(|plain| bind("plain-listen", plain)).transpose()?;
        let tls = certificates
            .map(|certificates| Tls::new(certificates, &listener, plain.as_ref()))
            .transpose()?;
        let router = Router::get(&settings.router);
        let engine = Engine::start(router.clone(), config).map_err(|e| e.to_string())?;
        let engine = Arc::new(engine);
        let recorders = Recorders::new(&settings.recordings_directory, &settings.router);
        let pushes = Pushes::new(&settings.router);
        let connections = Connections::new(Limits::new(
            settings.max_connections,
            settings.max_connections_per_address,
        ));
        let router_name: Arc<str> = settings.router.as_str().into();
        let recent = Arc::<Recent>::default();
        let viewers = Viewers::new(router_name.clone(), door.clone(), recent.clone());
        engine.observe(viewers);
        let rooms = room_keys
            .map(|keys| {
                let last_n = settings.last_n as usize;
                let told = room_webhooks.clone();
                rooms::start(engine.clone(), keys, ice_servers.clone(), last_n, told)
            })
            .transpose()?
            .map(Arc::new);
        rooms::follow_streams(rooms.as_deref(), &[], &room_streams)?;
        let parts = Parts {
            router_name,
            ice_servers,
            rooms,
            room_webhooks,
            hls: settings.hls_directory(),
            recordings: Recordings::new(&settings.recordings_directory),
            proxies,
            door,
            connections: connections.clone(),
            tls,
            challenges: acme.as_ref().map(Acme::challenges),
            recorders: recorders.clone(),
            pushes: pushes.clone(),
            recent,
            webhooks,
            drain_defaults,
            element: self.obj().downgrade(),
        };
        let app = App::new(engine.clone(), router, parts);
        let server = Server::start(listener, plain, app.clone())?;
        for (stream, address) in from_the_start {
            pushes
                .start(stream, address)
                .map_err(|refusal| format!("pushes: {}", refusal.message()))?;
        }
        if let Some(acme) = &acme {
            let told = acme::teller(&self.obj());
            acme.start(told).map_err(|e| e.to_string())?;
        }
        gst::info!(
            CAT,
            imp = self,
            "HTTP on port {}, media on UDP ports {:?}",
            server.port(),
            engine.udp_ports()
        );
        *lock(&self.running) = Some(Running {
            server,
            engine,
            connections,
            recorders,
            pushes,
            app,
            _acme: acme,
        });
        self.obj().notify("port");
        Ok(())
    }

    fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            let Running {
                server,
                engine,
                recorders,
                pushes,
                app,
                ..
            } = running;
            // Files take a while to be finished, and services to be told.
            let files = std::thread::spawn(move || recorders.stop_all());
            let services = std::thread::spawn(move || pushes.stop_all());
            server.stop();
            if let Some(rooms) = &app.rooms {
                rooms.stop();
            }
            // A request that is answered on another thread may hold it a moment longer: its ports must not wait for that.
            engine.stop();
            let _ = (files.join(), services.join());
            self.obj().notify("port");
        }
    }
}

fn set(settings: &mut Settings, name: &str, value: &glib::Value) {
    let text = || text_of(value);
    let number = || number_of(value);
    match name {
        "listen" => settings.listen = text(),
        "udp-address" => settings.udp_address = text(),
        "udp-port" => settings.udp_port = number(),
        "shards" => settings.shards = number(),
        "send-buffer" => settings.send_buffer = number(),
        "dscp" => settings.dscp = value.get().unwrap_or_default(),
        "announce-address" => settings.announce_address = text(),
        "ice-tcp" => settings.ice_tcp = value.get().unwrap_or_default(),
        "max-tcp-connections" => settings.max_tcp_connections = number(),
        "router" => settings.router = text(),
        "publisher-timeout" => settings.publisher_timeout = number(),
        "ice-servers" => settings.ice_servers = text(),
        "turn-servers" => settings.turn_servers = text(),
        "turn-secret" => settings.turn_secret = text(),
        "playout-delay" => settings.playout_delay = text(),
        "hls-directory" => settings.hls_directory = text(),
        "recordings-directory" => settings.recordings_directory = text(),
        "max-sessions" => settings.max_sessions = number(),
        "max-sessions-per-address" => settings.max_sessions_per_address = number(),
        "max-bitrate" => settings.max_bitrate = number(),
        "max-connections" => settings.max_connections = number(),
        "max-connections-per-address" => settings.max_connections_per_address = number(),
        "trusted-proxies" => settings.trusted_proxies = text(),
        "access" => settings.access = text(),
        "api-keys" => settings.api_keys = text(),
        "api-keys-file" => settings.api_keys_file = text(),
        "last-n" => settings.last_n = number(),
        "room-streams" => settings.room_streams = text(),
        "room-webhooks" => settings.room_webhooks = text(),
        "allowed-origins" => settings.allowed_origins = text(),
        "server-names" => settings.server_names = text(),
        "event-webhooks" => settings.event_webhooks = text(),
        "event-webhook-secret" => settings.event_webhook_secret = text(),
        "pushes" => settings.pushes = text(),
        "drain-timeout" => settings.drain_timeout = number(),
        "drain-redirect" => settings.drain_redirect = text(),
        "certificate" => settings.certificate = text(),
        "private-key" => settings.private_key = text(),
        "plain-listen" => settings.plain_listen = text(),
        "acme-domains" => settings.acme_domains = text(),
        "acme-contact" => settings.acme_contact = text(),
        "acme-directory" => settings.acme_directory = text(),
        "acme-cache" => settings.acme_cache = text(),
        "acme-ca" => settings.acme_ca = text(),
        "acme-eab-kid" => settings.acme_eab_kid = text(),
        "acme-eab-key" => settings.acme_eab_key = text(),
        name => gst::warning!(CAT, "property {name} can't be set"),
    }
}

/// Pushes without the services' keys.
fn without_keys(pushes: &str) -> String {
    let one = |push: &str| {
        let (before, rest) = push.split_once("://").unwrap_or((push, ""));
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{before}://{host}/…")
    };
    let pushes = pushes
        .split([' ', ',', '\t', '\n'])
        .filter(|push| !push.is_empty());
    pushes.map(one).collect::<Vec<_>>().join(" ")
}

/// Of a signal's arguments.
fn element(args: &[glib::Value]) -> Option<super::SfuSignaller> {
    args.first()?.get().ok()
}

fn bind(property: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| {
        format!("HTTP port {address} can't be used: {error}. Choose another {property}, or stop what uses it")
    })
}

fn stats(running: Option<(Arc<Engine>, Arc<Connections>)>) -> gst::Structure {
    let mut structure = gst::Structure::new_empty("sfusignaller-stats");
    if let Some((engine, connections)) = running {
        let ports = engine.udp_ports();
        let ports = ports.iter().map(|port| u32::from(*port).to_send_value());
        structure.set("udp-ports", gst::Array::from_values(ports));
        structure.set("sessions", engine.sessions() as u64);
        for (name, _, value) in engine.counters().iter() {
            structure.set(name.replace('_', "-"), value);
        }
        structure.set("http-connections", connections.count() as u64);
        for (name, _, value) in connections.counts.iter() {
            structure.set(format!("http-{}", name.replace('_', "-")), value);
        }
    }
    structure
}
