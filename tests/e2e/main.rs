// SPDX-License-Identifier: MPL-2.0

//! End to end: real NDI, real browsers, a second WebRTC stack. Few, each with a deadline, each cleaning up.

mod admin;
mod api;
mod api_pushes;
mod applications;
mod bad_input;
mod browser_follows_its_network;
mod browser_plays;
mod browser_publishes;
mod conformance;
mod documents;
mod drain;
mod endings;
mod gst_webrtc;
mod load;
mod nat;
mod ndi_by_name;
mod ndi_devices;
mod ndi_source_returns;
mod ndi_to_browser_latency;
mod prometheus;
mod promised;
mod properties;
mod proxies;
mod publisher_returns;
mod queue;
mod re_encode;
mod record;
mod rooms;
mod rtmp_in;
mod rtsp_in;
mod rtsp_out;
mod small_mtu;
mod srt_in;
mod stacks;
mod studio;
mod studio_pushes;
mod temporal_layers;
mod token;
mod told;
mod turn;
mod udp_blocked;
mod webcam_agent;
mod webrtcbin_plays;
mod whip_to_hls;
