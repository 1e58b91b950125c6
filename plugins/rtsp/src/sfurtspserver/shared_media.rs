// SPDX-License-Identifier: MPL-2.0

//! The media that the players of a stream share, and who comes as the last one leaves.
//!
//! `gst-rtsp-server` asks for the media's key first, looks the media up then, and prepares it: a player whose media ends in
//! between gets 503. So each media is held for a while after it has been prepared and after each question for its key, longer than a
//! player needs from there to the preparation; where it ends nevertheless, the next player gets a new one by another key.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{RTSPMedia, RTSPMediaStatus};

use super::CAT;
use super::imp::lock;

/// How long a media stays for those who have its key.
const HOLD: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct SharedMedia(Arc<Mutex<State>>);

/// For what the media itself owns.
#[derive(Debug, Clone)]
pub(super) struct WeakMedia(Weak<Mutex<State>>);

impl WeakMedia {
    fn upgrade(&self) -> Option<SharedMedia> {
        self.0.upgrade().map(SharedMedia)
    }

    /// Those who come now get another one.
    pub(super) fn renew(&self) {
        let Some(shared) = self.upgrade() else {
            return;
        };
        let media = lock(&shared.0).media.upgrade();
        if let Some(media) = media {
            shared.give_up(&media);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// How many medias ended before this one.
    generation: u64,
    media: glib::WeakRef<RTSPMedia>,
    /// Who looked the media up first has prepared it.
    is_prepared: bool,
    /// What keeps it, and until when.
    held: Option<(Hold, Instant)>,
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
            && is_prepared
            && !self.hold(&media)
        {
            gst::debug!(CAT, "a player came as the last one left");
            self.give_up(&media);
        }
        format!("stream-{}", lock(&self.0).generation)
    }

    /// A new media, which those who come next are to share. Whoever is first prepares it.
    pub(super) fn set(&self, media: &RTSPMedia) {
        {
            let mut state = lock(&self.0);
            state.media.set(Some(media));
            state.is_prepared = false;
        }
        let shared = self.downgrade();
        media.connect_prepared(move |media| {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            if shared.is(media) {
                shared.hold(media);
                lock(&shared.0).is_prepared = true;
            }
        });
    }

    /// Whether somebody plays it, or one of those before it has not ended yet.
    pub(super) fn is_in_use(&self) -> bool {
        let state = lock(&self.0);
        let mut all = state.ending.iter().chain([&state.media]);
        all.any(|media| media.upgrade().is_some())
    }

    pub(super) fn downgrade(&self) -> WeakMedia {
        WeakMedia(Arc::downgrade(&self.0))
    }

    /// Lets go of what nobody has asked for meanwhile, or at once.
    pub(super) fn release(&self, at_once: bool) {
        let now = Instant::now();
        let held = lock(&self.0)
            .held
            .take_if(|(_, until)| at_once || *until <= now);
        let_go(held);
    }

    fn is(&self, media: &RTSPMedia) -> bool {
        lock(&self.0).media.upgrade().as_ref() == Some(media)
    }

    /// Keeps a media from ending for a while. False where it ends already.
    fn hold(&self, media: &RTSPMedia) -> bool {
        use RTSPMediaStatus::{Prepared, Preparing, Suspended};
        if !matches!(media.status(), Prepared | Preparing | Suspended) {
            return false;
        }
        let until = Instant::now() + HOLD;
        let extended = {
            let mut state = lock(&self.0);
            let held = state.held.as_mut().filter(|(hold, _)| hold.0 == *media);
            held.map(|held| held.1 = until)
        };
        if extended.is_some() {
            return true;
        }
        if media.prepare(None).is_err() {
            return false;
        }
        let before = lock(&self.0).held.replace((Hold(media.clone()), until));
        let_go(before);
        true
    }

    fn give_up(&self, media: &RTSPMedia) {
        let held = {
            let mut state = lock(&self.0);
            if state.media.upgrade().as_ref() != Some(media) {
                // Another player was first.
                return;
            }
            state.ending.retain(|media| media.upgrade().is_some());
            state.ending.push(media.downgrade());
            state.media.set(None);
            state.generation += 1;
            state.held.take()
        };
        let_go(held);
    }
}

/// One more user of a media, which keeps it from ending.
#[derive(Debug)]
struct Hold(RTSPMedia);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock();
        let _ = self.0.unprepare();
        self.0.unlock();
    }
}

/// Not on this thread, which may be the one that takes connections: the pipeline may have to stop.
fn let_go(held: Option<(Hold, Instant)>) {
    if let Some((hold, _)) = held {
        let element = hold.0.element();
        element.call_async(move |_| drop(hold));
    }
}
