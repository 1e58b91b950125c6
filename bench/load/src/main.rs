// SPDX-License-Identifier: MPL-2.0

//! `sfu-load`: see `sfu-load --help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use sfu_load::args::{Cli, Command, LoadArgs};
use sfu_load::{plain, proxy, room, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Command::Proxy(args)) => proxy::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Rtp(args)) => plain::run(args).map(|()| ExitCode::SUCCESS),
        None => load(&cli.load),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sfu-load: {error:#}");
        ExitCode::FAILURE
    })
}

fn load(args: &LoadArgs) -> Result<ExitCode> {
    if let Some(url) = &args.room {
        let report = room::run(args, url)?;
        if args.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{}", report.in_words());
            report
                .errors
                .iter()
                .for_each(|error| eprintln!("sfu-load: {error}"));
        }
        return Ok(if report.is_good() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if args.whep.is_none() && args.janus.is_none() && args.whip.is_none() {
        let message = "nothing to do: give --whep URL, --janus URL, --whip URL or --room URL";
        Cli::command()
            .error(clap::error::ErrorKind::MissingRequiredArgument, message)
            .exit();
    }
    let report = run::run(args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else if report.viewers > 0 {
        print!("{}", report.in_words());
    }
    Ok(if report.viewers_with_picture < report.viewers {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
