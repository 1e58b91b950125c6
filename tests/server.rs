// SPDX-License-Identifier: MPL-2.0

//! The server under test: a `gst-launch-1.0` or `./sfu run` of its own, as a user starts it, ended when dropped.

use std::ffi::OsString;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ndi;

/// How long a server may take to answer. Two cores are shared with encoders and browsers.
const START: Duration = Duration::from_secs(60);

/// See the module's description.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    port: u16,
    udp_port: u16,
}

/// Ports of this process alone, below those that the kernel gives to whoever connects (32768 and up): one that was free a
/// moment ago would else be the near end of somebody's connection when the server wants it.
fn own_ports() -> impl Iterator<Item = u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const EACH: u16 = 200;
    let processes = (32_000 - 10_000) / u32::from(EACH);
    let first = 10_000 + (std::process::id() % processes) as u16 * EACH;
    std::iter::repeat_with(move || first + NEXT.fetch_add(1, Relaxed) % EACH).take(EACH.into())
}

/// A TCP and a UDP port that are free now, and that no other call of this process has got lately.
pub fn free_ports() -> Result<(u16, u16)> {
    // Threads of one test at the same time would take each other's row apart.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let tcp = own_ports().find(free).context("no TCP port is free")?;
    // Shards count up from the first port: leave room for a few.
    let (mut row, mut last) = (0, 0);
    for port in own_ports() {
        row = match UdpSocket::bind(("0.0.0.0", port)) {
            Ok(_) if port == last + 1 => row + 1,
            Ok(_) => 1,
            Err(_) => 0,
        };
        last = port;
        if row == 4 {
            return Ok((tcp, port - 3));
        }
    }
    bail!("no four UDP ports in a row are free")
}

impl Server {
    /// Runs this pipeline beside an `sfusignaller`. `name` names the log.
    pub fn launch(name: &str, pipeline: &str) -> Result<Self> {
        Self::launch_at("127.0.0.1", name, pipeline)
    }

    /// The same with its HTTP port at this address, which has to include 127.0.0.1.
    pub fn launch_at(host: &str, name: &str, pipeline: &str) -> Result<Self> {
        let (port, udp) = free_ports()?;
        let line =
            format!("sfusignaller name=signaller listen={host}:{port} udp-port={udp} {pipeline}");
        let mut command = Command::new("gst-launch-1.0");
        command.args(line.split_whitespace());
        Self::start(name, command, port, udp)
    }

    /// Runs `./sfu run PIPELINE KEY=VALUE…`.
    pub fn pipeline(name: &str, pipeline: &str, keys: &[&str]) -> Result<Self> {
        Self::pipeline_at(free_ports()?, name, pipeline, keys)
    }

    /// The same on this TCP port, and from this UDP port on: where another one was.
    pub fn pipeline_at(
        (port, udp): (u16, u16),
        name: &str,
        pipeline: &str,
        keys: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(ndi::repository().join("sfu"));
        command.args(["run", pipeline]).args(keys);
        command.args([format!("PORT={port}"), format!("UDP_PORT={udp}")]);
        Self::start(name, command, port, udp)
    }

    fn start(name: &str, mut command: Command, port: u16, udp_port: u16) -> Result<Self> {
        let folder = ndi::repository().join("target/e2e-logs");
        std::fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = command
            .envs(environment()?)
            .env("GST_DEBUG_NO_COLOR", "1")
            .env(
                "GST_DEBUG",
                "2,sfu*:5,simulcastenc:5,ndilivesrc:5,rtmpserversrc:5,supervisor:5",
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .context("the server does not start")?;
        let mut server = Self {
            child,
            log,
            port,
            udp_port,
        };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let end = Instant::now() + START;
        while self.get("/healthz").is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log_tail());
            }
            if Instant::now() > end {
                bail!("the server does not answer:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The address of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The first of its media ports.
    pub fn udp_port(&self) -> u16 {
        self.udp_port
    }

    /// Its media ports, one for each core.
    pub fn udp_ports(&self) -> Vec<String> {
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        (0..shards)
            .map(|n| (usize::from(self.udp_port) + n).to_string())
            .collect()
    }

    /// The process to be measured or killed.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The text at a path.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut response = ureq::get(self.url(path)).call()?;
        Ok(response.body_mut().read_to_string()?)
    }

    /// The JSON at a path.
    pub fn json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(path)?)?)
    }

    /// A counter or gauge of `/metrics`, with its labels as they are written there.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let page = self.get("/metrics")?;
        let wanted = in_order(name);
        let value = page.lines().find_map(|line| {
            let (found, value) = line.rsplit_once(' ')?;
            (in_order(found) == wanted).then_some(value)
        });
        let value = value.with_context(|| format!("no metric {name}"))?;
        Ok(value.trim().parse()?)
    }

    /// Waits until a stream has a publisher whose layers all send.
    pub fn wait_for_stream(&self, stream: &str) -> Result<Value> {
        self.wait_for(&format!("stream {stream} to be live"), || {
            let info = self.json(&format!("/api/streams/{stream}"))?;
            let layers = info["video"]["layers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let all = !layers.is_empty() && layers.iter().all(|l| l["active"] == true);
            Ok((info["live"] == true && all).then_some(info))
        })
    }

    /// Waits until a stream has a publisher but nothing comes from it.
    pub fn wait_until_silent(&self, stream: &str) -> Result<()> {
        self.wait_for(&format!("stream {stream} to be silent"), || {
            let info = self.json(&format!("/api/streams/{stream}"))?;
            let silent = |layers: &Vec<Value>| layers.iter().all(|l| l["active"] == false);
            let silent = info["video"]["layers"].as_array().is_none_or(silent);
            Ok((info["live"] == true && silent).then_some(()))
        })
    }

    /// Asks until there is an answer.
    pub fn wait_for<T>(&self, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + START;
        loop {
            if let Ok(Some(answer)) = ask() {
                return Ok(answer);
            }
            if Instant::now() > end {
                bail!("waited in vain for {what}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills it and all its children, as a crash would. It has no say in that.
    pub fn kill(mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }

    /// Ends it as Ctrl-C does, and returns its status, unless it takes too long.
    pub fn stop(mut self) -> Option<i32> {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-INT", "--", &group]).status();
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// All of its log until now.
    pub fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of {}:\n{}", self.log.display(), self.log_tail());
        }
        // The whole group, which is our own: `./sfu run` has children.
        let group = format!("-{}", self.child.id());
        let interrupt = ["-INT", "--", &group];
        // It may have ended by itself.
        let quiet = Stdio::null;
        let _ = Command::new("kill")
            .args(interrupt)
            .stderr(quiet())
            .status();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// What a process needs to find the plugins of this build.
pub fn environment() -> Result<Vec<(&'static str, OsString)>> {
    let plugins = ndi::plugins()?;
    Ok(vec![
        ("GST_REGISTRY", plugins.join("registry.bin").into()),
        ("GST_PLUGIN_PATH", plugins.into()),
        // The rules that hold without a file, whatever there is of one on this machine.
        ("GST_SFU_ACCESS", "".into()),
    ])
}

/// A metric's name and its labels, whose order says nothing.
fn in_order(name: &str) -> (&str, Vec<&str>) {
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    (name, labels)
}
