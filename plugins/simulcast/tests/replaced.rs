// SPDX-License-Identifier: MPL-2.0
//! Encoders that fail are replaced, and memory that is not the system's reaches those that take it. One program, one test at
//! a time: what the fake encoder does is common to all.

#[allow(dead_code)]
mod fake;
mod playing;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fake::Fails;
use gst::prelude::*;
use playing::{init, play};

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    init();
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(fake::register);
    one
}

fn launch(line: &str) -> gst::Pipeline {
    gst::parse::launch(line).unwrap().downcast().unwrap()
}

/// Buffers that came out of a pad, and the encoder that made the last ones.
fn counted(pipeline: &gst::Pipeline, sink: &str) -> Arc<Mutex<u32>> {
    let count = Arc::new(Mutex::new(0));
    let seen = count.clone();
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        *seen.lock().unwrap() += 1;
        gst::PadProbeReturn::Ok
    });
    count
}

fn error_of(pipeline: &gst::Pipeline) -> String {
    let wait = gst::ClockTime::from_seconds(20);
    let bus = pipeline.bus().unwrap();
    let message = bus
        .timed_pop_filtered(wait, &[gst::MessageType::Error])
        .expect("an error");
    match message.view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        _ => unreachable!("only errors are popped"),
    }
}

#[test]
fn an_encoder_that_fails_is_replaced_by_the_next_and_no_frame_is_lost() {
    let _alone = alone();
    for (when, given) in [
        (Fails::Never, 60..=60),
        (Fails::AtReady, 0..=0),
        (Fails::AtCaps, 0..=0),
        (Fails::AtCapsLoudly, 0..=0),
        (Fails::AtTheFirstFrame, 1..=2),
        (Fails::Quietly, 1..=2),
        (Fails::Later, 11..=30),
    ] {
        fake::fail(when);
        let pipeline = launch(
            "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=30/1 ! \
             simulcastenc name=e codec=vp8 layers=48:100k,24:50k e.src_0 ! fakesink name=a async=false e.src_1 ! fakesink name=b async=false",
        );
        let counts = [counted(&pipeline, "a"), counted(&pipeline, "b")];
        pipeline.set_state(gst::State::Playing).unwrap();
        let encoder = pipeline.by_name("e").unwrap();
        let bus = pipeline.bus().unwrap();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = bus
            .timed_pop_filtered(gst::ClockTime::from_seconds(30), &types)
            .unwrap();
        assert_eq!(
            message.type_(),
            gst::MessageType::Eos,
            "{when:?}: {message:?}"
        );
        let encoders = encoder.property::<gst::Array>("encoders");
        let names: Vec<String> = encoders.iter().map(|name| name.get().unwrap()).collect();
        let expected = if when == Fails::Never {
            "fakevp8enc"
        } else {
            "vp8enc"
        };
        assert_eq!(names, [expected; 2], "{when:?}");
        pipeline.set_state(gst::State::Null).unwrap();
        for count in counts {
            let count = *count.lock().unwrap();
            assert!(count >= 29, "{when:?}: {count} of 30");
        }
        assert!(
            given.contains(&fake::frames()),
            "{when:?}: {}",
            fake::frames()
        );
    }
}

#[test]
fn where_none_works_the_error_says_what_each_one_said() {
    let _alone = alone();
    for when in [Fails::AtCaps, Fails::AtCapsLoudly, Fails::AtTheFirstFrame] {
        fake::fail(when);
        let pipeline = launch(
            "videotestsrc ! simulcastenc encoder=fakevp8enc codec=vp8 ! fakesink async=false",
        );
        pipeline.set_state(gst::State::Playing).unwrap();
        let text = error_of(&pipeline);
        assert!(text.contains("fakevp8enc: "), "{when:?}: {text}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn memory_of_a_gpu_goes_to_its_encoder_as_it_is() {
    let _alone = alone();
    fake::fail(Fails::Never);
    // The system's memory under another name: nothing here may look into it.
    let source = "videotestsrc num-buffers=10 ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 ! \
        identity name=upload";
    let upload = |pipeline: &gst::Pipeline| {
        let pad = pipeline
            .by_name("upload")
            .unwrap()
            .static_pad("src")
            .unwrap();
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &mut info.data
                && let gst::EventView::Caps(caps) = event.view()
            {
                let mut caps = caps.caps_owned();
                let memory = gst::CapsFeatures::new(["memory:Fake"]);
                caps.make_mut().set_features_simple(Some(memory));
                *event = gst::event::Caps::new(&caps);
            }
            gst::PadProbeReturn::Ok
        });
    };
    let line = format!("{source} ! simulcastenc name=e codec=vp8 layers=48:100k ! fakesink name=a");
    let pipeline = launch(&line);
    upload(&pipeline);
    let count = counted(&pipeline, "a");
    play(&pipeline);
    assert_eq!((*count.lock().unwrap(), fake::frames()), (10, 10));
    // Upstream is told of it first.
    let encoder = gst::ElementFactory::make("simulcastenc")
        .property_from_str("codec", "vp8")
        .build()
        .unwrap();
    encoder.request_pad_simple("src_0").unwrap();
    encoder.set_state(gst::State::Ready).unwrap();
    let caps = encoder.static_pad("sink").unwrap().query_caps(None);
    assert!(caps.features(0).unwrap().contains("memory:Fake"), "{caps}");
    encoder.set_state(gst::State::Null).unwrap();
    // Nothing scales in it: that is said.
    let pipeline = launch(&line.replace("48:100k", "24:100k"));
    upload(&pipeline);
    pipeline.set_state(gst::State::Playing).unwrap();
    let text = error_of(&pipeline);
    assert!(text.contains("scales pictures in memory:Fake"), "{text}");
    pipeline.set_state(gst::State::Null).unwrap();
}
