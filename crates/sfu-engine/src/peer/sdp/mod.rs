// SPDX-License-Identifier: MPL-2.0

//! Offers and answers (SDP, RFC 8866; JSEP, RFC 9429; offer/answer, RFC 3264; BUNDLE, RFC 9143). Called by
//! [`negotiate`](crate::transport::negotiate) for viewers (WHEP) and publishers (WHIP, RFC 9725).
//!
//! - [`offer`] reads: sections first, so that no line is lost or falls to another one, then the lines that we know. What it
//!   does not know it passes over; what is too much it refuses, before anything is kept of it.
//! - [`choice`] decides: which m-lines and formats are taken, over which transport.
//! - [`offering`] makes offers of ours, and reads their answers as offers are read.
//! - [`duplex`] answers who publishes and is sent tracks over one connection.
//! - [`again`] sees to it that later offers on a connection leave in place what there is.
//! - [`answer`] writes the answer, and [`viewer`] and [`publisher`] tell their transports what was agreed on.
//!
//! Reading and answering take time in proportion to the offer's size. What is kept of an offer is a few kB at most.

mod again;
mod answer;
mod candidate;
mod choice;
mod duplex;
mod error;
mod extension;
mod format;
mod ice;
mod lines;
mod media;
mod offer;
mod offering;
mod publisher;
mod session;
mod simulcast;
mod viewer;

pub(crate) use again::{Before, Restart};
pub(crate) use candidate::{candidates, named};
pub(crate) use duplex::Conversation;
pub use duplex::{Carried, CarriedOn};
pub use error::OfferError;
pub(crate) use ice::{Fingerprint, credentials};
pub(crate) use offering::{Agreement, Offering};
pub(crate) use publisher::{Published, answer_again, answer_publisher};
pub(crate) use viewer::{Wanted, answer_viewer};

/// M-lines of a plain session, those that are rejected among them.
pub(crate) const MEDIAS: usize = 8;
/// The same of a peer that gets many streams.
pub(crate) const SLOTS: usize = 256;
/// Simulcast layers of an m-line.
pub(crate) const LAYERS: usize = 8;
/// M-lines on which a peer that publishes under several names sends at once, and layers of all of them, a sound being one.
pub(crate) const TRACKS: usize = 16;
pub(crate) const LAYERS_IN_ALL: usize = 32;
/// Payload types of an m-line, and SSRCs.
pub(crate) const FORMATS: usize = 64;
pub(crate) const SOURCES: usize = 64;
/// Candidates of an m-line, and of a session in all its fragments.
pub(crate) const CANDIDATES: usize = 30;
