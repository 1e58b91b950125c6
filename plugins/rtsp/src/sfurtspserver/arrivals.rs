// SPDX-License-Identifier: MPL-2.0

//! Takes connections, so that it is known from where each comes before its first request: the library doesn't tell.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};

use gio::prelude::*;
use glib::SendWeakRef;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::subclass::prelude::*;
use gst_rtsp_server::{RTSPClient, RTSPServer};

use super::CAT;
use super::guard::Gate;
use super::imp::lock;

/// Whether there is a place for somebody from that address.
type HasPlace = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

#[derive(Default)]
pub struct Arrivals {
    gate: OnceLock<Arc<Gate>>,
    has_place: OnceLock<HasPlace>,
    /// Whose connection is being taken.
    arriving: Mutex<Option<Arriving>>,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

/// See [`Arrivals`].
#[derive(Debug, Clone)]
pub(super) struct Arriving {
    pub(super) address: IpAddr,
    pub(super) socket: SendWeakRef<gio::Socket>,
    /// What it became.
    client: Option<RTSPClient>,
}

#[glib::object_subclass]
impl ObjectSubclass for Arrivals {
    const NAME: &'static str = "GstSfuRtspArrivals";
    type Type = Listener;
    type ParentType = RTSPServer;
}

impl ObjectImpl for Arrivals {}

impl RTSPServerImpl for Arrivals {
    fn create_client(&self) -> Option<RTSPClient> {
        let client = self.parent_create_client()?;
        let mut arriving = lock(&self.arriving);
        if let (Some(gate), Some(arriving)) = (self.gate.get(), arriving.as_mut()) {
            gate.arrives(&client, arriving.address);
            arriving.client = Some(client.clone());
        }
        Some(client)
    }
}

glib::wrapper! {
    pub struct Listener(ObjectSubclass<Arrivals>)
        @extends RTSPServer;
}

impl Listener {
    /// With a gate, unless everybody who may has a password of the element's.
    pub(super) fn new(gate: Option<&Arc<Gate>>) -> Self {
        let server: Self = glib::Object::new();
        if let Some(gate) = gate {
            let _ = server.imp().gate.set(Arc::clone(gate));
        }
        server
    }

    /// What takes connections, and the port to which they come.
    pub(super) fn listen(&self) -> Result<(glib::Source, u16), glib::Error> {
        let socket = self.create_socket(gio::Cancellable::NONE)?;
        let address = socket.local_address()?;
        let address = address.downcast::<gio::InetSocketAddress>();
        let port = address.map_or(0, |address| address.port());
        let server = self.downgrade();
        let source = SocketExtManual::create_source(
            &socket,
            glib::IOCondition::IN,
            gio::Cancellable::NONE,
            Some("sfurtspserver"),
            glib::Priority::DEFAULT,
            move |socket, _| {
                let Some(server) = server.upgrade() else {
                    return glib::ControlFlow::Break;
                };
                match socket.accept(gio::Cancellable::NONE) {
                    Ok(connection) => server.take(connection),
                    Err(error) => {
                        gst::warning!(CAT, "a connection can't be accepted: {error}");
                        // Such as without descriptors: whoever has one may give it back meanwhile.
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                }
                glib::ControlFlow::Continue
            },
        );
        Ok((source, port))
    }

    /// Asks that of each who comes. A connection that was taken can't be refused: what is closed before the library has it all stays in its
    /// list.
    pub(super) fn admit_by(&self, has_place: impl Fn(IpAddr) -> bool + Send + Sync + 'static) {
        let _ = self.imp().has_place.set(Box::new(has_place));
    }

    /// The connection that is being taken.
    pub(super) fn arriving(&self) -> Option<Arriving> {
        lock(&self.imp().arriving).clone()
    }

    fn take(&self, connection: gio::Socket) {
        let address = connection.remote_address().ok();
        let address = address.and_then(|a| a.downcast::<gio::InetSocketAddress>().ok());
        // Who is gone already has none.
        let Some(address) = address else {
            return;
        };
        let ip: IpAddr = address.address().into();
        if self.imp().has_place.get().is_some_and(|has| !has(ip)) {
            let _ = connection.close();
            return;
        }
        *lock(&self.imp().arriving) = Some(Arriving {
            address: ip,
            socket: connection.downgrade().into(),
            client: None,
        });
        let taken = self.transfer_connection(
            connection,
            &address.address().to_str(),
            address.port().into(),
            None,
        );
        let arrived = lock(&self.imp().arriving).take();
        let client = arrived.and_then(|arrived| arrived.client);
        if let (Err(error), Some(client)) = (taken, client) {
            gst::warning!(CAT, "a connection can't be taken: {error}");
            if let Some(gate) = self.imp().gate.get() {
                gate.leaves(&client);
            }
        }
    }
}
