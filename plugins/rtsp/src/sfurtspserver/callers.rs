// SPDX-License-Identifier: MPL-2.0

//! Who is connected, from before the first request until the end: from where, what it may play, and how much it has sent since its last
//! request. The library tells none of it and bounds nothing: it keeps all lines of a request's head.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gio::prelude::*;
use glib::SendWeakRef;
use gst_rtsp_server::RTSPClient;
use gst_rtsp_server::prelude::*;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use sfu_access::{Pass, Refused};

use super::imp::lock;

sockopt_impl!(
    /// `struct tcp_info` up to `tcpi_bytes_received`.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u64; 17]
);

/// How often it is looked how much has come. What comes meanwhile is read.
pub(super) const EVERY: Duration = Duration::from_millis(100);
/// What may come between two requests: heads are some hundred octets, bodies at most 16 KiB.
const REQUEST: u64 = 64 * 1024;
/// And each second, for players whose receiver reports come on the connection (RFC 2326, section 10.12).
const REPORTS: u64 = 1024;
/// But no more than this in all.
const MOST: u64 = 4 * 1024 * 1024;

/// See the module's description. By where they are in memory.
#[derive(Debug, Default)]
pub(super) struct Callers(Mutex<HashMap<usize, Caller>>);

/// What let somebody in. Locked while the rules are read, which may take as long as a disk does.
pub(super) type Passes = Arc<Mutex<Vec<Pass>>>;

#[derive(Debug)]
struct Caller {
    client: glib::WeakRef<RTSPClient>,
    address: IpAddr,
    passes: Passes,
    /// Why its request is being refused.
    refused: Refused,
    /// Only looked at on the thread that takes connections.
    socket: SendWeakRef<gio::Socket>,
    requests: Arc<AtomicU64>,
    /// When the last request was seen, which one it was, and what had come until then.
    since: Instant,
    seen: u64,
    octets: u64,
}

fn key(client: &RTSPClient) -> usize {
    client.as_ptr() as usize
}

impl Callers {
    /// Somebody comes, by this connection.
    pub(super) fn comes(
        self: &Arc<Self>,
        client: &RTSPClient,
        address: IpAddr,
        socket: SendWeakRef<gio::Socket>,
    ) {
        let caller = Caller {
            client: client.downgrade(),
            address,
            passes: Passes::default(),
            refused: Refused::Nothing,
            socket,
            requests: count_requests(client),
            since: Instant::now(),
            seen: 0,
            octets: 0,
        };
        let all = Arc::downgrade(self);
        client.connect_closed(move |client| {
            if let Some(all) = all.upgrade() {
                all.leaves(client);
            }
        });
        lock(&self.0).insert(key(client), caller);
    }

    /// It is closed, or never became one.
    pub(super) fn leaves(&self, client: &RTSPClient) {
        lock(&self.0).remove(&key(client));
    }

    /// Where it comes from, and what let it in so far.
    pub(super) fn of(&self, client: &RTSPClient) -> Option<(IpAddr, Passes)> {
        let all = lock(&self.0);
        let caller = all.get(&key(client))?;
        Some((caller.address, caller.passes.clone()))
    }

    /// What let each of all in.
    pub(super) fn passes(&self) -> Vec<(RTSPClient, Passes)> {
        let all = lock(&self.0);
        let there = all.values();
        there
            .filter_map(|caller| Some((caller.client.upgrade()?, caller.passes.clone())))
            .collect()
    }

    pub(super) fn refuse(&self, client: &RTSPClient, why: Refused) {
        if let Some(caller) = lock(&self.0).get_mut(&key(client)) {
            caller.refused = why;
        }
    }

    /// Where it comes from, and why it is refused.
    pub(super) fn refusal(&self, client: &RTSPClient) -> Option<(IpAddr, Refused)> {
        let all = lock(&self.0);
        let caller = all.get(&key(client))?;
        Some((caller.address, caller.refused))
    }

    /// How many there are, and of these from that address.
    pub(super) fn count(&self, address: IpAddr) -> [usize; 2] {
        let all = lock(&self.0);
        let own = all.values().filter(|caller| caller.address == address);
        [all.len(), own.count()]
    }

    /// Who has sent more than there can be to say.
    pub(super) fn too_long(&self) -> Vec<(RTSPClient, IpAddr)> {
        let mut all = lock(&self.0);
        let long = all.values_mut().filter_map(|caller| {
            let client = caller.is_too_long().then(|| caller.client.upgrade())??;
            Some((client, caller.address))
        });
        long.collect()
    }
}

impl Caller {
    fn is_too_long(&mut self) -> bool {
        let socket = self.socket.upgrade();
        let Some(Ok(info)) = socket.map(|socket| getsockopt(&socket, TcpInfo)) else {
            return false;
        };
        let (octets, seen) = (info[16], self.requests.load(Relaxed));
        if seen != self.seen {
            (self.seen, self.since, self.octets) = (seen, Instant::now(), octets);
        }
        octets - self.octets > allowed(self.since.elapsed())
    }
}

fn allowed(time: Duration) -> u64 {
    MOST.min(REQUEST + REPORTS.saturating_mul(time.as_secs()))
}

/// Requests that it has understood.
fn count_requests(client: &RTSPClient) -> Arc<AtomicU64> {
    let requests = Arc::new(AtomicU64::new(0));
    macro_rules! count {
        ($($connect:ident),*) => {
            $(
                let counted = Arc::clone(&requests);
                client.$connect(move |_, _| {
                    counted.fetch_add(1, Relaxed);
                });
            )*
        };
    }
    count!(
        connect_options_request,
        connect_describe_request,
        connect_setup_request,
        connect_play_request,
        connect_pause_request,
        connect_get_parameter_request,
        connect_set_parameter_request,
        connect_teardown_request
    );
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_room_and_a_head_has_an_end() {
        for (seconds, octets) in [(0, 65_536), (60, 126_976), (1_000_000_000, MOST)] {
            assert_eq!(allowed(Duration::from_secs(seconds)), octets);
        }
    }
}
