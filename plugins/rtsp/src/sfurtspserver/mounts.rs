// SPDX-License-Identifier: MPL-2.0

//! From addresses to streams: a mount point for each stream and layer that somebody asked for while it was live.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use gst_rtsp_server::prelude::*;
use gst_rtsp_server::subclass::prelude::*;
use gst_rtsp_server::{RTSPMediaFactory, RTSPMountPoints};

use super::CAT;
use super::factory::StreamFactory;
use super::imp::lock;
use super::location::Location;
use super::server::Shared;
use super::stream;

/// Where it is asked for what is not there. No name of a stream has a `=`.
const NOWHERE: &str = "/nowhere=";

#[derive(Debug, Default)]
pub struct StreamMounts {
    shared: OnceLock<Arc<Shared>>,
    mounted: Mutex<BTreeMap<Location, StreamFactory>>,
}

#[glib::object_subclass]
impl ObjectSubclass for StreamMounts {
    const NAME: &'static str = "GstSfuRtspStreamMounts";
    type Type = Mounts;
    type ParentType = RTSPMountPoints;
}

impl ObjectImpl for StreamMounts {}

impl RTSPMountPointsImpl for StreamMounts {
    /// Called for DESCRIBE and SETUP, on the thread of the client, which may wait.
    fn make_path(&self, url: &gst_rtsp::RTSPUrl) -> Option<glib::GString> {
        let shared = self.shared.get()?;
        let path = self.find(shared, &url.request_uri());
        // Who may not watch it is not to know what is there: 401 comes before 404.
        Some(path.unwrap_or_else(|| NOWHERE.to_owned()).into())
    }
}

impl StreamMounts {
    fn find(&self, shared: &Arc<Shared>, address: &str) -> Option<String> {
        let (location, track) = Location::parse(address)?;
        let path = location.path();
        if let Some(track) = track {
            let known = lock(&self.mounted).contains_key(&location);
            return known.then(|| format!("{path}/{track}"));
        }
        let router = &shared.settings.router;
        let in_use = lock(&self.mounted)
            .get(&location)
            .is_some_and(StreamFactory::is_in_use);
        if in_use && stream::is_live(router, &location.stream) {
            return Some(path);
        }
        if stream::tracks(router, &location).is_none() {
            // Not the address, which may have a token in it.
            gst::info!(CAT, "{}: there is nothing to play", location.shown());
            return None;
        }
        let mut mounted = lock(&self.mounted);
        mounted.entry(location).or_insert_with_key(|location| {
            let factory = StreamFactory::new(shared, location);
            self.obj().add_factory(&path, factory.clone());
            factory
        });
        Some(path)
    }
}

glib::wrapper! {
    pub struct Mounts(ObjectSubclass<StreamMounts>)
        @extends RTSPMountPoints;
}

impl Mounts {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mounts: Self = glib::Object::new();
        // It is for a role that nobody has: who is known gets 404, and everybody else 401.
        let nowhere = RTSPMediaFactory::new();
        nowhere.add_role_from_structure(&gst::Structure::new_empty("nobody"));
        mounts.add_factory(NOWHERE, nowhere);
        let _ = mounts.imp().shared.set(Arc::clone(shared));
        mounts
    }

    /// Forgets the streams that are gone and that nobody waits for.
    pub(super) fn tidy(&self) {
        let imp = self.imp();
        let Some(shared) = imp.shared.get() else {
            return;
        };
        let gone = |location: &Location, factory: &StreamFactory| {
            !factory.is_in_use() && !stream::is_live(&shared.settings.router, &location.stream)
        };
        let mut mounted = lock(&imp.mounted);
        mounted.retain(|location, factory| {
            let gone = gone(location, factory);
            if gone {
                self.remove_factory(&location.path());
            }
            !gone
        });
    }

    /// Lets go of what is kept for players who may come, where nobody came for a while, or at once.
    pub(super) fn release(&self, at_once: bool) {
        let mounted = lock(&self.imp().mounted);
        for factory in mounted.values() {
            factory.release(at_once);
        }
    }

    /// The streams that are being played.
    pub(super) fn in_use(&self) -> usize {
        let mounted = lock(&self.imp().mounted);
        mounted.values().filter(|f| f.is_in_use()).count()
    }
}
