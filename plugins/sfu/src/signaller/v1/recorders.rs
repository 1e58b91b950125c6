// SPDX-License-Identifier: MPL-2.0

//! Recordings that are started and stopped by the API: an `sfurecorder` for each stream, in a pipeline of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use gst::prelude::*;
use serde::Serialize;
use sfu_engine::StreamName;
use utoipa::ToSchema;

use super::asked::{Asked, List, Named, Part};
use crate::properties::lock;
use crate::signaller::CAT;
use crate::signaller::problem::Problem;
use crate::signaller::server::{App, Refusal};

/// As many as there may be at a time.
const MOST: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub(in crate::signaller) struct Recorders {
    directory: Option<PathBuf>,
    router: String,
    /// Without a pipeline while it is started.
    running: Mutex<BTreeMap<StreamName, Option<gst::Pipeline>>>,
}

impl Recorders {
    /// `directory` is that of `/recordings`; empty where there is none.
    pub(in crate::signaller) fn new(directory: &str, router: &str) -> Arc<Self> {
        Arc::new(Self {
            directory: (!directory.is_empty()).then(|| directory.into()),
            router: router.to_owned(),
            running: Mutex::default(),
        })
    }

    /// Whether this stream is recorded.
    pub(super) fn has(&self, stream: &StreamName) -> bool {
        lock(&self.running).contains_key(stream)
    }

    fn names(&self) -> Vec<StreamName> {
        lock(&self.running).keys().cloned().collect()
    }

    /// Records a stream from now on, or from when it has a publisher. `false`: it is recorded already. Takes a moment.
    fn start(&self, stream: &StreamName) -> Result<bool, (StatusCode, String)> {
        let directory = self.directory.as_ref().ok_or_else(|| {
            let message = "nothing is recorded here: set recordings-directory of sfusignaller";
            (StatusCode::CONFLICT, message.to_owned())
        })?;
        {
            let mut running = lock(&self.running);
            if running.contains_key(stream) {
                return Ok(false);
            }
            if running.len() >= MOST {
                let message =
                    format!("{MOST} streams are recorded already: stop one of them first");
                return Err((StatusCode::SERVICE_UNAVAILABLE, message));
            }
            running.insert(stream.clone(), None);
        }
        // Who asks meanwhile which streams are recorded does not wait for a disk.
        let started = self.begin(stream, directory);
        let mut running = lock(&self.running);
        match (started, running.get_mut(stream)) {
            (Ok(pipeline), Some(place)) => {
                *place = Some(pipeline);
                Ok(true)
            }
            (Ok(pipeline), None) => {
                drop(running);
                end(&pipeline);
                let what = "the server is being stopped";
                Err((StatusCode::SERVICE_UNAVAILABLE, what.to_owned()))
            }
            (Err(what), _) => {
                running.remove(stream);
                Err((StatusCode::SERVICE_UNAVAILABLE, what))
            }
        }
    }

    fn begin(&self, stream: &StreamName, directory: &Path) -> Result<gst::Pipeline, String> {
        let recorder = gst::ElementFactory::make("sfurecorder")
            .property("stream", stream.as_str())
            .property("router", &self.router)
            .property("directory", directory.to_string_lossy().as_ref())
            .build()
            .map_err(|e| e.to_string())?;
        let pipeline = gst::Pipeline::new();
        pipeline.add(&recorder).map_err(|e| e.to_string())?;
        if let Some(bus) = pipeline.bus() {
            let name = stream.clone();
            // Nobody reads this bus: warnings go to the log.
            bus.set_sync_handler(move |_, message| {
                if let gst::MessageView::Warning(warning) = message.view() {
                    gst::warning!(CAT, "recording {name}: {}", warning.error());
                }
                gst::BusSyncReply::Drop
            });
        }
        if pipeline.set_state(gst::State::Playing).is_err() {
            let _ = pipeline.set_state(gst::State::Null);
            let what = "the recorder does not start; the log says why (GST_DEBUG=sfurecorder:5)";
            return Err(what.to_owned());
        }
        Ok(pipeline)
    }

    /// Its file is finished when this returns, within 1.3 s. `false`: it was not recorded.
    fn stop(&self, stream: &StreamName) -> bool {
        let place = lock(&self.running).remove(stream);
        let is_recorded = place.is_some();
        if let Some(pipeline) = place.flatten() {
            end(&pipeline);
        }
        is_recorded
    }

    /// All of them, at the same time.
    pub(in crate::signaller) fn stop_all(&self) {
        let all = std::mem::take(&mut *lock(&self.running));
        std::thread::scope(|scope| {
            for pipeline in all.values().flatten() {
                scope.spawn(|| end(pipeline));
            }
        });
    }
}

fn end(pipeline: &gst::Pipeline) {
    let _ = pipeline.set_state(gst::State::Null);
}

/// A recording that the API has started.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct Recorder {
    stream: String,
}

fn told(name: &StreamName) -> Recorder {
    Recorder {
        stream: name.as_str().to_owned(),
    }
}

/// The streams that are recorded by the API's wish.
#[utoipa::path(
    get,
    path = "/api/v1/recorders",
    tag = "recordings",
    params(Part),
    operation_id = "list_recorders",
    responses(
        (status = 200, body = List<Recorder>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn list(
    State(app): State<App>,
    Asked(part): Asked<Part>,
) -> Result<Json<List<Recorder>>, Refusal> {
    let names = app.recorders.names();
    let behind = names.iter().filter(|name| part.is_behind(name.as_str()));
    Ok(Json(part.of(
        behind.map(|name| (name.as_str().to_owned(), told(name))),
    )?))
}

/// Records a stream, from now on or from when it has a publisher, until it is stopped or the server ends.
#[utoipa::path(
    put,
    path = "/api/v1/recorders/{stream}",
    tag = "recordings",
    params(("stream" = inline(Named), Path, description = "Its name")),
    operation_id = "start_recorder",
    responses(
        (status = 200, description = "It was recorded already", body = Recorder),
        (status = 201, description = "It is recorded", body = Recorder),
        (status = 409, description = "The server has no folder for recordings", body = Problem,
         content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "So many are recorded already", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn start(
    State(app): State<App>,
    Named(name): Named,
) -> Result<(StatusCode, Json<Recorder>), Refusal> {
    let (recorders, stream) = (app.recorders.clone(), name.clone());
    let started = app.looks.run(move || recorders.start(&stream)).await?;
    let is_new = started.map_err(|(status, what)| Refusal::new(status, what))?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(told(&name))))
}

/// Finishes the recording.
#[utoipa::path(
    delete,
    path = "/api/v1/recorders/{stream}",
    tag = "recordings",
    params(("stream" = inline(Named), Path, description = "Its name")),
    operation_id = "stop_recorder",
    responses(
        (status = 204, description = "Its file is finished"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::signaller) async fn stop(
    State(app): State<App>,
    Named(name): Named,
) -> Result<StatusCode, Refusal> {
    let (recorders, stream) = (app.recorders.clone(), name.clone());
    if app.looks.run(move || recorders.stop(&stream)).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = format!("{name} is not recorded by the API's wish");
    Err(Refusal::new(StatusCode::NOT_FOUND, message))
}
