// SPDX-License-Identifier: MPL-2.0

//! Runs the load tool of this build.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where the tool is.
pub fn tool() -> Result<PathBuf> {
    // target/release/deps/e2e-… is what runs.
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("no build folder")?;
    let tool = folder.join("sfu-load");
    if !tool.exists() {
        bail!("{} is missing: run ./sfu build", tool.display());
    }
    Ok(tool)
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// So many viewers watch that, until this is dropped or their time (such as `60s`) is over.
pub fn watch(whep: &str, viewers: usize, duration: &str) -> Result<Running> {
    let viewers = viewers.to_string();
    let child = Command::new(tool()?)
        .args(["--whep", whep, "--json", "--viewers", &viewers])
        .args(["--ramp", "8/s", "--duration", duration])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Running(child))
}

/// Runs it to its end and returns the object that it prints, with its exit status as `status`.
pub fn run(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(tool()?)
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("sfu-load does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("sfu-load printed nothing")?;
    let mut result: Value = serde_json::from_str(line)?;
    result["status"] = output.status.code().into();
    Ok(result)
}
