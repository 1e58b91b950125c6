// SPDX-License-Identifier: MPL-2.0

//! Files that may change under us: read whole, up to a size, and told apart from what they were.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// A chain has some KiB.
const FILE_MAX: u64 = 1024 * 1024;

/// Which version of a file was read. Links are followed: tools that renew certificates change those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
    })
}

/// All of it. Neither a device nor a pipe can make us wait, or read for ever.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".into());
    }
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut octets = Vec::new();
    let mut file = file.take(FILE_MAX + 1);
    file.read_to_end(&mut octets).map_err(|e| e.to_string())?;
    if octets.len() as u64 > FILE_MAX {
        return Err("it is larger than 1 MiB".into());
    }
    Ok(octets)
}
