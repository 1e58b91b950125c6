// SPDX-License-Identifier: MPL-2.0

//! Ends that no media tells of: a pipeline posts its EOS when all its sinks have, and some would wait for ever.

use std::time::Duration;

use gst::prelude::*;
use sfu_elements::is_sink;

/// What has not begun by then never will: other sources' EOS is on its way meanwhile.
const LAST: Duration = Duration::from_millis(200);
/// Ctrl-C returns within 2 s. Recordings and playlists have their ends earlier than this.
const PATIENCE: Duration = Duration::from_millis(1_400);

/// Why a pipeline of our own failed, where its bus tells it.
pub(crate) fn failure(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(error.error().message().to_owned()),
        _ => None,
    }
}

/// EOS came to a source so long ago, and pads that it does not have can't hand it on: whatever follows them never begins,
/// and never ends. Returns whether that has been seen to.
pub(crate) fn idle_sinks_ended(source: &gst::Element, since: Duration) -> bool {
    let Some(bin) = source.parent().and_downcast::<gst::Bin>() else {
        return true;
    };
    if since < LAST {
        return false;
    }
    let top = topmost(bin.clone());
    // A pipeline without any sink posts none by itself.
    if !top.children().iter().any(is_sink) {
        let _ = top.post_message(gst::message::Eos::builder().src(&top).build());
        return true;
    }
    if top.current_state() == gst::State::Playing {
        // It counts its sinks' messages.
        for idle in bin
            .children()
            .iter()
            .filter(|sink| is_sink(sink) && is_idle(sink))
        {
            let _ = idle.post_message(gst::message::Eos::builder().src(idle).build());
        }
        return true;
    }
    // It counts nothing while it waits for a sink to begin.
    let waited_for = |sink: &gst::Element| is_sink(sink) && !is_idle(sink) && !is_finished(sink);
    if top.children().iter().any(waited_for) && since < PATIENCE {
        return false;
    }
    let _ = top.post_message(gst::message::Eos::builder().src(&top).build());
    true
}

fn topmost(mut bin: gst::Bin) -> gst::Bin {
    while let Some(parent) = bin.parent().and_downcast() {
        bin = parent;
    }
    bin
}

/// It takes media, and has got none: maybe it does not even have a pad, which somebody else would request.
fn is_idle(sink: &gst::Element) -> bool {
    let templates = sink.pad_template_list();
    let takes = templates.iter().any(|t| t.direction() == gst::PadDirection::Sink);
    let begun = |pad: &gst::Pad| pad.sticky_event::<gst::event::StreamStart>(0).is_some();
    takes && !sink.sink_pads().iter().any(begun)
}

/// It takes media, and has got all.
fn is_finished(sink: &gst::Element) -> bool {
    let pads = sink.sink_pads();
    let ended = |pad: &gst::Pad| pad.pad_flags().contains(gst::PadFlags::EOS);
    !pads.is_empty() && pads.iter().all(ended)
}
