// SPDX-License-Identifier: MPL-2.0

//! Runs the scripts in `tests/browser`, which drive real browsers and print what they saw as JSON.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ndi::repository;

/// Where a test leaves its screenshot, and beside it those of all its pages if it fails.
pub fn screenshot(name: &str) -> Result<PathBuf> {
    let folder = repository().join("target/e2e-logs");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{name}.png")))
}

/// Runs a script to its end (each has a deadline of its own) and returns what it printed.
pub fn run(script: &str, arguments: &[&str]) -> Result<Value> {
    run_in(Command::new("node"), script, arguments)
}

/// The same with this `node`, which may be in another namespace.
pub fn run_in(mut node: Command, script: &str, arguments: &[&str]) -> Result<Value> {
    let folder = repository().join("tests/browser");
    if !folder.join("node_modules").exists() {
        bail!("tests/browser has no node_modules: run npm ci there, or ./sfu test");
    }
    let output = node
        .arg(folder.join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("node must be installed")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{script} ended with {}: {text}", output.status);
    }
    let line = text.lines().last().context("the script printed nothing")?;
    Ok(serde_json::from_str(line)?)
}
