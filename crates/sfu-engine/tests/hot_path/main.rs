// SPDX-License-Identifier: MPL-2.0

//! What a shard takes of memory: nothing per packet and viewer, and in a day no more than in an hour.
//!
//! With the simulation's viewers and network, in a program of its own, since every call of `malloc` is counted.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]
// What only the simulation uses of its parts.
#![allow(dead_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "../counting/mod.rs"]
mod counting;
mod day;
#[allow(dead_code)]
#[path = "../simulation/device.rs"]
mod device;
#[path = "../simulation/net.rs"]
mod net;
mod packets;
#[path = "../simulation/peer.rs"]
mod peer;
#[path = "../simulation/publisher.rs"]
mod publisher;
#[path = "../simulation/restart.rs"]
mod restart;
#[path = "../simulation/viewer.rs"]
mod viewer;
mod viewers;
#[path = "../simulation/world.rs"]
mod world;

/// One test at a time: what is counted is the process's.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
