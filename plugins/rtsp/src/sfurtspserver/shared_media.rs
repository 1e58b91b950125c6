// SPDX-License-Identifier: MPL-2.0

//! The media that the players of a stream share: it ends with the last of them, and who comes at that moment must not get it.
//!
//! `gst-rtsp-server` 1.22 looks a shared media up first and prepares it then, which fails (503 for the player) where the
//! last other player leaves in between. So it is held before it is looked up, until the request has been answered, and where
//! that is too late, the player gets a new one by another key.

use std::sync::{Arc, Mutex};

use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{RTSPMedia, RTSPMediaStatus};

use super::CAT;
use super::imp::lock;

#[derive(Debug, Default)]
pub(super) struct SharedMedia(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many medias ended before this one.
    generation: u64,
    media: glib::WeakRef<RTSPMedia>,
    /// Who looked the media up first has prepared it.
    is_prepared: bool,
    /// Those whose last player has gone, while their pipelines stop.
    ending: Vec<glib::WeakRef<RTSPMedia>>,
}

impl SharedMedia {
    /// The key of the media for a player that comes now. Called on the player's thread, within its request.
    pub(super) fn key(&self) -> String {
        let (media, is_prepared) = {
            let state = lock(&self.0);
            (state.media.upgrade(), state.is_prepared)
        };
        if let Some(media) = media
            && !hold(&media, is_prepared)
        {
            self.give_up(&media);
        }
        format!("stream-{}", lock(&self.0).generation)
    }

    /// A new media, which those who come next are to share.
    pub(super) fn set(&self, media: &RTSPMedia) {
        {
            let mut state = lock(&self.0);
            state.media.set(Some(media));
            state.is_prepared = false;
        }
        let shared = Arc::downgrade(&self.0);
        media.connect_prepared(move |media| {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut state = lock(&shared);
            if state.media.upgrade().as_ref() == Some(media) {
                state.is_prepared = true;
            }
        });
    }

    /// Whether somebody plays it, or one of those before it has not ended yet.
    pub(super) fn is_in_use(&self) -> bool {
        let state = lock(&self.0);
        let mut all = state.ending.iter().chain([&state.media]);
        all.any(|media| media.upgrade().is_some())
    }

    fn give_up(&self, media: &RTSPMedia) {
        let mut state = lock(&self.0);
        if state.media.upgrade().as_ref() != Some(media) {
            // Another player was first.
            return;
        }
        gst::debug!(CAT, "a player came as the last one left");
        state.ending.retain(|media| media.upgrade().is_some());
        state.ending.push(media.downgrade());
        state.media.set(None);
        state.generation += 1;
    }
}

/// One more user of a media, which keeps it from ending.
struct Hold(RTSPMedia);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock();
        let _ = self.0.unprepare();
        self.0.unlock();
    }
}

/// Keeps a media from ending until the request that is being answered has been answered. False where it ends already.
fn hold(media: &RTSPMedia, is_prepared: bool) -> bool {
    use RTSPMediaStatus::{Prepared, Preparing, Suspended, Unprepared};
    match media.status() {
        // Somebody else's request is about to prepare it.
        Unprepared if !is_prepared => return true,
        Prepared | Preparing | Suspended => (),
        _ => return false,
    }
    if media.prepare(None).is_err() {
        return false;
    }
    let mut hold = Some(Hold(media.clone()));
    let answered = move || {
        hold.take();
        glib::ControlFlow::Break
    };
    let idle = glib::idle_source_new(Some("sfurtspserver"), glib::Priority::DEFAULT, answered);
    // Without a context the source goes, and the hold with it.
    if let Some(context) = glib::main_current_source().and_then(|source| source.context()) {
        idle.attach(Some(&context));
    }
    true
}
