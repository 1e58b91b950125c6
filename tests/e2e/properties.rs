// SPDX-License-Identifier: MPL-2.0

//! Each property of each element: it changes in the states that its flags name, and where it does not, whoever sets it is
//! told and reads back what is in force. A new element, or a new property, is asked without being named here.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use sfu_tests::{ndi, netns};

const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(30);
const STATES: [gst::State; 4] = [
    gst::State::Null,
    gst::State::Ready,
    gst::State::Paused,
    gst::State::Playing,
];

/// What an element needs to play.
fn needs(element: &str, folder: &str) -> Vec<(&'static str, String)> {
    let local = || ("listen", "127.0.0.1:0".to_owned());
    match element {
        "sfusignaller" => {
            // Without keys there are no rooms for streams to take part in.
            let keys = format!("{folder}/api.keys");
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&keys, "KEY:a-secret-of-32-characters-or-more\n").unwrap();
            std::fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
            let (udp, shards) = (("udp-port", "0".into()), ("shards", "1".into()));
            vec![local(), udp, shards, ("api-keys-file", keys)]
        }
        "sfurtspserver" | "rtmpserversrc" => vec![local()],
        "srtserver" => vec![
            local(),
            ("pipeline", "appsrc name=caller ! fakesink".into()),
        ],
        "sfurecorder" | "sfuhlssink" => vec![("directory", folder.into())],
        "supervisor" => vec![("pipeline", "videotestsrc is-live=true ! fakesink".into())],
        "peerwatch" => vec![("element", "watched".into())],
        "ndilivesrc" => vec![("url-address", "127.0.0.1:5961".into())],
        _ => Vec::new(),
    }
}

/// Another value than the one that it has, which is as good.
fn other(spec: &glib::ParamSpec, now: &glib::Value) -> glib::Value {
    let text = match spec.name() {
        "layers" => "90:100000",
        "layer" => "lowest",
        "ice-servers" => "stun:stun.example:3478",
        "drain-redirect" => "https://other.example",
        "room-streams" => "meeting=cam1",
        "pushes" => "cam1=rtmp://127.0.0.1/live/key",
        "pipeline" => "audiotestsrc is-live=true ! fakesink",
        "encoder-properties" => "props,threads=2",
        "mix-matrix" => "<<(float)1.0,(float)0.0>>",
        "protocols" => "tcp",
        "framerate" => "25/1",
        _ => "another",
    };
    let range = |minimum: i128, maximum: i128, now: i128| match now < maximum {
        true => now + 1,
        false => minimum,
    };
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        let now = i128::from(now.get::<u32>().unwrap());
        let other = range(spec.minimum().into(), spec.maximum().into(), now);
        u32::try_from(other).unwrap().to_value()
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        let now = i128::from(now.get::<u64>().unwrap());
        let other = range(spec.minimum().into(), spec.maximum().into(), now);
        u64::try_from(other).unwrap().to_value()
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecInt>() {
        let now = i128::from(now.get::<i32>().unwrap());
        let other = range(spec.minimum().into(), spec.maximum().into(), now);
        i32::try_from(other).unwrap().to_value()
    } else if spec.value_type() == glib::Type::BOOL {
        (!now.get::<bool>().unwrap()).to_value()
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecEnum>() {
        let class = spec.enum_class();
        let values = class.values();
        let now = values
            .iter()
            .position(|v| Some(v.value()) == number(now))
            .unwrap_or_default();
        let other = &values[(now + 1) % values.len()];
        other.to_value(&class)
    } else {
        glib::Value::deserialize(text, spec.value_type())
            .unwrap_or_else(|_| panic!("{}: no other value", spec.name()))
    }
}

fn number(value: &glib::Value) -> Option<i32> {
    value
        .transform::<i32>()
        .ok()
        .and_then(|value| value.get().ok())
}

fn read(element: &gst::Element, spec: &glib::ParamSpec) -> String {
    format!("{:?}", element.property_value(spec.name()))
}

/// What the bus says of it, if anything.
fn told(pipeline: &gst::Pipeline, name: &str) -> Option<String> {
    let bus = pipeline.bus().unwrap();
    while let Some(message) = bus.pop_filtered(&[gst::MessageType::Warning]) {
        if let gst::MessageView::Warning(warning) = message.view() {
            let text = warning.error().message().to_owned();
            if text.starts_with(&format!("{name} can't change")) {
                return Some(text);
            }
        }
    }
    None
}

fn may(flags: glib::ParamFlags, state: gst::State) -> bool {
    let playing = gst::PARAM_FLAG_MUTABLE_PLAYING;
    let paused = gst::PARAM_FLAG_MUTABLE_PAUSED | playing;
    match state {
        gst::State::Playing => flags.contains(playing),
        gst::State::Paused => flags.intersects(paused),
        gst::State::Ready => flags.intersects(paused | gst::PARAM_FLAG_MUTABLE_READY),
        _ => true,
    }
}

/// Sets it to another value, and back where that was taken.
fn look(
    pipeline: &gst::Pipeline,
    element: &gst::Element,
    spec: &glib::ParamSpec,
    state: gst::State,
) {
    let factory = element.factory().unwrap().name();
    let name = spec.name();
    let what = format!("{name} of {factory} in {state:?}");
    let readable = spec.flags().contains(glib::ParamFlags::READABLE);
    let now = match readable {
        true => element.property_value(name),
        false => spec.default_value().clone(),
    };
    let before = readable.then(|| read(element, spec));
    element.set_property_from_value(name, &other(spec, &now));
    let after = readable.then(|| read(element, spec));
    let refused = told(pipeline, name);
    if may(spec.flags(), state) {
        assert_eq!(refused, None, "{what}");
        assert!(!readable || before != after, "{what} stays {after:?}");
        element.set_property_from_value(name, &now);
    } else {
        let refused = refused.unwrap_or_else(|| panic!("{what}: nothing is said"));
        assert!(refused.contains(&format!("{state:?}")), "{what}: {refused}");
        assert_eq!(before, after, "{what}");
    }
}

fn check(factory: &str, folder: &Path) {
    let element = gst::ElementFactory::make(factory).build();
    let element = element.unwrap_or_else(|e| panic!("{factory}: {e}"));
    let pipeline = gst::Pipeline::new();
    let watched = gst::ElementFactory::make("fakesink")
        .name("watched")
        .property("async", false)
        .build()
        .unwrap();
    pipeline.add_many([&watched, &element]).unwrap();
    for (name, value) in needs(factory, folder.to_str().unwrap()) {
        element.set_property_from_str(name, &value);
    }
    let own = |spec: &&glib::ParamSpec| spec.owner_type() == element.type_();
    let specs = element.list_properties();
    let writable = |spec: &&glib::ParamSpec| spec.flags().contains(glib::ParamFlags::WRITABLE);
    let specs: Vec<_> = specs.iter().filter(own).filter(writable).collect();
    assert!(!specs.is_empty(), "{factory}");
    for state in STATES {
        pipeline.set_state(state).unwrap();
        let reached = || element.current_state() == state;
        let end = std::time::Instant::now() + Duration::from_nanos(LIMIT.nseconds());
        while !reached() {
            let bus = pipeline.bus().unwrap();
            let error = bus.pop_filtered(&[gst::MessageType::Error]);
            assert!(error.is_none(), "{factory}: {error:?}");
            assert!(std::time::Instant::now() < end, "{factory}: no {state:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = element.state(LIMIT);
        for spec in &specs {
            look(&pipeline, &element, spec, state);
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn properties_change_when_their_flags_say_so() {
    let test = "properties::properties_change_when_their_flags_say_so";
    if !netns::isolated(test, &ndi::environment()) {
        return;
    }
    gst::init().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("properties");
    let mut elements = 0;
    for file in std::fs::read_dir(ndi::repository().join("docs/inspect")).unwrap() {
        let name = file.unwrap().path();
        check(name.file_stem().unwrap().to_str().unwrap(), &folder);
        elements += 1;
    }
    assert!(elements >= 12);
    let _ = std::fs::remove_dir_all(&folder);
}
