// SPDX-License-Identifier: MPL-2.0

//! Datagrams that are larger than the path to their viewer carries: the kernel refuses them (EMSGSIZE), and they leave in
//! fragments instead. Called by the driver where a send has failed.
//!
//! The socket sets "don't fragment" and heeds what routers say of their links (`IP_PMTUDISC_DO`; RFC 1191, RFC 8201), so
//! that the first such datagram tells of the path, and which viewer's it is. Then it is sent again with fragmentation let
//! for this one: fragments are lost more easily and some networks drop them (RFC 8900), but the datagram would be lost for
//! sure. What is forged to make a path look narrow costs its viewer no picture that way.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc::{self, EMSGSIZE};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use crate::shard::TooLarge;

sockopt_impl!(
    /// What becomes of IPv4 datagrams that are too large for their path.
    Discover4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// The same of IPv6.
    Discover6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// The MTU of the path to the socket's peer.
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

/// Datagrams that leave in fragments in a second, at most: 50 Mbit/s of them, ten viewers of one camera. Each costs six
/// system calls more, eight on a socket of both families.
const FRAGMENTED_A_SECOND: u32 = 5_000;
/// A path's MTU is asked for no more often.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Viewers whose datagrams were too large that are remembered at a time.
const REMEMBERED: usize = 256;

/// Whether this is what the kernel says of a datagram that is too large for its path.
pub(super) fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EMSGSIZE)
}

/// From now on datagrams that are too large for their path are refused, until [`in_fragments`] lets one pass.
pub(super) fn begin(socket: &impl AsFd, is_v6: bool) {
    refuse_too_large(socket, is_v6);
    // `quinn-udp` sets it, and it would keep fragments of IPv6 back whatever is said of the path.
    if is_v6 && let Err(error) = setsockopt(socket, sockopt::Ipv6DontFrag, &false) {
        tracing::debug!(%error, "large datagrams over IPv6 don't leave in fragments");
    }
}

fn refuse_too_large(socket: &impl AsFd, is_v6: bool) {
    set(socket, is_v6, libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO);
}

/// Lets what is sent meanwhile leave in fragments.
pub(super) fn in_fragments<T>(
    socket: &impl AsFd,
    is_v6: bool,
    send: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    set(
        socket,
        is_v6,
        libc::IP_PMTUDISC_WANT,
        libc::IPV6_PMTUDISC_WANT,
    );
    let sent = send();
    refuse_too_large(socket, is_v6);
    sent
}

/// A socket of both families needs both.
fn set(socket: &impl AsFd, is_v6: bool, v4: libc::c_int, v6: libc::c_int) {
    let both = [
        setsockopt(socket, Discover4, &v4),
        match is_v6 {
            true => setsockopt(socket, Discover6, &v6),
            false => Ok(()),
        },
    ];
    for error in both.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "how the kernel treats large datagrams stays");
    }
}

/// What the kernel takes the path to somewhere for: asked on a socket of its own, since ours is connected to nobody.
fn mtu_towards(destination: SocketAddr) -> io::Result<u32> {
    let any: SocketAddr = match destination {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(destination)?;
    let mtu = match destination {
        SocketAddr::V4(_) => getsockopt(&socket, sockopt::IpMtu)?,
        SocketAddr::V6(_) => getsockopt(&socket, Ipv6Mtu)?,
    };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// Whose datagrams were too large since the shard was last told.
#[derive(Debug)]
pub(super) struct Refused {
    by_viewer: HashMap<SocketAddr, Viewer>,
    told: bool,
    /// Of the present second.
    since: Instant,
    fragmented: u32,
}

#[derive(Debug, Default)]
struct Viewer {
    datagrams: u64,
    asked: Option<Instant>,
    mtu: Option<u32>,
}

impl Refused {
    pub(super) fn new() -> Self {
        Self {
            by_viewer: HashMap::new(),
            told: true,
            since: Instant::now(),
            fragmented: 0,
        }
    }

    /// A datagram was too large. Returns whether it may leave in fragments.
    pub(super) fn add(&mut self, destination: SocketAddr) -> bool {
        if self.by_viewer.len() >= REMEMBERED && !self.by_viewer.contains_key(&destination) {
            self.by_viewer.retain(|_, viewer| viewer.datagrams > 0);
        }
        if self.by_viewer.len() < REMEMBERED || self.by_viewer.contains_key(&destination) {
            self.by_viewer.entry(destination).or_default().datagrams += 1;
            self.told = false;
        }
        if self.fragmented >= FRAGMENTED_A_SECOND {
            return false;
        }
        self.fragmented += 1;
        true
    }

    /// It has not left yet, and will be sent again.
    pub(super) fn take_back(&mut self, destination: SocketAddr) {
        self.fragmented = self.fragmented.saturating_sub(1);
        if let Some(viewer) = self.by_viewer.get_mut(&destination) {
            viewer.datagrams = viewer.datagrams.saturating_sub(1);
        }
    }

    /// There is nothing to tell and nothing to count anew.
    pub(super) fn is_quiet(&self) -> bool {
        self.told && self.fragmented == 0
    }

    /// Tells the shard, outside of what it is just sending.
    pub(super) fn tell(&mut self, now: Instant, mut told: impl FnMut(SocketAddr, TooLarge)) {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.fragmented = 0;
        }
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        for (destination, viewer) in &mut self.by_viewer {
            let datagrams = std::mem::take(&mut viewer.datagrams);
            if datagrams == 0 {
                continue;
            }
            let is_due = |at| now.saturating_duration_since(at) >= ASK_EVERY;
            if viewer.asked.is_none_or(is_due) {
                viewer.asked = Some(now);
                viewer.mtu = mtu_towards(*destination).ok();
            }
            let mtu = viewer.mtu;
            told(*destination, TooLarge { datagrams, mtu });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_datagrams_are_told_once_and_bounded() {
        let mut refused = Refused::new();
        let now = Instant::now();
        let viewer = |n: u16| SocketAddr::new([127, 0, 0, 1].into(), 1_000 + n);
        let mut fragmented = 0;
        for n in 0..20_000 {
            fragmented += u32::from(refused.add(viewer(n % 500)));
        }
        assert_eq!(fragmented, FRAGMENTED_A_SECOND);
        let mut told = Vec::new();
        refused.tell(now, |to, failure| told.push((to, failure)));
        assert_eq!(told.len(), REMEMBERED);
        // Loopback takes nearly all that a datagram can hold.
        assert!(
            told.iter()
                .all(|(_, f)| f.mtu.is_some_and(|mtu| mtu > 1_500))
        );
        refused.tell(now, |_, _| panic!("told twice"));
        assert!(!refused.add(viewer(1)), "in the same second");
        refused.tell(now + Duration::from_secs(1), |to, _| {
            told.push((to, TooLarge::default()));
        });
        assert!(
            refused.add(viewer(600)),
            "another viewer in the next second"
        );
        assert!(refused.by_viewer.len() <= REMEMBERED);
    }
}
