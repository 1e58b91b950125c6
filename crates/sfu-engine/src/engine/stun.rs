// SPDX-License-Identifier: MPL-2.0

//! Asks a STUN server which address we have on its side of a NAT (RFC 8489, section 5). Called by [`super::announce`], on a
//! thread of its own.
//!
//! It is asked from another port than media's: of a NAT that translates addresses one to one, as clouds have it, the
//! address is all that there is to know.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// A question is sent again after this time, and after twice that, and so on (RFC 8489, section 6.2.1), as often.
const AGAIN: Duration = Duration::from_millis(250);
const SENDS: u32 = 4;
const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const REQUEST: [u8; 2] = [0, 1];
const SUCCESS: [u8; 2] = [1, 1];
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// The largest answer that is read.
const ANSWER: usize = 1_500;

/// The addresses that we have on the side of this server, at most one of each family. Takes four seconds at most for each, and as
/// long as the server's name is looked up.
pub(super) fn ask(server: &str, port: u16) -> io::Result<Vec<IpAddr>> {
    let servers: Vec<SocketAddr> = (server, port).to_socket_addrs()?.collect();
    let mut found = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for is_v4 in [true, false] {
        let Some(server) = servers.iter().find(|s| s.is_ipv4() == is_v4) else {
            continue;
        };
        match ask_one(*server) {
            Ok(address) => found.push(address),
            Err(error) => failure = error,
        }
    }
    match found.is_empty() {
        true => Err(failure),
        false => Ok(found),
    }
}

fn ask_one(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Nobody else's answers come in.
    socket.connect(server)?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut request = REQUEST.to_vec();
    request.extend([0, 0]);
    request.extend(COOKIE);
    request.extend(id);
    let mut answer = [0; ANSWER];
    for n in 0..SENDS {
        // One who refuses (ICMP) may be there in a moment.
        let _ = socket.send(&request);
        let until = Instant::now() + AGAIN * (1 << n);
        while let Some(left) = until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            let Ok(length) = socket.recv(&mut answer) else {
                // Refused at once: the rest of the time is waited for.
                std::thread::sleep(
                    until
                        .saturating_duration_since(Instant::now())
                        .min(AGAIN / 8),
                );
                continue;
            };
            let data = answer.get(..length).unwrap_or_default();
            if let Some(address) = mapped_address(data, id) {
                return Ok(address);
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{server} gave no answer"),
    ))
}

/// The address that an answer to this question tells.
fn mapped_address(data: &[u8], id: [u8; 12]) -> Option<IpAddr> {
    let (header, mut rest) = data.split_at_checked(HEADER)?;
    if header[..2] != SUCCESS || header[4..8] != COOKIE || header[8..] != id {
        return None;
    }
    let mask: [u8; 16] = header[4..].try_into().ok()?;
    let mut found = None;
    while let Some((&[high, low, len_high, len_low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([len_high, len_low]));
        let value = after.get(..length)?;
        match u16::from_be_bytes([high, low]) {
            // What some NATs rewrite.
            MAPPED_ADDRESS => found = found.or(address(value, [0; 16])),
            XOR_MAPPED_ADDRESS => return usable(address(value, mask)?),
            _ => {}
        }
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    usable(found?)
}

fn address(value: &[u8], mask: [u8; 16]) -> Option<IpAddr> {
    let (head, octets) = value.split_at_checked(4)?;
    match head[1] {
        1 => {
            let octets = <[u8; 4]>::try_from(octets).ok()?;
            let masked: [u8; 4] = std::array::from_fn(|n| octets[n] ^ mask[n]);
            Some(masked.into())
        }
        2 => {
            let octets = <[u8; 16]>::try_from(octets).ok()?;
            let masked: [u8; 16] = std::array::from_fn(|n| octets[n] ^ mask[n]);
            Some(masked.into())
        }
        _ => None,
    }
}

fn usable(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; 12] = [7; 12];

    fn answer(kind: [u8; 2], id: [u8; 12], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut data = kind.to_vec();
        data.extend([0, 0]);
        data.extend(COOKIE);
        data.extend(id);
        for (kind, value) in attributes {
            data.extend(kind.to_be_bytes());
            data.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            data.extend(value);
            data.resize(data.len().next_multiple_of(4), 0);
        }
        let length = u16::try_from(data.len() - HEADER).unwrap();
        data[2..4].copy_from_slice(&length.to_be_bytes());
        data
    }

    fn value(ip: IpAddr, is_masked: bool) -> Vec<u8> {
        let (family, octets) = match ip {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, v6.octets().to_vec()),
        };
        let mask = COOKIE.iter().chain(&ID);
        let masked = octets.iter().zip(mask);
        let octets: Vec<u8> = masked
            .map(|(o, m)| if is_masked { o ^ m } else { *o })
            .collect();
        [vec![0, family, 1, 2], octets].concat()
    }

    #[test]
    fn only_an_answer_to_the_question_tells_an_address() {
        let v4: IpAddr = "203.0.113.7".parse().unwrap();
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        let other: IpAddr = "198.51.100.1".parse().unwrap();
        let software = (0x8022, b"coturn".to_vec());
        let xor = |ip| (XOR_MAPPED_ADDRESS, value(ip, true));
        let plain = |ip| (MAPPED_ADDRESS, value(ip, false));
        for (data, expected) in [
            (answer(SUCCESS, ID, &[xor(v4)]), Some(v4)),
            (answer(SUCCESS, ID, &[software.clone(), xor(v6)]), Some(v6)),
            (
                answer(SUCCESS, ID, &[plain(v4), software.clone()]),
                Some(v4),
            ),
            (answer(SUCCESS, ID, &[plain(other), xor(v4)]), Some(v4)),
            (answer(SUCCESS, [8; 12], &[xor(v4)]), None),
            (answer([1, 0x11], ID, &[xor(v4)]), None),
            (answer(REQUEST, ID, &[xor(v4)]), None),
            (answer(SUCCESS, ID, &[software]), None),
            (
                answer(SUCCESS, ID, &[xor(Ipv4Addr::UNSPECIFIED.into())]),
                None,
            ),
            (
                answer(SUCCESS, ID, &[(XOR_MAPPED_ADDRESS, vec![0, 3, 0, 0, 1])]),
                None,
            ),
            (Vec::new(), None),
        ] {
            assert_eq!(mapped_address(&data, ID), expected, "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_are_too_odd(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut data = answer(SUCCESS, ID, &[]);
            data.extend(&tail);
            let _ = mapped_address(&data, ID);
            let _ = mapped_address(&tail, ID);
        }
    }

    /// A server that leaves the first questions without an answer, sends others' answers, and one that is not there.
    #[test]
    fn a_server_is_asked_again_and_not_for_long() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut request = [0; 100];
            for n in 0..3 {
                let (length, from) = server.recv_from(&mut request).unwrap();
                assert_eq!((length, &request[..2]), (HEADER, &REQUEST[..]));
                let id: [u8; 12] = request[8..HEADER].try_into().unwrap();
                let ip: IpAddr = "203.0.113.7".parse().unwrap();
                let mut masked = value(ip, false);
                for (octet, mask) in masked[4..].iter_mut().zip(COOKIE) {
                    *octet ^= mask;
                }
                let id = if n < 2 { [0; 12] } else { id };
                let data = answer(SUCCESS, id, &[(XOR_MAPPED_ADDRESS, masked)]);
                server.send_to(&data, from).unwrap();
            }
        });
        assert_eq!(
            ask("127.0.0.1", port).unwrap(),
            ["203.0.113.7".parse::<IpAddr>().unwrap()]
        );
        thread.join().unwrap();
        // Now nobody is there.
        assert!(ask("127.0.0.1", port).is_err());
    }
}
