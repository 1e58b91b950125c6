// SPDX-License-Identifier: MPL-2.0

//! Encoders that publish to the server under test: programs of their own, killed when dropped.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::ndi;

/// What `ffmpeg` encodes: 640x360 at 30 frames a second with a tone, a keyframe each second.
const PICTURE: &str = "-re -f lavfi -i testsrc2=size=640x360:rate=30 -f lavfi -i sine=440:sample_rate=48000 \
    -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 30 -c:a aac -ac 2";

/// See the module's description.
#[derive(Debug)]
pub struct Publisher(Child);

impl Publisher {
    /// Starts a program. `name` names its log.
    pub fn start(name: &str, program: &str, arguments: &[&str]) -> Result<Self> {
        let log = log(name)?;
        let output = File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{program} does not start: run ./sfu packages test"))?;
        Ok(Self(child))
    }

    /// Publishes a test picture with `ffmpeg`, with or without B-frames.
    pub fn ffmpeg(name: &str, b_frames: bool, format: &str, address: &str) -> Result<Self> {
        let mut arguments = vec!["-nostdin", "-loglevel", "warning"];
        arguments.extend(PICTURE.split_whitespace());
        arguments.extend(["-bf", if b_frames { "2" } else { "0" }]);
        arguments.extend(["-f", format, address]);
        Self::start(name, "ffmpeg", &arguments)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end, and tells what it has said.
    pub fn ended(mut self, name: &str) -> Result<String> {
        self.0.wait()?;
        said(name)
    }
}

/// What a program has said until now.
pub fn said(name: &str) -> Result<String> {
    let text = std::fs::read(log(name)?)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // As by a crash: nobody is told.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn log(name: &str) -> Result<PathBuf> {
    let folder = ndi::repository().join("target/e2e-logs");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{name}.log")))
}
