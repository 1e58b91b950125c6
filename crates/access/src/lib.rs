// SPDX-License-Identifier: MPL-2.0
#![doc = "Who may publish, play, take over, see recordings, change things and read metrics: one answer for every way in and out.\n\n\
Knows nothing of HTTP, RTMP or RTSP: whoever serves one of them says who asks ([`Visitor`]), for what ([`Want`]), and is told ([`Outcome`]). Time is an argument."]

mod access;
mod config;
mod digest;
mod door;
mod keys;
mod password;
mod permission;
mod proof;
pub mod remote;
mod revoked;
mod segment;
pub mod store;
mod text;
mod token;
mod visitor;
mod webhook;

pub use access::{Access, Rights};
pub use config::{ConfigError, network};
pub use digest::{DigestAnswer, Nonces, REALM, ha1};
pub use door::{Door, Knock, Pass, credential_of_query};
pub use password::hash as hash_password;
pub use permission::{Action, Grants, Pattern};
pub use proof::Proof;
pub use text::read_text;
pub use token::{
    TOKEN_MAX, TokenError, make as make_token, make_for_room as make_room_token, random,
    read_secret,
};
pub use visitor::{Credential, Job, Outcome, Refused, Visitor, Want, Ways};
