// SPDX-License-Identifier: MPL-2.0
//! A real NDI sender that is not ours, and where its runtime and the plugins under test are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The repository's root, from wherever in the workspace this was compiled.
pub fn repository() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders
        .find(|folder| folder.join("Cargo.lock").exists())
        .expect("there is a Cargo.lock")
}

/// Where `tests/ndi/setup.sh` puts the wheels.
pub fn wheels() -> PathBuf {
    repository().join(".cache/ndi")
}

/// What a process needs that uses the plugins of this build and the NDI runtime of the wheels.
///
/// # Panics
///
/// If the runtime has not been fetched.
pub fn environment() -> Vec<(&'static str, OsString)> {
    let runtime = wheels().join("NDIlib");
    assert!(
        runtime.join("libndi.so.6").exists(),
        "no NDI runtime in {}: run tests/ndi/setup.sh first",
        runtime.display()
    );
    let plugins = plugins().expect("the plugins of this build");
    vec![
        ("NDI_RUNTIME_DIR_V6", runtime.into()),
        ("GST_REGISTRY", plugins.join("registry.bin").into()),
        ("GST_PLUGIN_PATH", plugins.into()),
        ("PYTHONPATH", wheels().into()),
    ]
}

/// A folder of links to the plugins of this build.
///
/// Cargo puts plugins of the workspace into `deps` and copies them one folder up, except in
/// `cargo test`; those of other crates are to be used by their copies only. GStreamer would find
/// an old copy and a new original in one search.
pub fn plugins() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    // target/PROFILE/deps/PROGRAM
    let deps = program.parent().ok_or(std::io::ErrorKind::NotFound)?;
    let copies = deps.parent().ok_or(std::io::ErrorKind::NotFound)?;
    let target = copies.parent().ok_or(std::io::ErrorKind::NotFound)?;
    let mut plugins = BTreeMap::new();
    for from in [copies, deps] {
        for file in std::fs::read_dir(from)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with("libgst") && name.ends_with(".so") && !name.contains('-') {
                plugins.insert(name, file.path());
            }
        }
    }
    // Not below the folder that users have GStreamer search.
    let profile = copies.file_name().unwrap_or_default();
    let folder = target.join("tests-plugins").join(profile);
    std::fs::create_dir_all(&folder)?;
    for (name, plugin) in plugins {
        let link = folder.join(name);
        if !std::fs::read_link(&link).is_ok_and(|to| to == plugin) {
            replace_link(&plugin, &link)?;
        }
    }
    Ok(folder)
}

/// At one stroke, since other tests may be using it.
fn replace_link(to: &Path, link: &Path) -> std::io::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let new = link.with_extension(format!("{process}-{count}"));
    std::os::unix::fs::symlink(to, &new)?;
    std::fs::rename(new, link)
}

/// Makes a folder for `NDI_CONFIG_DIR` with which a receiver looks for senders at 127.0.0.1, as
/// there is no multicast discovery in a namespace of its own.
pub fn discovery_on_loopback(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let config = r#"{"ndi":{"networks":{"ips":"127.0.0.1"}}}"#;
    std::fs::write(folder.join("ndi-config.v1.json"), config)
}

/// `tests/ndi/send.py`, killed when this is dropped.
#[derive(Debug)]
pub struct Sender(Child);

impl Sender {
    /// Starts the sender with these arguments and returns once its first picture is out.
    pub fn start(arguments: &[&str]) -> std::io::Result<Self> {
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let mut child = Command::new(python)
            .arg(repository().join("tests/ndi/send.py"))
            .args(arguments)
            .env("PYTHONPATH", wheels())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child
            .stdout
            .take()
            .ok_or_else(|| std::io::Error::other("no output"))?;
        let sender = Self(child);
        BufReader::new(output).read_line(&mut line)?;
        if line.trim() == "ready" {
            Ok(sender)
        } else {
            Err(std::io::Error::other(format!(
                "send.py ended before it was ready: {line:?}"
            )))
        }
    }

    /// Starts the sender at the port where one was before. The runtime takes another one while connections of the old one are
    /// still ending: then once more.
    pub fn start_at(port: u16, arguments: &[&str]) -> std::io::Result<Self> {
        for _ in 0..20 {
            let sender = Self::start(arguments)?;
            if listens(port)? {
                return Ok(sender);
            }
            drop(sender);
            std::thread::sleep(Duration::from_millis(500));
        }
        Err(std::io::Error::other(format!("port {port} is taken")))
    }

    /// Ends it with SIGKILL, as a crash or a pulled plug would.
    pub fn kill(self) {
        drop(self);
    }
}

/// Whether something listens on a port of this network namespace.
fn listens(port: u16) -> std::io::Result<bool> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let sockets = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    }))
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
