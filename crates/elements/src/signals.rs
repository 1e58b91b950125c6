// SPDX-License-Identifier: MPL-2.0

//! Signals of what happens, emitted on a thread of their own: handlers of an application may take as long as they like, and
//! may stop the element, which waits for none of them.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;

use gst::glib;
use gst::glib::subclass::Signal;
use gst::prelude::*;

/// What may wait for handlers that are slow; what is more is lost to them.
const QUEUE: usize = 256;

/// What is done with each thing that is put into the queue, on a thread that ends when the queue is dropped.
pub fn handlers<T: Send + 'static>(
    name: &str,
    element: glib::WeakRef<gst::Element>,
    act: impl Fn(&gst::Element, &T) + Send + 'static,
) -> io::Result<SyncSender<T>> {
    let (queue, queued) = sync_channel::<T>(QUEUE);
    let run = move || {
        while let Ok(told) = queued.recv() {
            let Some(element) = element.upgrade() else {
                return;
            };
            act(&element, &told);
        }
    };
    Builder::new().name(name.into()).spawn(run)?;
    Ok(queue)
}

/// A signal that tells something, whose argument is a structure.
pub fn told(name: &str) -> Signal {
    let told = [gst::Structure::static_type()];
    Signal::builder(name).param_types(told).build()
}

/// Emits an element's signals, until it is dropped.
#[derive(Debug, Clone)]
pub struct Signals(SyncSender<(&'static str, gst::Structure)>);

impl Signals {
    /// Begins with none.
    pub fn start(element: &impl IsA<gst::Element>) -> io::Result<Self> {
        let element = element.upcast_ref::<gst::Element>().downgrade();
        let emit = |element: &gst::Element, (name, told): &(&'static str, gst::Structure)| {
            element.emit_by_name::<()>(name, &[told]);
        };
        handlers("signals", element, emit).map(Self)
    }

    /// Emits one. Never waits.
    pub fn emit(&self, name: &'static str, told: gst::Structure) {
        let _ = self.0.try_send((name, told));
    }
}
