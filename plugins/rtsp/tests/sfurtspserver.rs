// SPDX-License-Identifier: MPL-2.0
//! `sfurtspserver` alone: what is set wrongly is said. What it serves is in `tests/e2e/rtsp_out.rs`.

use gst::prelude::*;

fn server(properties: &[(&str, &str)]) -> gst::Element {
    gst::init().unwrap();
    // Tests of one process register them more than once.
    let _ = gstsfu::plugin_register_static();
    let _ = gstsfurtsp::plugin_register_static();
    let element = gst::ElementFactory::make("sfurtspserver").build().unwrap();
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    element
}

/// The one error with which an element does not start.
fn error(element: &gst::Element) -> String {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]);
    match message.expect("an error").view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        _ => unreachable!("only errors are popped"),
    }
}

#[test]
fn what_is_set_wrongly_is_said() {
    for (name, value, says) in [
        ("listen", "8554", "HOST:PORT"),
        (
            "users",
            "ann:a,hunter2",
            "users: entry 2 is not NAME:PASSWORD",
        ),
        ("users-file", "/nowhere/users", "can't be read"),
        ("udp-ports", "20000", "FIRST-LAST"),
    ] {
        let message = error(&server(&[("listen", "127.0.0.1:0"), (name, value)]));
        assert!(message.contains(says), "{name}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn passwords_cannot_be_read_back() {
    let server = server(&[("users", "ann:hunter2")]);
    let users = server.find_property("users").unwrap();
    assert!(!users.flags().contains(glib::ParamFlags::READABLE));
    server.set_state(gst::State::Null).unwrap();
}

/// Also where its thread has not begun yet.
#[test]
fn it_stops_as_soon_as_it_has_started() {
    let server = server(&[("listen", "127.0.0.1:0"), ("router", "stops")]);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for state in [gst::State::Ready, gst::State::Paused, gst::State::Playing] {
            for _ in 0..50 {
                server.set_state(state).unwrap();
                server.set_state(gst::State::Null).unwrap();
            }
        }
        let _ = done.send(());
    });
    let ended = ended.recv_timeout(std::time::Duration::from_secs(60));
    assert!(ended.is_ok(), "it hangs");
}
