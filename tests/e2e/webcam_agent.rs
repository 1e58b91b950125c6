// SPDX-License-Identifier: MPL-2.0

//! `pipelines/webcam-agent`: a camera and a far server may come late, be killed and return; browsers, RTSP players and the
//! far server have the picture each time.

use sfu_tests::ndi;
use sfu_tests::netns;
use sfu_tests::server::{self, Server, free_ports};

use crate::rtsp_in::{camera, wait_for_health};
use crate::rtsp_out::{probe, probe_hls};
use crate::webrtcbin_plays::watch;

/// The number of the newest segment in the playlist of the only layer; 0 where there is none.
fn newest_segment(agent: &Server) -> u64 {
    let playlist = agent.get("/hls/door/v0.m3u8").unwrap_or_default();
    let segments = playlist.lines().filter_map(|l| l.strip_prefix("v0-"));
    let numbers = segments.filter_map(|l| l.strip_suffix(".ts")?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// Bytes of all recordings.
fn recorded(agent: &Server) -> u64 {
    let list = agent.json("/api/recordings").unwrap();
    let files = list["recordings"].as_array().cloned().unwrap_or_default();
    files.iter().filter_map(|file| file["size"].as_u64()).sum()
}

/// Every way out has picture and sound.
fn probe_all(agent: &Server, rtsp: u16, far: &Server) {
    let begun = newest_segment(agent);
    let written = recorded(agent);
    wait_for_health(agent, "door", true);
    watch(agent, "door", None);
    let url = format!("rtsp://127.0.0.1:{rtsp}/door");
    for transport in ["tcp", "udp"] {
        let (content, seen) = probe(transport, &url);
        assert!(
            content && seen.contains("h264|width=640|height=360"),
            "{seen}"
        );
        assert!(seen.contains("opus"), "{seen}");
    }
    let newer = || Ok((newest_segment(agent) > begun).then_some(()));
    agent.wait_for("a new HLS segment", newer).unwrap();
    let (content, seen) = probe_hls(&agent.url("/hls/door/index.m3u8"));
    assert!(content && seen.contains("codec_name=h264"), "{seen}");
    assert!(seen.contains("codec_name=aac"), "{seen}");
    let grows = || Ok((recorded(agent) > written).then_some(()));
    agent.wait_for("a recording that grows", grows).unwrap();
    far.wait_for_stream("far/door").unwrap();
    watch(far, "far/door", None);
}

#[test]
fn camera_and_far_server_return_and_all_outputs_with_them() {
    let test = "webcam_agent::camera_and_far_server_return_and_all_outputs_with_them";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    gst::init().unwrap();
    let ((camera_port, far_udp), (rtsp, _)) = (free_ports().unwrap(), free_ports().unwrap());
    let far_ports = (free_ports().unwrap().0, far_udp);
    let source = format!("SOURCE=rtsp://127.0.0.1:{camera_port}/live");
    let whip = format!("WHIP=http://127.0.0.1:{}/whip/far/door", far_ports.0);
    let rtsp_port = format!("RTSP_PORT={rtsp}");
    let folder = ndi::repository().join("target/e2e-logs/webcam_hls");
    let hls = format!("HLS={}", folder.display());
    let folder = ndi::repository().join("target/e2e-logs/webcam_recordings");
    let recordings = format!("DIR={}", folder.display());
    let keys = [
        &source,
        &recordings,
        &whip,
        &rtsp_port,
        &hls,
        "STREAM=door",
        "LAYERS=360:700k",
    ];
    let agent = Server::pipeline("webcam_agent", "webcam-agent", &keys).unwrap();
    wait_for_health(&agent, "door", false);
    let first = camera("webcam_camera_1", camera_port);
    let far = Server::pipeline_at(far_ports, "webcam_far_1", "sfu", &[]).unwrap();
    probe_all(&agent, rtsp, &far);

    drop(first);
    wait_for_health(&agent, "door", false);
    let _second = camera("webcam_camera_2", camera_port);
    probe_all(&agent, rtsp, &far);

    far.kill();
    let far = Server::pipeline_at(far_ports, "webcam_far_2", "sfu", &[]).unwrap();
    probe_all(&agent, rtsp, &far);
}
