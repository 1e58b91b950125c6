// SPDX-License-Identifier: MPL-2.0

//! What elements of several plugins have in common. It is linked into each of them, and registers no type.

mod deinterlace;
mod delay;
pub mod kick;
pub mod layers;
mod live;
pub mod mixer;
pub mod properties;
pub mod refusal;
pub mod server;
pub mod signals;

pub use delay::Delay;
pub use live::is_live;

use gst::prelude::*;

/// Whether a pipeline waits for this element's EOS before it posts its own.
pub fn is_sink(element: &gst::Element) -> bool {
    element.element_flags().contains(gst::ElementFlags::SINK)
}
