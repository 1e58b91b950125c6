// SPDX-License-Identifier: MPL-2.0

//! Who refused what: `not-negotiated` says of a stream only that somebody did, and comes from the element at its beginning.

use std::collections::HashSet;

use gst::prelude::*;

const RTP: &str = "application/x-rtp";
/// Caps are shown up to here.
const LONGEST: usize = 300;

/// Posts in the place of an error from inside `element` that is only `not-negotiated` what explains it. Returns whether it has.
pub fn tell(element: &gst::Element, message: &gst::Message) -> bool {
    let told = match message.view() {
        gst::MessageView::Error(error) => explained(element, error),
        _ => None,
    };
    let Some(told) = told else {
        return false;
    };
    gst::element_error!(element, gst::CoreError::Negotiation, ("{told}"));
    true
}

/// What an error from inside `element` means, where that is `not-negotiated`: names the pad of `element`, who refused, what, and
/// what it takes.
fn explained(element: &gst::Element, error: &gst::message::Error) -> Option<String> {
    let debug = error.debug();
    let is_one = debug.is_some_and(|debug| debug.contains("not-negotiated"));
    let source = error
        .src()
        .and_then(|src| src.downcast_ref::<gst::Element>());
    let source = source.filter(|_| is_one)?;
    let refusal = source
        .src_pads()
        .into_iter()
        .find_map(|pad| find(pad, element));
    let from = source.name();
    let told = refusal.unwrap_or_else(|| {
        format!("no format was agreed on behind {from}: link what takes what it gives")
    });
    Some(told)
}

/// Has an element say what its sink pad does not take. Else whoever sends it would be the only one that says anything.
pub fn watch(pad: &gst::Pad, takes: impl Fn() -> gst::Caps + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let takes = takes();
        if caps.caps().can_intersect(&takes) {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(element) = pad.parent_element() {
            let (name, caps, takes) = (pad.name(), short(&caps.caps_owned()), short(&takes));
            gst::element_error!(
                element,
                gst::StreamError::WrongType,
                ("{name}: {caps} can't be taken; this pad takes {takes}. Decode or convert it first")
            );
        }
        info.flow_res = Err(gst::FlowError::NotNegotiated);
        gst::PadProbeReturn::Handled
    });
}

/// Whether nothing of it is of a kind that is taken. Such formats a pad that says what it does not take has to let come: else a
/// queue in front is refused, and what stands before that says "not-negotiated". Among those of its kinds upstream chooses.
pub fn is_foreign(caps: &gst::CapsRef, takes: &gst::CapsRef) -> bool {
    // RTP's kinds have one name.
    let like = |one: &gst::StructureRef, taken: &gst::StructureRef| {
        one.name() == taken.name() && (one.name() != RTP || one.can_intersect(taken))
    };
    let is_like = |one: &gst::StructureRef| takes.iter().any(|taken| like(one, taken));
    !caps.is_empty() && !caps.is_any() && !caps.iter().any(is_like)
}

/// Lets formats come that are of no kind that a pad takes, so that its element can say so.
pub fn let_come(pad: &gst::Pad, takes: gst::Caps) {
    let mask = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PULL;
    pad.add_probe(mask, move |_, info| {
        match info.query_mut().map(|query| query.view_mut()) {
            Some(gst::QueryViewMut::Caps(query)) => {
                let none = query.result().is_some_and(gst::CapsRef::is_empty);
                let foreign = query.filter_owned().filter(|caps| is_foreign(caps, &takes));
                if let Some(foreign) = foreign.filter(|_| none) {
                    query.set_result(&foreign);
                }
            }
            Some(gst::QueryViewMut::AcceptCaps(query)) if is_foreign(query.caps(), &takes) => {
                query.set_result(true);
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Follows a stream to where its format stopped: the last one on the way that does not take it. Those before it only hand on what it
/// says, as queues do.
fn find(first: gst::Pad, element: &gst::Element) -> Option<String> {
    let (mut seen, mut next) = (HashSet::new(), vec![(first, None::<String>, None)]);
    let mut last = None;
    while let Some((pad, mut out, carried)) = next.pop() {
        if !seen.insert(pad.clone()) {
            continue;
        }
        let Some(peer) = pad.peer() else {
            continue;
        };
        // A pad of the element itself is passed by its inner side.
        out = inner_of(&peer, element).or(out);
        let mut carries = None;
        if let Some(caps) = pad.current_caps().or(carried)
            && peer.current_caps().as_ref() != Some(&caps)
            && !peer.query_accept_caps(&caps)
        {
            last = Some(refused(&peer, &caps, out.as_deref()));
            let hands_on = peer.pad_template_caps().can_intersect(&caps);
            if !hands_on {
                return last;
            }
            carries = Some(caps);
        }
        let inside = peer.iterate_internal_links().into_iter().flatten();
        next.extend(inside.map(|pad| (pad, out.clone(), carries.clone())));
    }
    last
}

/// The name of the element's pad that this one is the inner side of.
fn inner_of(pad: &gst::Pad, element: &gst::Element) -> Option<String> {
    let outer = pad.parent().and_downcast::<gst::Pad>()?;
    let parent = outer.parent()?;
    (parent == *element.upcast_ref::<gst::Object>()).then(|| outer.name().to_string())
}

fn refused(pad: &gst::Pad, caps: &gst::Caps, out: Option<&str>) -> String {
    let mut owner = pad.parent();
    while let Some(inner) = owner
        .as_ref()
        .and_then(|owner| owner.downcast_ref::<gst::Pad>())
    {
        owner = inner.parent();
    }
    let name = owner.as_ref().map(GstObjectExt::name).unwrap_or_default();
    let factory = owner
        .and_downcast::<gst::Element>()
        .and_then(|e| e.factory());
    let factory = factory.map(|f| f.name()).unwrap_or_default();
    let takes = short(&pad.query_caps(None));
    let of = out.map_or_else(String::new, |out| format!("{out}: "));
    format!(
        "{of}{name} ({factory}) does not take {}; it takes {takes}. Put what converts between the two, or another element in its place",
        short(caps)
    )
}

fn short(caps: &gst::Caps) -> String {
    let text = caps.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an element in the middle says of an error that its stream ends with.
    fn error(line: &str) -> String {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(line).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let _ = pipeline.set_state(gst::State::Playing);
        let bus = pipeline.bus().unwrap();
        let message =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Error]);
        let message = message.expect("an error");
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!("only errors are popped");
        };
        let told = explained(pipeline.upcast_ref(), error);
        pipeline.set_state(gst::State::Null).unwrap();
        told.unwrap_or_else(|| error.error().to_string())
    }

    #[test]
    fn who_refuses_what_is_named() {
        for (line, says) in [
            (
                "typefind force-caps=video/x-h264 ! identity ! queue ! capsfilter name=only caps=video/x-vp8 ! fakesink",
                &[
                    "only (capsfilter)",
                    "does not take video/x-h264",
                    "it takes video/x-vp8",
                ][..],
            ),
            (
                "typefind force-caps=audio/x-opus ! queue ! capsfilter name=in caps=video/x-raw ! identity ! fakesink",
                &["in (capsfilter)", "audio/x-opus"],
            ),
            (
                "typefind force-caps=video/x-h264 ! queue ! vp8dec name=dec ! queue ! fakesink",
                &["dec (vp8dec)", "video/x-h264", "video/x-vp8"],
            ),
        ] {
            let file = std::env::current_exe().unwrap();
            let told = error(&format!("filesrc location={} ! {line}", file.display()));
            println!("{told}");
            for part in says {
                assert!(told.contains(part), "{line}: {told}");
            }
        }
    }

    #[test]
    fn other_errors_are_left_alone() {
        let told = error("filesrc location=/nowhere/at/all ! fakesink");
        assert!(!told.contains("not take"), "{told}");
        assert!(!told.contains("format"), "{told}");
    }
}
