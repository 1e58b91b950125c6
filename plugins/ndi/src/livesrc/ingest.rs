// SPDX-License-Identifier: MPL-2.0
//! The upstream receiver, `ndisrc` and `ndisrcdemux`, kept on a leash: its state is not the bin's
//! but the supervisor's, and its ends and failures become events.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gst::prelude::*;

use super::imp::CAT;
use super::settings::Settings;
use super::shared::{Event, Shared};
use super::stream::{Missing, make};

/// Elements whose names begin so belong to the source's side: their errors are not the pipeline's.
pub(super) const PREFIX: &str = "ingest-";

/// How long `ndisrc` lets `libndi` try to reconnect on its own before it gives up and is started
/// anew, in ms. Neither way alone is quick after every kind of outage.
const RECEIVE_TIMEOUT_MS: u32 = 5_000;

#[derive(Debug, Clone)]
pub(super) struct Ingest {
    source: gst::Element,
    demux: gst::Element,
}

impl Ingest {
    pub(super) fn new(bin: &gst::Bin, shared: &Arc<Shared>) -> Result<Self, Missing> {
        let source = make("ndisrc", "ingest-ndisrc")?;
        let demux = make("ndisrcdemux", "ingest-ndisrcdemux")?;
        let (added, end) = (Arc::clone(shared), Arc::clone(shared));
        demux.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Src {
                let mask = gst::PadProbeType::BLOCK_DOWNSTREAM;
                let block = pad.add_probe(mask, |_, _| gst::PadProbeReturn::Ok);
                let attempt = added.attempt.load(Relaxed);
                added.send(Event::PadAdded {
                    pad: pad.clone(),
                    block,
                    attempt,
                });
            }
        });
        let output = source.static_pad("src").ok_or(Missing("ndisrc"))?;
        output.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info
                .event()
                .is_some_and(|event| event.type_() == gst::EventType::Eos)
            {
                let attempt = end.attempt.load(Relaxed);
                end.send(Event::Gone {
                    reason: "the source stopped sending".into(),
                    attempt,
                });
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });

        let ingest = Self { source, demux };
        for element in ingest.elements() {
            element.set_locked_state(true);
            bin.add(element).map_err(|_| Missing("ndisrc"))?;
        }
        ingest
            .source
            .link(&ingest.demux)
            .map_err(|_| Missing("ndisrcdemux"))?;
        Ok(ingest)
    }

    fn elements(&self) -> [&gst::Element; 2] {
        [&self.demux, &self.source]
    }

    /// Takes `ndisrc` to READY, for which it loads the NDI runtime.
    pub(super) fn load_runtime(&self) -> Result<(), gst::StateChangeError> {
        self.source.set_state(gst::State::Ready).map(drop)
    }

    /// Starts a connection; whether it comes about is told by events.
    pub(super) fn start(
        &self,
        settings: &Settings,
        shared: &Shared,
    ) -> Result<(), glib::BoolError> {
        let source = &self.source;
        source.set_property("ndi-name", settings.ndi_name.as_deref());
        source.set_property("url-address", settings.url_address.as_deref());
        if let Some(name) = &settings.receiver_ndi_name {
            source.set_property("receiver-ndi-name", name);
        }
        source.set_property("bandwidth", settings.bandwidth);
        source.set_property("connect-timeout", settings.connect_timeout);
        source.set_property("max-queue-length", settings.max_queue_length);
        source.set_property("timeout", RECEIVE_TIMEOUT_MS);
        // The others fail on sources without alpha.
        source.set_property_from_str("color-format", "uyvy-bgra");

        let attempt = shared.attempt.fetch_add(1, Relaxed) + 1;
        gst::debug!(
            CAT,
            obj = source,
            "Connecting to {:?}, attempt {attempt}",
            settings.source()
        );
        for element in self.elements() {
            element.set_locked_state(false);
            element.sync_state_with_parent()?;
        }
        Ok(())
    }

    /// Ends the connection and with it the demuxer's pads.
    pub(super) fn stop(&self) {
        for element in [&self.source, &self.demux] {
            element.set_locked_state(true);
            if element.set_state(gst::State::Ready).is_err() {
                gst::warning!(CAT, obj = element, "Did not stop");
            }
        }
    }
}
