// SPDX-License-Identifier: MPL-2.0

//! The recordings of `sfurecorder`: their list, and the files with ranges, so that browsers seek in them. Only what is
//! a recording is listed and served, whatever else lies in the folder.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sfu_access::Action;

use super::door::{Pass, want};
use super::files;
use super::server::{App, Refusal};
use super::workers::{RECORDINGS, Workers};
use crate::properties::lock;
use crate::record::file::{Recording, State as Progress};
use crate::record::folder;

/// The newest ones that are listed.
const LISTED: usize = 1_000;

/// A file as it was when it was read: its length, and when it was written to.
type Version = (u64, Option<SystemTime>);

/// The folder, and what is known of its files.
#[derive(Debug)]
pub(super) struct Recordings {
    root: PathBuf,
    /// Reading a file again is only needed when it has changed.
    known: Mutex<HashMap<PathBuf, (Version, Option<Recording>)>>,
    workers: Workers,
}

impl Recordings {
    /// `None` where none are to be shown.
    pub(super) fn new(directory: &str) -> Option<Arc<Self>> {
        (!directory.is_empty()).then(|| {
            Arc::new(Self {
                root: directory.into(),
                known: Mutex::default(),
                workers: Workers::on_disk(RECORDINGS),
            })
        })
    }

    /// Looks at them off the runtime's own threads, when its turn comes.
    pub(super) async fn look<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let workers = self.workers.clone();
        workers.run(move || work(&self)).await
    }

    fn read(&self, path: &FilePath) -> io::Result<Option<Recording>> {
        let metadata = std::fs::metadata(path)?;
        let version = (metadata.len(), metadata.modified().ok());
        let known = lock(&self.known);
        if let Some((seen, recording)) = known.get(path)
            && *seen == version
            // Whether somebody writes it does not show in that.
            && recording.as_ref().is_none_or(|r| r.state == Progress::Finished)
        {
            return Ok(recording.clone());
        }
        drop(known);
        let recording = Recording::read(path)?;
        let mut known = lock(&self.known);
        known.insert(path.to_owned(), (version, recording.clone()));
        Ok(recording)
    }

    /// All recordings, the newest first.
    fn list(&self) -> Vec<(PathBuf, Recording)> {
        let files = folder::files(&self.root);
        let mut known = lock(&self.known);
        known.retain(|path, _| path.exists());
        drop(known);
        let read = |path: PathBuf| Some((path.clone(), self.read(&path).ok()??));
        let mut found: Vec<_> = files.into_iter().filter_map(read).collect();
        found.sort_by_key(|(_, recording)| std::cmp::Reverse(recording.about.start_ms));
        found
    }

    /// The file of a recording that is named as in the list. `None` for everything else.
    fn find(&self, name: &str) -> Option<(PathBuf, Recording)> {
        let relative = FilePath::new(name);
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        if name.is_empty() || !relative.components().all(plain) {
            return None;
        }
        // A link must not lead out of the folder either.
        let root = self.root.canonicalize().ok()?;
        let path = root.join(relative).canonicalize().ok()?;
        if !path.starts_with(&root) || path.extension().is_none_or(|e| e != "mp4") {
            return None;
        }
        let recording = self.read(&path).ok()??;
        Some((path, recording))
    }

    fn describe(&self, path: &FilePath, recording: &Recording) -> Option<RecordingFile> {
        let file = path.strip_prefix(&self.root).ok()?.to_str()?;
        let end = recording.modified.duration_since(UNIX_EPOCH);
        Some(RecordingFile {
            file: file.to_owned(),
            stream: recording.about.stream.clone(),
            room: recording.about.room.clone(),
            identity: recording.about.identity.clone(),
            start_ms: recording.about.start_ms,
            end_ms: end.map_or(0, |d| d.as_millis() as u64),
            duration_ms: recording.duration.as_millis() as u64,
            size: recording.size,
            state: match recording.state {
                Progress::Recording => "recording",
                Progress::Finished => "finished",
                Progress::Unfinished => "unfinished",
            },
        })
    }

    /// All recordings, as they are told.
    pub(super) fn described(&self) -> Vec<RecordingFile> {
        let all = self.list();
        let described = all.iter().filter_map(|(path, r)| self.describe(path, r));
        described.collect()
    }

    /// Deletes a recording that is named as in the list, unless somebody writes it.
    pub(super) fn delete(&self, name: &str) -> Deleted {
        match self.find(name) {
            None => Deleted::Unknown,
            Some((_, recording)) if recording.state == Progress::Recording => Deleted::Busy,
            Some((path, _)) => match std::fs::remove_file(path) {
                Ok(()) => Deleted::Gone,
                Err(error) => Deleted::Failed(error),
            },
        }
    }
}

/// A recording, as it is told.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RecordingFile {
    /// Its name, in the folder.
    pub(super) file: String,
    pub(super) stream: String,
    /// The room that was recorded, and who published the stream there.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// When its first picture was taken, in ms since 1970: files of a room are in sync by that.
    start_ms: u64,
    end_ms: u64,
    duration_ms: u64,
    /// In octets.
    size: u64,
    /// `recording`, `finished`, or `unfinished` where the process that wrote it was killed.
    state: &'static str,
}

/// What became of a file that was to be deleted.
pub(super) enum Deleted {
    Gone,
    Unknown,
    Busy,
    Failed(io::Error),
}

pub(super) fn of(app: &App) -> Result<Arc<Recordings>, Refusal> {
    app.recordings.clone().ok_or_else(|| {
        let message = "no recordings are shown here: set recordings-directory of sfusignaller to the directory of sfurecorder";
        Refusal::new(StatusCode::NOT_FOUND, message)
    })
}

/// The parameters of `GET /api/recordings`.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    stream: Option<String>,
}

/// Of which stream a file is a recording, for the gate.
pub(super) async fn stream_of(app: &App, file: &str) -> Option<String> {
    let recordings = app.recordings.clone()?;
    let file = file.to_owned();
    let found = recordings.look(move |all| all.find(&file)).await.ok()?;
    found.map(|(_, recording)| recording.about.stream)
}

/// `GET /api/recordings[?stream=NAME]`: those that may be seen by who asks.
pub(super) async fn list(
    State(app): State<App>,
    pass: Pass,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, Refusal> {
    let recordings = of(&app)?;
    let rights = pass.rights(&app);
    let wanted = move |recording: &Recording| {
        let name = &recording.about.stream;
        let asked = query.stream.as_ref().is_none_or(|stream| stream == name);
        asked && rights.may(&[want(Action::Record, name)]).is_ok()
    };
    let list = recordings.look(move |recordings| {
        let all = recordings.list().into_iter().filter(|(_, r)| wanted(r));
        let described = all.filter_map(|(path, r)| recordings.describe(&path, &r));
        described.take(LISTED).collect::<Vec<_>>()
    });
    Ok(Json(json!({ "recordings": list.await? })))
}

/// `GET /recordings`, `GET /recordings/play/{file}`: the pages, where there is something to show.
pub(super) async fn page(
    State(app): State<App>,
    uri: axum::http::Uri,
) -> Result<Response, Refusal> {
    of(&app)?;
    Ok(super::pages::recordings(
        uri.path().starts_with("/recordings/play/"),
    ))
}

/// The parameters of `GET /recordings/files/{file}`.
#[derive(Debug, Deserialize)]
pub(super) struct FileQuery {
    download: Option<String>,
}

/// `GET /recordings/files/{file}[?download=1]`, also in ranges (RFC 9110, section 14).
pub(super) async fn file(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<FileQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let recordings = of(&app)?;
    let missing =
        format!("there is no recording {name:?}; those that there are, are listed at /recordings");
    let found = recordings.look(move |all| all.find(&name)).await?;
    let (path, recording) = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, missing))?;
    let served = app.files.serve(&path, request).await?;
    let mut response = served.map_err(|error| {
        let message = format!("the file can't be read: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    // One that is still written to grows.
    let cache = match recording.state {
        Progress::Finished => "private, max-age=3600",
        Progress::Recording | Progress::Unfinished => "no-store",
    };
    files::keep(&mut response, cache);
    let kind = if query.download.is_some() {
        "attachment"
    } else {
        "inline"
    };
    if let Some(value) = disposition(kind, &path, &recording) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// A name for who saves the file: that of the stream and of the file, in characters that any system takes.
fn disposition(kind: &str, path: &FilePath, recording: &Recording) -> Option<HeaderValue> {
    let file = path.file_name()?.to_str()?;
    let stream = recording.about.stream.replace('/', "-");
    let name = if file.starts_with(&stream) {
        file.to_owned()
    } else {
        format!("{stream}_{file}")
    };
    let plain = |c: char| {
        let plain = c.is_ascii_alphanumeric() || "._-".contains(c);
        if plain { c } else { '_' }
    };
    let name: String = name.chars().map(plain).collect();
    HeaderValue::try_from(format!("{kind}; filename=\"{name}\"")).ok()
}
