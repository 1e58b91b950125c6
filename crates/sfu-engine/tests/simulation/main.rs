// SPDX-License-Identifier: MPL-2.0

//! The engine in a simulated network: time, loss and order are exact, and the same for the same seed.
//!
//! `SFU_SEED=…` runs a test with another seed; a failure prints the one that it had.

mod bandwidth;
mod beginning;
mod channels;
mod codecs;
mod descriptor;
mod device;
mod duplex;
mod far;
mod held_up;
mod hostile;
mod inbound;
mod ingest;
mod invited;
mod joining;
mod keyframes;
mod keys;
mod languages;
mod latency;
mod layers;
mod net;
mod participant;
mod parts;
mod party;
mod paths;
mod peer;
mod peers;
mod price;
mod publisher;
mod raw;
mod recovery;
mod repeat;
mod replay;
mod restart;
mod room;
mod sizes;
mod srtp;
mod svc;
mod temporal;
mod tracks;
mod uplink;
mod viewer;
mod world;
mod worst;
