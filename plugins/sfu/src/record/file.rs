// SPDX-License-Identifier: MPL-2.0

//! A recording on disk: written so that whatever moment ends the process leaves a file that plays, and read again.
//!
//! What `isofmp4mux` makes is kept as it is, with two boxes between its header and the first fragment: one that says
//! whose recording this is, and an empty one, which becomes the index (`sidx`) when the file is finished. A fragment
//! is written as an empty box first, and becomes one by the four bytes of its type once all of it is there. The file
//! gets its name when its first fragment is there. While it is written it is locked, which ends with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::boxes::{self, HEADER_MAX, Header, Part, Reference, Span};
use super::settings::Of;

/// What the box holds that makes a file ours.
const OURS: [u8; 16] = *b"gst-sfu-recorded";
/// Room for an index of 1,361 parts, each of which begins with a keyframe.
const INDEX_ROOM: usize = 16 * 1024;
/// No header of ours is longer, nor is a fragment's. Files of others may say anything.
const BOX_MAX: u64 = 4 * 1024 * 1024;

/// Whose recording it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) stream: String,
    /// The room that is recorded, and who publishes the stream there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    /// When the first picture was taken, in ms since 1970.
    pub(crate) start_ms: u64,
}

/// Which recordings somebody looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Stream(String),
    Room(String),
}

impl About {
    /// Of a recording that begins with a picture of this age.
    pub(super) fn new(stream: &str, of: &Of, age: Duration) -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH + age);
        let (room, identity) = match of {
            Of::Stream => (None, None),
            Of::Room { room, identity } => (Some(room.clone()), Some(identity.clone())),
        };
        Self {
            stream: stream.to_owned(),
            room,
            identity,
            start_ms: start.map_or(0, |d| d.as_millis() as u64),
        }
    }

    fn is_of(&self, whose: &Whose) -> bool {
        match whose {
            Whose::Stream(stream) => self.stream == *stream,
            Whose::Room(room) => self.room.as_ref() == Some(room),
        }
    }

    fn to_box(&self) -> io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self)?;
        let mut made = ((24 + text.len()) as u32).to_be_bytes().to_vec();
        made.extend(b"uuid");
        made.extend(OURS);
        made.extend(text);
        Ok(made)
    }
}

/// The parts that the fragments so far make, each of which begins with a keyframe.
#[derive(Debug, Default)]
struct Parts {
    reference: Option<Reference>,
    parts: Vec<Part>,
    /// Sound before the first picture, in bytes.
    before: u64,
}

impl Parts {
    /// Takes note of a fragment of `bytes`, whose `moof` has this content.
    fn add(&mut self, moof: &[u8], bytes: u64) {
        let span = self.reference.and_then(|r| Span::read(moof, &r));
        match (span, self.parts.last_mut()) {
            (Some(span), last) if span.key || last.is_none() => {
                if let Some(last) = last {
                    // Parts follow each other without a gap.
                    last.end = span.start.max(last.start);
                }
                self.parts.push(Part {
                    bytes: bytes + std::mem::take(&mut self.before),
                    start: span.start,
                    end: span.end,
                });
            }
            (span, Some(last)) => {
                last.bytes += bytes;
                last.end = span.map_or(last.end, |s| s.end.max(last.end));
            }
            (_, None) => self.before += bytes,
        }
    }

    fn duration(&self) -> Duration {
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else {
            return Duration::ZERO;
        };
        let timescale = self.reference.map_or(1, |r| u64::from(r.timescale));
        Duration::from_millis(
            last.end.saturating_sub(first.start).saturating_mul(1_000) / timescale,
        )
    }

    fn index(&self) -> Option<Vec<u8>> {
        let reference = self.reference.as_ref().filter(|_| !self.parts.is_empty())?;
        Some(boxes::index(&self.parts, reference, INDEX_ROOM))
    }
}

/// Writes the index over the empty box at `at`: its type last, so that it is never half an index, also when the power goes.
fn write_index(file: &File, at: u64, parts: &Parts) -> io::Result<()> {
    let Some(index) = parts.index() else {
        return Ok(());
    };
    file.write_all_at(&index[8..], at + 8)?;
    file.sync_data()?;
    file.write_all_at(&index[..8], at)
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) fragments: u64,
    pub(super) duration: Duration,
}

/// A file that is being written. See the module's description.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// None before the first fragment.
    file: Option<File>,
    header: Vec<u8>,
    about: About,
    /// What came and is no whole box or fragment yet.
    pending: Vec<u8>,
    /// Up to here all is whole.
    committed: u64,
    index_at: Option<u64>,
    parts: Parts,
    fragments: u64,
}

impl Writer {
    /// Nothing is written before there is a fragment. No file must be there then.
    pub(super) fn new(path: &Path, about: About) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            header: Vec::new(),
            about,
            pending: Vec::new(),
            committed: 0,
            index_at: None,
            parts: Parts::default(),
            fragments: 0,
        }
    }

    /// Takes what the muxer made. What is whole by now is in the file when this returns.
    pub(super) fn write<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        for piece in pieces {
            self.pending.extend_from_slice(piece);
        }
        loop {
            let mut at = 0;
            let mut moof = None;
            // A fragment ends with its media.
            let kind = loop {
                let Some(header) = Header::read(&self.pending[at..]) else {
                    return Ok(());
                };
                let size = usize::try_from(header.size).map_err(io::Error::other)?;
                if self.pending.len() - at < size {
                    return Ok(());
                }
                if &header.kind == b"moof" {
                    moof = Some((at, at + header.header as usize..at + size));
                }
                at += size;
                if &header.kind != b"moof" {
                    break header.kind;
                }
            };
            let rest = self.pending.split_off(at);
            let whole = std::mem::replace(&mut self.pending, rest);
            match moof {
                Some((moof, content)) => self.commit_fragment(whole, moof, content)?,
                // Says what the header says already.
                None if &kind == b"styp" => {}
                None => self.commit_header(&whole, kind)?,
            }
        }
    }

    fn commit_header(&mut self, whole: &[u8], kind: [u8; 4]) -> io::Result<()> {
        if self.file.is_some() {
            return self.append(whole);
        }
        self.header.extend(whole);
        if &kind == b"moov" && self.index_at.is_none() {
            self.parts.reference = Reference::find(&whole[8..]);
            self.header.extend(self.about.to_box()?);
            self.index_at = Some(self.header.len() as u64);
            self.header.extend(boxes::empty(INDEX_ROOM));
        }
        Ok(())
    }

    fn commit_fragment(
        &mut self,
        mut whole: Vec<u8>,
        moof: usize,
        content: std::ops::Range<usize>,
    ) -> io::Result<()> {
        let (at, length) = (self.committed, whole.len() as u64);
        self.parts.add(&whole[content], length);
        if self.file.is_none() {
            let mut bytes = std::mem::take(&mut self.header);
            bytes.extend(whole);
            self.file = Some(begin(&self.path, &bytes)?);
            self.committed = bytes.len() as u64;
        } else {
            whole[moof + 4..moof + 8].copy_from_slice(b"free");
            self.append(&whole)?;
            if let Some(file) = &self.file {
                file.write_all_at(b"moof", at + moof as u64 + 4)?;
            }
        }
        self.fragments += 1;
        Ok(())
    }

    /// All of it is in the file, or nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        if let Err(error) = file.write_all_at(bytes, self.committed) {
            // Where this fails as well, repair() cuts it off.
            let _ = file.set_len(self.committed);
            return Err(error);
        }
        self.committed += bytes.len() as u64;
        Ok(())
    }

    /// How much there is so far.
    pub(super) fn written(&self) -> Written {
        Written {
            bytes: self.committed,
            fragments: self.fragments,
            duration: self.parts.duration(),
        }
    }

    /// Writes the index. There is no file where there was no fragment.
    pub(super) fn finish(self) -> io::Result<Written> {
        let written = self.written();
        let Some(file) = &self.file else {
            return Ok(written);
        };
        file.set_len(self.committed)?;
        if let Some(at) = self.index_at {
            write_index(file, at, &self.parts)?;
        }
        file.sync_all()?;
        Ok(written)
    }
}

/// The extension of a file that has no fragment yet.
pub(super) const PART: &str = "part";

/// Makes a file of these bytes and locks it. It gets its name when they are all in it.
fn begin(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let part = path.with_extension(PART);
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&part)?;
    let named = made.lock().and_then(|()| {
        made.write_all_at(bytes, 0)?;
        // Never over a file that is there.
        match path.try_exists()? {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => std::fs::rename(&part, path),
        }
    });
    if named.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    named.map(|()| made)
}

fn read_at(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > BOX_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; length as usize];
    file.read_exact_at(&mut data, at)?;
    Ok(data)
}

/// The header of the box at `at`, where all of it is before `end`.
fn header_at(file: &File, at: u64, end: u64) -> io::Result<Option<Header>> {
    let room = (end.saturating_sub(at)).min(HEADER_MAX as u64);
    let header = Header::read(&read_at(file, at, room)?);
    Ok(header.filter(|h| at.checked_add(h.size).is_some_and(|next| next <= end)))
}

fn content_at(file: &File, at: u64, header: &Header) -> io::Result<Vec<u8>> {
    read_at(file, at + header.header, header.size - header.header)
}

/// How far a recording has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Somebody writes it now.
    Recording,
    /// It has its index.
    Finished,
    /// The process that wrote it was killed. It plays; only seeking takes longer.
    Unfinished,
}

/// What a recording's file tells of itself.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) about: About,
    pub(crate) duration: Duration,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    pub(crate) state: State,
}

/// A recording's beginning: what is before the fragments.
struct Beginning {
    about: About,
    reference: Option<Reference>,
    index_at: u64,
    index: Header,
    fragments_at: u64,
}

impl Beginning {
    /// `None` where it is no recording of ours.
    fn read(file: &File, end: u64) -> io::Result<Option<Self>> {
        let (mut at, mut reference, mut about) = (0, None, None);
        // ftyp, moov, uuid, sidx or free.
        for _ in 0..4 {
            let Some(header) = header_at(file, at, end)? else {
                return Ok(None);
            };
            match (&header.kind, about.take()) {
                (b"ftyp", _) => {}
                (b"moov", _) => reference = Reference::find(&content_at(file, at, &header)?),
                (b"uuid", _) => {
                    let content = content_at(file, at, &header)?;
                    let text = content.strip_prefix(&OURS);
                    about = text.and_then(|text| serde_json::from_slice(text).ok());
                }
                (b"free" | b"sidx", Some(about)) => {
                    return Ok(Some(Self {
                        about,
                        reference,
                        index_at: at,
                        index: header,
                        fragments_at: at + INDEX_ROOM as u64,
                    }));
                }
                _ => return Ok(None),
            }
            at += header.size;
        }
        Ok(None)
    }

    fn is_finished(&self) -> bool {
        &self.index.kind == b"sidx"
    }

    /// Reads the headers of all fragments. Returns also where the last whole one ends.
    fn parts(&self, file: &File, end: u64) -> io::Result<(Parts, u64)> {
        let mut parts = Parts {
            reference: self.reference,
            ..Parts::default()
        };
        let mut at = self.fragments_at;
        while let Some(moof) = header_at(file, at, end)?
            && &moof.kind == b"moof"
            && let Some(mdat) = header_at(file, at + moof.size, end)?
            && &mdat.kind == b"mdat"
        {
            let bytes = moof.size + mdat.size;
            parts.add(&content_at(file, at, &moof)?, bytes);
            at += bytes;
        }
        Ok((parts, at))
    }
}

impl Recording {
    /// Reads a file. `None` where it is no recording of ours.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let size = metadata.len();
        let Some(beginning) = Beginning::read(&file, size)? else {
            return Ok(None);
        };
        let (state, duration) = if beginning.is_finished() {
            let index = content_at(&file, beginning.index_at, &beginning.index)?;
            let duration = boxes::index_duration_ms(&index).unwrap_or_default();
            (State::Finished, Duration::from_millis(duration))
        } else {
            let state = match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => State::Recording,
                _ => State::Unfinished,
            };
            (state, beginning.parts(&file, size)?.0.duration())
        };
        Ok(Some(Self {
            about: beginning.about,
            duration,
            size,
            modified: metadata.modified()?,
            state,
        }))
    }
}

/// Whether the file is one of these recordings, and nobody writes it.
pub(super) fn is_left(path: &Path, whose: &Whose) -> io::Result<bool> {
    let recording = Recording::read(path)?;
    Ok(recording.is_some_and(|r| r.about.is_of(whose) && r.state != State::Recording))
}

/// Whether the file is a recording that was never given its name, by a process that is no more.
pub(super) fn is_part(path: &Path) -> bool {
    let read = || {
        let file = File::open(path)?;
        file.try_lock_shared()?;
        Beginning::read(&file, file.metadata()?.len())
    };
    matches!(read(), Ok(Some(_)))
}

/// Whoever reads a recording's state holds its lock for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Takes the lock of a file that nobody writes.
fn lock_left(file: &File) -> bool {
    (0..LOCK_TRIES).any(|n| {
        if n > 0 {
            std::thread::sleep(LOCK_AGAIN);
        }
        file.try_lock().is_ok()
    })
}

/// Gives a recording whose process was killed its index, and cuts off what is no whole fragment. Returns whether there was
/// something to do.
///
/// Whatever moment ends this as well, the file plays, and the next one does the same again: what is cut off is no part of
/// the recording, and only the last write, of eight bytes, makes the empty box an index.
pub(super) fn repair(path: &Path) -> io::Result<bool> {
    // Most files are finished: they are read only, and their locks left alone.
    let file = File::open(path)?;
    let unfinished = |b: &Beginning| !b.is_finished();
    let left = Beginning::read(&file, file.metadata()?.len())?.is_some_and(|b| unfinished(&b));
    if !left {
        return Ok(false);
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if !lock_left(&file) {
        return Ok(false);
    }
    // It may have been finished meanwhile.
    let metadata = file.metadata()?;
    let Some(beginning) = Beginning::read(&file, metadata.len())?.filter(unfinished) else {
        return Ok(false);
    };
    let (parts, end) = beginning.parts(&file, metadata.len())?;
    if parts.parts.is_empty() {
        return Ok(false);
    }
    if end < metadata.len() {
        file.set_len(end)?;
    }
    write_index(&file, beginning.index_at, &parts)?;
    // Its age is that of what it shows.
    file.set_modified(metadata.modified()?)?;
    Ok(true)
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(super) mod tests;
