// SPDX-License-Identifier: MPL-2.0

//! The floor of the benchmark: seals the datagrams of the load tool's stream for each viewer and sends them, in the
//! batches and by the socket that the engine would use, and does nothing else: no sessions, no reports, no choice.
//!
//! `sfu-floor receive` is the viewers: a socket each, as the load tool has them, that only looks at headers.

mod receive;
mod send;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sfu_load::args::{StreamArgs, duration};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "sfu-floor",
    version,
    about = "Seals and sends, and nothing else"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wait for the viewers, send to them, and print what it took as JSON
    Send(SendArgs),
    /// Be the viewers, until nothing comes any more, and print what came as JSON
    Receive(ReceiveArgs),
}

#[derive(Debug, Args)]
struct SendArgs {
    /// Where viewers say that they are there
    #[arg(long)]
    listen: SocketAddr,
    /// How many there are
    #[arg(long)]
    viewers: usize,
    /// How long what it takes is measured, after the first two seconds
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    #[command(flatten)]
    stream: StreamArgs,
}

#[derive(Debug, Args)]
struct ReceiveArgs {
    /// Who sends
    #[arg(long)]
    to: SocketAddr,
    /// How many to be
    #[arg(long)]
    viewers: usize,
}

fn main() -> ExitCode {
    let found = match &Cli::parse().command {
        Command::Send(args) => send::run(args),
        Command::Receive(args) => receive::run(args),
    };
    match found {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sfu-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Payload types, by which a viewer knows keyframes without a key.
const DELTA: u8 = 102;
const KEY: u8 = 104;

/// Nanoseconds as a timestamp: tens of microseconds, which wrap after half a day.
fn timestamp(ns: u64) -> u32 {
    (ns / 10_000) as u32
}
