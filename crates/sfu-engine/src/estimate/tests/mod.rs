// SPDX-License-Identifier: MPL-2.0

//! The estimator on simulated links: time, loss and order are exact, and the same for the same seed.

mod choice;
mod hostile;
mod link;
mod network;
