// SPDX-License-Identifier: MPL-2.0

//! What a peer publishes.

pub(crate) mod agreed;
