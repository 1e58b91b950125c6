// SPDX-License-Identifier: MPL-2.0

//! How large packets may be, so that every path carries them.
//!
//! IPv6 carries 1,280 octets everywhere (RFC 8200, section 5), of which 1,232 are left for UDP's payload; tunnels in
//! tunnels take a little more. 1,200 is what WebRTC and QUIC (RFC 9000, section 14) keep to.

/// Octets of UDP payload that we make a packet of at most, unless its RTP payload leaves no choice.
pub const MAX_DATAGRAM: usize = 1_200;

/// The fixed header of RTP.
pub(crate) const RTP_HEADER: usize = 12;
/// What a retransmission has in front of its payload: the packet's first number (RFC 4588).
pub(crate) const OSN: usize = 2;
/// Header extensions that fit beside the largest payload: the transport-wide number and, of the others, either the m-line's
/// name of 16 octets and the playout delay, or the playout delay and the time of capture.
const EXTENSIONS: usize = 28;
/// The tag of SRTP with AES-GCM (RFC 7714); that of AES-CM has 10 octets.
const TAG: usize = 16;

/// The largest RTP payload that always fits, to any viewer, and when it is sent again.
pub const MAX_PAYLOAD: usize = MAX_DATAGRAM - RTP_HEADER - EXTENSIONS - TAG - OSN;

/// What payloaders are told: [`MAX_PAYLOAD`] with the plain header that they write.
pub const PAYLOADER_MTU: usize = MAX_PAYLOAD + RTP_HEADER;
