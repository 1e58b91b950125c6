// SPDX-License-Identifier: MPL-2.0

//! A stream of a room: its `sfusrc`, and the pads that it has on the outside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use sfu_engine::StreamName;

use super::{CAT, SfuRoomSrc, SfuRoomSrcPad};
use crate::properties::lock;

/// The numbers of the next video and audio pads.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    video: AtomicU32,
    audio: AtomicU32,
}

/// Pads by those of the inner source.
type Pads = Arc<Mutex<HashMap<gst::Pad, SfuRoomSrcPad>>>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) identity: String,
    pub(super) source: gst::Element,
    pads: Pads,
}

impl Member {
    pub(super) fn begin(
        element: &SfuRoomSrc,
        identity: &str,
        stream: &StreamName,
        numbers: &Arc<Numbers>,
        properties: &[(&'static str, glib::SendValue)],
    ) -> Result<Self, String> {
        let source = gst::ElementFactory::make("sfusrc").property("stream", stream.as_str());
        let source = properties.iter().fold(source, |source, (name, value)| {
            source.property(name, value.clone())
        });
        let source = source.build().map_err(|e| e.to_string())?;
        let member = Self {
            identity: identity.to_owned(),
            source: source.clone(),
            pads: Pads::default(),
        };
        member.watch(element, stream, numbers);
        let text = |e: glib::BoolError| e.to_string();
        element.add(&source).map_err(text)?;
        if let Err(error) = source.sync_state_with_parent() {
            member.end(element);
            return Err(text(error));
        }
        Ok(member)
    }

    fn watch(&self, element: &SfuRoomSrc, stream: &StreamName, numbers: &Arc<Numbers>) {
        let of = (self.identity.clone(), stream.to_string());
        let (pads, outer, numbers) = (self.pads.clone(), element.downgrade(), numbers.clone());
        self.source.connect_pad_added(move |_, inner| {
            let Some(outer) = outer.upgrade() else {
                return;
            };
            match add(&outer, inner, &of, &numbers) {
                Ok(pad) => _ = lock(&pads).insert(inner.clone(), pad),
                Err(error) => gst::warning!(CAT, obj = outer, "{}: no pad: {error}", of.1),
            }
        });
        let (pads, outer) = (self.pads.clone(), element.downgrade());
        self.source.connect_pad_removed(move |_, inner| {
            // Its EOS has passed.
            let pad = lock(&pads).remove(inner);
            if let Some((outer, pad)) = outer.upgrade().zip(pad) {
                remove(&outer, &pad);
            }
        });
    }

    /// Ends what follows, and takes the pads and the source away.
    pub(super) fn end(self, element: &SfuRoomSrc) {
        let pads = std::mem::take(&mut *lock(&self.pads));
        for pad in pads.values() {
            pad.push_event(gst::event::Eos::new());
            remove(element, pad);
        }
        crate::sink::take_out(element.upcast_ref(), &self.source);
    }
}

fn add(
    element: &SfuRoomSrc,
    inner: &gst::Pad,
    (identity, stream): &(String, String),
    numbers: &Numbers,
) -> Result<SfuRoomSrcPad, String> {
    let (kind, number) = match inner.name().starts_with("video") {
        true => ("video", &numbers.video),
        false => ("audio", &numbers.audio),
    };
    let number = number.fetch_add(1, Relaxed);
    let template = element.pad_template(&format!("{kind}_%u"));
    let template = template.ok_or("the element has no template for it")?;
    let text = |e: glib::BoolError| e.to_string();
    let name = format!("{kind}_{number}");
    let pad = SfuRoomSrcPad::new(&template, &name, (identity, stream), inner).map_err(text)?;
    pad.set_active(true).map_err(text)?;
    element.add_pad(&pad).map_err(text)?;
    Ok(pad)
}

fn remove(element: &SfuRoomSrc, pad: &SfuRoomSrcPad) {
    let _ = pad.set_active(false);
    let _ = element.remove_pad(pad);
}
