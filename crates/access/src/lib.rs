// SPDX-License-Identifier: MPL-2.0
#![doc = "Who may publish, play, take over, see recordings, change things and read metrics: one answer for every way in and out.\n\n\
Knows nothing of HTTP, RTMP or RTSP: whoever serves one of them says who asks ([`Visitor`]), for what ([`Want`]), and is told ([`Outcome`]). Time is an argument."]

mod access;
mod config;
mod keys;
mod password;
mod permission;
mod remote;
mod segment;
pub mod store;
mod token;
mod webhook;

pub use access::{Access, Credential, Job, Outcome, Proof, Refused, Rights, Visitor, Want};
pub use config::ConfigError;
pub use password::hash as hash_password;
pub use permission::{Action, Grants, Pattern};
pub use token::{TOKEN_MAX, TokenError, make as make_token};
