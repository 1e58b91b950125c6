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
use super::callers::Callers;
use super::imp::lock;

/// Whether there is a place for somebody from that address.
type HasPlace = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

#[derive(Default)]
pub struct Arrivals {
    callers: OnceLock<Arc<Callers>>,
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
struct Arriving {
    address: IpAddr,
    socket: SendWeakRef<gio::Socket>,
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
        if let (Some(callers), Some(arriving)) = (self.callers.get(), arriving.as_mut()) {
            callers.comes(&client, arriving.address, arriving.socket.clone());
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
    /// Whoever comes is one of these.
    pub(super) fn new(callers: &Arc<Callers>) -> Self {
        let server: Self = glib::Object::new();
        let _ = server.imp().callers.set(Arc::clone(callers));
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
            if let Some(callers) = self.imp().callers.get() {
                callers.leaves(&client);
            }
        }
    }
}
