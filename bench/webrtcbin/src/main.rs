// SPDX-License-Identifier: MPL-2.0

//! One encoded stream to many viewers as GStreamer alone does it: a tee, and a queue and a `webrtcbin` for each viewer.
//!
//! Takes H.264 as RTP on a UDP port, and answers WHEP offers at any path. Only for comparison in `./sfu bench`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use gst::glib;
use gst::prelude::*;
use gst_webrtc::{
    WebRTCBundlePolicy, WebRTCICEGatheringState, WebRTCRTPTransceiver,
    WebRTCRTPTransceiverDirection, WebRTCSDPType, WebRTCSessionDescription,
};

const CAPS: &str = "application/x-rtp,media=video,encoding-name=H264,payload=102,clock-rate=90000,\
                    packetization-mode=(string)1,profile-level-id=(string)42e01f";
const GATHER_WITHIN: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, host, http_port, rtp_port] = arguments.as_slice() else {
        bail!("usage: sfu-bench-webrtcbin HOST HTTP_PORT RTP_PORT");
    };
    gst::init()?;
    let source = format!("udpsrc address={host} port={rtp_port} buffer-size=4000000 caps={CAPS}");
    let line = format!("{source} ! tee name=t allow-not-linked=true");
    let pipeline = gst::parse::launch(&line)?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow!("no pipeline"))?;
    pipeline.set_state(gst::State::Playing)?;
    let listener = TcpListener::bind(format!("{host}:{http_port}")).context("HTTP port")?;
    for stream in listener.incoming() {
        let (stream, pipeline) = (stream?, pipeline.clone());
        std::thread::spawn(move || {
            if let Err(error) = serve(stream, &pipeline) {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

/// Answers the offers of a connection.
fn serve(stream: TcpStream, pipeline: &gst::Pipeline) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().context("Content-Length")?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, text) = match add_viewer(pipeline, &String::from_utf8(body)?) {
            Ok(answer) => ("201 Created", answer),
            Err(error) => ("500 Internal Server Error", format!("{error:#}")),
        };
        let size = text.len();
        write!(
            writer,
            "HTTP/1.1 {status}\r\nContent-Type: application/sdp\r\nContent-Length: {size}\r\n\r\n{text}"
        )?;
    }
}

/// Adds a branch for a viewer, and answers its offer once all candidates are there.
fn add_viewer(pipeline: &gst::Pipeline, offer: &str) -> Result<String> {
    let queue = gst::ElementFactory::make("queue")
        .property_from_str("leaky", "downstream")
        .property("max-size-buffers", 1_000u32)
        .build()?;
    let webrtc = gst::ElementFactory::make("webrtcbin")
        .property("bundle-policy", WebRTCBundlePolicy::MaxBundle)
        .build()?;
    pipeline.add_many([&queue, &webrtc])?;
    let sink = webrtc.request_pad_simple("sink_0").context("no pad")?;
    let from_queue = queue.static_pad("src").context("no pad")?;
    from_queue.link(&sink)?;
    let transceiver = webrtc.emit_by_name::<WebRTCRTPTransceiver>("get-transceiver", &[&0i32]);
    transceiver.set_property("direction", WebRTCRTPTransceiverDirection::Sendonly);
    let caps: gst::Caps = CAPS.parse()?;
    transceiver.set_property("codec-preferences", caps);
    transceiver.set_property("do-nack", true);
    let (send, gathered) = channel();
    webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
        let state = webrtc.property::<WebRTCICEGatheringState>("ice-gathering-state");
        if state == WebRTCICEGatheringState::Complete {
            // Who waited may have given up.
            let _ = send.send(());
        }
    });
    webrtc.sync_state_with_parent()?;
    queue.sync_state_with_parent()?;
    let message = gst_sdp::SDPMessage::parse_buffer(offer.as_bytes())?;
    let offer = WebRTCSessionDescription::new(WebRTCSDPType::Offer, message);
    call(&webrtc, "set-remote-description", &offer.to_value())?;
    let reply = call(&webrtc, "create-answer", &None::<gst::Structure>.to_value())?;
    let reply = reply.context("no answer was made")?;
    let answer = reply.value("answer")?.get::<WebRTCSessionDescription>()?;
    call(&webrtc, "set-local-description", &answer.to_value())?;
    gathered.recv_timeout(GATHER_WITHIN).context("candidates")?;
    let tee = pipeline.by_name("t").context("no tee")?;
    let branch = tee.request_pad_simple("src_%u").context("no pad")?;
    branch.link(&queue.static_pad("sink").context("no pad")?)?;
    let local = webrtc.property::<WebRTCSessionDescription>("local-description");
    Ok(local.sdp().as_text()?)
}

/// Emits a signal that answers by a promise, and waits for that.
fn call(
    webrtc: &gst::Element,
    signal: &str,
    argument: &glib::Value,
) -> Result<Option<gst::Structure>> {
    let promise = gst::Promise::new();
    webrtc.emit_by_name_with_values(signal, &[argument.clone(), promise.to_value()]);
    promise.wait();
    let reply = promise.get_reply().map(ToOwned::to_owned);
    if let Some(error) = reply
        .as_ref()
        .and_then(|r| r.get::<glib::Error>("error").ok())
    {
        bail!("{signal}: {error}");
    }
    Ok(reply)
}
