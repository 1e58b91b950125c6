// SPDX-License-Identifier: MPL-2.0

//! What waits for the rooms' thread, of all clients and of each: who has much of it waits before reading more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A message is one unit, and one more for so many octets of it.
const UNIT: usize = 4 * 1_024;
/// Of all clients: 16 MiB, or 4,096 small messages.
const ALL: usize = 4_096;
/// Of a client's connection, or a participant's data: one of the largest messages.
const OWN: usize = 64;

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// A message that waits, as long as this is there.
#[derive(Debug)]
pub(crate) struct Waiting {
    load: Load,
    units: usize,
}

impl Load {
    /// Something of so many octets waits from now on.
    pub(crate) fn add(&self, octets: usize) -> Waiting {
        let units = 1 + octets / UNIT;
        self.0.fetch_add(units, Relaxed);
        Waiting {
            load: self.clone(),
            units,
        }
    }

    /// All of it, from now on.
    pub(crate) fn fill(&self) -> Waiting {
        self.add(ALL * UNIT)
    }

    /// So much waits of all clients that nothing more is to be read.
    pub(crate) fn is_behind(&self) -> bool {
        self.0.load(Relaxed) >= ALL
    }

    /// So much waits of this one.
    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Relaxed) >= OWN
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.load.0.fetch_sub(self.units, Relaxed);
    }
}
