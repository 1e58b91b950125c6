// SPDX-License-Identifier: MPL-2.0

//! Access files of tests, and tokens that `./sfu token` makes by them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::ndi;

/// A folder with an access file and a secret that signs tokens.
#[derive(Debug)]
pub struct Rules(PathBuf);

impl Rules {
    /// With these rules, in which `tokens.secret` names the file of the secret.
    pub fn new(test: &str, rules: &str) -> Result<Self> {
        let folder = ndi::repository().join(format!("target/e2e-logs/{test}-access"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(
            folder.join("tokens.secret"),
            "0123456789abcdef0123456789abcdef",
        )?;
        let made = Self(folder.join("access"));
        made.rewrite(rules)?;
        Ok(made)
    }

    /// Where they are.
    pub fn file(&self) -> &Path {
        &self.0
    }

    /// Others from now on.
    pub fn rewrite(&self, rules: &str) -> Result<()> {
        let new = self.0.with_extension("new");
        std::fs::write(&new, rules)?;
        Ok(std::fs::rename(new, &self.0)?)
    }

    /// A token with these permissions (`--play=cam1` …) for so long (`2h`).
    pub fn token(&self, permissions: &[&str], time: &str) -> Result<String> {
        let mut arguments = vec!["token", "--for", time];
        arguments.extend(permissions);
        let text = self.run(&arguments, "")?;
        let token = text.lines().find(|line| line.matches('.').count() == 2);
        Ok(token.context("no token in what it said")?.trim().to_owned())
    }

    /// What stands in a user's line for that password: the hash, and `ha1=`.
    pub fn password(&self, user: &str, password: &str) -> Result<String> {
        let text = self.run(&["password", user], password)?;
        Ok(text.trim().to_owned())
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        // target/release/deps/e2e-… is what runs.
        let test = std::env::current_exe()?;
        let folder = test.ancestors().nth(2).context("no build folder")?;
        let mut child = Command::new(folder.join("sfu-access"))
            .args(arguments)
            .env("GST_SFU_ACCESS", &self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        // What needs none may have ended already.
        let _ = writeln!(stdin, "{input}");
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("sfu-access {arguments:?} ended with {}", output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Tokens of these people for a room, and the key that signs them, as the pipeline `rooms` takes it.
pub fn room_tokens<const N: usize>(room: &str, people: [&str; N]) -> Result<([String; N], String)> {
    let folder = ndi::repository().join("target/e2e-logs/rooms");
    std::fs::create_dir_all(&folder)?;
    let rules = Rules(folder.join("access"));
    let mut tokens = [const { String::new() }; N];
    for (token, identity) in tokens.iter_mut().zip(people) {
        let text = rules.run(&["token", "--room", room, "--identity", identity], "")?;
        *token = text.trim().to_owned();
    }
    let keys = std::fs::read_to_string(folder.join("api.keys"))?;
    Ok((tokens, format!("API_KEYS={}", keys.trim())))
}
