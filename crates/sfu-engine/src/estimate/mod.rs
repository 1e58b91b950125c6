// SPDX-License-Identifier: MPL-2.0

//! What the network towards one viewer carries, found out from when its packets arrive.
//!
//! One [`Estimator`] a viewer, owned and called by its sender; the choice of layers ([`crate::layers::selector`]) lives
//! by what it says. Sans-IO: the time is an argument. Nothing is allocated, locked or formatted once per packet or per
//! report, apart from the record of sent packets growing to the rate in a viewer's first seconds.
//!
//! # How it works
//!
//! [`ArrivalEstimator`] is the one implementation. The viewer reports when each packet arrived (transport-wide
//! congestion control, draft-holmer-rmcat-transport-wide-cc-extensions-01). Reported packets are gathered into cells
//! of 5 ms, as in Google Congestion Control (GCC, draft-ietf-rmcat-gcc-02, section 5.2), and from those are read:
//!
//! | what | how | in |
//! | --- | --- | --- |
//! | a collapse, within about 300 ms | from the shortest delay on, packets arrive steadily, and much more slowly than they were sent: that rate is the network's; or over a third is lost | `collapse` |
//! | a slight overload, within a second or, of a few per cent, four | the *shortest* delay of each 200 ms stands above its base and keeps growing, or stands while packets are lost | `standing` |
//! | a lower bound | what arrives without being held up is carried | `rate` |
//! | room for more | a train of packets at the rate in question arrives at that rate, or at the network's | `probe` |
//! | loss | up to a tenth says nothing of congestion; more lowers the estimate to what gets through | `loss` |
//!
//! The rate is then regulated by AIMD (GCC, section 5.5): down to 0.9 of what arrives in overload; up by 8 % a second,
//! or by two packets a round trip near the rate at which it last was too much; by itself never above 1.5 times what
//! arrives. Nothing else lowers it: little traffic is no sign of a narrow network, so a stream that needs little loses
//! nothing.
//!
//! # Why not what there is
//!
//! `rtc-interceptor` 0.21 has GCC without I/O (its module `gcc`). It takes resolved reports of 64 bytes a packet, which
//! its history keeps in hash maps and hands out in new vectors. It does not probe; it rises by 8 % a second however
//! little is sent, and a random loss of a tenth, at which its loss control acts, brings it down and down. A viewer on a
//! low layer would seem to have any bandwidth, or after one overload none for a minute.
//!
//! GCC as in `libwebrtc` and `str0m` fits a trend line through the delays of 20 groups of packets. An encoder follows
//! its estimate; layers do not, they are bursts of one size. That trend sees keyframes and jitter as much as queues, and
//! after 5 Mbit/s become 600 kbit/s needs seconds. The least delay of an interval is what CoDel (RFC 8289) calls a
//! standing queue: bursts and jitter do not move it. Its base is kept as in LEDBAT (RFC 6817), and trains are measured
//! as in `libwebrtc`'s `ProbeBitrateEstimator` (the lesser of the rates of sending and arrival). LiveKit's channel
//! observer, too, tells congestion from the trend of estimates and from loss before it takes a layer away; here both
//! are one verdict, [`Estimate::congested`].
//!
//! # What it costs
//!
//! 8 bytes a packet until it is reported, for three seconds at most, and 5 kB: a viewer of 2.5 Mbit/s takes 7 kB.
//! `cargo bench -p sfu-engine --bench estimate` measures time: some 60 ns for a packet sent and reported.

mod arrivals;
mod clock;
mod collapse;
mod estimator;
mod loss;
mod meter;
mod probe;
mod rate;
mod record;
mod standing;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use estimator::ArrivalEstimator;

use crate::rtcp::{Numbers, TwccReport};
use crate::transport::{Demand, Estimate};

/// Packets that are taken of what one datagram reports, however many reports it holds.
const ENTRIES: usize = TwccReport::AT_ONCE as usize;

/// Packets that are wanted now to find out whether the network carries more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeOrder {
    /// Bytes to send at once beyond the media, as retransmissions or padding. Where they are few, in small packets: a
    /// slow network would be filled by large ones.
    pub bytes: usize,
    /// When to ask again.
    pub next: Option<Instant>,
}

/// Finds out what the network towards one viewer carries.
pub trait Estimator: Send + std::fmt::Debug {
    /// A packet leaves under this transport-wide number.
    ///
    /// To be called for every packet, padding included, in the order of the numbers and with its size on the wire.
    fn sent(&mut self, now: Instant, seq: u16, bytes: usize);

    /// The packet of this number was lost, says the viewer, and leaves once more as it was. When it arrives tells nothing of
    /// the network: its departure is the first one's.
    fn sent_again(&mut self, seq: u16);

    /// A packet leaves without such a number, to a viewer that reports no arrivals.
    fn sent_unnumbered(&mut self, now: Instant, bytes: usize);

    /// The packets of which a report may speak. What else it speaks of is not worth being read.
    fn known(&self) -> Numbers;

    /// What a viewer reports of arrivals in one datagram: numbers of packets in ascending order, and when each arrived by
    /// the viewer's clock in µs. `None`: it did not.
    ///
    /// What is concluded from it is concluded once. No more than [`TwccReport::AT_ONCE`] packets are taken of it. The clock may begin anywhere and may wrap with the report's 24 bits of reference time. What was not sent, was
    /// reported before or makes no sense is passed over. Returns how many packets were looked at. Returns how many were taken.
    fn report(
        &mut self,
        now: Instant,
        packets: &mut dyn Iterator<Item = (u16, Option<i64>)>,
    ) -> usize;

    /// The viewer's own estimate (REMB, draft-alvestrand-rmcat-remb-03).
    fn remb(&mut self, now: Instant, bits_per_second: u64);

    /// A receiver report: the share of packets lost, 0 to 1, and the round trip time.
    fn receiver_report(&mut self, now: Instant, loss: f32, rtt: Option<Duration>);

    /// What the network carries. `None`: nothing is known yet.
    fn estimate(&self, now: Instant) -> Option<Estimate>;

    /// What is to be found out.
    fn set_demand(&mut self, now: Instant, demand: Demand);

    /// Whether bytes are to be sent now to find that out. To be asked when [`poll_timeout`](Self::poll_timeout) says so
    /// and after [`set_demand`](Self::set_demand).
    fn probe(&mut self, now: Instant) -> ProbeOrder;

    /// When to ask [`probe`](Self::probe) and [`estimate`](Self::estimate) again, if no report comes before.
    fn poll_timeout(&self) -> Option<Instant>;
}
