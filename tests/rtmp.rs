// SPDX-License-Identifier: MPL-2.0

//! RTMP services as the tests need them: `nginx` with its RTMP module, each with a folder and a port of its own, killed
//! when dropped; and what `ffmpeg` and `ffprobe` say of what such a service gives out.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ndi;

const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
const START: Duration = Duration::from_secs(10);

/// See the module's description.
#[derive(Debug)]
pub struct Service {
    nginx: Child,
    folder: PathBuf,
    port: u16,
}

impl Service {
    /// Starts one on a port that was free. `name` names its folder among the logs.
    pub fn start(name: &str, port: u16) -> Result<Self> {
        let folder = ndi::repository().join("target/e2e-logs").join(name);
        std::fs::create_dir_all(&folder)?;
        let log = folder.join("error.log");
        std::fs::write(&log, "")?;
        // One process, which ends when it is killed.
        let configuration = format!(
            "daemon off; master_process off; load_module {MODULE}; pid nginx.pid; error_log error.log info;\n\
             events {{ worker_connections 64; }}\n\
             rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
        );
        std::fs::write(folder.join("nginx.conf"), configuration)?;
        let nginx = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .args(["-e", "error.log", "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nginx does not start: run ./sfu packages test")?;
        let mut service = Self {
            nginx,
            folder,
            port,
        };
        service.wait_until_it_listens()?;
        Ok(service)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let end = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.nginx.try_wait()? {
                bail!("nginx ended with {status}: {}", self.log()?);
            }
            if Instant::now() > end {
                bail!("nginx does not listen: {}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What it has logged since it was started.
    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("error.log"))?)
    }

    /// How often somebody began to publish.
    pub fn publishers(&self) -> Result<usize> {
        Ok(self.log()?.matches(" publish: name=").count())
    }

    /// Begins to write what it gives out under a key, as it is, for so many seconds.
    pub fn record(&self, key: &str, name: &str, seconds: u32) -> Result<Recording> {
        let file = self.folder.join(name);
        let _ = std::fs::remove_file(&file);
        let address = format!("rtmp://127.0.0.1:{}/live/{key}", self.port);
        let limit = (seconds + 20).to_string();
        let ffmpeg = Command::new("timeout")
            .args([&limit, "ffmpeg", "-nostdin", "-loglevel", "warning", "-y"])
            .args(["-i", &address, "-t", &seconds.to_string(), "-c", "copy"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("ffmpeg does not start: run ./sfu packages test")?;
        Ok(Recording { ffmpeg, file })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // As by a crash.
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

/// A recording under way.
#[derive(Debug)]
pub struct Recording {
    ffmpeg: Child,
    file: PathBuf,
}

impl Recording {
    /// Waits until it is done, and looks at what was recorded.
    pub fn finish(mut self) -> Result<Recorded> {
        let status = self.ffmpeg.wait()?;
        if !status.success() {
            bail!("{} was not recorded: {status}", self.file.display());
        }
        Recorded::probe(&self.file)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.ffmpeg.kill();
        let _ = self.ffmpeg.wait();
    }
}

/// What a recording holds.
#[derive(Debug)]
pub struct Recorded {
    /// The codecs, by kind: `video` first.
    pub codecs: Vec<String>,
    /// When pictures are shown, in seconds.
    pub pictures: Vec<f64>,
    /// When keyframes are shown, in seconds.
    pub keyframes: Vec<f64>,
    /// When sounds are heard, in seconds.
    pub sounds: Vec<f64>,
    /// What a decoder complains of.
    pub broken: String,
}

impl Recorded {
    fn probe(file: &Path) -> Result<Self> {
        let output = Command::new("ffprobe")
            .args(["-loglevel", "error", "-of", "json", "-show_entries"])
            .arg("stream=codec_name,codec_type:packet=codec_type,pts_time,flags")
            .arg(file)
            .output()?;
        let found: Value = serde_json::from_slice(&output.stdout)?;
        let list = |key: &str| found[key].as_array().cloned().unwrap_or_default();
        let mut codecs: Vec<_> = list("streams")
            .iter()
            .map(|s| (s["codec_type"] != "video", s["codec_name"].clone()))
            .collect();
        codecs.sort_by_key(|(is_sound, _)| *is_sound);
        let times = |kind: &str, keyframes: bool| {
            let packets = list("packets")
                .into_iter()
                .filter(|p| p["codec_type"] == kind);
            let wanted = packets
                .filter(|p| !keyframes || p["flags"].as_str().is_some_and(|f| f.contains('K')));
            wanted
                .filter_map(|p| p["pts_time"].as_str()?.parse().ok())
                .collect()
        };
        let names = codecs.iter().filter_map(|(_, name)| name.as_str());
        Ok(Self {
            codecs: names.map(str::to_owned).collect(),
            pictures: times("video", false),
            keyframes: times("video", true),
            sounds: times("audio", false),
            broken: decode(file)?,
        })
    }
}

/// What `ffmpeg` complains of when it decodes a file.
fn decode(file: &Path) -> Result<String> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-i"])
        .arg(file)
        .args(["-f", "null", "-"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // FLV counts in milliseconds: two short frames may have the same.
    let complaints = said
        .lines()
        .filter(|line| !line.contains("non monotonically"));
    Ok(complaints.collect::<Vec<_>>().join("\n"))
}

/// The longest time between two moments.
pub fn longest_gap(moments: &[f64]) -> f64 {
    let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.fold(0.0, f64::max)
}
