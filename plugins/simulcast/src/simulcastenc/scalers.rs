// SPDX-License-Identifier: MPL-2.0

//! Pictures in memory that is not the system's: what makes them smaller there, and what brings them back.

use super::encoders::memories;

/// Elements that take a kind of memory, by name, whatever they do with it.
fn that_take(memory: &str) -> impl Iterator<Item = gst::ElementFactory> {
    all().filter(move |factory| {
        let taken = memories(factory, gst::PadDirection::Sink);
        taken.iter().any(|taken| taken == memory)
    })
}

fn all() -> impl Iterator<Item = gst::ElementFactory> {
    let factories =
        gst::ElementFactory::factories_with_type(gst::ElementFactoryType::ANY, gst::Rank::NONE);
    factories.into_iter().filter(|factory| {
        let klass = factory.metadata("klass").unwrap_or_default();
        klass.contains("Filter") && klass.contains("Video")
    })
}

fn gives(factory: &gst::ElementFactory, caps: &gst::Caps) -> bool {
    factory.static_pad_templates().into_iter().any(|template| {
        template.direction() == gst::PadDirection::Src && template.caps().can_intersect(caps)
    })
}

/// Makes pictures of this memory smaller, in it.
pub(super) fn within(memory: &str) -> Option<gst::ElementFactory> {
    let same = super::front::in_memory(memory);
    that_take(memory).find(|factory| {
        let klass = factory.metadata("klass").unwrap_or_default();
        klass.contains("Scaler") && gives(factory, &same)
    })
}

/// Brings pictures of this memory into the system's.
pub(super) fn out_of(memory: &str) -> Option<gst::ElementFactory> {
    let plain = gst::Caps::new_empty_simple("video/x-raw");
    that_take(memory).find(|factory| gives(factory, &plain))
}

/// The kinds of memory that something installed brings into the system's.
pub(super) fn readable() -> Vec<String> {
    let plain = gst::Caps::new_empty_simple("video/x-raw");
    let readers = all().filter(|factory| gives(factory, &plain));
    let mut all: Vec<_> = readers
        .flat_map(|factory| memories(&factory, gst::PadDirection::Sink))
        .collect();
    all.sort();
    all.dedup();
    all
}
